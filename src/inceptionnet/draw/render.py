"""Rendering marks as SVG, with attributes only and no style sheet, so that several can be embedded in one document."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

from inceptionnet.draw.marks import INK, PAPER, STROKE, Box, Label, Line, Mark
from inceptionnet.draw.page import Page

LEADING = 15
"""Line height of text in boxes, in pixels."""
HEAD = (
    '<defs><marker id="inceptionnet-arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
    f'orient="auto"><path d="M0 0.5L8 4L0 7.5z" fill="{STROKE}"/></marker></defs>'
)


def rendered(page: Page) -> str:
    """The page as an SVG element."""
    width, height = (_number(side) for side in (page.drawing.width, page.drawing.height))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family="Helvetica, Arial, sans-serif" fill="{INK}">',
        f"<title>{escape(page.title)}</title>",
        f"<desc>{escape(page.description)}</desc>",
        HEAD,
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        *(line for mark in page.drawing.marks for line in _mark(mark)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _mark(mark: Mark) -> Iterable[str]:
    match mark:
        case Box():
            yield _tag(
                "rect",
                x=mark.x,
                y=mark.y,
                width=mark.width,
                height=mark.height,
                rx=mark.radius,
                fill=mark.ground,
                stroke=mark.stroke,
            )
            first = mark.y + mark.height / 2 - LEADING * (len(mark.text) - 1) / 2
            for i, text in enumerate(mark.text):
                yield _text(
                    mark.x + mark.width / 2, first + LEADING * i, text, mark.size, mark.ink, mark.bold, "middle"
                )
        case Label():
            yield _text(mark.x, mark.y, mark.text, mark.size, mark.ink, mark.bold, "end" if mark.to_left else "start")
        case Line():
            path = "L".join(f"{_number(x)} {_number(y)}" for x, y in mark.points)
            head = {"marker-end": "url(#inceptionnet-arrow)"} if mark.arrow else {}
            yield _tag("path", d=f"M{path}", fill="none", stroke=mark.stroke, **head)


def _text(x: float, y: float, text: str, size: float, ink: str, bold: bool, anchor: str) -> str:
    """Text vertically centred at `y`."""
    weight = "bold" if bold else "normal"
    attributes = {"font-size": _number(size), "font-weight": weight, "text-anchor": anchor, "fill": ink}
    # 0.35 em is half the height of capitals and digits; not every viewer supports `dominant-baseline`.
    return _tag("text", x=x, y=y + 0.35 * size, **attributes)[:-2] + f">{escape(text)}</text>"


def _tag(name: str, **attributes: float | str) -> str:
    """An empty element."""
    written = " ".join(
        f'{key}="{value if isinstance(value, str) else _number(value)}"' for key, value in attributes.items()
    )
    return f"<{name} {written}/>"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
