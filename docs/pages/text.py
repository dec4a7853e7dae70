"""Markdown, and how numbers are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table; columns of numbers, by position, are right-aligned."""
    columns = set(right)
    rule = ["---:" if i in columns else "---" for i in range(len(head))]
    lines = [head, rule, *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(*parts: str) -> str:
    """A page of these parts; empty ones are left out."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def toctree(*entries: str) -> str:
    """The pages below a page, in order, for the navigation."""
    return "\n".join(["```{toctree}", ":hidden:", "", *entries, "```"])


def millions(number: int) -> str:
    """A number of parameters."""
    return f"{number / 1e6:.1f} M"


def billions(number: int) -> str:
    """A number of multiply-adds."""
    return f"{number / 1e9:.2f} G"
