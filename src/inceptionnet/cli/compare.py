"""`inceptionnet compare RUN RUN…`: finished runs beside one another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inceptionnet.cli.options import BatchSize, Device, Json, Labels, Workers
from inceptionnet.errors import number_of
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from inceptionnet.study.comparison import Comparison
    from inceptionnet.study.same_images import SameImages

HeldOut = Literal["auto", "val", "test"]


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Run folders of trainings on the same data.")],
    split: Annotated[HeldOut, typer.Option(help="Held-out images to compare the runs on: auto: test, else "
                                                "val.")] = "auto",
    data: Annotated[str | None, typer.Option(help="Where the runs' images are now, if they have moved.")] = None,
    labels: Labels = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page, the figures as JSON and the curves "
                                             "into this new folder.")] = None,
    table: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all images on which the runs disagree into "
                                               "this .csv or .parquet file.")] = None,
    json: Json = False,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
) -> None:  # fmt: skip
    """Compare finished runs: settings that differ, figures, curves, and predictions image by image.

    Where the runs held out the same images, they are evaluated on them: paired differences in accuracy with McNemar's
    test, and the images on which they disagree. Runs of one seed each compare two trainings, not two methods.
    """
    from inceptionnet.cli.tables import print_json
    from inceptionnet.evaluate.table import check_kind, write_table
    from inceptionnet.study.comparison import compare
    from inceptionnet.study.comparison_page import PAGE, check_out, write_comparison
    from inceptionnet.system.devices import default_workers

    if out:
        check_out(out)
    if table:
        check_kind(table, "--table")
    found = compare(
        runs, split=split, data=data, labels=labels, device=device, batch_size=batch_size,
        workers=default_workers(workers),
    )  # fmt: skip
    if out:
        write_comparison(out, found)
    if table and found.same_images:
        write_table(table, found.same_images.columns(), "--table")
    if json:
        print_json(found.to_dict())
        return
    _print(found)
    if table:
        same = found.same_images
        written = number_of("image", len(same.disagreements), ",") if same else ""
        say(f"{table}: {written or 'not written, since there is no comparison image by image'}")
    if out:
        say(f"{out / PAGE}: the page; comparison.json and the curves are beside it")


def _print(found: Comparison) -> None:
    from inceptionnet.cli.tables import print_table
    from inceptionnet.report.html import duration
    from inceptionnet.study.comparison import FIGURES, ONE_SEED
    from inceptionnet.train.settings import value_text

    names = found.figures
    print_table(
        ["run", "network", "parameters", "multiply-adds", "epochs", *(FIGURES[name] for name in names), "on", "time"],
        [
            [
                one.name,
                one.network,
                f"{one.parameters / 1e6:.2f} M",
                f"{one.multiply_adds / 1e9:.3f} G",
                str(one.epochs),
                *(_figure(name, one.figures.get(name)) for name in names),
                f"{one.images:,} {one.split}",
                duration(one.seconds),
            ]
            for one in found.runs
        ],
        right=set(range(2, 7 + len(names))),
        optional=(3,),
        title=f"{found.title} on {found.data}",
        note="accuracies of the last evaluation; training time with its evaluations; no auxiliary heads counted",
    )
    for note in found.notes:
        say(note)
    if found.settings:
        rows = [[name, *map(value_text, values)] for name, values in found.settings.items()]
        say()
        print_table(["setting", *(one.name for one in found.runs)], rows, title="settings that differ")
    else:
        say("no setting differs")
    say(ONE_SEED)
    say()
    if found.same_images:
        _print_paired(found.same_images)
    else:
        say(found.unpaired)


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if name in ("mean_average_precision", "macro_f1") else f"{value:.2%}"


def _print_paired(found: SameImages) -> None:
    from inceptionnet.cli.tables import print_table
    from inceptionnet.evaluate.paired import paired_rows
    from inceptionnet.study.comparison import FIRST

    rows = paired_rows(found.paired)
    pairs = [f"{found.names[i]} vs {found.names[j]}" for i, j in found.paired]
    print_table(
        [
            "runs",
            "only first correct",
            "only second correct",
            f"{found.measure} difference (95 % interval)",
            "p (McNemar)",
        ],
        [[pair, *row[1:]] for pair, row in zip(pairs, rows, strict=True)],
        right={1, 2, 4},
        title=f"image by image, on {number_of('image', found.images, ',')}",
        note=f"last weights on {found.note}",
    )
    if len(pairs) > 1:
        say("p is that of each pair by itself, not corrected for their number")
    for name, reason in found.evaluated.metrics.evaluation.decode_errors:
        say(f"not counted: {name}: {reason}")
    count = len(found.disagreements)
    if not count:
        say("the runs predict the same for every image")
        return
    say()
    print_table(
        ["image", "label", *found.names],
        [
            [
                one.image,
                one.label or "none",
                *(_said(text, correct) for text, correct in zip(one.predicted, one.correct, strict=True)),
            ]
            for one in found.disagreements[:FIRST]
        ],
        title=f"{number_of('image', count, ',')} with different predictions, ✓ correct; the largest difference in "
        "cross-entropy first" + (f"; the first {FIRST}" if count > FIRST else ""),
    )


def _said(predicted: str, correct: bool) -> str:
    return f"{predicted or 'none'}{' ✓' if correct else ''}"
