"""When one of several processes fails: all of them end soon, and each says in one line which one it was, and why.

The first to fail leaves its message in the store that torchrun keeps. The others notice it by a broken connection, by a
collective that takes longer than its limit, or by the SIGTERM that torchrun then sends to all.
"""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from inceptionnet.errors import ConfigurationError, InceptionNetError, Interrupted, ProcessError, listed, one_line

LIMIT = "INCEPTIONNET_WAIT_S"
"""The variable with the longest time that a process waits for the others, in seconds."""
LIMIT_S = 1800.0
"""By default. What one process does while the others wait is to fit into it: the search for copies, the fit of a
classifier, the report."""
REPORT_S = 3.0
"""How long those that are left wait to hear from one another, before they name who is missing."""
_FAILED = "failed"
"""The key of the first failure in the store."""


class _Terminated(BaseException):
    """SIGTERM came."""


def limit() -> timedelta:
    """How long a collective may take. Raises: ConfigurationError: what the variable says is no time."""
    stated = os.environ.get(LIMIT) or LIMIT_S
    try:
        return timedelta(seconds=_positive(float(stated)))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{LIMIT}={stated}: expected a number of seconds above 0; change or unset it"
        ) from None


def _positive(seconds: float) -> float:
    if not 0 < seconds < math.inf:
        raise ValueError
    return seconds


def is_lost(error: BaseException) -> bool:
    """Whether the error says that another process is gone or does not answer."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


@contextmanager
def ending_together(rank: int, size: int, store: Store) -> Iterator[None]:
    """Around what several processes do together: tells the others of a failure here, and says what failed there.

    Raises:
        ProcessError: another process failed, is gone or does not answer; or SIGTERM came.
    """
    me = f"process {rank} of {size}"
    with _raising_at_sigterm():
        try:
            yield
        except Interrupted:
            raise  # all processes agree on it
        except InceptionNetError as error:
            _tell(rank, str(error), store)
            error.args = (f"{me}: {error}",)
            raise
        except (RuntimeError, _Terminated) as error:
            if not (isinstance(error, _Terminated) or is_lost(error)):
                _tell(rank, one_line(error), store)
                raise
            _ignore_sigterm()
            raise ProcessError(f"{me}: {_what_happened(error, rank, size, store)}") from None
        except Exception as error:
            _tell(rank, f"{type(error).__name__}: {one_line(error)}", store)
            raise


def _tell(rank: int, message: str, store: Store) -> None:
    """Leave a message for the others; the first one stays."""
    with suppress(RuntimeError):  # the store may be gone
        store.compare_set(_FAILED, "", f"process {rank} failed: {message}")


def failure(store: Store) -> str:
    """What the first process to fail has said; empty if none has."""
    return store.get(_FAILED).decode(errors="replace") if store.check([_FAILED]) else ""


def _what_happened(error: BaseException, rank: int, size: int, store: Store) -> str:
    missing, said = [other for other in range(size) if other != rank], ""
    with suppress(RuntimeError):
        missing, said = _roll_call(rank, missing, store)
    if said:
        return f"it ends, since {said}"
    names = f"{'process' if len(missing) == 1 else 'processes'} {listed(map(str, missing), ordered=True)}"
    if isinstance(error, _Terminated):
        return "it was ended by SIGTERM, which torchrun sends if another process has failed or the job is to end"
    if "timed out" in str(error).lower() or "timeout" in str(error).lower():
        return (f"no answer from {names} within {limit().total_seconds():g} s, the limit that {LIMIT} sets; "
                "what was saved is kept")  # fmt: skip
    # Of gloo's message its words, without file, line and address, and without its advice.
    why = re.sub(r"\s*\[[^]]*\](:\d+)?", "", str(error)).partition(". ")[0]
    return f"{names} ended without a word, killed or cut off ({one_line(why, 100)}); what was saved is kept"


def _roll_call(rank: int, others: list[int], store: Store) -> tuple[list[int], str]:
    """Those of whom nothing is heard, and the message of a failure, if there is one."""
    store.set(f"reported {rank}", "")
    end = time.monotonic() + REPORT_S
    while True:
        if said := failure(store):
            return [], said
        missing = [other for other in others if not store.check([f"reported {other}"])]
        if time.monotonic() > end:
            return missing or others, ""
        time.sleep(0.1)


@contextmanager
def _raising_at_sigterm() -> Iterator[None]:
    """Within the block SIGTERM raises, unless something else than the system's default is set for it."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    _ignore_sigterm()
    raise _Terminated


def _ignore_sigterm() -> None:
    """A second one shall not cut off what is said of the first."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
