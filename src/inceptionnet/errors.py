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


def nearest(word: str, known: Iterable[str], most: int = 3) -> str:
    """The known words closest to `word`, for an error's last sentence: `did you mean a, b?` or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=most, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names in an error: sorted, the first few, and how many more there are."""
    names = sorted(names)
    some = ", ".join(names[:most])
    return some if len(names) <= most else f"{some} and {len(names) - most} more"


def missing_extra(package: str, extra: str, purpose: str) -> MissingExtraError:
    """The error for an optional dependency: what needs it, and the line that installs it."""
    return MissingExtraError(f"{purpose} needs {package}; install it with: pip install 'inceptionnet[{extra}]'")
