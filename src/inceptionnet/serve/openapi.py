"""The OpenAPI document of the service."""

from __future__ import annotations

from typing import Any

from inceptionnet.serve.service import Service

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_PREDICTION = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string"},
        "error": {"type": "string", "description": "Why this image has no prediction; the others have theirs."},
        "top": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"class": {"type": "string"}, "probability": {"type": "number"}},
            },
        },
        "labels": {"type": "array", "items": {"type": "string"}, "description": "With several labels an image."},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "embedding": {"type": "array", "items": {"type": "number"}},
        "attribution": {
            "type": "object",
            "properties": {
                "method": {"type": "string"},
                "class": {"type": "string"},
                "overlay": {"type": "string", "description": "data:image/png;base64,…"},
            },
        },
    },
}
_ANSWER = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "network": {"type": "string"},
        "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
        "activation": {"type": "string", "enum": ["softmax", "sigmoid"]},
        "threshold": {"type": ["number", "null"]},
        "assumed": {"type": "string"},
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}
_OPTIONS = {
    "top": {"type": "integer", "minimum": 1, "default": 5, "description": "Number of classes to give."},
    "threshold": {"type": "number", "minimum": 0, "maximum": 1, "description": "Probability from which a label is "
                  "predicted, or of two classes the second."},
    "probabilities": {"type": "boolean", "default": False, "description": "The probabilities of all classes."},
    "embedding": {"type": "boolean", "default": False, "description": "The pooled features before the classifier."},
    "attribution": {"type": "string", "enum": ["gradcam"], "description": "The evidence for the predicted class."},
}  # fmt: skip
_IMAGE = {
    "oneOf": [
        {"type": "string", "format": "byte", "description": "Base64, perhaps as a data: URL."},
        {
            "type": "object",
            "required": ["data"],
            "properties": {"name": {"type": "string"}, "data": {"type": "string", "format": "byte"}},
        },
    ]
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "enum": ["1"]}}
_REFUSALS = {
    "400": "What is sent cannot be used, or no image of the request could be read.",
    "404": "There is no such model.",
    "408": "The request did not arrive in time.",
    "413": "The request has too many bytes or images.",
    "415": "The body is of a type that is not read.",
    "503": "There is too much to do, or the model is being loaded: try again after Retry-After.",
}


def document(version: str, service: Service) -> dict[str, Any]:
    """OpenAPI 3.1."""
    paths: dict[str, Any] = {
        "/predict": {"post": _predict("Predict by the default model")},
        "/models/{name}/predict": {"post": _predict("Predict by a model", _NAME)},
        "/models": {"get": _plain("The models, the default one first")},
        "/models/{name}": {"get": _plain("The model card: network, classes, preprocessing, engine, provenance", _NAME)},
        "/models/{name}/reload": {"post": _plain("Load a model again, without a gap", _NAME)},
        "/health/live": {"get": _plain("Whether the process works")},
        "/health/ready": {"get": _plain("Whether every model is loaded and has run once")},
        "/metrics": {"get": _plain("Metrics for Prometheus", kind="text/plain")},
        "/openapi.json": {"get": _plain("This document")},
        "/v2": {"get": _plain("Open Inference Protocol: the server")},
        "/v2/health/live": {"get": _plain("Open Inference Protocol: whether the process works")},
        "/v2/health/ready": {"get": _plain("Open Inference Protocol: whether all models are ready")},
        "/v2/repository/index": {"post": _plain("Open Inference Protocol: the models")},
    }
    for path, parameters in (
        ("/v2/models/{name}", (_NAME,)),
        ("/v2/models/{name}/versions/{version}", (_NAME, _VERSION)),
    ):
        paths |= {
            path: {"get": _plain("Open Inference Protocol: inputs and outputs", *parameters)},
            f"{path}/config": {"get": _plain("Triton's configuration of the model", *parameters)},
            f"{path}/ready": {"get": _plain("Open Inference Protocol: whether the model is ready", *parameters)},
            f"{path}/infer": {"post": _infer(*parameters)},
        }
    content: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "inceptionnet", "version": version, "description": "Classes of images, by the networks of "
                 "the Inception family."},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR, "Prediction": _PREDICTION, "Answer": _ANSWER}},
    }  # fmt: skip
    if service.settings.api_key:
        content["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        content["security"] = [{"key": []}, {"bearer": []}]
    return content


def _answer(description: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _refusals(*codes: str) -> dict[str, Any]:
    return {code: _answer(_REFUSALS[code], {"$ref": "#/components/schemas/Error"}) for code in codes}


def _plain(summary: str, *parameters: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
    found: dict[str, Any] = {"summary": summary, "responses": {"200": _answer("The answer", schema, kind)}}
    if parameters:
        found |= {"parameters": list(parameters)}
        found["responses"] |= _refusals("404", "503")
    return found


def _predict(summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    queries = [{"name": name, "in": "query", "schema": schema} for name, schema in _OPTIONS.items()]
    files = {
        "type": "object",
        "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
    images = {
        "type": "object",
        "required": ["images"],
        "properties": {"images": {"type": "array", "items": _IMAGE}, **_OPTIONS},
    }
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "summary": summary,
        "description": "Options go into the query, into fields of the form, or into the JSON. An image that cannot be "
        "decoded gets a row with the reason, and the others go on. No address is ever fetched.",
        "parameters": [*parameters, *queries],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": files},
                "image/*": binary,
                "application/octet-stream": binary,
                "application/json": {"schema": images},
            },
        },
        "responses": {
            "200": _answer("A prediction for each image", {"$ref": "#/components/schemas/Answer"}),
            **_refusals(*_REFUSALS),
        },
    }


def _infer(*parameters: dict[str, Any]) -> dict[str, Any]:
    body = {
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": {"type": "array"}, "outputs": {"type": "array"}},
    }
    return {
        "summary": "Open Inference Protocol: inference",
        "description": "One input: `input` FP32 (N, C, S, S), preprocessed; or `image`, BYTES (N) of encoded files or "
        "UINT8 (N, H, W, C). Outputs: logits, probabilities, embedding. Tensors may be binary, behind the JSON.",
        "parameters": list(parameters),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _answer("The outputs", {"type": "object"}), **_refusals(*_REFUSALS)},
    }
