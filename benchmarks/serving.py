"""The service under load and under attack, beside other ways to serve: python benchmarks/serving.py MODEL IMAGES

MODEL is a weights file, a run folder or an exported file; IMAGES a folder of JPEGs. Servers and clients share this
machine and talk over loopback; every server gets the same network, and the same images as multipart uploads.

    --sides ours,fastapi,litserve
                              fastapi: the app that tutorials show, which decodes and predicts in its event loop;
                              litserve: LitServe with batches, which decodes and predicts in a worker process
    --engine auto             of this package's service
    --clients 4,64            each sends its next request when it has the answer to the last one
    --load 0.25,0.5,0.75,0.9  offered load, as a share of the throughput of the most clients; arrivals are random
    --seconds 20 --rounds 3   of each measurement; in each round all sides are measured one after another
    --hostile                 good clients alone, then beside hostile ones: latency, memory, workers

FastAPI, LitServe and torchvision are installed into a temporary folder. The output is
images/s and latency (ms, median of the rounds, with their range), and the images/s of the engine itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from input_speed import shown

HERE = Path(__file__).resolve().parent
PEERS = ("fastapi==0.165.0", "litserve==0.2.19", "uvicorn[standard]", "python-multipart")
TORCHVISION = "torchvision==0.28.0"  # without its dependencies, among which torch is
BOUNDARY = "5f0c1e9a7d"
STARTING_S = 300


def upload(image: bytes, path: str) -> bytes:
    """A request with one image."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="request"; filename="a.jpg"\r\n'
    body = head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    lines = (f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}",
             f"Content-Type: multipart/form-data; boundary={BOUNDARY}", "", "")  # fmt: skip
    return "\r\n".join(lines).encode() + body


class Client:
    """A connection that is kept; each request is one image."""

    def __init__(self, port: int) -> None:
        self.port, self._streams = port, None

    async def ask(self, request: bytes) -> int:
        """The status of the answer, which is read to its end; a server may have closed a connection that it keeps."""
        if self._streams is not None:
            try:
                return await self._asked(request)
            except (OSError, asyncio.IncompleteReadError):
                self.close()
        return await self._asked(request)

    async def _asked(self, request: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head.split(" ")[1])

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def closed_loop(port: int, requests: list[bytes], clients: int, seconds: float) -> tuple[float, list[float], int]:
    """Images/s, latencies and failures of clients that wait for their answers."""
    end, latencies, failed = time.perf_counter() + seconds, list[float](), 0

    async def one(number: int) -> None:
        nonlocal failed
        client = Client(port)
        while time.perf_counter() < end:
            start = time.perf_counter()
            status = await client.ask(requests[number % len(requests)])
            number += clients
            if status == 200:
                latencies.append(time.perf_counter() - start)
            else:
                failed += 1
        client.close()

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(clients)))
    return len(latencies) / (time.perf_counter() - start), latencies, failed


async def offered(port: int, requests: list[bytes], rate: float, seconds: float) -> tuple[float, list[float], int]:
    """The same of requests that come at random, `rate` a second in the mean, whether or not others are answered."""
    chance, latencies, failed, free = random.Random(0), list[float](), 0, list[Client]()

    async def one(number: int) -> None:
        nonlocal failed
        start = time.perf_counter()
        client = free.pop() if free else Client(port)
        status = await client.ask(requests[number % len(requests)])
        free.append(client)
        if status == 200:
            latencies.append(time.perf_counter() - start)
        else:
            failed += 1

    tasks, start, due = [], time.perf_counter(), 0.0
    while due < seconds:
        due += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(len(tasks))))
    await asyncio.gather(*tasks)
    for client in free:
        client.close()
    return len(latencies) / (time.perf_counter() - start), latencies, failed


def quantiles(latencies: list[float]) -> tuple[float, float, float]:
    """p50, p95 and p99, ms."""
    ordered = sorted(latencies)
    return tuple(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95, 0.99))


