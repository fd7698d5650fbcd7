"""Encodes metadata columns as features: numbers unchanged, categories one-hot.

Shapes: N rows, F features.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swinft.data.schema import MISSING_CATEGORY, Schema
from swinft.data.tables.numbers import Gaps, numbers
from swinft.data.tables.table import Problem, Table
from swinft.data.tables.text import TEXT_RULES, Spellings, TextRules, counted
from swinft.errors import number_of, suggest
from swinft.system.limits import format_bytes

MissingFeatures = Literal["error", "fill_test", "fill"]
UnknownCategories = Literal["error", "other"]
MAX_BYTES = 500_000_000  # of a table's encoded metadata, which each process of a fold has in memory
FIX_MISSING = "Write the value, or set data.columns.missing_features to fill."


@dataclass(frozen=True)
class FillRules:
    """How missing metadata and unknown categories are handled.

    Args:
        missing: A missing value is an error (`error`), is filled in rows to predict (`fill_test`), or in training rows
            too (`fill`).
        unknown: In rows to predict, a category that the training rows do not have is an `error`, or is encoded as no
            category (`other`).
    """

    missing: MissingFeatures = "fill_test"
    unknown: UnknownCategories = "other"

    def gaps(self, is_test: bool) -> Gaps:
        """Which cells may have no value; in rows to predict, text in a numeric column counts as missing."""
        if self.missing == "error" or (self.missing == "fill_test" and not is_test):
            return "none"
        return "any" if is_test else "missing"


FILL_RULES = FillRules()


def encode_features(
    table: Table,
    schema: Schema,
    problems: list[Problem],
    rules: TextRules = TEXT_RULES,
    fill_rules: FillRules = FILL_RULES,
    is_test: bool = False,
    notes: list[str] | None = None,
) -> NDArray[np.float32]:
    """Encodes the metadata of rows.

    Args:
        table: N rows.
        schema: Schema of the training table.
        problems: Errors are appended.
        rules: Which words mean a missing value, and whether two spellings are two names.
        fill_rules: How missing and unknown values are handled.
        is_test: Whether these are rows to predict.
        notes: Filled and respelled values are appended with counts.

    Returns:
        float32 (N, F): first the numbers, NaN if missing, which means the training rows' mean; then the category
        columns one-hot. A column's entries are all 0 for an unknown category, and for a missing one unless training
        rows have missing ones too (`MISSING_CATEGORY`).
    """
    if too_large := _too_large(table, schema):
        problems.append(too_large)
        return np.zeros((len(table), 0), dtype=np.float32)
    features = np.zeros((len(table), schema.num_features), dtype=np.float32)
    start = len(schema.numeric_features)
    gaps = fill_rules.gaps(is_test)
    way_out = "set data.columns.missing_features to fill"
    features[:, :start] = numbers(
        table, schema.numeric_features, problems, rules, gaps, notes, schema.booleans, way_out
    )
    for name, known in schema.categories.items():
        cells = table.names(name)
        codes, reasons, found = _codes(
            Counter(cells), known, rules, gaps != "none", is_test and fill_rules.unknown == "other"
        )
        of_row = np.array([codes[cell] for cell in cells], dtype=np.int64)
        has_one = np.flatnonzero(of_row >= 0)
        features[has_one, start + of_row[has_one]] = 1
        start += len(known)
        if reasons:
            problems += [table.problem(row, *reasons[cell], name) for row, cell in enumerate(cells) if cell in reasons]
        if notes is not None:
            notes += [f"{table.path}: column '{name}': {what}: {counted(words)}." for what, words in found.items()]
    return features


def _too_large(table: Table, schema: Schema) -> Problem | None:
    """A problem if the encoded metadata is too large: each category is a column, in memory for every row."""
    size = 4 * len(table) * schema.num_features
    if size <= MAX_BYTES or not schema.categories:
        return None
    name = max(schema.categories, key=lambda name: len(schema.categories[name]))
    many = number_of(len(schema.categories[name]), "category", "categories")
    message = (
        f"the metadata of {number_of(len(table), 'row')} would take {format_bytes(size)}, above "
        f"{format_bytes(MAX_BYTES)}: the column has {many}"
    )
    fix = "Join its rare values into one, or leave the column out of data.columns.categorical_features."
    return Problem(str(table.path), message, fix, column=name)


def _codes(
    cells: Counter[str], known: list[str], rules: TextRules, may_miss: bool, may_be_other: bool
) -> tuple[dict[str, int], dict[str, tuple[str, str]], dict[str, Counter[str]]]:
    """Index of each cell's known category, −1 for none; problems by cell; and values to note."""
    position = {name: k for k, name in enumerate(known)}
    spellings = Spellings(known)
    codes: dict[str, int] = {}
    reasons: dict[str, tuple[str, str]] = {}
    notes: dict[str, Counter[str]] = {}
    for cell, count in cells.items():
        what = ""
        if rules.is_missing(cell):
            codes[cell] = position.get(MISSING_CATEGORY, -1)
            category = "a separate category" if MISSING_CATEGORY in position else "no category"
            what = f"{category} for missing cells"
            if not may_miss:
                reasons[cell] = (
                    ("the cell is empty" if not cell else "the cell is a word for a missing value"),
                    FIX_MISSING,
                )
        elif cell in position:
            codes[cell] = position[cell]
        elif rules.twins == "error" and (twin := spellings.find(cell)) is not None:
            codes[cell] = position[twin]
            what = "categories read as the training table's spelling"
        else:
            codes[cell] = -1
            what = "no category for values that the training table lacks"
            if not may_be_other:
                fix = (
                    "Write one of the training table's, or set data.columns.unknown_categories to "
                    f"other.{suggest(cell, known)}"
                )
                reasons[cell] = "the training table has no such value", fix
        if what and cell not in reasons:
            notes.setdefault(what, Counter())[cell] = count
    return codes, reasons, notes
