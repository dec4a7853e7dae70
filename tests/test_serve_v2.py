"""The Open Inference Protocol, as others speak it: with tritonclient and its binary tensors, and in bare JSON."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inceptionnet import Classifier
from inceptionnet.errors import DecodeError
from inceptionnet.serve import bodies
from inceptionnet.serve.values import MOST_VALUES, tensors_of

from .serving import CLASSES, NAME, SIZE_PX, Running, png, running, small_classifier

triton = pytest.importorskip("tritonclient.http")
ONE, TWO = png(1), png(2)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return small_classifier()


@pytest.fixture(scope="module")
def here(classifier: Classifier) -> Iterator[Running]:
    with running(classifier, small_classifier(()), limits={"images": 4}) as found:
        yield found


@pytest.fixture(scope="module")
def client(here: Running) -> Iterator[Any]:
    found = triton.InferenceServerClient(f"127.0.0.1:{here.port}")
    yield found
    found.close()


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(NAME) and client.is_model_ready(NAME, "1") and not client.is_model_ready("nothing")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    about = client.get_model_metadata(NAME)
    assert about["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, SIZE_PX, SIZE_PX]}]
    assert {one["name"]: one["shape"] for one in about["outputs"]} == {
        "logits": [-1, 3], "probabilities": [-1, 3], "embedding": [-1, 128]}  # fmt: skip
    assert client.get_model_config(NAME)["max_batch_size"] == 4
    assert [one["state"] for one in client.get_model_repository_index()] == ["READY", "READY"]
    with pytest.raises(triton.InferenceServerException, match="there is no version '2'"):
        client.get_model_metadata(NAME, "2")


def prepared(classifier: Classifier) -> Any:
    images = [Image.open(io.BytesIO(data)) for data in (ONE, TWO)]
    return np.stack([classifier.preprocess(image).numpy() for image in images])


@pytest.mark.parametrize("binary", [True, False])
def test_preprocessed_input(client: Any, classifier: Classifier, binary: bool) -> None:
    x = prepared(classifier)
    tensor = triton.InferInput("input", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    wanted = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "embedding", "logits")
    ]
    answer = client.infer(NAME, [tensor], outputs=wanted, request_id="seven")
    logits = classifier.logits([ONE, TWO])
    assert answer.get_response()["id"] == "seven"
    np.testing.assert_allclose(answer.as_numpy("logits"), logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(answer.as_numpy("probabilities"), logits.softmax(1).numpy(), atol=1e-5)
    np.testing.assert_allclose(answer.as_numpy("embedding"), classifier.embed([ONE, TWO]).numpy(), atol=1e-5)


@pytest.mark.parametrize("nested", [True, False])
def test_many_numbers_in_json_are_read_in_another_process(
    here: Running, classifier: Classifier, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MOST_VALUES", 1000)
    monkeypatch.setattr(bodies, "values_of", None)  # it would be called here
    x = prepared(classifier)
    data = (x if nested else x.ravel()).tolist()
    tensor = {"name": "input", "datatype": "FP32", "shape": list(x.shape), "data": data}
    answer = here.client.post(f"/v2/models/{NAME}/infer", json={"inputs": [tensor], "id": "1"})
    found = {one["name"]: one["data"] for one in answer.json()["outputs"]}
    np.testing.assert_allclose(found["logits"], classifier.logits([ONE, TWO]).numpy().ravel(), atol=1e-5)
    tensor |= {"name": "image", "datatype": "BYTES", "shape": [2]}
    answer = here.client.post(f"/v2/models/{NAME}/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400 and "expected base64 for BYTES" in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"inputs": [{"data": [[0.5, 0.5]] * MOST_VALUES + [[1]]}]}, "values beside numbers as data"),
        ({"inputs": [{"data": ["0"] * MOST_VALUES + ["x"]}]}, "values beside numbers as data"),
        ({"inputs": [{"shape": [0] * MOST_VALUES, "data": [0]}]}, "values beside numbers as data"),
        ([{}] * MOST_VALUES, "values beside numbers as data"),
    ],
)
def test_many_values_that_are_no_tensor(content: Any, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        tensors_of(json.dumps(content).encode())


def test_what_is_left_of_a_long_request() -> None:
    content = tensors_of(b'{"inputs": [{"data": [[1, 2], [3, 4]]}, {"data": ["YQ=="]}], "id": "a"}')
    np.testing.assert_array_equal(content["inputs"][0].pop("data"), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert content == {"inputs": [{}, {"data": ["YQ=="]}], "id": "a"}


def test_encoded_images_and_pixels(client: Any, classifier: Classifier) -> None:
    expected = classifier.logits([ONE, TWO]).numpy()
    files = triton.InferInput("image", [2], "BYTES")
    files.set_data_from_numpy(np.array([ONE, TWO], dtype=object))
    answer = client.infer(NAME, [files])
    assert [one["name"] for one in answer.get_response()["outputs"]] == ["logits", "probabilities"]
    np.testing.assert_allclose(answer.as_numpy("logits"), expected, atol=1e-5)
    pixels = np.stack([np.array(Image.open(io.BytesIO(data))) for data in (ONE, TWO)])
    tensor = triton.InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    np.testing.assert_allclose(client.infer(NAME, [tensor]).as_numpy("logits"), expected, atol=1e-5)


def test_most_probable_classes_as_text(client: Any, classifier: Classifier) -> None:
    files = triton.InferInput("image", [1], "BYTES")
    files.set_data_from_numpy(np.array([ONE], dtype=object))
    answer = client.infer(NAME, [files], outputs=[triton.InferRequestedOutput("probabilities", class_count=2)])
    (texts,) = answer.as_numpy("probabilities")
    for text, (name, probability) in zip(texts, classifier.predict(ONE, top=2).top, strict=True):
        value, number, said = text.decode().split(":")
        assert said == name == CLASSES[int(number)] and float(value) == pytest.approx(probability, abs=1e-5)


def test_a_network_without_classifier(client: Any) -> None:
    files = triton.InferInput("image", [1], "BYTES")
    files.set_data_from_numpy(np.array([ONE], dtype=object))
    assert client.infer(f"{NAME}-1", [files]).as_numpy("embedding").shape == (1, 128)


ZEROS = {"name": "input", "datatype": "FP32", "shape": [1, 3, SIZE_PX, SIZE_PX], "data": [0] * 3 * SIZE_PX**2}
FILES = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(ONE).decode()]}


def test_json_with_images_in_base64(here: Running) -> None:
    answer = here.client.post(f"/v2/models/{NAME}/versions/1/infer", json={"inputs": [FILES]}).json()
    assert [len(one["data"]) for one in answer["outputs"]] == [3, 3] and answer["model_name"] == NAME


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "expected an object"),
        ({}, "inputs: expected one tensor, input or image, got none"),
        ({"inputs": [ZEROS, FILES]}, "inputs: expected one tensor, input or image, got 2"),
        ({"inputs": [7]}, "inputs: expected an object"),
        ({"inputs": [ZEROS | {"name": "x"}]}, "expected input of FP32, or image of BYTES or UINT8, got 'x' of 'FP32'"),
        ({"inputs": [ZEROS | {"datatype": {}}]}, "got 'input' of {}"),
        ({"inputs": [ZEROS | {"shape": [1, 3, 8, 8]}]}, "input: expected the shape (N, 3, 32, 32), got [1, 3, 8, 8]"),
        ({"inputs": [ZEROS | {"shape": [1, -3]}]}, "input: expected a shape"),
        ({"inputs": [ZEROS | {"shape": [2**31] * 4}]}, "input: expected the shape"),
        ({"inputs": [ZEROS | {"data": [0]}]}, "input: expected 3072 numbers for the shape [1, 3, 32, 32], got 1"),
        ({"inputs": [ZEROS | {"data": [[0], [0, 1]]}]}, "input: expected numbers as data"),
        ({"inputs": [ZEROS | {"data": ["x"] * 3072}]}, "input: expected numbers as data"),
        ({"inputs": [ZEROS | {"data": [1e39] * 3072}]}, "input: expected finite numbers"),
        ({"inputs": [ZEROS | {"data": "x"}]}, "input: expected data, a list, or binary_data_size"),
        ({"inputs": [ZEROS | {"shape": [0, 3, 32, 32], "data": []}]}, "input: expected from 1 to 4 images, got 0"),
        ({"inputs": [FILES | {"shape": [2]}]}, "image: expected 2 elements for the shape, got 1"),
        ({"inputs": [FILES | {"shape": [5], "data": FILES["data"] * 5}]}, "image: expected from 1 to 4 images, got 5"),
        ({"inputs": [FILES | {"data": ["é"]}]}, "image: expected base64"),
        ({"inputs": [FILES | {"data": [3]}]}, "image: expected base64"),
        ({"inputs": [FILES | {"data": ["QUJD"]}]}, "image: image 0: is not an image in a known format"),
        ({"inputs": [FILES | {"parameters": {"binary_data_size": 9}}]}, "image: expected 0 as binary_data_size"),
        ({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0, 1, 256]}]},
         "whole numbers from 0 to 255"),
        ({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 0, 1, 3], "data": []}]}, "with sides up to"),
        ({"inputs": [FILES], "outputs": 3}, "outputs: expected a list"),
        ({"inputs": [FILES], "outputs": [{"name": "logit"}]}, "unknown output 'logit': did you mean logits?"),
        ({"inputs": [FILES], "outputs": [{"name": "logits", "parameters": {"classification": 4}}]}, "up to 3"),
        ({"inputs": [FILES], "outputs": [{"name": "embedding", "parameters": {"classification": 1}}]}, "no classes"),
        ({"inputs": [FILES], "parameters": 3}, "parameters: expected an object"),
        ({"inputs": [FILES], "id": 3}, "id: expected text"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_used(here: Running, content: Any, reason: str) -> None:
    response = here.client.post(f"/v2/models/{NAME}/infer", json=content)
    assert response.status_code == 400 and reason in response.json()["error"] and "\n" not in response.json()["error"]


@pytest.mark.parametrize("stated", ["-1", "x", "9" * 30, "1000000", "²"])
def test_a_length_of_the_json_that_cannot_be(here: Running, stated: str) -> None:
    headers = {b"Inference-Header-Content-Length": stated.encode("utf-8")}
    response = here.client.post(f"/v2/models/{NAME}/infer", content=b"{}", headers=headers)
    assert response.status_code == 400 and "expected the length of the JSON" in response.json()["error"]


@pytest.mark.parametrize("tail", [b"", b"\x05\0\0\0abc", b"\xff\xff\xff\xff", b"\0", b"\0\0\0\0\0\0\0\0"])
def test_binary_tensors_that_are_cut(here: Running, tail: bytes) -> None:
    parameters = f'{{"binary_data_size": {len(tail)}}}'
    head = (
        f'{{"inputs": [{{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {parameters}}}]}}'.encode()
    )
    headers = {"Inference-Header-Content-Length": str(len(head))}
    response = here.client.post(f"/v2/models/{NAME}/infer", content=head + tail, headers=headers)
    assert response.status_code == 400 and response.json()["error"].startswith("image: expected")


def test_the_documented_client(
    here: Running, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(
        r"```py\n(.*?)```", (Path(__file__).parent.parent / "docs" / "serving.md").read_text("utf-8"), re.DOTALL
    )
    (tmp_path / "one.jpg").write_bytes(ONE)
    monkeypatch.chdir(tmp_path)
    *lines, last = (
        code.replace("127.0.0.1:8000", f"127.0.0.1:{here.port}").replace("flowers", NAME).strip().splitlines()
    )
    names: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: names["client"].close())
        exec("\n".join(lines), names)
        found = eval(last, names)
    np.testing.assert_allclose(found, classifier.logits([ONE]).softmax(1).numpy(), atol=1e-5)
