"""`Refused`: why a request gets no answer, in one line, with its HTTP status."""

from __future__ import annotations

from inceptionnet.errors import InceptionNetError

RETRY_S, MOST_RETRY_S = 1, 30
"""After which a client that was turned away may try again, at least and at most."""


class Refused(InceptionNetError):
    """A request that is not answered.

    Args:
        message: one line for the client: what was expected, what came, what to do.
        status: of HTTP.
        retry_s: after which a client may try again, with status 503.
    """

    def __init__(self, message: str, status: int = 400, retry_s: int = RETRY_S) -> None:
        super().__init__(message)
        self.status, self.retry_s = status, retry_s

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer beside those that every answer has."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(self.retry_s)} if self.status == 503 else {}


def busy(message: str, since_s: float = 0) -> Refused:
    """The service has too much to do: 503, at once, with the time after which to try again.

    Args:
        since_s: how long it has been so; the longer, the later to try again.
    """
    retry_s = min(max(round(since_s / 4), RETRY_S), MOST_RETRY_S)
    return Refused(f"{message}; try again in {retry_s} s", 503, retry_s)
