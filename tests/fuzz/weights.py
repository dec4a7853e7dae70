"""Targets: weights files of every format, exported networks."""

from __future__ import annotations

import base64
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any
from xml.sax.saxutils import quoteattr

import google_crc32c
import h5py
import numpy as np
import onnx
import torch
from safetensors.torch import load, save
from torch import nn

from inceptionnet import create_model, save_weights
from inceptionnet.engines.kinds import read_metadata
from inceptionnet.engines.sessions import RT_INFO
from inceptionnet.system.checksum import checksum
from inceptionnet.weights import read_weights
from inceptionnet.weights.formats.table import BrokenTable, Snappy, entries

from ..weights.test_formats import Unknown, state
from ..weights.test_keras_format import write_archive, write_legacy, write_native
from ..weights.test_tensorflow_format import DATA, FILES, VALUES, announced, entry, field, held, table
from .mutate import RAW, Mutation, odd_json, of_bytes, of_json, of_members, of_text
from .target import Attempt, Target

OPCODES = [bytes([code]) for code in b"(.0123FINLSUXcdehilopqrstu]a)}\x80\x81\x85\x86\x87\x88\x8a\x8b\x8c\x94\x95"]
GLOBALS = [b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cbuiltins\nint\n",
           b"ctorch\nSize\n", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f",
           b"c_codecs\nencode\n"]  # fmt: skip
IN_PICKLES = of_bytes([*OPCODES, *GLOBALS])
IN_HDF5 = of_bytes((b"GCOL\1\0\0\0", b"TREE", b"HEAP", b"SNOD", b"OHDR", b"FRHP", b"BTHD", b"OCHK", b"\xff" * 8))
IN_ARRAYS = of_bytes((b"\x93NUMPY\1\0", b"|O", b"<f8", b"'shape': ("))


def _model() -> nn.Module:
    return create_model("inception_v1.slim", width=0.125, input_size=32, num_classes=3).eval()


def _own(folder: Path) -> bytes:
    torch.manual_seed(0)
    save_weights(_model(), folder / "own", classes=("a", "b", "c"), provenance={"data": "x", "seed": 1})
    return (folder / "own").read_bytes()


def _weights(path: Path, attempt: Attempt) -> None:
    if found := attempt(read_weights, path):
        attempt(found.model)
        attempt(lambda: found.assumed)


def _safetensors(folder: Path) -> Mapping[str, bytes]:
    return {"own.safetensors": _own(folder), "x.safetensors": save(state(), {"by": "hand"}),
            "net.safetensors": save(_model().state_dict())}  # fmt: skip


def of_safetensors(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """The JSON at the start, and the JSON within it, with a checksum that fits or without one."""
    if chance.random() < 0.3:
        return RAW(chance, content, others)
    (size,) = struct.unpack("<Q", content[:8])
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    inner = header.get("__metadata__", {})
    if (key := next(iter(inner), "")) and chance.random() < 0.7:
        about = json.loads(inner[key]) if inner[key][:1] == "{" else {"format": 1}
        about.pop("checksum", None)
        inner[key] = odd_json(chance, about)
        try:
            about = json.loads(inner[key])
            about["checksum"] = checksum(json.dumps({"format": about.pop("format"), **about}), load(content))
            inner[key] = json.dumps(about) if chance.random() < 0.5 else inner[key]
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            pass
        text = json.dumps(header).encode()
    else:
        text = odd_json(chance, header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + rest


def _torch(folder: Path) -> Mapping[str, bytes]:
    file = folder / "x"
    model = nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.3), nn.BatchNorm1d(3, eps=0.1))
    things = {"state_dict": state(), "config": Unknown(), "hyper": {"classes": ["a", "b"]}, "epoch": 3}
    found = {}
    for name, content in {"state": state(), "things": things, "module": model, "net": _model().state_dict()}.items():
        for kind in ("zip", "old"):
            torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
            found[f"{name}.{kind}.pth"] = file.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(model).save(str(file))
    return found | {"script.zip.pt": file.read_bytes()}


def _keras(folder: Path) -> Mapping[str, bytes]:
    def written(write: Any) -> bytes:
        with h5py.File(folder / "h5", "w") as file:
            write(file)
        return (folder / "h5").read_bytes()

    def whole(file: Any) -> None:
        file.attrs["model_config"] = json.dumps(KERAS)
        file.attrs["training_config"] = json.dumps({"loss": "binary_crossentropy"})
        write_legacy(file.create_group("model_weights"))

    write_archive(folder / "keras", KERAS)
    return {"w.h5": written(write_legacy), "m.h5": written(whole), "m.weights.h5": written(write_native),
            "m.keras": (folder / "keras").read_bytes()}  # fmt: skip


