"""A submission: its settings, its plan, its text, and the check of the text.

`swinft.run.submission.decide` makes the plan in `check`, `fit` and `submit`.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from swinft.class_spec import AsWritten
from swinft.data.columns import one_column
from swinft.data.schema import Schema
from swinft.errors import InputError, number_of
from swinft.inference.predictions import Predictions
from swinft.inference.rules.named import NamedRule
from swinft.inference.rules.rule import Rule
from swinft.ranges import settings_of
from swinft.run.room import refuse_too_much
from swinft.run.submission.formats import Numbers, SubmissionFormat, Values
from swinft.run.submission.grouping import KEY as GROUP
from swinft.run.submission.grouping import GroupConfig
from swinft.run.submission.long import Long
from swinft.run.submission.sample import Sample

FormatName = Literal["auto", "probabilities", "label", "number", "integer", "labels", "top_k", "rle"]
# A word, or `top_k` with its arguments.
NamedFormat = FormatName | dict[Literal["top_k"], dict[str, AsWritten] | None]
CELL = 150  # bytes of a cell as text, which is there twice: as it is made, and as it is read back to be checked
SHOWN = 20  # problems printed in full; the rest are counted


@dataclass
class SubmissionConfig:
    """Settings of a submission. All can be changed after the fit: `swinft submit RUN --format integer`.

    Args:
        format: `probabilities`: one column per class or label, or one class of two if the sample has one column;
            `label`: the most probable class; `number`: regression values; `integer`: rounded regression values;
            `labels`: the labels above the threshold; `top_k`: the most probable classes in one cell, the best first:
            `{top_k: {k: 5, new: new_whale}}`; `rle`: run lengths of masks; `auto`: by the sample's cells, the target
            and the first metric; or the `class_path` of a custom `swinft.SubmissionFormat`.
        threshold: Labels with at least this probability are written, in 0–1. If all labels of a row are below it, the
            most probable one is written.
        delimiter: Text between labels; null for that of the sample's cells, or `data.columns.label_delimiter`.
        id: Id column of the sample submission, if its name differs from that in the test table; `[id, class]` if a row
            is for an id and an output, named in the second column.
        columns: Outputs of the sample's columns with other names: `{X4: X4_mean}`; for one column with the probability
            of one of two classes, that class: `{label: dog}`.
        words: Text of classes or labels, if the sample has other names for them: `{cat: '0', dog: '1'}`.
        keep: Columns that are not predicted and keep the sample's cells.
        drop: Outputs without a column in the sample.
        rules: What changes the predictions before they are written, in this order, and the out-of-fold predictions
            before they are scored a second time: `alone`, `any`, `clip`, `exclusive`, `expected_cost`, `group`,
            `hierarchy`, `normalize`, `power`, `sum`, each with its arguments:
            `[{clip: {min: 0}}, {group: {by: patient, how: max}}]`; those that are fitted on out-of-fold predictions:
            `affine`, `calibrate`, `class_weights`, `clip_fitted`, `cuts`, `new_class`, `temperature`, `thresholds`; or
            the `class_path` of a custom `swinft.Rule`.
        rows: How the sample's ids are made if it has a row for each row to predict and output: `"{id}__{output}"`; null
            to find it.
        group: How the predictions of several rows become one row of the submission, in the out-of-fold score as well:
            `{by: patient, how: mean}`. `by` is the column with the sample's ids; `how` is `mean`, `median`, `max`,
            `min`, `noisy_or`, or `weighted` by the column `weight`.
    """

    format: NamedFormat | SubmissionFormat = "auto"
    threshold: float = 0.5
    delimiter: str | None = None
    id: str | list[str] | None = None
    columns: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    keep: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    rules: list[Rule | NamedRule] = field(default_factory=list)
    rows: str | None = None
    group: GroupConfig | None = None

    def __post_init__(self) -> None:
        """Converts names to text: YAML reads `0` as a number and `yes` as true."""
        self.columns = {_text(name): _text(output) for name, output in self.columns.items()}
        self.id = one_column(self.id)
        self.words = {_text(output): _text(word) for output, word in self.words.items()}
        self.group = None if self.group is None else settings_of(GroupConfig, GROUP, self.group)

    @property
    def is_set(self) -> bool:
        """Whether a setting is not its default, except those that also change the out-of-fold score."""
        return replace(self, rules=[], group=None) != SubmissionConfig()


@dataclass(frozen=True)
class SubmissionPlan:
    """The content of a submission.

    Args:
        sample: The sample submission, whose header and ids the file must have.
        schema: The run's outputs.
        format: Format of the predicted columns.
        reason: Why it has this format.
        kept: Columns that keep the sample's cells.
        notes: Notes on what looks wrong but may be intended, one line each.
        long: The sample as it is in the file, if it has a row for each row of `sample` and each of its columns.
    """

    sample: Sample
    schema: Schema
    format: SubmissionFormat
    reason: str
    kept: list[str]
    notes: list[str]
    long: Long | None = None

    @property
    def file(self) -> Sample:
        """The sample as it is in the file."""
        return self.sample if self.long is None else self.long.sample

    def describe(self) -> str:
        """One line: the format, the reason, and an example row with the mean of the training rows."""
        kept = f", and keeps the sample's cells in {', '.join(self.kept)}" if self.kept else ""
        example = f", like {self._example()}" if self.sample.ids and self.schema.prior else ""
        rows = f", each in a row {self.long.ids.pattern} of {self.long.column}" if self.long else ""
        return f"submission: writes {self.format.describe()}{rows}{kept} ({self.reason}){example}"

    def rows(self, values: Values) -> pd.DataFrame:
        """The submission's rows as text, for predictions (N, K) in the sample's order."""
        cells = checked_cells(self.format, values) | {self.sample.id: self.sample.ids}
        if self.long:
            cells = self.long.rows(cells, self.sample.id)
        cells |= {name: list(self.file.cells[name]) for name in self.kept}
        return pd.DataFrame({column: cells[column] for column in self.file.columns}, dtype=str)

    def _example(self) -> str:
        alone = replace(self, sample=self.sample.first(), long=self.long and self.long.first())
        return as_csv(alone, alone.rows(np.array([self.schema.prior]))).splitlines()[1]


def checked_cells(form: SubmissionFormat, values: Values) -> dict[str, list[str]]:
    """The cells of each column, checked.

    Raises:
        InputError: A custom format fails, or does not return one text for each row of each column.
    """
    try:
        cells: Any = form.cells(values.copy())  # maps are copied, too, but not their pixels
    except InputError:
        raise
    except Exception as error:  # any error of custom code
        raise InputError(
            f"submission.format: {form.name}.cells fails for {number_of(len(values), 'row')}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(cells, Mapping) or set(cells) != set(form.columns):
        given = f"the columns {list(cells)}" if isinstance(cells, Mapping) else f"a {type(cells).__name__}"
        raise InputError(f"submission.format: {form.name}.cells returns {given}; it must return {form.columns}.")
    for column, found in cells.items():
        if len(found) != len(values) or not all(isinstance(cell, str) for cell in found):
            raise InputError(
                f"submission.format: {form.name}.cells returns {len(found)} cells for column '{column}', like "
                f"{next(iter(found), None)!r}; it must return {len(values)} cells of text."
            )
    return {column: list(found) for column, found in cells.items()}


def build_submission(plan: SubmissionPlan, predictions: Predictions) -> tuple[pd.DataFrame, list[str]]:
    """Fills the sample with predictions.

    Args:
        plan: The plan.
        predictions: Predictions, joined by id.

    Returns:
        A frame of text with the sample's columns and rows, and notes, one line each.

    Raises:
        InputError: An id has no prediction, two, or one that is not finite or not a probability; a prediction has no
            id in the sample; or rows must sum to 1 and do not.
    """
    rows, columns = len(plan.file.ids), len(plan.file.columns)
    refuse_too_much(
        CELL * rows * columns,
        f"the cells of {rows:,} rows and {columns:,} columns of the submission",
        "Use a machine with more memory: predictions and `swinft submit` work there with the run's folder alone.",
    )
    found = matched(plan, predictions)
    values: Any = found.values.astype(np.float64)
    if plan.schema.base.are_maps:
        if found.maps is None:
            raise InputError("the predictions have no maps, from which masks are made: run `swinft predict` again.")
        values = found.maps
    if isinstance(plan.format, Numbers):
        plan.format.check_sums(values)
    return plan.rows(values), plan.format.changes(values)


def matched(plan: SubmissionPlan, predictions: Predictions) -> Predictions:
    """The predictions in the sample's order. Arguments and errors as `build_submission`.

    Raises:
        InputError: The predictions do not fit the sample.
    """
    problems = _match_problems(plan, predictions)
    if problems:
        raise InputError(listed("the predictions do not fit the sample submission:", problems))
    return predictions.join(plan.sample.ids, "the predictions")


def as_csv(plan: SubmissionPlan, rows: pd.DataFrame) -> str:
    """The text of a submission: exactly the sample's header, commas, Unix line ends."""
    text: str = rows.to_csv(index=False, header=plan.file.written_header, lineterminator="\n")
    return text


