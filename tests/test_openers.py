"""Whatever is opened is a regular file of a sane size: pipes, devices, huge and hostile files are refused at once."""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import random
import signal
import socket
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from inceptionnet import create_model
from inceptionnet.data import archives, features, inputs, limits, time_limit
from inceptionnet.data.archives import list_tar, list_zip
from inceptionnet.data.class_names import ClassNames
from inceptionnet.data.containers import list_folder
from inceptionnet.data.decode import read_image
from inceptionnet.data.flat import metadata_of, read_labels
from inceptionnet.data.inputs import find_images
from inceptionnet.data.matching import read_exclude_list
from inceptionnet.data.names import MAX_DEPTH, MAX_NAME
from inceptionnet.data.parquet import read_images
from inceptionnet.data.sources import open_source
from inceptionnet.data.tar import HEADER_BYTES, MOST_HEADERS, TarReader, tar_members
from inceptionnet.engines.kinds import read_metadata
from inceptionnet.errors import DataError, DecodeError, InceptionNetError, WeightsError
from inceptionnet.study.spec import read_study
from inceptionnet.system import opening, parquet_files, parquet_footer, zips
from inceptionnet.system.opening import UnfitFile, contents
from inceptionnet.train.run import Run
from inceptionnet.weights import convert, native, read_weights, save_weights
from inceptionnet.weights.formats import numpy_arrays

from .data.made import png, write_tar, write_tree, write_zip

LIMIT_S = 10
"""Ten times what a refusal takes on a busy machine."""
SPARSE_BYTES = 2**42


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """A test that waits for a pipe, or reads without end, fails."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> Path:
    """A named pipe, which whoever waits for it (a library in C, too) finds closed after a while."""
    os.mkfifo(path)

    def release() -> None:
        if path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    timer = threading.Timer(LIMIT_S / 2, release)
    timer.daemon = True
    timer.start()
    return path


def link_to_pipe(path: Path) -> Path:
    pipe(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    return path


def listening(path: Path) -> Path:
    before = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)
    return path


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def sparse(path: Path) -> Path:
    with path.open("wb") as file:
        try:
            file.truncate(SPARSE_BYTES)
        except OSError:
            pytest.skip("no sparse files of terabytes on this file system")
    return path


def endless(path: Path) -> Path:
    """A regular file by its status, of 0 bytes, that has many gigabytes."""
    if not os.access("/proc/self/pagemap", os.R_OK):
        pytest.skip("no /proc/self/pagemap here")
    path.symlink_to("/proc/self/pagemap")
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


THINGS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pipe": (pipe, "a named pipe, not a regular file"),
    "link": (link_to_pipe, "a named pipe, not a regular file"),
    "socket": (listening, "a socket, not a regular file"),
    "device": (device, "a device, not a regular file"),
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "image": ("x.png", read_image),
    "image to predict": ("x.png", lambda path: find_images([path])[0].read()),
    "archive to predict": ("x.zip", lambda path: find_images([path])[0].read()),
    "table to predict": ("x.parquet", lambda path: find_images([path])[0].read()),
    "class names": ("classes.txt", ClassNames.read),
    "class names in JSON": ("classes.json", ClassNames.read),
    "labels": ("labels.csv", lambda path: read_labels(path, ["a.png"])),
    "labels in a table": ("labels.parquet", lambda path: read_labels(path, ["a.png"])),
    "exclusions": ("out.txt", lambda path: read_exclude_list(path, ["a.png"])),
    "zip": ("x.zip", list_zip),
    "data in a zip": ("x.zip", open_source),
    "tar": ("x.tar", list_tar),
    "shard": ("x.tar", open_source),
    "parquet": ("x.parquet", read_images),
    "parquet in a folder": ("x.parquet", lambda path: open_source(path.parent)),
    "weights": ("x.safetensors", read_weights),
    "weights of torch": ("x.pth", read_weights),
    "weights of Keras": ("x.h5", read_weights),
    "index of a checkpoint": ("x.index", read_weights),
    "program": ("x.pt2", read_metadata),
    "study": ("x.toml", lambda path: read_study(str(path))),
    "run": ("run.json", lambda path: Run(path.parent).about()),
    "metrics": ("metrics.csv", lambda path: Run(path.parent).read_metrics()),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("thing", THINGS)
def test_no_reader_waits_for_what_is_no_file(thing: str, reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    make, what = THINGS[thing]
    with pytest.raises(InceptionNetError) as caught:
        read(make(tmp_path / name))
    message = str(caught.value)
    assert what in message and str(tmp_path / name) in message and "\n" not in message


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader != "tar"])  # zeros are an empty one
def test_a_sparse_file_of_terabytes_takes_no_memory(reader: str, tmp_path: Path) -> None:
    """Its size is refused, or it is read in place and found to be no such file."""
    name, read = READERS[reader]
    with pytest.raises(InceptionNetError, match=r"bytes|expected"):
        read(sparse(tmp_path / name))


@pytest.mark.parametrize("reader", ["image", "class names", "labels", "exclusions", "study", "run"])
def test_a_file_without_size_is_not_read_to_its_end(reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    with pytest.raises(InceptionNetError, match="more bytes than its size, as in /proc"):
        read(endless(tmp_path / name))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"x\.png: cannot be read \(Is a directory\)$"):
        read_image(folder(tmp_path / "x.png"))
    with pytest.raises(DataError, match=r"classes\.txt: expected .*, got Is a directory: give another$"):
        ClassNames.read(folder(tmp_path / "classes.txt"))


def test_a_file_that_becomes_a_pipe_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first look and the opening of a file another one may take its place."""
    monkeypatch.setattr(opening, "check_fit", lambda *_: None)
    with pytest.raises(UnfitFile, match="a named pipe"):
        contents(pipe(tmp_path / "x"), 10)
    (tmp_path / "y").write_bytes(bytes(11))
    with pytest.raises(UnfitFile, match="11 bytes, more than the limit of 10"):
        contents(tmp_path / "y", 10)
    assert contents(tmp_path / "y", 11) == bytes(11)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(DecodeError, match=r"cannot be read \(a name that no file can have\)$"):
        read_image("a\0b.png")


