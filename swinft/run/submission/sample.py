"""The sample submission: the header, ids and cells that a submission must match."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.columns import Columns
from swinft.data.roots import resolved_root
from swinft.data.sample_rows import BETWEEN, PAIR, with_pair
from swinft.data.schema import Schema
from swinft.data.tables.numbers import are_numbers
from swinft.data.tables.steps.frame import is_pattern
from swinft.data.tables.steps.make import given_table, read_given
from swinft.data.tables.table import DataError, Problem, Table
from swinft.data.tables.text import normal
from swinft.errors import InputError
from swinft.model.metrics import Traits

MOST_ROWS = 1_000  # distinct rows of cells that are stored with a run
SUM_TOLERANCE = 1e-3  # 120 cells of 0.0083 sum to 0.996, which does not count as 1; of 0.00833 to 0.9996, which does


@dataclass(frozen=True)
class Sample:
    """The sample submission.

    Args:
        source: Its path, for messages.
        id: Name of the id column.
        columns: Names of all columns, in order, without surrounding spaces.
        ids: The ids, in order.
        cells: The cells of the columns except the id; empty without a sample submission.
        header: The names exactly as in the file; None for `columns`.
        deciding: The cells at the time of the fit, which decide the format; None for `cells`. A hidden test set has
            another sample submission, whose cells must not change the format.
        keys: The columns of the id; two where a row is for an id and an output.
        is_file: Whether there is one; if not, this is a substitute.
    """

    source: str
    id: str
    columns: list[str]
    ids: list[str]
    cells: Mapping[str, list[str]] = field(default_factory=dict)
    header: list[str] | None = None
    deciding: Mapping[str, list[str]] | None = None
    keys: Sequence[str] = ()
    is_file: bool = True

    @classmethod
    def of(cls, table: Table, given: str | Sequence[str] | None = None) -> "Sample":
        """The sample submission in a table, and `submission.id`.

        Raises:
            InputError: A column has no name, or two have the same name.
        """
        header = [name for name in table.header if name != PAIR]
        columns = [normal(name) for name in header]
        odd = [name for name, count in Counter(columns).items() if count > 1 or not name]
        if odd:
            raise InputError(
                f"{table.path}: line 1: the columns {odd} have no unique name (a saved index?). Point "
                f"data.sample_submission to the competition's own file."
            )
        cells = {name: table.column(name) for name in columns if name != table.id_column}
        keys = [table.id_column] if given is None or isinstance(given, str) else list(given)
        return cls(str(table.path), table.id_column, columns, table.ids, cells, header, keys=keys)

    @classmethod
    def substitute(
        cls, source: str, id: str, target: str | Sequence[str], schema: Schema, metric: Traits, ids: Sequence[str]
    ) -> "Sample":
        """What stands for a sample submission where there is none: the id and the target's columns.

        Args:
            source: Where the ids are from, for messages.
            id: Name of the id column.
            target: `data.target`.
            schema: The run's outputs.
            metric: Traits of the first metric.
            ids: Ids of the rows of the submission.
        """
        several = schema.outputs if any(map(is_pattern, target)) else list(target)
        targets = [target] if isinstance(target, str) else several
        if schema.base.are_classes and metric.wants_probabilities and len(schema.outputs) > 2:
            targets = schema.outputs
        return cls(source, id, [id, *targets], list(ids), is_file=False)

    def id_of(self, row: Sequence[str]) -> str:
        """The id of a row of cells, of both columns where it has two."""
        return BETWEEN.join(row[self.columns.index(name)] for name in self.keys or [self.id])

    def distinct(self) -> dict[str, list[str]]:
        """The cells of distinct rows, which suffice to decide the format."""
        names = self.targets
        rows = list(dict.fromkeys(zip(*(self.cells[name] for name in names), strict=True)))[:MOST_ROWS]
        return {name: [row[k] for row in rows] for k, name in enumerate(names)}

    def decided_by(self, cells: Mapping[str, list[str]]) -> "Sample":
        """A copy whose format is decided by the cells of the fit's sample; self if that one had other columns."""
        return replace(self, deciding=cells) if set(cells) == set(self.targets) else self

    def first(self) -> "Sample":
        """Its first row alone."""
        cells = {name: found[:1] for name, found in self.cells.items()}
        return replace(self, ids=self.ids[:1], cells=cells)

    @property
    def targets(self) -> list[str]:
        """All columns except those of the id."""
        return [column for column in self.columns if column not in (self.id, *self.keys)]

    @property
    def written_header(self) -> list[str]:
        """The header of a submission: exactly the sample's."""
        return self.header or self.columns

    def words(self, column: str) -> list[str]:
        """The distinct cells of a column that are not empty, in order of appearance."""
        cells = self.cells if self.deciding is None else self.deciding
        return list(dict.fromkeys(cell.strip() for cell in cells.get(column, []) if cell.strip()))

    def numbers(self, column: str) -> NDArray[np.float64] | None:
        """A column's distinct cells as numbers; None if one is not a number, or all are empty."""
        words = self.words(column)
        if not words or not are_numbers(words):
            return None
        return np.array([float(word) for word in words])

    def sums_to_one(self, columns: list[str]) -> bool:
        """Whether the cells of two or more columns sum to one in each row: a competition may require it."""
        if len(columns) < 2 or not self.ids or any(self.numbers(column) is None for column in columns):
            return False
        found = self.cells if self.deciding is None else self.deciding
        cells: list[list[Any]] = [[cell or "nan" for cell in found[column]] for column in columns]
        sums = np.array(cells, dtype=np.float64).sum(axis=0)
        return bool(np.all(np.abs(sums - 1) <= SUM_TOLERANCE))

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(self.source).name


def _allow_steps(data: Mapping[str, Any], reads_rows: bool, allow_code: Sequence[str]) -> None:
    """Imports the custom steps of the tables that a submission is made from.

    Raises:
        InputError: A class is not allowed.
    """
    keys = ["sample_submission", *(["test"] if reads_rows else [])]
    if any(isinstance(data[key], list) for key in keys):
        from swinft.run.config.trust import import_steps  # slow to import, and seldom needed

        import_steps(data, keys, allow_code)


def read_sample(
    data: Mapping[str, Any], sample_id: str | list[str] | None, reads_rows: bool, allow_code: Sequence[str]
) -> Sample | None:
    """The sample submission of a config; None if it has none.

    Args:
        data: The section `data` of a run's config.
        sample_id: `submission.id`.
        reads_rows: Whether columns of the rows to predict are read too, so that their steps are allowed.
        allow_code: Packages or modules whose classes the config may name.

    Raises:
        InputError: A class of a custom step is not allowed.
        DataError: It is missing, or not a valid table.
    """
    _allow_steps(data, reads_rows or not data["sample_submission"], allow_code)
    given = given_table("data.sample_submission", data["sample_submission"])
    if not given:
        return None
    columns = Columns(**{**data["columns"], "sample_id": sample_id})
    problems: list[Problem] = []
    id, setting = columns.id_of(data["id"], is_sample=True)
    more = columns.encoding, setting, data["loading"]["follow_links"]
    given = with_pair(given, sample_id)
    table = read_given(given, Path(resolved_root(data["root"])), id, {}, problems, *more)
    if table is None or problems:
        raise DataError(problems, data["loading"]["download"])
    return Sample.of(table, sample_id)
