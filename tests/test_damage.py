"""Files that change on disk: a checkpoint, weights, features and run.json with one random damage each.

Noticed, or harmless: what is read is then bit for bit what was written. `python -m pytest -m slow tests/test_damage.py`
makes 1000 damages of a checkpoint and of a weights file, and not 56.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from inceptionnet import load_model, read_record
from inceptionnet.errors import InceptionNetError, RunError, WeightsError
from inceptionnet.system.checksum import checksum
from inceptionnet.system.distributed import ALONE
from inceptionnet.train import checkpoint, search
from inceptionnet.train.checkpoint import Checkpoints
from inceptionnet.train.head import Part
from inceptionnet.train.loop import repeat, resume, train
from inceptionnet.train.plan import read_job
from inceptionnet.train.run import Run
from inceptionnet.train.trainer import Trainer
from inceptionnet.weights import read_weights

from .conftest import steps_of, tiny_plan

SETTINGS = {"optimizer.name": "rmsprop", "optimizer.lr": 0.02, "average.decay": 0.99, "checkpoint.every_steps": 2,
            "log.every_steps": 1}  # fmt: skip
PAGE = 4096
NUMBERS = [pytest.param(56, id="56"), pytest.param(1000, id="1000", marks=pytest.mark.slow)]

Damage = Callable[[bytearray, np.random.Generator], None]


def header_bytes(data: bytes) -> int:
    """The length of a safetensors file's header, with the eight bytes that hold it."""
    return int(8 + struct.unpack("<Q", data[:8])[0])


def flip(data: bytearray, rng: np.random.Generator, start: int = 0, stop: int | None = None) -> None:
    """One to three bits anywhere between."""
    for place in rng.integers(start, stop or len(data), rng.integers(1, 4)):
        data[place] ^= 1 << rng.integers(8)


def other_byte(data: bytearray, rng: np.random.Generator) -> None:
    """One character of the header is another one that can be printed."""
    data[rng.integers(8, header_bytes(data))] = rng.integers(32, 127)


def other_digit(data: bytearray, rng: np.random.Generator) -> None:
    """One digit of a number, or of a name, in the header."""
    digits = [place for place in range(8, header_bytes(data)) if 48 <= data[place] < 58]
    data[rng.choice(digits)] = rng.integers(48, 58)


