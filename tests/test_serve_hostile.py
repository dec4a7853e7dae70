"""Clients that mean harm, or are broken: each is answered or cut off, memory is given back, and the service goes on."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from PIL import Image

from inceptionnet import Classifier
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import DecodeError
from inceptionnet.serve import connections
from inceptionnet.serve.decoding import DecodePool

from .serving import DEADLINE_S, Gate, Running, png, running, small_classifier, until

ONE = png(1)
LIMITS = {"request_bytes": 1_000_000, "held_bytes": 4_000_000, "header_s": 0.5, "timeout_s": 1.0, "connections": 8}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return small_classifier()


@pytest.fixture(scope="module")
def shared(classifier: Classifier) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch, running(classifier, limits=LIMITS) as found:
        patch.setattr(connections, "NO_HTTP_S", 0.01)
        yield found


@pytest.fixture
def here(shared: Running) -> Iterator[Running]:
    """The service, which is looked at after each test: nothing is held, and it answers."""
    yield shared
    assert shared.predict(ONE).status_code == 200
    shared.client.close()
    shared.client = type(shared.client)(base_url=shared.url, timeout=DEADLINE_S)
    until(lambda: not shared.server.server_state.connections)
    until(lambda: not shared.server.server_state.tasks)
    assert shared.service.memory.held == 0 and shared.service.queued == 0


def connected(here: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", here.port), DEADLINE_S)


def ask(here: Running, *parts: bytes) -> bytes:
    """What the service sends until it closes the connection."""
    with connected(here) as raw:
        for part in parts:
            raw.sendall(part)
        return read(raw)


def read(raw: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while more := raw.recv(65536):
            found += more
    return found


def error_of(answer: bytes, status: int) -> str:
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["error"])


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/png\r\n"


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: local"])
def test_headers_that_do_not_come(here: Running, sent: bytes) -> None:
    assert "the headers did not arrive within 0.5 s" in error_of(ask(here, sent), 408)


def test_headers_one_byte_after_another(here: Running) -> None:
    with connected(here) as raw:
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < DEADLINE_S:
                raw.sendall(b"x")
                time.sleep(0.01)
        assert time.monotonic() - start < DEADLINE_S


def test_a_body_that_does_not_come(here: Running) -> None:
    answer = ask(here, HEAD + b"Content-Length: 1000\r\n\r\n", ONE[:100])
    assert "the request did not arrive within 1 s" in error_of(answer, 408)


def test_a_body_without_end(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGER_S", 0.5)
    with connected(here) as raw:
        raw.sendall(HEAD.replace(b"Connection: close\r\n", b"") + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        sent, start = 0, time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < DEADLINE_S:
                raw.sendall(chunk)
                sent += len(chunk)
        assert sent > LIMITS["request_bytes"] and time.monotonic() - start < DEADLINE_S


def test_the_refusal_of_a_long_body_can_be_read(here: Running) -> None:
    with connected(here) as raw:
        raw.sendall(HEAD.replace(b"Connection: close\r\n", b"") + b"Content-Length: 2000000\r\n\r\n")
        raw.sendall(bytes(2_000_000))
        raw.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = read(raw)
    assert answer.startswith(b"HTTP/1.1 413 ") and answer.count(b"HTTP/1.1 200 ") == 1


def test_no_body_is_asked_for_that_would_be_refused(here: Running) -> None:
    answer = ask(here, HEAD + b"Content-Length: 2000000\r\nExpect: 100-continue\r\n\r\n")
    assert "more than the limit" in error_of(answer, 413)


GARBAGE = [
    b"\r\n\r\n\0\0\0",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET \xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    HEAD + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
    HEAD + b"".join(b"X-%d: a\r\n" % i for i in range(5000)) + b"\r\n",
]


@pytest.mark.parametrize("sent", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_http(here: Running, sent: bytes) -> None:
    answer = ask(here, sent)
    assert answer[:9] == b"HTTP/1.1 " and answer[9:12] in (b"400", b"403", b"501")
    content, _ = json.JSONDecoder().raw_decode(answer.partition(b"\r\n\r\n")[2].decode())
    assert "\n" not in content["error"]


def test_what_is_no_http_is_answered_late(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends it again and again waits; others do not."""
    monkeypatch.setattr(connections, "NO_HTTP_S", 0.3)
    start = time.monotonic()
    with connected(here) as raw:
        raw.sendall(b"\x16\x03\x01\r\n\r\n")
        assert here.predict(ONE).status_code == 200
        assert read(raw).startswith(b"HTTP/1.1 400")
    assert time.monotonic() - start >= 0.3


def test_random_bytes(here: Running) -> None:
    chance = random.Random(0)
    for i in range(40):
        data = bytearray(HEAD + b"Content-Length: %d\r\n\r\n" % len(ONE) + ONE if i % 2 else chance.randbytes(300))
        for _ in range(3):
            data[chance.randrange(len(data[:200]))] = chance.randrange(256)
        with connected(here) as raw:
            raw.sendall(bytes(data))
            raw.shutdown(socket.SHUT_WR)
            read(raw)
    assert here.predict(ONE).status_code == 200


