"""Downloads by the standard library alone, with retries that resume where the connection broke off."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any

from inceptionnet.errors import DataError

TRIES = 5
WAIT_S = 1.0  # after the first try, then twice as long each time
TIMEOUT_S = 30.0
MAX_SMALL_BYTES = 2**24
RESUME = "try again, a run can be resumed"
"""What to do about a broken download of training data."""


def fetch(url: str, *, most: int = MAX_SMALL_BYTES, advice: str = RESUME) -> bytes | None:
    """A whole file of at most `most` bytes, or None if the server has no such file. Raises: DataError."""
    with Download(url, advice) as file:
        try:
            data = file.read(most + 1)
            while chunk := file.read(most + 1 - len(data)):
                data += chunk
        except FileNotFoundError:
            return None
    if len(data) > most:
        raise DataError(f"{url}: expected a file of at most {most} bytes, got more: check the URL")
    return data


class Download:
    """A file read sequentially; after a broken connection, the next one resumes at the byte reached."""

    def __init__(self, url: str, advice: str = RESUME) -> None:
        self.url = url
        self.at: int = 0
        self.advice = advice
        self._total: int | None = None
        self._response: Any = None  # http.client.HTTPResponse; None without a connection

    def __enter__(self) -> Download:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; empty at the end.

        Raises: FileNotFoundError if the server has no such file; DataError if it cannot be read.
        """
        reason = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(WAIT_S * 2 ** (attempt - 1))
            try:
                if self._response is None:
                    self._connect()
                data: bytes = self._response.read(size)
                if data or not size or self._total is None or self.at >= self._total:
                    self.at += len(data)
                    return data
                reason = f"the connection ended after {self.at} of {self._total} bytes"
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in (404, 410):
                    raise FileNotFoundError(self.url) from None
                reason = f"the server answers {error.code} {error.reason}"
                if error.code < 500 and error.code not in (408, 429):
                    break
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", "") or error) or type(error).__name__
            self.close()
        raise DataError(f"{self.url}: cannot be read: {' '.join(reason.split())}; {self.advice}")

    def _connect(self) -> None:
        headers = {"User-Agent": "inceptionnet", **({"Range": f"bytes={self.at}-"} if self.at else {})}
        self._response = urllib.request.urlopen(urllib.request.Request(self.url, headers=headers), timeout=TIMEOUT_S)
        skip = self.at if self._response.status != 206 else 0  # a server without range requests sends the whole file
        length = self._response.headers.get("Content-Length")
        total = int(length) + self.at - skip if length else None
        if self.at and total != self._total:
            raise DataError(
                f"{self.url}: expected {self._total} bytes as before, got {total}: the file has changed; start again"
            )
        self._total = total
        while skip:
            passed = len(self._response.read(min(skip, 2**20)))
            if not passed:
                raise ConnectionError("the connection ended early")
            skip -= passed
