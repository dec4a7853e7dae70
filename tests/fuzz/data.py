"""Targets: data sets in .zip, .tar and .parquet files; folders; lists of labels, class names and exclusions."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from inceptionnet.data.class_names import ClassNames, named_classes
from inceptionnet.data.flat import read_labels
from inceptionnet.data.inputs import find_images
from inceptionnet.data.matching import read_exclude_list
from inceptionnet.data.sources import open_source

from ..data.made import png, write_tar, write_tree, write_zip
from .mutate import Mutation, of_bytes, of_json, of_members, of_tar, of_text
from .target import Attempt, Fault, Target

NAMES = ["é/猫_8.png", *(f"{name}/{name}_{i}.png" for name in ("cat", "dog") for i in range(6))]


def _images(path: Path, attempt: Attempt) -> None:
    """As data of a training, and to predict."""
    if source := attempt(open_source, path):
        for split in source.splits.values():
            for i in range(min(len(split), 20)):
                attempt(split.read, i)
    for image in (attempt(find_images, [path]) or [])[:20]:
        attempt(image.read)


def _zip(folder: Path) -> Mapping[str, bytes]:
    trees = {
        "flat.zip": ["0.png", "1.png"],
        "set.zip": NAMES,
        "split.zip": [f"{s}/{n}" for s in ("train", "val") for n in NAMES[1:]],
    }
    return {name: write_zip(folder / name, names).read_bytes() for name, names in trees.items()}


def _tar(folder: Path) -> Mapping[str, bytes]:
    found = {}
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        shard: dict[str, bytes] = {}
        for i in range(12):
            shard |= {f"{'n' * 120 if i == 3 else 'é'}/{i}.png": png(i)}
            shard |= {f"{'n' * 120 if i == 3 else 'é'}/{i}.cls": b"%d" % (i % 2)} if i % 3 else {}
            shard |= (
                {} if i % 3 else {f"{'n' * 120 if i == 3 else 'é'}/{i}.json": json.dumps({"label": i % 2}).encode()}
            )
        found[f"shard{format}.tar"] = write_tar(folder / f"{format}.tar", shard, format=format).read_bytes()
    found["images.tar"] = write_tar(folder / "i.tar", {f"a/{i}.png": png(i) for i in range(3)}).read_bytes()
    return found


def _parquet(folder: Path) -> Mapping[str, bytes]:
    def written(columns: Mapping[str, object], names: list[str] | None = None, **how: object) -> bytes:
        table = pa.table(columns)
        if names:
            about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
        pq.write_table(table, folder / "x", **how)
        return (folder / "x").read_bytes()

    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(12)]
    return {
        "train.parquet": written({"image": images, "label": [i % 2 for i in range(12)]}, ["a", "b"]),
        "plain.parquet": written({"img": [png(i) for i in range(12)], "label": ["a", "b"] * 6}, compression="none"),
        "labels.parquet": written({"file_name": NAMES[1:], "label": ["a", "b"] * 6}, use_dictionary=False),
        "packed.parquet": written({"file_name": NAMES[1:], "label": [[1, 2]] * 12}, compression="gzip"),
    }  # fmt: skip


def _read_parquet(path: Path, attempt: Attempt) -> None:
    if source := attempt(open_source, path.parent):
        for split in source.splits.values():
            for i in range(min(len(split), 20)):
                attempt(split.read, i)
    for image in (attempt(find_images, [path]) or [])[:20]:
        attempt(image.read)
    attempt(read_labels, path, NAMES)


def _wide(i: int, name: str, label: str) -> str:
    of = ";".join(str(int(label == one)) for one in ("cat", "dog", "é"))
    return f"{name};{('train', 'val', 'test')[i % 3]};P{i % 5};{of}\n"


def _lists(folder: Path) -> Mapping[str, bytes]:
    rows = [(name, name.partition("/")[0]) for name in NAMES]
    numbers = {"cat": 0, "dog": 1, "é": 2}
    texts = {
        "labels.csv": "image,label\n" + "".join(f"{a},{b}\n" for a, b in rows),
        "wide.csv": "file;split;patient_id;cat;dog;é\n" + "".join(_wide(i, *row) for i, row in enumerate(rows)),
        "several.tsv": "id\tlabels\n" + "".join(f"{a}\t{b};{'x' if i % 2 else 'y'}\n" for i, (a, b) in enumerate(rows)),
        "numbers.csv": "image,class_id,class_name\n" + "".join(f'"{a}",{numbers[b]},"{b}"\n' for a, b in rows),
        "labels.txt": "".join(f"{a} {b}\n" for a, b in rows),
        "labels.json": json.dumps(dict(rows)), "lists.json": json.dumps([list(row) for row in rows]),
        "objects.json": json.dumps({"data": [{"image": a, "label": [b, "x"]} for a, b in rows]}),
        "turned.json": json.dumps({"cat": NAMES[1:7], "dog": NAMES[7:]}),
        "labels.jsonl": "".join(json.dumps({"file_name": a, "label": b, "split": "train"}) + "\n" for a, b in rows),
        "classes.txt": "0 ant\n1 bee\n2 cat\n", "names.txt": "ant\nbee\ncat\n", "index.json": json.dumps(numbers),
        "config.json": json.dumps({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}),
        "names.csv": "id,name\n0,ant\n1,bee\n", "exclude.txt": "cat_0.png\ndog/dog_1.png\n8\n# x\n",
        "exclude.json": json.dumps(NAMES[:2]), "n.txt": "n02110341\n" * 13, "d.txt": "5\n" * 13,
    }  # fmt: skip
    return {name: text.encode() for name, text in texts.items()}


def in_list(name: str) -> Mutation:
    return of_json if name.endswith(".json") else of_text


def _read_list(path: Path, attempt: Attempt) -> None:
    attempt(open_source, path.parent / "images", labels=path)
    attempt(open_source, path.parent / "images", labels=path, evaluating=True, group_by="patient_id")
    attempt(ClassNames.read, path)
    attempt(named_classes, path)
    attempt(read_exclude_list, path, NAMES)


FOLDERS = [
    "cat", "dog", "a", "b", "train", "val", "test", "valid", "seg_train", "train_images", "test_images", "images",
    "Images", "masks", "labels", "annotations", "meta", "images_001", "images_002", "part_1", "part_2", "patient001",
    "patient002", "101_ObjectCategories", "n01443537", "n01629819",
]  # fmt: skip
IMAGES = [
    "0.jpg", "1.jpg", "2.png", "0_flip.jpg", "0_rot90.png", f"x_jpg.rf.{'a' * 32}.jpg", f"x_jpg.rf.{'b' * 32}.jpg",
    "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG",
]  # fmt: skip
BESIDE = {
    "metadata.csv": ["file_name,label\n0.jpg,cat\n1.jpg,dog\n", "file_name\n0.jpg\n", ""],
    "metadata.jsonl": ['{"file_name": "0.jpg", "label": "cat"}\n', "{"],
    "_classes.csv": ["filename, cat, dog\n0.jpg, 1, 0\n1.jpg, 0, 1\n", "filename\n0.jpg\n"],
    "val.txt": [
        "0.jpg cat\n1.jpg dog\n",
        "ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000002.JPEG 391\n",
        "0.jpg\n",
    ],
    "val_annotations.txt": ["0.jpg\tn01443537\t0\t1\t2\t3\n1.jpg\tn01629819\t0\t0\t2\t3\n"],
    "LOC_val_solution.csv": ["ImageId,PredictionString\nILSVRC2012_val_00000001,n01443537 1 2 3 4\n"],
    "imagenet_2012_validation_synset_labels.txt": ["n01443537\nn01629819\n"],
    "labels.csv": ["image,label\n0,a\n1,b\n"],
    "notes.txt": ["x"],
}


def _folders(folder: Path) -> Mapping[str, bytes]:
    return {
        "set.json": json.dumps(dict.fromkeys(["train/cat/0.jpg", "train/dog/0.jpg", "test/cat/1.jpg"], "")).encode()
    }


def _other_folders(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Files in folders of names that mean something, up to three deep; images have no content here."""
    files: dict[str, str] = {}

    def fill(base: str, depth: int) -> None:
        files.update({base + name: "" for name in chance.sample(IMAGES, chance.choice([0, 0, 1, 2, 4]))})
        for name in chance.sample(sorted(BESIDE), chance.choice([0, 0, 0, 1])):
            files[base + name] = chance.choice(BESIDE[name])
        for name in chance.sample(FOLDERS, chance.choice([0, 0, 1, 2, 3, 4 * (not depth)])) if depth < 3 else ():
            fill(f"{base}{name}/", depth + 1)

    fill("", 0)
    return json.dumps(files).encode()


