"""MLflow: a parent run with the pooled scores, and a nested run for each fold."""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from swinft.errors import InputError
from swinft.extras import import_extra
from swinft.run.trackers.record import CaptionedImage, EpochValues, Record
from swinft.run.trackers.tracker import Tracker

EXPERIMENT = "swinft"
RECORD = "swinft.record"  # tag of a run: the record's id, by which it is found again
PARENT = "mlflow.parentRunId"  # MLflow's own tag
BATCH = 100  # MLflow's limit of params in one request
LONGEST_KEY, LONGEST_VALUE = 250, 6000  # MLflow's limits
# A server that is down must not hold up every epoch: MLflow's own defaults are 7 retries of 2 minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
LOCAL_FIX = "Start the server, set MLFLOW_TRACKING_URI to another one, or remove it: a file in `runs` is used then"


class MLflowTracker(Tracker):
    """Sends records to an MLflow server, or writes them to `mlflow.db` beside the runs.

    Args:
        tracking_uri: Address of the server, or of a database; null for that of MLFLOW_TRACKING_URI, or else the
            sqlite file `mlflow.db` in the folder of all runs.
        experiment: The experiment that holds all runs; null for that of MLFLOW_EXPERIMENT_NAME, or else `swinft`.
        tags: Tags of every record.
        images: As in `Tracker`.
    """

    word = "mlflow"

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        tags: dict[str, str] | None = None,
        images: int = 8,
    ) -> None:
        super().__init__(images)
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.experiment_name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        self.tags = tags or {}
        self._client: Any = None
        self._run = ""  # its id at the service

    def check(self) -> None:
        """Checks the package and, if a server or database is named, that it answers.

        Raises:
            InputError: The experiment was deleted, or the server does not answer.
        """
        if not self.tracking_uri:
            _mlflow()
            import_extra("alembic", "mlflow", "alembic, with which MLflow makes a sqlite file,")
            import_extra("sqlalchemy", "mlflow", "SQLAlchemy, with which MLflow reads a sqlite file,")
            return
        try:
            found = self._connect(self.tracking_uri).get_experiment_by_name(self.experiment_name)
        except Exception as error:
            raise InputError(
                f"trainer.logger: mlflow: {_without_password(self.tracking_uri)} does not answer "
                f"({type(error).__name__}). {LOCAL_FIX}."
            ) from None  # the error's text may hold a password
        if found is not None and found.lifecycle_stage == "deleted":
            raise InputError(
                f"trainer.logger: mlflow: the experiment {self.experiment_name} was deleted. Restore it with `mlflow "
                f"experiments restore --experiment-id {found.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME."
            )

    def start(self, record: Record) -> None:
        """Starts the run, or finds the one with the record's id; the parent as well."""
        self.close()
        runs = record.folder.parent
        self._client = self._connect(self.tracking_uri or f"sqlite:///{runs / 'mlflow.db'}")
        with record.alone():  # all folds make experiment and parent
            experiment = self._experiment(None if self.tracking_uri else (runs / "mlartifacts").as_uri())
            parent = self._find_or_create(experiment, record.group, record.group_id, {})
        if record.is_pooled:
            self._run = parent
        else:
            self._run = self._find_or_create(experiment, record.name, record.id, {PARENT: parent})
        self._client.update_run(self._run, status="RUNNING")
        self._write_config(record)

    def last_epoch(self) -> int:
        """The last epoch that the service has."""
        return int(self._client.get_run(self._run).data.metrics.get("epoch", 0))

    def write(self, epoch: EpochValues) -> None:
        """Sends an epoch in one request: the service has it as a whole or not at all."""
        self._log(epoch.all_values(), epoch.epoch, [(step, values) for step, values in epoch.between])

    def write_images(self, name: str, images: Sequence[CaptionedImage], epoch: int) -> None:
        """Sends images as artefacts, with a file of their captions."""
        from PIL import Image

        captions = {f"{number + 1}.png": each.caption for number, each in enumerate(images)}
        for number, each in enumerate(images):
            self._client.log_image(self._run, Image.fromarray(each.pixels), artifact_file=f"{name}/{number + 1}.png")
        self._client.log_dict(self._run, captions, f"{name}/captions.json")

    def write_result(self, values: Mapping[str, float]) -> None:
        """Sends the values that the service does not have."""
        known = self._client.get_run(self._run).data.metrics
        self._log({name: value for name, value in values.items() if known.get(_key(name)) != value}, 0)

    def write_file(self, path: Path) -> None:
        """Sends a file as an artefact, in the place of an earlier one."""
        self._client.log_artifact(self._run, str(path))

    def finish(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._run, "FINISHED")
        self._client = None

    def close(self) -> None:
        """Ends the run as failed."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # a resume sets it to running again
                client.set_terminated(self._run, "FAILED")

    def where(self) -> str:
        """The id of the run."""
        return f"run {self._run}"

    def how_to_see(self, folder: Path) -> str:
        """The command that shows a file; a server has its own page."""
        uri = f"sqlite:///{folder.parent / 'mlflow.db'}"
        return "" if self.tracking_uri else f"mlflow ui --backend-store-uri {uri}"

    @property
    def experiment(self) -> Any:
        """MLflow's client, for callbacks that log to it directly."""
        return self._client

    def _connect(self, uri: str) -> Any:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        logging.getLogger("mlflow").setLevel(logging.ERROR)  # it says that it makes tables
        return _mlflow().MlflowClient(tracking_uri=uri)

    def _experiment(self, artifacts: str | None) -> str:
        """The id of the experiment, which is created if there is none."""
        if (found := self._client.get_experiment_by_name(self.experiment_name)) is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(self.experiment_name, artifact_location=artifacts))
        except Exception:
            if (found := self._client.get_experiment_by_name(self.experiment_name)) is None:
                raise
            return str(found.experiment_id)  # another run has just created it

    def _find_or_create(self, experiment: str, name: str, id: str, tags: dict[str, str]) -> str:
        found = self._client.search_runs([experiment], f"tags.`{RECORD}` = '{id}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {**self.tags, RECORD: id, "mlflow.source.name": "swinft", **tags}
        return str(self._client.create_run(experiment, run_name=name, tags=tags).info.run_id)

    def _write_config(self, record: Record) -> None:
        """Sends the config as a file, and as params, which cannot be changed: those of the first start stay."""
        params = import_extra("mlflow.entities", "mlflow", "mlflow").Param
        known = self._client.get_run(self._run).data.params
        texts = {_key(key): str(value)[:LONGEST_VALUE] for key, value in record.keys.items()}
        new = [params(key, text) for key, text in texts.items() if key not in known]
        for first in range(0, len(new), BATCH):
            self._client.log_batch(self._run, params=new[first : first + BATCH])
        self._client.log_dict(self._run, dict(record.config), "config.yaml")

    def _log(
        self, values: Mapping[str, float], step: int, between: Sequence[tuple[int, Mapping[str, float]]] = ()
    ) -> None:
        metric = import_extra("mlflow.entities", "mlflow", "mlflow").Metric
        now = int(time.time() * 1000)
        every = [(step, values), *between]
        found = [metric(_key(name), float(value), now, at) for at, each in every for name, value in each.items()]
        for first in range(0, len(found), 1000):  # MLflow's limit of metrics in one request
            self._client.log_batch(self._run, metrics=found[first : first + 1000])


def _mlflow() -> Any:
    return import_extra("mlflow", "mlflow", "mlflow, which trainer.logger: mlflow sends with,")


def _key(name: str) -> str:
    """A name that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:LONGEST_KEY]


def _without_password(uri: str) -> str:
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", "***", uri)
