"""TensorFlow's checkpoints, read without it: small ones that TensorFlow wrote, and tables written here."""

from __future__ import annotations

import base64
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch

from inceptionnet.errors import MissingExtraError, WeightsError
from inceptionnet.weights.formats import open_weights

from .damage import damages
from .test_formats import refused

# Written by TensorFlow 2.21: tf.compat.v1.train.Saver with write_version 1 and 2, of the variables in EXPECTED (the
# weights eight times as large, EXPECTED being their ExponentialMovingAverage), of Net/Conv/weights/RMSProp and of
# global_step; then packed by zlib and base 85.
FILES = {
    "v1.ckpt": (
        "c-muN=wjk(XX29O;`d7}(Ra?zE7MQPOe{_<7Ge=%;$W6wRAS;{;4<J6fJ>LBW~OJ96blIe<r#sP35r2#Ie=;*(349OU5CDFML~XEYF<fZVvc"
        "WqS!Q0kV_9lZVtOh8qb#^2FpLWF4Gt*EFCd^(jEe)LGb1r44eT8z31P5zgt@rWbMliCbK;9jQVWC_Bsi5AKn5|0sWYGj0|O%?V?(`=DrWcq4"
        "U*#1;$dK5uxDU6updY}a0v%N9SGFM(ohe9LIGGp5AH}QBP|04Flev`nE^yV+yKN2fcO9qKLBC|M+OD~AXWfk14lvCY@C6KVsj=bv4F)%40b@"
        "L0Pz7kh&L60*a3(W>><vb0K^M`c!Rx=a1=C7P#h3}C+^VfYp^E;vvNs-q7@oF;z$t<iWl}Q)`p6P24+S+F{FrQU}O*yL5q4R<{(CPkWU#wMD"
        "b7UUO4B#r-d6B7?~Lv`q<!NYiC~Un9RnpfQ_GlAPE26(5+JHej5NTQo0!"
    ),
    "v2.ckpt.data-00000-of-00001": (
        "c-muNV6bOkIIy3Afx&?R3>xeqYzH820OAEed;o|afaDz+7zBV=0f-G8A?g|Ifa-ww01$)BQUGEHAWpD{m^A^27Xa}FD4zsu!*GBdY6$=z8yTw"
    ),
    "v2.ckpt.index": (
        "c-muNVB=tvV&Y(A;OF;CEzx(*&nweU%1kUyE#_bpVi98EVAkL<mFE0w#K|sOo|>7SQ38?>07@_dF%uLsEAVI-m|kBNdPhJ~R^PRvAU`iPuOu"
        "@u$2Y$$GcVn-EVU>xJr%1)8=%Ir%fftu?6N_=!2w121z45k0F`AN$?9cc5z0u+N#hU(JB~?V4x<K(>Ahr*Rt9dq^ql;p#GLrzlGFkYP9X+`1"
        "&kUTrn|4t7i0heMiBA-W1}^kbKuj$4GfIT84T|j;bL)17aDwK<Y-{xXCMf|e>Zfil)B#r0O(CVYX"
    ),
}
EXPECTED = {
    "Net/Conv/weights": torch.arange(12.0).reshape(1, 2, 2, 3) / 8,
    "Net/Conv/biases": torch.tensor([0.5, -1.5, 2.0]),
    "Net/half": torch.tensor([1.0, -2.0], dtype=torch.float16),
}
DROPPED = {
    "Net/Conv/weights": "averaged weights used instead",
    "Net/Conv/weights/RMSProp": "optimiser state",
    "global_step": "count of training steps",
}
DATA, INDEX = "v2.ckpt.data-00000-of-00001", "v2.ckpt.index"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(zlib.decompress(base64.b85decode(content)))
    return tmp_path


def assert_holds(path: Path) -> None:
    found = open_weights(path).tensors
    assert found.keys() == EXPECTED.keys()
    assert all(found[n].dtype == t.dtype and torch.equal(found[n], t) for n, t in EXPECTED.items())


@pytest.mark.parametrize("name", ["v1.ckpt", "v2.ckpt", INDEX, DATA])
def test_both_versions_by_all_of_their_names(folder: Path, name: str) -> None:
    stored = open_weights(folder / name)
    assert (stored.path, stored.format, stored.metadata) == (folder / name, "TensorFlow checkpoint", {})
    assert stored.dropped == DROPPED
    assert stored.notes == ("moving averages (ExponentialMovingAverage) of 1 variables used",)
    assert_holds(folder / name)
    for tensor in stored.tensors.values():
        tensor.zero_()
    assert_holds(folder / name)


