"""Streams against servers on this machine: order, counts, names, broken connections, and every refusal."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from inceptionnet.data import Source, open_source, splits
from inceptionnet.data.check import check
from inceptionnet.data.splits import Encoded, StreamSplit
from inceptionnet.errors import DataError, MissingExtraError

from .made import png, write_tar
from .server import Site, hub

CLASSES = b"0 ant\n1 bee\n"


def shard(tmp_path: Path, first: int, count: int) -> bytes:
    """Image i is grey i, with label i modulo 2."""
    files = {}
    for i in range(first, first + count):
        files |= {f"{i:04}.png": png(i), f"{i:04}.cls": b"%d" % (i % 2), f"{i:04}.txt": b"a caption"}
    return write_tar(tmp_path / "x.tar", files).read_bytes()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("inceptionnet.data.web.WAIT_S", 0)
    monkeypatch.setenv("no_proxy", "*")
    shards = {f"train-{i:03}.tar": shard(tmp_path, 10 * i, 10) for i in range(3)} | {
        "val-0.tar": shard(tmp_path, 30, 4)
    }
    sizes = json.dumps({name: 4 if name == "val-0.tar" else 10 for name in shards}).encode()
    files = shards | {"classes.txt": CLASSES, "sizes.json": sizes}
    with Site({f"pets/{name}": data for name, data in files.items()}).served() as served:
        yield served


def stream(source: Source, split: str = "train") -> StreamSplit:
    found = source.splits[split]
    assert isinstance(found, StreamSplit)
    return found


def greys(images: list[Encoded]) -> list[int]:
    """The images' numbers, after a look at name, label and bytes."""
    numbers = [int(name.rpartition("/")[2].removesuffix(".png")) for name, _, _ in images]
    assert [(label, data) for _, label, data in images] == [(i % 2, png(i)) for i in numbers]
    return numbers


