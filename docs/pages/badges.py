"""Makes docs/badges.svg from pyproject.toml and the workflow of the tests: python docs/pages/badges.py

tests/test_release.py compares the file with what this makes, so that what the badges say stays true.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent.parent
CHECKED = DOCS.parent / ".github" / "workflows" / "ci.yml"
CHARACTER_PX, HEIGHT_PX, PAD_PX = 6.6, 20, 7


def badges(project: dict) -> dict[str, str]:
    """What is stated, by its subject."""
    versions = [one.rsplit(" ", 1)[1] for one in project["classifiers"] if re.search(r"Python :: 3\.\d+$", one)]
    (torch,) = (one for one in project["optional-dependencies"]["torch"] if one.startswith("torch>"))
    status = next(one.rsplit(" ", 1)[1] for one in project["classifiers"] if one.startswith("Development Status"))
    return {
        "python": ", ".join(versions),
        "torch": torch.removeprefix("torch>=") + " or newer",
        "types": "complete" if "make types" in CHECKED.read_text(encoding="utf-8") else "not checked",
        "status": status.lower(),
        "licence": project["license"].split(" AND ")[0],
    }


def drawn(stated: dict[str, str]) -> str:
    """All badges in a row, as one drawing."""
    parts, left = [], 0.0
    for subject, text in stated.items():
        widths = [round(len(one) * CHARACTER_PX + 2 * PAD_PX, 1) for one in (subject, text)]
        for one, width, colour in zip((subject, text), widths, ("#4b5563", "#1d63a5"), strict=True):
            parts.append(
                f'<rect x="{left:.1f}" width="{width}" height="{HEIGHT_PX}" fill="{colour}"/>'
                f'<text x="{left + width / 2:.1f}" y="14">{escape(one)}</text>'
            )
            left += width
        left += PAD_PX
    title = "; ".join(f"{subject}: {text}" for subject, text in stated.items())
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{left - PAD_PX:.0f}" height="{HEIGHT_PX}" role="img">',
            f"<title>{escape(title)}</title>",
            '<g fill="#fff" font-family="DejaVu Sans,Verdana,sans-serif" font-size="11" text-anchor="middle">',
            *parts,
            "</g>\n</svg>\n",
        )
    )


def main() -> None:
    """Write the file."""
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (DOCS / "badges.svg").write_text(drawn(badges(project)), encoding="utf-8")


if __name__ == "__main__":
    main()
