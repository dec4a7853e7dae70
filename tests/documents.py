"""The blocks of code in the README and the docs, and the commands in them."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from inceptionnet.cli import app

ROOT = Path(__file__).parent.parent
PAGES = {
    str(page.relative_to(ROOT)): page
    for page in (
        ROOT / "README.md",
        *(
            page
            for folder in ("", "tutorials", "coming_from")
            for page in sorted((ROOT / "docs" / folder).glob("*.md"))
        ),
    )
}
"""By their path in the repository."""
LANGUAGES = {
    "sh": "commands; every one runs, or is in NOT_RUN",
    "console": "the same",
    "python": "runs, the blocks of a page one after another",
    "py": "compiles; it needs a library that is not installed for the tests",
    "json": "is valid",
    "toml": "is a study",
    "text": "what a command prints, or what a folder holds",
    "{toctree}": "the navigation of the site, which make docs checks",
    "": "the same",
}
"""What a block may be, and what is done with it."""
NOT_RUN = {
    "pip ": "installs",
    "make ": "installs, then runs what other tests run",
    "torchrun ": "tests/test_distributed.py and test_parts.py",
    "docker ": "tests/test_docker.py",
    "INCEPTIONNET_API_KEY=$(openssl ": "docker compose",
    "inceptionnet serve ": "test_documented_services.py",
    "curl ": "test_documented_services.py",
}
"""How the commands begin that are not run by test_every_command_runs, and why, or where else."""
FOREIGN = {
    "torchrun": ("--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--max-restarts"),
    "pip": ("--no-binary",),
    "curl": ("--data-binary",),
    "docker": ("--rm", "--build"),
    "pytorch-fid": ("--dims", "--save-stats", "--num-workers"),
    "torch-fidelity": ("--fid", "--isc"),
}
"""Options of other programs that the pages name."""


def fences(page: str) -> list[tuple[str, str]]:
    """The blocks of a page: language and text."""
    text = PAGES[page].read_text(encoding="utf-8")
    return re.findall(r"^ *```(\S*)[^\n]*\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)


def blocks(page: str, *languages: str) -> list[str]:
    """The text of the blocks in these languages."""
    return [text for language, text in fences(page) if language in languages]


def commands(page: str) -> list[str]:
    """The command lines of a page, without comments; a backslash at the end of a line joins the next."""
    lines = "\n".join(blocks(page, "sh", "console")).replace("\\\n", " ").splitlines()
    return [line.partition("    #")[0].strip() for line in lines if line.strip()]


def site(module: str = "") -> ModuleType:
    """What makes the pages of the site: `pages`, or a module of it."""
    if str(ROOT / "docs") not in sys.path:
        sys.path.append(str(ROOT / "docs"))
    return import_module(f"pages.{module}" if module else "pages")


def documented() -> list[str]:
    """The names that the API reference documents."""
    return [name for _, _, names in site("api").PAGES.values() for name in names]


def cli_commands() -> dict[str, Any]:
    """The commands of the command line by name, with their parameters."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # typer says it is any command
