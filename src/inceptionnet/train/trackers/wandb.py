"""Weights & Biases: a run as the user has configured it, in RUN/wandb; offline if nobody is logged in."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from inceptionnet.system.extras import import_extra
from inceptionnet.train.trackers.subject import PROJECT, Subject, environment

QUIET = {"WANDB_ERROR_REPORTING": "false"}
"""Nothing goes to the makers of the library unless the user has asked for it."""
PATIENCE_S = 60.0
"""How long the end of a run waits for the server, where WANDB_FINISH_TIMEOUT does not say."""


class WandB:
    """Settings as config, metrics by step, the final evaluation in the summary, the report among the files.

    Mode, project, entity, name and server are those of the user's environment and settings files.
    """

    @environment(**QUIET)
    def __init__(self, subject: Subject, known: Mapping[str, Any], metrics: Sequence[str]) -> None:
        package = self._package = wandb()
        settings = package.setup().settings
        mode, signed_in = settings.mode, True
        if mode in ("online", "shared"):
            # Without a prompt: a training may have nobody to answer it.
            signed_in = package.login(prompt=False, verify=False)
            mode = mode if signed_in else "offline"
        number = known.get("run") or settings.run_id or secrets.token_hex(4)
        self.identity: Mapping[str, str] = {"run": number, "mode": mode}
        self._run = package.init(
            project=settings.project or PROJECT,
            dir=os.environ.get("WANDB_DIR") or str(subject.folder.resolve()),
            id=number,
            name=settings.run_name or subject.name,
            config={**subject.settings, "changes": dict(subject.changes)},
            allow_val_change=True,
            mode=mode,
            resume="allow" if mode != "offline" else None,  # an offline run has no server to ask
            reinit="create_new",
            settings=package.Settings(
                silent=True,
                console=os.environ.get("WANDB_CONSOLE", "off"),
                finish_timeout=settings.finish_timeout or PATIENCE_S,
                finish_timeout_raises=True,
            ),
        )
        # What was logged last may be lost where the service was killed too; a server knows what it has, and what an
        # offline run has is certain only if it was closed.
        kept = known.get("closed") if mode == "offline" else True
        self.last_step: int = int(known.get("step", -1)) if kept and known.get("mode") == mode else -1
        if mode != "offline":
            self.last_step = min(self.last_step, self._run.starting_step - 1)
        place = self._run.settings.sync_dir
        match mode:
            case "offline":
                self.line: str = f"offline, in {place}; send it with: wandb sync {shlex.quote(place)}"
                if not signed_in:
                    self.line = f"nobody is logged in (wandb login), so the run is {self.line}"
            case "disabled":
                self.line = "disabled by its own settings (WANDB_MODE); nothing is written"
            case _:
                self.line = f"run {self._run.name} at {self._run.url}"

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""
        self._run.log(dict(metrics), step=step, commit=True)

    def finish(self, metrics: Mapping[str, float], step: int, files: Sequence[Path]) -> None:
        """Write the metrics of the final evaluation, and copy the files to those of the run."""
        self._run.summary.update(dict(metrics))
        if self._run.disabled:
            return
        for file in files:
            copy = shutil.copy(file, self._run.dir)
            self._run.save(copy, base_path=self._run.dir, policy="now")

    def close(self, outcome: str) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if outcome == "finished" else 1)

    def abandon(self) -> None:
        """Give up the service of this process, which may have died; the next run starts another."""
        self._package.teardown(exit_code=1)


def wandb() -> ModuleType:
    """The package. Raises: MissingExtraError."""
    with environment(**QUIET):
        return import_extra("wandb", "wandb", "log.trackers=wandb")
