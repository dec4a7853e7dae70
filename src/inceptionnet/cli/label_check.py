"""`inceptionnet check DATA --weights W`: the labels that look wrong, as a table, a page and a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inceptionnet.cli.options import opened
from inceptionnet.cli.tables import print_json, print_table
from inceptionnet.data.splits import Source
from inceptionnet.errors import ConfigurationError, number_of
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from inceptionnet.train.label_check import LabelCheck


def print_labels(
    source: Source, data: str, weights: str, *, labels: Path | None, html: Path | None, table: Path | None, listed: int,
    seed: int, batch_size: int, workers: int, device: str, json: bool,
) -> int:  # fmt: skip
    """Rank the labels of all splits, print and write the ranking; the number of corrupt images.

    Args:
        labels: the file of labels, if there is one.
        listed: number of images to print.

    Raises:
        InceptionNetError: the data or the weights do not fit, or a file cannot be written.
    """
    from inceptionnet.evaluate.table import write_table
    from inceptionnet.report.labels import write_labels
    from inceptionnet.system.progress import Bar
    from inceptionnet.train.label_check import all_images, check_labels, job_of, kept_features, trained_on

    images, _ = all_images(source)
    _check_files(html, table)
    classifier = opened(weights, device=device)
    job = job_of(weights, data, labels)
    kept = kept_features(weights, job, classifier)
    reused = sum(name in kept for name in images.names)
    with Bar(len(images) - reused, "features") as bar:

        def fitting(count: int) -> None:
            bar.note(f"cross-validation on the features of {number_of('image', count, ',')}")

        found = check_labels(
            classifier, source, kept=kept, batch_size=batch_size, workers=workers, seed=seed, advance=bar.advance,
            fitting=fitting,
        )  # fmt: skip
    ranking = found.ranking
    told = _Told(
        method=_method(source, weights, found.fitted.folds),
        cautions=[*ranking.cautions(), *filter(None, [trained_on(classifier, job, source)])],
        skipped=_skipped(len(found.decode_errors), len(images)),
        columns=ranking.columns(),
    )
    if table:
        write_table(table, told.columns, "--table")
    shown = 0
    if html:
        notes = [told.method, *told.cautions, *([told.skipped] if found.decode_errors else [])]
        shown = write_labels(html, ranking, images, title=f"Labels that look wrong: {source.title}", notes=notes)
    if json:
        about = {"data": data, "split_note": source.note, "weights": weights, "assumed": classifier.assumed}
        print_json({**about, **_figures(found, told)})
        return len(found.decode_errors)
    say(source.note)
    say(told.method)
    if reused:
        say(f"the features of {reused:,} of these images are from {weights}")
    _print(found, told, listed, f"{source.title}: the least probable labels")
    if html:
        say(f"{html}: thumbnails of {number_of('image', shown, ',')}")
    if table:
        say(f"{table}: the whole ranking")
    for name, reason in found.decode_errors:
        say(f"corrupt image skipped: {name}: {reason}")
    if found.decode_errors:
        say(told.skipped)
    return len(found.decode_errors)


def _check_files(html: Path | None, table: Path | None) -> None:
    """Check where results go to, before anything is computed. Raises: ConfigurationError; MissingExtraError."""
    from inceptionnet.evaluate.table import check_kind
    from inceptionnet.system.extras import import_extra

    if table:
        check_kind(table, "--table")
    if html:
        import_extra("jinja2", "reports", f"writing {html}")
    for option, file in (("--html", html), ("--table", table)):
        if file and not file.parent.is_dir():
            raise ConfigurationError(f"{option} {file}: there is no folder {file.parent}; make it or choose another")


def _figures(found: LabelCheck, told: _Told) -> dict[str, Any]:
    """As plain JSON."""
    ranking = found.ranking
    return {
        "method": told.method,
        "images": len(ranking),
        "accuracy": ranking.accuracy,
        "largest_class": ranking.largest_share,
        "label_not_predicted": len(ranking.differing),
        "cautions": told.cautions,
        "decode_errors": [{"name": name, "reason": reason} for name, reason in found.decode_errors],
        "labels": [dict(zip(told.columns, row, strict=True)) for row in told.rows()],
    }


@dataclass(frozen=True)
class _Told:
    """What the table, the page and the JSON say of a ranking."""

    method: str
    cautions: Sequence[str]
    skipped: str
    columns: Mapping[str, Sequence[Any]]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self.columns.values(), strict=True)


def _method(source: Source, weights: str, folds: int) -> str:
    splits = ", ".join(f"{len(split):,} {name}" for name, split in source.splits.items())
    return (
        f"the images of all splits together ({splits}): {folds}-fold cross-validation of a logistic regression on the "
        f"features of {weights}"
    )


def _skipped(corrupt: int, images: int) -> str:
    return f"{corrupt:,} of {number_of('image', images, ',')} {'is' if corrupt == 1 else 'are'} corrupt and not ranked"


def _print(found: LabelCheck, told: _Told, listed: int, title: str) -> None:
    say()
    print_table(
        ["", "image", "split", "label", "probability", "predicted", "probability"],
        [
            [str(rank), name, split, label, f"{own:.1%}", predicted, f"{other:.1%}"]
            for rank, name, split, label, predicted, own, other in islice(told.rows(), listed)
        ],
        right={0, 4, 6},
        optional=(2,),
        title=title,
    )
    differing = len(found.ranking.differing)
    ranked = number_of("image", len(found.ranking), ",")
    are, their = ("is", "its") if differing == 1 else ("are", "their")
    say(f"{differing:,} of {ranked} {are} predicted as another class than {their} label")
    for caution in told.cautions:
        say(caution)
