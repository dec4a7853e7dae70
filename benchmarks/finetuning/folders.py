"""The images of the fine-tuning benchmark as folders: OUT/data/CELL/{train,val}/CLASS/… and OUT/data/NAME/CLASS/…"""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
from cells import Cell, subset
from PIL import Image

from inceptionnet.data.sources import open_source
from inceptionnet.data.splits import Split


class Folders:
    """Writes every folder once; a folder that exists is complete."""

    def __init__(self, out: Path, sources: dict[str, str]) -> None:
        self.out, self.sources = out / "data", sources

    def held_out(self, name: str) -> Path:
        """The held-out images of a data set, which no training sees: its test split, else the val split of seed 0."""
        folder = self.out / name
        if not folder.exists():
            source = open_source(self.sources[name], seed=0)
            _, split = source.pick("auto")
            self._write(folder, {"": split}, source.classes)
        return folder

    def of(self, cell: Cell) -> Path:
        """The images of a cell, split into train and val by this package's rule with the seed of the cell.

        A random sample is drawn of each class of the data set's training split.
        """
        folder = self.out / cell.folder
        if not folder.exists():
            source = open_source(self.sources[cell.data], seed=0)
            whole = source.splits["train"]
            assert isinstance(whole, Split), "a stream cannot be sampled"
            taken = whole.take(subset(whole.labels, cell.fraction, cell.seed).astype(np.intp))
            pool = self.out / f".{cell.folder}-pool"
            self._write(pool, {"": taken}, source.classes)
            self._write(folder, open_source(str(pool), seed=cell.seed).splits, source.classes)
            shutil.rmtree(pool)
        return folder

    def _write(self, folder: Path, splits: dict[str, Split], classes: tuple[str, ...]) -> None:
        part = folder.with_name(f".{folder.name}-part")
        shutil.rmtree(part, ignore_errors=True)
        for name, split in splits.items():
            for position, label in enumerate(split.labels):
                content = split.read(position)
                with Image.open(io.BytesIO(content)) as image:
                    suffix = {"JPEG": "jpg", "MPO": "jpg"}.get(image.format, str(image.format).lower())
                file = part / name / classes[label] / f"{position:05}.{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)


def count(folder: Path) -> int:
    """The number of images in class folders."""
    return sum(1 for _ in folder.glob("*/*"))
