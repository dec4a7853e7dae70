"""The Open Inference Protocol, version 2, with the extension for binary tensors, as KServe and Triton have it.

Source: github.com/kserve/open-inference-protocol; the binary extension and the classification extension are
Triton's (docs/protocol). Inputs, of which a request has one:

- `input` FP32 (N, C, S, S): preprocessed, as `preprocessing` of the model card says. It is the one in the metadata.
- `image` BYTES (N): encoded image files; or UINT8 (N, H, W, C): pixels. The service crops, resizes and normalises.

Outputs: `logits`, `probabilities`, `embedding`; by default the first two, without a classifier the last one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import inceptionnet
from inceptionnet.serve.answers import Json, answered, live, ready, service_of
from inceptionnet.serve.bodies import parsed, whole
from inceptionnet.serve.models import Model
from inceptionnet.serve.refusals import Refused
from inceptionnet.serve.service import Service
from inceptionnet.serve.tensors import HEADER, Tensor, encoded, requested, tensor_of

VERSION = "1"
MOST_ID = 200


def routes() -> list[Route]:
    """All that the protocol asks for."""

    def at(path: str, endpoint: Callable[[Request], Awaitable[Response]], *methods: str) -> list[Route]:
        paths = [path]
        if path.startswith("/v2/models/{name}"):
            paths.append(path.replace("{name}", "{name}/versions/{version}", 1))
        return [Route(one, endpoint, methods=methods or ("GET",)) for one in paths]

    return [
        *at("/v2", _server),
        *at("/v2/health/live", live),
        *at("/v2/health/ready", ready),
        *at("/v2/models/{name}", _metadata),
        *at("/v2/models/{name}/config", _config),
        *at("/v2/models/{name}/ready", _ready),
        *at("/v2/models/{name}/infer", _infer, "POST"),
        *at("/v2/repository/index", _index, "POST"),
    ]


async def _server(request: Request) -> Response:
    extensions = ["binary_tensor_data", "classification", "model_configuration", "model_repository"]
    return Json({"name": "inceptionnet", "version": inceptionnet.__version__, "extensions": extensions})


def _model(request: Request) -> Model:
    version = request.path_params.get("version", VERSION)
    if version != VERSION:
        raise Refused(f"there is no version {version[:40]!r}; a model has the version {VERSION}", 404)
    return service_of(request).get(request.path_params["name"]).model


async def _ready(request: Request) -> Response:
    return Json({"name": _model(request).name, "ready": True})


async def _metadata(request: Request) -> Response:
    model = _model(request)
    prep = model.prep
    return Json(
        {
            "name": model.name,
            "versions": [VERSION],
            "platform": f"inceptionnet_{model.engine.lower().replace(' ', '_')}",
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, prep.channels, prep.size_px, prep.size_px]}],
            "outputs": [
                {"name": name, "datatype": "FP32", "shape": [-1, size]} for name, size in _outputs(model).items()
            ],
            "parameters": {
                "instead_of_input": [
                    {"name": "image", "datatype": "BYTES", "shape": [-1], "content": "encoded image files"},
                    {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, prep.channels], "content": "pixels"},
                ],
                "preprocessing_of_input": prep.to_dict(),
            },
        }
    )


def _outputs(model: Model) -> dict[str, int]:
    """The length of each output."""
    found = {}
    if model.classes:
        logits = model.logits
        found = {"logits": logits, "probabilities": len(model.classes)}
    return found | ({"embedding": model.embedding_size} if model.embedding_size else {})


async def _config(request: Request) -> Response:
    model, settings = _model(request), service_of(request).settings
    prep = model.prep
    dims = [prep.channels, prep.size_px, prep.size_px]
    return Json(
        {
            "name": model.name,
            "platform": f"inceptionnet_{model.engine.lower().replace(' ', '_')}",
            "max_batch_size": settings.limits.images,
            "input": [{"name": "input", "data_type": "TYPE_FP32", "format": "FORMAT_NCHW", "dims": dims}],
            "output": [
                {"name": name, "data_type": "TYPE_FP32", "dims": [size]} for name, size in _outputs(model).items()
            ],
            "dynamic_batching": {"max_queue_delay_microseconds": round(settings.max_wait_s * 1e6)},
        }
    )


async def _index(request: Request) -> Response:
    service = service_of(request)
    states = [(name, "READY" if service.has(name) else "LOADING") for name in service.names]
    return Json([{"name": name, "version": VERSION, "state": state, "reason": ""} for name, state in states])


async def _infer(request: Request) -> Response:
    _model(request)
    service = service_of(request)
    with service.memory.share() as share:
        body = await whole(request, service.limits, share)
        head, rest = _split(request, body)
        content = await parsed(head, share, service.tensors_of)
        loaded = service.get(request.path_params["name"])
        model = loaded.model
        tensor, wanted, identity = _read(model, content, rest)
        if not 1 <= len(tensor) <= service.limits.images:
            raise Refused(f"{tensor.name}: expected from 1 to {service.limits.images} images, got {len(tensor)}")
        names = {one.name for one in wanted} or (set(_outputs(model)) - {"embedding"} or {"embedding"})

        async def work() -> dict[str, Any]:
            with service.places(loaded, len(tensor)):
                return await _answers(service, loaded, tensor, names)

        found = await answered(request, work())
    answer = {"model_name": model.name, "model_version": VERSION} | ({"id": identity} if identity else {})
    text, tail = encoded(
        answer, found, wanted, model.classes, bool(content.get("parameters", {}).get("binary_data_output"))
    )
    if not tail:
        return Response(text, media_type="application/json")
    return Response(text + tail, headers={HEADER: str(len(text))}, media_type="application/octet-stream")


def _split(request: Request, body: bytes) -> tuple[bytes, memoryview]:
    """The JSON, and the binary tensors behind it. Raises: Refused."""
    stated = request.headers.get(HEADER)
    if stated is None:
        return body, memoryview(b"")
    if not (stated.isascii() and stated.isdecimal() and len(stated) < 20 and int(stated) <= len(body)):
        raise Refused(f"{HEADER}: expected the length of the JSON, at most {len(body)}, got {stated[:40]!r}")
    return body[: int(stated)], memoryview(body)[int(stated) :]


def _read(model: Model, content: Any, rest: memoryview) -> tuple[Tensor, list[Any], str]:
    if not isinstance(content, dict):
        raise Refused('expected an object with "inputs", as the Open Inference Protocol has it')
    inputs, identity = content.get("inputs"), content.get("id", "")
    if not isinstance(identity, str):
        raise Refused("id: expected text")
    if not isinstance(content.get("parameters", {}), dict):
        raise Refused("parameters: expected an object")
    if not isinstance(inputs, list) or len(inputs) != 1:
        count = len(inputs) if isinstance(inputs, list) else "none"
        raise Refused(f"inputs: expected one tensor, input or image, got {count}")
    return tensor_of(inputs[0], rest, model.prep), requested(content, _outputs(model)), identity[:MOST_ID]


async def _answers(service: Service, loaded: Any, tensor: Tensor, names: set[str]) -> dict[str, Any]:
    model: Model = loaded.model
    results = await service.results(loaded, tensor.images, "embedding" in names)
    if bad := next(((i, one.error) for i, one in enumerate(results) if one.error), None):
        raise Refused(f"{tensor.name}: image {bad[0]}: {bad[1]}")
    answers = [one.answer for one in results if one.answer]
    found: dict[str, Any] = {}
    if names & {"logits", "probabilities"}:
        logits = np.stack([one.logits for one in answers if one.logits is not None])
        found = {"logits": logits, "probabilities": model.probabilities(logits)}
    if "embedding" in names:
        found["embedding"] = np.stack([one.embedding for one in answers if one.embedding is not None])
    found = {name: found[name] for name in ("logits", "probabilities", "embedding") if name in names}
    if not all(np.isfinite(values).all() for values in found.values()):
        raise Refused("the outputs of the network are not finite", 500)
    return found
