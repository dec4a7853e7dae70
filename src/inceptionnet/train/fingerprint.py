"""What the images of a run are recognised by: their names and labels, and the sizes of some files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from inceptionnet.data.splits import Source, Split, evenly_spaced
from inceptionnet.errors import DecodeError, listed

SIZED = 500
"""Images of a split whose sizes are compared when a run is resumed."""


def difference(source: Source, trained_on: Mapping[str, Any]) -> str:
    """How a data set differs from that of a run, in words; empty if it does not, as far as `fingerprint` sees."""
    if list(source.classes) != trained_on["classes"]:
        gone, new = (set(trained_on["classes"]) - set(source.classes), set(source.classes) - set(trained_on["classes"]))
        said = [f"without {listed(gone)}"] * bool(gone) + [f"with {listed(new)}"] * bool(new)
        return f"the classes are not the same ({' and '.join(said) or 'another order'})"
    images = {name: len(split) for name, split in source.splits.items()}
    if images != trained_on["images"]:
        counts = (", ".join(f"{n} {name}" for name, n in one.items()) for one in (images, trained_on["images"]))
        return f"{next(counts)} instead of {next(counts)} images"
    if fingerprint(source) != trained_on["fingerprint"]:
        return "names or labels of images are not the same"
    return "" if sizes(source) == trained_on["sizes"] else "the files of images do not have the same sizes"


def fingerprint(source: Source) -> str:
    """A hash of the classes, and of the names and labels of every split; the images themselves are not read."""
    digest = hashlib.sha256("\0".join(source.classes).encode(errors="surrogateescape"))
    for name, split in source.splits.items():
        digest.update(f"\1{name}\0{len(split)}".encode())
        if isinstance(split, Split):
            digest.update("\0".join(split.names).encode(errors="surrogateescape"))
            digest.update(split.labels.tobytes())
    return digest.hexdigest()


def sizes(source: Source) -> str:
    """A hash of the sizes in bytes of up to SIZED encoded images of every split, evenly spaced; none of a stream's."""
    digest = hashlib.sha256()
    for name, split in source.splits.items():
        if not isinstance(split, Split):
            continue
        for i in map(int, evenly_spaced(len(split), SIZED)):
            try:
                size = len(split.read(i))
            except DecodeError:
                size = -1
            digest.update(f"{name} {i} {size}\n".encode())
    return digest.hexdigest()
