"""Images that look nearly the same: saved again, resized, recoloured or a little shifted copies, or photos of a burst.

A signature is the cosine transform of the grey image at 32×32 px: its 16×16 lowest frequencies without the mean, each
weighted by its frequency, since the strength of photographs falls with it. Brightness and contrast do not matter. A
mirrored image has the same numbers with other signs, one turned by a quarter in another order. Copies turned by other
angles, or strongly cropped, are not found. The thresholds are measured: docs/decisions/0013.
"""

from __future__ import annotations

from typing import NamedTuple

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
_LOWEST, _OTHERS = slice(_FEW), slice(_FEW, None)
_DOWN, _ACROSS = np.divmod(_ORDER, LOW)
"""The vertical and the horizontal frequency of each number of a signature."""
_MIRRORED = [np.int8(1 - 2 * (odd % 2)) for odd in (_DOWN * 0, _DOWN, _ACROSS, _DOWN + _ACROSS)]
"""The signs of its numbers as it is, upside down, left to right, and both: turned by half."""
_DIAGONAL = np.argsort(_ORDER)[_ACROSS * LOW + _DOWN - 1]
"""The positions of its numbers in that of the image mirrored at its diagonal."""


class Nearest(NamedTuple):
    """For each of N images, the most similar of some others. Shapes: both (N,)."""

    position: npt.NDArray[np.int64]
    """Among the others; -1 if none looks nearly the same."""
    turned: npt.NDArray[np.bool_]
    """Whether it is the same when mirrored or turned, and not as it is."""


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


def nearest(these: Signatures, others: Signatures | None = None) -> Nearest:
    """For each of `these`, the most similar of `others` if both look nearly the same, perhaps mirrored or turned.

    Turned by quarters, that is. Without `others` each is compared with those before it. The time grows with the product
    of both numbers: 10^10 pairs take 1 to 6 minutes on a core.
    Shapes: (N, 255), (M, 255) → (N,).
    """
    against = these if others is None else others
    rows = np.arange(len(these))
    found = _as_they_are(these, against, rows if others is None else None)
    turned = np.zeros(len(these), np.bool_)
    # Without signs all ways to mirror an image are one, and as similar as the most similar of them or more.
    size = np.abs(against)
    for order in (slice(None), _DIAGONAL):
        left = np.flatnonzero(found < 0)
        candidates = _as_they_are(np.abs(these[left][:, order]), size, left if others is None else None)
        some = np.flatnonzero(candidates >= 0)
        one, other = these[left[some]][:, order], against[candidates[some]]
        alike = np.zeros(len(some), np.bool_)
        for signs in _MIRRORED:
            alike |= (_similarity(one * signs, other, _LOWEST) >= NEAR) & (
                _similarity(one * signs, other, _OTHERS) >= NEAR_IN_DETAIL
            )
        found[left[some[alike]]] = candidates[some[alike]]
        turned[left[some[alike]]] = True
    return Nearest(found, turned)


def _as_they_are(these: Signatures, others: Signatures, before: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
    """For each of `these`, the position of the most similar of `others` if both look nearly the same, else -1.

    Args:
        before: for each of `these`, the number of `others` that count, which does not fall. Default: all.
    """
    found, best = np.full(len(these), -1, np.int64), np.full(len(these), NEAR, np.float32)
    for left in range(0, len(others), COLUMNS):
        columns = _unit(others[left : left + COLUMNS, _LOWEST]).T
        for top in range(0 if before is None else int(np.searchsorted(before, left, "right")), len(these), ROWS):
            alike = _unit(these[top : top + ROWS, _LOWEST]) @ columns
            if before is not None:
                alike[left + np.arange(alike.shape[1]) >= before[top : top + ROWS, None]] = -1
            most = alike.argmax(1)
            value = alike[np.arange(len(alike)), most]
            better = np.flatnonzero(value >= best[top : top + ROWS])
            best[top + better], found[top + better] = value[better], left + most[better]
    some = np.flatnonzero(found >= 0)
    found[some[_similarity(these[some], others[found[some]], _OTHERS) < NEAR_IN_DETAIL]] = -1
    return found


def _similarity(these: Signatures, others: Signatures, part: slice) -> npt.NDArray[np.float32]:
    """The cosine similarity of a part of each two signatures. Shapes: (N, 255), (N, 255) → (N,)."""
    found: npt.NDArray[np.float32] = (_unit(these[:, part]) * _unit(others[:, part])).sum(1)
    return found


def _unit(signatures: Signatures) -> npt.NDArray[np.float32]:
    values = signatures.astype(np.float32)
    length: npt.NDArray[np.float32] = np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return values / length
