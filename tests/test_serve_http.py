"""The service over HTTP: predictions, limits, errors, models, health."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inceptionnet import Classifier
from inceptionnet.errors import WeightsError
from inceptionnet.serve.app import _routes
from inceptionnet.serve.guard import SAFE
from inceptionnet.serve.models import Model
from inceptionnet.serve.openapi import document
from inceptionnet.serve.service import Service
from inceptionnet.serve.settings import Settings

from .serving import CLASSES, NAME, SIZE_PX, Gate, Running, png, running, serving, small_classifier, until

ONE, TWO = png(1), png(2)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return small_classifier()


@pytest.fixture(scope="module")
def here(classifier: Classifier) -> Iterator[Running]:
    labels = small_classifier(("a", "b", "c", "d"), "sigmoid", seed=1)
    features = small_classifier(())
    limits = {"image_bytes": 20_000, "request_bytes": 300_000, "images": 5, "pixels": 10_000}
    with running(classifier, labels, features, limits=limits) as found:
        yield found


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_every_way_to_send_images_gives_what_the_classifier_gives(here: Running, classifier: Classifier) -> None:
    expected = [one.to_dict()["top"] for one in classifier.predict([ONE, TWO], top=2)]
    form = here.client.post("/predict", files=[("x", ("a.png", ONE)), ("y", ("b.png", TWO))], data={"top": "2"}).json()
    assert [row["file"] for row in form["predictions"]] == ["a.png", "b.png"]
    plain = {"images": [coded(ONE), {"name": "b", "data": f"data:image/png;base64,{coded(TWO)}"}], "top": 2}
    json = here.client.post(f"/models/{NAME}/predict", json=plain).json()
    assert [row["file"] for row in json["predictions"]] == ["image 0", "b"]
    raw = [here.predict(data, top=2).json() for data in (ONE, TWO)]
    octets = {"Content-Type": "application/octet-stream"}
    octet = here.client.post("/predict?top=2", content=ONE, headers=octets).json()
    for answer, wanted in (
        (form, expected),
        (json, expected),
        (octet, expected[:1]),
        *zip(raw, [expected[:1], expected[1:]], strict=True),
    ):
        for row, top in zip(answer["predictions"], wanted, strict=True):
            assert [one["class"] for one in row["top"]] == [one["class"] for one in top]
            assert [one["probability"] for one in row["top"]] == pytest.approx([one["probability"] for one in top])
    assert (form["model"], form["network"], form["activation"], form["threshold"]) == (
        NAME,
        "inception_v1.slim",
        "softmax",
        None,
    )


def test_probabilities_embedding_and_attribution(here: Running, classifier: Classifier) -> None:
    answer = here.predict(ONE, top=1, probabilities="true", embedding="1", attribution="gradcam").json()
    (row,) = answer["predictions"]
    assert len(row["top"]) == 1 and set(row["probabilities"]) == set(CLASSES)
    assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert row["embedding"] == pytest.approx(classifier.embed(ONE).tolist(), abs=1e-5)
    assert (row["attribution"]["method"], row["attribution"]["class"]) == ("gradcam", row["top"][0]["class"])
    image = Image.open(io.BytesIO(base64.b64decode(row["attribution"]["overlay"].partition(",")[2])))
    assert (image.format, image.size) == ("PNG", (SIZE_PX, SIZE_PX))


def test_several_labels_an_image(here: Running) -> None:
    answer = here.client.post(f"/models/{NAME}-1/predict", files=[("x", ONE)], params={"threshold": 0.0}).json()
    (row,) = answer["predictions"]
    assert set(row["labels"]) == set(row["probabilities"]) == set("abcd") and answer["threshold"] == 0
    assert answer["notes"] == ["threshold 0: labels with a probability of 0 or more are predicted"]


def test_a_network_without_classifier_gives_embeddings(here: Running) -> None:
    url = f"/models/{NAME}-2/predict"
    (row,) = here.client.post(url, files=[("x", ONE)]).json()["predictions"]
    assert (
        set(row) == {"file", "embedding"}
        and len(row["embedding"]) == here.service.get(f"{NAME}-2").model.embedding_size
    )
    for options, reason in (
        ({"attribution": "gradcam"}, "attribution needs a classifier"),
        ({"probabilities": True}, "has no classifier"),
        ({"threshold": 0.5}, "has no classifier"),
    ):
        assert reason in refused(here.client.post(url, files=[("x", ONE)], params=options), 400)


def refused(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    message = response.json()["error"]
    assert "\n" not in message
    return str(message)


def test_a_bad_image_has_its_own_answer(here: Running) -> None:
    files = [("x", ("a.png", ONE)), ("x", ("bad.png", ONE[:100])), ("x", ("none.png", b"")), ("x", ("b.png", TWO))]
    rows = here.client.post("/predict", files=files).json()["predictions"]
    assert [set(row) for row in rows] == [{"file", "top"}, {"file", "error"}, {"file", "error"}, {"file", "top"}]
    assert "truncated" in rows[1]["error"] and "empty" in rows[2]["error"]
    response = here.client.post("/predict", files=files[1:3])
    assert "no image could be read: bad.png: is truncated" in refused(response, 400)
    assert len(response.json()["predictions"]) == 2


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("http://127.0.0.1:1/x.png", "nothing is fetched"),
        ("HTTPS://example.com/x.png", "nothing is fetched"),
        ("file:///etc/passwd", "nothing is fetched"),
        ("data:image/png,abc", "expected a data: URL in base64"),
        ("no base64!", "is no base64"),
        (7, "got a number"),
        (None, "got nothing"),
        ({"data": ["x"]}, "got a list"),
        ({"name": 3, "data": ""}, "expected a name as text"),
        ({"url": "http://x"}, "expected the keys name and data, got 'url'"),
    ],
)
def test_what_is_no_image_in_json(here: Running, image: Any, reason: str) -> None:
    response = here.client.post("/predict", json={"images": [image, coded(ONE)]})
    rows = response.json()["predictions"]
    assert reason in rows[0]["error"] and "top" in rows[1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tpo": "3"}, "unknown option 'tpo': did you mean top?"),
        ({"top": "0"}, "top: expected a whole number from 1 to 1000, got '0'"),
        ({"top": "²"}, "top: expected a whole number"),
        ({"threshold": "nan"}, "threshold: expected a probability from 0 to 1, got 'nan'"),
        ({"threshold": "0.5"}, "threshold needs two classes"),
        ({"embedding": "perhaps"}, "embedding: expected true or false, got 'perhaps'"),
        ({"attribution": "lime"}, "attribution: expected gradcam, got 'lime'"),
    ],
)
def test_options_that_cannot_be_used(here: Running, options: dict[str, str], reason: str) -> None:
    assert reason in refused(here.predict(ONE, **options), 400)
    assert reason in refused(here.client.post("/predict", files=[("x", ONE)], data=options), 400)
    assert reason in refused(here.client.post("/predict", json={"images": [coded(ONE)], **options}), 400)


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b"", {"Content-Type": "image/png"}, 400, "expected an image in the body, got an empty one"),
        (ONE, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "expected Content-Type multipart/form-data"),
        (ONE, {"Content-Type": "image/png", "Content-Encoding": "gzip"}, 415, "expected a body that is not compressed"),
        (b"{", {"Content-Type": "application/json"}, 400, "expected JSON, got what is none"),
        (b"\xff", {"Content-Type": "application/json"}, 400, "expected JSON in UTF-8"),
        (b'{"images": NaN}', {"Content-Type": "application/json"}, 400, "NaN is no JSON value"),
        (b"[" * 100_000, {"Content-Type": "application/json"}, 400, "nested too deeply"),
        (b"[]", {"Content-Type": "application/json"}, 400, "expected an object such as"),
        (b"[" + b"1," * 50_001 + b"1]", {"Content-Type": "application/json"}, 413, "JSON of at most 50000 values"),
        (b"{}", {"Content-Type": "application/json"}, 400, 'expected "images", a list'),
        (b'{"images": []}', {"Content-Type": "application/json"}, 400, "expected one image or more"),
        (b'{"images": ["a"], "top": 1e99}', {"Content-Type": "application/json"}, 400, "top: expected"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "expected multipart/form-data with files"),
        (b"x", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "expected multipart/form-data with files"),
    ],
)
def test_bodies_that_cannot_be_used(
    here: Running, content: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    assert reason in refused(here.client.post("/predict", content=content, headers=headers), status)


def test_limits_of_bytes_pixels_and_images(here: Running) -> None:
    large, wide = ONE + bytes(20_000), png(size=(200, 51))
    rows = here.client.post("/predict", files=[("x", large), ("x", wide[:19_999]), ("x", ONE)]).json()["predictions"]
    assert rows[0]["error"] == f"has {len(large)} bytes, more than the limit of 20000"
    assert rows[1]["error"] == "has 200×51 pixels, more than the limit of 10000"
    assert "top" in rows[2]
    assert "more than the limit of" in refused(here.predict(bytes(300_001)), 413)
    chunked = here.client.post("/predict", content=iter([bytes(100_000)] * 4), headers={"Content-Type": "image/png"})
    assert "more than the limit of" in refused(chunked, 413)
    assert "more images than the limit of 5" in refused(here.client.post("/predict", files=[("x", ONE)] * 6), 413)
    assert "more images than the limit of 5" in refused(here.client.post("/predict", json={"images": [""] * 6}), 413)
    assert here.service.memory.held == 0 and here.service.queued == 0


def test_paths_and_methods(here: Running) -> None:
    assert refused(here.client.get("/nothing"), 404) == "there is nothing at /nothing; see /docs"
    assert "there is nothing at" in refused(here.client.get("/assets/..%2fapp.py"), 404)
    response = here.client.get("/predict")
    assert "GET is not for /predict" in refused(response, 405) and response.headers["allow"] == "POST"
    message = refused(here.client.post("/models/nothing/predict", files=[("x", ONE)]), 404)
    assert message == "there is no model 'nothing'; expected colours, colours-1 or colours-2"


def test_model_cards(here: Running) -> None:
    found = here.client.get("/models").json()
    assert found["default"] == NAME and [one["name"] for one in found["models"]] == here.service.names
    card = here.client.get(f"/models/{NAME}").json()
    assert card["classes"] == list(CLASSES) and card["preprocessing"]["size_px"] == SIZE_PX
    assert (card["network"], card["engine"], card["precision"]) == ("inception_v1.slim", "eager", "fp32")
    assert card["attribution"] and card["limits"]["images"] == 5


def test_safe_headers_are_on_every_answer(here: Running) -> None:
    for path in ("/", "/docs", "/nothing", "/metrics", "/predict", "/models", "/assets/page.js"):
        headers = here.client.get(path).headers
        assert {name: headers.get(name) for name in SAFE} == SAFE, path
        assert "server" not in headers


def test_only_this_machine_and_no_pages_of_others(here: Running) -> None:
    response = here.client.get("/models", headers={"Host": "evil.example:80"})
    assert "was asked as 'evil.example'" in refused(response, 403)
    for host in ("localhost", "[::1]:8000", "127.0.0.1:1"):
        assert here.client.get("/models", headers={"Host": host}).status_code == 200
    cross = here.client.post("/predict", files=[("x", ONE)], headers={"Sec-Fetch-Site": "cross-site"})
    assert "pages of other sites" in refused(cross, 403)


def test_openapi_describes_every_route(here: Running) -> None:
    described = here.client.get("/openapi.json").json()["paths"]
    pages = {"/", "/docs", "/assets/{file}"}
    routes = {
        (route.path, (set(route.methods) - {"HEAD"}).pop().lower()) for route in _routes() if route.path not in pages
    }
    assert routes == {(path, method) for path, methods in described.items() for method in methods}
    text = str(document("1", here.service))
    assert "securitySchemes" not in text


def test_metrics(here: Running) -> None:
    before = {
        name: here.metric(f"inceptionnet_{name}") for name in ("images_total", "image_errors_total", "batch_images_sum")
    }
    here.client.post("/predict", files=[("x", ONE), ("x", b"bad")])
    after = {name: here.metric(f"inceptionnet_{name}") - count for name, count in before.items()}
    assert after == {"images_total": 2, "image_errors_total": 1, "batch_images_sum": 1}
    assert here.metric("inceptionnet_queue_images") == 0
    text = here.client.get("/metrics").text
    assert (
        'inceptionnet_requests_total{route="/predict",status="200"}' in text
        and "inceptionnet_request_seconds_bucket" in text
    )


def test_requests_that_come_together_run_as_one_batch(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(here, monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(here.predict, ONE)
        gate.wait_for(1)
        others = [pool.submit(here.predict, png(i)) for i in range(3)]
        until(lambda: len(here.service.get().batcher._waiting) == 3)
        gate.open()
        together = [one.result().json()["predictions"][0]["top"] for one in others]
        assert first.result().status_code == 200
    assert gate.batches == [1, 3]
    for i, top in enumerate(together):
        alone = here.predict(png(i)).json()["predictions"][0]["top"]
        assert [one["class"] for one in top] == [one["class"] for one in alone]
        assert [one["probability"] for one in top] == pytest.approx([one["probability"] for one in alone], abs=1e-5)


def test_a_full_queue_answers_503_at_once(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(classifier, limits={"queue": 2}) as here, ThreadPoolExecutor(1) as pool:
        gate = Gate(here, monkeypatch)
        held = pool.submit(here.client.post, "/predict", files=[("x", ONE), ("x", TWO)])
        gate.wait_for(1)
        response = here.predict(ONE)
        assert "2 images are waiting, and the queue takes 2" in refused(response, 503)
        assert int(response.headers["retry-after"]) >= 1
        gate.open()
        assert held.result().status_code == 200 and here.predict(ONE).status_code == 200


def test_an_answer_that_takes_too_long(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(classifier, limits={"timeout_s": 1.0}) as here:
        gate = Gate(here, monkeypatch)
        assert "took more than 1 s" in refused(here.predict(ONE), 503)
        assert here.service.queued == 0 and here.service.memory.held == 0
        gate.open()
        until(lambda: not here.service.get().batcher.busy_s())
        assert here.predict(ONE).status_code == 200


def test_a_failure_of_the_engine_is_told_and_ends_nothing(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(seen: Any, embedding: bool) -> Any:
        raise RuntimeError("out of memory\nat 0x0")

    with monkeypatch.context() as patch:
        patch.setattr(here.service.get().batcher, "_run", fail)
        assert "the network could not run (RuntimeError)" in refused(here.predict(ONE), 500)
    assert here.predict(ONE).status_code == 200


def test_a_fault_of_the_service_is_json_too(here: Running, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("inceptionnet.serve.app.read_request", None)
        assert refused(here.predict(ONE), 500) == "the service has failed; see its log"
    until(lambda: "TypeError" in caplog.text)
    assert here.predict(ONE).status_code == 200


def test_alive_while_loading_and_ready_after_the_warm_up(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = threading.Event()

    def slow(name: str, settings: Settings) -> Model:
        assert loaded.wait(60)
        return Model(name, classifier)

    monkeypatch.setattr(Model, "load", slow)
    warmed: list[int] = []
    monkeypatch.setattr(Model, "warm_up", lambda self, size: warmed.append(size))
    with serving(Service(Settings({NAME: ""}, decoders=1, batch_size=7))) as here:
        assert here.client.get("/health/live").status_code == 200
        assert "being loaded" in refused(here.client.get("/health/ready"), 503)
        assert "being loaded, for " in refused(here.predict(ONE), 503)
        for since_s, retry_s in ((60, 15), (900, 30)):
            here.service._loading_since = time.monotonic() - since_s
            answer = here.predict(ONE)
            assert refused(answer, 503).endswith(f" s so far; try again in {retry_s} s")
            assert answer.headers["Retry-After"] == str(retry_s)
        loaded.set()
        until(lambda: here.client.get("/health/ready").status_code == 200)
        assert warmed == [7] and here.predict(ONE).status_code == 200


def test_a_hanging_engine_is_not_alive(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(classifier) as here, ThreadPoolExecutor(1) as pool:
        gate = Gate(here, monkeypatch)
        held = pool.submit(here.predict, ONE)
        gate.wait_for(1)
        assert here.client.get("/health/live").status_code == 200
        monkeypatch.setattr("inceptionnet.serve.service.STUCK_S", 0.0)
        assert "does not end" in refused(here.client.get("/health/live"), 503)
        gate.open()
        held.result()


def test_a_model_is_loaded_again_without_a_gap(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    new = small_classifier(("x", "y", "z"), seed=5)
    with running(classifier) as here, ThreadPoolExecutor(1) as pool:
        gate, old = Gate(here, monkeypatch), here.service.get().batcher
        held = pool.submit(here.predict, ONE)
        gate.wait_for(1)
        monkeypatch.setattr(Model, "load", lambda name, settings: Model(name, new))
        assert here.client.post(f"/models/{NAME}/reload").json()["model"] == NAME
        assert here.predict(ONE).json()["predictions"][0]["top"][0]["class"] in ("x", "y", "z")
        gate.open()
        assert held.result().json()["predictions"][0]["top"][0]["class"] in CLASSES

        def fail(name: str, settings: Settings) -> Model:
            raise WeightsError("weights: expected a file, got none")

        until(lambda: not old._thread.is_alive())  # it ended when the last request was answered
        monkeypatch.setattr(Model, "load", fail)
        with here.service._loading:
            assert "a model is being loaded" in refused(here.client.post(f"/models/{NAME}/reload"), 503)
        message = refused(here.client.post(f"/models/{NAME}/reload"), 500)
        assert message == "the model stays as it was: weights: expected a file, got none"
        assert here.predict(ONE).status_code == 200


def test_an_api_key(classifier: Classifier) -> None:
    key = "a-key-of-some-length"
    with running(classifier, api_key=key) as here:
        for path in ("/", "/docs", "/openapi.json", "/health/live", "/v2/health/ready", "/assets/page.css"):
            assert here.client.get(path).status_code == 200, path
        for path in ("/models", "/metrics", "/v2", "/nothing"):
            response = here.client.get(path)
            assert "expected the API key" in refused(response, 401) and response.headers["www-authenticate"] == "Bearer"
        for headers in ({"X-API-Key": "wrong"}, {"Authorization": f"Bearer {key}x"}, {"X-API-Key": "é"}):
            raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
            assert here.client.get("/models", headers=raw).status_code == 401
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
            assert here.client.get("/models", headers=headers).status_code == 200
        assert "securitySchemes" in here.client.get("/openapi.json").json()["components"]
        assert key not in repr(here.service.settings)


def test_pixels_are_those_of_the_front_door(classifier: Classifier) -> None:
    from inceptionnet.serve.decoding import seen

    expected = np.asarray(classifier.predict(ONE, top=3).top[0][1])
    model = Model(NAME, classifier)
    (answer,) = model.answer([seen(ONE, model.prep, "x", 10**6)], False)
    assert answer.logits is not None
    assert float(model.probabilities(answer.logits[None]).max()) == pytest.approx(float(expected))
