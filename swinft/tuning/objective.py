"""What a search measures: anything that scores values step by step; for a config the folds of a run."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import safe_open

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, RunError, StoreError
from swinft.inference.predictions import Predictions, mean_of
from swinft.run.experiment import Experiment
from swinft.run.fit import fit_each
from swinft.run.fold_files import trainings_of
from swinft.run.freeze import prepare
from swinft.run.inputs import frozen_sha256
from swinft.run.layout import Run
from swinft.run.scores import join
from swinft.run.scoring import score_rows, training_rows
from swinft.run.trackers.run_records import send_run
from swinft.store import digest, discard, is_committed
from swinft.system.log import last_lines
from swinft.system.shown import Following, Watch
from swinft.tuning.base import Base
from swinft.tuning.study import Folder, Settings

FAILED = "swinft fit: "  # start of the message with which a fold's process ends
KILLED = 137
SIGNALS = (130, 143)  # exit codes of a process that was asked to end
# In messages that are about the disk, and not about the trial.
FULL = ("cannot be written", *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)))


@dataclass(frozen=True)
class Measured:
    """A trial after a step.

    Args:
        score: The score so far.
        seconds: Time of training.
        parameters: Numbers in the network.
    """

    score: float
    seconds: float = 0.0
    parameters: int = 0


class Objective(Protocol):
    """Scores the values of trials."""

    def measure(self, number: int, values: Mapping[str, Any]) -> Iterator[Measured]:
        """Runs a trial, or goes on with it.

        Args:
            number: Number of the trial.
            values: Values of its parameters.

        Yields:
            The trial after each step; the last one is its result.

        Raises:
            InputError: The values do not fit together.
            RunError: The trial has failed.
        """
        ...

    def nested(self, numbers: list[int]) -> float | None:
        """The score if each fold's trial is chosen by the other folds; None if it is not known."""
        ...

    def drop(self, number: int) -> None:
        """Deletes what is large of a trial that is not among the best."""
        ...


