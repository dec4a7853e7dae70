"""Weights files come in as they were written, and nothing else gets in."""

from __future__ import annotations

import argparse
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inceptionnet.errors import WeightsError
from inceptionnet.weights.formats import open_weights

from .damage import damages


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3),
        "conv.bias": torch.randn(4),
        "bn.num_batches_tracked": torch.tensor(7),
        "half": torch.randn(5).half(),
    }


def assert_same(found: Any, expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def refused(path: Path, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        open_weights(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_safetensors_with_its_metadata_and_in_a_map_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "named.anything"
    save_file(state(), path, {"by": "hand"})
    stored = open_weights(path)
    assert (stored.format, stored.metadata, stored.dropped, stored.notes) == ("safetensors", {"by": "hand"}, {}, ())
    assert_same(stored.tensors, state())
    stored.tensors["conv.bias"].zero_()
    assert_same(open_weights(path).tensors, state())


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_in_both_of_its_formats(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "named.h5"
    torch.save(state(), path, _use_new_zipfile_serialization=zipped)
    stored = open_weights(path)
    assert (stored.format, stored.metadata, stored.dropped, stored.notes) == ("PyTorch", {}, {}, ())
    assert_same(stored.tensors, state())
    stored.tensors["conv.bias"].zero_()
    assert_same(open_weights(path).tensors, state())
    refused(path.rename(tmp_path / "w.safetensors"), r"got a PyTorch file by its first bytes; rename it to \.pth")


@pytest.mark.parametrize(
    ("wrap", "notes"),
    [
        (lambda s: {"state_dict": s, "epoch": 3}, ("unwrapped from state_dict",)),
        (lambda s: {"model": {"state_dict": s}}, ("unwrapped from model", "unwrapped from state_dict")),
        (lambda s: {"net": s, "optimizer": {"state": {}}}, ("unwrapped from net",)),
        (
            lambda s: {"state_dict": {"conv.bias": torch.zeros(4)}, "state_dict_ema": s},
            ("unwrapped from state_dict_ema, the averaged weights",),
        ),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, ("prefix module. removed",)),
        (
            lambda s: {"model": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
            ("unwrapped from model", "prefix _orig_mod. removed", "prefix module. removed"),
        ),
        (  # torch.optim.swa_utils.AveragedModel
            lambda s: {"model_ema": {"n_averaged": torch.tensor(9)} | {f"module.{k}": v for k, v in s.items()}},
            ("unwrapped from model_ema, the averaged weights", "prefix module. removed"),
        ),
        (lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1)}, ("unwrapped from state_dict",)),
        (lambda s: {k: nn.Parameter(v, v.is_floating_point()) for k, v in s.items()}, ()),
    ],
)
def test_a_state_dict_is_taken_out_of_what_wraps_it(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], dict[str, Any]], notes: tuple[str, ...]
) -> None:
    torch.save(wrap(state()), tmp_path / "w.pth")
    stored = open_weights(tmp_path / "w.pth")
    assert stored.notes == notes
    assert_same(stored.tensors, state())
    assert not any(tensor.requires_grad for tensor in stored.tensors.values())


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    content = {
        "state_dict": {"conv.bias": torch.ones(4), "version": "1.2", 3: torch.ones(1), "s": torch.ones(2).to_sparse()},
        "ema": {"module.conv.bias": torch.zeros(4), "s": torch.ones(2).to_sparse()},
        "epoch": 3,
    }
    torch.save(content, tmp_path / "w.pth")
    stored = open_weights(tmp_path / "w.pth")
    assert_same(stored.tensors, {"conv.bias": torch.zeros(4)})
    averaged = {"state_dict": "averaged weights used instead", "epoch": "not part of the weights"}
    assert stored.dropped == {**averaged, "s": "a torch.sparse_coo tensor"}
    del content["ema"]
    torch.save(content, tmp_path / "w.pth")
    assert open_weights(tmp_path / "w.pth").dropped == {
        "epoch": "not part of the weights",
        "version": "not a tensor but str",
        "3": "its name is not a string",
        "s": "a torch.sparse_coo tensor",
    }


class Malicious:
    def __init__(self, function: Callable[[str], Any], code: str) -> None:
        self.function, self.code = function, code

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return self.function, (self.code,)


