"""Makes a table by its steps, and checks it like one that is read from a CSV."""

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.steps.named import steps_of
from swinft.data.tables.steps.sequence import StepList
from swinft.data.tables.steps.step import TableStep
from swinft.data.tables.table import DataError, Problem, Table, check_header, id_problems, twin_notes
from swinft.data.tables.table import read_table as read_csv
from swinft.data.tables.text import normal
from swinft.errors import InputError


def given_table(key: str, given: Any) -> str | StepList | None:
    """The table of a setting: the path of a CSV, steps, or None.

    Args:
        key: The setting.
        given: Its value in a config, or a result of this function.

    Raises:
        InputError: It is neither, or a step is wrong.
    """
    if given is None or isinstance(given, StepList):
        return given
    if isinstance(given, str | PurePath) and str(given):
        return str(given)
    if isinstance(given, Sequence) and not isinstance(given, str):
        return steps_of(key, given)
    raise InputError(
        f"{key} is {given!r}; write the path of a CSV, a list of steps like [{{csv: train.csv}}], or null."
    )


def table_name(given: str | StepList, root: Path) -> str:
    """What names a table in messages: the path of its file, or its key."""
    return given.key if isinstance(given, StepList) else str(root / given)


def read_given(
    given: str | Path | StepList,
    root: Path,
    id_column: str,
    required: Mapping[str, str],
    problems: list[Problem],
    encoding: str = "utf-8",
    id_setting: str = "data.id",
    follow_links: bool = False,
) -> Table | None:
    """A table as a config gives it: read from a CSV, or made by steps; checked in the same way.

    Args:
        given: Path of a CSV, relative to `root`; or steps.
        root: Folder of the data.
        id_column: As for `read_table`, and so the next four.
        required: Other required columns.
        problems: Errors are appended.
        encoding: Encoding of CSVs.
        id_setting: The config key that names the id column.
        follow_links: Whether links may lead out of the folders that steps list.

    Returns:
        The table; None if a file or a column is missing, or a step fails.
    """
    if not isinstance(given, StepList):
        return read_csv(root / given, id_column, required, problems, encoding, id_setting)
    context = Context(root, encoding, follow_links, id_column=id_column)
    frame = given.run(context)
    if frame is None:
        problems += context.problems
        return None
    path, settings = Path(given.key), {id_column: id_setting, **required}
    if not check_header(path, [normal(name) for name in frame.columns], settings, problems):
        return None
    if not len(frame):
        fix = "Correct its steps." if frame.columns else "Add steps that make some."
        problems.append(Problem(given.key, "the table has no rows", fix))
        return None
    table = _table(path, frame, context, id_column)
    problems += id_problems(table)
    return table


def _table(path: Path, frame: Frame, context: Context, id_column: str) -> Table:
    """The rows of a frame as a table; each row keeps its file and line."""
    places = [context.origin(place) for place in frame.places]
    names = dict.fromkeys(file for file, _ in places)
    number = {file: k for k, file in enumerate(names, start=1)}
    columns = {normal(name): cells for name, cells in frame.columns.items()}
    return Table(
        path,
        columns,
        np.array([record for _, record in places], dtype=np.int64),
        id_column,
        (*context.notes, *twin_notes(path, columns[id_column])),
        tuple(frame.columns),
        tuple(map(Path, names)),
        np.array([number[file] for file, _ in places], dtype=np.int64),
        _sha256(frame),
    )


def made_sha256(steps: StepList, root: Path, encoding: str, follow_links: bool) -> str:
    """The SHA-256 of what steps make, as CSV; errors as of `make_frame`."""
    return _sha256(make_frame(steps, root, encoding, follow_links)[0])


def _sha256(frame: Frame) -> str:
    return hashlib.sha256(as_csv(frame.columns).encode()).hexdigest()


def as_csv(columns: Mapping[str, Sequence[str]]) -> str:
    """Columns as the text of a CSV, with line feeds as line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def make_frame(
    steps: StepList, root: Path, encoding: str = "utf-8", follow_links: bool = False
) -> tuple[Frame, list[str]]:
    """The columns that steps make, whatever they are for, and notes of each step.

    Raises:
        DataError: A step finds problems; all of them are listed.
    """
    context = Context(root, encoding, follow_links)
    frame = steps.run(context)
    if frame is None:
        raise DataError(context.problems)
    return frame, context.notes


def read_table(
    steps: str | Sequence[TableStep | Mapping[str, Any]],
    root: str | Path = ".",
    encoding: str = "utf-8",
    follow_links: bool = False,
) -> pd.DataFrame:
    """The table that `data.train` and its like would be: every cell is text, and empty where it is missing.

    Args:
        steps: A list of steps, as in a config; or the path of a CSV.
        root: Folder of the data.
        encoding: Encoding of CSVs.
        follow_links: Whether links may lead out of the folders that steps list.

    Raises:
        InputError: A step is wrong.
        DataError: A step finds problems with the data; all of them are listed.
    """
    frame, _ = make_frame(steps_of("the table", steps), Path(root), encoding, follow_links)
    return pd.DataFrame(dict(frame.columns), dtype=object)
