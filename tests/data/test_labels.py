"""Labels of images in a file: tables of every kind, paths in every form, splits, several labels an image."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inceptionnet.data import Source, Split, open_source
from inceptionnet.data.assembly import hold_out
from inceptionnet.data.check import check
from inceptionnet.data.class_names import ClassNames
from inceptionnet.data.flat import read_labels
from inceptionnet.data.matching import read_exclude_list
from inceptionnet.errors import DataError

from .made import png, write_tree, write_zip

FILES = [f"{i}.png" for i in range(4)]
LABELS = {"0.png": "ant", "1.png": "bee", "2.png": "ant", "3.png": "bee"}


def table(row: Callable[[int], str], head: str = "") -> str:
    return "\n".join([head] * bool(head) + [row(i) for i in range(4)]) + "\n"


def name(i: int) -> str:
    return LABELS[f"{i}.png"]


def found(source: Source) -> dict[str, str | list[str]]:
    """The label of each image; of several labels an image, a list."""
    _, split = source.pick("all")
    assert isinstance(split, Split) and split.read(0) == png(FILES.index(Path(split.names[0]).name))
    if split.labels.ndim == 1:
        assert split.labels.dtype == np.int64 and not source.multi_label
        return {one: source.classes[label] for one, label in zip(split.names, split.labels, strict=True)}
    assert split.labels.dtype == np.bool_ and source.multi_label
    assert split.labels.shape == (len(split), len(source.classes))
    return {one: [source.classes[i] for i in np.flatnonzero(row)]
            for one, row in zip(split.names, split.labels, strict=True)}  # fmt: skip


TABLES = {
    "a header": ("x.csv", table(lambda i: f"{i}.png,{name(i)}", "image_id,label")),
    "no header": ("x.csv", table(lambda i: f"{i}.png,{name(i)}")),
    "semicolons": ("x.csv", table(lambda i: f"{i}.png;{name(i)}", "Filename;Class")),
    "tabs": ("x.txt", table(lambda i: f"{i}.png\t{name(i)}", "file name\tcategory")),
    "bars": ("x.txt", table(lambda i: f"{i}.png|{name(i)}", "path|target")),
    "spaces": ("x.txt", table(lambda i: f"{i}.png {name(i)}")),
    "reversed": ("x.csv", table(lambda i: f"{name(i)},{i}.png", "label,filename")),
    "reversed without header": ("x.csv", table(lambda i: f"{name(i)},{i}.png")),
    "quotes": ("x.csv", table(lambda i: f'"{i}.png","{name(i)}"', '"name","class"')),
    "quotes after spaces": ("x.csv", table(lambda i: f'"{i}.png", "{name(i)}"')),
    "other columns": ("x.csv", table(lambda i: f"{i}.png,{name(i)},web", "filename,label,source")),
    "pandas": ("x.csv", table(lambda i: f"{i},{i}.png,{name(i)}", ",filename,label")),
    "headers of no language that we know": ("x.csv", table(lambda i: f"x{i},{i}.png,{name(i)}", "Nr,Foto,label")),
    "row numbers that images are called": ("x.csv", table(lambda i: f"{3 - i},{i}.png,{name(i)}", "index,file,label")),
    "row numbers, unknown headers": ("x.csv", table(lambda i: f"{3 - i},{i}.png,{name(i)}", "Nr,Bilddatei,label")),
    "JSON lines called .json": ("x.json", table(lambda i: json.dumps({"image": f"{i}.png", "label": name(i)}))),
    "no extension": ("x.csv", table(lambda i: f"{i},{name(i)}", "id,label")),
    "another extension": ("x.csv", table(lambda i: f"{i}.JPG,{name(i)}", "id,label")),
    "relative to above": ("x.csv", table(lambda i: f"d/{i}.png,{name(i)}", "path,label")),
    "relative to elsewhere": ("x.csv", table(lambda i: f"../d/./{i}.png,{name(i)}", "path,label")),
    "absolute": ("x.csv", table(lambda i: f"/home/me/{i}.png,{name(i)}", "path,label")),
    "Windows": ("x.csv", "\ufeff" + table(lambda i: f"C:\\data\\d\\{i}.png,{name(i)}\r", "path,label\r")),
    "addresses": ("x.csv", table(lambda i: f"https://host/x/{i}.png,{name(i)}", "url,label")),
    "0/1 columns": ("x.csv", table(lambda i: f"{i}.png,{1 - i % 2},{i % 2}", "image,ant,bee")),
    "0/1 columns as floats": ("x.csv", table(lambda i: f"{i},{1 - i % 2}.0,{i % 2}.0,web", "image,ant,bee,from")),
    "numbers and names": ("x.csv", table(lambda i: f"{i}.png,{i % 2},{name(i)}", "file,class_id,class_name")),
    "0/1 beside a label": ("x.csv", table(lambda i: f"{i}.png,{name(i)},1,{i % 2}", "file,label,outdoors,blurred")),
    "JSON lines": ("x.jsonl", table(lambda i: json.dumps({"file_name": f"{i}.png", "label": name(i)}))),
    "a JSON list": ("x.json", json.dumps([{"image": one, "class": label} for one, label in LABELS.items()])),
    "JSON by image": ("x.json", json.dumps(LABELS)),
    "JSON by class": ("x.json", json.dumps({"ant": ["0.png", "2.png"], "bee": ["1.png", "3.png"]})),
    "comments": ("x.csv", "# by me\n" + table(lambda i: f"{i}.png,{name(i)}", "image,label") + "\n\n"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_of_labels(tmp_path: Path, case: str) -> None:
    file, text = TABLES[case]
    (write_tree(tmp_path / "d", FILES).parent / file).write_text(text, encoding="utf-8", newline="")
    source = open_source(tmp_path / "d", labels=tmp_path / file)
    assert found(source) == LABELS and source.classes == ("ant", "bee")
    assert source.held_out and list(source.splits) == ["train", "val"]
    plain = open_source(write_tree(tmp_path / "same", [f"{label}/{one}" for one, label in LABELS.items()]))
    assert source.note.partition(" (")[0] == plain.note.partition(" (")[0], "the rule of folders that are not split"
    unused = {"other columns": "source", "headers of no language that we know": "Nr", "0/1 columns as floats": "from",
              "row numbers that images are called": "index", "row numbers, unknown headers": "Nr",
              "0/1 beside a label": "blurred, outdoors"}.get(case)  # fmt: skip
    end = f"labels from {tmp_path / file}" + "; a class for each 0/1 column: ant, bee" * (case == "0/1 columns")
    assert source.note.endswith(f"; columns not used: {unused}" if unused else f"; {end}")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings_of_tables(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.csv").write_bytes(table(lambda i: f"{i}.png;{name(i)}", "image;label").encode(encoding))
    assert found(open_source(write_tree(tmp_path / "d", FILES), labels=tmp_path / "x.csv")) == LABELS


def test_parquet(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder, file = write_tree(tmp_path / "d", FILES), tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"image": FILES, "label": [*LABELS.values()], "split": ["train"] * 2 + ["later", "val"]}), file
    )
    with pytest.raises(DataError, match=r"line 3: expected a split in column split \(.*\), got 'later'"):
        open_source(folder, labels=file)
    pq.write_table(pa.table({"image": FILES, "label": [*LABELS.values()], "split": ["train"] * 2 + ["val"] * 2}), file)
    source = open_source(folder, labels=file)
    assert found(source) == LABELS and {one: len(split) for one, split in source.splits.items()} == {
        "train": 2,
        "val": 2,
    }
    pq.write_table(pa.table({"image": FILES, "labels": [["ant"], ["bee", "ant"], [], ["bee"]]}), file)
    assert found(open_source(folder, labels=file)) == {
        "0.png": ["ant"], "1.png": ["ant", "bee"], "2.png": [], "3.png": ["bee"],
    }  # fmt: skip
    features = {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    held = pa.table({"image": FILES, "label": [0, 1, -1, 1]})
    pq.write_table(held.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), file)
    with pytest.raises(DataError, match="expected labels that have a name in the file, got -1: correct them"):
        open_source(folder, labels=file)
    pq.write_table(pa.table({"image": [b"x"], "label": [0]}), file)
    with pytest.raises(DataError, match=r"expected names of images and labels, got encoded images in image"):
        open_source(folder, labels=file)


SEVERAL = {
    "semicolons": table(lambda i: f"{i}.png,{'bee;ant' if i else 'ant'}", "image,labels"),
    "bars": table(lambda i: f"{i}.png,{'bee|ant' if i else 'ant'}", "Image Index,Finding Labels"),
    "0/1 columns": table(lambda i: f"{i}.png,1,{int(i > 0)}", "image,ant,bee"),
    "printed lists": table(lambda i: f"{i}.png,\"['bee', 'ant']\"" if i else "0.png,['ant']", "image,labels"),
    "JSON lines": table(lambda i: json.dumps({"file_name": f"{i}.png", "labels": ["ant", "bee"][: i + 1]})),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_labels_an_image(tmp_path: Path, case: str) -> None:
    file = write_tree(tmp_path, {"x.jsonl" if "JSON" in case else "x.csv": SEVERAL[case].encode()}) / "x.csv"
    file = file if file.exists() else tmp_path / "x.jsonl"
    source = open_source(write_tree(tmp_path / "d", FILES), labels=file)
    assert found(source) == {"0.png": ["ant"]} | {f"{i}.png": ["ant", "bee"] for i in (1, 2, 3)}
    assert source.held_out and list(source.splits) == ["train", "val"]
    counts = check(source, workers=0)
    assert sum(one[0] for one in counts.counts.values()) == 4 == len(counts)
    assert sum(one[1] for one in counts.counts.values()) == 3


def test_images_without_any_of_several_labels(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "d", FILES)
    for text in (table(lambda i: f"{i}.png,{'bee;ant' if i else ''}", "image,labels"),
                 table(lambda i: f"{i}.png,{int(i > 0)},{int(i > 0)}", "image,ant,bee")):  # fmt: skip
        (tmp_path / "x.csv").write_text(text)
        assert found(open_source(folder, labels=tmp_path / "x.csv"))["0.png"] == []


def test_held_out_with_several_labels() -> None:
    """Of each class that can have both, some images are held out and some are not."""
    rng = np.random.default_rng(0)
    labels = rng.random((60, 5)) < (0.5, 0.3, 0.2, 0.1, 0.05)
    labels[:2, 4] = True
    split = Split([f"{i}.png" for i in range(60)], labels, lambda i: b"")
    for seed in range(5):
        train, val = hold_out(split, seed)
        assert sorted([*train.names, *val.names]) == sorted(split.names)
        assert train.labels.any(0).all() and val.labels.any(0).all() and 5 <= len(val) <= 25


def test_splits_of_the_file_go_before_folders(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "d", [f"{'test' if i > 1 else 'train'}/{i}.png" for i in range(4)])
    file = tmp_path / "x.csv"
    file.write_text(table(lambda i: f"{i}.png,{name(i)}", "image,label"))
    source = open_source(folder, labels=file)
    assert {one: list(split.names) for one, split in source.splits.items() if isinstance(split, Split)} == {
        "train": ["train/0.png", "train/1.png"], "test": ["test/2.png", "test/3.png"],
    }  # fmt: skip
    file.write_text(table(lambda i: f"{i}.png,{name(i)},{'Train' if i % 3 else 'validation'}", "image,label,subset"))
    source = open_source(folder, labels=file)
    assert {one: list(split.names) for one, split in source.splits.items() if isinstance(split, Split)} == {
        "train": ["train/1.png", "test/2.png"][::-1], "val": ["train/0.png", "test/3.png"][::-1],
    }  # fmt: skip


def test_images_beside_folders_of_splits_are_not_mixed_with_them(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "d", ["train/0.png", "train/1.png", "test/2.png", "more/3.png"])
    file = tmp_path / "x.csv"
    file.write_text(table(lambda i: f"{i}.png,{name(i)}", "image,label"))
    with pytest.raises(DataError, match=r"got images in more beside test, train: add a column split .* --splits none"):
        open_source(folder, labels=file)
    assert open_source(folder, labels=file, splits="none").held_out
    splits = open_source(folder, labels=file, splits="train=train,val=test,test=more", evaluating=True).splits
    assert {one: len(split) for one, split in splits.items()} == {"train": 2, "val": 1, "test": 1}
    with pytest.raises(DataError, match="expected the folders of --splits to hold images of the list, got none in x"):
        open_source(folder, labels=file, splits="train=train,val=x")


def test_what_may_be_meant_otherwise_is_said(tmp_path: Path) -> None:
    folder, file = write_tree(tmp_path / "d", FILES), tmp_path / "x.csv"
    file.write_text(table(lambda i: f"{i}.png,{int(i < 2)},{i % 2},{1 - i % 2}", "image,sex,cat,dog"))
    assert "a class for each 0/1 column: sex, cat, dog" in open_source(folder, labels=file).note
    file.write_text(table(lambda i: f"{i}.png,{('Cat', 'cat', 'dog', 'dog')[i]}", "image,label"))
    note = open_source(folder, labels=file, evaluating=True).note
    assert "classes that differ in case or spaces only: 'Cat' and 'cat'" in note
    file.write_text("sep=;\n" + table(lambda i: f"{i}.png,{name(i)},x", "image,label,place").replace(",", ";"))
    note = open_source(folder, labels=file).note
    assert "without image" not in note and "columns not used: place" in note


def test_what_has_no_counterpart_is_counted(tmp_path: Path) -> None:
    """As in a competition: the test images have no labels, and a row has no image."""
    folder = write_tree(tmp_path / "d", [f"train/{i}.png" for i in range(4)] + ["test/8.png", "test/9.png"])
    (tmp_path / "x.csv").write_text(table(lambda i: f"{i}.png,{name(i)}", "image,label") + "7.png,cat\n8.png,\n")
    source = open_source(folder, labels=tmp_path / "x.csv")
    assert source.classes == ("ant", "bee") and list(source.splits) == ["train", "val"]
    assert sum(map(len, source.splits.values())) == 4
    assert source.note.endswith(f"; 1 row of {tmp_path / 'x.csv'} without image in the data: 7.png (line 6); "
                                "2 images without label not used: test/8.png, test/9.png")  # fmt: skip


def test_folders_tell_images_of_the_same_name_apart(tmp_path: Path) -> None:
    folder, file = write_tree(tmp_path / "d", ["x/0.png", "x/1.png", "y/0.png", "y/3.png"]), tmp_path / "x.csv"
    file.write_text("image,label\nx/0.png,a\nd\\y\\0.png,b\n1.png,a\n/z/y/3.png,b\n")
    _, split = open_source(folder, labels=file).pick("all")
    assert isinstance(split, Split)
    assert {one: int(label) for one, label in zip(split.names, split.labels, strict=True)} == {
        "x/0.png": 0, "x/1.png": 0, "y/0.png": 1, "y/3.png": 1,
    }  # fmt: skip
    file.write_text("image,label\nq/0.png,a\nx/1.png,b\n")
    assert "without image in the data: q/0.png (line 2)" in open_source(folder, labels=file, evaluating=True).note
    file.write_text("image,label\n1.png,a\n0.png,b\n")
    with pytest.raises(DataError, match=r"^.*x.csv: line 3: expected one image, got 0.png, which is x/0.png, y/0.png"):
        open_source(folder, labels=file)


def test_odd_names(tmp_path: Path) -> None:
    odd = ["new\nline", 'comma, "quoted"', " lead", "semi;colon", "a.b.c", "caf\u00e9"]
    folder = write_tree(tmp_path / "d", [f"{one}.png" for one in odd])
    rows = [f'"{one.replace(chr(34), chr(34) * 2)}.png",{"ab"[i % 2]}' for i, one in enumerate(odd)]
    (tmp_path / "x.csv").write_text(unicodedata.normalize("NFD", "\n".join(["image,label", *rows])), newline="")
    source = open_source(folder, labels=tmp_path / "x.csv")
    _, split = source.pick("all")
    assert isinstance(split, Split)
    assert {one.removesuffix(".png"): int(label) for one, label in zip(split.names, split.labels, strict=True)} == {
        one: i % 2 for i, one in enumerate(odd)
    }


def test_metadata_of_hugging_face(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "d", FILES)
    (folder / "metadata.csv").write_text(table(lambda i: f"{i}.png,{name(i)}", "file_name,label"))
    source = open_source(folder)
    assert found(source) == LABELS and source.note.endswith(f"; labels from {folder / 'metadata.csv'}")
    (folder / "metadata.csv").write_text(table(lambda i: f"{i}.png,a photo of {i}", "file_name,text"))
    with pytest.raises(DataError, match=r"metadata.csv: expected a column label, got file_name, text: add it"):
        open_source(folder)
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "metadata.csv").unlink()
    pq.write_table(pa.table({"file_name": FILES, "label": [*LABELS.values()]}), folder / "metadata.parquet")
    source = open_source(folder)
    assert found(source) == LABELS and source.note.endswith(f"; labels from {folder / 'metadata.parquet'}")
    above = write_tree(tmp_path / "above", {f"cam{i % 2}/{i}.png": png(i) for i in range(4)})
    (above / "metadata.csv").write_text(table(lambda i: f"cam{i % 2}/{i}.png,{name(3 - i)}", "file_name,label"))
    source = open_source(above)
    assert source.note.endswith(f"; labels from {above / 'metadata.csv'}")
    assert found(source) == {f"cam{i % 2}/{i}.png": name(3 - i) for i in range(4)}
    (above / "metadata.csv").write_text(table(lambda i: f"cam{i % 2}/{i}.png,a photo", "file_name,text"))
    assert open_source(above).classes == ("cam0", "cam1"), "captions are no labels"
    splits = write_tree(tmp_path / "s", [f"train/{i}.png" for i in range(4)] + ["test/0.png", "test/3.png"])
    (splits / "train" / "metadata.jsonl").write_text(TABLES["JSON lines"][1])
    (splits / "test" / "metadata.csv").write_text("file_name,label\n0.png,bee\n3.png,ant\n")
    source = open_source(splits)
    assert {one: len(split) for one, split in source.splits.items()} == {"train": 4, "test": 2}
    test = source.splits["test"]
    assert isinstance(test, Split) and test.labels.tolist() == [1, 0] and source.classes == ("ant", "bee")


def test_numbers_are_in_their_order(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "d", [f"{i}.png" for i in range(12)])
    (tmp_path / "x.csv").write_text("id,label\n" + "".join(f"{i},{i}.0\n" for i in range(12)))
    source = open_source(folder, labels=tmp_path / "x.csv", evaluating=True)
    assert source.classes == tuple(map(str, range(12)))


def test_which_column_names_the_images(tmp_path: Path) -> None:
    """Numbers may be names of images too; an image may be called like a header."""
    folder = write_tree(tmp_path / "d", [f"{i}.png" for i in range(6)] + ["image.png"])
    file = tmp_path / "x.csv"
    for text in ("id,label\n4,0\n5,1\n90,2\n91,3\n", "id,label,file_name\n0,0,4.png\n1,1,5.png\n",
                 "label,image\n0,4\n1,5\n", "id,file_name,label\n0,4.png,0\n1,5.png,1\n2,gone.png,1\n"):  # fmt: skip
        file.write_text(text)
        _, split = open_source(folder, labels=file, evaluating=True).pick("all")
        assert isinstance(split, Split) and sorted(zip(split.names, split.labels, strict=True)) == [
            ("4.png", 0), ("5.png", 1),
        ]  # fmt: skip


def test_a_zip_with_labels(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "d.zip", {f"in/{one}": png(i) for i, one in enumerate(FILES)})
    (tmp_path / "x.csv").write_text(table(lambda i: f"{i}.png,{name(i)}"))
    assert found(open_source(file, labels=tmp_path / "x.csv")) == LABELS


REFUSED = {
    "no image": (table(lambda i: f"x{i}.png,a", "image,label"),
                 "line 2: expected the name of an image in the data, such as 0.png, got 'x0.png', and no image"),
    "twice": (table(lambda i: f"{i}.png,a", "image,label") + "1.png,b\n",
              r"line 6: expected every image once, got 1.png more than once \(line 3\): remove a line"),
    "a comma without quotes": (table(lambda i: f"{i}.png,{'tench, fish' if i == 2 else 'b'}", "image,label"),
                               "line 4: expected 2 cells, .*, got 3 in '2.png tench  fish': correct the line"),
    "an open quote": (table(lambda i: f'{i}.png,{chr(34) * (i == 2)}a', "image,label"),
                      "line 4: expected cells separated by ',', got unbalanced quotes"),
    "two columns of labels": (table(lambda i: f"{i}.png,{i % 2},{i}", "file,label,category"),
                              "line 2: expected one column of labels, got label and category: remove or rename"),
    "no column of labels": (table(lambda i: f"{i}.png,x,{i}", "file,size,year"),
                            "line 2: expected a column of labels .*, got the columns file, size, year: add"),
    "columns without header": (table(lambda i: f"{i}.png,x,{i}y"), "line 1: .* got 3 without header"),
    "no class of 0/1 columns": (table(lambda i: f"{i}.png,{int(i == 0)},{int(i == 1)}", "image,a,b"),
                                "line 4: expected a 1 in one of the columns of classes, got none"),
    "words": (table(lambda i: f"{i},{'haze primary' if i % 2 else 'clear'}", "image_name,tags"),
              "line 3: expected several tags separated by ; or |, got 'haze primary': separate them so"),
    "commas": (table(lambda i: f'{i},"a, b"', "image_name,labels"), "line 2: expected several labels separated by"),
    "a label twice": (table(lambda i: f"{i}.png,a;a", "image,label"), "line 2: expected every label of an image once"),
    "a split": (table(lambda i: f"{i}.png,a,{'train' if i else 'mine'}", "image,label,split"),
                "line 2: expected a split in column split .*, got 'mine': correct it"),
    "another encoding": ("image,label\n0.png,b\n1.png,L\udcf6we\n",
                         "line 3: is not in UTF-8: save the file as UTF-8"),
    "a missing value": (table(lambda i: f"{i}.png,{'nan' if i == 1 else 'a'}", "image,label"),
                        "line 3: expected a label, got 'nan', which is written for a missing value"),
    "a missing value of Excel": (table(lambda i: f"{i}.png,{'#N/A' if i == 1 else 'a'}", "image,label"),
                                 "line 3: expected a label, got '#N/A', which is written for a missing value"),
    "numbers with spaces": (table(lambda i: f"{i}.png,{'7 1 0' if i == 1 else 5}", "Id,Target"),
                            "line 3: expected a label, or several separated by ; or |, got '7 1 0': separate"),
    "names with spaces": (table(lambda i: f"{i}.png,{('scab', 'rust', 'scab rust')[i % 3]}", "image,labels"),
                          "line 4: expected several labels separated by ; or |, got 'scab rust': separate them so, or"),
    "a number in two forms": (table(lambda i: f"{i}.png,{('1', '01', '2', '3')[i]}", "image,label"),
                              "expected one number for a class, got 01 and 1: correct one"),
    "two columns of images": (table(lambda i: f"{i}.png,{3 - i}.png,a", "before,after,label"),
                              "line 2: expected one column with names of images, got 0.png and 3.png: remove"),
    "objects": (json.dumps({f"{i}.png": {"label": "a", "by": "me"} for i in range(4)}),
                "line 1: expected the name or number of a class, got {'label': 'a', 'by': 'me'}: write the label"),
    "CreateML": (json.dumps([{"image": f"{i}.png", "label": [{"label": "a"}]} for i in range(4)]),
                 "line 1: expected the name or number of a class, got {'label': 'a'}: write the label itself"),
    "labels alone": ("label\na\nb\n", "line 2: expected 2 cells, as in NAME LABEL .*, got 1 in 'a'"),
    "no label": (table(lambda i: f"{i}.png,", "image,label"), "line 2: expected a label for every image"),
    "a column twice": (table(lambda i: f"{i}.png,{i % 2},{1 - i % 2}", "image,a,a"), "expected every class once"),
    "COCO": (json.dumps({"images": [{"id": 1}], "annotations": [], "categories": []}), "got annotations in COCO's"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_are_refused(tmp_path: Path, case: str) -> None:
    content, reason = REFUSED[case]
    folder, file = write_tree(tmp_path / "d", FILES), tmp_path / "x.csv"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=reason.replace("|", r"\|")) as caught:
        open_source(folder, labels=file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_a_spreadsheet_is_named(tmp_path: Path) -> None:
    file = write_tree(tmp_path / "d", FILES) / "x.xlsx"
    file.write_bytes(b"PK\3\4")
    with pytest.raises(DataError, match=r"got a spreadsheet \(\.xlsx\): save it as CSV UTF-8"):
        open_source(tmp_path / "d", labels=file)


def test_a_line_of_json_lines(tmp_path: Path) -> None:
    folder, file = write_tree(tmp_path / "d", FILES), tmp_path / "x.jsonl"
    for second, reason in ((b"{", "line 2: expected one JSON object, got '{'"), (b"[1]", "line 2: expected an object")):
        file.write_bytes(b'{"image": "0.png", "label": "a"}\n' + second)
        with pytest.raises(DataError, match=reason):
            open_source(folder, labels=file)


ODD = {
    "an empty object": ("{}", "got an empty one: give another"),
    "an empty list": ("[]", "got an empty one: give another"),
    "empty rows": ("[[], []]", "line 1: expected some cells, as in the others, got 0: correct the row"),
    "rows of two lengths": ('[["0.png", "ant"], ["1.png"]]', "line 2: expected 2 cells, as in the others, got 1"),
    "a number": ("7.5", "expected a list or an object in JSON, got '7.5': correct the file"),
    "nothing": ("null", "expected a list or an object in JSON, got 'null'"),
    "a number of too many digits": ("[" + "9" * 5000 + "]", "got a number of too many digits to read"),
}


@pytest.mark.parametrize("case", ODD)
def test_json_that_is_no_table(case: str, tmp_path: Path) -> None:
    text, message = ODD[case]
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        read_labels(file, FILES)


@pytest.mark.parametrize("text", ["5", "true", "null", '"a.png"'])
def test_json_that_is_no_list(text: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    for read in (ClassNames.read, lambda file: read_exclude_list(file, FILES)):
        with pytest.raises(DataError, match="expected a list or an object in JSON, got"):
            read(file)


def test_lists_in_lists_are_read_in_linear_time(tmp_path: Path) -> None:
    """Each text in that of the list around it would have twice the marks: of 60 lists, more than any memory."""
    rows: list[dict[str, object]] = [{"image": f"{i}.png", "label": name(i), "box": [1, 2]} for i in range(4)]
    inner: list[object] = ["'"]
    for _ in range(60):
        inner = [inner]
    rows[0]["box"] = inner
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert read_labels(tmp_path / "x.json", FILES).classes == ("ant", "bee")


def test_an_empty_text_among_names_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('["", "1.png"]')
    out, unmatched = read_exclude_list(tmp_path / "x.json", FILES)
    assert out.tolist() == [False, True, False, False] and unmatched == 1
