"""Fits a model on the embeddings of each fold, and predicts the rows that the fold holds out.

Embeddings of different networks are of different spaces, so that every fit is on those of one network. The model of a
fold never sees a row that the fold holds out, neither in the fit nor in the search of its arguments.

Shapes: N rows, D dimensions, K outputs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

from swinft.data.datamodule import CSVDataModule
from swinft.data.folds import NO_FOLD
from swinft.errors import InputError, RunError
from swinft.model.metrics import Metric
from swinft.run.embed.files import Table
from swinft.run.embed.inputs import Arrays, Metadata
from swinft.run.embed.learner import Learner, Targets
from swinft.run.embed.make import TRAIN, current_table
from swinft.run.embed.makers import Maker
from swinft.run.embed.search import Parts, Wanted, searched
from swinft.run.scoring import row_scorer

INNER = 3  # parts of a search where the rows of a fit have no folds


@dataclass(frozen=True)
class FoldModel:
    """What is fitted for a fold.

    Args:
        key: Its name: that of the network, or of the fold for a backbone.
        network: The network whose embeddings it reads.
        fold: The fold that it does not see.
        learner: The model.
        learned: What it learned.
        dtype: How the embeddings are stored.
        tried: What a search has tried.
    """

    key: str
    network: str
    fold: int
    learner: Learner
    learned: Arrays
    dtype: str
    tried: list[dict[str, Any]]


@dataclass(frozen=True)
class Fitting:
    """Everything that the fits of all folds share.

    Args:
        maker: What made the embeddings.
        data: The training rows.
        metric: The metric that decides a search.
        learners: The models to choose from.
        seed: Seed of the parts of a search.
    """

    maker: Maker
    data: CSVDataModule
    metric: Metric
    learners: list[Learner]
    seed: int

    @classmethod
    def of(
        cls, maker: Maker, data: CSVDataModule, metric: Metric, wanted: Wanted, has_metadata: bool, seed: int
    ) -> "Fitting":
        """The fits of the models that `--fit` names.

        Raises:
            InputError: A model does not predict this kind of target, or there is no metadata.
        """
        schema = data.schema
        if has_metadata and not schema.num_features:
            raise InputError(
                "--metadata: the run has no metadata columns; data.columns.numeric_features and categorical_features "
                "name them. Remove --metadata."
            )
        metadata = Metadata(schema.num_features, schema.category_sizes) if has_metadata else None
        grades = metric.scores_grades and schema.base.are_classes and schema.grades is not None
        return cls(maker, data, metric, [Learner(model, schema, grades, metadata) for model in wanted.models], seed)

    def all_folds(self) -> tuple[list[FoldModel], NDArray[np.float32]]:
        """The models of all folds, and predictions of the rows that they hold out, (N, K); NaN for other rows.

        Raises:
            RunError: Rows lack an embedding, or would be held out and fitted on.
        """
        data, tables = self.data, dict[str, Table]()
        values = np.full((len(data.splits.train.table), len(data.schema.outputs)), np.nan)
        models = []
        for fold in self.maker.folds:
            found = []
            for name in self.maker.networks_of(fold):
                if name not in tables:
                    tables = {name: current_table(self.maker, name, TRAIN)}  # one at a time in memory
                model, rows, predicted = self._fold(fold, name, tables[name])
                models.append(model)
                found.append(predicted)
            values[rows] = np.mean(found, 0, dtype=np.float64)
        return models, values[: len(data.train_table.ids)].astype(np.float32)

    def _fold(self, fold: int, name: str, table: Table) -> tuple[FoldModel, NDArray[np.int64], NDArray[np.float32]]:
        """The model of a fold on the embeddings of one network, and its predictions of the rows that are held out."""
        splits = self.data.splits
        place = {id: number for number, id in enumerate(table.ids)}
        ids, answered = splits.train.table.ids, splits.train.has_target
        fitted_on = np.array([row for row in splits.trained_on(fold).tolist() if answered[row]], dtype=np.int64)
        held_out = splits.held_out(fold)
        absent = [ids[row] for row in (*fitted_on.tolist(), *held_out.tolist()) if ids[row] not in place]
        if absent or np.intersect1d(fitted_on, held_out).size:
            raise RunError(f"fold {fold}: rows without an embedding, or held out and fitted on: {absent[:5]}")
        # In the order of the table, whatever the order of the file is.
        own = np.array([place[ids[row]] for row in fitted_on.tolist()], dtype=np.int64)
        others = np.array([place[ids[row]] for row in held_out.tolist()], dtype=np.int64)
        features, targets = self._features(fitted_on), self._targets(fitted_on)
        learner, tried = self.learners[0], list[dict[str, Any]]()
        if len(self.learners) > 1:
            given = (self.learners, table.values[own], features, targets, self._parts(fitted_on))
            learner, tried = searched(*given, lambda values, chosen: self._gain(values, fitted_on[chosen]))
        learned = learner.fit(table.values[own], features, targets)
        predicted = learner.predict(learned, table.values[others], self._features(held_out))
        assert table.about is not None
        key = f"fold_{fold}" if self.maker.networks is None else name
        return FoldModel(key, name, fold, learner, learned, table.about["dtype"], tried), held_out, predicted

    def _features(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        features = self.data.splits.train.features
        return None if features is None else features[rows]

    def _targets(self, rows: NDArray[np.int64]) -> Targets:
        splits, outputs = self.data.splits, len(self.data.schema.outputs)
        targets, weights = splits.targets[rows], splits.train.weights
        values = np.eye(outputs)[targets] if targets.ndim == 1 else targets.astype(np.float64)
        return Targets(values, np.ones(len(rows)) if weights is None else weights[rows].astype(np.float64))

    def _parts(self, rows: NDArray[np.int64]) -> Parts:
        """Which rows of a fit a search fits on and scores: the other folds in turn; without these, three parts."""
        splits = self.data.splits
        scored = np.flatnonzero(splits.is_scored[rows] & (rows < splits.num_main))
        folds = splits.fold_of_row[rows]
        known = [fold for fold in np.unique(folds[scored]).tolist() if fold != NO_FOLD]
        every = np.arange(len(rows))
        if len(known) > 1:
            held = [scored[folds[scored] == fold] for fold in known]
            return [(every[folds != fold], part) for fold, part in zip(known, held, strict=True)]
        main = np.flatnonzero(rows < splits.num_main)
        rest = np.flatnonzero(rows >= splits.num_main)
        return [(np.concatenate([main[fit], rest]), main[score]) for fit, score in self._divided(rows[main])]

    def _divided(self, rows: NDArray[np.int64]) -> Parts:
        """Rows of no fold in three parts, which keep groups together."""
        splits, splitter = self.data.splits, None  # type: Any, Any
        if splits.train.groups is not None:
            groups = np.array(splits.train.groups)[rows]
            splitter = GroupKFold(INNER)  # type: ignore[no-untyped-call]
            return list(splitter.split(rows, groups=groups))
        strata = self.data.schema.target.strata(splits.targets[rows])
        if strata.ndim == 1 and np.bincount(strata)[np.unique(strata)].min() >= INNER:
            splitter = StratifiedKFold(INNER, shuffle=True, random_state=self.seed)  # type: ignore[no-untyped-call]
            return list(splitter.split(rows, strata))
        splitter = KFold(INNER, shuffle=True, random_state=self.seed)  # type: ignore[no-untyped-call]
        return list(splitter.split(rows))

    def _gain(self, values: NDArray[np.float32], rows: NDArray[np.int64]) -> float:
        """The metric of predictions of some training rows; higher is better, minus infinity where it is undefined."""
        score = row_scorer([self.metric], self.data, rows)(values, None)[self.metric.name]
        return -math.inf if math.isnan(score) else score if self.metric.higher_is_better else -score


def searched_lines(models: Sequence[FoldModel]) -> list[str]:
    """What a search has chosen, a line per model."""
    return [f"{each.key}: {each.learner.model.arguments}" for each in models if each.tried]
