"""The exceptions of the package.

A message is one line: what was expected, what was given and what to do; it names the file, key or argument. The command
line prints exactly that line and exits with code 2.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

_JOINERS = "\u200c\u200d"
"""Characters of no width that words and emoji need."""
_CONTROLS = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode's categories of control and format characters, halves of characters, and separators of lines."""


def visible(text: str) -> str:
    r"""A text in one line without characters that a terminal obeys: each of them as its escape.

    These are control characters (ESC, line breaks, C1), those that turn the direction of a text or have no width, and
    bytes of a file name that are not UTF-8. Whatever is printed or logged for people goes through this; data in files
    does not.

    Example:
        >>> print(visible("a\x1b[2Jb\nc"), visible("é 猫"))
        a\x1b[2Jb\nc é 猫
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or not _is_control(c) else _escaped(c) for c in text)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in _CONTROLS and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


SHOWN_FIRST, SHOWN_LAST = 2000, 1000
"""Characters of a message: names in files may be as long as the file."""


class InceptionNetError(Exception):
    """Base class of all exceptions of the package."""

    def __str__(self) -> str:
        """The message in one line of some 3000 characters at most, without control characters; `args` has it whole."""
        text = visible(super().__str__())
        if len(text) <= SHOWN_FIRST + SHOWN_LAST:
            return text
        return f"{text[:SHOWN_FIRST]} … {text[-SHOWN_LAST:]}"


class ConfigurationError(InceptionNetError, ValueError):
    """An argument, option or network name that cannot be used."""


class InputError(InceptionNetError, ValueError):
    """A tensor that the network cannot process: wrong rank, channels or type, or too few pixels."""


class DataError(InceptionNetError):
    """A data set that cannot be used for training or evaluation.

    Args:
        reason: what was expected and what was given.
        advice: what to do, where whoever catches the error may know another way.
    """

    def __init__(self, reason: str = "", advice: str = "") -> None:
        super().__init__(f"{reason}: {advice}" if advice else reason)
        self.reason: str = reason


class DecodeError(DataError):
    """An image that cannot be decoded."""


class WeightsError(InceptionNetError):
    """A file without weights, or with weights that do not fit the network."""


class RunError(InceptionNetError):
    """A run folder that exists already, is incomplete or cannot be written."""


class TrainingError(InceptionNetError):
    """Training cannot continue, for example because the loss is not finite."""


class ProcessError(InceptionNetError):
    """Another of the processes that torchrun started has failed, is gone or does not answer."""


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
    return f"did you mean {listed(close, ordered=True, last='or')}?" if close else f"known: {listed(known)}"


def reason_of(error: Exception, name: str) -> str:
    """The message of an error without the name that it begins with."""
    return str(error).removeprefix(f"{visible(name)}: ")


def message_of(error: Exception) -> str:
    """What an error says; of one of the system without its number and the file's name."""
    return getattr(error, "strerror", None) or str(error)


def one_line(error: object, most: int = 200) -> str:
    """An exception or other text as one line of at most `most` characters; the type's name if the text is empty."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split()) or type(error).__name__
    return text if len(text) <= most else text[: most - 1] + "…"


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


def number_of(what: str, count: int, form: str = "") -> str:
    """A number with its noun, whose plural is regular.

    Args:
        what: the noun in the singular, with words before it or not.
        form: how the number is formatted; "," puts commas between thousands.

    Example:
        >>> number_of("image", 1), number_of("image", 1797, ","), number_of("class", 3), number_of("entry", 0)
        ('1 image', '1,797 images', '3 classes', '0 entries')
        >>> number_of("epoch", 2), number_of("branch", 2), number_of("batch", 2)
        ('2 epochs', '2 branches', '2 batches')
    """
    if count == 1:
        return f"1 {what}"
    if what.endswith("y") and what[-2] not in "aeiou":
        return f"{count:{form}} {what[:-1]}ies"
    return f"{count:{form}} {what}{'es' if what.endswith(('s', 'x', 'sh', 'nch', 'tch')) else 's'}"


def none_read(images: int, name: str, reason: str) -> DataError:
    """That no image could be read, with the first one's name and reason; of a lone image these say it all."""
    of = "" if images == 1 else f"none of {images} images could be read; the first: "
    return DataError(f"{of}{name}: {reason}")


def missing_extra(package: str, extra: str, purpose: str) -> MissingExtraError:
    """The error for a missing optional dependency: what needs it, and the command that installs it."""
    return MissingExtraError(f"{purpose} needs {package}; install it with: pip install 'inceptionnet[{extra}]'")
