"""Saliency maps of image files, written to a folder; an image that cannot be read is reported with the reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inceptionnet.data.augment import as_input
from inceptionnet.data.bands import Pixels
from inceptionnet.data.inputs import NamedImage
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import ConfigurationError, DataError, DecodeError, nearest, reason_of
from inceptionnet.evaluate.classes import matched_labels
from inceptionnet.explain.attribution import attribute, captum_attr, chosen_layer
from inceptionnet.explain.images import sheet
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.files import replacing, shortened

MOST_BYTES = 255
"""In the name of a file, on Linux, macOS and Windows."""
TITLES = {"gradcam": "Grad-CAM", "integrated-gradients": "integrated gradients", "occlusion": "occlusion"}


@dataclass(frozen=True)
class Explanation:
    """The explanation of one image and its output file, or the error."""

    file: str
    name: str = ""
    """The class."""
    probability: float = 0.0
    """Of that class."""
    method: str = ""
    layer: str | None = None
    output: str = ""
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `file`, and either the explanation or `error`."""
        if self.error:
            return {"file": self.file, "error": self.error}
        return {
            "file": self.file,
            "class": self.name,
            "probability": self.probability,
            "method": self.method,
            "layer": self.layer,
            "output": self.output,
        }


def explain(
    model: InceptionNet,
    files: Sequence[NamedImage],
    prep: Preprocessing,
    classes: Sequence[str],
    out: Path,
    *,
    method: str = "gradcam",
    layer: str | None = None,
    target: int | None = None,
    batch_size: int = 16,
    advance: Callable[[int], None] = lambda images: None,
) -> Iterator[Explanation]:
    """Explain image files: write a saliency map of each to the folder `out`, and yield explanations in the same order.

    Args:
        classes: class names in the order of the logits.
        layer: as for `attribute`.
        target: the class number to explain; default: the predicted class of each image, or the most probable label.
        advance: called after each batch with its number of images.

    Raises:
        ConfigurationError: an unknown method or layer, or a folder that cannot be written.
        MissingExtraError: captum is not installed.
    """
    captum_attr()  # raises before the first image if it is missing
    layer = chosen_layer(model.network, method, layer, prep.size_px)
    outputs = list(names_for([Path(file.name) for file in files], method, out))
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
    several = model.outputs.multi_label
    at_once = batch_size if method == "gradcam" else 1  # the other methods fill a batch with copies of one image
    for start in range(0, len(files), at_once):
        batch = range(start, min(start + at_once, len(files)))
        read = [_pixels(files[i], prep) for i in batch]
        good = [pixels for pixels in read if not isinstance(pixels, str)]
        found = iter(heat_maps(model, as_input(good, prep, model.device), method, layer, target) if good else [])
        for i, pixels in zip(batch, read, strict=True):
            if isinstance(pixels, str):
                yield Explanation(files[i].name, error=pixels)
                continue
            probabilities, number, heat = next(found)
            caption = _caption(probabilities, number, classes, "most probable" if several else "predicted")
            with _writing(out), replacing(outputs[i]) as temporary:
                sheet(pixels, heat, caption, _note(method, layer, heat)).save(temporary, "PNG")
            probability = float(probabilities[number])
            yield Explanation(files[i].name, classes[number], probability, method, layer, str(outputs[i]))
        advance(len(batch))


def class_number(name: str, classes: Sequence[str]) -> int:
    """The number of a class given by name (ImageNet classes also by wnid) or by number.

    Raises:
        ConfigurationError: there is no such class.
    """
    try:
        return int(matched_labels([name], classes)[0])
    except DataError:
        if name.isdecimal() and int(name) < len(classes):
            return int(name)
        raise ConfigurationError(f"the network has no class {name!r}: {nearest(name, classes)}") from None


def names_for(files: Sequence[Path], method: str, out: Path) -> Iterator[Path]:
    """A unique output file in `out` for each image: STEM-METHOD.png.

    Images with the same stem are prefixed with the name of their folder, then numbered. No output overwrites an image.
    """
    stems = Counter(file.stem.casefold() for file in files)
    taken = {os.path.abspath(file).casefold() for file in files}
    for file in files:
        shared = stems[file.stem.casefold()] > 1
        folder = Path(os.path.abspath(file)).parent.name if shared else ""
        stem = f"{folder}-{file.stem}" if folder else file.stem
        path, number = out / _named(stem, f"-{method}.png"), 1
        while os.path.abspath(path).casefold() in taken:
            number += 1
            path = out / _named(stem, f"-{method}-{number}.png")
        taken.add(os.path.abspath(path).casefold())
        yield path


def _named(stem: str, end: str) -> str:
    return shortened(stem, MOST_BYTES - len(end)) + end


def heat_maps(
    model: InceptionNet, x: Tensor, method: str, layer: str | None, target: int | None
) -> list[tuple[Tensor, int, Tensor]]:
    """For each image the probabilities, the class explained and its heat map (H, W).

    Shapes: x (N, C, H, W) as the network takes it, on its device.
    """
    layer = chosen_layer(model.network, method, layer, min(x.shape[2:]))
    model.eval()
    with torch.inference_mode():
        probabilities = model.outputs.probabilities(model(x))
    targets = probabilities.argmax(1) if target is None else torch.full((len(x),), target)
    maps = attribute(model, x, targets, method, layer=layer)
    return list(zip(probabilities, targets.tolist(), maps, strict=True))


def _pixels(file: NamedImage, prep: Preprocessing) -> Pixels | str:
    """An image as a network sees it (size_px, size_px, C), or why it cannot be decoded."""
    try:
        return file.pixels(prep)
    except DecodeError as error:
        return reason_of(error, file.name)


def _caption(probabilities: Tensor, number: int, classes: Sequence[str], what: str) -> str:
    """The class with its probability, and the predicted class, named `what`, if that is another."""
    best = int(probabilities.argmax())
    more = "" if best == number else f" ({what}: {classes[best]} {probabilities[best]:.1%})"
    return f"{classes[number]} {probabilities[number]:.1%}{more}"


def _note(method: str, layer: str | None, heat: Tensor) -> str:
    where = f"{TITLES[method]} at {layer}" if layer else TITLES[method]
    return f"{where}: {'colour shows evidence for the class' if heat.any() else 'no evidence for the class'}"


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"--out {out}: cannot be written: {error.strerror}; give another folder") from None