def test_a_folder_with_one_checkpoint_or_one_named(folder: Path) -> None:
    refused(folder, r"a folder with one TensorFlow checkpoint, got 2 \(v1\.ckpt, v2\.ckpt\); give one")
    state = folder / "checkpoint"
    state.write_text('model_checkpoint_path: "/where/it/was/v2.ckpt"\nall_model_checkpoint_paths: "v1.ckpt"\n')
    assert_holds(folder)
    state.write_text('model_checkpoint_path: "."\n')
    refused(folder, "got 2")
    state.unlink()
    (folder / "v1.ckpt").unlink()
    assert_holds(folder)


def test_what_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / DATA).rename(folder / "elsewhere")
    refused(folder / "v2.ckpt", rf"expected {DATA} next to the index, got none; get all files")
    refused(folder / DATA, "no such file|expected v2")
    (folder / "elsewhere").rename(folder / DATA)
    (folder / INDEX).unlink()
    refused(folder / DATA, r"expected v2\.ckpt\.index next to it, got none; get both files of the checkpoint")
    refused(folder / "v2.ckpt", "no such file")
    (folder / "v1.ckpt").rename(folder / "v1.ckpt-00000-of-00002")
    refused(folder / "v1.ckpt", r"expected v1\.ckpt-00001-of-00002 next to v1\.ckpt-00000-of-00002, got none")
    (folder / "v1.ckpt-00000-of-00002").rename(folder / "v1.ckpt-00000-of-00001")
    assert_holds(folder / "v1.ckpt")
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(MissingExtraError, match=r"needs google-crc32c; .*inceptionnet\[weights\]"):
        open_weights(folder / "v1.ckpt")


@pytest.mark.parametrize("name", ["v1.ckpt", INDEX, DATA])
def test_damage_is_always_found(folder: Path, name: str) -> None:
    """Everything that is read has a checksum: an altered file is refused, or the bytes were of no account."""
    refusals = 0
    for cut in damages(folder / name):
        try:
            assert_holds(folder / name)
        except WeightsError as error:
            assert "\n" not in str(error)
            refusals += 1
        else:
            # The optimiser's slot is in the data file, after the weights that it belongs to: a cut may be behind all.
            assert not cut or name == DATA
    assert refusals > 150


def test_wrong_values_are_laid_to_their_tensor(folder: Path) -> None:
    content = (folder / DATA).read_bytes()
    place = content.index(EXPECTED["Net/Conv/biases"].numpy().tobytes())
    (folder / DATA).write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    refused(folder / "v2.ckpt", r"the checksum of Net/Conv/biases does not match")
    (folder / DATA).write_bytes(content[:place])
    refused(folder / "v2.ckpt", r"Net/Conv/biases exceeds its data file")
    (folder / DATA).write_bytes(b"")
    refused(folder / "v2.ckpt", r"exceeds its data file")


