"""Makes docs/structure.svg, the packages and what they import: python docs/pages/structure.py

A package stands above all that it imports. An arrow that follows from others is left out. tests/test_structure.py
compares the file with what this makes from the source.
"""

from __future__ import annotations

import ast
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent.parent
SOURCE = DOCS.parent / "src" / "inceptionnet"
PACKAGES = {
    "cli": (1.5, 0, "one file per command"),
    "study": (1, 1, "claims, over random seeds"),
    "serve": (2, 1, "classifiers over HTTP"),
    "doctor": (3, 1, "versions, engines, self-test"),
    "train": (1, 2, "recipes, loop, run folder"),
    "report": (0, 3, "plots and HTML pages"),
    "registry": (3, 3, "networks by name, hub"),
    "classifier": (2, 4, "load, predict, evaluate, export"),
    "explain": (1, 5, "saliency maps"),
    "engines": (2, 5, "fast inference, exports"),
    "evaluate": (1, 6, "metrics, features, FID"),
    "weights": (3, 6, "everybody's weights files"),
    "model": (2, 7, "tree → torch"),
    "draw": (0, 8, "tree → SVG"),
    "data": (3, 8, "images, labels, preprocessing"),
    "nets": (1, 9, "the papers' networks, as trees"),
    "system": (3, 9, "files, processes, printing"),
    "errors": (2, 10, "every error"),
}
"""Column, row and purpose."""
BOX_PX, ROW_PX, GAP_PX, MARGIN_PX = (208, 44), 84, 24, 12


def imported(file: Path) -> set[str]:
    """The package's own parts that a file imports, for types or inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("inceptionnet"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def imports() -> dict[str, set[str]]:
    """The packages that each package imports."""
    found: dict[str, set[str]] = {name: set() for name in PACKAGES}
    for file in SOURCE.rglob("*.py"):
        package = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if package in found:
            found[package] |= imported(file)
    return {name: others & found.keys() - {name} for name, others in found.items()}


def drawn(graph: dict[str, set[str]]) -> str:
    """The drawing of what imports what."""

    def reached(name: str) -> set[str]:
        return graph[name].union(*(reached(other) for other in graph[name]))

    width, height = BOX_PX
    at = {
        name: (MARGIN_PX + column * (width + GAP_PX) + width / 2, MARGIN_PX + row * ROW_PX)
        for name, (column, row, _) in PACKAGES.items()
    }
    arrows, boxes, words = [], [], []
    for name, (x, y) in at.items():
        boxes.append(f'<rect x="{x - width / 2:g}" y="{y:g}" width="{width}" height="{height}" rx="6"/>')
        words.append(f'<text x="{x:g}" y="{y + 18:g}" font-weight="bold">{name}</text>')
        words.append(f'<text x="{x:g}" y="{y + 35:g}" font-size="12">{escape(PACKAGES[name][2])}</text>')
        for other in sorted(graph[name].difference(*(reached(other) for other in graph[name]))):
            (end_x, end_y), start_y = at[other], y + height
            middle = (start_y + end_y) / 2
            arrows.append(
                f'<path d="M{x:g} {start_y:g}C{x:g} {middle:g} {end_x:g} {middle:g} {end_x:g} {end_y - 2:g}"/>'
            )
    size = tuple(
        2 * MARGIN_PX + max(at[name][axis] for name in at) + part for axis, part in ((0, width / 2), (1, height))
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0] - MARGIN_PX:g} {size[1] - MARGIN_PX:g}" '
            'font-family="DejaVu Sans,Verdana,sans-serif" font-size="14" text-anchor="middle">',
            "<title>The packages: each imports from those that its arrows lead to, and from what these lead to</title>",
            "<style>.a path{marker-end:url(#end)}</style>",
            '<marker id="end" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker>',
            '<rect width="100%" height="100%" fill="#fff"/>',
            '<g class="a" fill="none" stroke="#9ca3af" stroke-width="1.3">',
            *arrows,
            '</g>\n<g fill="#eef4fa" stroke="#1d63a5">',
            *boxes,
            '</g>\n<g fill="#1f2937">',
            *words,
            "</g>\n</svg>\n",
        )
    )


if __name__ == "__main__":
    (DOCS / "structure.svg").write_text(drawn(imports()), encoding="utf-8")