def test_a_pipe_among_images_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(6)])
    pipe(root / "cat" / "pipe.png")
    device(root / "dog" / "device.png")
    refused = []
    for split in open_source(root).splits.values():
        for i, name in enumerate(split.names):
            try:
                split.read(i)
            except DecodeError as error:
                refused.append((name, str(error)))
    assert [name for name, _ in sorted(refused)] == ["cat/pipe.png", "dog/device.png"]
    assert all("not a regular file" in reason for _, reason in refused)


def test_a_maze_of_links_is_walked_once(tmp_path: Path) -> None:
    """Twelve folders that link to each other have 12! paths without a loop."""
    root = write_tree(tmp_path / "set", [f"{i:02}/x.png" for i in range(12)])
    for i in range(12):
        for j in range(12):
            (root / f"{i:02}" / f"to{j:02}").symlink_to(root / f"{j:02}")
    tree = list_folder(root)
    assert tree.images == [f"{i:02}/x.png" for i in range(12)]
    assert len(tree.again) + len(tree.loops) == 144
    assert tree.ignored(12)[-1].startswith(f"{len(tree.again)} folders in the data by another path ignored (")


def test_the_first_path_to_a_folder_is_its_own(tmp_path: Path) -> None:
    """A link comes after the folders that are there, so that it depends on no order of entries."""
    root = write_tree(tmp_path / "set", ["z/0.png"])
    (root / "a").symlink_to(root / "z")
    away = write_tree(tmp_path / "away", ["1.png"])
    (root / "b").symlink_to(away)
    (root / "c").symlink_to(away)
    tree = list_folder(root)
    assert tree.images == ["b/1.png", "z/0.png"] and tree.again == ("a", "c") and tree.loops == ()
    assert tree.ignored(2) == ["2 folders in the data by another path ignored (a, c)"]


