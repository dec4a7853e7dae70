"""MLflow: a run at MLFLOW_TRACKING_URI, by default in an SQLite store in RUN/mlflow, the kind that MLflow prefers."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from inceptionnet.system.extras import import_extra
from inceptionnet.train.settings import value_text
from inceptionnet.train.trackers.subject import PROJECT, Subject, environment, without_secrets

STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
LONGEST_VALUE = 6000
"""Characters of a parameter's value that MLflow keeps."""
MOST_PARAMETERS = 100
"""Parameters that MLflow takes at once."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""How long a server is waited for, a minute at most; MLflow's own defaults are a quarter of an hour."""


class MLflow:
    """Settings as parameters, metrics by step, report and evaluation as artifacts; what changed in a run, as tags."""

    def __init__(self, subject: Subject, known: Mapping[str, Any], metrics: Sequence[str]) -> None:
        package, self._folder = mlflow(), subject.folder.resolve() / "mlflow"
        self._own = not package.is_tracking_uri_set()
        uri = f"sqlite:///{self._folder / 'mlflow.db'}" if self._own else package.get_tracking_uri()
        with _calls():
            if self._own:
                self._folder.mkdir(exist_ok=True)
            self._client = package.MlflowClient(tracking_uri=uri)
            # A run folder may have moved, with the store in it.
            store = "run folder" if self._own else without_secrets(uri)
            run = self._continued(known) if known.get("store") == store else None
            if run is None:
                run = self._client.create_run(self._experiment(), run_name=subject.name)
            else:
                self._client.update_run(known["run"], status="RUNNING")
            self._id = run.info.run_id
            self._artifacts = run.info.artifact_uri
            self.last_step: int = int(known.get("step", -1)) if self._id == known.get("run") else -1
            self.identity: Mapping[str, str] = {"run": self._id, "store": store}
            self.line: str = f"run {run.info.run_name} in {without_secrets(uri)}"
            if self._own:
                self.line += f"; show it with: mlflow ui --backend-store-uri {shlex.quote(uri)}"
            self._settings(subject, run.data.params)

    def _continued(self, known: Mapping[str, Any]) -> Any:
        """The run of an earlier process; None if it has been deleted."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(known["run"])
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _experiment(self) -> str:
        """The experiment that MLflow's environment variables name, or that of this package."""
        if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return number
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        place = (self._folder / "artifacts").as_uri() if self._own else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _settings(self, subject: Subject, there: Mapping[str, str]) -> None:
        """Parameters, which cannot change in MLflow: only those that are not there yet; and a tag for each change."""
        from mlflow.entities import Param, RunTag

        params = [
            Param(key, value_text(value)[:LONGEST_VALUE]) for key, value in subject.settings.items() if key not in there
        ]
        for start in range(0, len(params), MOST_PARAMETERS):
            self._client.log_batch(self._id, params=params[start : start + MOST_PARAMETERS], synchronous=True)
        tags = [RunTag(f"changed: {when}", how) for when, how in subject.changes.items()]
        if tags:
            self._client.log_batch(self._id, tags=tags, synchronous=True)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        with _calls():
            rows = [Metric(name, value, now_ms, step) for name, value in metrics.items()]
            self._client.log_batch(self._id, metrics=rows, synchronous=True)

    def finish(self, metrics: Mapping[str, float], step: int, files: Sequence[Path]) -> None:
        """Write the metrics of the final evaluation, and the files as artifacts."""
        self.log(metrics, step)
        if self._own and not self._artifacts.startswith(self._folder.as_uri()):
            return  # the run folder has moved; MLflow would make the old one again
        with _calls():
            for file in files:
                self._client.log_artifact(self._id, str(file))

    def close(self, outcome: str) -> None:
        """Set the status of the run."""
        with _calls():
            self._client.set_terminated(self._id, STATUS[outcome])

    def abandon(self) -> None:
        """Nothing is open between two calls."""


def mlflow() -> ModuleType:
    """The package, whose own telemetry is off unless the user has asked for it.

    Raises:
        MissingExtraError: it is not installed, or without what its SQLite store needs.
    """
    with environment(MLFLOW_DISABLE_TELEMETRY="true"):
        package = import_extra("mlflow", "mlflow", "log.trackers=mlflow")
    if not package.is_tracking_uri_set():
        for name in ("sqlalchemy", "alembic"):
            import_extra(name, "mlflow", "log.trackers=mlflow without MLFLOW_TRACKING_URI")
    return package


@contextmanager
def _calls() -> Iterator[None]:
    """Calls to the store that end soon, and say nothing of the tables of a new database."""
    about_tables = logging.getLogger("mlflow.store.db.utils")
    level = about_tables.level
    about_tables.setLevel(logging.WARNING)
    try:
        with environment(**PATIENCE):
            yield
    finally:
        about_tables.setLevel(level)
