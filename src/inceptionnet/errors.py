"""Every error the package raises on purpose.

A message is one line that says what was expected, what came and what to do, and it names the file, key or
argument. The command line prints exactly that line and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InceptionNetError(Exception):
    """Base of all errors below: `except InceptionNetError` catches whatever the package refuses."""


class ConfigurationError(InceptionNetError, ValueError):
    """An argument, option or network name that cannot be used."""


class InputError(InceptionNetError, ValueError):
    """A tensor that the network cannot take: wrong rank, channels, type or too few pixels."""


class DataError(InceptionNetError):
    """A data set that cannot be trained or evaluated on."""


class DecodeError(DataError):
    """One image that cannot be decoded."""


class WeightsError(InceptionNetError):
    """A file that holds no weights, or weights that do not fit the network."""


class RunError(InceptionNetError):
    """A run folder that exists already, is incomplete or cannot be written."""


class TrainingError(InceptionNetError):
    """A training that cannot go on, such as one whose loss is no longer a number."""


class Interrupted(InceptionNetError):
    """Ctrl-C: the work stopped, what was done is saved, and the message says where."""


class MissingExtraError(InceptionNetError, ImportError):
    """An optional dependency that is not installed; the message holds the install line."""


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
    """The error for an optional dependency: what needs it, and the line that installs it."""
    return MissingExtraError(f"{purpose} needs {package}; install it with: pip install 'inceptionnet[{extra}]'")