def test_deep_folders(tmp_path: Path) -> None:
    """More levels than Python has frames; the system takes paths of 4095 bytes."""
    path, made = tmp_path / "set", []
    while len(made) < 1100:
        path.mkdir()
        made.append(path)
        path = path / "d"
    (made[-1] / "x.png").write_bytes(png())
    try:
        assert [image.count("/") for image in list_folder(made[0]).images] == [len(made) - 1]
    finally:  # rmtree calls itself
        (made[-1] / "x.png").unlink()
        for one in reversed(made):
            one.rmdir()


def test_labels_beside_images_are_not_looked_for_in_every_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr(Path, "is_file", lambda path: bool(looked.append(path)))
    assert metadata_of((f"c{i}" for i in range(1000)), Path("set")) == {}
    assert len(looked) == 4


def test_odd_names_in_a_zip(tmp_path: Path) -> None:
    names = ["a//0.png", "/a/1.png", "./b/./2.png", "b\\3.png", "b///4.png", "//"]
    tree = list_zip(write_zip(tmp_path / "x.zip", dict.fromkeys(names, png())))
    assert tree.images == ["a/0.png", "a/1.png", "b/2.png", "b/3.png", "b/4.png"] and tree.folders == {"a", "b"}


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize(("name", "got"), [("a/" * 100 + "x.png", "in 101 \\("), ("x" * 5000 + ".png", "5004")])
def test_names_that_no_system_has_are_refused(tmp_path: Path, suffix: str, name: str, got: str) -> None:
    """Each folder of a name is listed by its whole path: of 30,000 in one, that would be a gigabyte."""
    write, read = (write_zip, list_zip) if suffix == ".zip" else (write_tar, list_tar)
    with pytest.raises(DataError, match=f"(4096 characters in at most 64 folders, got|a name of) .*{got}|{got}"):
        read(write(tmp_path / f"x{suffix}", {name: b"", "b/y.png": b""}))


def test_a_zip_that_lies_about_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list of members, or a member, would be read at once, whatever it takes."""
    path = write_zip(tmp_path / "x.zip", {f"{i}.png": os.urandom(2000) for i in range(50)})
    whole = list_zip(path)
    monkeypatch.setattr(zips, "PART_BYTES", 1500)
    with pytest.raises(
        DataError, match=r"got one that cannot be opened .a part of .* bytes, more than the limit of 1500"
    ):
        list_zip(path)
    monkeypatch.setattr(zips, "PART_BYTES", 2**28)
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    path.write_bytes(data[: at + 20] + (2**31).to_bytes(4, "little") + data[at + 24 :])  # bytes that are compressed
    with pytest.raises(DecodeError, match=r"^0.png: cannot be read from x.zip \("):
        whole.reader("")("0.png")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_are_read_as_the_standard_library_reads_them(tmp_path: Path, format: int) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=format, encoding="utf-8") as tar:
        for name in ("a.png", "é/猫.png", "n" * 90 + "/" + "m" * 90 + ".png", "d/" * 40 + "x.png", "empty.png"):
            member = tarfile.TarInfo(name)
            member.size = 0 if name == "empty.png" else len(name) * 37
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"of-{kind.decode()}")
            member.type, member.linkname = kind, "a.png" if format == tarfile.USTAR_FORMAT else "l" * 200
            tar.addfile(member)
        last = tarfile.TarInfo("last.png")
        last.size, last.mtime = 3, 0.5 if format == tarfile.PAX_FORMAT else 1
        tar.addfile(last, io.BytesIO(b"end"))
    with tarfile.open(path, encoding="utf-8") as tar:
        expected = [(one.name, (one.offset_data, one.size)) for one in tar if one.isreg()]
    assert list(tar_members(path)) == expected and len(expected) == 6
    stream = TarReader(io.BytesIO(path.read_bytes()), seekable=False)
    assert [(one.name, (one.at, one.size)) for one in stream.members() if one.is_file] == expected


def header(kind: bytes, data: bytes, name: str = "x") -> bytes:
    """A header that describes the next one, and its data."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(data)
    return member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