def _read_folders(path: Path, attempt: Attempt) -> None:
    """Every image is used, or the note says what is not."""
    files = json.loads(path.read_bytes())
    packed = {name: text.encode() if text else png() for name, text in files.items()}
    images = sum(name.rpartition("/")[2] in IMAGES for name in files)
    with tempfile.TemporaryDirectory() as folder:
        for where in (write_tree(Path(folder) / "set", packed), write_zip(Path(folder) / "set.zip", packed)):
            for options in ({}, {"evaluating": True}, {"splits": "none"}):
                source = attempt(open_source, where, **options)
                used = sum(map(len, source.splits.values())) if source else images
                if used < images and not any(word in source.note for word in ("ignored", "not used")):
                    raise Fault(f"silent at {sorted(files)}: {source.note}")


TARGETS = [
    Target("zip", _zip, lambda _: of_members(lambda _: of_bytes(), stored=False), _images, 150),
    Target("tar", _tar, lambda _: of_tar, _images, 150),
    Target(
        "parquet",
        _parquet,
        lambda _: of_bytes((b"PAR1", b"\x15", b"\x19", b"\x1c", b"\x26", b"\0")),
        _read_parquet,
        150,
    ),
    Target("folders", _folders, lambda _: _other_folders, _read_folders, 150),
    Target("lists", _lists, in_list, _read_list, 150, lambda folder: write_tree(folder / "images", NAMES)),
]
