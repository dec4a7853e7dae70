"""The services that the docs start, and the requests that they send to them."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inceptionnet.serve import running

from .documents import PAGES, commands
from .serving import COMMAND_S, command_running, png, small_classifier

SERVE = "inceptionnet serve "
ADDRESS = "http://127.0.0.1:8000"
SERVICES = {page: [line for line in commands(page) if line.startswith(SERVE)] for page in PAGES}
REQUESTS = {page: [line for line in commands(page) if line.startswith("curl ")] for page in PAGES}


@pytest.mark.parametrize(("page", "line"), [(page, line) for page, lines in SERVICES.items() for line in lines])
def test_every_service_would_start(page: str, line: str, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options are taken, and its models have names; what it serves is not there."""
    began: list[Any] = []
    monkeypatch.setattr(running, "run", began.append)
    code, _, told = command(*shlex.split(line)[1:])
    assert code == 0 and len(began) == 1, f"{page}: {line}: {told}"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
@pytest.mark.parametrize("page", [page for page, lines in REQUESTS.items() if lines])
def test_every_request_is_answered(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the page serves first."""
    monkeypatch.chdir(tmp_path)
    source = shlex.split(SERVICES[page][0])[2]
    (tmp_path / source).mkdir(parents=True)
    small_classifier().save(tmp_path / source / "weights.safetensors")
    for i, name in enumerate(("one", "two", "bottle")):
        (tmp_path / f"{name}.jpg").write_bytes(png(i))
    with command_running(source) as (_, client):
        for line in REQUESTS[page]:
            assert ADDRESS in line, line
            line = line.replace(ADDRESS, str(client.base_url).rstrip("/"))
            words = shlex.split(line.replace("…base64…", base64.b64encode(png()).decode()))
            done = subprocess.run([*words, "-sS"], capture_output=True, text=True, timeout=COMMAND_S, check=True)
            answer = json.loads(done.stdout)
            assert answer["model"] == Path(source).name, line
            assert all(row["top"] for row in answer["predictions"]), line
