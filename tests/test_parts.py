"""Tables in parts: killed anywhere and gone on with by any number of processes, each image has one row, the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from inceptionnet import create_model, load, save_weights
from inceptionnet.cli import main
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import DataError, ProcessError
from inceptionnet.system import failures
from inceptionnet.system import parts as in_parts
from inceptionnet.system.distributed import ALONE, World
from inceptionnet.system.files import PART
from inceptionnet.system.parts import JOB, SUCCESS, Totals, open_parts
from inceptionnet.system.parts_queue import write_missing

from .conftest import write_images
from .data.made import write_tar
from .data.server import Site
from .forked import Forked, met

Command = Callable[..., tuple[int, str, str]]
KILLED = """
import os, signal, sys
from inceptionnet.cli import main
from inceptionnet.system import parts

where, number, sys.argv = sys.argv[1], int(sys.argv[2]), ["inceptionnet", *sys.argv[3:]]
write = parts.Parts.write
def killed(self, part, schema, tables):
    def stopped():
        part_written = False
        for table in tables:
            if (where, number) == ("within", part):
                parts.GROUP_BYTES = 1  # the first table is written before the second one is asked for
                if part_written:
                    os.kill(os.getpid(), signal.SIGKILL)
            part_written = True
            yield table
    write(self, part, schema, stopped())
    if (where, number) == ("after", part):
        os.kill(os.getpid(), signal.SIGKILL)
parts.Parts.write = killed
main()
"""
PLAIN = "import sys; from inceptionnet.cli import main; sys.argv[0] = 'inceptionnet'; main()"
CORRUPT = "green/03.png"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    model = create_model("inception_v1.slim", width=0.125, num_classes=3, input_size=32)
    for weight in (w for w in model.parameters() if w.ndim > 1):
        torch.nn.init.kaiming_normal_(weight)  # an untrained network's own would say the same of every image
    save_weights(model, path, classes=("red", "green", "café"), preprocessing=Preprocessing(32))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 images, one of them corrupt."""
    folder = write_images(tmp_path_factory.mktemp("images") / "images", 12)
    (folder / CORRUPT).write_bytes((folder / CORRUPT).read_bytes()[:200])
    return folder


def words(command: str, weights: Path, images: Path | str, out: Path, size: int = 8) -> list[object]:
    own = ["--top", 2] if command == "predict" else []
    return [command, weights, images, "--out", out, "--part-size", size, "--batch-size", 3, "--workers", 0, *own]


