"""Files and folders that are no weights files are named for what they are, with what to do."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from inceptionnet.errors import WeightsError
from inceptionnet.weights import read_weights
from inceptionnet.weights.formats import open_weights

FILES = {
    "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 108949747\n",
                "a Git LFS pointer of a file of 108,949,747 bytes, .* run git lfs pull"),
    "page.h5": (b"\n<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>",
                r"a web page \(Virus scan warning\) instead of the file"),
    "plain.pth": (b"<HTML><body>403</body></HTML>", "a web page instead of the file"),
    "answer.pth": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", r"an XML answer \(AccessDenied\)"),
    "error.safetensors": (b'{"error": "Repository not found"}', "an error message .*Repository not found"),
    "model.json": (b'{"format": "layers-model", "weightsManifest": []}', r"a TensorFlow\.js model"),
    "m.json": (b'{"class_name": "Functional", "config": {}}', "the architecture of a Keras model, without weights"),
    "m.safetensors.index.json": (b'{"weight_map": {}}', "the index of a sharded file"),
    "net.xml": (b'<?xml version="1.0"?>\n<net name="m" version="11"><layers/></net>', "an OpenVINO model"),
    "m.onnx": (b"\x08\x08\x12\x07pytorch\x1a\x032.1", "an ONNX model of pytorch"),
    "renamed.bin": (b"\x08\x08\x12\x07pytorch\x1a\x032.1", "an ONNX model of pytorch"),
    "m.tflite": (b"\x1c\0\0\0TFL3" + bytes(100), "a TensorFlow Lite model"),
    "frozen.pb": (b"\n\x20\n\x05input\x12\x0bPlaceholder", r"a frozen TensorFlow graph \(\.pb\)"),
    "w.caffemodel": (b"\n\x09GoogLeNet" + bytes(64), "a Caffe model"),
    "m.mlmodel": (b"\x08\x04\x12\x10", "a Core ML model"),
    "m.npy": (b"\x93NUMPY\x01\x00", r"a NumPy array \(\.npy\)"),
    "m.pth.gz": (gzip.compress(b"x"), r"a gzip archive; unpack it \(gunzip m\.pth\.gz\)"),
    "none.pth": (b"", "an empty file"),
}  # fmt: skip
FOLDERS = {
    "adapter_config.json": r"a PEFT \(LoRA\) adapter, by its adapter_config\.json; merge it",
    "saved_model.pb": "a TensorFlow SavedModel",
    "model.json": r"a TensorFlow\.js model",
    "Manifest.json": "a Core ML package",
    "config.json": "a folder of a Hugging Face model without weights",
    "inception.pth": r"a folder with inception\.pth; give one of them",
}


def refused(path: Path, message: str) -> None:
    for read in (open_weights, read_weights):
        with pytest.raises(WeightsError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path: Path, name: str) -> None:
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, f"expected a weights file, got {message}")


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{}")
    refused(tmp_path, f"got {FOLDERS[name]}")


def test_arrays_by_name_are_read_and_pickled_ones_are_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2)})
    assert {name: tuple(t.shape) for name, t in open_weights(tmp_path / "w.npz").tensors.items()} == {
        "fc.weight": (2, 3), "fc.bias": (2,),
    }  # fmt: skip
    np.savez(tmp_path / "p.npz", w=np.array([{"a": 1}], dtype=object))
    refused(tmp_path / "p.npz", "expected arrays of numbers, got pickled objects")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:-30])
    refused(tmp_path / "cut.npz", "damaged or truncated")


def test_a_program_of_torch_export(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("archive/models/model.json", b"{}")
    refused(tmp_path / "m.pt2", r"a program of torch\.export")
