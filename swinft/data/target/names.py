"""Names of classes and labels in cells: splitting, sorting, and detection of printed lists."""

import re
from collections.abc import Callable
from typing import Any

from swinft.data.tables.numbers import are_numbers
from swinft.data.tables.table import Table
from swinft.data.tables.text import TextRules

# Lists printed by Python and JSON: `['a', 'b']`, `["a"]`, `[]`, `{'a'}`, `('a', 'b')`; then also `[0 1]` and `[a, b]`.
QUOTED_LIST = re.compile(r"""\[\s*\]|[\[({]\s*['"].*[\])}]""", re.DOTALL)
PRINTED_LIST = re.compile(QUOTED_LIST.pattern + r"|\[\s*[0-9-].*\]|\[.*,.*\]", re.DOTALL)
LIST_FIX = (
    "A row with several labels is target_kind multilabel; write the cell as its labels and one delimiter, like "
    "`cool|plant` (pandas: column.map('|'.join)), and set data.columns.label_delimiter."
)


def names_in(table: Table, column: str, rules: TextRules) -> set[str]:
    """The names in a column, without words for a missing value."""
    return {name for name in set(table.names(column)) if not rules.is_missing(name)}


def in_order(names: set[str]) -> list[str]:
    """Sorted names; by number if all are numbers, so that 10 comes after 9, and +1 after -1."""
    key: Callable[[str], Any] = float if are_numbers(names) else str
    return sorted(names, key=lambda name: (key(name), name))


def label_tokens(cell: str, delimiter: str, rules: TextRules) -> list[str]:
    """The labels of a cell without blanks around them; none if the cell means missing."""
    if rules.is_missing(cell):
        return []
    blank = re.sub(r"[^\S ]", " ", cell) if delimiter == " " else cell  # a tab or a no-break blank is a blank
    return [token.strip() for token in blank.split(delimiter)]
