"""NumPy archives (.npz): arrays by name, as people save state dicts and checkpoints without their framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from inceptionnet.errors import WeightsError
from inceptionnet.system.zips import Zip
from inceptionnet.weights.formats.stored import Stored, damaged

MOST_BYTES = 4 * 2**30
"""Compressed archives can unpack to any size; no network of this package is as large as this."""
MAX_RATIO, RATIO_FROM_BYTES = 20, 2**28
"""Weights hardly compress, unless most of them are zero: a larger archive that unpacks to more is refused."""


def is_npz(names: list[str]) -> bool:
    """Whether these are the members of an archive that numpy.savez wrote."""
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_npz(path: Path) -> Stored:
    """The arrays of an .npz file. Raises: WeightsError if it is damaged or has pickled objects."""
    try:
        with Zip(path) as archive:
            most = min(MOST_BYTES, max(RATIO_FROM_BYTES, MAX_RATIO * path.stat().st_size))
            if (held := sum(member.file_size for member in archive.infolist())) > most:
                raise WeightsError(
                    f"{path}: expected at most {most} bytes of arrays, got {held}; give the weights alone"
                )
        with np.load(path, allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
    except ValueError as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise WeightsError(
                f"{path}: expected arrays of numbers, got pickled objects, which can run code; save the arrays by name"
            ) from None
        raise damaged(path, error) from None
    except WeightsError:
        raise
    except Exception as error:  # numpy raises many types for damaged headers
        raise damaged(path, error) from None
    return Stored(path, "NumPy", tensors)
