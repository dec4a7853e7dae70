"""Pages from templates: self-contained HTML files without network access; light, dark and print."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import inceptionnet
from inceptionnet.errors import RunError
from inceptionnet.evaluate.intervals import Interval
from inceptionnet.system.extras import import_extra
from inceptionnet.system.files import replacing


def from_template(
    name: str, content: Mapping[str, Any], filters: Mapping[str, Callable[..., str]] | None = None
) -> str:
    """A page as text, from a template in assets/.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    import_extra("jinja2", "reports", "the page")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("inceptionnet.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "within": within, "duration": duration, **(filters or {})}
    return environment.get_template(name).render(version=inceptionnet.__version__, **content)


def write_html(path: Path, text: str) -> None:
    """Write a page. Raises: RunError: the file cannot be written; an existing file is unchanged."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}; choose another file") from None


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent, which does not break between two lines; a dash for None."""
    return "–" if value is None else f"{value:.{digits}%}".replace("%", "\N{NO-BREAK SPACE}%")


def within(interval: Interval | None, form: str = "percent") -> str:
    """An interval as text, in percent or by a format; empty for None."""
    if interval is None:
        return ""
    if form == "percent":
        return f"{100 * interval.low:.1f}–{100 * interval.high:.1f}\N{NO-BREAK SPACE}%"
    return f"{interval.low:{form}}–{interval.high:{form}}"


def duration(seconds: float) -> str:
    """A time as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