PLAIN = header(b"0", b"data", "a.png") + bytes(1024)
HOSTILE = {
    "nested pax headers": (header(b"x", b"13 path=x.png\n"[:13]) * 100_000, "more than 16"),
    "endless long names": (header(b"L", b"x.png\0") * 100_000, "more than 16"),
    "endless common headers": (header(b"g", b"") * 100_000, "more than 16"),
    "a huge header": (header(b"x", bytes(HEADER_BYTES + 1)), "headers before a member: 1048577 bytes"),
    "digits alone": (header(b"x", b"1" * HEADER_BYTES), "invalid pax header"),
    "a record of length 0": (header(b"x", b"0 path=x\n"), "invalid pax header"),
    "a record beyond the end": (header(b"x", b"99 path=x\n"), "invalid pax header"),
    "a long name": (header(b"L", b"n" * 10_000), "a name of 10000 characters"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_of_a_tar(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.tar"
    data, reason = HOSTILE[case]
    path.write_bytes(data + PLAIN)
    with pytest.raises(DataError, match=f"expected a tar file, got a damaged one .*{reason}"):
        list_tar(path)
    with pytest.raises(WeightsError, match="a tar archive, damaged or truncated"):
        read_weights(path)


def test_a_header_of_many_records_is_read_in_linear_time(tmp_path: Path) -> None:
    """Counted in bytes of patterns that are tried again and again, the standard library needs minutes."""
    records = b"".join(b"%d k%06d=%s\n" % (14, i, b"v" * 2) for i in range(60_000))
    (tmp_path / "x.tar").write_bytes(header(b"x", records) + PLAIN)
    assert list_tar(tmp_path / "x.tar").files == ["a.png"]


def damaged(whole: Path, damage: Callable[[bytearray, random.Random], None]) -> Iterator[Path]:
    """The file three hundred times, each time with one to four damages."""
    content, chance = whole.read_bytes(), random.Random(0)
    file = whole.with_name(f"damaged{whole.suffix}")
    for _ in range(300):
        data = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damage(data, chance)
        file.write_bytes(data)
        yield file


def test_damaged_tars_are_listed_or_refused(tmp_path: Path) -> None:
    def damage(data: bytearray, chance: random.Random) -> None:
        at = chance.randrange(len(data))
        data[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))

    for file in damaged(write_tar(tmp_path / "x.tar", {f"{'n' * 120}/{i}.png": png(i) for i in range(4)}), damage):
        try:
            list_tar(file)
        except DataError as error:
            assert "\n" not in str(error)


def test_damaged_zips_are_listed_or_refused(tmp_path: Path) -> None:
    def damage(data: bytearray, chance: random.Random) -> None:
        data[chance.randrange(len(data))] = chance.randrange(256)

    for file in damaged(write_zip(tmp_path / "x.zip", {f"a/{i}.png": png(i) for i in range(4)}), damage):
        try:
            tree = list_zip(file)
        except DataError:
            continue
        for name in tree.files:
            try:
                tree.reader("")(name)
            except DecodeError as error:
                assert "\n" not in str(error)


def test_the_holes_of_a_sparse_file_are_not_searched(tmp_path: Path) -> None:
    """Of 16 GiB of nothing; and a damaged heap behind them is found."""
    path = tmp_path / "x.h5"
    with path.open("wb") as file:
        file.write(b"\x89HDF\r\n\x1a\n")
        file.truncate(2**34)
    with pytest.raises(WeightsError, match=r"x\.h5: damaged or truncated"):
        read_weights(path)
    heap = b"GCOL\x01\0\0\0" + (2**40).to_bytes(8, "little")
    with path.open("r+b") as file:
        file.seek(2**33 - 4)  # on both sides of the end of a page
        file.write(heap)
    with pytest.raises(WeightsError, match=f"the heap at {2**33 - 4} does not have the size that it states"):
        read_weights(path)


def test_an_npz_that_unpacks_to_far_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_arrays, "RATIO_FROM_BYTES", 2**16)
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(2**20, np.float32))
    with pytest.raises(WeightsError, match=r"expected at most \d+ bytes of arrays, got 4194432; give"):
        read_weights(tmp_path / "x.npz")


KINDS_OF_8 = [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]