@contextmanager
def server(side: str, given: argparse.Namespace, folder: str):
    """A running server; gives its port and process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    path = os.pathsep.join([str(HERE.parent / "src"), *([] if side == "ours" else [folder])])
    command = [sys.executable, HERE / f"serving_{side}.py", given.model, str(port), str(given.batch)]
    if side == "ours":
        command = [sys.executable, "-m", "inceptionnet", "serve", given.model, "--port", str(port), "--engine",
                   given.engine, "--batch-size", str(given.batch), "--workers", str(given.workers)]  # fmt: skip
    with open(Path(folder, f"{side}.log"), "wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        try:
            asyncio.run(ready(port, process, given.requests_of[side][0]))
        except TimeoutError as error:
            raise SystemExit(f"{side}: {error}\n{Path(folder, f'{side}.log').read_text()[-2000:]}") from None
        yield port, process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def ready(port: int, process: subprocess.Popen, request: bytes) -> None:
    """Wait until an image is answered."""
    status = None
    for _ in range(STARTING_S * 2):
        if process.poll() is not None:
            raise TimeoutError(f"the server ended with {process.returncode}")
        with suppress(OSError, asyncio.IncompleteReadError):
            client = Client(port)
            status = await client.ask(request)
            client.close()
            if status == 200:
                return
        await asyncio.sleep(0.5)
    raise TimeoutError(f"the server answered no image in {STARTING_S} s; the last status was {status}")


def load(given: argparse.Namespace, folder: str) -> None:
    """Throughput and latency by the number of clients, then by offered load."""
    found: dict[tuple, list[tuple[float, list[float], int]]] = {}
    for _ in range(given.rounds):
        for side in given.sides:
            requests = given.requests_of[side]
            with server(side, given, folder) as (port, _process):
                for clients in given.clients:
                    result = asyncio.run(closed_loop(port, requests, clients, given.seconds))
                    found.setdefault((side, f"{clients} clients"), []).append(result)
                most = found[side, f"{given.clients[-1]} clients"][-1][0]
                for share in given.load:
                    result = asyncio.run(offered(port, requests, share * most, given.seconds))
                    found.setdefault((side, f"load {share:g}"), []).append(result)
    print("| server | load | images/s | p50, ms | p95, ms | p99, ms | refused |\n|---|---|---|---|---|---|---|")
    for (side, what), rounds in found.items():
        by_quantile = zip(*(quantiles(latencies) for _, latencies, _ in rounds), strict=True)
        cells = [shown([rate for rate, _, _ in rounds], 1), *(shown(list(values), 0) for values in by_quantile)]
        print(f"| {side} | {what} | {' | '.join(cells)} | {sum(failed for _, _, failed in rounds)} |", flush=True)


def memory_mb(process: subprocess.Popen) -> float:
    """Of all processes of a server."""
    total = 0
    for pid in workers_of(process):
        with suppress(OSError):
            lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            total += int(lines.get("VmRSS", "0 kB").split()[0])
    return total / 1e3


def workers_of(process: subprocess.Popen) -> set[int]:
    """The processes of a server."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(folder.name)) == process.pid:
                found.add(int(folder.name))
    return found


async def attack(port: int, request: bytes, end: float) -> int:
    """Hostile clients, several of each kind, until `end`; returns how many connections they made."""
    head, made = request[: request.index(b"\r\n\r\n")], 0

    async def connection(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        nonlocal made
        while time.perf_counter() < end:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                made += 1
                try:
                    await asyncio.wait_for(talk(reader, writer), max(0.1, end - time.perf_counter()))
                finally:
                    writer.close()
            await asyncio.sleep(0.01)

    async def slow_sender(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.5)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def half_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request[:5000])
        writer.write_eof()
        await reader.read()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        while not reader.at_eof():
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(random.Random(made).randbytes(500) + b"\r\n\r\n")
        await reader.read()

    async def huge_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 1_000_000)
        await writer.drain()
        await reader.read()

    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.dumps({"images": [1, None, {"data": "http://127.0.0.1/"}], "top": "many"}).encode()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)  # fmt: skip
        await reader.read()

    kinds = (slow_sender, silent, half_closed, endless, garbage, huge_headers, wrong)
    await asyncio.gather(*(connection(kind) for kind in kinds for _ in range(4)))
    return made


