"""A submission: its settings, the plan of what it holds, its text, and the check of the text.

`swinft.run.submission.decide` makes the plan, at `check`, at `fit` and at `submit` alike.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from swinft.data.schema import Schema
from swinft.errors import InputError, number_of
from swinft.inference.predictions import Predictions
from swinft.run.submission.formats import SubmissionFormat, Values, checked_cells
from swinft.run.submission.sample import Sample

FormatName = Literal["auto", "probabilities", "label", "number", "integer", "labels"]
SHOWN = 20  # problems printed in full; the rest are counted


@dataclass
class SubmissionConfig:
    """How predictions become cells. All of it can be changed after the fit: `swinft submit RUN --format integer`.

    Args:
        format: `probabilities`: one column per class or label, or that of one class where the sample has one column for
            two; `label`: the most probable class; `number`: regression values; `integer`: rounded regression values;
            `labels`: the labels above the threshold; `auto`: by the sample's cells, the target and the first
            metric; or a `class_path` of your own `swinft.SubmissionFormat`.
        threshold: Probability from which a label is written, in 0–1. Where all of a row's labels are below it, the most
            probable one is written.
        delimiter: What stands between labels; null for that of the sample's cells, or `data.columns.label_delimiter`.
        clip: Smallest and largest number that is written: `[0.01, 0.99]`. Null for the training targets' range where
            whole numbers are written, else for none.
        normalize: Divide the numbers of each row by their sum.
        id: Id column of the sample submission, where it has another name there than in the table of rows to predict.
        columns: Output of each column of the sample that has another name: `{X4: X4_mean}`; where one column holds the
            probability of one of two classes, that class: `{label: dog}`.
        words: What is written for a class or label, where the sample has another word for it: `{cat: '0', dog: '1'}`.
        keep: Columns that are not predicted and keep the sample's own cells.
        drop: Outputs that the sample has no column for.
    """

    format: SubmissionFormat | FormatName = "auto"
    threshold: float = 0.5
    delimiter: str | None = None
    clip: tuple[float, float] | None = None
    normalize: bool = False
    id: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    keep: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Reads names as text: YAML takes `0` for a number and `yes` for true."""
        self.columns = {_text(name): _text(output) for name, output in self.columns.items()}
        self.words = {_text(output): _text(word) for output, word in self.words.items()}


@dataclass(frozen=True)
class SubmissionPlan:
    """What `submit` writes.

    Args:
        sample: What the file must look like.
        schema: The run's outputs.
        format: What the predicted columns hold.
        reason: Why it is this format.
        kept: Columns that keep the sample's cells.
        notes: What is odd but may be meant, one line each.
    """

    sample: Sample
    schema: Schema
    format: SubmissionFormat
    reason: str
    kept: list[str]
    notes: list[str]

    def describe(self) -> str:
        """One line: what will be written, why, and an example row: that of the training rows' mean prediction."""
        kept = f", and keeps the sample's cells in {', '.join(self.kept)}" if self.kept else ""
        example = f", like {self._example()}" if self.sample.ids and self.schema.prior else ""
        return f"submission: writes {self.format.describe()}{kept} ({self.reason}){example}"

    def rows(self, values: Values) -> pd.DataFrame:
        """The submission's rows as text, for predictions (N, K) in the sample's order."""
        cells = {**checked_cells(self.format, values), **{name: list(self.sample.cells[name]) for name in self.kept}}
        cells[self.sample.id] = self.sample.ids
        return pd.DataFrame({column: cells[column] for column in self.sample.columns}, dtype=str)

    def _example(self) -> str:
        first = {name: cells[:1] for name, cells in self.sample.cells.items()}
        alone = replace(self, sample=replace(self.sample, ids=self.sample.ids[:1], cells=first))
        return as_csv(alone, alone.rows(np.array([self.schema.prior]))).splitlines()[1]


def build_submission(plan: SubmissionPlan, predictions: Predictions) -> tuple[pd.DataFrame, list[str]]:
    """Fills the sample with predictions.

    Args:
        plan: What to write.
        predictions: Joined by id.

    Returns:
        A frame of text with the sample's columns and rows, and what was changed or is odd, one line each.

    Raises:
        InputError: An id lacks a prediction, has two, or one that is not finite or no probability; or a prediction has
            no id in the sample.
    """
    problems = _match_problems(plan, predictions)
    if problems:
        raise InputError(listed("the predictions do not fit the sample submission:", problems))
    values = predictions.join(plan.sample.ids, "the predictions").values.astype(np.float64)
    return plan.rows(values), plan.format.changes(values)


def as_csv(plan: SubmissionPlan, rows: pd.DataFrame) -> str:
    """The text of a submission: exactly the sample's header, commas, Unix line ends."""
    text: str = rows.to_csv(index=False, header=plan.sample.written_header, lineterminator="\n")
    return text


def check_submission(text: str, plan: SubmissionPlan) -> list[str]:
    """Checks a submission file as Kaggle's parser would, and a little harder.

    Args:
        text: The file's content.
        plan: What it must hold.

    Returns:
        One line per problem, empty when the file is right.
    """
    sample = plan.sample
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        return [f"the file is no CSV: {error}"]
    if not rows or rows[0] != sample.written_header:
        return [f"line 1: the header is {rows[0] if rows else []}, {sample.source} has {sample.written_header}"]
    problems = []
    if len(rows) - 1 != len(sample.ids):
        problems.append(f"{number_of(len(rows) - 1, 'row')}, {sample.source} has {len(sample.ids)}")
    position = sample.columns.index(sample.id)
    filled = [(sample.columns.index(column), column) for column in plan.format.columns]
    seen: set[str] = set()
    for line, (row, wanted) in enumerate(zip(rows[1:], sample.ids, strict=False), start=2):
        if len(row) != len(sample.columns):
            problems.append(f"line {line}: {number_of(len(row), 'field')} instead of {len(sample.columns)}")
            continue
        if row[position] in seen:
            problems.append(f"line {line}: id '{row[position]}' is there twice")
        elif row[position] != wanted:
            problems.append(f"line {line}: id '{row[position]}' where {sample.source} has '{wanted}'")
        seen.add(row[position])
        problems += [
            f"line {line}, column '{column}': {problem}"
            for k, column in filled
            if (problem := plan.format.problem(column, row[k]))
        ]
    return problems


def _text(name: object) -> str:
    """A name as text, where no spelling is lost.

    Raises:
        InputError: It may have been written in several ways.
    """
    if isinstance(name, str):
        return name
    if isinstance(name, int) and not isinstance(name, bool) and abs(name) < 10:
        return str(name)  # 10 may have been 010
    raise InputError(
        f"submission: YAML reads a name as {name}, which has several spellings. Write it in quotes, as it is: '…'."
    )


def listed(title: str, problems: Sequence[str]) -> str:
    """A title and the first problems, one line each; the rest are counted."""
    rest = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([title, *problems[:SHOWN], *rest])


def _match_problems(plan: SubmissionPlan, predictions: Predictions) -> list[str]:
    """Everything that keeps the predictions from being joined to the sample by id, or from being written."""
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
