"""Predictions to a `submission.csv` that Kaggle accepts.

The file is built from the sample submission: same header, same ids, same order, same number of rows. It is then read
back from disk and checked against the sample, because what counts is the file and not what was meant to be in it.
"""

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.schema import Schema
from swinft.errors import InputError, suggest
from swinft.run.arguments import call
from swinft.run.layout import Run
from swinft.run.predictions import read_predictions, values_of
from swinft.run.store import commit, is_committed

SHOWN = 20  # problems printed in full; the rest are counted


@dataclass
class SubmissionConfig:
    """How predictions become cells.

    Args:
        format: `probabilities`: one column per class or label, or the last class's where the sample has one column;
            `label`: the most probable class; `number`: regression values; `integer`: rounded regression values;
            `labels`: the labels above the threshold, the most probable one where none is; `auto`: by target and sample.
        threshold: Probability from which a label is written, in 0–1.
        delimiter: What stands between labels.
    """

    format: Literal["auto", "probabilities", "label", "number", "integer", "labels"] = "auto"
    threshold: float = 0.5
    delimiter: str = " "


FORMATS_OF_KIND = {
    "classification": ("probabilities", "label"),
    "regression": ("number", "integer"),
    "multilabel": ("probabilities", "labels"),
}


@dataclass(frozen=True)
class Sample:
    """What a submission must look like.

    Args:
        source: Where it comes from, for messages.
        id: Name of the id column.
        columns: Names of all columns, in order.
        ids: The ids, in order.
    """

    source: str
    id: str
    columns: list[str]
    ids: list[str]

    @property
    def targets(self) -> list[str]:
        """The columns to fill."""
        return [column for column in self.columns if column != self.id]


def read_sample(path: Path, id: str) -> Sample:
    """Reads a sample submission.

    Raises:
        InputError: The file is missing, or has no column `id`.
    """
    if not path.is_file():
        raise InputError(f"there is no sample submission '{path}'; `data.sample_submission` names it.")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows or id not in rows[0]:
        header = rows[0] if rows else []
        raise InputError(f"{path}: no id column '{id}' (`data.id`).{suggest(id, header)}")
    position = rows[0].index(id)
    return Sample(str(path), id, rows[0], [row[position] for row in rows[1:]])


def build_submission(
    sample: Sample, predictions: pd.DataFrame, schema: Schema, config: SubmissionConfig
) -> pd.DataFrame:
    """Fills the sample with predictions.

    Args:
        sample: Header, ids and order.
        predictions: A prediction table; joined by id.
        schema: Kind of target and names of the outputs.
        config: How predictions become cells.

    Returns:
        A frame of text with the sample's columns and rows.

    Raises:
        InputError: An id lacks a prediction, has two, or one that is not finite; a prediction has no id in the sample;
            or the sample's columns do not fit the outputs.
    """
    problems = _match_problems(sample, predictions, len(schema.outputs))
    if problems:
        raise InputError(_listed("the predictions do not fit the sample submission:", problems))
    by_id = pd.Series(range(len(predictions)), index=predictions.iloc[:, 0].astype(str))
    values = values_of(predictions, len(schema.outputs))[by_id.loc[sample.ids].to_numpy()]
    cells = _cells(values, sample, schema, config)
    cells[sample.id] = sample.ids
    return pd.DataFrame({column: cells[column] for column in sample.columns}, dtype=str)


def check_submission(text: str, sample: Sample, schema: Schema, config: SubmissionConfig) -> list[str]:
    """Checks a submission file as Kaggle's parser would, and a little harder.

    Args:
        text: The file's content.
        sample: What it must look like.
        schema: Kind of target and names of the outputs: allowed labels, probabilities in 0–1.
        config: The format it was written in.

    Returns:
        One line per problem, empty when the file is right.
    """
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        return [f"the file is no CSV: {error}"]
    if not rows or rows[0] != sample.columns:
        return [f"line 1: the header is {rows[0] if rows else []}, {sample.source} has {sample.columns}"]
    problems = []
    if len(rows) - 1 != len(sample.ids):
        problems.append(f"{len(rows) - 1} rows, {sample.source} has {len(sample.ids)}")
    position = sample.columns.index(sample.id)
    seen: set[str] = set()
    for line, (row, wanted) in enumerate(zip(rows[1:], sample.ids, strict=False), start=2):
        if len(row) != len(sample.columns):
            problems.append(f"line {line}: {len(row)} fields instead of {len(sample.columns)}")
            continue
        if row[position] in seen:
            problems.append(f"line {line}: id '{row[position]}' is there twice")
        elif row[position] != wanted:
            problems.append(f"line {line}: id '{row[position]}' where {sample.source} has '{wanted}'")
        seen.add(row[position])
        bad = [(name, cell) for name, cell in zip(sample.columns, row, strict=True) if name != sample.id]
        format_ = resolve_format(sample, schema, config)
        problems += [
            f"line {line}, column '{n}': {e}" for n, c in bad if (e := _cell_problem(c, format_, schema, config))
        ]
    return problems


def resolve_format(sample: Sample, schema: Schema, config: SubmissionConfig) -> str:
    """Settles `format: auto` and checks that the sample's columns fit the outputs.

    Raises:
        InputError: The format is not one of the target's, or the columns do not fit.
    """
    allowed = FORMATS_OF_KIND[schema.kind]
    is_wide = set(sample.targets) == set(schema.outputs)
    format_ = (
        config.format
        if config.format != "auto"
        else allowed[0]
        if is_wide or schema.kind == "regression"
        else allowed[1]
    )
    if format_ not in allowed:
        raise InputError(f"submission.format is '{format_}', but a {schema.kind} run can write {' or '.join(allowed)}.")
    needs_all = format_ in ("probabilities", "number", "integer")
    is_binary = format_ == "probabilities" and len(sample.targets) == 1 and len(schema.outputs) == 2
    if needs_all and not is_wide and not is_binary:
        raise InputError(
            f"{sample.source} has the columns {sample.targets} but the run predicts {schema.outputs}. "
            f"Point data.sample_submission to the right file, or set submission.format."
        )
    if not needs_all and len(sample.targets) != 1:
        raise InputError(f"format '{format_}' fills one column, but {sample.source} has {sample.targets}.")
    return format_


