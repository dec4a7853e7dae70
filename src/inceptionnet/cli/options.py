"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from inceptionnet.classifier import Classifier

EngineName = Literal[
    "eager", "channels_last", "fused", "compile", "winograd", "cudnn", "onnxruntime", "openvino", "tensorrt", "auto"
]
PrecisionName = Literal["fp32", "bf16", "fp16", "int8", "auto"]
ActivationName = Literal["softmax", "sigmoid"]
SplitName = Literal["auto", "train", "val", "test", "all"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …", rich_help_panel="Machine")]
Engine = Annotated[
    EngineName, typer.Option(metavar="ENGINE", help="eager, channels_last, fused, compile, winograd, onnxruntime or "
                             "openvino; cudnn or tensorrt on an NVIDIA GPU; auto: the fastest here, measured once.",
                             rich_help_panel="Machine")
]  # fmt: skip
Precision = Annotated[
    PrecisionName, typer.Option(help="Of the engine; int8 by onnxruntime or openvino, with --calibrate; auto: the "
                                "fastest that agrees with fp32 on 99 % of --calibrate's images, of all engines unless "
                                "one is named; without images fp32 or bf16.", rich_help_panel="Machine")
]  # fmt: skip
Calibrate = Annotated[
    list[str] | None,
    typer.Option(metavar="IMAGE|FOLDER|DATA", help="For int8 and auto: 100 or more representative images to "
                 "calibrate and compare on; can be repeated.", rich_help_panel="Machine"),
]  # fmt: skip
MinAgreement = Annotated[
    float,
    typer.Option(help="For int8: minimum share of other images with an unchanged predicted class; without a "
                 "classifier, minimum explained variance of the features.", min=0, max=1),
]  # fmt: skip
Threshold = Annotated[
    float | None,
    typer.Option(metavar="P", help="Probability from which a label is predicted, or of two classes the second. "
                 "Default: 0.5 for sigmoid."),
]  # fmt: skip
Activation = Annotated[
    ActivationName | None,
    typer.Option(metavar="NAME", help="What the logits mean: softmax; or sigmoid, for several labels an image, or for "
                 "two classes by one logit. Default: as the weights say, else softmax."),
]  # fmt: skip
Workers = Annotated[
    int | None,
    typer.Option(help="Processes that decode images. Default: half of the cores, at most 4.", min=0,
                 rich_help_panel="Machine"),
]  # fmt: skip
CorruptImages = Annotated[
    Literal["fail", "skip"], typer.Option(help="Stop at a corrupt image, or skip it with a warning.")
]
Weights = Annotated[
    str,
    typer.Argument(metavar="RUN|WEIGHTS", help="A run folder, a weights file of any known layout, or hf:OWNER/NAME."),
]
AnyModel = Annotated[
    str,
    typer.Argument(metavar="RUN|WEIGHTS", help="A run folder, a weights file of any known layout, hf:OWNER/NAME, or "
                   "an exported .onnx, .xml or .pt2 file."),
]  # fmt: skip
IMAGES = (
    "Image files, folders, .zip, .tar or .parquet files, quoted glob patterns, or - for standard input (an image, or "
    "paths one a line)"
)
Images = Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER…", help=f"{IMAGES}.")]
ImagesOrVideos = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE|FOLDER|VIDEO|CAMERA…", help=f"{IMAGES}; with --every also videos, or one camera such "
                   "as /dev/video0."),
]  # fmt: skip
AllowUrls = Annotated[bool, typer.Option("--allow-urls", help="Fetch images given as http(s) addresses.")]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The labels of the images of DATA: a .csv, .jsonl, .json, .parquet or text file "
                 "with image, label and perhaps split, or ImageNet's lists. Default: class folders, or a file with a "
                 "well-known name."),
]  # fmt: skip
Splits = Annotated[
    str | None,
    typer.Option(metavar="train=A,val=B", help="Which folders of DATA are its splits, or none if they are classes. "
                 "Default: by their names."),
]  # fmt: skip
GroupBy = Annotated[
    str | None,
    typer.Option("--group-by", metavar="COLUMN|REGEX|none", help="What a split made here must not divide: a column of "
                 "--labels such as patient_id, or a regular expression for the names of images such as '(P[0-9]+)_', "
                 "whose first group or whole match names the group. Default: a column called group, patient_id, "
                 "subject_id, video …, if there is one."),
]  # fmt: skip
Classes = Annotated[
    str | None,
    typer.Option(metavar="FILE|imagenet", help="The class names in the order of the logits: one a line, NUMBER NAME, "
                 "CSV or JSON; or imagenet. Default: those of the weights."),
]  # fmt: skip
ClassOrder = Annotated[
    str | None,
    typer.Option("--classes", metavar="text|numeric|imagenet|FILE", help="The classes in the order of the logits: "
                 "DATA's folders sorted as text or as numbers, ImageNet's, or a file of names. Default: the names in "
                 "the weights; if they have none, the order of DATA, in which folders are sorted as text."),
]  # fmt: skip
BatchSize = Annotated[int, typer.Option(help="Batch size.", min=1)]


def opened(
    source: str, *, engine: str = "eager", precision: str = "fp32", calibrate: list[str] | None = None,
    device: str = "auto", batch_size: int = 16, activation: str | None = None, classes: str | None = None,
    predicts: bool = False,
) -> Classifier:  # fmt: skip
    """The classifier that the options of a command ask for.

    Args:
        predicts: whether the command needs classes. Weights without them are then refused before engines are measured.
    """
    from inceptionnet.classifier.base import Options, texts
    from inceptionnet.classifier.loading import made_classifier

    options = Options(engine, precision, texts(calibrate), device, batch_size)
    return made_classifier(source, options, classes=classes, activation=activation, predicts=predicts)
