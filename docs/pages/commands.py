"""A page for each command: usage, arguments and options, as `inceptionnet COMMAND --help` has them."""

from __future__ import annotations

import re
from typing import Any, get_args

import typer

from inceptionnet.cli import app
from pages.text import page, table, toctree

SECTION = "Options"


def _code(text: str) -> str:
    """Text of the help as Markdown: what starts with -- is code, and <, * and _ stand for themselves."""
    text = re.sub(r"\s+", " ", text)
    parts = re.split(r"(`[^`]*`)", text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([<*_\[\]\\])", r"\\\1", parts[i])
        parts[i] = re.sub(r"(?<![\w-])(--[a-z][a-z-]*)", r"`\1`", parts[i])
    return "".join(parts)


def _choices(parameter: Any) -> tuple[str, ...]:
    """The words that a parameter takes; empty for others."""
    found = get_args(parameter.type_descriptor.annotation) if parameter.type_descriptor else ()
    words = [one for part in found for one in (part, *get_args(part))]
    return tuple(word for word in words if isinstance(word, str))


def _parameter(parameter: Any, context: Any) -> str:
    """An entry of a definition list."""
    written, told = parameter.get_help_record(context)
    told, bracket, facts = told.rpartition("  [") if told.endswith("]") else (told, "", "")
    facts = facts.removesuffix("]").split("; ") if bracket else []
    choices = _choices(parameter)
    if choices and not all(choice in written or choice in told for choice in choices):
        facts.insert(0, f"choices: {', '.join(choices)}")
    if parameter.multiple and "epeat" not in told:
        facts.append("repeatable")
    extra = "; ".join(fact.replace("x>=", "at least ").replace("x<=", "at most ") for fact in facts)
    extra = f" *({_code(extra)})*" if extra else ""
    return f"`{written}`\n: {_code(told)}{extra}"


def _command(name: str, command: Any, root: Any) -> str:
    context = typer.Context(command, info_name=name, parent=root)
    groups: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        if parameter.get_help_record(context):
            argument = type(parameter).__name__ == "TyperArgument"
            group = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or SECTION
            groups.setdefault(group, []).append(_parameter(parameter, context))
    usage = command.get_usage(context).removeprefix("Usage: ")
    told = "\n\n".join(_code(part) for part in command.help.split("\n\n"))
    listed = [part for group, entries in groups.items() for part in (f"## {group}", "\n\n".join(entries))]
    return page(f"# inceptionnet {name}", told, f"```sh\n{' '.join(usage.split())}\n```", *listed)


def pages() -> dict[str, str]:
    """The page of each command, and their list."""
    group = typer.main.get_command(app)
    root = typer.Context(group, info_name="inceptionnet")
    made = {f"{name}.md": _command(name, command, root) for name, command in group.commands.items()}
    rows = [
        [f"[{name}]({name}.md)", _code(command.help.partition("\n\n")[0])] for name, command in group.commands.items()
    ]
    made["index.md"] = page(
        "# Commands",
        "All that `inceptionnet COMMAND --help` prints. An error is one line and the exit code 2; Ctrl-C gives 130. "
        "Commands that report print JSON with `--json`.",
        table(["command", "what it does"], rows),
        toctree(*group.commands),
    )
    return made
