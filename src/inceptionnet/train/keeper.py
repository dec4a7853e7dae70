"""The output of a run: files, log lines and progress bar, by the main process. Training continues if a write fails."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

import inceptionnet
from inceptionnet.data.leaks import MOST_IMAGES, find_leaks
from inceptionnet.errors import RunError, WeightsError
from inceptionnet.evaluate.metrics import Metrics
from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.distributed import World
from inceptionnet.system.files import FolderLock, remove_leftovers
from inceptionnet.system.progress import Bar, PartOf
from inceptionnet.train.changes import Change
from inceptionnet.train.checkpoint import Checkpoints
from inceptionnet.train.figures import AnyEvaluation, best_row, figures, measured
from inceptionnet.train.plan import Job
from inceptionnet.train.position import Position
from inceptionnet.train.reporting import report_run
from inceptionnet.train.run import REPORT, Run
from inceptionnet.train.trackers import Subject, Trackers
from inceptionnet.train.trackers.subject import settings_of, without_secrets
from inceptionnet.weights import read_record, save_weights


class Keeper:
    """Writes the run folder, checkpoints and experiment trackers, and shows progress, for the training loop."""

    def __init__(
        self,
        job: Job,
        run: Run,
        checkpoints: Checkpoints,
        world: World,
        at: Position,
        began: float | None = None,
        *,
        resumed: bool,
        changes: Sequence[Change] = (),
        bar: PartOf | None = None,
    ) -> None:
        """`began`: when this process began, by `time.monotonic`. Default: now. `bar`: of several runs together."""
        self.job = job
        self.run = run
        self.world = world
        self.at = at
        self.changes = changes
        self.checkpoints = checkpoints
        self.checkpointed = at.step if resumed and checkpoints.files() else None
        """The step of the newest checkpoint."""
        self.metrics: Metrics | MultiLabelMetrics
        """Of the last epoch; in the main process."""
        self._warned: set[str] = set()
        self._written = False
        self.last = False
        """Whether the epoch is the last one."""
        self._saved_s = time.monotonic()
        self._clock_s = self._saved_s if began is None else began
        splits = job.source.splits
        train, held_out = len(splits["train"]), len(splits[job.held_out])
        first = 0 if job.recipe.network.fit_head else 1
        done = (at.epoch - first) * (train + held_out) + min(at.batch * job.plan.batch_size, train)
        total = (job.recipe.schedule.epochs + 1 - first) * (train + held_out)
        self.bar: Bar | PartOf = bar or Bar(total, "training", shown=world.is_main, done=done)
        self.trackers: Trackers = Trackers()
        self._lock: FolderLock | None = None

    def open(self, model: InceptionNet, tensors: Mapping[str, Tensor], *, resumed: bool) -> None:
        """Create the run folder, or prepare it for resuming; everything else has been checked before.

        Raises:
            RunError: the folder cannot be created or written, or the disk has too little room.
        """
        if not self.world.is_main:
            return
        if not resumed:
            self.run.create()
        self._lock = self.run.lock()
        if resumed:
            remove_leftovers(self.run.path)
            remove_leftovers(self.checkpoints.path)
            if damaged := self.run.forget_steps(self.at.step):
                self.once("steps", f"steps.jsonl: {damaged} damaged {'line' if damaged == 1 else 'lines'} left out")
            if self.run.best_weights.is_file():  # written again only if a later epoch is better
                self.attempt(lambda: read_record(self.run.best_weights))
        # The optimiser creates its two tensors per parameter at the first step only.
        begun = any(name.startswith("optimizer.") for name in tensors)
        trained = [parameter.nbytes for parameter in model.parameters() if parameter.requires_grad]
        states = 0 if begun else 2 * sum(trained)
        self.checkpoints.check_space(sum(tensor.nbytes for tensor in tensors.values()) + states)
        if not resumed:
            self.run.write_sealed("run.json", self.job.describe(model, self.world.size))
        elif self.changes:
            self._record(model)
        if names := self.job.recipe.log.trackers:
            about = self.run.about()
            subject = Subject(self.run.path, settings_of(about), self.run.changes(), self.at.step)
            self.trackers = Trackers(names, subject, self.note)

    def close(self) -> None:
        """Let other trainings into the folder."""
        if self._lock:
            self._lock.release()
            self._lock = None

    def _record(self, model: InceptionNet) -> None:
        """Write the changed settings to run.json, and from when on they hold."""
        at, about = self.at, self.run.about()
        first = {"epoch": at.epoch + (at.batch == at.steps_per_epoch), "step": at.step}
        new = self.job.describe(model, self.world.size)
        about |= {key: new[key] for key in ("plan", "recipe", "data", "environment")}
        about["changes"] = [
            *about.get("changes", []),
            *(first | {"setting": one.name, "before": one.before, "after": one.after} for one in self.changes),
        ]
        self.run.write_sealed("run.json", about)

    def track(self) -> None:
        """Open the run in its trackers, or continue it there."""
        judged = "map" if self.job.source.multi_label else "top1"
        self.trackers.open(self.at.rows, [f"{self.job.held_out}_{judged}", f"{self.job.held_out}_loss"])

    def finish(self) -> None:
        """Give the final evaluation to the trackers, with the files that describe the run."""
        figures = self.metrics.to_dict() if self.world.is_main else {}
        final = {name: float(value) for name, value in figures.items() if isinstance(value, (int, float))}
        title = self.job.source.title
        names = ["evaluation.json", *([REPORT] if title == without_secrets(title) else [])]  # the report has the title
        files = [self.run.path / name for name in names]
        self.trackers.finish(self.at.rows, final, files)

    def leaks(self) -> list[str]:
        """Log lines on images and groups that are in two splits, which run.json keeps; empty in the other processes."""
        if not self.world.is_main:
            return []
        source, plan = self.job.source, self.job.plan
        with Bar(min(sum(map(len, source.splits.values())), MOST_IMAGES), "looking for copies") as bar:
            lines = find_leaks(source, plan.workers, advance=bar.advance)
        if lines:
            self.run.write_sealed("run.json", self.run.about() | {"leaks": lines})
        return lines

    @property
    def title(self) -> str:
        """What is going on, for progress and log lines: `epoch 3/10`; with a time budget the number is open."""
        schedule = self.job.recipe.schedule
        of = "" if schedule.minutes is not None else f"/{schedule.epochs}"
        return f"epoch {self.at.epoch}{of}" if self.at.epoch else "classifier"

    def elapsed(self) -> float:
        """Wall time of the run so far, s, over all restarts."""
        self._tick()
        return self.at.seconds

    def note(self, line: str) -> None:
        """Print a log line."""
        self.bar.note(line)

    def once(self, kind: str, line: str) -> None:
        """Print a warning, at most once per run for each kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            self.note(f"warning: {line}")

    def decode_errors(self, errors: Sequence[tuple[str, str]]) -> None:
        """Report each corrupt image once. All processes must call it."""
        if not self.world.total([len(errors)])[0]:
            return
        everywhere = [one for share in self.world.gather(tuple(errors)) for one in share]
        new = {name: reason for name, reason in everywhere if name not in self.at.decode_errors}
        if new:
            self.at.decode_errors |= new
            self.attempt(lambda: self.run.write_decode_errors(sorted(self.at.decode_errors.items())))
            for name, reason in new.items():
                self.note(f"warning: corrupt image skipped: {name}: {reason}")

    def step(self, row: Mapping[str, float]) -> None:
        """Write a line of steps.jsonl."""
        self.attempt(lambda: self.run.log_step(row))

    def epoch(self, row: dict[str, float], evaluation: AnyEvaluation) -> None:
        """Write a row of metrics.csv, with the elapsed time, and evaluation.json."""
        row["elapsed_s"] = self.elapsed()
        self.at.rows.append(row)
        self.attempt(lambda: self.run.write_metrics(self.at.rows))

        def details() -> None:
            self.metrics = measured(evaluation)
            self.run.write_json("evaluation.json", {"split": self.job.held_out, **self.metrics.to_dict()})

        self.attempt(details)
        self.trackers.log(self.at.rows)

    def due(self) -> bool:
        """Whether a checkpoint within the epoch is due."""
        settings = self.job.recipe.checkpoint
        late = settings.every_minutes is not None and time.monotonic() - self._saved_s > 60 * settings.every_minutes
        return late or (settings.every_steps is not None and self.at.step % settings.every_steps == 0)

    def checkpoint(self, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Write a checkpoint; if that fails, the previous ones are kept."""
        self._tick()
        self._saved_s = time.monotonic()

        def save() -> None:
            for left in self.checkpoints.save(self.at.step, tensors(), self.at.to_dict()):
                self.once("old checkpoint", f"{left}; the old checkpoint stays")

        if self.attempt(save):
            self.checkpointed = self.at.step

    def weights(self, model: InceptionNet, evaluation: AnyEvaluation, *, raw: bool) -> None:
        """Write the model's current weights.

        Raises:
            WeightsError: those of the last epoch cannot be written, which later epochs could not make good.
        """
        file = self.run.raw_weights if raw else self.run.weights
        about = {
            "package": f"inceptionnet {inceptionnet.__version__}",
            "data": self.job.source.title,
            "split": self.job.source.note,
            "seed": self.job.plan.seed,
            "recipe": self.job.plan.recipe,
            "epochs": self.at.epoch,
        }
        accuracies = {name: value for name, value in figures(evaluation).items() if name != "loss" and value == value}
        about |= {f"{self.job.held_out}_{name}": value for name, value in accuracies.items()}
        if self.job.plan.labels:
            about["labels"] = self.job.plan.labels
        if self.job.plan.group_by:
            about["group_by"] = self.job.plan.group_by

        def write() -> None:
            classes, prep = self.job.source.classes, self.job.prep
            save_weights(model, file, classes=classes, preprocessing=prep, provenance=about)

        written = self.attempt(write, last=self.last)
        if not raw:
            self._written = written

    def best(self) -> None:
        """Keep the weights that were just written as the best ones, if no epoch was better on the validation split."""
        if self._written and best_row(self.at.rows) is self.at.rows[-1]:
            self.attempt(self.run.keep_best)

    def draw(self, evaluation: AnyEvaluation) -> None:
        """Draw the plots and write the report; if one fails, the run only says so."""
        if self.world.is_main and self.job.recipe.log.report:
            for line in report_run(self.run, self.job, self.at.rows, self.metrics, evaluation):
                self.note(f"warning: {line}")

    def resume_hint(self) -> str:
        """How to resume the run, for the message about its interruption."""
        line = f"resume with: inceptionnet train --resume --out {shlex.quote(str(self.run.path))}"
        if self.checkpointed is None and self.run.features.is_dir():
            return f"{line} (the features computed so far are kept)"
        if self.checkpointed is None:
            return f"{line} (from the start, since there is no checkpoint yet)"
        lost = self.at.step - self.checkpointed
        return f"{line} (the last {lost} {'step' if lost == 1 else 'steps'} will be repeated)" if lost else line

    def _tick(self) -> None:
        now = time.monotonic()
        self.at.seconds, self._clock_s = self.at.seconds + now - self._clock_s, now

    def attempt(self, write: Callable[[], Any], *, last: bool = False) -> bool:
        """Write, in the main process. A failure is a warning, or an error if it is the last write."""
        if not self.world.is_main:
            return True
        try:
            write()
        except (RunError, WeightsError) as error:
            if last:
                raise
            self.note(f"warning: {error}; training continues, and earlier files are unchanged")
            return False
        return True
