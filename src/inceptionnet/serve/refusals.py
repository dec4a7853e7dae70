"""`Refused`: why a request gets no answer, in one line, with its HTTP status."""

from __future__ import annotations

from inceptionnet.errors import InceptionNetError

RETRY_S = 1
"""After which a client that was turned away may try again."""


class Refused(InceptionNetError):
    """A request that is not answered.

    Args:
        message: one line for the client: what was expected, what came, what to do.
        status: of HTTP.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer beside those that every answer has."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(RETRY_S)} if self.status == 503 else {}


def busy(message: str) -> Refused:
    """The service has too much to do: 503, at once, with the time after which to try again."""
    return Refused(f"{message}; try again in {RETRY_S} s", 503)
