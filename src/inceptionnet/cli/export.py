"""`inceptionnet export RUN|WEIGHTS DST`: a network as ONNX, OpenVINO or torch.export file, with verified outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inceptionnet.cli.options import Calibrate, Json, MinAgreement, Weights
from inceptionnet.errors import ConfigurationError, number_of
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from inceptionnet.engines.export import Exported

ExportPrecision = Literal["fp32", "int8"]


def export(
    weights: Weights,
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The file to write: .onnx, .xml (OpenVINO, with a "
                                                ".bin next to it), .pt2 (torch.export) or .safetensors.")],
    with_preprocessing: Annotated[bool, typer.Option("--with-preprocessing", help="The file takes uint8 images (N, "
                                  "H, W, C), RGB, and normalises them; default: normalised float32 (N, C, H, W). "
                                  "Cropping and resizing are never part of the file.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="A fixed batch size; default: dynamic.", min=1)] = None,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Dynamic batch size, the default.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Keep the layers as trained, without fusion.")] = False,
    precision: Annotated[ExportPrecision, typer.Option(help="int8: .onnx or .xml, with --calibrate.")] = "fp32",
    calibrate: Calibrate = None,
    min_agreement: MinAgreement = 0.95,
    check: Annotated[list[str] | None, typer.Option(metavar="IMAGE|FOLDER|DATA", help="Images to compare on, at "
                                                    "most 64 (256 for int8); can be repeated. Default: 8 random "
                                                    "images; for int8, those not used for calibration.")] = None,
    tolerance: Annotated[float, typer.Option(help="For fp32: largest permitted difference of the logits, "
                                                  "relative to the largest logit.", min=0)] = 1e-4,
    json: Json = False,
) -> None:  # fmt: skip
    """Export a network to ONNX, OpenVINO, torch.export or safetensors, and verify the outputs of the file.

    Beyond the tolerance, or for int8 below the minimum agreement, no file is written and the exit code is 1. The
    metadata of the file contains network, classes, activation, preprocessing and provenance. Auxiliary heads and
    dropout are removed; a network without classifier gives its features.
    """
    from dataclasses import asdict
    from math import isfinite

    from inceptionnet.cli.tables import print_json
    from inceptionnet.engines.export import export

    if dynamic_batch and batch_size is not None:
        raise ConfigurationError(f"--dynamic-batch and --batch-size {batch_size} exclude each other; omit one")
    done = export(
        weights, destination, with_preprocessing=with_preprocessing, plain=plain, precision=precision,
        calibrate=calibrate or (), batch_size=batch_size, check=check or (), tolerance=tolerance,
        min_agreement=min_agreement,
    )  # fmt: skip
    if json:
        errors = [{"name": name, "reason": reason} for name, reason in done.decode_errors]
        difference = asdict(done.agreement)
        for figures, key in ((difference, "logits"), (difference["embedding"] or {}, "difference")):
            if key in figures and not isfinite(figures[key]):
                figures[key] = None  # JSON has neither infinity nor NaN
        print_json(
            {
                "file": str(destination), "written": done.written, "kind": done.kind, "size_bytes": done.size_bytes,
                "metadata": done.metadata, "compared_on": str(done.images), "decode_errors": errors,
                "difference": difference, "tolerance": tolerance,
                **({"min_agreement": min_agreement} if done.calibrated_on else {}),
            }
        )  # fmt: skip
    else:
        _print(done)
    if not done.written:
        say(f"error: {destination}: not written: {done.refused}", error=True)
        raise typer.Exit(1)


def _print(done: Exported) -> None:
    from inceptionnet.cli.tables import print_table

    about, found = done.metadata, done.agreement
    size, channels = about["preprocessing"]["size_px"], about["preprocessing"]["channels"]
    sides = {"N": about["input"]["batch"] or "N", "C": channels, "H": size, "W": size}
    shape = ", ".join(str(sides[axis]) for axis in about["input"]["layout"])
    count, sigmoid = about["configuration"]["num_classes"], about["activation"] == "sigmoid"
    output = f"{number_of('logit', count)}{', sigmoid' * sigmoid}" if count else "features (no classifier)"
    rows = [
        ["file", f"{done.path}: {done.kind}, {done.size_bytes / 1e6:.1f} MB" if done.written else "not written"],
        ["network", about["network"]],
        ["precision", about["precision"]],
        ["input", f"{about['input']['type']} ({shape})"],
        ["output", output],
        *([["calibrated on", str(done.calibrated_on)]] if done.calibrated_on else []),
        ["compared on", f"{done.images}, in batches of {' and '.join(map(str, found.batch_sizes))}"],
        ["largest difference", f"{found.logits:.2g} of the largest logit"],
    ]
    if found.probabilities is not None and found.top1_agreement is not None:
        rows += [
            ["", f"{found.probabilities:.2g} in the probabilities"],
            ["agreement of labels" if sigmoid and count > 1 else "top-1 agreement", f"{found.top1_agreement:.1%}"],
        ]
    else:
        rows += [["explained variance", f"{found.explained_variance:.1%} of the features"]]
    if found.embedding is not None:
        rows += [["embedding", f"{about['embedding']} values, the second output"]]
        rows += [
            ["largest difference", f"{found.embedding.difference:.2g} of the largest value"],
            ["explained variance", f"{found.embedding.explained_variance:.1%} of the embeddings"],
        ]
    rows += [["decode error", f"{name}: {reason}"] for name, reason in done.decode_errors]
    print_table(["item", "value"], rows)
