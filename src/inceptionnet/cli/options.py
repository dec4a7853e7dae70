"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …", rich_help_panel="Machine")]
Engine = Annotated[
    str,
    typer.Option(help="eager, channels_last, fused, compile, onnxruntime or openvino; auto: the fastest on this "
                 "machine, measured once.", rich_help_panel="Machine"),
]  # fmt: skip
Precision = Annotated[
    str,
    typer.Option(help="Precision of the engine: fp32, bf16, or int8 (onnxruntime or openvino, with --calibrate).",
                 rich_help_panel="Machine"),
]  # fmt: skip
Calibrate = Annotated[
    list[str] | None,
    typer.Option(metavar="IMAGE|FOLDER|DATA", help="For int8: 100 or more representative images to "
                 "calibrate on; can be repeated."),
]  # fmt: skip
MinAgreement = Annotated[
    float,
    typer.Option(help="For int8: minimum share of other images with an unchanged predicted class; without a "
                 "classifier, minimum explained variance of the features.", min=0, max=1),
]  # fmt: skip
Workers = Annotated[
    int | None, typer.Option(help="Number of worker processes that read images.", min=0, rich_help_panel="Machine")
]
CorruptImages = Annotated[str, typer.Option(help="Images that cannot be decoded: fail, or skip and list them.")]
Weights = Annotated[
    str,
    typer.Argument(metavar="RUN|WEIGHTS", help="A run folder, a weights file of any known layout, or hf:OWNER/NAME."),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="The label file of a flat folder of images, such as ImageNet's val; default: one with a "
                 "well-known name in or next to the folder."),
]  # fmt: skip
BatchSize = Annotated[int, typer.Option(help="Batch size, in images.", min=1)]


def default_workers(asked: int | None) -> int:
    """As many reading processes as asked for, or half of the cores, at most 4."""
    import os

    if asked is None:
        return min(4, max(1, (os.cpu_count() or 2) // 2))
    return asked