@pytest.mark.parametrize("name", ["", "{train-{000..002},val-0}.tar"])
def test_shards_in_order_and_shuffled(site: Site, name: str) -> None:
    source = open_source(f"{site.url}/pets/{name}")
    assert source.classes == ("ant", "bee") and source.note == "streamed (30 train, 4 val)"
    assert source.title == f"{site.url}/pets/" and {path for path, _ in site.asked} == {
        "/pets/sizes.json",
        "/pets/classes.txt",
    }
    train, val = stream(source), stream(source, "val")
    assert len(train) == 30 and len(val) == 4
    in_order = list(train.iterate(0, None))
    assert greys(in_order) == list(range(30)) and in_order[12][0] == "train-001.tar/0012.png"
    assert greys(list(val.iterate(3, None))) == [30, 31, 32, 33]
    orders = {(seed, epoch): tuple(greys(list(train.iterate(epoch, seed)))) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(set(orders.values())) == 6 and all(sorted(order) == list(range(30)) for order in orders.values())
    again = stream(open_source(f"{site.url}/pets/{name}"))
    assert tuple(greys(list(again.iterate(2, 1)))) == orders[1, 2]


def test_a_small_buffer_shuffles_shards_and_near_images(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    train = stream(open_source(f"{site.url}/pets/"))
    monkeypatch.setattr(splits, "BUFFER_IMAGES", 4)
    order = greys(list(train.iterate(0, 0)))
    shards = [order[i] // 10 for i in (0, 15, -1)]
    assert sorted(order) == list(range(30)) and sorted(shards) == [0, 1, 2]
    arrival = {grey: 10 * shards.index(grey // 10) + grey % 10 for grey in order}
    early = [arrival[grey] - place for place, grey in enumerate(order)]
    assert max(early) == 4, "an image comes at most as many places early as are held back"
    monkeypatch.setattr(splits, "BUFFER_BYTES", 0)
    assert [grey % 10 for grey in greys(list(train.iterate(0, 0)))] == [*range(10)] * 3


def test_every_order_of_three_is_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    split = StreamSplit("x", 3, 1, lambda shard: iter([(str(i), 0, b"") for i in range(3)]))
    counts: dict[str, int] = {}
    for epoch in range(1200):
        order = "".join(name for name, _, _ in split.iterate(epoch, 0))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6 and all(abs(count - 200) < 4 * 200**0.5 for count in counts.values())


def test_a_stopped_pass_leaves_no_connection_open(site: Site) -> None:
    images = stream(open_source(f"{site.url}/pets/")).iterate(0, None)
    assert next(images)[0] == "train-000.tar/0000.png"
    images.close()  # a socket left open would be a ResourceWarning, and so an error


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_compressed_shards(site: Site, pack: Any) -> None:
    site.files["pets/train-001.tar"] = pack(site.files["pets/train-001.tar"])
    assert greys(list(stream(open_source(f"{site.url}/pets/")).iterate(0, None))) == list(range(30))


def test_a_key_in_the_address_goes_along(site: Site) -> None:
    source = open_source(f"{site.url}/pets/{{train-000,val-0}}.tar?key=1&x=a/b")
    assert greys(list(stream(source).iterate(0, None))) == list(range(10))
    assert all(path.endswith("?key=1&x=a/b") for path, _ in site.asked) and source.title == f"{site.url}/pets/"


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connections_are_gone_on_with(site: Site, ranges: bool) -> None:
    train = stream(open_source(f"{site.url}/pets/"))
    site.ranges = ranges
    site.refusals[:] = [503, 429]
    site.cuts[:] = [3000, 0, 5000] if ranges else [3000, 0, 9000]
    assert greys(list(train.iterate(0, None))) == list(range(30))
    asked = [span for path, span in site.asked if path == "/pets/train-000.tar"]
    assert asked == ["", "", "", "bytes=3000-", "bytes=3000-", f"bytes={8000 if ranges else 9000}-"]


def test_a_shard_that_changes_meanwhile(site: Site) -> None:
    train = stream(open_source(f"{site.url}/pets/"))
    site.cuts[:] = [9000]
    images = train.iterate(0, None)
    next(images)
    site.files["pets/train-000.tar"] += bytes(512)
    with pytest.raises(
        DataError, match=r"train-000.tar: expected \d+ bytes as before, got \d+: the file has changed; start again"
    ):
        list(images)


def test_what_cannot_be_read(site: Site, tmp_path: Path) -> None:
    where = f"{site.url}/pets/"
    train = stream(open_source(where))
    whole = site.files["pets/train-001.tar"]

    def refused(reason: str) -> None:
        with pytest.raises(DataError, match=reason) as caught:
            list(train.iterate(0, None))
        assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{where}train-001.tar: ")

    def replaced(name: str, data: bytes) -> bytes:
        return write_tar(tmp_path / "y.tar", {"0.png": png(0), name: data}).read_bytes()

    for data, reason in {
        shard(tmp_path, 10, 9): "expected 10 images as sizes.json says, got 9: correct sizes.json or the shard",
        whole[:15_100]: r"expected 10 images as sizes.json says, got \d|expected a tar file, got a damaged one",
        b"no tar" * 1000: r"expected a tar file, got a damaged one \(.*\): create it again",
        gzip.compress(whole)[:300]: "expected a tar file, got a damaged one|expected 10 images",
        replaced("0.cls", b"2"): r"0.png: expected a label from 0 to 1 or a name in classes.txt, got 2",
        replaced("0.txt", b"1"): r"expected 0.cls next to 0.png .txt, got none|expected 0.cls next to 0.png, got none",
        replaced("0.cls", b"1" * 2**20 + b"1"): "expected 0.cls of at most 1048576 bytes, got 1048577",
    }.items():
        site.files["pets/train-001.tar"] = data
        refused(reason)
    del site.files["pets/train-001.tar"]
    refused("expected a shard, got no such file: check the URL")
    site.files["pets/train-001.tar"] = whole
    site.refusals[:] = [200, 403]
    refused("cannot be read: the server answers 403 Forbidden; try again, a run can be resumed")
    site.refusals[:] = [200, *[500] * 5]
    refused("cannot be read: the server answers 500 Internal Server Error; try again, a run can be resumed")


def test_undecodable_images_are_passed_on(site: Site, tmp_path: Path) -> None:
    files = {"0.png": b"", "0.cls": b"bee", "1.png": b"junk", "1.json": b'{"label": 0}'}
    site.files["pets/val-0.tar"] = write_tar(tmp_path / "y.tar", files).read_bytes()
    site.files["pets/sizes.json"] = b'{"train-000.tar": 10, "val-0.tar": 2}'
    val = stream(open_source(f"{site.url}/pets/"), "val")
    assert list(val.iterate(0, None)) == [("val-0.tar/0.png", 1, b""), ("val-0.tar/1.png", 0, b"junk")]


@pytest.mark.parametrize(
    ("files", "name", "reason"),
    [
        ({"sizes.json": None}, "", r"pets/sizes.json: expected each shard's number .* no such file: .*tar tf SHARD \|"),
        ({"sizes.json": b"{"}, "", "sizes.json: expected each shard's number of images, as .*, got Expecting"),
        ({"sizes.json": b'{"train-000.tar": "9"}'}, "", "got other values: add it"),
        ({"sizes.json": b'["train-000.tar"]'}, "", "sizes.json: expected each shard's number"),
        ({"classes.txt": None}, "", r"classes.txt: expected class names, .*, got no such file: add it"),
        ({"classes.txt": b"ant\n"}, "", r"at least 2 classes, got 1 \(ant\)"),
        ({}, "train-{000..003}.tar", "train-003.tar: expected a shard that is in .*/pets/sizes.json, got another"),
        (
            {},
            "train-{000..002}.tar",
            "expected train and val or test, since nothing can be held out of a stream, got",
        ),
        ({"sizes.json": b'{"a.tar": 1}'}, "", "got no split: add the missing split"),
    ],
)
def test_refused_sites(site: Site, files: dict[str, bytes | None], name: str, reason: str) -> None:
    for file, data in files.items():
        if data is None:
            del site.files[f"pets/{file}"]
        else:
            site.files[f"pets/{file}"] = data
    with pytest.raises(DataError, match=reason) as caught:
        open_source(f"{site.url}/pets/{name}")
    assert "\n" not in str(caught.value) and str(caught.value).startswith(site.url)


def test_one_split_is_enough_for_an_evaluation(site: Site) -> None:
    source = open_source(f"{site.url}/pets/val-0.tar", evaluating=True)
    assert list(source.splits) == ["val"] and len(stream(source, "val")) == 4
    with pytest.raises(DataError, match="expected train and val or test"):
        open_source(f"{site.url}/pets/val-0.tar")


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inceptionnet.data.web.WAIT_S", 0)
    monkeypatch.setenv("no_proxy", "*")
    with Site({}).served() as gone:
        pass
    with pytest.raises(DataError, match=r"sizes.json: cannot be read: .*Connection refused; try again"):
        open_source(f"{gone.url}/pets/")


def test_counts_and_all() -> None:
    for got, count in (("2", 2), ("more", 4)):
        images = [("x", 0, b"")] * count
        split = StreamSplit("pets, train", 3, 1, lambda shard, images=images: iter(images))
        seen = []
        with pytest.raises(DataError, match=f"^pets, train: expected 3 images, got {got}: correct the stated number"):
            seen.extend(split.iterate(0, 0))
    source = Source("pets", ("a", "b"), {"train": split, "val": split}, "")
    assert source.pick("auto") == ("val", split)
    with pytest.raises(DataError, match=r"^pets: expected one split of a stream, got all: use train or val$"):
        source.pick("all")


README = """---
dataset_info:
  features:
  - name: {image}
    dtype: image
  - name: label
    dtype:
      class_label:
        names: {{'0': ant, '1': bee}}
  - name: caption
    dtype: string
  splits:
  - {{name: train, num_bytes: 1, num_examples: 10}}
  - {{name: validation, num_bytes: 1, num_examples: 3}}
  - {{name: test, num_bytes: 1, num_examples: 2}}
configs:
- config_name: default
  data_files:
  - {{split: train, path: data/train-*}}
  - {{split: validation, path: data/validation-*}}
  - {{split: test, path: data/test-*}}
---
"""


def table(first: int, count: int, label: int | None = None, image: str = "image") -> bytes:
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(first, first + count)]
    labels = [i % 2 if label is None else label for i in range(first, first + count)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({image: pa.array(images, kind), "label": labels, "caption": [""] * count}), sink)
    return bytes(sink.getvalue())


def repository() -> dict[str, bytes]:
    return {
        "README.md": README.format(image="image").encode(),
        "data/train-00000-of-00002.parquet": table(0, 6), "data/train-00001-of-00002.parquet": table(6, 4),
        "data/validation-00000-of-00001.parquet": table(20, 3), "data/test-00000-of-00001.parquet": table(30, 2, -1),
    }  # fmt: skip


def folder(path: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return f"hf:{path}"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "STREAMING_READ_RETRY_INTERVAL", 0)


def looked_at(source: Source) -> None:
    assert source.classes == ("ant", "bee") and source.note == (
        "streamed (10 train, 3 val); test ignored: its first label is -1 (unlabelled); columns not used: caption"
    )
    train = stream(source)
    assert greys(list(train.iterate(0, None))) == list(range(10))
    assert greys(list(stream(source, "val").iterate(0, None))) == [20, 21, 22]
    orders = [tuple(greys(list(train.iterate(epoch, 5)))) for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1] and all(sorted(order) == list(range(10)) for order in orders)


def test_a_folder_of_the_datasets_library(tmp_path: Path, caches: None) -> None:
    looked_at(open_source(folder(tmp_path / "pets", repository())))


def test_the_hub(tmp_path: Path, caches: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(repository()) as site:
        for module, name in ((huggingface_hub.constants, "ENDPOINT"), (datasets.config, "HF_ENDPOINT")):
            monkeypatch.setattr(module, name, site.url)
        template = f"{site.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        source = open_source("hf:me/pets:default@main")
        assert source.title == "me/pets"
        looked_at(source)
        with pytest.raises(
            DataError, match=r"^hf:me/pets:dogs: cannot be opened: .*'dogs' not found.*; check the name"
        ):
            open_source("hf:me/pets:dogs")
        site.error_code = "RepoNotFound"
        with pytest.raises(DataError, match=r"^hf:me/dogs: cannot be opened: Dataset 'me/dogs' doesn't exist"):
            open_source("hf:me/dogs")


@pytest.mark.parametrize(("row", "label"), [(0, -1), (1, -1), (2, 2)])
def test_an_image_without_a_class_is_an_error(tmp_path: Path, caches: None, row: int, label: int) -> None:
    rows = [pq.read_table(pa.BufferReader(table(20 + i, 1, label if i == row else 0))) for i in range(3)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(rows), sink)
    files = repository() | {"data/validation-00000-of-00001.parquet": bytes(sink.getvalue())}
    source = open_source(folder(tmp_path / "pets", files))
    with pytest.raises(DataError, match=f"expected a label from 0 to 1 for every image, got {label} for .* in valid"):
        check(source, workers=0)


def test_images_beside_the_table(tmp_path: Path, caches: None) -> None:
    files = {f"{split}/{name}/{i}.png": png(i) for split in ("train", "test") for i, name in enumerate(("ant", "bee"))}
    sizes = "splits:\n  - {name: train, num_examples: 2}\n  - {name: test, num_examples: 2}"
    files["README.md"] = f"---\ndataset_info:\n  {sizes}\n---\n".encode()
    source = open_source(folder(tmp_path / "pets", files))
    assert source.classes == ("ant", "bee") and source.note == "streamed (2 train, 2 test)"
    assert [(label, data) for _, label, data in stream(source).iterate(0, None)] == [(0, png(0)), (1, png(1))]


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"README.md": b""},
        "expected images in image/img and labels in label/.*, got image, label, caption in train: rename them",
    ),
    ({"README.md": README.format(image="photo").replace("image\n", "string\n").encode()}, "."),
    (
        {"README.md": README.format(image="image").split("  splits:")[0].encode() + b"---\n"},
        "expected the number of images",
    ),
    ({"data/train-00000-of-00002.parquet": b"x"}, "cannot be"),
    ({"data/train-00000-of-00002.parquet": table(0, 6, 1)[:-8]}, "cannot be"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_refused_folders(tmp_path: Path, caches: None, number: int) -> None:
    files, reason = REFUSED[number]
    where = folder(tmp_path / "pets", repository() | files)
    with pytest.raises(DataError, match=reason) as caught:
        list(stream(open_source(where)).iterate(0, None))
    assert str(caught.value).startswith(f"{where}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:/no/where", "hf:a b"])
def test_refused_names(name: str) -> None:
    with pytest.raises(DataError, match="expected hf:owner/name, optionally with :config and @revision"):
        open_source(name)


def test_without_the_datasets_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"datasets.*inceptionnet\[stream\]"):
        open_source("hf:me/pets")


def test_forked_workers_beside_a_stream(tmp_path: Path, caches: None) -> None:
    """The stream stays in this process; what it gives is worked on in another."""
    train = stream(open_source(folder(tmp_path / "pets", repository())))

    class Sizes(torch.utils.data.Dataset[int]):
        def __getitem__(self, image: Encoded) -> int:
            return len(image[2])

    for _ in range(2):
        batches = ([image] for image in train.iterate(0, 0))
        loader = torch.utils.data.DataLoader(
            Sizes(), batch_sampler=batches, num_workers=1, multiprocessing_context="fork", timeout=20
        )
        assert sorted(int(size) for size in loader) == sorted(len(png(i)) for i in range(10))
