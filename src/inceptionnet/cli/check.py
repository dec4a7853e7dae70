"""`inceptionnet check DATA`: corrupt images, copies, leaks, shortcuts, class imbalance, labels that look wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import Device, GroupBy, Json, Labels, Splits, Workers
from inceptionnet.errors import ConfigurationError, number_of
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from inceptionnet.data.check import Duplicates, Report

BAR = 40  # characters
RANKING = "Labels that look wrong"


def check(
    data: Annotated[str, typer.Argument(help="Labelled images, as for train.")],
    labels: Labels = None,
    seed: Annotated[int, typer.Option(help="Random seed of the validation split, as for train.")] = 0,
    splits: Splits = None,
    group_by: GroupBy = None,
    limit_listed: Annotated[
        int, typer.Option(help="Number of duplicates of each kind, or with --weights of labels, to list; corrupt "
                          "images are all listed.", min=0)
    ] = 10,
    weights: Annotated[
        str | None, typer.Option(metavar="RUN|WEIGHTS", help="Rank the labels instead: the images whose labels are the "
                                 "least probable by cross-validation on the features of this network come first. A run "
                                 "folder, a weights file of any known layout, or hf:OWNER/NAME.",
                                 rich_help_panel=RANKING)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --weights: write a page with thumbnails of the first "
                                  "images of the ranking.", rich_help_panel=RANKING)
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --weights: write the whole ranking into this .csv or "
                                  ".parquet file.", rich_help_panel=RANKING)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="With --weights: batch size.", min=1, rich_help_panel=RANKING)] = 32,
    workers: Workers = None,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Decode every image of a data set; exit code 0 if all can be decoded, 1 if some are corrupt, 2 for other errors.

    Prints counts by class and split, corrupt images with the reason, sizes, formats, classes that these tell apart,
    images that are the same or nearly the same, and groups in two splits. With --weights it ranks the labels instead,
    the least probable first, which takes one pass of the network over the images.
    """
    from inceptionnet.cli.label_check import print_labels
    from inceptionnet.cli.tables import print_json
    from inceptionnet.data.check import check
    from inceptionnet.data.sources import open_source
    from inceptionnet.system.devices import default_workers
    from inceptionnet.system.progress import Bar

    for option, file in {"html": html, "table": table}.items():
        if file and not weights:
            raise ConfigurationError(f"--{option} {file}: is for the ranking of labels; add --weights, or omit it")
    source = open_source(data, seed=seed, labels=labels, splits=splits, group_by=group_by)
    if weights:
        corrupt_images = print_labels(
            source, data, weights, labels=labels, html=html, table=table, listed=limit_listed, seed=seed,
            batch_size=batch_size, workers=default_workers(workers), device=device, json=json,
        )  # fmt: skip
        if corrupt_images:
            raise typer.Exit(1)
        return
    corrupt = 0
    with Bar(sum(map(len, source.splits.values())), "checking") as bar:

        def advance(images: int, errors: int) -> None:
            nonlocal corrupt
            corrupt += errors
            bar.advance(images, f"{corrupt} corrupt" if corrupt else "")

        report = check(source, workers=default_workers(workers), listed=limit_listed, advance=advance)
    if json:
        print_json({"data": data, "split_note": source.note, **report.to_dict()})
    else:
        _print(report, data, source.note)
    if report.decode_errors:
        raise typer.Exit(1)


def _print(report: Report, data: str, note: str) -> None:
    from inceptionnet.cli.tables import print_table
    from inceptionnet.data.shortcuts import shortcut_lines

    rows = [[name, *(f"{counts[i]:,}" for counts in report.counts.values())] for i, name in enumerate(report.classes)]
    totals = [f"{images:,}" for images in report.images.values()]
    print_table(
        ["class", *report.counts],
        [*rows, [f"total ({number_of('class', len(rows))})", *totals]],
        right=set(range(1, len(totals) + 1)),
        title=data,
        note=note,
    )
    for split, counts in report.counts.items():
        if split == "train" and max(counts) > min(counts):
            most, fewest = (report.classes[counts.index(pick(counts))] for pick in (max, min))
            say(f"{split}: largest class {most} ({max(counts):,}), smallest class {fewest} ({min(counts):,})")
            if report.imbalance_note:
                say(report.imbalance_note)
        elif 0 in counts:
            say(f"{split}: no images of {', '.join(report.classes[i] for i, count in enumerate(counts) if not count)}")

    readable = sum(report.formats.values())
    if readable:
        say()
        most_px = max(found.images for found in report.short_sides)
        print_table(
            ["shorter side, px", "images", ""],
            [
                [
                    f"{found.from_px}–{found.below_px - 1}" if found.below_px else f"{found.from_px} and more",
                    f"{found.images:,}",
                    "█" * -(-BAR * found.images // most_px),
                ]
                for found in report.short_sides
            ],
            right={1},
        )
        sizes = {(one.width_px, one.height_px) for one in report.extremes.values()}
        for extreme, one in report.extremes.items() if len(sizes) > 1 else ():
            say(f"{extreme:9} {one.width_px}×{one.height_px} px, {one.split}: {one.name}")
        say(f"files     {_listed(report.formats)}; {_size(report.bytes)}, {_size(report.bytes // readable)} each")
        say(f"modes     {_listed(report.modes)}")
        if report.unusual:
            say(f"unusual   {_listed(report.unusual)}; converted to plain RGB or grey when decoded")
    for line in shortcut_lines(report.shortcuts):
        say("", line)
    _print_groups(report)
    _print_copies("duplicate", "=", report.duplicates_across_splits, report.duplicates, report.conflicting_labels)
    near = report.near_duplicates_across_splits, report.near_duplicates, report.near_conflicting_labels
    _print_copies("near-duplicate", "≈", *near)
    if report.plain:
        some = f"{number_of('image', report.plain, ',')} {'is' if report.plain == 1 else 'are'}"
        say("", f"{some} too plain to look for near-duplicates")

    if report.decode_errors:
        say()
    for error in report.decode_errors:
        say(f"corrupt image, {error.split}: {error.name}: {error.reason}")
    say()
    if report.decode_errors:
        corrupt = len(report.decode_errors)
        say(f"{corrupt:,} of {number_of('image', len(report), ',')} {'is' if corrupt == 1 else 'are'} corrupt")
    else:
        say(f"all {len(report):,} images can be decoded")


def _print_groups(report: Report) -> None:
    if report.groups:
        counts = ", ".join(f"{count:,} in {split}" for split, count in report.groups.items())
        say(f"groups    {counts} ({report.grouped_by})")
    for splits, found in report.groups_across_splits.items():
        say("", f"{number_of('group', found.groups, ',')} in both {splits}")
        for group in found.examples:
            say(f"  {group}")
        if found.groups > len(found.examples):
            say(f"  … and {found.groups - len(found.examples):,} more")


def _print_copies(
    what: str, sign: str, across: Mapping[str, Duplicates], within: Mapping[str, Duplicates], conflicting: Duplicates
) -> None:
    kinds = {f"in both {splits}": found for splits, found in across.items()}
    kinds |= {f"within {split}": found for split, found in within.items()}
    for kind, found in {**kinds, "with conflicting labels": conflicting}.items():
        if found.images:
            _print_duplicates(f"{number_of(what, found.images, ',')} {kind}", sign, found)


def _print_duplicates(kind: str, sign: str, found: Duplicates) -> None:
    say("", kind)
    for earlier, later in found.examples:
        say(f"  {later} {sign} {earlier}")
    if found.images > len(found.examples):
        say(f"  … and {found.images - len(found.examples):,} more")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
