"""`inceptionnet convert SRC DST`: weights of another library into this package's format, with a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inceptionnet.cli.options import Json
from inceptionnet.errors import ConfigurationError

if TYPE_CHECKING:
    from inceptionnet.weights import Record, Report


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A weights file of any known layout, a run folder, "
                                                              "or hf:OWNER/NAME.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The .safetensors file to write.")],
    model: Annotated[str | None, typer.Option(help="The network, where the file fits several.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Another number of classes, whose logits start anew; 0 "
                                                         "leaves the classifier out; 1001 keeps a background.")] = None,
    in_channels: Annotated[int | None, typer.Option(help="Another number of input channels: the first kernels are "
                                                         "summed (1) or repeated.")] = None,
    aux: Annotated[bool | None, typer.Option("--aux/--no-aux", help="With auxiliary heads; left out, if the file has "
                                                                    "them.")] = None,
    classes: Annotated[Path | None, typer.Option(help="A text file with the classes' names, one a line, in the order "
                                                      "of the logits.")] = None,
    preprocess: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="How images become input, where "
                          "it is not as published: size_px, crop, resize, interpolation, mean, std.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Convert weights of TF-slim, Keras, torchvision, timm, Cadene, facenet-pytorch or FID, and say what became of it.

    The file that is written says its network, classes and preprocessing itself; every other command takes it, as it
    takes SRC too.
    """
    from dataclasses import asdict

    from inceptionnet.cli.tables import print_json
    from inceptionnet.weights import convert, read_record
    from inceptionnet.weights.folder import weights_of

    source = weights_of(source)
    asked = {"num_classes": num_classes, "in_channels": in_channels, "aux": aux}
    changes = {key: value for key, value in asked.items() if value is not None}
    names = None if classes is None else _lines(classes)
    prep = _settings(preprocess) if preprocess else None
    report = convert(source, destination, name=model, classes=names, preprocessing=prep, **changes)
    record = read_record(destination)
    if json:
        about = {"preprocessing": record.preprocessing.to_dict(), "preprocessing_from": report.preprocessing}
        print_json({**asdict(report), **about, "written": str(destination)})
    else:
        _print(report, record, destination)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--classes {file}: expected a text file, got {error}") from None


def _settings(texts: list[str]) -> dict[str, Any]:
    """Settings of the preprocessing such as `mean=0.485,0.456,0.406`."""
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
            raise ConfigurationError(f"--preprocess {text!r}: expected a number, or several with commas") from None
    return values


def _print(report: Report, record: Record, destination: Path) -> None:
    from inceptionnet.cli.tables import print_table

    prep = record.preprocessing
    seen_as = f"{prep.size_px} px, {prep.resize} {prep.crop:.4g}, {prep.interpolation}, "
    seen_as += f"mean {_numbers(prep.mean)}, deviation {_numbers(prep.std)}"
    others = f"; it fits {' and '.join(report.others)} as well, which --model chooses" if report.others else ""
    rows = [
        ["read", f"{report.source}: {report.format}, {report.layout}"],
        ["published as", report.published],
        ["network", f"{report.network}{others}"],
        ["mapped", f"{report.mapped} tensors"],
        *(["made up", line] for line in _grouped(report.made_up)),
        *(["dropped", line] for line in _grouped(report.dropped)),
        *(["changed", line] for line in report.changed),
        ["classes", f"{len(record.classes)}: {report.classes}"],
        ["preprocessing", f"{seen_as}: {report.preprocessing}"],
        ["written", str(destination)],
    ]
    print_table(["what", "how"], [row for row in rows if row[1]])


def _grouped(named: Mapping[str, str]) -> list[str]:
    """One line a reason: the first names, and how many more."""
    from inceptionnet.errors import listed

    groups: dict[str, list[str]] = defaultdict(list)
    for name, reason in named.items():
        groups[reason].append(name)
    return [f"{len(names)} tensors ({reason}): {listed(names, 2)}" for reason, names in groups.items()]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in (values if len(set(values)) > 1 else values[:1]))
