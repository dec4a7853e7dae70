"""The folder of a comparison: comparison.json, the curves as files, and one page with everything on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inceptionnet.data.bands import Pixels
from inceptionnet.errors import RunError, listed
from inceptionnet.evaluate.intervals import LEVEL
from inceptionnet.report.html import from_template, percent, write_html
from inceptionnet.report.images import whole, within_budget
from inceptionnet.report.page import check_extras
from inceptionnet.study.comparison import FIGURES, ONE_SEED, Comparison
from inceptionnet.study.curves import MEASURES, curve_charts, draw_curves, save_figure
from inceptionnet.study.same_images import Disagreement, SameImages
from inceptionnet.train.out_folder import OutFolder
from inceptionnet.train.settings import value_text

PAGE, FIGURES_FILE, CURVES_STEM = "index.html", "comparison.json", "curves"
MOST = 24
"""Thumbnails of one group of disagreements."""
SIDE_PX = 200


@dataclass(frozen=True)
class Group:
    """Disagreements where the same runs are correct."""

    heading: str
    images: int
    """All of them."""
    shown: Sequence[tuple[Disagreement, str]]
    """The first ones, each with its thumbnail: a WebP file in base64."""


def check_out(out: Path) -> None:
    """Check that a comparison can be written into a folder, before any work.

    Raises:
        RunError: it is there and not empty, or is a file.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    check_extras()
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: expected a folder or a new name, got a file; choose another --out")
    if out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out}: exists and is not empty; choose another --out")


def write_comparison(out: Path, comparison: Comparison) -> list[Path]:
    """Write comparison.json, curves.svg and curves.png (the deciding metric) and index.html into a new folder.

    Returns: the files.

    Raises:
        RunError: the folder is there and not empty, or cannot be written.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    check_out(out)
    OutFolder(out).write_json(FIGURES_FILE, comparison.to_dict(), "; choose another --out")
    what, curves = next(iter(comparison.curves.items()))
    drawn = save_figure(draw_curves({MEASURES[what][0]: curves}, comparison.data), out / CURVES_STEM)
    page = out / PAGE
    write_html(page, rendered(comparison))
    return [out / FIGURES_FILE, *drawn, page]


def rendered(comparison: Comparison) -> str:
    """The page as text: self-contained, for light and dark. Raises: MissingExtraError, as `write_comparison`."""
    found = comparison.same_images
    charts = [
        chart for what, curves in comparison.curves.items() for chart in curve_charts(curves, MEASURES[what][0], what)
    ]
    content = {
        "comparison": comparison,
        "names": [one.name for one in comparison.runs],
        "heads": [(name, FIGURES[name]) for name in comparison.figures],
        "splits": sorted({one.split for one in comparison.runs}),
        "charts": charts,
        "found": found,
        "measure": found.measure if found else "",
        "groups": groups(found) if found else [],
        "one_seed": ONE_SEED,
        "level": percent(LEVEL, 0),
    }
    return from_template("compare.html", content, {"text": value_text, "points": points})


def points(difference: float) -> str:
    """A difference of two accuracies with its sign, in percentage points."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def groups(found: SameImages) -> list[Group]:
    """The disagreements by which runs are correct, the largest group first, as many thumbnails as a page may have."""
    by_correct: dict[tuple[bool, ...], list[Disagreement]] = {}
    for one in found.disagreements:
        by_correct.setdefault(tuple(one.correct), []).append(one)
    ordered = sorted(by_correct.items(), key=lambda item: (not any(item[0]), -len(item[1])))
    chosen = [one for _, group in ordered for one in group[:MOST]]

    def pixels(i: int) -> Pixels:
        return whole(found.split, chosen[i].position, SIDE_PX)

    thumbnails = {chosen[i].position: text for i, text in within_budget(range(len(chosen)), pixels, SIDE_PX, 75)}
    return [
        Group(
            _heading(correct, found.names),
            len(group),
            [(one, thumbnails[one.position]) for one in group[:MOST] if one.position in thumbnails],
        )
        for correct, group in ordered
    ]


def _heading(correct: Sequence[bool], names: Sequence[str]) -> str:
    right = [name for name, one in zip(names, correct, strict=True) if one]
    if not right:
        return "None correct, and not the same predicted"
    return f"Only {listed(right, ordered=True, last='and')} correct"
