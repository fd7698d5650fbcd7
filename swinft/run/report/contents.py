"""What the sections of a report are made from: the run's files, read and joined by id once.

Shapes: N training rows, n of them scored, K outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.data.schema import Schema
from swinft.errors import InputError, StoreError, command
from swinft.inference.predictions import Predictions, rows_of
from swinft.inference.provenance import Provenance
from swinft.model.metrics import Metric
from swinft.model.scoring import chosen_metrics
from swinft.run.experiment import Experiment
from swinft.run.fold_files import FoldId
from swinft.run.layout import Run
from swinft.run.mask_counts import MaskCounts
from swinft.run.mask_fit import count_scored
from swinft.run.provenance import predictions_made_with
from swinft.run.report.rows.counted import counted_coverage
from swinft.run.report.rows.facts import RowFacts
from swinft.run.report.rows.gradcams import GradCams
from swinft.run.report.rows.members import Explaining, explaining
from swinft.run.report.thumbnails import Thumbnails, lacking

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReportInput:
    """All that sections are made from.

    Args:
        run: The run; `run.is_ensemble` if it has no networks of its own.
        config: Its frozen config, with current keys.
        environment: Its environment.json.
        scores: Its scores.json.
        metrics: Its metrics, the first one first.
        data: Its datamodule after `setup("fit")`.
        oof: Out-of-fold predictions of the N training rows, in the order of the table; NaN for rows without one.
        test: The rows' to predict, if they were made with the current weights; else None.
        made_with: What the test predictions were made with.
        given_counts: Pixels of its out-of-fold masks, if they are counted already.
        thumbnails: Thumbnails of its rows.
        experiment: Its experiment, where networks may be loaded; None while a run is fitted.
        allow_code: Packages or modules whose classes the configs of an ensemble's members may name.
    """

    run: Run
    config: dict[str, Any]
    environment: dict[str, Any]
    scores: dict[str, Any]
    metrics: list[Metric]
    data: CSVDataModule
    oof: Predictions
    test: Predictions | None
    made_with: Provenance | None
    given_counts: MaskCounts | None
    thumbnails: Thumbnails
    experiment: Experiment | None = None
    allow_code: Sequence[str] | None = None

    @classmethod
    def of(
        cls,
        run: Run,
        data: CSVDataModule,
        metrics: Sequence[Any] = (),
        counts: MaskCounts | None = None,
        experiment: Experiment | None = None,
        allow_code: Sequence[str] | None = None,
    ) -> "ReportInput":
        """Reads the files of a finished run.

        Args:
            run: The run.
            data: Its datamodule after `setup("fit")`.
            metrics: Those of its config; none for the head's.
            counts: Pixels of its out-of-fold masks, if they are counted.
            experiment: Its experiment, where networks may be loaded.
            allow_code: As above.
        """
        scores, outputs = run.read_scores(), data.schema.outputs
        oof = Predictions.read(run.oof, len(outputs)).join(data.train_table.ids, str(run.oof))
        _leave_out(data, oof)
        made_with = _current_predictions(run)
        return cls(
            run=run,
            config=run.read_config(),
            environment=run.read_environment(),
            scores=scores,
            metrics=chosen_metrics(metrics or list(scores["pooled"]), data.schema.kind),
            data=data,
            oof=_counted(oof, data),
            test=Predictions.read(run.test_predictions, len(outputs)) if made_with else None,
            made_with=made_with,
            given_counts=counts,
            thumbnails=Thumbnails(data),
            experiment=experiment,
            allow_code=allow_code,
        )

    @cached_property
    def lacking(self) -> str:
        """Which images are missing, what the page leaves out for it, and what brings it back; empty if none is."""
        if not (found := lacking(self.data)):
            return ""
        again = command("report", self.run.root, "--root", "FOLDER")
        return (
            f"{found} Left out is what needs their pixels: thumbnails, Grad-CAMs and training images. "
            f"`{again}`, with the data's folder, makes the page with them."
        )

    @property
    def schema(self) -> Schema:
        """Names of the outputs, and the kind of target."""
        return self.data.schema

    @property
    def outputs(self) -> list[str]:
        """Names of the K outputs."""
        return self.data.schema.outputs

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Positions of the n scored rows in the training table."""
        return np.flatnonzero(self.data.is_scored)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the scored rows."""
        return [self.data.train_table.ids[row] for row in self.rows]

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """Out-of-fold predictions of the scored rows, float32 (n, K), in the competition's units."""
        return rows_of(self.oof.values, self.rows)

    @cached_property
    def targets(self) -> NDArray[Any]:
        """Targets of the scored rows: int64 (n,) for classes, else float32 (n, K), NaN where missing."""
        return self.data.targets[self.rows]

    @cached_property
    def folds(self) -> NDArray[np.int64]:
        """Folds of the scored rows, int64 (n,)."""
        return self.data.fold_of_row[self.rows]

    @cached_property
    def captions(self) -> list[str]:
        """Readable targets of the scored rows, in one line each."""
        return one_line(self.schema.captions(self.targets))

    @cached_property
    def row_errors(self) -> Array:
        """The error of each scored row, (n,), as in errors.csv; larger is worse."""
        return np.asarray(self.schema.target.row_errors(self.values, self.targets), dtype=np.float64)

    @cached_property
    def counts(self) -> MaskCounts | None:
        """Pixels of the scored rows' out-of-fold masks; None for other kinds of target."""
        return count_scored(self.oof, self.data) if self.given_counts is None else self.given_counts

    @cached_property
    def histories(self) -> dict[FoldId, list[dict[str, Any]]]:
        """The lines of metrics.jsonl of every training that scores rows; none in an ensemble."""
        run = self.run
        return {} if run.is_ensemble else {name: run.fold(name).read_history() for name in run.planned_folds()}

    @cached_property
    def facts(self) -> RowFacts:
        """What is known about the scored rows besides their errors."""
        return RowFacts(self.run, self.data, self.oof, self.scores.get("views", ()))

    @cached_property
    def explained(self) -> GradCams:
        """The Grad-CAMs of rows, made when they are asked for; of an ensemble by the networks of a member."""
        if not self.run.is_ensemble:
            return GradCams(self.networks, self.data)
        return GradCams(self.networks, self.data, self.oof)

    @cached_property
    def networks(self) -> Explaining | str:
        """The networks that explain rows: the run's, or those of the strongest member; or why there are none."""
        if self.experiment is None:
            return "no networks are loaded while a run is fitted"
        if self.run.is_ensemble:
            return explaining(self.run, self.allow_code)
        return Explaining("", self.run, self.data, self.experiment)

    def gradcams(self, places: Sequence[int]) -> dict[int, str]:
        """Grad-CAMs of scored rows as data URIs, by their positions among them; of those that could be made."""
        found = self.explained.of([int(self.rows[place]) for place in places])
        return {place: found[row] for place in places if (row := int(self.rows[place])) in found}

    def prediction_text(self, place: int) -> str:
        """The prediction of a scored row, by its position among them, as short text."""
        return self.schema.target.prediction_text(self.values[place], self.outputs)