def page(data: bytearray, rng: np.random.Generator) -> slice:
    first = int(rng.integers(0, -(-len(data) // PAGE))) * PAGE
    return slice(first, min(first + PAGE, len(data)))


def zero_page(data: bytearray, rng: np.random.Generator) -> None:
    where = page(data, rng)
    data[where] = bytes(where.stop - where.start)


def random_page(data: bytearray, rng: np.random.Generator) -> None:
    where = page(data, rng)
    data[where] = rng.bytes(where.stop - where.start)


def zero_tail(data: bytearray, rng: np.random.Generator) -> None:
    first = int(rng.integers(len(data)))
    data[first:] = bytes(len(data) - first)


def swap_pages(data: bytearray, rng: np.random.Generator) -> None:
    one, other = (int(first) * PAGE for first in rng.choice(len(data) // PAGE, 2, replace=False))
    kept = data[one : one + PAGE]
    data[one : one + PAGE] = data[other : other + PAGE]
    data[other : other + PAGE] = kept


def nested(data: bytearray, rng: np.random.Generator) -> None:
    """A header of brackets, or state of them within the text of the header."""
    stop = header_bytes(data)
    first = 8 if rng.integers(2) else int(rng.integers(8, stop))
    data[first:stop] = b"[" * (stop - first)


KINDS: list[Damage] = [
    flip, other_byte, other_digit, zero_page, random_page, zero_tail, swap_pages, nested,
    lambda data, rng: flip(data, rng, 0, 8),
    lambda data, rng: flip(data, rng, 8, header_bytes(data)),
    lambda data, rng: flip(data, rng, header_bytes(data)),
    lambda data, rng: data.__delitem__(slice(int(rng.integers(len(data))), None)),
    lambda data, rng: data.extend(rng.bytes(int(rng.integers(1, 9000)))),
    lambda data, rng: data.extend(bytes(int(rng.integers(1, 9000)))),
]  # fmt: skip


def damages(data: bytes, count: int, kinds: list[Damage] = KINDS) -> Iterator[bytes]:
    """So many damaged copies, all of them different from the data, the kinds one after another."""
    rng, made = np.random.default_rng(0), 0
    while made < count:
        copy = bytearray(data)
        kinds[made % len(kinds)](copy, rng)
        if copy != data:
            made += 1
            yield bytes(copy)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def whole(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with the checkpoints of its last two steps but one and its last."""
    out = tmp_path_factory.mktemp("damage") / "whole"
    train(tiny_plan(colours, epochs=2, settings=SETTINGS), out)
    return out


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def newest_of(run: Path) -> Path:
    return Checkpoints(run / "checkpoints", 2).files()[-1]


def assert_same(run: Path, whole: Path) -> None:
    """All weights, the last checkpoint and the metrics."""
    for name in ("weights.safetensors", "weights_raw.safetensors", "weights_best.safetensors"):
        assert same(load_file(run / name), load_file(whole / name)), name
    assert same(load_file(newest_of(run)), load_file(newest_of(whole)))
    times = {"images_per_s", "data_wait", "elapsed_s"}
    one, other = ([{k: v for k, v in row.items() if k not in times} for row in Run(out).read_metrics()]
                  for out in (run, whole))  # fmt: skip
    assert one == other


@pytest.mark.parametrize("count", NUMBERS)
def test_every_damage_of_the_newest_checkpoint_is_noticed_or_harmless(count: int, run: Path) -> None:
    checkpoints, newest = Checkpoints(run / "checkpoints", 2), newest_of(run)
    written, noticed, silent = newest.read_bytes(), 0, []
    whole = checkpoints.newest()
    assert whole and not whole[2] and whole[1]["step"] == 8
    checkpoints.save(6, {"small": torch.ones(1)}, {})  # is quicker to read than the run's own
    for number, damaged in enumerate(damages(written, count)):
        newest.write_bytes(damaged)
        found = checkpoints.newest()
        assert found
        tensors, state, unreadable = found
        if unreadable:
            assert state["step"] == 6 and len(unreadable) == 1 and unreadable[0].isprintable()
            noticed += 1
        elif state != whole[1] or not same(tensors, whole[0]):
            silent.append(number)
    print(f"{count} damages of a checkpoint: {noticed} noticed, {count - noticed - len(silent)} harmless")
    assert not silent and noticed > 0.8 * count


@pytest.mark.parametrize("number", range(3))
def test_a_run_with_a_damaged_newest_checkpoint_ends_as_if_it_were_whole(
    number: int, run: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bit in the values, a page of zeros, a zeroed tail."""
    newest = newest_of(run)
    kind = [KINDS[10], zero_page, zero_tail][number]
    newest.write_bytes(next(damages(newest.read_bytes(), 1, [kind])))
    resume(run)
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1 and f"{newest.name} cannot be read (" in said[0] and "using an older checkpoint" in said[0]
    assert_same(run, whole)


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def without(name: str) -> Change:
    return lambda tensors, state: (tensors if name in tensors else state).pop(name)


def changed(run: Path, change: Change) -> None:
    """Write the newest checkpoint again with other tensors, or another state."""
    checkpoints = Checkpoints(run / "checkpoints", 2)
    found = checkpoints.newest()
    assert found
    tensors, state, _ = found
    change(tensors, state)
    checkpoints.save(8, tensors, state)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without("rows"), "its state lacks 'rows'"),
        (lambda tensors, state: state.clear(), "its state lacks 'steps_per_epoch'"),
        (lambda tensors, state: state.update(epoch="two"), "its state has epoch: Input should be a valid integer"),
        (lambda tensors, state: state["counted"].update(seen=[[]]), "its state has counted.seen: Input should be"),
        (lambda tensors, state: state.update(batch=5), "its state is impossible: step 5 of 4"),
        (without("model.head.logits.bias"), "it belongs to another training: 'model.head.logits.bias'"),
        (
            lambda tensors, state: tensors.update({"average.head.logits.bias": torch.ones(1)}),
            r"average.head.logits.bias: expected torch.float32 of shape (3,), got torch.float32 of shape (1,)",
        ),
        (
            lambda tensors, state: tensors.update({"model.head.logits.bias": torch.ones(3).half()}),
            "model.head.logits.bias: expected torch.float32 of shape (3,), got torch.float16 of shape (3,)",
        ),
        (
            lambda tensors, state: tensors.update({"optimizer.0.momentum": torch.ones(2)}),
            "optimizer.0.momentum: expected shape",
        ),
        (lambda tensors, state: tensors.update({"optimizer.1.2.3": torch.ones(2)}), "too many values to unpack"),
    ],
    ids=range(10),
)
def test_a_checkpoint_that_does_not_fit_gives_way_too(change: Change, why: str, run: Path) -> None:
    """With a checksum that matches: of another version, of another run, or made by hand."""
    changed(run, change)
    trainer = Trainer(read_job(Run(run)), Run(run), ALONE, resumed=True)
    assert trainer.at.step == 6
    assert len(trainer.notes) == 1 and why in trainer.notes[0] and "using an older checkpoint" in trainer.notes[0]


def test_nothing_of_a_checkpoint_that_does_not_fit_stays(run: Path, whole: Path, capsys: Any) -> None:
    """Its tensors are loaded before its state is found to be wrong."""

    def other(tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor + 1
        state["seconds"] = None

    changed(run, other)
    resume(run)
    assert "its state has seconds: Input should be a valid number" in capsys.readouterr().err
    assert_same(run, whole)


def test_if_no_checkpoint_is_good_nothing_is_touched(run: Path) -> None:
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(next(damages(file.read_bytes(), 1, [KINDS[10]])))
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(RunError, match=r"no checkpoint can be read: step-0+8.* checksum.*; step-0+6.* checksum") as one:
        resume(run)
    assert str(one.value).isprintable()
    assert before == {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}


def test_a_damaged_checkpoint_pushes_no_good_one_out(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 1)
    (tmp_path / "step-00000009.safetensors").write_bytes(b"damaged")
    for step in (6, 7):
        checkpoints.save(step, {"x": torch.ones(1)}, {})
    found = checkpoints.newest()
    assert found and found[1]["step"] == 7 and len(found[2]) == 1
    checkpoints.save(10, {"x": torch.ones(1)}, {})
    assert [file.name for file in checkpoints.files()] == ["step-00000010.safetensors"]


@pytest.mark.parametrize("count", NUMBERS)
def test_every_damage_of_a_weights_file_is_noticed_or_harmless(count: int, whole: Path, tmp_path: Path) -> None:
    written, file = (whole / "weights.safetensors").read_bytes(), tmp_path / "weights.safetensors"
    original, noticed, silent = read_weights(whole / "weights.safetensors"), 0, []
    for number, damaged in enumerate(damages(written, count)):
        file.write_bytes(damaged)
        try:
            found = read_weights(file)
        except WeightsError as error:
            assert str(error).isprintable() and str(file) in str(error)
            noticed += 1
            continue
        if found.record != original.record or not same(found.tensors, original.tensors):
            silent.append(number)
    print(f"{count} damages of a weights file: {noticed} noticed, {count - noticed - len(silent)} harmless")
    assert not silent and noticed > 0.8 * count


def test_the_error_says_what_to_do(whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    data = bytearray((whole / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=r"^\S+: its content does not match its checksum: expected '\w{8}', got"):
        read_record(file)
    with pytest.raises(WeightsError, match=r"get the file again, or save edited weights with save_weights$"):
        load_model(file)


def test_weights_without_a_checksum_load(whole: Path, tmp_path: Path) -> None:
    tensors, file = load_file(whole / "weights.safetensors"), tmp_path / "weights.safetensors"
    with safe_open(whole / "weights.safetensors", "pt") as opened:
        text = opened.metadata()["inceptionnet"]
    about = json.loads(text)
    assert about.pop("checksum") == checksum(json.dumps(about), tensors)
    save_file(tensors, file, {"inceptionnet": json.dumps(about)})
    assert same(load_model(file).state_dict(), tensors)
    for key, damaged in (("inceptionnet", text.replace('"checksum"', '"chucksum"')), ("inceptionned", text)):
        save_file(tensors, file, {key: damaged})  # not taken for one without a checksum, or without metadata
        with pytest.raises(
            WeightsError, match=r"damaged metadata \((chucksum: unknown entry; did you mean checksum|it has no)"
        ):
            load_model(file)


def test_the_checksum_is_the_crc_of_everything_in_order() -> None:
    """By binascii, byte by byte: the text, then each name, type, shape and value."""
    import binascii

    tensors = {"b": torch.tensor([[1, -2]], dtype=torch.int16), "a": torch.tensor(True), "c": torch.empty(0)}
    content = b"{}" + b"a torch.bool ()\x01" + b"b torch.int16 (1, 2)\x01\x00\xfe\xff" + b"c torch.float32 (0,)"
    assert checksum("{}", tensors) == f"{binascii.crc32(content):08x}"
    bits = {"x": torch.tensor([1.0], dtype=torch.bfloat16)}
    assert checksum("", bits) == f"{binascii.crc32(b'x torch.bfloat16 (1,)' + bytes([0x80, 0x3F])):08x}"


def test_damaged_features_are_not_used(tmp_path: Path) -> None:
    file, rows = tmp_path / "00000.safetensors", 500
    part = Part(torch.rand(rows, 16), torch.arange(rows), torch.zeros(rows, dtype=torch.int64), (("a.png", "half"),))
    part.save(file)
    for damaged in damages(file.read_bytes(), 150):
        file.write_bytes(damaged)
        found = Part.load(file)
        if found is not None:
            assert found.errors == part.errors and torch.equal(found.features, part.features)
            assert torch.equal(found.indices, part.indices) and torch.equal(found.labels, part.labels)


def flip_text(data: bytearray, rng: np.random.Generator) -> None:
    flip(data, rng)


def test_every_damage_of_run_json_is_one_line_or_harmless(run: Path) -> None:
    file = run / "run.json"
    original, text = Run(run).about(), file.read_bytes()
    cut: Damage = lambda data, rng: data.__delitem__(slice(int(rng.integers(len(data))), None))  # noqa: E731
    digit: Damage = lambda data, rng: data.__setitem__(  # noqa: E731
        rng.choice([i for i, byte in enumerate(data) if 48 <= byte < 58]), int(rng.integers(48, 58))
    )
    for damaged in damages(text, 200, [flip_text, digit, zero_tail, cut]):
        file.write_bytes(damaged)
        try:
            Run(run).check_unchanged("run.json")
            found = Run(run).about()
        except InceptionNetError as error:
            assert str(error).isprintable() and "run.json" in str(error)
            continue
        assert {key: found[key] for key in original if key in found} == original


def test_a_setting_changed_in_run_json_is_not_trained_with_unnoticed(run: Path, whole: Path, tmp_path: Path) -> None:
    file = run / "run.json"
    about = json.loads(file.read_text())
    about["recipe"]["optimizer"]["lr"] = 0.03
    file.write_text(json.dumps(about))
    for go_on in (lambda: resume(run), lambda: repeat(run, tmp_path / "again")):
        with pytest.raises(RunError, match=r"run\.json: its content does not match its checksum.*remove 'checksum'"):
            go_on()
    file.write_text(json.dumps(json.loads((whole / "run.json").read_text())))  # on one line: the same values
    resume(run)
    del about["checksum"]
    file.write_text(json.dumps(about))
    resume(run)


def test_the_other_json_files_are_verified_where_they_are_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.read_optional("head.json") == {}
    values = {"penalty": 0.1, "trials": [{"loss": float("inf")}], "by": {10: (1, 2), 9: None}}
    run.write_sealed("head.json", values)
    assert {**run.read_optional("head.json"), "checksum": 0} == json.loads(json.dumps({**values, "checksum": 0}))
    (tmp_path / "head.json").write_text((tmp_path / "head.json").read_text().replace("0.1", "0.2"))
    with pytest.raises(RunError, match=r"head\.json: its content does not match its checksum: expected '\w{8}', got"):
        run.read_optional("head.json")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "\0" * 100, '{"a": "\xff'])
def test_nested_garbage_in_json_is_one_line(text: str, run: Path) -> None:
    for name in ("run.json", "search.json"):
        (run / name).write_bytes(text.encode("latin-1"))
        with pytest.raises(RunError, match=rf"{name}: cannot be read: ") as caught:
            search.resume(run)
        assert str(caught.value).isprintable()


def test_other_damaged_files_change_nothing(run: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables, logs and weights are written again; the lines of the log that cannot be read are counted."""
    Checkpoints(run / "checkpoints", 2).files()[-1].unlink()
    for name in ("metrics.csv", "evaluation.json", "weights.safetensors", "weights_raw.safetensors"):
        (run / name).write_bytes(b"\xff\xfe\0garbage")
    lines = (run / "steps.jsonl").read_bytes().splitlines()
    damaged = [b"\xff\xfe\0", b"[]", lines[2], b'{"step": "3"}', b"[" * 100_000, *lines[5:], b'{"step": 8, "lo']
    (run / "steps.jsonl").write_bytes(b"\n".join(damaged))
    resume(run)
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1 and "steps.jsonl: 4 damaged lines left out" in said[0]
    assert [row["step"] for row in steps_of(run)] == [2, 5, 6, 7]
    assert_same(run, whole)


def test_damaged_best_weights_are_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No later epoch may be better, so that they are not written again."""
    file = run / "weights_best.safetensors"
    file.write_bytes(next(damages(file.read_bytes(), 1, [KINDS[10]])))
    resume(run)
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1 and f"{file}: its content does not match its checksum" in said[0]


def test_a_folder_in_the_place_of_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(1, {"x": torch.ones(1)}, {})
    (tmp_path / "step-00000002.safetensors").mkdir()
    found = checkpoints.newest()
    assert found and found[1]["step"] == 1 and len(found[2]) == 1 and found[1]["format"] == checkpoint.FORMAT
