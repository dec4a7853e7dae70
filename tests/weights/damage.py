"""Damage to files, the same ways each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path


def damages(path: Path) -> Iterator[bool]:
    """Cut the file short, or alter one byte of it, in 300 ways one after the other; yields whether it is cut."""
    content = path.read_bytes()
    for seed in range(300):
        rng = random.Random(seed)
        altered, place = bytearray(content), rng.randrange(len(content))
        if cut := seed % 3 == 0:
            del altered[place:]
        else:
            altered[place] ^= rng.randrange(1, 256)
        path.write_bytes(altered)
        yield cut
