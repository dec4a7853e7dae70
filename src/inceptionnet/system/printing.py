"""The one place where text is printed or logged for people: without characters that a terminal obeys."""

from __future__ import annotations

import logging
import sys

from inceptionnet.errors import visible

LOGGER = "inceptionnet"


def say(*lines: str, end: str = "\n", error: bool = False) -> None:
    """Print lines, each in one line of the terminal: see `visible`.

    Args:
        end: what follows the last one.
        error: on standard error.
    """
    print(*map(visible, lines), sep="\n", end=end, file=sys.stderr if error else sys.stdout, flush=error)


class Visible(logging.Filter):
    """Makes the messages of a logger or a handler visible; those of other libraries keep their line breaks."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True: every record passes."""
        message = record.getMessage()
        lines = [message] if record.name == LOGGER else message.split("\n")
        record.msg, record.args = "\n".join(map(visible, lines)), None
        return True


VISIBLE = Visible()
"""The one filter, so that a handler has it once."""
