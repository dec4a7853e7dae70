"""`inceptionnet evaluate RUN|WEIGHTS DATA`: a network's figures on labelled pictures."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inceptionnet.cli.options import BatchSize, Device, Json, Weights, Workers, default_workers


def evaluate(
    weights: Weights,
    data: Annotated[str, typer.Argument(help="As for train; the same data is split in the same way as it was there.")],
    split: Annotated[str, typer.Option(help="auto (test, else val), train, val, test or all.")] = "auto",
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Evaluate a network: top-1, top-5 and cross-entropy, class by class; one centre crop a picture.

    Under torchrun (as train) every process takes its share, and every picture counts once.
    """
    from inceptionnet.cli.tables import print_json
    from inceptionnet.data.loading import EvalLoader
    from inceptionnet.data.sources import open_source
    from inceptionnet.devices import pick_device
    from inceptionnet.distributed import joined_world
    from inceptionnet.evaluate.evaluation import evaluate, matched_labels
    from inceptionnet.progress import Bar
    from inceptionnet.train.run import weights_of
    from inceptionnet.weights import read_weights

    file = weights_of(weights)
    read = read_weights(file)
    record = read.classifier()
    source = open_source(data, seed=record.provenance.get("seed", 0))
    name, pictures = source.pick(split)
    labels_of = matched_labels(source.classes, record.classes)
    with joined_world() as world:
        model = read.model().to(pick_device(device))
        workers = default_workers(workers)
        prep = record.preprocessing
        loader = EvalLoader(pictures, prep, batch_size=batch_size, workers=workers, bad_images="skip", world=world)
        with Bar(len(pictures), f"evaluating on {name}", shown=world.is_main) as bar:
            result = evaluate(
                model, loader, prep, record.classes, labels_of=labels_of, advance=bar.advance, world=world
            )
        if not world.is_main:
            return
    figures = {
        "weights": str(file),
        "network": record.configuration.name,
        "data": data,
        "split": name,
        "split_note": source.note,
        **result.to_dict(),
    }
    if json:
        print_json(figures)
    else:
        _print(figures)


def _print(figures: dict[str, Any]) -> None:
    from inceptionnet.cli.tables import print_table

    top5 = f"  top-5 {figures['top5']:.2%}" if "top5" in figures else ""
    print_table(
        ["class", "pictures", "right", "accuracy"],
        [
            [name, str(one["pictures"]), str(one["right"]), f"{one['right'] / one['pictures']:.1%}"]
            for name, one in figures["classes"].items()
        ],
        right={1, 2, 3},
        title=f"{figures['weights']}: {figures['network']} on {figures['data']}, {figures['split']}",
        note=figures["split_note"],
    )
    print(f"top-1 {figures['top1']:.2%}{top5}  cross-entropy {figures['loss']:.4f}  on {figures['pictures']} pictures")
    for bad in figures["bad_pictures"]:
        print(f"not counted: {bad['name']}: {bad['reason']}")
