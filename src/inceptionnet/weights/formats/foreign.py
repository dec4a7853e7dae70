"""Files and folders that are no weights files: named for what they are, with what to do.

Sources: the first bytes that each format states (ONNX's and TensorFlow's protocol buffers, TFLite's and NumPy's magic
numbers, Git LFS's pointer), and the files that a folder of each kind has.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from inceptionnet.data.tar import is_tar, tar_members
from inceptionnet.errors import DataError, WeightsError, listed, one_line

ORIGINAL = "give the weights that it was made from"
WEIGHTS = re.compile(r"\.(pth|pt|ckpt|bin|h5|hdf5|keras|safetensors|npz|pkl|tar)$|\.index$", re.IGNORECASE)
"""Names of weights files."""
MOST_MEMBERS = 1000
"""Members of an archive that are looked at."""
FOLDERS: tuple[tuple[str, str, str], ...] = (
    ("adapter_config.json", "a PEFT (LoRA) adapter", "merge it into its base model and save that model's state dict"),
    (
        "saved_model.pb",
        "a TensorFlow SavedModel",
        "give the checkpoint or the .h5 or .keras file that it was made from",
    ),
    ("model.json", "a TensorFlow.js model", "give the Keras file that it was converted from"),
    ("Manifest.json", "a Core ML package", ORIGINAL),
    ("config.json", "a folder of a Hugging Face model without weights of this family", "give its weights file itself"),
)
"""By a file in it: what a folder is, and what to do."""


def of_folder(folder: Path) -> str:
    """What a folder without weights of a known kind is, and what to do; empty if it is none of the known kinds."""
    for name, what, remedy in FOLDERS:
        if (folder / name).exists():
            return f"got {what}, by its {name}; {remedy}"
    inside = sorted(path.name for path in folder.iterdir() if WEIGHTS.search(path.name))
    return f"got a folder with {listed(inside)}; give one of them" if inside else ""


def of_file(path: Path, head: bytes) -> str:
    """What a file of no readable format is by its first bytes (512 or all), and what to do.

    Empty if it is of no known kind.
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    low = text[:200].lower()
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"\nsize (\d+)", head)
        held = f" of a file of {int(size[1]):,} bytes" if size else ""
        return f"a Git LFS pointer{held}, not the file itself; run git lfs pull, or download the file from its page"
    if low.startswith((b"<!doctype html", b"<html")) or b"<html" in low:
        title = re.search(rb"<title>(.*?)</title>", head, re.IGNORECASE | re.DOTALL)
        named = f" ({one_line(title[1].decode('utf-8', 'replace'), 60)})" if title and title[1].strip() else ""
        return f"a web page{named} instead of the file; the download asked for a login or a confirmation: repeat it"
    if text.startswith(b"<"):
        return _xml(text)
    if text.startswith((b"{", b"[")):
        return _json(path, text)
    if head.startswith(b"\x93NUMPY"):
        return "a NumPy array (.npy); save all tensors by name with numpy.savez, or give the weights file"
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite model; {ORIGINAL}: the .h5, .keras or checkpoint"
    if head.startswith(b"\x1f\x8b"):
        return f"a gzip archive; unpack it (gunzip {path.name}) and give the file in it"
    if head[257:262] == b"ustar" or is_tar(head):
        return _tar(path)
    if head[:4] in (b"7z\xbc\xaf", b"Rar!") or head.startswith((b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "a compressed archive; unpack it and give the file in it"
    return _protobuf(path, head)


def of_zip(names: list[str]) -> str:
    """What a zip file is that neither torch nor Keras wrote, by the names in it, and what to do."""
    inside = [name for name in names if WEIGHTS.search(name)]
    if inside:
        return f"an archive with {one_line(listed(inside), 200)}; unpack it and give the weights file"
    if any(name.startswith("archive/models/") or name.endswith("serialized_exported_program.json") for name in names):
        return f"a program of torch.export (.pt2) that this package did not write; {ORIGINAL}"
    if any(name.endswith("Manifest.json") for name in names):
        return f"a Core ML package; {ORIGINAL}"
    return (
        f"one of other content ({one_line(listed(names, 3), 80) if names else 'empty'}); give the weights file itself"
    )


def refuse(path: Path, what: str) -> WeightsError:
    """The error for a file that is something else."""
    return WeightsError(f"{path}: expected a weights file, got {what}")


def _xml(text: bytes) -> str:
    if b"<net " in text:
        return f"an OpenVINO model (.xml) without this package's metadata; {ORIGINAL}"
    code = re.search(rb"<Code>(.*?)</Code>", text)
    named = f" ({one_line(code[1].decode('utf-8', 'replace'), 60)})" if code else ""
    return f"an XML answer{named}, of a server that refused the download; check the address and download it again"


def _json(path: Path, text: bytes) -> str:
    if b"layers-model" in text or b"weightsManifest" in text:
        return "a TensorFlow.js model (.json); give the Keras file that it was converted from"
    if b'"class_name"' in text:
        return "the architecture of a Keras model, without weights; give the .h5 or .keras file of its weights"
    if re.search(rb'"(error|message|detail|errors)"', text):
        return (
            f"an error message ({one_line(text.decode('utf-8', 'replace'), 100)}) of the server; check the address and "
            "download it again"
        )
    if b"weight_map" in text:
        return f"the index of a sharded file ({path.name}), without weights; give one file with all tensors"
    return "a JSON file, which has no weights; give the weights file beside it"


def _tar(path: Path) -> str:
    try:
        names = [name for name, _ in islice(tar_members(path), MOST_MEMBERS)]
    except (OSError, DataError):
        return "a tar archive, damaged or truncated; get the file again"
    if {"pickle", "storages", "tensors"} <= {*names}:
        return "a file of torch before 0.1.10 (tar); load it with torch.load and save its state dict again"
    inside = [name for name in names if WEIGHTS.search(name)] or names
    return f"a tar archive with {one_line(listed(inside), 200) or 'nothing'}; unpack it and give the weights file"


def _protobuf(path: Path, head: bytes) -> str:
    """Protocol buffers have no magic number: told by their first field, then by the name."""
    suffix = path.suffix.lower()
    if suffix == ".mlmodel":
        return f"a Core ML model; {ORIGINAL}"
    if suffix == ".onnx" or (head[:1] == b"\x08" and re.match(rb"\x08[\x01-\x20](\x12|:|B)", head)):
        producer = re.match(rb"\x08.\x12(.)", head, re.DOTALL)
        by = head[4 : 4 + producer[1][0]].decode("utf-8", "replace") if producer else ""
        return f"an ONNX model{f' of {one_line(by, 40)}' if by else ''} without this package's metadata; {ORIGINAL}"
    if suffix == ".caffemodel" or (head[:1] == b"\n" and b"Net" in head[2:40] and suffix != ".pb"):
        return "a Caffe model; convert it to a torch state dict of Cadene's bninception names, or give such a file"
    if suffix == ".pb" or (head[:1] == b"\n" and re.search(rb"\x12.(Placeholder|Const)", head, re.DOTALL)):
        return "a frozen TensorFlow graph (.pb), whose weights are constants; give the checkpoint that it was made from"
    if suffix == ".bin" and path.with_suffix(".xml").exists():
        return f"the data of an OpenVINO model; {ORIGINAL}"
    if suffix in (".engine", ".plan", ".trt"):
        return f"a TensorRT engine; {ORIGINAL}"
    return ""