def check_submission(text: str, plan: SubmissionPlan) -> list[str]:
    """Checks a submission file, more strictly than Kaggle's parser.

    Args:
        text: The file's content.
        plan: Its plan.

    Returns:
        One line per problem; empty if the file is right.
    """
    sample = plan.file
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        return [f"the file is not a CSV: {error}"]
    if not rows or rows[0] != sample.written_header:
        return [f"line 1: the header is {rows[0] if rows else []}, {sample.source} has {sample.written_header}"]
    problems = []
    if len(rows) - 1 != len(sample.ids):
        problems.append(f"{number_of(len(rows) - 1, 'row')}, {sample.source} has {len(sample.ids)}")
    place = {column: k for k, column in enumerate(sample.columns)}
    filled = [(place[column], column) for column in plan.format.columns] if plan.long is None else []
    seen: set[str] = set()
    for line, (row, wanted) in enumerate(zip(rows[1:], sample.ids, strict=False), start=2):
        if plan.long:  # the column of the format that this row is of
            filled = [(place[plan.long.column], plan.long.ids.words[line - 2])]
        if len(row) != len(sample.columns):
            problems.append(f"line {line}: {number_of(len(row), 'field')} instead of {len(sample.columns)}")
            continue
        if (id := sample.id_of(row)) in seen:
            problems.append(f"line {line}: id '{id}' is there twice")
        elif id != wanted:
            problems.append(f"line {line}: id '{id}' where {sample.source} has '{wanted}'")
        seen.add(id)
        problems += [
            f"line {line}, column '{column}': {problem}"
            for k, column in filled
            if (problem := plan.format.problem(column, row[k]))
        ]
        problems += [
            f"line {line}, column '{column}': '{row[place[column]]}' where {sample.source} has '{cell}'"
            for column in plan.kept
            if row[place[column]] != (cell := sample.cells[column][line - 2])
        ]
    return problems


