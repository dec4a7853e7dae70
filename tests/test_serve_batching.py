"""Dynamic batching and settings, without HTTP."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from inceptionnet.errors import ConfigurationError
from inceptionnet.serve.batching import Batcher
from inceptionnet.serve.settings import named_models, seconds

from .serving import DEADLINE_S, until


class Engine:
    """Doubles numbers when it is allowed to."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], bool]] = []
        self.free = threading.Event()

    def __call__(self, seen: Sequence[int], embedding: bool) -> list[int]:
        self.batches.append((list(seen), embedding))
        assert self.free.wait(DEADLINE_S)
        return [2 * one for one in seen]


def test_batches_fill_while_the_engine_is_busy() -> None:
    engine, ran = Engine(), []
    batcher = Batcher(engine, 3, 0.0, lambda images, seconds: ran.append(images))
    answers = [batcher.submit(0)]
    until(lambda: engine.batches)
    answers += [batcher.submit(i) for i in range(1, 6)]
    assert batcher.busy_s() > 0
    engine.free.set()
    assert [one.result(DEADLINE_S) for one in answers] == [0, 2, 4, 6, 8, 10]
    batcher.close()
    assert [seen for seen, _ in engine.batches] == [[0], [1, 2, 3], [4, 5]] and ran == [1, 3, 2]


def test_a_full_batch_does_not_wait() -> None:
    engine = Engine()
    engine.free.set()
    batcher = Batcher(engine, 2, 3600.0)
    assert [batcher.submit(i).result for i in range(2)][1](DEADLINE_S) == 2
    last = batcher.submit(7)
    batcher.close()  # nor does one at the end
    assert last.result(0) == 14 and [seen for seen, _ in engine.batches] == [[0, 1], [7]]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(1)


def test_the_first_image_waits_for_others() -> None:
    engine = Engine()
    engine.free.set()
    batcher = Batcher(engine, 100, 0.5)
    answers = [batcher.submit(i) for i in range(3)]
    assert [one.result(DEADLINE_S) for one in answers] == [0, 2, 4] and len(engine.batches) == 1
    batcher.close()


def test_cancelled_images_are_left_out_and_embeddings_run_apart() -> None:
    engine = Engine()
    batcher = Batcher(engine, 8, 0.0)
    batcher.submit(0)
    until(lambda: engine.batches)
    gone, plain, embedded = batcher.submit(1), batcher.submit(2), batcher.submit(3, True)
    assert gone.cancel()
    engine.free.set()
    assert (plain.result(DEADLINE_S), embedded.result(DEADLINE_S)) == (4, 6)
    batcher.close()
    assert engine.batches[1:] == [([2], False), ([3], True)]


def test_a_failure_is_that_of_its_batch_alone() -> None:
    def run(seen: Sequence[int], embedding: bool) -> list[int]:
        return [1 // one for one in seen]

    batcher = Batcher(run, 1, 0.0)
    with pytest.raises(ZeroDivisionError):
        batcher.submit(0).result(DEADLINE_S)
    assert batcher.submit(1).result(DEADLINE_S) == 1 and batcher.busy_s() == 0
    batcher.close()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("runs/flowers", "flowers"),
        ("runs/flowers/", "flowers"),
        ("runs/flowers/model.onnx", "flowers"),
        ("a b.safetensors", "a-b"),
        ("hf:timm/inception_v3.tv_in1k", "inception_v3"),
        ("v2=x/y.h5", "v2"),
        ("model.pt2", "model"),
    ],
)
def test_names_of_models(place: str, name: str) -> None:
    assert list(named_models([place])) == [name]


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        (["a/x", "b/x"], "the name x is already that of a/x"),
        (["=x"], "expected a name of letters"),
        (["a/b=x"], "got 'a/b'"),
        ([f"{'n' * 101}=x"], "expected a name of letters"),
    ],
)
def test_names_that_cannot_be_used(places: list[str], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        named_models(places)


@pytest.mark.parametrize("text", ["", "5", "ms", "-1ms", "2s", "1e3ms", "5 min", "nan s", "٣ms"])
def test_times_that_cannot_be_used(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--max-wait: expected a time from 0ms to 1s, such as 5ms, got"):
        seconds(text, "--max-wait")
    assert (seconds("0ms", "x"), seconds("1s", "x"), seconds("2.5 ms", "x")) == (0, 1, 0.0025)
