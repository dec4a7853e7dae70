"""Copies of the documents that stand beside docs/, whose links are those of the site."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
COPIES = {
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def _linked(path: str, target: str) -> str:
    """What a link of the document `path` is in its copy, which is in docs/generated/project/."""
    name, _, anchor = target.partition("#")
    leads = (ROOT / path).parent.joinpath(name).resolve().relative_to(ROOT.resolve()).as_posix()
    new = COPIES.get(leads) or (leads.removeprefix("docs/") if leads.startswith("docs/") else f"../{leads}")
    new = new if leads in COPIES else f"../../{new}"
    return new + (f"#{anchor}" if anchor else "")


def pages() -> dict[str, str]:
    """The copies."""
    return {
        copy: re.sub(
            r"\]\((?!https?:|#|mailto:)([^)\s]+)\)",
            lambda match, path=path: f"]({_linked(path, match[1])})",
            (ROOT / path).read_text(encoding="utf-8"),
        )
        for path, copy in COPIES.items()
    }
