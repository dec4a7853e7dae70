"""The page: header, overview of the network on the left, and a numbered panel for each kind of module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from inceptionnet.draw.arrange import Frame, arranged, extent, sheet
from inceptionnet.draw.column import column
from inceptionnet.draw.kinds import Kind, kinds, steps
from inceptionnet.draw.marks import QUIET, SHADE, Box, Drawing, Label, Line, Mark, badge, colours, moved, text_width
from inceptionnet.draw.modules import module
from inceptionnet.draw.words import grid_text, header, notes
from inceptionnet.nets.analysis import analyse
from inceptionnet.nets.spec import Network

MARGIN, PADDING, TITLE, ROW, ASIDE = 24, 14, 28, 17, 36
"""In pixels: page margin, panel padding, heights of panel title and text row, distance from overview to panels."""
NOTE_WIDTH = 300
"""Text width of the notes, in pixels."""
RULE = "#999999"


@dataclass(frozen=True)
class Page:
    """Everything to be rendered, with title and description for screen readers."""

    title: str
    description: str
    drawing: Drawing


@dataclass(frozen=True)
class Panel:
    """A titled frame; `number` of the kind of module, None for the notes."""

    number: int | None
    title: str
    content: Drawing

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, at least those of the title."""
        width = max(self.content.width, 26 + text_width(self.title, 13))
        return width + 2 * PADDING, TITLE + self.content.height + 2 * PADDING


def page(network: Network) -> Page:
    """Lay out the drawing."""
    rows = analyse(network)
    found = kinds(network, rows)
    whole = column(steps(network, rows, found), f"input {grid_text(rows[0].input)}")
    panels = [Panel(kind.number, kind.names, _under(module(kind), _table(kind.table))) for kind in found]
    told = notes(network, rows, letters=any(kind.table for kind in found))
    key = Panel(None, "Notation", _text(told, NOTE_WIDTH, 11))
    noted = _under(whole, Drawing(*key.size, _panel(key, Frame(0, 0, *key.size))), ASIDE)
    # The notes go below the overview or after the last panel, whichever gives the smaller page.
    ways = [_beside(whole, [*panels, key]), _beside(noted, panels)]
    smaller = min(ways, key=lambda way: sheet(way.width, way.height))
    head = _header(network.name, header(network, rows), smaller.width)
    drawing = Drawing(
        smaller.width + 2 * MARGIN,
        head.height + smaller.height + 2 * MARGIN,
        moved(head.marks + moved(smaller.marks, 0, head.height), MARGIN, MARGIN),
    )
    return Page(network.name, _description(network, found), drawing)


def _beside(left: Drawing, panels: Sequence[Panel]) -> Drawing:
    """The drawing with the panels to its right."""
    edge = left.width + ASIDE
    frames = arranged([panel.size for panel in panels], (edge, left.height))
    right, low = extent(frames)
    placed = [mark for panel, frame in zip(panels, frames, strict=True) for mark in _panel(panel, frame)]
    return Drawing(edge + right, max(left.height, low), left.marks + moved(placed, edge, 0))


def _header(name: str, lines: Sequence[str], width: float) -> Drawing:
    text = moved(_text(lines, width, 12).marks, 0, 36)
    height = 36 + ROW * len(text) + 20
    return Drawing(width, height, (Label(0, 13, name, 24, bold=True), *text))


def _panel(panel: Panel, frame: Frame) -> tuple[Mark, ...]:
    """A panel in its frame: drawings are centred, notes left-aligned."""
    ground, ink = (SHADE, RULE) if panel.number is None else colours(panel.number)
    middle = frame.y + TITLE / 2
    left = frame.x + PADDING
    marks: list[Mark] = [
        Box(frame.x, frame.y, frame.width, frame.height, stroke=ink),
        Box(frame.x, frame.y, frame.width, TITLE, ground=ground, stroke=ink),
    ]
    if panel.number is not None:
        marks.append(badge(left + 9, middle, panel.number))
        left += 26
    marks.append(Label(left, middle, panel.title, 13, bold=True))
    x = left if panel.number is None else frame.x + (frame.width - panel.content.width) / 2
    return (*marks, *moved(panel.content.marks, x, frame.y + TITLE + PADDING))


def _table(cells: Sequence[Sequence[str]]) -> Drawing:
    """A table with numbers right-aligned; empty without cells."""
    if not cells:
        return Drawing(0, 0, ())
    widths = [max(text_width(cell, 11) for cell in column) + 12 for column in zip(*cells, strict=True)]
    marks: list[Mark] = []
    for number, row in enumerate(cells):
        y, right = ROW * (number + 0.5), 0.0
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            right += width
            marks.append(Label(right - 6 if i else 6, y, cell, bold=number == 0, to_left=i > 0))
    for y in (0, ROW, ROW * len(cells)):
        marks.append(Line(((0, y), (sum(widths), y)), arrow=False, stroke=RULE))
    return Drawing(sum(widths), ROW * len(cells), tuple(marks))


def _text(lines: Sequence[str], width: float, size: float) -> Drawing:
    """The lines, wrapped at `width`; continuation lines are indented."""
    broken = [part for line in lines for part in wrap(line, int(width / text_width("m", size)), subsequent_indent="  ")]
    marks = tuple(
        Label(size if part.startswith("  ") else 0, ROW * (i + 0.5), part.strip(), size, QUIET)
        for i, part in enumerate(broken)
    )
    return Drawing(max(text_width(part, size) for part in broken), ROW * len(broken), marks)


def _under(upper: Drawing, lower: Drawing, gap: float = PADDING) -> Drawing:
    """One below the other, centred."""
    if not lower.marks:
        return upper
    width = max(upper.width, lower.width)
    y = upper.height + gap
    marks = moved(upper.marks, (width - upper.width) / 2, 0) + moved(lower.marks, (width - lower.width) / 2, y)
    return Drawing(width, y + lower.height, marks)


def _description(network: Network, found: Sequence[Kind]) -> str:
    listing = "; ".join(f"{kind.number}: {kind.names}" for kind in found)
    return f"{network.summary}. Overview from input to logits, and each kind of module in detail: {listing}."
