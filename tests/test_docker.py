"""docker/: what the files name is there, and the containers have no more rights than they need."""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from inceptionnet.cli import app
from inceptionnet.serve.app import _routes

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
if not DOCKER.is_dir():
    pytest.skip("no docker files beside the tests, as in a source distribution", allow_module_level=True)


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile."""
    text = re.sub(r"\\\n\s*", "", (DOCKER / "Dockerfile").read_text(encoding="utf-8"))
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def of(kind: str) -> list[str]:
    return [arguments for name, arguments in instructions() if name == kind]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    copied = [name for line in of("COPY") if not line.startswith("--from") for name in line.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "src"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists()
        kept = False
        for rule in rules:  # the last one that fits decides
            if fnmatch(name, rule.removeprefix("!").removeprefix("**/")):
                kept = rule.startswith("!")
        assert kept, name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["readme"] in copied and {file.split("/")[0] for file in project["license-files"]} <= set(copied)


def test_the_extras_are_there_and_need_no_torch() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (chosen,) = [line.partition("=")[2] for line in of("ARG") if line.startswith("EXTRAS=")]
    for name in chosen.split(","):
        assert not any("torch" in requirement or "inceptionnet[" in requirement for requirement in extras[name])


def test_the_image_runs_as_a_user_without_rights() -> None:
    stages = [i for i, (name, _) in enumerate(instructions()) if name == "FROM"]
    last = instructions()[stages[-1] :]
    assert len(stages) == 2 and ("USER", "10001") in last
    assert [name for name, _ in last].index("USER") < [name for name, _ in last].index("ENTRYPOINT")
    assert not any(name == "RUN" and "pip" in arguments for name, arguments in last)
    (python,) = [line.partition("=")[2] for line in of("ARG") if line.startswith("PYTHON=")]
    assert re.fullmatch(r"3\.\d+-slim-\w+", python)


def test_the_command_and_the_health_check_are_ours() -> None:
    program, command, *options = json.loads(of("ENTRYPOINT")[0])
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert program == "inceptionnet"
    assert all(option in shown for option in options if option.startswith("--"))
    port = options[options.index("--port") + 1]
    check = of("HEALTHCHECK")[0]
    path = re.search(rf"http://127\.0\.0\.1:{port}(/[a-z/]+)", check)
    assert path and path[1] in {route.path for route in _routes()}
    assert of("EXPOSE") == [port]


def test_compose() -> None:
    services: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    ours, prometheus = services["inceptionnet"], services["prometheus"]
    assert (DOCKER / ours["build"]["context"] / ours["build"]["dockerfile"]).resolve() == DOCKER / "Dockerfile"
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])
    assert ours["read_only"] and ours["cap_drop"] == ["ALL"] and "no-new-privileges:true" in ours["security_opt"]
    assert ours["mem_limit"] and ours["volumes"][0].endswith(":ro")
    assert re.fullmatch(r"prom/prometheus:v\d+\.\d+\.\d+", prometheus["image"])
    scraped = yaml.safe_load((DOCKER / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == ["inceptionnet:8000"]
    assert scraped["authorization"]["credentials_file"] in " ".join(prometheus["command"])
    assert "/metrics" in {route.path for route in _routes()}  # where Prometheus asks
