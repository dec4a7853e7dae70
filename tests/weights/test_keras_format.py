"""Keras's weights files, written here by h5py alone in each of the layouts that Keras has had."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from inceptionnet import load_model
from inceptionnet.errors import MissingExtraError, WeightsError
from inceptionnet.weights.formats import open_weights

from .damage import damages
from .test_formats import refused

RNG = np.random.default_rng(0)
CONV = {"conv2d_7/kernel": RNG.normal(size=(3, 3, 2, 4)).astype("f4")}
NORM = {f"bn/{name}": RNG.normal(size=4).astype("f4") for name in ("beta", "moving_mean", "moving_variance")}
DENSE = {
    f"predictions/{name}": RNG.normal(size=shape).astype("f4") for name, shape in (("kernel", (4, 5)), ("bias", 5))
}
ALL = CONV | NORM | DENSE


def assert_holds(path: Path, expected: Mapping[str, np.ndarray]) -> None:
    found = open_weights(path).tensors
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name].numpy(), values) and found[name].numpy().dtype == values.dtype


def write_legacy(group: Any, suffix: str = ":0", **options: Any) -> None:
    """The layout of Keras 1 to 3's .h5: a group for each layer, in it the variables by their own paths."""
    layers = list(dict.fromkeys(name.split("/")[0] for name in ALL))
    group.attrs["layer_names"] = [layer.encode() for layer in layers]
    for layer in layers:
        mine = {name: values for name, values in ALL.items() if name.startswith(f"{layer}/")}
        inside = group.create_group(layer)
        inside.attrs["weight_names"] = [f"{name}{suffix}".encode() for name in mine]
        for name, values in mine.items():
            inside.create_dataset(name + suffix, data=values, **options)


def write_native(file: Any, named: bool = True) -> None:
    """The layout of Keras 3's .weights.h5: numbered variables, and since 3.6 the layer's name beside them."""
    for path, name in (("conv2d", "conv2d_7"), ("batch_normalization", "bn"), ("dense", "predictions"), ("re_lu", "r")):
        group = file.create_group(f"layers/{path}/vars")
        if named:
            group.attrs["name"] = np.bytes_(name)
        for i, key in enumerate(key for key in ALL if key.startswith(f"{name}/")):
            group[str(i)] = ALL[key]