def _text(name: object) -> str:
    """A name as text, if its spelling in the YAML is unambiguous.

    Raises:
        InputError: It may have had several spellings.
    """
    if isinstance(name, str):
        return name
    if isinstance(name, int) and not isinstance(name, bool) and abs(name) < 10:
        return str(name)  # 10 may have been 010
    raise InputError(f"submission: YAML reads a name as {name}, which has several spellings. Write it in quotes: '…'.")


def listed(title: str, problems: Sequence[str]) -> str:
    """A title and the first problems, one line each; the rest are counted."""
    rest = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([title, *problems[:SHOWN], *rest])


def _match_problems(plan: SubmissionPlan, predictions: Predictions) -> list[str]:
    """Problems with which the predictions cannot be joined to the sample by id, or written."""
    sample, ids, values = plan.sample, predictions.ids, predictions.values
    known, wanted = set(ids), set(sample.ids)
    is_finite = np.isfinite(values).all(axis=1)
    # A mean of probabilities may exceed 1 by float32's rounding.
    is_probability = ((values >= -1e-5) & (values <= 1 + 1e-5)).all(axis=1) | (not plan.schema.base.are_probabilities)
    return [
        *(f"id '{id}' has no prediction" for id in sample.ids if id not in known),
        *(f"id '{id}' is predicted twice" for id, count in Counter(ids).items() if count > 1),
        *(f"id '{id}' is predicted but not in {sample.source}" for id in ids if id not in wanted),
        *(f"id '{id}' is twice in {sample.source}" for id, count in Counter(sample.ids).items() if count > 1),
        *(f"id '{id}' has a prediction that is NaN or infinite" for id in np.array(ids)[~is_finite]),
        *(f"id '{id}' has a prediction outside 0–1" for id in np.array(ids)[is_finite & ~is_probability]),
    ]