def _match_problems(sample: Sample, predictions: pd.DataFrame, num_outputs: int) -> list[str]:
    """Everything that keeps the predictions from being joined to the sample by id."""
    ids = [str(id) for id in predictions.iloc[:, 0]]
    known, wanted = set(ids), set(sample.ids)
    is_finite = np.isfinite(values_of(predictions, num_outputs)).all(axis=1)
    return [
        *(f"id '{id}' has no prediction" for id in sample.ids if id not in known),
        *(f"id '{id}' is predicted twice" for id, count in Counter(ids).items() if count > 1),
        *(f"id '{id}' is predicted but not in {sample.source}" for id in ids if id not in wanted),
        *(f"id '{id}' is twice in {sample.source}" for id, count in Counter(sample.ids).items() if count > 1),
        *(f"id '{id}' has a prediction that is NaN or infinite" for id in np.array(ids)[~is_finite]),
    ]


def _cells(
    values: NDArray[np.float32], sample: Sample, schema: Schema, config: SubmissionConfig
) -> dict[str, list[str]]:
    """The text of every column that is not the id."""
    format_ = resolve_format(sample, schema, config)
    outputs = schema.outputs
    if format_ == "label":
        return {sample.targets[0]: [outputs[k] for k in values.argmax(axis=1)]}
    if format_ == "labels":
        chosen = values >= config.threshold
        chosen[np.arange(len(values)), values.argmax(axis=1)] = (
            True  # an empty cell is refused, and never the best guess
        )
        rows = [[outputs[k] for k in np.flatnonzero(row)] for row in chosen]
        return {sample.targets[0]: [config.delimiter.join(row) for row in rows]}
    if format_ == "probabilities" and len(sample.targets) == 1 != len(outputs):
        return {sample.targets[0]: _numbers(values[:, 1])}
    if format_ == "integer":
        values = np.rint(values)
    return {name: _numbers(values[:, outputs.index(name)]) for name in sample.targets}


def _numbers(column: NDArray[np.float32]) -> list[str]:
    return [f"{value:.9g}" for value in column]


def _cell_problem(cell: str, format_: str, schema: Schema, config: SubmissionConfig) -> str:
    """What is wrong with one cell; empty when nothing is."""
    if format_ in ("label", "labels"):
        tokens = cell.split(config.delimiter) if format_ == "labels" else [cell]
        unknown = [token for token in tokens if token not in schema.outputs]
        return f"'{cell}' is not made of {schema.outputs}" if unknown else ""
    try:
        number = float(cell)
    except ValueError:
        return f"'{cell}' is not a number"
    if not math.isfinite(number):
        return f"'{cell}' is not finite"
    return f"'{cell}' is not in 0–1" if format_ == "probabilities" and not 0 <= number <= 1 else ""


def _listed(title: str, problems: list[str]) -> str:
    rest = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([title, *problems[:SHOWN], *rest])


def submit(run: str, root: str | None = None, dry_run: bool = False) -> None:
    """Writes and checks a run's submission.csv.

    Args:
        run: The run folder.
        root: The data's folder, with the sample submission, where it is another than in training.
        dry_run: Build and check everything, but leave the run's submission.csv as it is.

    Raises:
        InputError: The run has no test predictions yet, or they do not fit the sample submission.
    """
    opened = Run.open(run)
    if not is_committed(opened.test_predictions):
        raise InputError(f"{run} has no test predictions yet. Run `swinft predict {run}` first.")
    config = opened.read_config()
    schema = Schema.from_dict(opened.read_schema())
    predictions = read_predictions(opened.test_predictions, len(schema.outputs))
    data = {**config["data"], **({"root": root} if root else {})}
    sample = _sample_of(data, predictions, opened.test_predictions)
    options = SubmissionConfig(**config["submission"])
    text = build_submission(sample, predictions, schema, options).to_csv(index=False, lineterminator="\n")
    if not dry_run:
        commit(opened.submission, text.encode(), "swinft submit")
        text = opened.submission.read_text(encoding="utf-8")
    problems = check_submission(text, sample, schema, options)
    if problems:
        raise InputError(_listed(f"{opened.submission} would be refused:", problems))
    state = "checked, not written" if dry_run else f"written to {opened.submission} and checked"
    print(f"{len(sample.ids)} rows, columns {', '.join(sample.columns)}: {state} against {sample.source}")
    if not dry_run:
        print(f"upload: kaggle competitions submit -c COMPETITION -f {opened.submission} -m '{opened.root.name}'")


def _sample_of(data: dict[str, Any], predictions: pd.DataFrame, source: Path) -> Sample:
    """The configured sample submission; without one, the id, the target's columns and the order of the predictions."""
    if data["sample_submission"]:
        return read_sample(Path(data["root"]) / data["sample_submission"], data["id"])
    targets = [data["target"]] if isinstance(data["target"], str) else data["target"]
    return Sample(str(source), data["id"], [data["id"], *targets], predictions.iloc[:, 0].astype(str).tolist())


def main(argv: list[str]) -> int:
    """`swinft submit RUN`."""
    return call(submit, "submit", argv)
