"""Running a study: what it will cost, the trainings one after another or shared among processes, and the result.

OUT/study.json      the study, what was asked for, every training with its metrics, the verdict
OUT/runs/           a run folder for each training, without checkpoints and reports; --runs names another place
OUT/outcomes/       one file for each finished training, to continue from
OUT/log.txt         the log lines of all trainings
OUT/figure.svg, figure.png, index.html
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import inceptionnet
from inceptionnet.data.fingerprint import fingerprint
from inceptionnet.errors import Interrupted, RunError
from inceptionnet.report.page import check_extras
from inceptionnet.study.cost import affordable_epochs, announcement, speeds_of
from inceptionnet.study.outcomes import ADVICE, evaluate_ensemble, file_of, is_known, read_outcome, train_run
from inceptionnet.study.page import write_page
from inceptionnet.study.result import Result, judge
from inceptionnet.study.spec import Study
from inceptionnet.study.trainings import MACHINE, Asked, Ensemble, Training, ensembles, trainings
from inceptionnet.system.distributed import ALONE, World
from inceptionnet.system.printing import say
from inceptionnet.system.progress import Bar
from inceptionnet.train.out_folder import OutFolder

STUDY = "study.json"
LOOK_EVERY_S = 5.0
"""How often the main process looks how far the others are."""


def run_study(
    study: Study,
    asked: Asked,
    out: Path,
    *,
    runs: Path | None = None,
    minutes: float | None = None,
    world: World = ALONE,
) -> Result:
    """Run a study, or what is left of it, and write its folder; all processes call it and get the result.

    Args:
        runs: where the run folders are; runs that are there already are used. Default: in `out`.
        minutes: instead of epochs, what all trainings together may take: all get as many epochs as fit.

    Raises:
        InceptionNetError: the study is not possible, before anything is written; or a training had to stop.
    """
    check_extras()  # of the page; not to be missed after hours
    runs = runs or out / "runs"
    folder = OutFolder(out)
    before = folder.read_optional(STUDY)
    if before and minutes is not None:
        asked, minutes = replace(asked, base={**asked.base, "epochs": _chosen_epochs(before, out)}), None
    found = trainings(study, asked, runs)
    left = [one for one in found if not is_known(one, out)]
    speeds = speeds_of(left, world)
    if minutes is not None:
        asked = replace(asked, base={**asked.base, "epochs": affordable_epochs(found, speeds, minutes, world)})
        found = trainings(study, asked, runs)
        left = [one for one in found if not is_known(one, out)]
    together = ensembles(study, found)
    missing = [one for one in together if not file_of(one, out).is_file()]
    about = {"package": f"inceptionnet {inceptionnet.__version__}", "study": study.model_dump(mode="json"),
             "asked": _lasting(asked), "fingerprint": fingerprint(found[0].job.source)}  # fmt: skip
    _check_same(out, before, about)
    world.gather(0)  # all have looked before the first of them writes
    if world.is_main:
        folder.write_json(STUDY, {**about, "result": None}, ADVICE)
        say(announcement(found, left, missing, speeds, world), error=True)
    _train(left, found, missing, out, world)
    everything: list[Training | Ensemble] = [*found, *together]
    outcomes = [read_outcome(file_of(one, out)) for one in everything]
    result = judge(study, outcomes)
    if world.is_main:
        folder.write_json(STUDY, {**about, "result": result.to_dict()}, ADVICE)
        write_page(out, asked.name, study, asked.command(out), result)
    return result


def _train(
    left: Sequence[Training], found: Sequence[Training], together: Sequence[Ensemble], out: Path, world: World
) -> None:
    """Train what is left and evaluate the ensembles, with one progress bar; every process takes the next run."""
    runs: dict[Path, list[Training]] = {}
    for one in left:
        runs.setdefault(one.folder, []).append(one)
    queue = list(runs.values())
    done = sum(one.images for one in found if one not in left)
    hint = f"run the same command again to continue: finished trainings in {shlex.quote(str(out))} are kept"
    with Bar(sum(one.images for one in found), "study", shown=world.is_main, done=done) as bar:
        mine = set[Training]()
        look = _looker(left, mine, bar) if world.size > 1 else lambda: None
        try:
            for i in world.taken(len(queue), "trainings"):
                mine.update(queue[i])
                train_run(queue[i], out, bar, look)
            _wait_for(left, out, look)
            for i in world.taken(len(together), "ensembles"):
                bar.advance(0, "", f"{together[i].title}, evaluating")
                evaluate_ensemble(together[i], out)
            _wait_for(together, out, look)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(f"study interrupted; {hint}") from None


def _wait_for(expected: Sequence[Training | Ensemble], out: Path, look: Callable[[], None]) -> None:
    """Wait until the other processes have written their outcomes too."""
    while not all(file_of(one, out).is_file() for one in expected):
        time.sleep(0.2)
        look()


def _looker(left: Sequence[Training], mine: set[Training], bar: Bar) -> Callable[[], None]:
    """Counts what the other processes have trained since the last look."""
    counted: dict[Training, int] = {}
    last = time.monotonic()

    def look() -> None:
        nonlocal last
        if time.monotonic() - last < LOOK_EVERY_S:
            return
        last = time.monotonic()
        for one in left:
            file = one.folder / "metrics.csv"
            if one not in mine and file.is_file():
                epochs = max(0, len(file.read_text(encoding="utf-8").splitlines()) - 1)
                bar.advance((epochs - counted.get(one, 0)) * one.images_per_epoch)
                counted[one] = epochs

    return look


def _chosen_epochs(before: dict[str, Any], out: Path) -> int:
    """The epochs that a time budget gave when the study began. Raises: RunError: it began without one."""
    epochs: int | None = before["asked"]["base"].get("epochs")
    if epochs is None:
        raise RunError(f"{out}: has a study without a time budget; omit --time to continue it, or choose another --out")
    return epochs


def _lasting(asked: Asked) -> dict[str, Any]:
    """What must be the same when a study is continued; the number of seeds may grow."""
    return {key: value for key, value in asdict(asked).items() if key not in (*MACHINE, "corrupt_images", "seeds")}


def _check_same(out: Path, before: dict[str, Any], about: dict[str, Any]) -> None:
    """Check that a folder is new, empty, or has this study. Raises: RunError."""
    if not before:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(f"{out}: exists and has no study; choose another --out")
        return
    now = json.loads(json.dumps(about))
    whats = {"study": "another study", "asked": "a study with other options", "fingerprint": "other images"}
    for key, what in whats.items():
        if before.get(key) != now[key]:
            told = _differences(before[key], now[key]) if key == "asked" else ""
            raise RunError(f"{out}: has {what}{told}; choose another --out, or give the same command as before")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The options that two commands of a study differ in, in brackets."""
    first, second = (
        {key: value for key, value in {**one, **one["base"], **one["settings"]}.items()
         if key not in ("base", "settings") and value is not None}
        for one in (before, now)
    )  # fmt: skip
    told = [f"{key} {first.get(key, 'not given')} instead of {second.get(key, 'not given')}"
            for key in {**first, **second} if first.get(key) != second.get(key)]  # fmt: skip
    return f" ({', '.join(told)})"
