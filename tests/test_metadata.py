"""Metadata of weights and exported files: every field, with values that no network has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from inceptionnet import create_model, load, save_weights
from inceptionnet.engines.kinds import input_of, read_metadata
from inceptionnet.errors import InceptionNetError, WeightsError
from inceptionnet.nets.edits import Configuration
from inceptionnet.weights.metadata import RECORD, StoredConfiguration, check_export, record_fields

GONE = object()
DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]
HOSTILE: dict[str, Any] = {
    "gone": GONE, "null": None, "true": True, "minus one": -1, "zero": 0, "one": 1, "a half": 7.5, "huge": 1e9,
    "beyond pixels": 10**4, "beyond int64": 10**30, "beyond float": 10**400, "tiny": 1e-300, "NaN": float("nan"),
    "infinite": float("inf"), "no text": "", "text": "x", "long text": "x" * 10**5, "empty list": [], "texts": ["a"],
    "mixed": ["a", None, 1], "numbers": [1, 2, 3], "lists": [[1]], "object": {"a": 1}, "deep": DEEP,
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("metadata") / "w.safetensors"
    model = create_model("inception_resnet_v1", width=0.125, input_size=75, num_classes=3, residual_scale=0.2)
    save_weights(model, path, classes=("a", "b", "c"), provenance={"data": "x", "seed": 1})
    return path


def stored_in(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["inceptionnet"])
    return {key: value for key, value in about.items() if key not in ("format", "checksum")}


def changed(stored: Any, *, without: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every value of nested JSON replaced by every hostile one, with where and what; `without` these keys."""

    def places(value: Any, before: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield (*before, key)
            yield from places(value[key], (*before, key))

    for place in places(stored, ()):
        if place[0] in without:
            continue
        for name, hostile in HOSTILE.items():
            copy = json.loads(json.dumps(stored))
            inner = copy
            for key in place[:-1]:
                inner = inner[key]
            if hostile is GONE:
                del inner[place[-1]]
            else:
                inner[place[-1]] = hostile
            yield f"{'.'.join(map(str, place))}: {name}", copy


def accepted_by(check: Callable[[Any], object], stored: Any, **how: Any) -> list[str]:
    """What is accepted; what is refused has one short line."""
    accepted = []
    for what, copy in changed(stored, **how):
        try:
            check(copy)
            accepted.append(what)
        except ValueError as error:
            assert "\n" not in str(error) and 5 < len(str(error)) < 400, f"{what}: {error}"
    return accepted


def test_the_fields_are_those_of_a_configuration() -> None:
    own = {one.name: one.default for one in fields(Configuration)}
    stored = StoredConfiguration.model_fields
    assert stored.keys() == own.keys()
    for name, default in own.items():
        if name != "num_classes" and default is not MISSING:
            assert (tuple(d) if isinstance(d := stored[name].default, list) else d) == default, name
    assert stored["name"].is_required() and stored["num_classes"].is_required()


def test_hostile_metadata_of_weights_is_refused_or_a_network(weights: Path, tmp_path: Path) -> None:
    """What is accepted is another network of the family, as which the tensors fit or are refused."""
    stored, tensors = stored_in(weights), load_file(weights)
    accepted = accepted_by(lambda copy: record_fields(copy, tensors), stored)
    assert 20 < len(accepted) < 200
    beyond = [one for one in accepted if one.endswith((": NaN", ": infinite", ": deep", ": huge"))]
    assert beyond == ["provenance.data: huge", "provenance.seed: huge"]
    file = tmp_path / "x.safetensors"
    tried = {one for one in accepted if one.startswith("configuration") and not one.endswith(": gone")}
    for what, copy in changed(stored, without=("classes", "preprocessing", "provenance")):
        if what in tried:
            save_file(tensors, file, metadata={"inceptionnet": json.dumps({"format": 1, **copy})})
            try:
                load(file, device="cpu")
            except InceptionNetError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("configuration", {"width": 1e9}, "configuration.width: Input should be less than or equal to 64, got 1000000"),
        ("configuration", {"wdith": 1}, "configuration.wdith: unknown entry; did you mean width"),
        ("configuration", {"width": 8.0}, r"configuration: the network has \d+ parameters, the file only \d+ numbers"),
        ("configuration", {"input_size": 10**30}, "configuration.input_size: Input should be less than or equal to"),
        ("configuration", {"name": ["a"]}, "configuration.name: Input should be a valid string, got .'a'."),
        ("preprocessing", {"size_px": 10**4}, "preprocessing size_px: expected a whole number of pixels from 1 to"),
        ("preprocessing", {"std": [1e-300]}, "preprocessing std: expected 1 or 3 numbers from 0.0001 to 10000"),
        ("classes", ["a", "b"], "classes: expected 3 names, one for each class, got 2"),
        ("classes", ["a", "b", 3], "classes.2: Input should be a valid string, got 3"),
        ("provenance", None, "provenance: Input should be an object, got None"),
    ],
)  # fmt: skip
def test_the_field_is_said(field: str, value: Any, message: str, weights: Path, tmp_path: Path) -> None:
    stored = stored_in(weights)
    stored[field] = stored[field] | value if isinstance(value, dict) else value
    file = tmp_path / "x.safetensors"
    save_file(load_file(weights), file, metadata={"inceptionnet": json.dumps({"format": 1, **stored})})
    with pytest.raises(WeightsError, match=f"damaged metadata .{message}"):
        load(file)


def test_hostile_metadata_of_an_exported_file_is_refused(tmp_path: Path) -> None:
    save_weights(create_model("inception_v1.slim", width=0.125, num_classes=2), tmp_path / "w.safetensors")
    stored = {
        **stored_in(tmp_path / "w.safetensors"), "network": "inception_v1.slim", "activation": "softmax",
        "input": input_of(raw=False, batch=4), "output": "logits", "precision": "int8",
        "quantisation": {"images": 12, "weight_bits": 8}, "source": "w.safetensors", "version": "0.1.0",
    }  # fmt: skip
    check_export(stored)
    accepted = accepted_by(check_export, stored, without=("source", "version", "network", "activation", *RECORD))
    assert accepted == [
        "input.batch: null", "input.batch: one", "input.batch: beyond pixels", "quantisation: gone",
        "quantisation: null", "quantisation.images: one", "quantisation.images: beyond pixels",
        "quantisation.images: beyond int64", "quantisation.images: beyond float",
    ]  # fmt: skip


def test_the_metadata_of_a_weights_file_are_those_of_an_export(weights: Path) -> None:
    assert read_metadata(weights)["input"] == input_of(raw=False, batch=None)