def test_half_closed_and_gone(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(here, monkeypatch)
    with connected(here) as raw:
        raw.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(ONE) + ONE)
        gate.wait_for(1)
        raw.shutdown(socket.SHUT_WR)
        until(lambda: here.service.queued == 0)  # nobody waits for it any more
    gate.open()


def test_a_client_that_reads_nothing(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_S", 0.3)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", here.port))
    with raw, contextlib.suppress(ConnectionError):
        for _ in range(3000):  # many requests on one connection
            raw.sendall(b"GET /assets/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: not here.server.server_state.connections)


def test_too_many_connections(here: Running) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connected(here))
        until(lambda: len(here.server.server_state.connections) == 8)
        answer = ask(here)
    assert "too many connections" in error_of(answer, 503) and b"retry-after" in answer


def test_memory_for_bodies(here: Running) -> None:
    """Bodies take three times their bytes; what is sent slowly takes only what has come."""
    with connected(here) as slow:
        slow.sendall(HEAD + b"Content-Length: 900000\r\n\r\n" + bytes(800_000))
        until(lambda: here.service.memory.held == 2_400_000)
        answer = ask(here, HEAD + b"Content-Length: 900000\r\n\r\n" + bytes(900_000))
        assert "memory that is set aside for bodies" in error_of(answer, 503)
        assert here.client.get("/health/live").status_code == 200


@pytest.mark.parametrize("bomb", [b"[" + b"[]," * 300_000, b'{"images":[' + b"0," * 400_000, b"{" * 900_000])
def test_json_whose_values_would_fill_the_memory(here: Running, bomb: bytes) -> None:
    head = HEAD.replace(b"image/png", b"application/json") + b"Content-Length: %d\r\n\r\n" % len(bomb)
    assert "of memory; send less in one request" in error_of(ask(here, head + bomb), 413)


def test_a_bomb_among_the_images(here: Running) -> None:
    wide = png(size=(1, 1))[:16] + (60_000).to_bytes(4, "big") * 2 + png(size=(1, 1))[24:]
    files = [("x", ("bomb.png", wide)), ("x", ("a.png", ONE))]
    rows = here.client.post("/predict", files=files).json()["predictions"]
    assert "error" in rows[0] and "top" in rows[1]


def large_png() -> bytes:
    """It takes some tenths of a second."""
    Image.new("RGB", (5000, 5000)).save(into := io.BytesIO(), "PNG", compress_level=1)
    return into.getvalue()


def test_a_decoder_that_does_not_return_costs_one_image() -> None:
    prep, small = Preprocessing(32), png()
    pool = DecodePool(1, 0.05, 10**8)
    try:
        assert pool.decode(small, prep, "x").result(DEADLINE_S).shape == (32, 32, 3)
        with pytest.raises(DecodeError, match=r"^takes more than 0.05 s to decode$"):
            pool.decode(large_png(), prep, "x").result(DEADLINE_S)
        assert pool.decode(small, prep, "x").result(DEADLINE_S).shape == (32, 32, 3)
    finally:
        pool.close()


def test_a_decoder_that_ends_costs_one_image() -> None:
    prep, small = Preprocessing(32), png()
    pool = DecodePool(1, 30, 10**8)
    try:
        assert pool.decode(small, prep, "x").result(DEADLINE_S).shape == (32, 32, 3)
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        assert pool.decode(small, prep, "x").result(DEADLINE_S).shape == (32, 32, 3)  # killed before the image came
        ended = threading.Event()

        def kill() -> None:
            while not ended.wait(0.001):
                for child in multiprocessing.active_children():
                    child.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.raises(DecodeError, match=r"ended unexpectedly \(exit code -9\)"):
                pool.decode(large_png(), prep, "x").result(DEADLINE_S)
        finally:
            ended.set()
            killer.join()
        assert pool.decode(small, prep, "x").result(DEADLINE_S).shape == (32, 32, 3)
    finally:
        pool.close()


def test_the_end_waits_for_requests_that_are_on_the_way(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(classifier) as here:
        gate = Gate(here, monkeypatch)
        request = HEAD.replace(b"Connection: close\r\n", b"") + b"Content-Length: %d\r\n\r\n" % len(ONE) + ONE
        with contextlib.ExitStack() as stack:
            held, half, idle = (stack.enter_context(connected(here)) for _ in range(3))
            held.sendall(request)
            half.sendall(request[:-100])
            gate.wait_for(1)
            until(lambda: len(here.server.server_state.connections) == 3)
            here.server.should_exit = True
            until(lambda: not here.server.servers[0].is_serving())
            with pytest.raises(ConnectionError):
                connected(here).close()
            idle.sendall(request)  # it was on the way
            half.sendall(request[-100:])
            gate.open()
            for one in (held, half, idle):
                assert read(one).startswith(b"HTTP/1.1 200 ")
