"""One line of what was found, and texts without what is private."""

from __future__ import annotations

import getpass
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from inceptionnet.errors import InceptionNetError, one_line

MOST = 500
"""Characters of a reason."""


class Finding(NamedTuple):
    """One line: what was looked at, and what it is."""

    section: str
    name: str
    value: Any
    """For JSON."""
    text: str
    """For people; of a problem its reason."""
    problem: bool = False
    """Whether something that should work does not."""


def described(error: Exception) -> str:
    """An exception's type and message in one line; the message alone of the package's own errors."""
    said = one_line(error, MOST)
    return said if isinstance(error, InceptionNetError) else f"{type(error).__name__}: {said}"


def guarded(section: str, examined: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a section, of which an exception is one too."""
    found: list[Finding] = []
    try:
        for finding in examined():
            found.append(finding)
    except Exception as error:  # whatever a broken package raises
        found.append(Finding(section, "error", None, described(error), True))
    return found


def private(finding: Finding) -> Finding:
    """The finding without the name of the home folder and of the user."""
    return finding._replace(value=_without(finding.value), text=_without(finding.text))


def _without(value: Any) -> Any:
    match value:
        case str():
            return without_names(value)
        case dict():
            return {key: _without(one) for key, one in value.items()}
        case list() | tuple():
            return [_without(one) for one in value]
    return value


def without_names(text: str) -> str:
    """A text in which the home folder is `~`, and the user's name in other paths is `USER`."""
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, as some containers have
        homes = set()
    else:
        homes = {str(folder) for folder in (home, home.resolve())} - {home.anchor}
    for folder in sorted(homes, key=len, reverse=True):
        text = re.sub(rf"{re.escape(folder)}(?![\w.-])", "~", text)
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(user)}(?=[/\\]|$)", "USER", text)
