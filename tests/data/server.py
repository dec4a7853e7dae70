"""Loopback servers: files with byte ranges and made-up failures, and as much of a hub as its libraries ask for."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up, as some of those tested do, is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Site:
    """What is served, what was asked for, and what goes wrong."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.asked: list[tuple[str, str]] = []  # path with query, range
        self.refusals: list[int] = []  # status codes of the next answers
        self.cuts: list[int] = []  # bytes after which the next answers end
        self.ranges, self.error_code = True, "EntryNotFound"
        self.refused: dict[str, tuple[int, str]] = {}  # by a part of the path: status and error code
        self.swapped: dict[str, bytes] = {}  # what a hub sends in place of a file, under the right file's headers
        self.token = ""  # without which a hub shows nothing
        self.url = ""

    @contextmanager
    def served(self) -> Iterator[Site]:
        site = self

        class Handler(_Handler):
            def find(self, path: str) -> bytes | None:
                return site.files.get(path.lstrip("/"))

        Handler.site = site
        with _running(Handler) as self.url:
            yield self


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"
    commit = ""  # stated in every answer, so that what is not there can be remembered too

    def log_message(self, format: str, *args: object) -> None:
        pass

    def find(self, path: str) -> bytes | None:
        raise NotImplementedError

    def more_headers(self, data: bytes) -> dict[str, str]:
        return {}

    def refusal(self) -> tuple[int, str] | None:
        """Status and error code where the request is refused."""
        site = self.site
        if site.refusals:
            return site.refusals.pop(0), site.error_code
        if site.token and self.headers.get("Authorization") != f"Bearer {site.token}":
            return 401, "RepoNotFound"
        return next((answer for part, answer in site.refused.items() if part in self.path), None)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def do_GET(self) -> None:
        site, span = self.site, self.headers.get("Range", "")
        site.asked.append((self.path, span))
        data = self.find(unquote(urlsplit(self.path).path))
        status, code = self.refusal() or (200 if data is not None else 404, site.error_code)
        headers = {} if data is None else self.more_headers(data)
        if data is None or status != 200:
            data, headers = b"", {"X-Error-Code": code}
        elif span and site.ranges:
            first, _, last = span.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1, len(data)) if last else len(data)
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            data, status = data[int(first) : end], 206
        self.send_response(status)
        for name, value in (headers | {"X-Repo-Commit": self.commit, "Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            cut = site.cuts.pop(0) if site.cuts and data else len(data)
            self.wfile.write(data[:cut])
            self.close_connection = cut < len(data)


@contextmanager
def hub(files: Mapping[str, bytes], repository: str = "me/pets", kind: str = "datasets") -> Iterator[Site]:
    """A hub that holds one repository of "datasets" or "models"; in a model's, large are all but .json and .md."""
    site = Site(files)
    api, resolve = f"/api/{kind}/{repository}", f"/{'datasets/' * (kind == 'datasets')}{repository}/resolve/"

    def large(name: str) -> dict[str, object] | None:
        """What the hub states of a file that it keeps outside git."""
        if kind == "datasets" or name.endswith((".json", ".md")):
            return None
        data = files[name]
        return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}

    class Handler(_Handler):
        commit = COMMIT

        def more_headers(self, data: bytes) -> dict[str, str]:
            path = unquote(urlsplit(self.path).path)
            kept = large(path.removeprefix(resolve).partition("/")[2]) if path.startswith(resolve) else None
            linked = {"X-Linked-Etag": f'"{kept["sha256"]}"', "X-Linked-Size": str(kept["size"])} if kept else {}
            return {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept-Ranges": "bytes"} | linked

        def find(self, path: str) -> bytes | None:
            if path.startswith(resolve):
                name = path.removeprefix(resolve).partition("/")[2]
                return site.swapped.get(name) if self.command == "GET" and name in site.swapped else files.get(name)
            if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
                siblings = [{"rfilename": name, "lfs": large(name)} for name in files]
                return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings, "tags": []}).encode()
            if path.startswith(f"{api}/tree/{COMMIT}"):
                return json.dumps(self.listed(path.removeprefix(f"{api}/tree/{COMMIT}").strip("/"))).encode()
            return None

        def listed(self, folder: str) -> list[dict[str, object]]:
            """The entries directly in a folder."""
            below = f"{folder}/" if folder else ""
            found: dict[str, dict[str, object]] = {}
            for name, data in files.items():
                if name.startswith(below):
                    first, deeper, _ = name.removeprefix(below).partition("/")
                    digest, kind = hashlib.sha1(data).hexdigest(), "directory" if deeper else "file"
                    found[first] = {"type": kind, "path": below + first, "oid": digest, "size": len(data)}
            return list(found.values())

    Handler.site = site
    with _running(Handler) as site.url:
        yield site


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
