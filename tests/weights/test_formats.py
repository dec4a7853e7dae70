"""Weights files come in as they were written, and nothing else gets in."""

from __future__ import annotations

import argparse
import os
import pickle
import struct
import tarfile
import time
import warnings
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
from inceptionnet.weights.formats.unpickle import unpickled

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
        (lambda s: {"anything": {"at_all": s}, "epoch": 3}, ("unwrapped from anything", "unwrapped from at_all")),
        (lambda s: [s, {"state": {0: {"step": torch.ones(1)}}}], ("unwrapped from 0",)),
        (  # torch.optim.swa_utils.AveragedModel
            lambda s: {"model": s, "model_ema": {"n_averaged": torch.tensor(9), **s}},
            ("unwrapped from model_ema, the averaged weights",),
        ),
        (  # an optimiser's moments are as many as the weights
            lambda s: {"weights": s, "optimizer": {"state": {i: {"exp_avg": v} for i, v in enumerate(s.values())}}},
            ("unwrapped from weights",),
        ),
        (
            lambda s: {"G": {k: v for k, v in s.items() if k != "half"}, "fc": {"weight": s["half"]}},
            ("state dicts G and fc taken together",),
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
    if "together" in notes[0] if notes else False:
        assert stored.tensors.keys() == {f"G.{name}" for name in state() if name != "half"} | {"fc.weight"}
        return
    assert_same(stored.tensors, state())
    assert not any(tensor.requires_grad for tensor in stored.tensors.values())


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    content = {
        "state_dict": {"conv.bias": torch.ones(4), "version": "1.2", 3: torch.ones(1), "s": torch.ones(2).to_sparse()},
        "ema": {"conv.bias": torch.zeros(4), "s": torch.ones(2).to_sparse()},
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


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_whole_modules_are_read_as_trees(tmp_path: Path, script: bool, zipped: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.3), nn.BatchNorm1d(3, eps=0.1))
    path = tmp_path / "m.pt"
    if script:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.script(model).save(str(path))
    else:
        torch.save(model, path, _use_new_zipfile_serialization=zipped)
    stored = open_weights(path)
    assert_same(stored.tensors, model.state_dict())
    assert {where: module.name for where, module in stored.modules.items()} == {
        "": "Sequential", "0": "Linear", "1": "LeakyReLU", "2": "BatchNorm1d",
    }  # fmt: skip
    if not script:
        assert (stored.modules["1"].attributes["negative_slope"], stored.modules["2"].attributes["eps"]) == (0.3, 0.1)


class Unknown:
    """An object of a class that only the training script has."""

    def __init__(self) -> None:
        self.path = Path("/somewhere")


def test_objects_beside_the_weights_are_not_imported(tmp_path: Path) -> None:
    content = {"state_dict": state(), "config": Unknown(), "out": Path("runs"), "hyper": {"classes": ["a", "b"]}}
    torch.save(content, tmp_path / "w.pth")
    stored = open_weights(tmp_path / "w.pth")
    assert_same(stored.tensors, state())
    assert stored.class_names == {"hyper.classes": ("a", "b")}


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ({"class_names": ["a", "b"]}, {"class_names": ("a", "b")}),
        ({"class_to_idx": {"b": 0, "a": 1}}, {"class_to_idx": ("b", "a")}),
        ({"idx_to_class": {1: "b", 0: "a"}}, {"idx_to_class": ("a", "b")}),
        ({"id2label": {"0": "a", "1": "b"}}, {"id2label": ("a", "b")}),
        ({"idx_to_class": {0: "0", 1: "10", 2: "2", 3: "1"}}, {"idx_to_class": ("0", "10", "2", "1")}),
        ({"id2label": {"0": "2", "1": "0", "2": "1"}}, {"id2label": ("2", "0", "1")}),
        ({"class_to_idx": {"0": 0, "10": 1, "2": 2}}, {"class_to_idx": ("0", "10", "2")}),
        ({"labels": {"b": "0", "a": "1"}}, {"labels": ("b", "a")}),
        ({"args": argparse.Namespace(classes=("a", "b"))}, {"args.classes": ("a", "b")}),
        ({"meta": {"data": {"Label_Names": ["a"]}}}, {"meta.data.Label_Names": ("a",)}),
        # Names that cannot be used are empty, so that the reader can say so.
        (
            {"class_to_idx": {"a": 0, "b": 2}, "labels": [0, 1], "classes": 5, "names": []},
            {"class_to_idx": (), "labels": ()},
        ),
    ],
)
def test_class_names_beside_the_weights(
    tmp_path: Path, named: dict[str, Any], found: dict[str, tuple[str, ...]]
) -> None:
    torch.save({"state_dict": state(), **named}, tmp_path / "w.pth")
    assert open_weights(tmp_path / "w.pth").class_names == found


def test_what_has_no_state_dict_is_refused(tmp_path: Path) -> None:
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
        ("cut.pth", b"PK\x03\x04", "damaged or truncated"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, message)
    for mode, what in (("w", r"a tar archive with inception\.ckpt"), ("w:gz", "a gzip archive")):
        with tarfile.open(tmp_path / "v.tar", mode) as archive:
            archive.add(tmp_path / "text.h5", "inception.ckpt")
        refused(tmp_path / "v.tar", f"got {what}; unpack it")
    for member, what in (
        ("read.me", r"one of other content \(read\.me\)"),
        ("a/v3.pth", r"an archive with a/v3\.pth;"),
    ):
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as zipped:
            zipped.writestr(member, b"x")
        refused(tmp_path / "other.zip", rf"written by torch\.save or Keras, got {what}")


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


@pytest.mark.parametrize("zipped", [True, False])
def test_a_long_name_in_a_pickle_takes_no_time(zipped: bool, tmp_path: Path) -> None:
    """torch.load searches its own errors in quadratic time: of this name, for half a minute."""
    torch.save({"x": Unknown()}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    long = b"Unknown" * 2**13

    def changed(data: bytes) -> bytes:
        return data.replace(b"Unknown\n", long + b"\n")

    if zipped:
        with zipfile.ZipFile(tmp_path / "x.pth") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
            for name, data in members.items():
                archive.writestr(name, changed(data) if name.endswith(".pkl") else data)
    else:
        (tmp_path / "x.pth").write_bytes(changed((tmp_path / "x.pth").read_bytes()))
    began = time.process_time()
    refused(tmp_path / "x.pth", "state dict")
    assert time.process_time() - began < 5


def test_a_script_by_a_hidden_name_is_not_loaded(tmp_path: Path) -> None:
    """Torch finds members by itself: what it would take for a script is refused, whatever the list of members says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(nn.Linear(2, 3)).save(str(tmp_path / "m.pt"))
    with pytest.raises(ValueError, match="a TorchScript archive by a name that its list of members does not have"):
        unpickled(tmp_path / "m.pt", zipped=True)
