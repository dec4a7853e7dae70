"""Images that look nearly the same: saved again, resized, recoloured or a little shifted copies, or photos of a burst.

A signature is the cosine transform of the grey image at 32×32 px: its 16×16 lowest frequencies without the mean, each
weighted by its frequency, since the strength of photographs falls with it. Brightness and contrast do not matter.
Rotated, mirrored and strongly cropped copies are not found. The thresholds are measured: docs/decisions/0013.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from inceptionnet.data.bands import Pixels

SIDE_PX, LOWEST, LOW = 32, 8, 16
NEAR, NEAR_IN_DETAIL = 0.98, 0.9
"""The least cosine similarity of two signatures: of their 8×8 lowest frequencies, and of the others."""
LEAST_DEVIATION, LEAST_FREQUENCIES = 3.0, 5.0
"""Plainer images are not compared: of 255 grey levels, and as an effective number of frequencies (of 63)."""
ROWS, COLUMNS = 1024, 8192

Signatures = npt.NDArray[np.int8]
_FREQUENCY = np.hypot.outer(np.arange(LOW), np.arange(LOW)).astype(np.float32)
_COSINES = np.cos(np.outer(np.arange(LOW), (np.arange(SIDE_PX) + 0.5) * np.pi / SIDE_PX)).astype(np.float32)
_COSINES[0] /= np.sqrt(2)
_RANK = np.maximum.outer(np.arange(LOW), np.arange(LOW)).ravel()
_ORDER = np.argsort(_RANK >= LOWEST, kind="stable")[1:]  # the lowest first, without the mean
_FEW = LOWEST**2 - 1


def signature(image: Image.Image | Pixels) -> bytes:
    """The signature of an image: 255 bytes, or none if it is too plain to be told from other images.

    A uniform area, a gradient or one edge has a few frequencies only, which many such images share.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    grey = np.asarray(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX).convert("L"), np.float32)
    weighted = (_FREQUENCY * (_COSINES @ grey @ _COSINES.T)).ravel()[_ORDER]
    power = weighted[:_FEW] ** 2
    if grey.std() < LEAST_DEVIATION or power.sum() ** 2 < LEAST_FREQUENCIES * (power**2).sum():
        return b""
    scaled: Signatures = np.rint(weighted * (127 / np.abs(weighted).max())).astype(np.int8)
    return scaled.tobytes()


def as_array(signatures: list[bytes]) -> Signatures:
    """Shapes: N signatures that are not empty → (N, 255)."""
    return np.frombuffer(b"".join(signatures), np.int8).reshape(len(signatures), LOW**2 - 1)


def nearest(these: Signatures, others: Signatures | None = None) -> npt.NDArray[np.int64]:
    """For each of `these`, the position of the most similar of `others` if both look nearly the same, else -1.

    Without `others` each is compared with those before it. The time grows with the product of both numbers: 10^10
    pairs take 1 to 2 minutes on a core.
    Shapes: (N, 255), (M, 255) → (N,).
    """
    against = these if others is None else others
    found, best = np.full(len(these), -1, np.int64), np.full(len(these), NEAR, np.float32)
    for left in range(0, len(against), COLUMNS):
        columns = _unit(against[left : left + COLUMNS, :_FEW]).T
        for top in range(left if others is None else 0, len(these), ROWS):
            rows = _unit(these[top : top + ROWS, :_FEW])
            alike = rows @ columns
            if others is None:
                alike[_later(top, left, alike.shape)] = -1
            most = alike.argmax(1)
            value = alike[np.arange(len(rows)), most]
            better = np.flatnonzero(value >= best[top : top + ROWS])
            best[top + better], found[top + better] = value[better], left + most[better]
    some = np.flatnonzero(found >= 0)
    detail = (_unit(these[some, _FEW:]) * _unit(against[found[some], _FEW:])).sum(1)
    found[some[detail < NEAR_IN_DETAIL]] = -1
    return found


def _later(top: int, left: int, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Whether the column's image is not before the row's."""
    return left + np.arange(shape[1]) >= top + np.arange(shape[0])[:, None]


def _unit(signatures: Signatures) -> npt.NDArray[np.float32]:
    values = signatures.astype(np.float32)
    length: npt.NDArray[np.float32] = np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return values / length
