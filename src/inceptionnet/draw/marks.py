"""The elements of a drawing (boxes, labels and lines, in pixels), and moving and measuring them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

INK, QUIET, STROKE = "#1a1a1a", "#555555", "#444444"
PAPER, SHADE = "#ffffff", "#ececec"
"""Fill colours of convolutions, and of pooling, dropout and scaling."""

PALETTE = (
    ("#dce9f7", "#1f5a8c"),
    ("#fde5cf", "#8f480a"),
    ("#dcefdb", "#2a672e"),
    ("#e8e0f4", "#5c3c92"),
    ("#fadede", "#962a2a"),
    ("#d3eded", "#0f5f61"),
    ("#f3eec9", "#635a0e"),
    ("#ecdfd5", "#6b4526"),
    ("#f7dcee", "#86286c"),
    ("#dfe5ec", "#3a4c60"),
)
"""Fill and text colour of a kind of module, by number."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle with centred lines of text; without text, a frame."""

    x: float
    y: float
    width: float
    height: float
    text: tuple[str, ...] = ()
    ground: str = PAPER
    stroke: str = STROKE
    ink: str = INK
    radius: float = 3
    size: float = 12
    bold: bool = False


@dataclass(frozen=True)
class Label:
    """Text without a box; `y` is its middle, `x` its start, or its end with `to_left`."""

    x: float
    y: float
    text: str
    size: float = 11
    ink: str = INK
    bold: bool = False
    to_left: bool = False


@dataclass(frozen=True)
class Line:
    """A polyline; an arrow has its head at the last point."""

    points: tuple[Point, ...]
    arrow: bool = True
    stroke: str = STROKE


Mark = Box | Label | Line


@dataclass(frozen=True)
class Drawing:
    """Marks within a size, starting at 0, 0."""

    width: float
    height: float
    marks: tuple[Mark, ...]


def moved(marks: Iterable[Mark], dx: float, dy: float) -> tuple[Mark, ...]:
    """The marks, moved right by dx and down by dy."""
    return tuple(
        replace(mark, points=tuple((x + dx, y + dy) for x, y in mark.points))
        if isinstance(mark, Line)
        else replace(mark, x=mark.x + dx, y=mark.y + dy)
        for mark in marks
    )


def text_width(text: str, size: float) -> float:
    """Approximate width of a text in Helvetica or Arial, whose glyphs are about 0.55 em wide, bold ones 0.6."""
    return 0.6 * size * len(text)


def badge(x: float, y: float, number: int) -> Box:
    """The number of a kind in a circle centred at x, y."""
    dark = colours(number)[1]
    return Box(x - 9, y - 9, 18, 18, (str(number),), ground=dark, stroke=dark, ink=PAPER, radius=9, size=11, bold=True)


def colours(number: int) -> tuple[str, str]:
    """Fill and text colour of a kind; after ten kinds the colours repeat."""
    return PALETTE[(number - 1) % len(PALETTE)]
