"""The pages of the site that are made from the package, as an extension of Sphinx.

One module makes the pages of one kind, as a dict from file name to text; nothing here repeats what the code says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inceptionnet.system.files import replacing
from pages import api, commands, networks, project, settings

DOCS = Path(__file__).parent.parent
KINDS = {
    "networks": networks.pages,
    "settings": settings.pages,
    "commands": commands.pages,
    "api": api.pages,
    "project": project.pages,
}


def write(folder: Path) -> None:
    """Write all pages below the folder; what is as it was keeps its time, and what is no longer made goes."""
    written = set()
    for kind, made in KINDS.items():
        for name, text in made().items():
            path = folder / kind / name
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                with replacing(path) as temporary:  # another build may be reading it
                    temporary.write_text(text, encoding="utf-8")
            written.add(path)
    for path in folder.rglob("[!.]*"):
        if path.is_file() and path not in written:
            path.unlink(missing_ok=True)


def mended(name: str, text: str) -> str:
    """The text of the page `name`, where links to documents beside docs/ lead to their copies on the site."""
    up = "../" * name.count("/")

    def target(match: re.Match[str]) -> str:
        copy = project.COPIES.get(match[1])
        return f"]({up}generated/project/{copy}{match[2] or ''})" if copy else match[0]

    return re.sub(rf"\]\({re.escape(up)}\.\./([\w./-]+)(#[\w-]*)?\)", target, text)


def _mend(app: Any, name: str, source: list[str]) -> None:
    source[0] = mended(name, without_empty_globs(name, source[0]))


def without_empty_globs(name: str, text: str) -> str:
    """The text less the patterns in a toctree that match no page: Sphinx warns of those, though more may come."""
    here = (DOCS / name).parent

    def kept(line: str) -> bool:
        return not re.fullmatch(r"[\w./-]*\*", line) or any(path.stem != "index" for path in here.glob(f"{line}.md"))

    if ":glob:" not in text:
        return text
    return "".join(line for line in text.splitlines(keepends=True) if kept(line.strip()))


def _whole(app: Any, what: str, name: str, about: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what is before the first colon of an attribute's docstring for its type; ours have none there."""
    if what in ("attribute", "data", "property") and lines:
        lines.insert(0, "\\ ")


def setup(app: Any) -> Mapping[str, Any]:
    """Called by Sphinx."""
    app.connect("config-inited", lambda app, config: write(DOCS / "generated"))
    app.connect("source-read", _mend)
    app.connect("missing-reference", api.resolved)
    app.connect("autodoc-process-docstring", _whole, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