@pytest.mark.parametrize("kind", KINDS_OF_8, ids=str)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_other_types_are_refused_and_nothing_is_written(
    kind: torch.dtype, suffix: str, tmp_path: Path
) -> None:
    """A .safetensors of complex numbers cannot be written by old versions of its library."""
    state = create_model("inception_v1.slim", num_classes=2, width=0.125).state_dict()
    name = next(name for name in state if name.endswith("conv.weight"))
    state[name] = state[name].to(kind)
    source, out = tmp_path / f"x{suffix}", tmp_path / "out"
    out.mkdir()
    try:
        torch.save(state, source) if suffix == ".pth" else save_file(state, source)
    except KeyError:
        pytest.skip(f"safetensors has no {kind}")
    with pytest.raises(WeightsError, match=rf"got {str(kind).removeprefix('torch.')} \({name}\); save the weights in"):
        convert(source, out / "y.safetensors")
    assert not list(out.iterdir())


def test_what_cannot_be_read_again_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> None:
        raise WeightsError("damaged")

    monkeypatch.setattr(native, "_record", damaged)
    with pytest.raises(WeightsError, match=r"^damaged$"):
        save_weights(create_model("inception_v1.slim", num_classes=2, width=0.125), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_metadata_that_nests_without_end(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {"inceptionnet": "[" * 200_000})
    with pytest.raises(WeightsError, match="damaged metadata"):
        read_weights(tmp_path / "x.safetensors")


DEEP, DIGITS = "[" * 200_000, "9" * 5000
"""Deeper than Python can read; more digits than it takes for a number."""
TEXTS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "class names": ("x.json", DEEP, ClassNames.read),
    "numbers of class names": ("x.json", f'{{"a": "{DIGITS}", "b": "1"}}', ClassNames.read),
    "labels": ("x.json", DEEP, lambda path: read_labels(path, ["a.png"])),
    "numbers of labels": ("x.txt", DIGITS, lambda path: read_labels(path, ["a.png"])),
    "exclusions": ("x.json", DEEP, lambda path: read_exclude_list(path, ["a.png"])),
    "numbers of exclusions": ("x.txt", DIGITS, lambda path: read_exclude_list(path, ["a_1.png"])),
    "a run": ("run.json", DEEP, lambda path: Run(path.parent).about()),
    "a study": ("x.toml", f"x = {DEEP}", lambda path: read_study(str(path))),
    "keys of a study": ("x.toml", "a." * 100_000 + "b = 1", lambda path: read_study(str(path))),
    "an exported network": ("x.xml", "<a>" * 100_000 + "</a>" * 100_000, read_metadata),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_texts_that_are_hard_to_read(tmp_path: Path, case: str) -> None:
    name, text, read = TEXTS[case]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InceptionNetError) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_lines_of_separators_alone(tmp_path: Path) -> None:
    """Of patterns that try every start and every end, a line of 4000 characters takes seconds."""
    for line in ("x" + "\t" * 50_000 + "x", "x" + " \t" * 20_000 + "y", "1" + " " * 50_000 + "-", "x " * 20_000 + "z"):
        (tmp_path / "classes.txt").write_text(f"{line}\nb\n", encoding="utf-8")
        with contextlib.suppress(DataError):
            ClassNames.read(tmp_path / "classes.txt")


def test_a_header_of_an_array_that_is_no_python(tmp_path: Path) -> None:
    header = (b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 50).ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00v\x00" + header)
    with pytest.raises(WeightsError, match=r"x\.npz: damaged or truncated"):
        read_weights(tmp_path / "x.npz")


def test_settings_are_read_as_before(tmp_path: Path) -> None:
    """UTF-8, with any line ends."""
    (tmp_path / "x").write_bytes("é\r\na\rb\n".encode())
    assert opening.text_of(tmp_path / "x") == "é\na\nb\n"
    (tmp_path / "run.json").write_text(json.dumps({"é": 1}), encoding="utf-8")
    assert Run(tmp_path).read_json("run.json") == {"é": 1}