class FitObjective:
    """Trains the folds of a config with other values, in the folder of a run for each trial.

    Args:
        base: The config.
        folder: The search's folder.
        settings: What the search was started with.
        words: Options of `swinft fit` for every trial.
        watch: Shows the folds of a trial while they run.
    """

    def __init__(
        self, base: Base, folder: Folder, settings: Settings, words: Sequence[str] = (), watch: Watch | None = None
    ) -> None:
        self._base, self._folder, self._settings, self._words, self._watch = base, folder, settings, words, watch
        self._data: CSVDataModule | None = None
        self._metrics: list[Any] = []
        self._seeds: list[int] | None = base.keys["seeds"]

    def measure(self, number: int, values: Mapping[str, Any]) -> Iterator[Measured]:
        """Prepares the run, and trains its folds: one at a time, or together if no trial ends early.

        Raises:
            StoreError: The training table has changed since the search was started.
            InputError: The values change the folds, or the score is undefined.
        """
        run, settings = self._folder.run(number), self._settings
        own = [f"--name={run.root.name}", f"--runs={run.root.parent}", *(["--resume"] if run.is_run() else [])]
        experiment = self._base.experiment({"data.folds.all": False, **values}, *own, *self._words)
        found = prepare(run, experiment, run.lock)
        self._read_data(run, experiment)
        self._check_folds(run)
        folds = settings.folds
        for done in range(1, len(folds) + 1) if settings.is_fold_by_fold else [len(folds)]:
            self._fit(run, experiment, found, folds[:done])
            yield self._measured(run, number, folds[:done])
        # The report comes last: without it, an earlier process ended before.
        if not run.unfinished_folds() and not (is_committed(run.scores) and is_committed(run.report)):
            join(run, experiment)
            send_run(run, experiment)

    def _fit(self, run: Run, experiment: Experiment, found: Any, folds: list[int]) -> None:
        """Trains folds, each in its own process.

        Raises:
            InputError: The values do not fit together, or do not fit into memory.
            RunError: A process has ended otherwise; with its exit code.
        """
        names = trainings_of(folds, self._seeds)
        try:
            more = len(trainings_of(self._settings.folds, self._seeds)) - len(names)
            fit_each(run, experiment, found, names, Following(more, watch=self._watch))
        except (InputError, RunError) as error:
            code = getattr(error, "code", 2)
            logs = [run.fold(name).log for name in names if not run.fold(name).is_done and run.fold(name).log.is_file()]
            reason = "killed, most often for lack of memory" if code == KILLED else _said(logs) or str(error)
            raise (InputError(reason) if code == 2 else RunError(reason, code)) from error

    def _read_data(self, run: Run, experiment: Experiment) -> None:
        """Reads the training table once: its rows and folds are the same in every trial."""
        if self._data is None:
            self._data = training_rows(run, experiment)
            task = experiment.task(self._data.schema, loads_weights=False, pretrained=False)
            self._metrics = list(task.scored_by[:1])

    def _check_folds(self, run: Run) -> None:
        """Compares a run's training table and folds with those of the first trial.

        Raises:
            StoreError: The training table has changed since: no trial could be compared with the earlier ones.
            InputError: The values of this trial change the folds.
        """
        others = (self._folder.run(number) for number in range(int(run.root.name)))
        first = next((other for other in others if is_committed(other.folds)), run)
        train = self._base.keys["data"]["train"]
        if frozen_sha256(first, train) != frozen_sha256(run, train):
            raise StoreError(
                f"the training table has changed since {first.root} was started, so that scores cannot be compared. "
                f"Restore it, delete {run.root}, and continue; or start another search."
            )
        if digest(first.folds) != digest(run.folds):
            raise InputError("these values change the folds, so that the score cannot be compared with that of others.")

    def _measured(self, run: Run, number: int, folds: list[int]) -> Measured:
        results = [run.fold(name).read_result() for name in trainings_of(folds, self._seeds)]
        score = self.pooled([self._predicted(number, fold) for fold in folds])
        if not np.isfinite(score):
            raise InputError(f"the score of the folds {folds} is undefined.")
        weights = run.fold(trainings_of(folds[:1], self._seeds)[0]).weights
        with safe_open(weights, "np") as file:
            parameters = sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
        return Measured(score, sum(result["seconds"] for result in results), parameters)

    def pooled(self, parts: Sequence[Predictions]) -> float:
        """The score of the out-of-fold predictions of some folds together."""
        assert self._data is not None
        found, ids = Predictions.concat(parts), self._data.train_table.ids
        folds = [int(fold) for part in parts if part.fold is not None for fold in part.fold[:1]]
        rows = np.flatnonzero(self._data.is_scored & np.isin(self._data.fold_of_row, folds))
        found = found.join([ids[row] for row in rows], "the out-of-fold predictions")
        values = found.values if found.maps is None else found.maps
        return next(iter(score_rows(self._metrics, self._data, rows, values).values()))

    def _predicted(self, number: int, fold: int) -> Predictions:
        """Out-of-fold predictions of a trial for a fold: the mean over its seeds."""
        assert self._data is not None
        run, outputs = self._folder.run(number), len(self._data.schema.outputs)
        parts = [Predictions.read(run.fold(name).oof, outputs) for name in trainings_of([fold], self._seeds)]
        return mean_of([part.join(parts[0].ids, "a seed's predictions") for part in parts]) if parts[1:] else parts[0]

    def nested(self, numbers: list[int]) -> float | None:
        """For each fold the best trial by the score of the other folds; their predictions of that fold, scored."""
        folds = self._settings.folds
        if len(folds) < 2 or len(numbers) < 2:
            return None
        run = self._folder.run(numbers[0])
        self._read_data(run, Experiment.of_run(run, "tune", list(self._base.allow_code)))
        if self._data is not None and self._data.schema.base.are_maps:  # each trial's maps may be gigabytes
            return None
        sign = 1 if self._settings.higher_is_better else -1
        best: dict[int, tuple[float, Predictions]] = {}
        for number in numbers:
            parts = {fold: self._predicted(number, fold) for fold in folds}
            for fold in folds:
                gain = sign * self.pooled([part for other, part in parts.items() if other != fold])
                if fold not in best or gain > best[fold][0]:
                    best[fold] = (gain, parts[fold])
        return self.pooled([part for _, part in best.values()])

    def drop(self, number: int) -> None:
        """Deletes weights and checkpoints; predictions and scores stay."""
        run = self._folder.run(number)
        for path in sorted(run.root.glob("fold_*")):
            fold = run.fold(path.name.removeprefix("fold_"))
            for large in (*path.glob("epoch-*.ckpt"), *fold.candidates, fold.weights):
                discard(large)


def _said(logs: Sequence[Path]) -> str:
    """Why the first process failed that says so: its message, or the last line of its traceback."""
    for log in logs:
        text = "\n".join(last_lines(log)).strip()
        if found := text.rpartition(FAILED)[2] if FAILED in text else text.rpartition("\n")[2]:
            return found
    return ""