def test_weights_and_whole_models(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        write_legacy(file)
    assert_holds(tmp_path / "weights.h5", ALL)
    with h5py.File(tmp_path / "model.bin", "w") as file:
        write_legacy(file.create_group("model_weights"), suffix="")
        file.create_group("optimizer_weights")["bn/kernel"] = np.ones(3)
    assert_holds(tmp_path / "model.bin", ALL)
    stored = open_weights(tmp_path / "model.bin")
    assert (stored.format, stored.dropped) == ("Keras", {"optimizer_weights": "optimiser state"})
    with h5py.File(tmp_path / "pieces.h5", "w") as file:
        write_legacy(file, chunks=True)
    assert_holds(tmp_path / "pieces.h5", ALL)
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        write_legacy(file, compression="gzip")
    refused(tmp_path / "packed.h5", r":0: expected uncompressed values, got compressed ones; run h5repack -f NONE")


def test_nested_models_are_flattened_and_long_lists_of_layers_known(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names0"] = [b"inception_v3"]
        file.attrs["layer_names1"] = [b"dense"]
        file["inception_v3/conv2d_7/kernel:0"] = CONV["conv2d_7/kernel"]
        file["dense/sequential/dense/bias:0"] = np.ones(5)
        file["dense/sequential/dense/seed_generator_state:0"] = np.array([1, 2], "u4")
        file["top_level_model_weights/scale:0"] = np.ones(5)
    assert_holds(path, {"conv2d_7/kernel": CONV["conv2d_7/kernel"], "dense/bias": np.ones(5)})
    assert open_weights(path).dropped == {
        "dense/seed_generator_state": "not floating point",
        "top_level_model_weights": "not part of a layer",
    }


def test_numbered_variables_get_their_names(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        write_native(file)
        file["optimizer/vars/0"] = np.ones(2)
        file["layers/dropout/seed_generator/vars/0"] = np.array([1, 2], "u4")
        for i in range(4):
            file[f"layers/functional/layers/batch_normalization_1/vars/{i}"] = np.full(2, i, "f8")
        file["layers/functional/layers/batch_normalization_1/vars"].attrs["name"] = "inner"  # a text in a heap
    inner = {
        f"inner/{n}": np.full(2, i, "f8") for i, n in enumerate(("gamma", "beta", "moving_mean", "moving_variance"))
    }
    assert_holds(path, ALL | inner)
    assert open_weights(path).dropped == {
        "optimizer": "optimiser state",
        "layers/dropout/seed_generator": "1 variables of a seed_generator, of unknown names",
    }


def test_half_precision_of_both_kinds_and_the_high_byte_first(tmp_path: Path) -> None:
    bits = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = np.bytes_("d")
        group["0"] = np.array([[1.5]], ">f4")
        group["1"] = bits.view(torch.int16).numpy().view("V2")
        group["1"].attrs["dtype"] = np.bytes_("bfloat16")
    found = open_weights(tmp_path / "m.weights.h5").tensors
    assert torch.equal(found["d/bias"], bits) and torch.equal(found["d/kernel"], torch.tensor([[1.5]]))


LAYERS = (("Conv2D", "conv2d_7"), ("BatchNormalization", "bn"), ("Add", "plus"), ("Dense", "predictions"))
CONFIG = {
    "class_name": "Functional",
    "config": {"layers": [{"class_name": c, "config": {"name": n}} for c, n in LAYERS]},
}


def write_archive(
    path: Path, config: object = CONFIG, compression: int = zipfile.ZIP_STORED, extra: bytes = b""
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive, io.BytesIO() as unpacked:
        with h5py.File(unpacked, "w") as file:
            write_native(file, named=False)
        archive.writestr("metadata.json", b"{}")
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", unpacked.getvalue() + extra)


PLACES = {"conv2d_7": "conv2d@0", "bn": "batch_normalization@0", "predictions": "dense@0"}
NAMELESS = {
    f"{PLACES[layer]}/{variable}": ALL[f"{layer}/{variable}"] for layer, variable in (n.split("/") for n in ALL)
}


def test_an_archive_without_names_gets_them_from_the_configuration(tmp_path: Path) -> None:
    write_archive(tmp_path / "m.keras")
    assert_holds(tmp_path / "m.keras", ALL)
    write_archive(tmp_path / "m.keras", compression=zipfile.ZIP_DEFLATED)
    assert_holds(tmp_path / "m.keras", ALL)
    for config in ({}, [], {"config": {"layers": [1, {"class_name": "Dense", "config": {"name": 3}}]}}):
        write_archive(tmp_path / "m.keras", config)
        assert_holds(tmp_path / "m.keras", NAMELESS)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        write_native(file, named=False)
    assert_holds(tmp_path / "m.weights.h5", NAMELESS)


def test_layers_of_shapes_that_the_network_has_not(tmp_path: Path) -> None:
    """All of InceptionV3's layers, one value each."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for i in range(94):
            file[f"conv2d_{i}/conv2d_{i}/kernel:0"] = np.ones((1, 1, 1, 1), "f4")
            for variable in ("beta", "moving_mean", "moving_variance"):
                file[f"batch_normalization_{i}/batch_normalization_{i}/{variable}:0"] = np.ones(1, "f4")
        file.attrs["layer_names"] = []
    message = r"does not fit inception_v3 as configured; of another shape: body\.conv_1a\.bn\.bias \(1,\) for \(32,\), "
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(tmp_path / "m.h5")
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).endswith("more")


def test_bombs_are_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "m.keras", compression=zipfile.ZIP_DEFLATED, extra=bytes(2**24))
    assert (tmp_path / "m.keras").stat().st_size < 2**15
    refused(tmp_path / "m.keras", r"got model\.weights\.h5 that unpacks from \d+ to 16\d+ bytes; get")
    path = tmp_path / "w.h5"
    for options in ({"chunks": (2**10,)}, {}):
        for size, message in (
            (2**40, r"kernel:0: shape \(1099511627776,\) exceeds the size of the file"),
            (2**10, r"damaged or truncated \(/dense/dense/kernel:0 is incomplete\)"),
        ):
            with h5py.File(path, "w") as file:
                file.attrs["layer_names"] = [b"dense"]
                file.attrs["filler"] = np.bytes_(b"x" * 2**13)
                file.create_dataset("dense/dense/kernel:0", (size,), "f4", fillvalue=1, **options)
            refused(path, message)


def outside(folder: Path) -> str:
    with h5py.File(folder / "other.h5", "w") as file:
        file["dense/kernel"] = np.ones(4, "f4")
    (folder / "raw").write_bytes(bytes(16))
    return str(folder / "other.h5")


def external_link(file: Any, folder: Path) -> None:
    file["dense/dense"] = h5py.ExternalLink(outside(folder), "/dense")


def soft_link(file: Any, folder: Path) -> None:
    file["dense/kernel"] = h5py.SoftLink("/elsewhere")


def virtual(file: Any, folder: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(outside(folder), "dense/kernel", (4,))
    file.create_virtual_dataset("dense/dense/kernel", layout)


def external_storage(file: Any, folder: Path) -> None:
    outside(folder)
    file.create_dataset("dense/dense/kernel", (4,), "f4", external=[(str(folder / "raw"), 0, 16)])


def text_values(file: Any, folder: Path) -> None:
    file["dense/dense/kernel"] = ["a", "b"]


def records(file: Any, folder: Path) -> None:
    file["dense/dense/kernel"] = np.zeros(3, "f4,f4")


def complex_values(file: Any, folder: Path) -> None:
    file["dense/dense/kernel"] = np.zeros(3, "c8")


def no_values(file: Any, folder: Path) -> None:
    file["dense/dense/kernel"] = h5py.Empty("f4")


def twice(file: Any, folder: Path) -> None:
    file["dense/dense/kernel"] = file["inner/dense/kernel"] = np.ones(4, "f4")


def endless(file: Any, folder: Path) -> None:
    file["dense/dense/again"] = file["dense"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (external_link, r"got a link \(ExternalLink\) at /dense/dense; save .* without links"),
        (soft_link, r"got a link \(SoftLink\) at .*/dense/kernel"),
        (virtual, r"/dense/dense/kernel: .* got a reference to other files; save one file"),
        (external_storage, r"/dense/dense/kernel: .* got a reference to other files"),
        (text_values, r"expected numbers, got type object; save the weights as float32"),
        (records, r"expected numbers, got type \["),
        (complex_values, r"expected numbers, got type complex64"),
        (no_values, r"/dense/dense/kernel has no values"),
        (twice, r"got two variables dense/kernel"),
        (endless, r"expected an HDF5 file with a Keras model's variables, got one with dense"),
    ],
)
def test_what_is_not_plain_numbers_in_the_file_is_refused(
    tmp_path: Path, write: Callable[[Any, Path], None], message: str
) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense")
        write(file, tmp_path)
    refused(tmp_path / "w.h5", message)


def test_heaps_that_lie_are_refused(tmp_path: Path) -> None:
    """HDF5 itself would set aside what they say they hold, or search them for ever."""
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        write_native(file)
        file["layers/conv2d/vars"].attrs["name"] = "in a heap"
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    for place, value in ((heap + 8, 2**40), (heap + 8, 2**9), (heap + 24, 2**40), (heap + 24, 0)):
        path.write_bytes(content[:place] + value.to_bytes(8, "little") + content[place + 8 :])
        refused(path, "damaged or truncated .the heap at")


def test_hdf5_by_others_and_h5py_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    refused(path, r"expected an HDF5 file with a Keras model's variables, got one with images")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(
        MissingExtraError, match=r"data\.h5: reading Keras weights needs h5py; .*inceptionnet\[weights\]"
    ):
        open_weights(path)


@pytest.mark.parametrize("kind", ["legacy", "pieces", "native", "archive"])
def test_damaged_files_are_refused_or_come_in_with_their_shapes(tmp_path: Path, kind: str) -> None:
    """Cuts are always found. HDF5 has no checksums, so altered values cannot be; in an archive they are."""
    path = tmp_path / "w"
    if kind == "archive":
        write_archive(path)
    else:
        with h5py.File(path, "w") as file:
            if kind == "native":
                write_native(file)
            else:
                write_legacy(file, **({"chunks": True} if kind == "pieces" else {}))
    shapes = {values.shape for values in ALL.values()}
    for cut in damages(path):
        try:
            found = open_weights(path).tensors
        except WeightsError as error:
            assert "\n" not in str(error)
            continue
        assert not cut
        if kind == "archive":
            assert_holds(path, ALL)
        assert {tuple(tensor.shape) for tensor in found.values()} <= shapes
