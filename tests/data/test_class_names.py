"""Lists of class names, in the files that people have."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from inceptionnet.data.class_names import ClassNames, named_classes, parse_bytes
from inceptionnet.data.imagenet import imagenet_classes
from inceptionnet.errors import DataError

ANT_BEE = {
    "lines": ("ant\n\nbee\n", "x.txt"),
    "comments": ("# two insects\nant\n#\nbee", "x"),
    "number first": ("1 bee\n0 ant\n", "x"),
    "colons": ("0: ant\n1: bee\n", "x"),
    "dots": ("0. ant\n1. bee\n", "x"),
    "dashes": ("0 - ant\n1 - bee\n", "x"),
    "commas in a text": ("0,ant\n1,bee", "x.txt"),
    "tabs": ("0\tant\n1\tbee\n", "x"),
    "number last": ("bee 1\nant 0\n", "x"),
    "number after a comma": ("bee,1\nant,0\n", "x.txt"),
    "quotes and commas": ('"ant",\n"bee",\n', "x.py"),
    "a CSV with a header": ("index,name\n1,bee\n0,ant\n", "x.csv"),
    "the columns the other way round": ("class_name;class_id\nbee;1\nant;0\n", "x.csv"),
    "a CSV of one column": ("label\nant\nbee\n", "x.csv"),
    "without header": ("0,ant\n1,bee\n", "x.csv"),
    "pandas": (",class\n0,ant\n1,bee\n", "x.csv"),
    "more columns": ("class_id,class_name,images\n0,ant,12\n1,bee,7\n", "x.csv"),
    "tab-separated": ("id\tname\n0\tant\n1\tbee\n", "x.tsv"),
    "a JSON list": ('["ant", "bee"]', "x.json"),
    "class_indices.json": ('{"bee": 1, "ant": 0}', "class_indices.json"),
    "the other way round": ('{"1": "bee", "0": "ant"}', "x.json"),
    "JSON by another name": ('{"bee": 1, "ant": 0}', "x.txt"),
    "printed by Python": ("{'bee': 1, 'ant': 0}", "x.txt"),
    "id2label": (json.dumps({"model_type": "x", "id2label": {"1": "bee", "0": "ant"}}), "config.json"),
    "label2id": (json.dumps({"label2id": {"bee": 1, "ant": 0}}), "config.json"),
    "timm's label_names": (json.dumps({"num_classes": 2, "label_names": ["ant", "bee"]}), "config.json"),
    "categories": (json.dumps([{"id": 1, "name": "bee"}, {"id": 0, "name": "ant"}]), "x.json"),
}


@pytest.mark.parametrize("case", ANT_BEE)
def test_any_list_of_class_names(tmp_path: Path, case: str) -> None:
    text, name = ANT_BEE[case]
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert ClassNames.read(tmp_path / name).names == ("ant", "bee") == named_classes(tmp_path / name)


OTHERS = {
    "digits": ("0\n1\n10\n", ("0", "1", "10")),
    "digits by number": ('{"0": 0, "1": 1, "10": 2}', ("0", "1", "10")),
    "from 1": ("1 001.Albatross\n2 002.Auklet\n", ("001.Albatross", "002.Auklet")),
    "numbers in the names": ("7 up\ncola\n3 musketeers\nfanta\n", ("7 up", "cola", "3 musketeers", "fanta")),
    "years": ("Hummer 2000\nFiat 2012\n", ("Hummer 2000", "Fiat 2012")),
    "a list of YAML": ("- ant\n- bee\n", ("ant", "bee")),
    "counted": ("class 0\nclass 1\nclass 2\n", ("class 0", "class 1", "class 2")),
    "coins": ("1 euro\n2 euro\n", ("1 euro", "2 euro")),
    "Caltech": ("001.ak47\n002.flag\n", ("001.ak47", "002.flag")),
    "brackets": ("[bold]x[/bold]\n-h\n#tag\n10%\n", ("[bold]x[/bold]", "-h", "#tag", "10%")),
    "other separators of Unicode": ("a\x0bb\nc\u2028d\n", ("a\x0bb", "c\u2028d")),
    "ImageNet's index": ('{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', ("n01440764", "n01443537")),
}


@pytest.mark.parametrize("case", OTHERS)
def test_names_with_numbers_and_marks(case: str) -> None:
    text, names = OTHERS[case]
    assert ClassNames.parse(text, "x").names == names


def test_quoted_names_in_a_table() -> None:
    table = 'index,wnid,name\n1,n2,"crane, bird"\n0,n1,tench\n'
    assert ClassNames.parse(table, "x.csv").names == ("tench", "crane, bird")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(encoding: str) -> None:
    assert parse_bytes("Löwe\r\nbee\r\n".encode(encoding), "x").names == ("Löwe", "bee")


REFUSED = {
    "nothing": (b"\n", "x.txt", "expected unique class names, one per line, got none"),
    "twice": (b"ant\nbee\n\nant\n", "x.txt", r"line 4: .* got ant twice \(line 1 has it too\)"),
    "twice in two forms": ("é\ne\u0301".encode(), "x", "line 2: .* got é twice"),
    "a gap": (b"0 ant\n2 bee\n", "x.txt", "line 2: expected 2 classes numbered 0 to 1, got 2: number them"),
    "a number twice": (b"0,ant\n0,bee\n", "x.csv", "line 2: expected 2 classes numbered 0 to 1, got 0 again"),
    "a number missing": (b"0 ant\nbee\n2 cat\n", "x.txt", "line 2: expected a number and a name as on the other lines"),
    "JSON with a mistake": (b'{"ant": 0,\n "bee" 1}', "x.json", "line 2: expected JSON, got a mistake in it"),
    "JSON by another name with a mistake": (b'["ant",\n "bee"', "x.txt", "line 2: expected JSON"),
    "a key twice": (b'{"ant": 0, "ant": 1}', "x.json", "expected every key once, got 'ant' twice"),
    "the same number": (b'{"ant": 0, "bee": 0}', "x.json", "expected 2 classes numbered 0 to 1, got 0 again"),
    "other JSON": (b'{"a": {"b": 1}}', "x.json", r"expected class names as \[.ant., .bee.\], .*, got \{'a'"),
    "YAML": (b"names:\n  0: ant\n", "data.yaml", "expected class names as text, CSV or JSON, got .yaml: save"),
    "a comma without quotes": (b"0,ant\n1,tench, fish\n", "x.csv", "line 2: expected 2 cells as on line 1, got 3"),
    "columns of numbers": (b"1,2,ant\n3,4,bee\n", "x.csv", "line 1: expected a column of class names"),
    "another encoding": ("bee\nLöwe".encode("latin-1"), "x.txt", "line 2: is not in UTF-8: save the file as UTF-8"),
    "binary": (b"PK\3\4\0\0", "x.txt", "expected class names, got binary data"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_lists_that_are_refused(tmp_path: Path, case: str) -> None:
    content, name, reason = REFUSED[case]
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"^{file}: {reason}") as caught:
        ClassNames.read(file)
    assert "\n" not in str(caught.value)


def test_names_are_composed() -> None:
    names = ClassNames.parse(unicodedata.normalize("NFD", "thé\ncafé"), "x")
    assert names.names == ("thé", "café") and names.number(unicodedata.normalize("NFD", "café"), "") == 1


def test_classes_of_an_option(tmp_path: Path) -> None:
    assert named_classes("imagenet") == imagenet_classes()
    assert named_classes(["b", "a"]) == ("b", "a")
    with pytest.raises(
        DataError, match=r"^--classes .*gone: expected a file with class names or imagenet, got no such file"
    ):
        named_classes(tmp_path / "gone", "--classes")
