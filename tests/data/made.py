"""Made-up images and the containers they come in."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

CLASSES_OF_8 = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(8)]


def encoded(image: Image.Image, format: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **how)
    return file.getvalue()


def png(grey: int = 0, size: tuple[int, int] = (4, 4)) -> bytes:
    return encoded(Image.new("L", size, grey))


def write_tree(root: Path, files: Mapping[str, bytes] | list[str]) -> Path:
    """Files under `root`; a bare list of names gets one grey image each, grey value its number. `x/` is a folder."""
    contents = files if isinstance(files, Mapping) else {name: png(i) for i, name in enumerate(files)}
    root.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    return root


def write_zip(path: Path, files: Mapping[str, bytes] | list[str]) -> Path:
    contents = files if isinstance(files, Mapping) else {name: png(i) for i, name in enumerate(files)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], *, format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