KERAS: dict[str, Any] = {
    "class_name": "Functional",
    "config": {
        "name": "m",
        "layers": [
            {
                "class_name": kind,
                "config": {"name": name, **more},
                "name": name,
                "inbound_nodes": [[[before, 0, 0, {}]]] if before else [],
            }
            for kind, name, before, more in (
                ("InputLayer", "in", "", {"batch_input_shape": [None, 75, 75, 3]}),
                ("Rescaling", "scale", "in", {"scale": 1 / 127.5, "offset": -1}),
                ("Conv2D", "conv2d_7", "scale", {"filters": 4, "kernel_size": [3, 3], "strides": [2, 2]}),
                ("BatchNormalization", "bn", "conv2d_7", {"epsilon": 0.001, "momentum": 0.99}),
                ("GlobalAveragePooling2D", "pool", "bn", {}),
                ("Dropout", "drop", "pool", {"rate": 0.2}),
                ("Dense", "predictions", "drop", {"units": 5, "activation": "softmax"}),
            )
        ],
        "input_layers": [["in", 0, 0]],
        "output_layers": [["predictions", 0, 0]],
    },
}


def _tensorflow(folder: Path) -> Mapping[str, bytes]:
    files = {name: zlib.decompress(base64.b85decode(content)) for name, content in FILES.items() if name != DATA}
    return files | {
        "m.index": table({b"": field(1, 1), b"v": entry(), b"w": entry()}),
        "m.ckpt": table({b"": field(1, announced()), b"w": held()}),
    }


def _tensorflow_data(folder: Path) -> None:
    (folder / DATA).write_bytes(zlib.decompress(base64.b85decode(FILES[DATA])))
    (folder / "m.data-00000-of-00001").write_bytes(VALUES)


def of_table(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Entries of a table, whose checksums fit; sometimes any bytes."""
    if chance.random() < 0.3:
        return RAW(chance, content, others)
    try:
        held = {
            key: bytes(value) for key, value in entries(memoryview(content), lambda d: google_crc32c.value(bytes(d)))
        }
    except (BrokenTable, Snappy):
        return RAW(chance, content, others)
    key = chance.choice(list(held))
    value = RAW(chance, held[key], list(held.values()))[:10_000]
    held[RAW(chance, key, [])[:200] if chance.random() < 0.2 else key] = value
    return table(dict(sorted(held.items())))


def _numpy(folder: Path) -> Mapping[str, bytes]:
    np.savez(folder / "a.npz", **{name: tensor.numpy() for name, tensor in state().items()})
    np.savez_compressed(folder / "b.npz", a=np.arange(6.0), b=np.ones((2, 3), ">f2"))
    return {name: (folder / name).read_bytes() for name in ("a.npz", "b.npz")}


def _exports(folder: Path) -> Mapping[str, bytes]:
    (folder / "own.safetensors").write_bytes(_own(folder))
    about = read_metadata(folder / "own.safetensors") | {"source": "own", "version": "1"}
    texts = {key: json.dumps(value) for key, value in about.items()}
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, texts)
    net = onnx.load_from_string(model.SerializeToString()).SerializeToString(deterministic=True)
    inside = "".join(f"<{key} value={quoteattr(text)}/>" for key, text in texts.items())
    xml = f'<?xml version="1.0"?><net name="m" version="11"><rt_info><{RT_INFO}>{inside}</{RT_INFO}></rt_info></net>'
    bomb = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 9))
    entities = f'<!DOCTYPE net [<!ENTITY e0 "xxxxxxxxxx">{bomb}]>' + xml[21:].replace('"own"', "&e8;")
    with zipfile.ZipFile(folder / "pt2", "w") as archive:
        for key, text in texts.items():
            archive.writestr(zipfile.ZipInfo(f"m/extra/{key}"), text)
    return {"m.onnx": net, "m.xml": xml.encode(), "e.xml": entities.encode(), "m.pt2": (folder / "pt2").read_bytes()}


def in_export(name: str) -> Mutation:
    if name.endswith(".pt2"):
        return of_members(lambda _: of_json, stored=False)
    return of_text if name.endswith(".xml") else of_onnx


def of_onnx(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Texts in it of other values, and any bytes."""
    if chance.random() < 0.4:
        return RAW(chance, content, others)
    model = onnx.load_from_string(content)
    one = chance.choice(list(model.metadata_props))
    text = of_json(chance, one.value.encode(), []).decode("utf-8", "replace")
    one.value = text
    if chance.random() < 0.2:
        model.metadata_props.append(one)
    return bytes(model.SerializeToString(deterministic=True))


def in_torch(name: str) -> Mutation:
    if ".zip." not in name:
        return IN_PICKLES
    return of_members(lambda member: IN_PICKLES if member.endswith(".pkl") else RAW, stored=True)


def in_keras(name: str) -> Mutation:
    if not name.endswith(".keras"):
        return IN_HDF5
    return of_members(lambda member: of_json if member.endswith(".json") else IN_HDF5, stored=True)


def in_tensorflow(name: str) -> Mutation:
    return of_table


TARGETS = [
    Target("safetensors", _safetensors, lambda _: of_safetensors, _weights, 80),
    Target("torch", _torch, in_torch, _weights, 70),
    Target("keras", _keras, in_keras, _weights, 100),
    Target("tensorflow", _tensorflow, in_tensorflow, _weights, 200, _tensorflow_data),
    Target("numpy", _numpy, lambda _: of_members(lambda _: IN_ARRAYS, stored=False), _weights, 200),
    Target("exports", _exports, in_export, lambda path, attempt: attempt(read_metadata, path), 200),
]  # fmt: skip
