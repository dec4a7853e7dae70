"""What the images of a data set are recognised by: their names and labels, and the sizes of some files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from inceptionnet.data.splits import Source, Split, evenly_spaced
from inceptionnet.errors import DataError, DecodeError, listed
from inceptionnet.system.distributed import World

SIZED = 500
"""Images of a split whose sizes are compared when a run is resumed."""


def description(source: Source) -> dict[str, Any]:
    """What is compared of a data set: its classes, number of images, `fingerprint` and `sizes`."""
    return {
        "classes": list(source.classes),
        "images": {name: len(split) for name, split in source.splits.items()},
        "fingerprint": fingerprint(source),
        "sizes": sizes(source),
    }


def difference(source: Source, trained_on: Mapping[str, Any]) -> str:
    """How a data set differs from that of a run, in words; empty if it does not, as far as `fingerprint` sees."""
    return _difference(description(source), trained_on)


def check_everywhere(source: Source, world: World) -> None:
    """Check that all processes, which may be on several machines, have the same images. All processes must call it.

    Raises:
        DataError: in all of them: some have other ones.
    """
    if world.size == 1:
        return
    first, *others = world.gather(description(source))
    for rank, other in enumerate(others, 1):
        if what := _difference(other, first):
            raise DataError(
                f"{source.title}: process {rank} has other images than process 0: {what}; give every process the same"
            )


def _difference(now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    if now["classes"] != before["classes"]:
        gone, new = (set(one["classes"]) - set(other["classes"]) for one, other in ((before, now), (now, before)))
        said = [f"without {listed(gone)}"] * bool(gone) + [f"with {listed(new)}"] * bool(new)
        return f"the classes are not the same ({' and '.join(said) or 'another order'})"
    if now["images"] != before["images"]:
        counts = (", ".join(f"{n} {name}" for name, n in one["images"].items()) for one in (now, before))
        return f"{next(counts)} instead of {next(counts)} images"
    if now["fingerprint"] != before["fingerprint"]:
        return "names or labels of images are not the same"
    return "" if now["sizes"] == before["sizes"] else "the files of images do not have the same sizes"


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