def hostile(given: argparse.Namespace, folder: str) -> None:
    """Good clients alone, then beside hostile ones, then one garbage request after another, all on one server."""
    requests = given.requests_of["ours"]
    with server("ours", given, folder) as (port, process):
        before = workers_of(process)

        async def both(seconds: float) -> tuple[tuple[float, list[float], int], int]:
            end = time.perf_counter() + seconds
            attacking = asyncio.create_task(attack(port, requests[0], end))
            return await closed_loop(port, requests, given.clients[0], seconds), await attacking

        for _ in range(given.rounds):
            rows = [("alone", asyncio.run(closed_loop(port, requests, given.clients[0], given.seconds)), 0)]
            rows.append(("beside hostile clients", *asyncio.run(both(given.seconds))))
            for what, (rate, latencies, failed), connections in rows:
                p50, p95, p99 = quantiles(latencies)
                print(f"{what}: {rate:.1f} images/s, p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms, {failed} refused, "
                      f"{connections} hostile connections, {memory_mb(process):.0f} MB", flush=True)  # fmt: skip
        start, answers = time.perf_counter(), asyncio.run(garbage_requests(port, 10_000))
        print(f"10000 garbage requests: {time.perf_counter() - start:.0f} s, {dict(sorted(answers.items()))}")
        kept = "the same" if before == workers_of(process) else "others"
        print(f"at the end {memory_mb(process):.0f} MB, processes: {kept}")


async def garbage_requests(port: int, count: int) -> dict[int, int]:
    """Bodies of random bytes that claim to be images: the answers' statuses."""
    chance, answers, clients = random.Random(0), dict[int, int](), [Client(port) for _ in range(8)]

    async def some(client: Client, number: int) -> None:
        for _ in range(number):
            body = chance.randbytes(chance.randrange(1, 2000))
            head = (
                f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}"
            )
            status = await client.ask(head.encode() + b"\r\n\r\n" + body)
            answers[status] = answers.get(status, 0) + 1

    await asyncio.gather(*(some(client, count // len(clients)) for client in clients))
    return answers


def engine_speed(given: argparse.Namespace) -> None:
    """images/s of the engine alone, with batches that are there already."""
    import torch

    from inceptionnet import load as load_classifier
    from inceptionnet.engines.timing import noise

    classifier = load_classifier(given.model, engine=given.engine, batch_size=given.batch)
    x, times = noise(given.batch, 3, classifier.preprocessing.size_px), []
    for _ in range(12):
        start = time.perf_counter()
        classifier.run(x)
        times.append(time.perf_counter() - start)
    about = classifier.about
    speeds = shown([given.batch / one for one in times[2:]], 1)
    print(f"{about['engine']} alone, batch {given.batch}: {speeds} images/s; torch {torch.__version__}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("--sides", type=lambda text: text.split(","), default=["ours", "fastapi", "litserve"])
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clients", type=lambda text: [int(one) for one in text.split(",")], default=[4, 64])
    parser.add_argument("--load", type=lambda text: [float(one) for one in text.split(",") if one],
                        default=[0.25, 0.5, 0.75, 0.9])  # fmt: skip
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hostile", action="store_true")
    given = parser.parse_args()
    images = [path.read_bytes() for path in sorted(given.images.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    images = images or [path.read_bytes() for path in sorted(given.images.rglob("*.JPEG"))]
    given.requests_of = {side: [upload(image, "/predict") for image in images] for side in given.sides}
    given.requests_of.setdefault("ours", [upload(image, "/predict") for image in images])
    print(f"{len(images)} images, {statistics.mean(map(len, images)) / 1e3:.0f} kB in the mean")
    with tempfile.TemporaryDirectory() as folder:
        if set(given.sides) - {"ours"} and not given.hostile:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
            for names in (PEERS, ("--no-deps", TORCHVISION)):
                subprocess.run([*pip, *names], check=True, stderr=subprocess.DEVNULL)
        engine_speed(given)
        (hostile if given.hostile else load)(given, folder)


if __name__ == "__main__":
    main()
