"""Drawing a chain from top to bottom: names on the left, sizes on the right, then auxiliary heads."""

from __future__ import annotations

from collections.abc import Sequence

from inceptionnet.draw.kinds import Step
from inceptionnet.draw.marks import PAPER, QUIET, SHADE, Box, Drawing, Label, Line, Mark, badge, colours, text_width
from inceptionnet.nets.spec import Conv, Linear, SeparableConv

BOX, GAP, SPACE = 26, 18, 8
"""Height of a box and down to the next; between a box and the text beside it."""


def column(steps: Sequence[Step], start: str, ground: str = PAPER) -> Drawing:
    """The steps below a box with the text `start`; `ground`: colour of convolutions."""
    names = max(text_width(step.name, 11) if step.name else 22 for step in steps) + SPACE
    width = max(text_width(text, 12) for text in [start, *(step.text for step in steps)]) + 16
    sizes = max(text_width(step.output, 11) for step in steps) + SPACE
    heads = [step.aux for step in steps if step.aux]
    head_width = max((text_width(name, 12) + 16 for name, _ in heads), default=0)
    axis, edge, head_x = names + width / 2, names + width, names + width + sizes + 2 * SPACE
    marks: list[Mark] = [Box(names, 0, width, BOX, (start,), radius=BOX / 2, bold=True)]
    y = 0.0
    for step in steps:
        marks.append(Line(((axis, y + BOX), (axis, y + BOX + GAP))))
        y += BOX + GAP
        middle = y + BOX / 2
        if step.kind is None:
            marks.append(Label(names - SPACE, middle, step.name, ink=QUIET, to_left=True))
        else:
            marks.append(badge(names - SPACE - 9, middle, step.kind))
        marks.append(_box(step, names, y, width, ground))
        if step.output:
            marks.append(Label(edge + SPACE, middle, step.output))
        if step.aux:
            name, kind = step.aux
            tap = y + BOX + GAP / 2
            marks.append(Line(((axis, tap), (head_x, tap))))
            marks.append(Box(head_x, tap - BOX / 2, head_width, BOX, (name,), *colours(kind)))
            marks.append(badge(head_x + head_width + SPACE + 9, tap, kind))
    right = head_x + head_width + SPACE + 18 if heads else edge + sizes
    return Drawing(right, y + BOX, tuple(marks))


def _box(step: Step, x: float, y: float, width: float, ground: str) -> Box:
    stroke = Box.stroke
    if step.kind is not None:
        ground, stroke = colours(step.kind)
    elif not isinstance(step.node, Conv | SeparableConv | Linear):
        ground = SHADE
    return Box(x, y, width, BOX, (step.text,), ground=ground, stroke=stroke, bold=step.kind is not None)