@pytest.fixture(scope="module")
def whole(weights: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both tables without an interruption."""
    out = tmp_path_factory.mktemp("whole")
    for name in ("predict", "features"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["inceptionnet", *map(str, words(name, weights, images, out / name))])
            with pytest.raises(SystemExit) as end:
                main()
            assert end.value.code == 0
    return {name: out / name for name in ("predict", "features")}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("part-*")}


@pytest.mark.parametrize(
    ("name", "where", "number", "there", "processes"),
    [
        ("predict", "within", 2, 2, 1),
        pytest.param("predict", "after", 0, 1, 2, marks=pytest.mark.slow),
        pytest.param("features", "within", 0, 0, 2, marks=pytest.mark.slow),
        pytest.param("features", "after", 4, 5, 2, marks=pytest.mark.slow),
    ],
)
def test_killed_and_gone_on_with(
    command: Command, weights: Path, images: Path, whole: dict[str, Path], tmp_path: Path, with_training: Forked,
    name: str, where: str, number: int, there: int, processes: int,
) -> None:  # fmt: skip
    """By one process or two; the files are the same byte by byte, and nothing else is left."""
    out = tmp_path / "out"
    killed = with_training(KILLED, where, number, *words(name, weights, images, out))
    assert killed.returncode == -9, killed.stderr
    assert len(contents(out)) == there and not (out / SUCCESS).exists()
    assert len(list(out.glob(f".*{PART}*"))) == (where == "within")
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("part-*")}
    if processes == 1:
        assert command(*words(name, weights, images, out))[0] == 0
    else:
        with met(processes) as each:
            done = with_training.together(PLAIN, *words(name, weights, images, out), each=each)
        assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
        assert [bool(one.stdout) for one in done] == [True, False], "the main process alone speaks"
    assert contents(out) == contents(whole[name])
    assert {file.name: file.stat().st_mtime_ns for file in out.glob("part-*")}.items() >= before.items()
    assert {file.name for file in out.iterdir()} == {JOB, SUCCESS, *contents(out)}
    table = pq.read_table(out)
    assert table.num_rows == len(set(table["image"].to_pylist())) == 36


def test_rows_of_predictions(whole: dict[str, Path], weights: Path, images: Path) -> None:
    rows = pq.read_table(whole["predict"]).to_pylist()
    names = sorted(file.relative_to(images).as_posix() for file in images.rglob("*.png"))
    assert sorted(row["image"] for row in rows) == names
    classifier = load(weights)
    for row in rows:
        assert row["label"] == row["image"].partition("/")[0] and row["split"] in ("train", "val")
        if row["image"] == CORRUPT:
            assert "truncated" in row["error"] and row["class_1"] is row["probability_2"] is None
            continue
        found = classifier.predict(images / row["image"], top=2)
        assert row["error"] is None and [row["class_1"], row["class_2"]] == [name for name, _ in found.top]
        assert row["probability_1"] == pytest.approx(found.probability, abs=1e-5)
    about = json.loads((whole["predict"] / JOB).read_text())
    assert about["top"] == 2 and about["part_size"] == 8 and about["parts"] == 5


def test_rows_of_features(whole: dict[str, Path], weights: Path, images: Path) -> None:
    table, classifier = pq.read_table(whole["features"]), load(weights)
    for row in table.slice(0, 5).to_pylist():
        assert np.allclose(row["features"], classifier.embed(images / row["image"]), atol=1e-4)
    (corrupt,) = (row for row in table.to_pylist() if row["error"])
    assert corrupt["image"] == CORRUPT and corrupt["features"] is None


def test_another_job_is_refused(
    command: Command, weights: Path, images: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    """Whatever the rows depend on; and a folder with something else, a file and another kind of file."""
    other = tmp_path / "other.safetensors"
    save_weights(create_model("inception_v1.slim", width=0.125, num_classes=3, input_size=32), other)
    fewer = write_images(tmp_path / "fewer" / "images", 12)
    (fewer / "red" / "00.png").unlink()
    out, before = whole["predict"], contents(whole["predict"])
    for arguments, said in (
        (words("predict", other, images, out), "its weights is"),
        (words("predict", weights, fewer, out), "its images is"),
        (words("predict", weights, images, out, 9), "its part_size is 8, now 9"),
        ([*words("predict", weights, images, out), "--top", 1], "its top is 2, now 1"),
        (words("features", weights, images, out), "its answers is predictions, now features"),
        (words("predict", weights, images, tmp_path), "expected a new or empty folder"),
        (words("predict", weights, images, other), "expected a file ending in .parquet, or a folder"),
        (words("predict", weights, images, Path("/proc/none/x")), "expected a folder that can be written"),
        ([*words("predict", weights, images, out), "--csv", "x.csv"], "omit --csv"),
    ):
        code, text, err = command(*arguments)
        assert code == 2 and not text and err.count("\n") == 1 and said in err, err
    (out / JOB).rename(out / "away")
    (out / JOB).write_text("[1")
    code, _, err = command(*words("predict", weights, images, out))
    (out / "away").rename(out / JOB)
    assert code == 2 and "expected what the parts are of" in err
    assert contents(out) == before


def test_a_finished_job_does_nothing_and_a_damaged_part_is_made_again(
    command: Command, weights: Path, images: Path, tmp_path: Path
) -> None:
    arguments = [*words("predict", weights, images, tmp_path / "out"), "--json"]
    assert command(*arguments)[0] == 0
    good = contents(tmp_path / "out")
    first, second, third, *_ = sorted((tmp_path / "out").glob("part-*"))
    first.write_bytes(first.read_bytes()[:-20])
    second.unlink()
    third.write_bytes(next(iter(good.values())))  # the wrong one
    code, text, _ = command(*arguments)
    figures = json.loads(text)
    assert code == 0 and contents(tmp_path / "out") == good
    assert (figures["images"], figures["errors"]) == (36, 1) and figures["decode_errors"][0]["name"] == CORRUPT
    times = [file.stat().st_mtime_ns for file in (first, second, third)]
    assert json.loads(command(*arguments)[1]) == figures
    assert [file.stat().st_mtime_ns for file in (first, second, third)] == times


def test_one_file(command: Command, weights: Path, images: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    for name in ("predict", "features"):
        out = tmp_path / f"{name}.parquet"
        code, _, _ = command(*words(name, weights, images, out))
        assert code == 0
        one, parts = pq.read_table(out), pq.read_table(whole[name])
        assert one.drop_columns(one.column_names[3:5]) == parts.drop_columns(one.column_names[3:5])
        assert not np.ptp([len(table) for table in (one, parts)])
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.png").write_bytes(b"x")
    for out in (tmp_path / "x.parquet", tmp_path / "x"):
        code, _, err = command(*words("predict", weights, bad, out))
        assert code == 2 and "error: a.png: is not an image" in err
    assert not (tmp_path / "x.parquet").exists()


def test_shards_here_and_streamed(
    command: Command, weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images in shards of a folder and of a server, which gives a part for each; killed servers resume."""
    monkeypatch.setenv("no_proxy", "*")
    files = sorted(images.rglob("*.png"))
    shards = {}
    for i, first in enumerate(range(0, 36, 15)):
        held = {}
        for j, file in enumerate(files[first : first + 15]):
            held |= {f"{j:02}.png": file.read_bytes(), f"{j:02}.cls": file.parent.name.encode()}
        shards[f"train-{i}.tar"] = write_tar(tmp_path / "shards" / f"train-{i}.tar", held).read_bytes()
    assert command(*words("predict", weights, tmp_path / "shards", tmp_path / "here", 15))[0] == 0
    more = {
        "classes.txt": b"blue\ngreen\nred\n",
        "sizes.json": b'{"train-0.tar": 15, "train-1.tar": 15, "train-2.tar": 6}',
    }
    with Site({f"s/{name}": data for name, data in (shards | more).items()}).served() as site:
        arguments = words("predict", weights, f"{site.url}/s/train-{{0..2}}.tar", tmp_path / "there")
        code, _, err = command(*arguments)
        assert code == 2 and "nothing is fetched unless --allow-urls is given" in err
        del site.files["s/train-1.tar"]
        code, _, err = command(*arguments, "--allow-urls")
        assert code == 2 and "train-1.tar: expected a shard, got no such file" in err
        assert len(contents(tmp_path / "there")) == 1
        site.files["s/train-1.tar"] = shards["train-1.tar"]
        asked = len(site.asked)
        assert command(*arguments, "--allow-urls")[0] == 0
        assert not any("train-0" in path for path, _ in site.asked[asked:]), "its part is there"
    here, there = pq.read_table(tmp_path / "here"), pq.read_table(tmp_path / "there")
    assert sorted(here["image"].to_pylist()) == sorted(there["image"].to_pylist()) and len(there) == 36
    keys = ["image", "label", "class_1", "probability_1", "error"]
    one, other = (table.select(keys).sort_by("image").to_pylist() for table in (here, there))
    assert [row["image"] for row in one] == [row["image"] for row in other]
    for mine, its in zip(one, other, strict=True):
        assert [mine[key] for key in ("label", "class_1", "error")] == [
            its[key] for key in ("label", "class_1", "error")
        ]
        assert mine["probability_1"] == pytest.approx(its["probability_1"], abs=1e-5)


def test_a_folder_at_work(command: Command, weights: Path, images: Path, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from inceptionnet.system.files import FolderLock\n"
    code += "lock = FolderLock(Path(sys.argv[1])); print(flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout and holder.stdout.readline()
    try:
        done, _, err = command(*words("predict", weights, images, tmp_path))
    finally:
        holder.communicate("\n")
    assert done == 2 and f"process {holder.pid} is at work in it" in err


def test_ctrl_c_says_what_is_kept(
    command: Command, weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = in_parts.Parts.write

    def stopped(self: in_parts.Parts, number: int, *how: Any) -> None:
        if number == 2:
            raise KeyboardInterrupt
        write(self, number, *how)

    monkeypatch.setattr(in_parts.Parts, "write", stopped)
    code, _, err = command(*words("predict", weights, images, tmp_path / "out"))
    assert code == 130 and f"stopped: 2 of 5 parts are in {tmp_path / 'out'}; the same command goes on" in err
    assert {file.name for file in (tmp_path / "out").iterdir()} == {JOB, *contents(tmp_path / "out")}


SCHEMA = pa.schema([(name, pa.string()) for name in ("image", "error")])


class _Store(dict[str, int]):
    """Of two processes, of which the other one has taken a part and does nothing."""

    def add(self, key: str, number: int) -> int:
        self[key] = self.get(key, 0) + number
        return self[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default)


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_others_that_do_not_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv(failures.LIMIT, "0.3")
    monkeypatch.setattr(World, "gather", lambda self, value: [value])
    store: Any = _Store()
    world = World(0, 2, store)
    with open_parts(tmp_path, {}, 3, world) as parts:
        store.add(f"parts of {parts.job}", 1)

        def tables(number: int, advance: Callable[[int], None]) -> list[pa.Table]:
            advance(1)
            if how == "fails":
                store["failed"] = b"process 1 failed: no room"
            return [pa.table({"image": [str(number)], "error": [None]}, SCHEMA)]

        said = "process 1 failed: no room" if how == "fails" else "the others did nothing for 0.3 s"
        with pytest.raises(ProcessError, match=said):
            write_missing(parts, SCHEMA, tables, world, images=3, title="x")
    assert sorted(contents(tmp_path)) == [f"part-0000{i}-of-00003.parquet" for i in (1, 2)]


def test_a_changed_page_is_noticed(tmp_path: Path) -> None:
    with open_parts(tmp_path, {}, 1, ALONE) as parts:
        row = pa.table({"image": ["someimage"], "error": [None]}, SCHEMA)
        assert write_missing(parts, SCHEMA, lambda *_: [row], ALONE, images=1, title="x") == Totals(1, 0)
        column = pq.read_metadata(parts.path(0)).row_group(0).column(0)
        data = bytearray(parts.path(0).read_bytes())
        data[column.data_page_offset + column.total_compressed_size - 1] ^= 1
        parts.path(0).write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        list(in_parts.read_parts(tmp_path))


def test_what_prediction_in_parts_needs_imports_no_torch() -> None:
    modules = ["data.jobs", "data.video", "system.parts", "system.distributed", "evaluate.answers"]
    code = f"import sys, {', '.join(f'inceptionnet.{name}' for name in modules)}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_each_process_of_a_machine_has_its_cores(with_torch: Forked) -> None:
    """Two processes on the cores that there are; one with threads of its own keeps them, as does one alone."""
    code = """if True:
    import os, torch
    from inceptionnet.system.distributed import share_cores
    before = sorted(os.sched_getaffinity(0))
    torch.set_num_threads(7)
    share_cores()
    print(before, sorted(os.sched_getaffinity(0)), torch.get_num_threads(), sep=";")
    """
    each = [
        {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes, "OMP_NUM_THREADS": threads}
        for rank, processes, threads in (("0", "2", "1"), ("1", "2", "1"), ("0", "2", "3"), ("0", "1", "1"))
    ]
    found = [[json.loads(part) for part in one.stdout.split(";")] for one in with_torch.together(code, each=each)]
    cores = found[0][0]
    if len(cores) > 1:
        assert found[0][1] + found[1][1] == cores and all(len(mine) == count for _, mine, count in found[:2])
    assert [mine for _, mine, _ in found[2:]] == [cores] * 2 and [count for *_, count in found[2:]] == [7] * 2


@pytest.mark.slow
def test_torchrun_loses_a_process(weights: Path, images: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    """Two processes of which one is killed: the other says so in one line; three go on."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(KILLED)

    def torchrun(processes: int, where: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
             str(script), where, "1", *map(str, words("features", weights, images, out))],
            capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )  # fmt: skip

    killed = torchrun(2, "within")
    errors = [line for line in killed.stderr.splitlines() if line.startswith("error: ")]
    assert killed.returncode and len(errors) == 1, killed.stderr
    # It notices by torchrun's signal; or by the broken connection, if it is already waiting for the other.
    assert "it was ended by SIGTERM" in errors[0] or "ended without a word" in errors[0]
    assert not (out / SUCCESS).exists()
    done = torchrun(3, "nowhere")
    assert done.returncode == 0 and "35 images" in done.stdout, done.stderr
    assert contents(out) == contents(whole["features"])