@pytest.mark.parametrize("way", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("function", [os.system, eval, exec])
def test_no_code_runs(tmp_path: Path, function: Callable[[str], Any], way: str) -> None:
    path, marker = tmp_path / "w.pth", tmp_path / "marker"
    code = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w').close()"
    content = {"state_dict": state(), "x": Malicious(function, code)}
    if way == "pickle":
        path.write_bytes(pickle.dumps(content["x"], 2))
        with path.open("rb") as file:
            pickle.load(file)
        assert marker.exists(), "it would have run"
        marker.unlink()
    else:
        torch.save(content, path, _use_new_zipfile_serialization=way == "zip")
    refused(path, r"can execute code when unpickled; .* save model\.state_dict\(\)|damaged or truncated")
    assert not marker.exists()


def test_pickled_modules_and_torchscript_are_named_as_such(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 3)), tmp_path / "module.pt")
    refused(tmp_path / "module.pt", r"got torch\.nn\.modules\.container\.Sequential, .*save model\.state_dict")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # what torch.jit.save's archives have
        for name in ("script/data.pkl", "script/code/__torch__.py", "script/constants.pkl", "script/version"):
            archive.writestr(name, b"")
    refused(tmp_path / "script.pt", r"a TorchScript archive, which is code; .* save model\.state_dict\(\)")
    for content in ([torch.ones(2)], {"epoch": 3}, {}, {"state_dict": {}}, torch.ones(2)):
        torch.save(content, tmp_path / "w.pt")
        refused(tmp_path / "w.pt", r"expected a state dict, alone or under a key such as .*got ")
    loop: dict[str, Any] = {}
    loop["model"] = loop
    torch.save(loop, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "expected a state dict")


def test_zip_bombs_and_compressed_archives_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2**18)}, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as source,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert (tmp_path / "bomb.pth").stat().st_size < 10_000
    refused(tmp_path / "bomb.pth", r"got compressed ones \(10\d+ bytes from \d+\); save it again")


def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(10**9)}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", r"tensor w of shape \(1000000000,\) does not fit its 4 bytes")


def test_a_checksum_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(state(), path)
    content = path.read_bytes()
    place = content.index(state()["conv.weight"].numpy().tobytes())
    path.write_bytes(content[: place + 5] + b"\x42" + content[place + 6 :])
    refused(path, r"the checksum of w/data/\d does not match")


def header(json: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(json) if size is None else size) + json


@pytest.mark.parametrize(
    "content",
    [
        header(b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}') + bytes(16),
        header(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}') + bytes(8),
        header(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}') + bytes(15),
        header(b'{"w":{"dtype":"??","shape":[4],"data_offsets":[0,16]}}') + bytes(16),
        header(b'{"w":1}', 2**62),
        header(b"{" * 40),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    refused(path, "damaged or truncated")


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    refused(
        tmp_path / "none.pth", "no such file; expected a weights file: safetensors, PyTorch .*, Keras .*, TensorFlow"
    )
    refused(tmp_path / "no folder" / "w.ckpt", "no such file")
    refused(tmp_path, "expected a file, or a folder with one TensorFlow checkpoint, got none; give one")
    for name, content, message in (
        ("empty.pth", b"", "got an empty file; known formats: safetensors"),
        ("text.h5", b"weights, honestly", "of an unknown format, or truncated; known formats: safetensors"),
        ("page.pth", b"<!DOCTYPE html><html>", "of an unknown format"),
        ("cut.pth", b"PK\x03\x04", "damaged or truncated"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, message)
    for mode in ("w", "w:gz"):
        with tarfile.open(tmp_path / "v.tar", mode) as archive:
            archive.add(tmp_path / "text.h5", "inception.ckpt")
        refused(tmp_path / "v.tar", "got a tar or gzip archive; unpack it")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as zipped:
        zipped.writestr("weights.npy", b"x")
    refused(tmp_path / "other.zip", r"written by torch\.save or Keras, got one of other content \(weights\.npy\)")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_damaged_files_are_refused_or_come_in_whole(tmp_path: Path, kind: str) -> None:
    """Cuts are always found. Altered bytes are where the format has checksums; elsewhere shapes stay as they were."""
    path, good = tmp_path / "w", {k: v for k, v in state().items() if v.ndim}
    if kind == "safetensors":
        save_file(good, path)
    else:
        torch.save(good, path, _use_new_zipfile_serialization=kind == "zip")
    refusals = 0
    for cut in damages(path):
        try:
            found = open_weights(path).tensors
        except WeightsError as error:
            assert "\n" not in str(error)
            refusals += 1
            continue
        assert not cut
        if kind == "zip":
            assert_same(found, good)
        assert sorted(t.shape for t in found.values()) == sorted(t.shape for t in good.values())
    assert refusals >= 100


def test_a_safetensors_file_may_begin_with_any_byte(tmp_path: Path) -> None:
    """Its first bytes are the length of its header; 128, say, is what a pickle begins with."""
    begun = set()
    for padding in range(300):
        save_file({"w": torch.ones(2)}, tmp_path / "m.safetensors", {"note": "x" * padding})
        begun.add((tmp_path / "m.safetensors").read_bytes()[0])
        assert open_weights(tmp_path / "m.safetensors").tensors["w"].tolist() == [1, 1]
    assert 0x80 in begun and len(begun) == 32
