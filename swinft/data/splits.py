"""The training and test rows of a datamodule: reads the tables, skips rows and assigns folds."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.augment.dry_run import transform_notes
from swinft.data.column_notes import column_notes
from swinft.data.column_patterns import by_schema
from swinft.data.data_settings import DataSettings
from swinft.data.dropped import Dropped, dropped_notes, read_dropped
from swinft.data.extra import extra_notes, find_leaks, leaks_csv, with_extra
from swinft.data.fold_assignment import assign_folds
from swinft.data.fold_checks import check_rows
from swinft.data.folds import ALL_ROWS, NO_FOLD, Folds, unseen_rows
from swinft.data.gap_checks import check_gaps
from swinft.data.given_rows import GivenRows
from swinft.data.inspection.image_files import ImageFiles
from swinft.data.masks.masks import with_masks
from swinft.data.pseudo_labels import PseudoLabels, awaiting_labels, with_labels
from swinft.data.sample_rows import checked_sample, with_pair
from swinft.data.sampled_order import SampledOrder
from swinft.data.samples import Rows, read_test, read_test_targets, read_train
from swinft.data.sampling import TrainingRows, make_sampler
from swinft.data.schema import Schema, check_kind, recognised, with_prior
from swinft.data.tables.table import DataError, Problem, Table
from swinft.errors import InputError
from swinft.seeding import seed_for
from swinft.store import verify

OK = "ok"  # status of a row with its own prediction


class Splits:
    """The training rows with their folds, and the rows to predict.

    Args:
        settings: Settings of the datamodule.
        image_files: Their image files.
    """

    def __init__(self, settings: DataSettings, image_files: ImageFiles) -> None:
        self.settings, self.image_files = settings, image_files
        self._schema: Schema | None = None
        self.sample: Table | None = None
        self.notes: list[str] = []
        self.known_images: Path | None = None  # an earlier run's images.csv
        self.needs_images = True  # if not, images and the tables of rows to predict may be gone
        self.known_schema: Path | None = None  # an earlier run's, with which a custom kind is compared
        self.tables: tuple[Rows, Schema, Rows | None] | None = None  # as read: train, and to predict
        self._train: Rows | None = None
        self.given_rows: GivenRows | None = None  # to predict, in the place of those of `data.test`
        self._test: Rows | None = None
        self.known_leaks: Path | None = None  # an earlier run's extra.csv
        self.fold_of_row: Folds = np.empty(0, dtype=np.int64)  # int64 (N,); −1 for rows that no fold scores
        self._leaks: NDArray[np.bool_] | None = None  # which extra rows each fold leaves out, bool (folds, N)
        self._dropped: Dropped = {}

    @property
    def schema(self) -> Schema | None:
        """What prediction must know of the training table; None until it is read, or given."""
        return self._schema

    @schema.setter
    def schema(self, value: Schema) -> None:
        self._schema, self.settings = recognised(value, self.settings.target_kind), by_schema(self.settings, value)

    @property
    def train(self) -> Rows:
        """The training rows.

        Raises:
            InputError: They are not read yet.
        """
        if self._train is None:
            raise InputError('the rows are not read yet: call setup("fit") first.')
        return self._train

    @property
    def test(self) -> Rows:
        """The rows to predict.

        Raises:
            InputError: They are not read yet.
        """
        if self._test is None:
            raise InputError('the rows are not read yet: call setup("predict") first.')
        return self._test

    @property
    def has_train(self) -> bool:
        """Whether the training rows are read."""
        return self._train is not None

    @property
    def has_test(self) -> bool:
        """Whether the rows to predict are read."""
        return self._test is not None

    @property
    def by_name(self) -> dict[str, Rows]:
        """The rows that were read, by `train` and `test`."""
        return {name: rows for name, rows in (("train", self._train), ("test", self._test)) if rows is not None}

    @property
    def targets(self) -> NDArray[Any]:
        """Training targets: int64 (N,) or float32 (N, K); −1 or NaN if missing."""
        targets = self.train.targets
        assert targets is not None
        return targets

    @property
    def is_scored(self) -> NDArray[np.bool_]:
        """Which training rows some fold scores, bool (N,): not skipped, with a fold and a target."""
        scored: NDArray[np.bool_] = self.train.is_used & (self.fold_of_row != NO_FOLD) & self.train.has_target
        return scored

    @property
    def status(self) -> list[str]:
        """Status of each row of the training table: `ok`, or why no fold scores it."""
        without = dict.fromkeys(np.flatnonzero(self.fold_of_row == NO_FOLD).tolist(), "in no fold")
        unanswered = dict.fromkeys(np.flatnonzero(~self.train.has_target).tolist(), "no target")
        reasons = {**without, **unanswered, **self.train.skipped}
        return [reasons.get(row, OK) for row in range(self.num_main)]

    @property
    def num_main(self) -> int:
        """How many rows the training table has; those of extra tables follow."""
        return len(self.train.table) if self.train.num_main is None else self.train.num_main

    @cached_property
    def main_table(self) -> Table:
        """The training table."""
        table = self.train.table
        return table if self.train.num_main is None else table.take(np.arange(self.num_main))

    @property
    def leaks_csv(self) -> str | None:
        """The text of an `extra.csv`; None where there are no extra tables."""
        return None if self._leaks is None else leaks_csv(self.train, self._leaks)

    def titles(self, split: str, rows: list[int]) -> list[str]:
        """What a figure says of some rows: their targets, or the ids of those to predict."""
        assert self.schema is not None
        ids = self.test.table.ids if split == "test" else []
        return [ids[row] for row in rows] if split == "test" else self.schema.captions(self.targets[rows])

    def check_fold(self, fold: int) -> None:
        """Checks that a fold can be held out.

        Raises:
            InputError: There is no such fold.
        """
        last = int(self.fold_of_row.max())
        if fold != ALL_ROWS and not 0 <= fold <= last:
            raise InputError(f"fold is {fold}; the folds are 0 to {last}.")

    def trained_on(self, fold: int) -> NDArray[np.int64]:
        """Rows that are trained on if `fold` is held out: all but skipped and dropped ones, and leaking extra."""
        chosen = self.train.is_used & (self.fold_of_row != fold)
        chosen[self._dropped.get(fold, [])] = False
        return np.flatnonzero(chosen if self._leaks is None or fold == ALL_ROWS else chosen & ~self._leaks[fold])

    def num_left_out(self, fold: int) -> int:
        """How many extra rows a fold leaves out."""
        return 0 if self._leaks is None or fold == ALL_ROWS else int((self._leaks[fold] & self.train.is_used).sum())

    def sampled_order(self, fold: int) -> SampledOrder | None:
        """The order of a sampler for a fold; None to visit each row once, shuffled."""
        sampler, rows = make_sampler(self.settings.loading.sampler), self.trained_on(fold)
        if sampler is None:
            return None
        assert self.schema is not None
        targets = self.schema.target.strata(self.targets[rows])
        training = TrainingRows(targets, self.schema, self.train.table, rows)
        return SampledOrder(sampler, training, seed_for("order", self.settings.folds.seed, fold))

    def loss_weights(self, fold: int) -> NDArray[np.float32] | None:
        """Factors on the training loss, float32 (N,), with a mean of 1 over the rows that a fold trains on; else None.

        Raises:
            InputError: All rows that the fold trains on have weight 0.
        """
        if self.train.weights is None:
            return None
        mean = self.train.weights[self.trained_on(fold)].mean(dtype=np.float64)
        if not mean > 0:
            raise InputError("data.columns.weight is 0 in all rows that the fold trains on: nothing would be learnt.")
        return np.asarray(self.train.weights / mean, dtype=np.float32)

    @property
    def score_weights(self) -> NDArray[np.float32] | None:
        """What each training row counts in the metrics, float32 (N,); None where all count the same."""
        return self.train.weights if self.settings.columns.weighs_score else None

    @property
    def unseen(self) -> NDArray[np.bool_] | None:
        """Which training rows have a class that no training row of their fold has, bool (N,); None without classes."""
        return unseen_rows(self.targets, self.fold_of_row, self.trained_on)

    def prior_shift(self, fold: int) -> NDArray[np.float32] | None:
        """What the sampler adds to the log odds of each output (K,), where the loss is to take it out; else None."""
        order = self.sampled_order(fold)
        return order.prior_shift() if order else None

    def num_training_rows(self, fold: int) -> int:
        """Number of rows that a fold's training visits in `data.loading.virtual_epochs` epochs.

        Raises:
            InputError: The sampler's order is not valid, or all weights are 0.
        """
        self.loss_weights(fold)
        order = self.sampled_order(fold)
        if order is None:
            return len(self.trained_on(fold)) * (self.settings.tile.per_image if self.settings.tile else 1)
        order.check()
        return order.length

    def held_out(self, fold: int) -> NDArray[np.int64]:
        """Rows that a fold scores, in table order."""
        return np.flatnonzero(self.is_scored & (self.fold_of_row == fold))

    def read_tables(self) -> tuple[Rows, Schema]:
        """The training rows and their schema, from the tables alone: no image is opened.

        Raises:
            DataError: Everything that is wrong with the tables and the files they name.
            InputError: `data.train` is not set.
        """
        if self.tables is None:
            problems: list[Problem] = []
            found = self._read_train(problems)
            schema = found[1] if found else None
            others: list[Problem] = []
            names_test = self.settings.test or self.settings.sample_submission
            test = read_test(self.settings, schema, others) if names_test else None
            self.sample = self._read_sample(test, others)
            problems += [problem for problem in others if self.needs_images or not problem.is_missing]
            if problems or found is None:
                raise DataError(problems, self.settings.loading.download)
            self.tables = *found, test
        return self.tables[0], self.tables[1]

    def setup_fit(self) -> None:
        """Reads the tables, finds rows to skip, and assigns the folds.

        Raises:
            DataError: Everything that is wrong with the tables and the files they name.
            InputError: The folds cannot be used.
        """
        rows, schema = self.read_tables()
        assert self.tables is not None
        test = self.tables[2]
        train = with_masks(self.settings, self._without_bad_images(rows), schema)
        assert train.targets is not None
        config, known = self.settings.folds, train.is_used & train.has_target & ~train.is_extra
        schema = with_prior(schema, train.targets[known], train.masks.digest() if train.masks else None)
        if schema.kind_check and self.known_schema:
            check_kind(schema, Schema.from_dict(json.loads(verify(self.known_schema).read_bytes())))
        folds = assign_folds(config, replace(train, targets=schema.target.strata(train.targets)), self.image_files)
        notes = check_rows(train, folds, schema.outputs, config, self.known_images is not None)
        check_gaps(train, schema, folds)
        self._leaks = find_leaks(train, folds, self.known_leaks, self.image_files)
        self._dropped = read_dropped(config.drop, train, folds)
        self.schema, self._test, self.fold_of_row = schema, test, folds
        self._train = awaiting_labels(train, config.extra_tables)
        for values in (train.targets, folds):  # a datamodule gives them out
            values.flags.writeable = False
        sample = None if self.settings.predicts_sample else self.sample
        tables = [train.table, *([test.table] if test else []), *([sample] if sample else [])]
        self.notes = [
            *(note for table in tables for note in table.notes),
            *column_notes(train, schema, self.settings.targets, config.group),
            *(extra_notes(train, self._leaks, config.extra_tables) if self._leaks is not None else []),
            *dropped_notes(config.drop, self._dropped),
            *notes,
            *(order.notes() if (order := self.sampled_order(config.held_out)) else []),
            *self._transform_notes(),
        ]

    def setup_predict(self) -> None:
        """Reads the rows to predict, and the training table if no schema is set.

        Raises:
            DataError: Everything that is wrong with the tables and the files they name.
            InputError: Nothing names rows to predict.
        """
        if not self.settings.test and not self.settings.sample_submission:
            raise InputError("there is nothing to predict: set data.test or data.sample_submission.")
        problems: list[Problem] = []
        if self.schema is None:
            found = self._read_train(problems)
            if found and found[0].targets is not None and not problems:
                is_main = found[0].is_used & found[0].has_target & ~found[0].is_extra
                self.schema = with_prior(found[1], found[0].targets[is_main])
        test = read_test(self.settings, self.schema, problems, is_rerun=True, given=self.given_rows)
        if problems or test is None:
            raise DataError(problems, self.settings.loading.download)
        self._test, self.notes = test, [*self.notes, *test.table.notes]

    def test_targets(self) -> NDArray[Any]:
        """Targets of a labelled test table: int64 (N,) or float32 (N, K).

        Raises:
            InputError: The table has no targets.
            DataError: Targets are wrong, or unknown to the training table.
        """
        assert self.schema is not None
        return read_test_targets(self.settings, self.test.table, self.schema)

    def label(self, found: Sequence[PseudoLabels]) -> None:
        """Gives rows of extra tables the labels of the fold that is held out."""
        assert self.schema is not None
        self._train = with_labels(self.train, self.schema, found)

    def _transform_notes(self) -> list[str]:
        if not self.settings.has_custom_transforms:
            return []
        loading = self.settings.loading
        return transform_notes(self.settings.augment, loading.resize, loading.shrink, self.image_files.image_size)

    def _without_bad_images(self, rows: Rows) -> Rows:
        """Marks the rows that `on_bad_image: skip` skips."""
        skips = self.settings.loading.on_bad_image != "error"
        return rows.without_images(*self.image_files.bad_images(rows, self.known_images)) if skips else rows

    def _read_sample(self, test: Rows | None, problems: list[Problem]) -> Table | None:
        """The sample submission; if there is no test table, it is the rows to predict."""
        settings, rows = self.settings, test.table if test else None
        if not settings.sample_submission or settings.predicts_sample:
            return rows if settings.sample_submission else None
        id, setting = settings.columns.id_of(settings.id, is_sample=True)
        given = with_pair(settings.sample_submission, settings.columns.sample_id)
        return checked_sample(settings.read(given, id, {}, problems, setting), rows, problems)

    def _read_train(self, problems: list[Problem]) -> tuple[Rows, Schema] | None:
        if self.settings.train is None:
            raise InputError("data.train is not set: it names the CSV of the training rows.")
        # Folds from a file are checked later: rows without a fold may include all rows of a class.
        found = read_train(self.settings, self.settings.folds.fewest_of_class, problems)
        if found is None:
            return None
        train, schema, self.settings = found
        return with_extra(self.settings, train, schema, problems), schema