def test_many_members_take_no_longer_than_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is named once, however many members are in it."""
    named = []
    update = archives.member_path
    monkeypatch.setattr(archives, "member_path", lambda name: named.append(name) or update(name))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(3000):
            archive.writestr(zipfile.ZipInfo(f"a/b/{i}.png"), b"")
    began = time.process_time()
    assert len(list_zip(tmp_path / "x.zip").files) == 3000
    assert len(named) == 3000 and time.process_time() - began < 5


def test_a_pattern_enters_each_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And finds what the standard library finds where there are no links."""
    root = write_tree(tmp_path / "a[b]", ["0.png", "x/1.png", "x/y/2.png", "x/y/3.txt", "z/x/4.png"])
    monkeypatch.chdir(root)
    for pattern in ("**/*.png", "**/x/*.png", "**/x/**/*.png", "x/**", "**/**/y/*", "*/**/?.png", "**", "x/**/"):
        expected = {name for name in glob.glob(pattern, recursive=True) if name}
        assert {name.rstrip("/") for name in inputs._matches(pattern)} == {name.rstrip("/") for name in expected}, (
            pattern
        )
        whole = f"{glob.escape(str(root))}/{pattern}"
        expected = {name.rstrip("/") for name in glob.glob(whole, recursive=True)}
        assert {name.rstrip("/") for name in inputs._matches(whole)} == expected, pattern
    for i in range(10):
        for j in range(10):
            (root / f"{i}").mkdir(exist_ok=True)
            (root / f"{i}" / f"to{j}").symlink_to(root / f"{j}")
    assert len(find_images(["**/*.png"])) == 4


def test_the_limits_are_those_of_security_md() -> None:
    text = (Path(__file__).parent.parent / "SECURITY.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): cells[2].strip() for line in text.split("\n") if len(cells := line.split("|")) == 4}

    def stated(start: str) -> str:
        return next(value for what, value in rows.items() if what.startswith(start))

    def size(count: int) -> str:
        return f"{count >> 30} GiB" if count >= 2**30 else f"{count >> 20} MiB"

    assert stated("an image, a member") == size(opening.IMAGE_BYTES)
    assert stated("pixels of an image") == f"{limits.MAX_PIXELS:,}; {limits.MAX_SIDE:,} along one side"
    assert stated("memory that decoding") == f"{size(limits.DECODE_BYTES)}; see below"
    assert stated("scans of a JPEG") == str(limits.MOST_SCANS)
    assert stated("a PPM in text") == size(limits.PLAIN_BYTES)
    assert stated("time of a data worker") == f"{time_limit.IMAGE_S:.0f} s of the processor"
    assert stated("rows of a .parquet") == f"{parquet_files.ROWS:,}, or one for each byte of the file"
    assert stated("values of the columns") == f"{parquet_files.VALUES:,}, or four for each byte of the file"
    unpacked = f"{size(parquet_files.UNPACKED_BYTES)}, or {parquet_files.UNPACKED_TIMES} times the size of the file"
    assert stated("these columns when") == unpacked
    footer = f"{size(parquet_footer.FOOTER_BYTES)}, {parquet_footer.COLUMNS:,} columns, {parquet_footer.DEPTH} in each"
    assert stated("the footer of a .parquet").startswith(footer)
    assert stated("pages of a .parquet") == f"{parquet_footer.PAGES:,}, or one for each kilobyte of the file"
    assert stated("class names in its schema").startswith(size(features.FEATURES_BYTES))
    assert stated("a list: labels") == size(opening.TEXT_BYTES)
    assert stated("settings") == size(opening.SETTINGS_BYTES)
    assert stated("weights") == size(opening.WEIGHTS_BYTES)
    assert stated("the list of members of a .zip") == size(opening.PART_BYTES)
    assert stated("a name in an archive") == f"{MAX_NAME} characters, in {MAX_DEPTH} folders"
    assert stated("headers") == f"{MOST_HEADERS}, of {size(HEADER_BYTES)} each"
    of_zip = f"an image in a .zip of more than {size(archives.RATIO_FROM_BYTES)}"
    assert stated(of_zip) == f"{archives.MAX_RATIO} times its compressed size"
    most, above = size(numpy_arrays.MOST_BYTES), size(numpy_arrays.RATIO_FROM_BYTES)
    assert stated("arrays in an .npz") == f"{most}; above {above}, {numpy_arrays.MAX_RATIO} times the size of the file"
