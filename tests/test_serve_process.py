"""The service as processes: the command, its end, several workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from inceptionnet.serve.running import ending_signals

from .serving import CLASSES, COMMAND_S, command_running, png, small_classifier, until

ONE = png(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "colours.safetensors"
    small_classifier().save(path)
    return path


def predict(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post("/predict", content=ONE, headers={"Content-Type": "image/png", **headers})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{weights}", "--max-wait", "soon"], "--max-wait: expected a time from 0ms to 1s, such as 5ms, got 'soon'"),
        (["{weights}", "{weights}"], "state another as NAME=SOURCE"),
        (["{weights}", "--max-images", "9", "--queue", "8"], "--max-images 9: expected at most --queue, 8"),
        (["{weights}", "--max-pixels", "100000000"], "--max-pixels 100000000: expected at most 89478485"),
        (["{weights}", "--api-key-file", "{weights}"], "--api-key-file"),
        (["{weights}", "--api-key-file", "/nothing"], "--api-key-file /nothing: cannot be read"),
        (["{weights}", "--host", "256.0.0.1"], "--host 256.0.0.1 --port 0: cannot be used"),
        (["{weights}", "--port", "{taken}"], "cannot be used"),
        (["nothing.safetensors"], "nothing.safetensors"),
    ],
)
def test_what_cannot_be_served(command: Any, weights: Path, arguments: list[str], reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"weights": str(weights), "taken": str(taken.getsockname()[1])}
        given = [one.format(**values) for one in arguments]
        code, out, err = command("serve", *given, *([] if "--port" in given else ["--port", "0"]))
    assert code == 2 and out == "" and reason in err.splitlines()[-1]
    assert [line for line in err.splitlines() if not line.startswith("serving on")] == err.splitlines()[-1:]


def test_a_key_that_is_too_short(command: Any, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INCEPTIONNET_API_KEY", "short")
    code, _, err = command("serve", weights)
    assert code == 2 and "INCEPTIONNET_API_KEY: expected a key of 16 or more" in err and "short" not in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_when_all_is_answered(weights: Path, number: signal.Signals) -> None:
    with (
        command_running(weights, "--max-wait", "1s", "--batch-size", "64") as (process, client),
        ThreadPoolExecutor(8) as pool,
    ):
        assert predict(client).json()["predictions"][0]["top"][0]["class"] in CLASSES
        with httpx.Client(base_url=client.base_url, timeout=COMMAND_S) as other:
            answers = [pool.submit(predict, other) for _ in range(8)]
            until(
                lambda: "inceptionnet_queue_images 8.0" in client.get("/metrics").text or answers[0].done(), COMMAND_S
            )
            process.send_signal(number)
            assert [one.result().status_code for one in answers] == [200] * 8
        assert process.wait(COMMAND_S) == 0
        with pytest.raises(httpx.ConnectError):
            predict(client)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_a_second_signal_ends_it_at_once(weights: Path, arguments: tuple[str, ...]) -> None:
    """While the first one waits for half a request, for 30 s at most."""
    with command_running(weights, *arguments) as (process, client):
        assert predict(client).status_code == 200
        started, place = children(process.pid), (client.base_url.host, client.base_url.port)
        with socket.create_connection(place) as half:
            half.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
            process.send_signal(signal.SIGTERM)
            until(lambda: not is_open(place), COMMAND_S)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.send_signal(signal.SIGINT)
            assert process.wait(5) == -signal.SIGINT
        until(lambda: not any(map(is_running, started)))


def test_nohup_keeps_a_service_from_ending_with_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    assert ending_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    assert ending_signals() == [signal.SIGINT, signal.SIGTERM]


@pytest.mark.slow
def test_workers_are_replaced_at_sighup(weights: Path) -> None:
    """One after another, also when a terminal sends it to each of them."""
    with command_running(weights, "--workers", "2") as (process, client):
        until(lambda: len(workers(process.pid)) == 2, COMMAND_S)
        before = workers(process.pid)
        for pid in (*before, process.pid):
            os.kill(pid, signal.SIGHUP)
        while set(workers(process.pid)) & set(before):
            assert predict(client, Connection="close").status_code == 200
            time.sleep(0.1)
        until(lambda: len(workers(process.pid)) == 2, COMMAND_S)
        process.terminate()
        assert process.wait(COMMAND_S) == 0


@pytest.mark.slow
def test_workers_that_cannot_start() -> None:
    line = [sys.executable, "-m", "inceptionnet", "serve", "nothing.safetensors", "--workers", "2", "--port", "0"]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == "error: a worker process could not start; the line above says why"
    assert "nothing.safetensors: no such file" in ended.stderr.splitlines()[-2]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_all_are_loaded_again(weights: Path, tmp_path: Path) -> None:
    served = tmp_path / "served.safetensors"
    served.write_bytes(weights.read_bytes())
    with command_running(f"m={served}", "--workers", "2") as (process, client):
        pid = process.pid
        until(lambda: len(workers(pid)) == 2, COMMAND_S)
        # Every connection may reach another worker.
        counted = sum(predict(client, Connection="close").status_code == 200 for _ in range(20))
        assert counted == 20
        assert 'inceptionnet_images_total{model="m"} 20.0\n' in client.get("/metrics").text
        (killed, kept) = workers(pid)
        os.kill(killed, signal.SIGKILL)
        answered = 0
        while killed in workers(pid) or len(workers(pid)) < 2 or answered < 10:
            try:
                assert predict(client, Connection="close").status_code == 200
                answered += 1
            except httpx.TransportError:  # what the killed one had taken
                continue
        assert kept in workers(pid)
        small_classifier(("x", "y", "z"), seed=4).save(served)
        since = client.post("/models/m/reload").json()["loaded"]
        until(lambda: all(card(client)["loaded"] >= since for _ in range(12)), COMMAND_S)
        assert all(card(client)["classes"] == ["x", "y", "z"] for _ in range(12))
        process.terminate()
        assert process.wait(COMMAND_S) == 0


def card(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/models/m", headers={"Connection": "close"}).json()
    return found


def is_open(place: tuple[str, int]) -> bool:
    """Whether somebody answers there."""
    try:
        socket.create_connection(place).close()
    except OSError:
        return False
    return True


def children(parent: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    found = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return [*found, *(pid for one in found for pid in children(one))]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers(parent: int) -> list[int]:
    """The processes that `parent` started to answer requests: those of spawn, but not its tracker of resources."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "-ww", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]
