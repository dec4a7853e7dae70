"""`inceptionnet export RUN|WEIGHTS DST`: a network as a file that other programs run, with its numbers checked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import Calibrate, Json, LeastAgreement, Weights
from inceptionnet.errors import ConfigurationError

if TYPE_CHECKING:
    from inceptionnet.engines.export import Exported


def export(
    weights: Weights,
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The file to write: .onnx, .xml (OpenVINO, with a "
                                                ".bin beside it), .pt2 (torch.export) or .safetensors.")],
    with_preprocessing: Annotated[bool, typer.Option("--with-preprocessing", help="The file takes uint8 images (N, "
                                  "H, W, C), RGB, and normalises them; left out, what the network takes: float32 (N, "
                                  "C, H, W), normalised. Cropping and resizing stay outside either way.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="The only number of images that the file takes at once; left "
                                                        "out, any number.", min=1)] = None,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Any number at once, said outright; so it is "
                                                "without --batch-size too.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="The layers as they were trained: nothing folded, nothing "
                                                        "moved.")] = False,
    precision: Annotated[str, typer.Option(help="fp32; or int8, into .onnx or .xml, with --calibrate.")] = "fp32",
    calibrate: Calibrate = None,
    least_agreement: LeastAgreement = 0.95,
    check: Annotated[list[str] | None, typer.Option(metavar="IMAGE|FOLDER|DATA", help="Images to compare on, at "
                                                    "most 64 of them, 256 for int8; may be given several times. Left "
                                                    "out, 8 are drawn at random, or those that int8 is not "
                                                    "calibrated on.")] = None,
    tolerance: Annotated[float, typer.Option(help="For fp32: largest difference of the logits, as a share of the "
                                                  "largest logit.", min=0)] = 1e-4,
    json: Json = False,
) -> None:  # fmt: skip
    """Export a network for ONNX Runtime, OpenVINO or torch, and compare the numbers of the file with its own.

    Beyond the tolerance, or for int8 below the least agreement, the exit code is 1, and no file is written. The file
    says network, classes, preprocessing and where the weights come from in its metadata. It has no auxiliary heads and
    no dropout; a network without classifier gives its features.
    """
    from dataclasses import asdict
    from math import isfinite

    from inceptionnet.cli.tables import print_json
    from inceptionnet.engines.export import export
    from inceptionnet.weights.folder import weights_of

    if dynamic_batch and batch_size is not None:
        raise ConfigurationError(f"--dynamic-batch and --batch-size {batch_size} exclude each other; leave one out")
    done = export(
        weights_of(weights), destination, with_preprocessing=with_preprocessing, plain=plain, precision=precision,
        calibrate=calibrate or (), batch_size=batch_size, check=check or (), tolerance=tolerance,
        least_agreement=least_agreement,
    )  # fmt: skip
    if json:
        left_out = [{"name": name, "reason": reason} for name, reason in done.left_out]
        difference = asdict(done.agreement)
        if not isfinite(done.agreement.logits):
            difference["logits"] = None  # JSON has no word for it
        print_json(
            {
                "file": str(destination), "written": done.written, "kind": done.kind, "size_bytes": done.size_bytes,
                "metadata": done.metadata, "compared_on": str(done.images), "decode_errors": left_out,
                "difference": difference, "tolerance": tolerance,
                **({"least_agreement": least_agreement} if done.calibrated_on else {}),
            }
        )  # fmt: skip
    else:
        _print(done)
    if not done.written:
        print(f"error: {destination}: not written: {done.refused}", file=sys.stderr)
        raise typer.Exit(1)


def _print(done: Exported) -> None:
    from inceptionnet.cli.tables import print_table

    about, found = done.metadata, done.agreement
    size, channels = about["preprocessing"]["size_px"], about["preprocessing"]["channels"]
    sides = {"N": about["input"]["batch"] or "N", "C": channels, "H": size, "W": size}
    shape = ", ".join(str(sides[axis]) for axis in about["input"]["layout"])
    what = f"{len(about['classes'])} logits" if about["output"] == "logits" else "features: there is no classifier"
    rows = [
        ["file", f"{done.path}: {done.kind}, {done.size_bytes / 1e6:.1f} MB" if done.written else "not written"],
        ["network", about["network"]],
        ["precision", about["precision"]],
        ["takes", f"{about['input']['type']} ({shape})"],
        ["gives", what],
        *([["calibrated on", str(done.calibrated_on)]] if done.calibrated_on else []),
        ["compared on", f"{done.images}, {' and '.join(map(str, found.batch_sizes))} at once"],
        ["logits", f"differ by at most {found.logits:.2g} of the largest"],
    ]
    if found.probabilities is not None and found.top1 is not None:
        rows += [
            ["probabilities", f"differ by at most {found.probabilities:.2g}"],
            ["first class", f"the same for {found.top1:.1%}"],
        ]
    else:
        rows += [["features", f"keep {found.explained:.1%} of their variance"]]
    rows += [["left out", f"{name}: {reason}"] for name, reason in done.left_out]
    print_table(["what", "how"], rows)
