"""`inceptionnet check DATA --weights W`: the labels that look wrong, as a table, a page and a file."""

from __future__ import annotations

from pathlib import Path

from inceptionnet.cli.options import opened
from inceptionnet.cli.tables import print_json, print_table
from inceptionnet.data.splits import Source
from inceptionnet.errors import ConfigurationError


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
    from inceptionnet.evaluate.table import check_kind, write_table
    from inceptionnet.report.labels import write_labels
    from inceptionnet.system.extras import import_extra
    from inceptionnet.system.progress import Bar
    from inceptionnet.train.label_check import all_images, check_labels, job_of, kept_features, trained_on

    images, _ = all_images(source)
    if table:
        check_kind(table, "--table")
    if html:
        import_extra("jinja2", "reports", f"writing {html}")
    for option, file in (("--html", html), ("--table", table)):
        if file and not file.parent.is_dir():
            raise ConfigurationError(f"{option} {file}: there is no folder {file.parent}; make it or choose another")
    classifier = opened(weights, device=device)
    job = job_of(weights, data, labels)
    kept = kept_features(weights, job, classifier)
    reused = sum(name in kept for name in images.names)
    with Bar(len(images) - reused, "features") as bar:

        def fitting(count: int) -> None:
            bar.note(f"cross-validation on the features of {count:,} images")

        found = check_labels(
            classifier, source, kept=kept, batch_size=batch_size, workers=workers, seed=seed, advance=bar.advance,
            fitting=fitting,
        )  # fmt: skip
    ranking, fitted = found.ranking, found.fitted
    splits = ", ".join(f"{len(split):,} {name}" for name, split in source.splits.items())
    how = (
        f"the images of all splits together ({splits}): {fitted.folds}-fold cross-validation of a logistic regression "
        f"on the features of {weights}"
    )
    seen = trained_on(classifier, job, source)
    cautions = [*ranking.cautions(), *([seen] if seen else [])]
    skipped = f"{len(found.decode_errors):,} of {len(images):,} images are corrupt and not ranked"
    columns = ranking.columns()
    if table:
        write_table(table, columns, "--table")
    shown = 0
    if html:
        notes = [how, *cautions, *([skipped] if found.decode_errors else [])]
        shown = write_labels(html, ranking, images, title=f"Labels that look wrong: {source.title}", notes=notes)
    if json:
        print_json({
            "data": data,
            "split_note": source.note,
            "weights": weights,
            "assumed": classifier.assumed,
            "method": how,
            "images": len(ranking),
            "accuracy": ranking.accuracy,
            "largest_class": ranking.largest_share,
            "label_not_predicted": len(ranking.differing),
            "cautions": cautions,
            "decode_errors": [{"name": name, "reason": reason} for name, reason in found.decode_errors],
            "labels": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        })  # fmt: skip
        return len(found.decode_errors)
    print(source.note)
    if classifier.assumed:
        print(f"assumed: {classifier.assumed}")
    print(how)
    if reused:
        print(f"the features of {reused:,} of these images are from {weights}")
    print()
    print_table(
        ["", "image", "split", "label", "probability", "predicted", "probability"],
        [
            [str(rank), name, split, label, f"{own:.1%}", predicted, f"{other:.1%}"]
            for rank, name, split, label, predicted, own, other in list(zip(*columns.values(), strict=True))[:listed]
        ],
        right={0, 4, 6},
        optional=(2,),
        title=f"{source.title}: the least probable labels",
    )
    print(f"{len(ranking.differing):,} of {len(ranking):,} images are predicted as another class than their label")
    for caution in cautions:
        print(caution)
    if html:
        print(f"{html}: thumbnails of {shown:,} images")
    if table:
        print(f"{table}: the whole ranking")
    for name, reason in found.decode_errors:
        print(f"corrupt image skipped: {name}: {reason}")
    if found.decode_errors:
        print(skipped)
    return len(found.decode_errors)
