"""The ASGI application: routes, JSON errors, start and end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from string import Template

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import inceptionnet
from inceptionnet.errors import InceptionNetError, MissingExtraError, one_line
from inceptionnet.serve import answers, metrics, reloading, v2
from inceptionnet.serve.answers import Json, answered, aside, error_response, service_of
from inceptionnet.serve.bodies import Gone
from inceptionnet.serve.guard import FAILED, Guard
from inceptionnet.serve.images import read_request
from inceptionnet.serve.openapi import document
from inceptionnet.serve.refusals import Refused
from inceptionnet.serve.service import Service
from inceptionnet.serve.settings import Settings

log: logging.Logger = logging.getLogger("inceptionnet")

ASSETS = {one.name: one for one in (files("inceptionnet.serve") / "assets").iterdir()}
ASSETS["report.css"] = files("inceptionnet.report") / "assets" / "report.css"  # one look for all pages
_TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
          "svg": "image/svg+xml"}  # fmt: skip
GONE = 499
"""What nginx calls it; only metrics see it."""


def application(settings: Settings, service: Service | None = None) -> Guard:
    """The application. With one process, models are loaded while it answers already that it is alive.

    Args:
        service: for tests, with models that are loaded.
    """
    made = service or Service(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loading = []
        try:
            if settings.workers == 1:
                loading = [asyncio.create_task(_load(made, ends=True))]
            else:  # the others answer until this one can
                await _load(made, ends=False)
                loading = [asyncio.create_task(reloading.watch(made))]
            yield
        finally:
            for task in loading:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(made.close)

    app = Starlette(
        routes=_routes(),
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_error, InceptionNetError: _error, Gone: _gone, Exception: _failed},
    )
    app.state.service = made
    return Guard(app, made)


async def _load(service: Service, *, ends: bool) -> None:
    """Load the models that are not loaded yet; if that fails, the process ends, with the reason in one line."""
    try:
        for name in service.names:
            if not service.has(name):
                await aside(service.load, name)
        if service.settings.workers == 1:
            log.info("ready: %s", ", ".join(service.names))
    except InceptionNetError as error:
        if not ends:
            raise
        service.failed = error
        signal.raise_signal(signal.SIGTERM)


def _routes() -> list[Route]:
    def at(path: str, endpoint: Callable[[Request], Awaitable[Response]], *methods: str) -> Route:
        return Route(path, endpoint, methods=methods or ("GET",))

    return [
        at("/", _page),
        at("/docs", _docs),
        at("/assets/{file}", _asset),
        at("/openapi.json", _openapi),
        at("/health/live", answers.live),
        at("/health/ready", answers.ready),
        at("/metrics", _metrics),
        at("/models", _models),
        at("/models/{name}", _card),
        at("/models/{name}/predict", _predict, "POST"),
        at("/models/{name}/reload", _reload, "POST"),
        at("/predict", _predict, "POST"),
        *v2.routes(),
    ]


async def _predict(request: Request) -> Response:
    service = service_of(request)
    name = request.path_params.get("name")
    service.get(name)  # before the body is read
    with service.memory.share() as share:
        uploads, options = await read_request(request, service.limits, share)
        loaded = service.get(name)
        content = await answered(request, service.predict(loaded, uploads, options))
    bad = [row for row in content["predictions"] if "error" in row]
    if len(bad) < len(uploads):
        return Json(content)
    first = f"{bad[0]['file']}: {bad[0]['error']}"
    return Json({"error": f"no image could be read: {first}", **content}, 400)


async def _models(request: Request) -> Response:
    service = service_of(request)
    cards = []
    for name in service.names:
        ready = service.has(name)
        cards.append({"name": name, "ready": ready} | ({"network": service.get(name).model.network} if ready else {}))
    return Json({"models": cards, "default": service.names[0]})


async def _card(request: Request) -> Response:
    service = service_of(request)
    loaded = service.get(request.path_params["name"])
    card = loaded.model.card()
    limits = {"image_bytes": service.limits.image_bytes, "request_bytes": service.limits.request_bytes,
              "images": service.limits.images, "pixels": service.limits.pixels}  # fmt: skip
    return Json(card | {"loaded": round(loaded.since, 3), "limits": limits})


async def _reload(request: Request) -> Response:
    service = service_of(request)
    name = service.get(request.path_params["name"]).model.name
    try:
        loaded = await aside(service.load, name)
    except Refused:
        raise
    except InceptionNetError as error:
        raise Refused(f"the model stays as it was: {error}", 500) from None
    reloading.tell(service.settings, name, loaded.since)
    log.info("reloaded: %s", name)
    return Json({"model": name, "loaded": round(loaded.since, 3)})


async def _metrics(request: Request) -> Response:
    service = service_of(request)
    service.metrics.levels(service.queued, service.memory.held)
    return Response(await asyncio.to_thread(service.metrics.text), media_type=metrics.TYPE)


async def _openapi(request: Request) -> Response:
    return Json(document(inceptionnet.__version__, service_of(request)))


async def _page(request: Request) -> Response:
    return _in_frame("page", "inceptionnet")


async def _docs(request: Request) -> Response:
    return _in_frame("docs", "inceptionnet API")


async def _asset(request: Request) -> Response:
    name = request.path_params["file"]
    if name not in ASSETS or name.endswith(".html"):  # these are parts of pages
        raise HTTPException(404)
    return _file(name)


def _in_frame(name: str, title: str) -> Response:
    """A page in the frame that all pages have, with a script of its own name."""
    body = ASSETS[f"{name}.html"].read_text("utf-8")
    text = Template(ASSETS["frame.html"].read_text("utf-8")).substitute(title=title, script=f"{name}.js", body=body)
    return Response(text, headers={"Content-Type": _TYPES["html"]})


def _file(name: str) -> Response:
    return Response(ASSETS[name].read_bytes(), headers={"Content-Type": _TYPES[name.rpartition(".")[2]]})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: f"there is nothing at {request.url.path[:200]}; see /docs",
            405: f"{request.method} is not for {request.url.path[:200]}; see /docs"}  # fmt: skip
    headers = dict(error.headers or {})
    return error_response(text.get(error.status_code, one_line(error.detail)), error.status_code, headers)


async def _error(request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return error_response(str(error), error.status, error.headers)
    return error_response(str(error), 500 if isinstance(error, MissingExtraError) else 400)


async def _failed(request: Request, error: Exception) -> Response:
    return error_response(FAILED, 500)  # the Guard logs it


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)