def number(value: int) -> bytes:
    """A number of variable length."""
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(tag: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return number(tag << 3) + number(value)
    return number(tag << 3 | 2) + number(len(value)) + value


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def table(entries: dict[bytes, bytes], compression: int = 0, head: bytes | None = None) -> bytes:
    """A table of one block without shared keys; `head` overrides the start of its first entry."""

    def block(items: dict[bytes, bytes], kind: int = 0) -> bytes:
        body = b"".join(b"\0" + number(len(k)) + number(len(v)) + k + v for k, v in items.items())
        if head is not None and items is entries:
            body = head + body[len(head) :]
        body += struct.pack("<II", 0, 1) + bytes([kind])
        return body + masked(body)

    first = block(entries, compression)
    index = block({b"z": number(0) + number(len(first) - 5)})
    footer = number(0) * 2 + number(len(first)) + number(len(index) - 5)
    return first + index + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


VALUES = np.arange(6, dtype="<f4").tobytes()
SHAPE = b"".join(field(2, field(1, size)) for size in (2, 3))


def entry(
    kind: int = 1, shape: bytes = SHAPE, shard: int = 0, offset: int = 0, size: int = 24, more: bytes = b""
) -> bytes:
    places = field(3, shard) + field(4, offset) + field(5, size)
    return field(1, kind) + field(2, shape) + places + number(6 << 3 | 5) + masked(VALUES) + more


def test_a_table_written_here_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.data-00000-of-00001").write_bytes(VALUES)
    (tmp_path / "m.index").write_bytes(table({b"": field(1, 1), b"w": entry()}))
    assert torch.equal(open_weights(tmp_path / "m").tensors["w"], torch.arange(6.0).reshape(2, 3))


BIG = 2**62


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda: table({b"": field(1, 1), b"w": entry(size=BIG)}), "w exceeds its data file"),
        (lambda: table({b"": field(1, 1), b"w": entry(offset=BIG)}), "w exceeds its data file"),
        (lambda: table({b"": field(1, 1), b"w": entry(offset=2)}), "w exceeds its data file"),
        (lambda: table({b"": field(1, 1), b"w": entry(shape=field(2, field(1, BIG)))}), r"w of shape .* has 24 bytes"),
        (lambda: table({b"": field(1, 1), b"w": entry(shape=field(2, 5))}), "a number where a message is expected"),
        (lambda: table({b"": field(1, 1), b"w": entry(kind=2)}), r"w of shape \(2, 3\) has 24 bytes"),
        (lambda: table({b"": field(1, 1), b"w": entry(shard=3)}), r"expected m\.data-00003-of-00001 next to the index"),
        (
            lambda: table({b"": field(1, 1), b"w": entry(more=field(7, b""))}),
            r"got the partitioned variable w; save",
        ),
        (lambda: table({b"": field(1, 1), b"w": entry(more=b"\x0b")}), "a field of wire type 3"),
        (lambda: table({b"": field(1, 1), b"w": entry()[:-1]}), "a field exceeds its message"),
        (lambda: table({b"": field(1, 1), b"w": b"\xff" * 12}), "an unterminated integer"),
        (lambda: table({b"": field(1, 1), b"\xff": entry()}), "utf-8"),
        (lambda: table({b"": field(1, 1), b"n": entry(kind=9)}), "without floating-point variables"),
        (lambda: table({b"": field(1, BIG), b"w": entry()}), "no header with the number of data files"),
        (lambda: table({b"w": entry()}), "no header with the number of data files"),
        (lambda: table({}), "no header with the number of data files"),
        (
            lambda: table({b"": field(1, 1) + field(2, 1), b"w": entry()}),
            "expected little-endian values, got big-endian",
        ),
        (lambda: table({b"": field(1, 1), b"w": entry()}, compression=1), "got one compressed with Snappy; save it"),
        (lambda: table({b"": field(1, 1), b"w": entry(), b"v": entry()}), "keys out of order"),
        (lambda: table({b"": field(1, 1)}, head=b"\x05"), "an entry exceeds the block at 0"),
        (lambda: table({b"": field(1, 1)}, head=b"\0\x7f"), "an entry exceeds the block at 0"),
        (lambda: table({b"": field(1, 1), b"w" * 2000: entry()}), "an entry exceeds the block at 0"),
        (lambda: table({})[:-48] + b"\xff" * 9 + table({})[-39:], "an unterminated integer|a block at"),
        (lambda: b"", "no table footer at the end"),
        (
            lambda: table({b"": field(1, 1), b"layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE": entry()}),
            r"got one of Keras objects; save it in Keras as \.keras or \.h5",
        ),
    ],
)
def test_what_a_table_declares_is_checked(tmp_path: Path, write: Callable[[], bytes], message: str) -> None:
    (tmp_path / "m.data-00000-of-00001").write_bytes(VALUES)
    (tmp_path / "m.index").write_bytes(write())
    refused(tmp_path / "m", message)


def announced(name: bytes = b"w", slices: tuple[bytes, ...] = (field(1, b"") * 2,)) -> bytes:
    return field(1, field(1, name) + field(2, SHAPE) + field(3, 1) + b"".join(field(4, s) for s in slices))


def held(name: bytes = b"w", values: bytes = VALUES) -> bytes:
    return field(2, field(1, name) + field(3, field(5, values)))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({b"": field(1, announced()), b"w": held(values=VALUES[:-4])}, r"w of shape \(2, 3\) has 20 bytes"),
        ({b"": field(1, announced())}, "w is listed but missing"),
        ({b"": field(1, announced()), b"v": held(b"v"), b"w": held()}, "2 variables, 1 of them listed"),
        ({b"": field(1, announced(slices=(b"", b""))), b"w": held()}, r"got the partitioned variable w"),
        ({b"": field(1, announced(slices=(field(1, field(2, 1)),))), b"w": held()}, r"got the partitioned variable w"),
        ({b"": field(1, announced()), b"w": field(2, 4)}, "a number where a message is expected"),
        (
            {b"": field(1, field(1, field(1, b"w") + field(3, b"") + field(4, b""))), b"w": held()},
            "a message where a n",
        ),
    ],
)
def test_what_an_old_table_declares_is_checked(tmp_path: Path, entries: dict[bytes, bytes], message: str) -> None:
    (tmp_path / "m.ckpt").write_bytes(table({b"": field(1, announced()), b"w": held()}))
    assert torch.equal(open_weights(tmp_path / "m.ckpt").tensors["w"], torch.arange(6.0).reshape(2, 3))
    (tmp_path / "m.ckpt").write_bytes(table(entries))
    refused(tmp_path / "m.ckpt", message)
