"""The exceptions of the package.

A message is one line: what was expected, what was given and what to do; it names the file, key or argument. The command
line prints exactly that line and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InceptionNetError(Exception):
    """Base class of all exceptions of the package."""


class ConfigurationError(InceptionNetError, ValueError):
    """An argument, option or network name that cannot be used."""


class InputError(InceptionNetError, ValueError):
    """A tensor that the network cannot process: wrong rank, channels or type, or too few pixels."""


class DataError(InceptionNetError):
    """A data set that cannot be used for training or evaluation."""


class DecodeError(DataError):
    """An image that cannot be decoded."""


class WeightsError(InceptionNetError):
    """A file without weights, or with weights that do not fit the network."""


class RunError(InceptionNetError):
    """A run folder that exists already, is incomplete or cannot be written."""


class TrainingError(InceptionNetError):
    """Training cannot continue, for example because the loss is not finite."""


class Interrupted(InceptionNetError):
    """Stopped by Ctrl-C; progress is saved, and the message says where."""


class MissingExtraError(InceptionNetError, ImportError):
    """An optional dependency is not installed; the message contains the install command."""


MOST_LISTED = 10
"""Names in one message; the others are counted."""


def nearest(word: str, known: Iterable[str], most: int = 3) -> str:
    """The known words closest to `word`, for an error's last sentence: `did you mean a or b?`, else what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=most, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {listed(known)}"


def listed(names: Iterable[str], most: int = MOST_LISTED, *, ordered: bool = False, last: str = "") -> str:
    """Names for a message: sorted unless `ordered`, at most `most` of them, then how many more there are.

    Args:
        last: the word before the last name (and, or), where all of them are named.

    Example:
        >>> listed("cab"), listed("cab", ordered=True, last="or"), listed("abcd", 2)
        ('a, b, c', 'c, a or b', 'a, b … and 2 more')
    """
    names = list(names) if ordered else sorted(names)
    if len(names) > most:
        return f"{', '.join(names[:most])} … and {len(names) - most} more"
    if last and len(names) > 1:
        return f"{', '.join(names[:-1])} {last} {names[-1]}"
    return ", ".join(names)


def missing_extra(package: str, extra: str, purpose: str) -> MissingExtraError:
    """The error for a missing optional dependency: what needs it, and the command that installs it."""
    return MissingExtraError(f"{purpose} needs {package}; install it with: pip install 'inceptionnet[{extra}]'")
