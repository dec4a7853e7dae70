"""`inceptionnet convert SRC DST`: weights of another library to this package's format, with a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inceptionnet.cli.options import Activation, Classes, Json
from inceptionnet.errors import ConfigurationError, listed, number_of

if TYPE_CHECKING:
    from inceptionnet.weights import Record, Report


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A weights file of any known layout, a run folder "
                                                              "or hf:OWNER/NAME.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The .safetensors file to write.")],
    model: Annotated[str | None, typer.Option(help="The network, if the file fits several.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Another number of classes: the classifier is randomly "
                                                         "initialised; 0: none; 1001 keeps the background.")] = None,
    in_channels: Annotated[int | None, typer.Option(help="Another number of input channels: the first layer's "
                                                         "kernels are summed (1 channel) or repeated.")] = None,
    aux: Annotated[bool | None, typer.Option("--aux/--no-aux", help="Include auxiliary heads; default: if the file has "
                                                                    "them.")] = None,
    classes: Classes = None,
    preprocess: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A preprocessing setting that "
                          "differs from the published one: size_px, crop, resize, interpolation, mean or std; can be "
                          "repeated.")] = None,
    activation: Activation = None,
    head: Annotated[str | None, typer.Option(help="Of a PyTorch file that does not tell it, the layers between the "
                                                  "last grid and the logits, in order: names in the file and "
                                                  "functions, such as 'fc1 relu fc2'.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Convert weights of TF-slim, Keras, torchvision, timm, Cadene, facenet-pytorch or FID, with a report.

    The written file contains network, classes and preprocessing. Converting is optional: the other commands also take
    SRC itself.
    """
    from dataclasses import asdict

    from inceptionnet.cli.tables import print_json
    from inceptionnet.data.class_names import named_classes
    from inceptionnet.weights import convert, read_record

    if destination.suffix != ".safetensors":
        raise ConfigurationError(f"{destination}: expected a file ending in .safetensors; for others see export")
    asked = {"num_classes": num_classes, "in_channels": in_channels, "aux": aux, "activation": activation}
    changes = {key: value for key, value in asked.items() if value is not None}
    names = None if classes is None else named_classes(classes, "--classes")
    prep = _settings(preprocess) if preprocess else None
    report = convert(source, destination, name=model, classes=names, preprocessing=prep, head=head, **changes)
    record = read_record(destination)
    if json:
        about = {
            "activation": record.outputs.activation,
            "preprocessing": record.preprocessing.to_dict(),
            "preprocessing_from": report.preprocessing,
        }
        print_json({**asdict(report), **about, "written": str(destination)})
    else:
        _print(report, record, destination)


def _settings(texts: list[str]) -> dict[str, Any]:
    """Preprocessing settings given as `mean=0.485,0.456,0.406`."""
    from dataclasses import fields

    from inceptionnet.data.preprocess import Preprocessing
    from inceptionnet.errors import nearest

    known = {field.name for field in fields(Preprocessing)} - {"channels"}
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise ConfigurationError(f"--preprocess {text!r}: expected KEY=VALUE; {nearest(key, known)}")
        try:
            match key:
                case "size_px":
                    values[key] = int(value)
                case "crop":
                    values[key] = float(value)
                case "mean" | "std":
                    values[key] = tuple(map(float, value.split(",")))
                case _:
                    values[key] = value
        except ValueError:
            raise ConfigurationError(
                f"--preprocess {text!r}: expected a number, or several separated by commas"
            ) from None
    return values


def _print(report: Report, record: Record, destination: Path) -> None:
    from inceptionnet.cli.tables import print_table

    prep = record.preprocessing
    settings = f"{prep.size_px} px, {prep.resize} {prep.crop:.4g}, {prep.interpolation}, "
    settings += f"mean {_numbers(prep.mean)}, std {_numbers(prep.std)}"
    fits = listed(report.others, ordered=True, last="and")
    others = f"; it also fits {fits}: choose with --model" if report.others else ""
    rows = [
        ["read", f"{report.source}: {report.format}, {report.layout}"],
        ["published as", report.published],
        ["network", f"{report.network}{others}"],
        ["mapped", number_of("tensor", report.mapped)],
        *(_initialised(reason, names) for reason, names in _by_reason(report.initialised).items()),
        *(["dropped", _counted(names, reason)] for reason, names in _by_reason(report.dropped).items()),
        *(["changed", line] for line in report.changed),
        *(["assumed", line] for line in report.assumed),
        ["classes", f"{len(record.classes)}: {report.classes}"],
        ["outputs", str(record.outputs) if record.classes else ""],
        ["preprocessing", f"{settings}: {report.preprocessing}"],
        ["written", str(destination)],
    ]
    print_table(["item", "value"], [row for row in rows if row[1]])


def _by_reason(named: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, reason in named.items():
        groups[reason].append(name)
    return groups


def _initialised(reason: str, names: Sequence[str]) -> list[str]:
    """A row that says whether the tensors are randomly initialised or computed, and how."""
    kind, _, how = reason.partition(": ")
    return [kind, _counted(names, how)]


def _counted(names: Sequence[str], reason: str) -> str:
    """The number of tensors, the reason, and the first names."""
    return f"{number_of('tensor', len(names))}{f' ({reason})' if reason else ''}: {listed(names, 2)}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in (values if len(set(values)) > 1 else values[:1]))
