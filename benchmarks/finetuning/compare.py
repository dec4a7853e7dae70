"""Fine-tuning on few images: this package and others with the same weights, images, minutes and cores.

    python benchmarks/finetuning/compare.py --data NAME=PATH --weights FILE [--size 150] [--out FOLDER]
        [--fractions 1,0.2,0.05] [--minutes 20,8,3] [--seeds 3] [--methods inceptionnet,sklearn,timm,fastai,keras]
        [--threads 1] [--table]

Every cell (data, fraction of the training images, method, seed) is a process of its own; its result is a JSON file in
OUT/results, its output is in OUT/logs. A cell with a result is not run again; one that failed is. At the end, and with
--table without running anything, a Markdown table is printed and written to OUT/table.md.

benchmarks/README.md describes the methods, what is measured, and how to install the other libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from cells import METHODS, Cell, Result, Results, all_cells, count_correct, table
from folders import Folders, count

from inceptionnet.weights import read_record

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT_MINUTES = 240
"""A method that takes longer than that is stopped."""


def main() -> int:
    given = arguments()
    sources = dict(one.split("=", 1) for one in given.data)
    cells = all_cells(list(sources), given.fractions, given.methods, given.seeds)
    minutes = dict(zip(given.fractions, given.minutes, strict=True))
    settings = {"weights": str(given.weights), "size": given.size, "threads": given.threads,
                "minutes": {f"{fraction:g}": limit for fraction, limit in minutes.items()}}  # fmt: skip
    try:
        results = Results(given.out, None if given.table else settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no method keeps running
    if not given.table:
        network = read_record(given.weights).configuration.name
        folders = Folders(given.out, sources)
        for cell in results.pending(cells):
            result = run(cell, minutes[cell.fraction], folders, given, network)
            results.save(cell, result)
            print(f"{cell}: {said(result)}", flush=True)
    text = table(results, cells)
    (given.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    return int(any("error" in (results.of(cell) or {}) for cell in cells))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=PATH",
                        help="labelled images, as for train; in OUT, NAME stands for them from then on")  # fmt: skip
    parser.add_argument("--weights", type=Path, required=True, help="a weights file or a run folder")
    parser.add_argument("--size", type=int, default=150, help="image size, px")
    parser.add_argument("--fractions", type=fractions_of, default=[1.0, 0.2, 0.05])
    parser.add_argument("--minutes", type=minutes_of, default=[20.0, 8.0, 3.0],
                        help="of a training, one number or one for each fraction")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="number of random seeds")
    parser.add_argument("--methods", type=methods_of, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1, help="threads, and cores, of each method")
    parser.add_argument("--libraries", type=Path, nargs="*", default=[ROOT / ".venv/finetuning", ROOT / ".venv/peers"],
                        help="folders with timm, fastai and Keras")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("finetuning-results"), metavar="FOLDER")
    parser.add_argument("--table", action="store_true", help="print the table of the results in --out, run nothing")
    given = parser.parse_args()
    if wrong := [one for one in given.data if "=" not in one]:
        parser.error(f"--data: expected NAME=PATH, got {wrong[0]!r}")
    if len(given.minutes) == 1:
        given.minutes *= len(given.fractions)
    if len(given.minutes) != len(given.fractions):
        parser.error(f"--minutes: expected 1 or {len(given.fractions)} numbers, got {len(given.minutes)}")
    if given.weights.is_dir():
        given.weights /= "weights.safetensors"
    given.weights = given.weights.resolve()
    return given


def fractions_of(text: str) -> list[float]:
    fractions = [float(part) for part in text.split(",")]
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise argparse.ArgumentTypeError(f"expected numbers above 0 up to 1, got {text!r}")
    return fractions


def minutes_of(text: str) -> list[float]:
    minutes = [float(part) for part in text.split(",")]
    if not all(one > 0 for one in minutes):
        raise argparse.ArgumentTypeError(f"expected numbers above 0, got {text!r}")
    return minutes


def methods_of(text: str) -> list[str]:
    methods = text.split(",")
    if unknown := [method for method in methods if method not in METHODS]:
        raise argparse.ArgumentTypeError(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    return methods


def run(cell: Cell, minutes: float, folders: Folders, given: argparse.Namespace, network: str) -> Result:
    """Train and predict in a new process; a failure is a result with its reason as `error`."""
    images, held_out = folders.of(cell).resolve(), folders.held_out(cell.data).resolve()
    work = (given.out / "work" / str(cell)).resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    log = given.out / "logs" / f"{cell}.log"
    log.parent.mkdir(exist_ok=True)
    began = time.time()
    options = {"images": images, "held-out": held_out, "weights": given.weights, "network": network,
               "size": given.size, "minutes": minutes, "began": began, "seed": cell.seed,
               "threads": given.threads}  # fmt: skip
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, HERE / f"with_{cell.method}.py", *words],
            cwd=work, env=environment(cell.method, given, work), stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cores(given.threads)),
        )  # fmt: skip
        try:
            code = process.wait(60 * LIMIT_MINUTES)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    process_s = round(time.time() - began, 1)
    common = {"minutes": minutes, "process_s": process_s, "threads": given.threads, "size": given.size}
    if code != 0:
        reason = f"stopped after {LIMIT_MINUTES} minutes" if code is None else last_line(log)
        return common | {"error": reason}
    try:
        correct, seen = count_correct(work / "predictions.csv", held_out)
    except (OSError, ValueError) as error:
        return common | {"error": str(error)}
    result = common | {"correct": correct, "held_out": seen, "images": count(images / "train") + count(images / "val"),
                       "torch": version("torch")}  # fmt: skip
    result |= json.loads((work / "trained.json").read_text(encoding="utf-8"))
    shutil.rmtree(work)
    return result


def environment(method: str, given: argparse.Namespace, work: Path) -> dict[str, str]:
    """Threads, and for other methods than this package the folders of the other libraries and of their settings."""
    threads = str(given.threads)
    names = ("OMP", "MKL", "OPENBLAS", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
    limits = {f"{name}_THREADS" if name.startswith("TF") else f"{name}_NUM_THREADS": threads for name in names}
    libraries = [] if method == "inceptionnet" else [str(folder.resolve()) for folder in given.libraries]
    path = os.pathsep.join([str(ROOT / "src"), *libraries])
    homes = {"FASTAI_HOME": str(work / "fastai"), "KERAS_HOME": str(work / "keras")}
    return os.environ | limits | homes | {"PYTHONPATH": path}


def cores(threads: int) -> list[int]:
    """The first of the cores that this process may use; `taskset` chooses others."""
    return sorted(os.sched_getaffinity(0))[:threads]


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"


def said(result: Result) -> str:
    if "error" in result:
        return f"failed: {result['error']}"
    share = result["correct"] / result["held_out"]
    return f"{share:.1%} of {result['held_out']} correct, trained in {result['training_s']:.0f} s: {result['note']}"


if __name__ == "__main__":
    sys.exit(main())
