"""Prediction on unlabelled images: one row per image, with the reason if it cannot be decoded."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inceptionnet.data.augment import as_input
from inceptionnet.data.decode import decode, read_image
from inceptionnet.data.preprocess import Pixels, Preprocessing, centre_crop
from inceptionnet.data.sources import EXTENSIONS
from inceptionnet.errors import DataError, DecodeError
from inceptionnet.files import replacing
from inceptionnet.model import InceptionNet


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image with their softmax probabilities, or why it cannot be decoded."""

    file: str
    top: tuple[tuple[str, float], ...]
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: `file`, and either `top` or `error`."""
        if self.error:
            return {"file": self.file, "error": self.error}
        return {"file": self.file, "top": [{"class": name, "probability": p} for name, p in self.top]}


def find_images(paths: Sequence[Path], *, besides: Path | None = None) -> list[Path]:
    """The given files, and every image below the given folders, sorted by path within each folder.

    Args:
        besides: a folder whose images are excluded, such as the output folder.

    Raises:
        DataError: a folder without images.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
        if besides is not None and path.resolve() in besides.resolve().parents:
            inside = [file for file in inside if besides.resolve() not in file.resolve().parents]
        if not inside:
            raise DataError(
                f"{path}: expected an image or a folder of images, got a folder without any; check the path"
            )
        found += inside
    return found


def predict(
    model: InceptionNet,
    paths: Sequence[Path],
    prep: Preprocessing,
    classes: Sequence[str],
    *,
    top: int = 5,
    batch_size: int = 16,
    run: Callable[[Tensor], Tensor] | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Iterator[Prediction]:
    """Yield predictions in the order of `paths`.

    Args:
        classes: names in the order of the logits.
        top: number of classes per image.
        run: computes the logits instead of the model, such as an engine made from it.
        advance: called after each batch with its number of images.
    """
    model.eval()
    run = run or model
    for start in range(0, len(paths), batch_size):
        names = [str(path) for path in paths[start : start + batch_size]]
        read = [seen(path, prep) for path in paths[start : start + batch_size]]
        good = [pixels for pixels in read if not isinstance(pixels, str)]
        answers = iter(_classify(run, model.device, good, prep, classes, top) if good else [])
        for name, pixels in zip(names, read, strict=True):
            yield Prediction(name, (), pixels) if isinstance(pixels, str) else Prediction(name, next(answers))
        advance(len(names))


def write_csv(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one line per image: file, error, class_1, probability_1, class_2, …

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    most = max((len(prediction.top) for prediction in predictions), default=0)
    ranks = [f"{what}_{i}" for i in range(1, most + 1) for what in ("class", "probability")]
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "error", *ranks])
        for prediction in predictions:
            cells = [cell for name, p in prediction.top for cell in (name, f"{p:.6f}")]
            writer.writerow([prediction.file, prediction.error, *cells])


def seen(path: Path, prep: Preprocessing) -> Pixels | str:
    """An image file after preprocessing (size_px, size_px, C), or why it cannot be decoded."""
    try:
        return centre_crop(decode(read_image(path), channels=prep.channels, name=str(path)), prep)
    except DecodeError as error:
        return str(error).removeprefix(f"{path}: ")


def _classify(
    run: Callable[[Tensor], Tensor],
    device: torch.device,
    pixels: Sequence[Pixels],
    prep: Preprocessing,
    classes: Sequence[str],
    top: int,
) -> list[tuple[tuple[str, float], ...]]:
    """The most probable classes of each of a batch of images (H, W, C)."""
    with torch.inference_mode():
        probabilities = run(as_input(pixels, prep, device)).float().softmax(1)
    best = probabilities.topk(min(top, len(classes)))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [tuple((classes[i], p) for i, p in zip(indices, values, strict=True)) for indices, values in rows]
