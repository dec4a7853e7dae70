"""Arranging panels in columns, narrow ones side by side, for the smallest page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt

GUTTER = 16
"""Between panels, in pixels."""
STEP = 40
"""Step between the heights that are tried, in pixels."""

Size = tuple[float, float]
"""Width and height."""
Rows = list[list[Size]]
"""The panels of one column, by row."""


@dataclass(frozen=True)
class Column:
    """Rows of panels and their total size."""

    width: float
    height: float
    rows: Rows


@dataclass(frozen=True)
class Frame:
    """Position and size of a panel."""

    x: float
    y: float
    width: float
    height: float


def arranged(sizes: Sequence[Size], beside: Size) -> list[Frame]:
    """A frame for each panel, to the right of a drawing of size `beside`, starting at 0, 0.

    For every height, the narrowest arrangement in columns is computed; the one with the smallest page is returned.
    """
    columns = _possible_columns(sizes)
    lowest = max(beside[1], *(height for _, height in sizes))
    most = lowest + sum(height + GUTTER for _, height in sizes)
    heights = [lowest + STEP * i for i in range(int((most - lowest) / STEP) + 1)]
    ways = [_frames(_narrowest(len(sizes), columns, height)) for height in heights]

    def page(way: Iterable[Frame]) -> tuple[float, float]:
        width, height = extent(way)
        return sheet(beside[0] + width, max(beside[1], height))

    return min(ways, key=page)


def sheet(width: float, height: float) -> tuple[float, float]:
    """Sort key for page sizes: the short side of the landscape sheet (A4, A3) that contains the page, then its area."""
    return max(width / sqrt(2), height), width * height


def extent(frames: Iterable[Frame]) -> Size:
    """Right and bottom edge of all frames."""
    edges = [(frame.x + frame.width, frame.y + frame.height) for frame in frames]
    return max(x for x, _ in edges), max(y for _, y in edges)


def _possible_columns(sizes: Sequence[Size]) -> dict[tuple[int, int], list[Column]]:
    """Possible columns by (first panel, last panel + 1), from narrow and tall to wide and short."""
    spans = [(i, j) for i in range(len(sizes)) for j in range(i + 1, len(sizes) + 1)]
    widths = {(i, j): _row_width(sizes[i:j]) for i, j in spans}
    columns: dict[tuple[int, int], list[Column]] = {}
    for i, j in spans:
        least = max(width for width, _ in sizes[i:j])
        tried = sorted({width for (a, b), width in widths.items() if i <= a and b <= j and width >= least})
        ways = [_rows(sizes[i:j], width) for width in tried]
        columns[i, j] = sorted((Column(*_extent(rows), rows) for rows in ways), key=lambda way: (way.width, way.height))
    return columns


def _rows(sizes: Iterable[Size], width: float) -> Rows:
    """The panels in rows no wider than `width`."""
    rows: Rows = []
    for size in sizes:
        if rows and _row_width([*rows[-1], size]) <= width:
            rows[-1].append(size)
        else:
            rows.append([size])
    return rows


def _narrowest(count: int, columns: Mapping[tuple[int, int], Sequence[Column]], height: float) -> list[Column]:
    """The narrowest arrangement of `count` panels in columns of at most `height`."""
    best: list[tuple[float, list[Column]]] = [(0.0, [])]
    for j in range(1, count + 1):
        ends: tuple[float, list[Column]] = (inf, [])
        for i in range(j):
            column = next((column for column in columns[i, j] if column.height <= height), None)
            if column and (width := best[i][0] + column.width + GUTTER) < ends[0]:
                ends = width, [*best[i][1], column]
        best.append(ends)
    return best[count][1]


def _frames(columns: Iterable[Column]) -> list[Frame]:
    """The frame of every panel; the panels of a row have equal heights and share the spare width of the column."""
    frames: list[Frame] = []
    left = 0.0
    for column in columns:
        top = 0.0
        for row in column.rows:
            spare = (column.width - _row_width(row)) / len(row)
            row_height, x = max(height for _, height in row), left
            for width, _ in row:
                frames.append(Frame(x, top, width + spare, row_height))
                x += width + spare + GUTTER
            top += row_height + GUTTER
        left += column.width + GUTTER
    return frames


def _row_width(row: Sequence[Size]) -> float:
    return sum(width for width, _ in row) + GUTTER * (len(row) - 1)


def _extent(rows: Rows) -> Size:
    height = sum(max(height for _, height in row) for row in rows) + GUTTER * (len(rows) - 1)
    return max(_row_width(row) for row in rows), height