def one_line(captions: Sequence[str]) -> list[str]:
    """Readable targets in one line each; several numbers are lines of their own elsewhere."""
    return [caption.replace("\n", ", ") for caption in captions]


def _leave_out(data: CSVDataModule, oof: Predictions) -> None:
    """Skips rows that an ensemble scores no more, since some member has not predicted them: `--common-rows`."""
    lost = np.flatnonzero(data.is_scored & ~np.isfinite(oof.values).all(1)).tolist()
    data.splits.train.skipped.update({row: oof.status[row] if oof.status else "not predicted" for row in lost})


def _counted(oof: Predictions, data: CSVDataModule) -> Predictions:
    """Out-of-fold predictions of masks, with the coverage of the pixels that count, as the targets are."""
    if oof.maps is None:
        return oof
    rows, values = np.flatnonzero(data.is_scored), oof.values.copy()
    values[rows] = counted_coverage(oof.maps, data, rows)
    return replace(oof, values=values)


def _current_predictions(run: Run) -> Provenance | None:
    """The provenance of the run's test predictions; None if there are none of the run's current weights."""
    if not run.test_predictions.is_file():
        return None
    try:
        return predictions_made_with(run)
    except (InputError, StoreError) as error:
        print(f"the report omits the test predictions: {error}")
        return None
