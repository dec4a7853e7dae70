"""One walker: hidden files, links, archives with any separators and names, and what is said of the rest."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from inceptionnet.data.archives import list_tar, list_zip
from inceptionnet.data.containers import list_folder
from inceptionnet.data.inputs import find_images
from inceptionnet.data.unlabelled import every_image, open_images
from inceptionnet.errors import DataError, DecodeError

from .made import png, write_tar, write_tree, write_zip

HIDDEN = ["._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a/._a.png", "@eaDir/a.png/x.jpg", "Thumbs.db", "in/.x/y.png"]
SAID = "2 non-image files ignored (.mp4, .txt); 6 hidden entries ignored (._a.png, .ipynb_checkpoints, .x … and 3 more)"


def test_every_way_to_find_images_finds_and_says_the_same(tmp_path: Path) -> None:
    names = ["a.png", "b.JFIF", "in/c.avif", "in/d.jpe", "e.HEIC", "film.mp4", "in/x.txt"]
    wanted = {"a.png": 0, "b.JFIF": 1, "in/c.avif": 2, "in/d.jpe": 3, "e.HEIC": 4}
    contents = {name: png(i) for i, name in enumerate(names + HIDDEN)}
    folder = write_tree(tmp_path / "set", contents)
    places = folder, write_zip(tmp_path / "set.zip", contents), write_tar(tmp_path / "set.tar", contents)
    for place in places:
        found = find_images([place])
        assert {os.path.relpath(image.name, place): image.read() for image in found} == {
            name: png(i) for name, i in wanted.items()
        }
        assert "; ".join(found.notes).replace(f"{place}: ", "") == SAID
        source, notes = every_image(str(place))
        _, split = source.pick("all")
        assert list(split.names) == sorted(wanted) and "; ".join(notes) == SAID
        assert [split.read(i) for i in range(5)] == [png(wanted[name]) for name in split.names]
        source = open_images([str(place)])
        assert source.note.endswith(SAID) and len(source.splits["all"]) == 5
        several = open_images([str(place), str(folder / "a.png")])
        assert len(several.splits["all"]) == 6 and several.splits["all"].read(5) == png(0)  # type: ignore[union-attr, arg-type]
        assert "hidden entries ignored" in several.note


def test_a_pattern_enters_no_hidden_folder_unless_it_names_it(tmp_path: Path) -> None:
    write_tree(tmp_path, ["a.png", "in/b.png", "__MACOSX/in/c.png"])
    found = [Path(image.name).name for image in find_images([str(tmp_path / "**" / "*.png")])]
    assert found == ["a.png", "b.png"]
    assert len(find_images([str(tmp_path / "__MACOSX" / "**" / "*.png")])) == 1


def test_links_are_followed_without_loops_and_pipes_are_refused(tmp_path: Path) -> None:
    elsewhere = write_tree(tmp_path / "elsewhere", ["linked.png"])
    root = write_tree(tmp_path / "set", ["dog/0.png"])
    (root / "album").symlink_to(elsewhere)
    (root / "loop").symlink_to(root)
    (elsewhere / "back").symlink_to(root)
    (root / "dog" / "itself.png").symlink_to(root / "dog" / "itself.png")
    os.mkfifo(root / "dog" / "pipe.png")
    tree = list_folder(root)
    assert tree.images == ["album/linked.png", "dog/0.png", "dog/itself.png", "dog/pipe.png"]
    assert tree.folders == {"album", "dog"} and tree.loops == ("album/back", "loop")
    assert tree.ignored(4) == ["2 links to a folder above ignored (back, loop)"]
    with pytest.raises(DecodeError, match=r"dog/itself.png: cannot be read \("):
        tree.reader("")("dog/itself.png")
    with pytest.raises(DecodeError, match=r"^dog/pipe.png: cannot be read \(a named pipe, not a regular file\)$"):
        tree.reader("")("dog/pipe.png")


def test_backslashes_in_archives_are_separators(tmp_path: Path) -> None:
    files = {"top\\cat\\0.png": png(1), "top\\dog\\0.png": png(2), ".\\top\\dog/1.png": png(3)}
    for tree in (list_zip(write_zip(tmp_path / "x.zip", files)), list_tar(write_tar(tmp_path / "x.tar", files))):
        assert tree.images == ["top/cat/0.png", "top/dog/0.png", "top/dog/1.png"]
        assert tree.folders == {"top", "top/cat", "top/dog"}
        assert tree.reader("top")("dog/1.png") == png(3) and tree.reader("")("top/cat/0.png") == png(1)


def zip_named(path: Path, name: bytes, extra: bytes = b"") -> Path:
    """A zip whose only member has a name in these bytes, without the flag for UTF-8."""
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("?" * len(name))
        member.extra = extra
        archive.writestr(member, png(9))
    path.write_bytes(path.read_bytes().replace(b"?" * len(name), name))
    return path


def test_names_in_zips_are_utf8_where_they_can_be(tmp_path: Path) -> None:
    unicode_path = b"\x75\x70" + (5 + 9).to_bytes(2, "little") + b"\1\0\0\0\0" + "ñandú/".encode() + b"x"
    cases = {
        "utf-8": ("café/0.png".encode(), b"", "café/0.png"),
        "cp437": (b"caf\x82/0.png", b"", "café/0.png"),
        "neither": (b"\xe7\xcc/0.png", b"", b"\xe7\xcc/0.png".decode("cp437")),
        "japanese": ("犬".encode("shift-jis") + b".png", b"", "犬".encode("shift-jis").decode("cp437") + ".png"),
        "extra field": (b"_and_/x", unicode_path, "ñandú/x"),
    }
    for case, (name, extra, expected) in cases.items():
        tree = list_zip(zip_named(tmp_path / f"{case}.zip", name, extra))
        assert tree.files == [expected], case
        assert tree.reader("")(expected) == png(9), case
        assert (tree.guessed == (expected,)) is (case in ("cp437", "neither", "japanese")), case
    (said,) = list_zip(tmp_path / "neither.zip").ignored(1)
    assert said.startswith("1 name not in UTF-8 read as code page 437 (τ╠/0.png): if they are in another")


def test_a_name_twice_in_a_zip_is_said(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/0.png": png(1), "a/1.png": png(2), "a\\0.png": png(3)})
    tree = list_zip(path)
    assert tree.images == ["a/0.png", "a/1.png"] and tree.reader("")("a/0.png") == png(3)
    assert tree.ignored(2) == ["1 file twice in the archive, of which the last is used (0.png)"]


def test_tars_that_are_no_plain_tar(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(DataError, match="expected an uncompressed tar file, got a compressed one"):
        find_images([path])
    write_tar(path, {"readme.txt": b"x"})
    with pytest.raises(DataError, match=r"expected images, got none: 1 non-image file ignored \(.txt\)"):
        find_images([path])


def test_names_are_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no UTF-8, by folder and by standard input, which lists it in bytes."""
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(name, "wb") as file:
            file.write(png(7))
    except OSError:
        pytest.skip("this file system knows no such names")
    (image,) = find_images([tmp_path])
    assert os.fsencode(image.name) == name and image.read() == png(7)
    source, _ = every_image(str(tmp_path))
    _, split = source.pick("all")
    assert split.read(0) == png(7)
    import io

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(name + b"\n" + name + b"\r\n")))
    assert [one.read() for one in find_images(["-"])] == [png(7)] * 2


def test_a_zip_whose_names_disagree(tmp_path: Path) -> None:
    """The list says UTF-8, and the name before the member's data is none."""
    path = write_zip(tmp_path / "x.zip", {"é/0.png": png()})
    data = path.read_bytes()
    path.write_bytes(data.replace("é".encode(), b"\xff\xfe", 1))
    (image,) = find_images([path])
    with pytest.raises(DecodeError, match=r"é/0\.png: cannot be read from x\.zip \('utf-8' codec can't decode"):
        image.read()
