"""`inceptionnet show NAME|RUN|WEIGHTS`: a network endpoint by endpoint, its drawing, or what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inceptionnet.cli.options import Json
from inceptionnet.errors import ConfigurationError
from inceptionnet.nets.spec import Network
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inceptionnet.nets.analysis import Row
    from inceptionnet.nets.edits import Configuration


def show(
    name: Annotated[str, typer.Argument(metavar="NAME|RUN|WEIGHTS", help="A network (`inceptionnet models` lists all), "
                                        "run folder, weights file, hf:OWNER/NAME or exported file.")],
    size: Annotated[int | None, typer.Option(help="Image size (height and width), px. Default: as published.")] = None,
    width: Annotated[float, typer.Option(help="Width multiplier; filters stay multiples of 8.")] = 1.0,
    num_classes: Annotated[int | None, typer.Option(help="Number of classes. Default: as published.")] = None,
    aux: Annotated[bool, typer.Option("--aux", help="Include auxiliary heads.")] = False,
    edit: Annotated[list[str] | None, typer.Option(metavar="EDIT", help="An ablation of the papers that changes the "
                                                   "network first (`inceptionnet models --edits` lists all). "
                                                   "Repeatable.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the network into this .svg file instead.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Show a network: output shape, parameters, multiply-adds and receptive field of every endpoint; or draw it.

    Of a run folder or a file, first what it holds: network, classes, preprocessing and where the weights come from.
    """
    from inceptionnet.cli.tables import print_json
    from inceptionnet.nets.analysis import analyse
    from inceptionnet.nets.edits import configure

    changes = {"num_classes": num_classes, "width": None if width == 1 else width, "input_size": size}
    configuration, held = _configured(name, changes, aux, edit or [])
    network = configure(configuration)
    if svg:
        _draw(network, svg)
    elif json:
        print_json({**held, **_figures(network, configuration, analyse(network))})
    else:
        _print(network, held, analyse(network))


def _configured(
    name: str, changes: dict[str, Any], aux: bool, edits: list[str]
) -> tuple[Configuration, dict[str, Any]]:
    """The network as asked for, and what a run folder or a file says of itself."""
    from dataclasses import replace

    from inceptionnet.nets.edits import Configuration, check_edits

    stated = {key: value for key, value in changes.items() if value is not None}
    if _is_source(name):
        if edits:
            raise ConfigurationError(
                f"--edit {edits[0]}: changes a network as published, but {name} holds one with weights; give its name"
            )
        configuration, held = _held(name)
        return replace(configuration, **stated), held
    configuration = Configuration(name, aux=aux, edits=tuple(edits), **stated)
    check_edits(configuration)
    return configuration, {}


def _shown(rows: list[Row]) -> list[Row]:
    """The endpoints, and the parts of auxiliary heads."""
    from inceptionnet.nets.analysis import endpoints

    return [*endpoints(rows), *(row for row in rows if row.path.startswith("aux.") and row.depth == 2)]


def _endpoint(row: Row) -> str:
    return row.name if row.depth == 1 else row.path


def _figures(network: Network, configuration: Configuration, rows: list[Row]) -> dict[str, Any]:
    """As plain JSON."""
    from inceptionnet.nets.analysis import minimum_size, multiply_adds, parameters

    return {
        "name": network.name,
        "summary": network.summary,
        "paper": network.paper,
        "edits": list(configuration.edits),
        "input": [network.in_channels, network.input_size, network.input_size],
        "minimum_size_px": minimum_size(network),
        "parameters": parameters(rows),
        "multiply_adds": multiply_adds(rows),
        "endpoints": [
            {
                "endpoint": _endpoint(row),
                "output": list(row.output),
                "parameters": row.parameters,
                "multiply_adds": row.multiply_adds,
                "receptive_field_px": [None if side == float("inf") else side for side in row.field[:2]],
            }
            for row in _shown(rows)
        ],
    }


def _print(network: Network, held: dict[str, Any], rows: list[Row]) -> None:
    from inceptionnet.cli.tables import print_table
    from inceptionnet.nets.analysis import minimum_size, multiply_adds, parameters

    if held:
        print_table(["what", "value"], [[key.replace("_", " "), text] for key, text in _texts(held) if text])
    size_px, least = network.input_size, minimum_size(network)
    print_table(
        ["endpoint", "output (H×W×C)", "parameters", "multiply-adds (M)", "receptive field (px)"],
        [
            [
                _endpoint(row),
                f"{row.output.height}×{row.output.width}×{row.output.channels}",
                f"{row.parameters:,}",
                f"{row.multiply_adds / 1e6:,.2f}",
                "whole image" if row.field.height == float("inf") else f"{row.field.height}×{row.field.width}",
            ]
            for row in _shown(rows)
        ],
        right={1, 2, 3, 4},
        title=f"{network.name}: {network.summary}. {network.paper}",
        note=f"input {size_px}×{size_px}×{network.in_channels}, minimum size {least} px; "
        f"{parameters(rows):,} parameters, {multiply_adds(rows) / 1e9:.2f} G multiply-adds",
    )


def _is_source(name: str) -> bool:
    """Whether it is a file, a folder or an address, and not the name of a network."""
    return name.startswith("hf:") or Path(name).exists() or "/" in name


def _held(source: str) -> tuple[Configuration, dict[str, Any]]:
    """The network of a run folder or a file, and what it says of itself."""
    from inceptionnet.classifier import described

    record, assumed = described(source)
    outputs = record.outputs
    return record.configuration, {
        "source": source,
        "classes": list(record.classes),
        "outputs": {"activation": outputs.activation, "logits": outputs.logits} if record.classes else {},
        "preprocessing": record.preprocessing.to_dict(),
        "provenance": dict(record.provenance),
        "assumed": assumed,
    }


def _texts(held: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of a table: class names are many, and provenance and preprocessing have keys of their own."""
    from inceptionnet.errors import listed

    for key, value in held.items():
        if isinstance(value, dict):
            yield from ((name, str(one)) for name, one in value.items() if one != [] and name not in held)
        elif key == "classes":
            yield key, f"{len(value)}: {listed(value, ordered=True)}" if value else "no classifier"
        else:
            yield key, str(value)


def _draw(network: Network, path: Path) -> None:
    from inceptionnet.draw import svg
    from inceptionnet.system.files import replacing

    try:
        with replacing(path) as temporary:
            temporary.write_text(svg(network), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--svg {path}: cannot be written: {error.strerror}; give another file") from None
    say(str(path))
