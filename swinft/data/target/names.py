"""Names in cells: classes and labels, their order, and lists that a program has printed."""

import re
from collections.abc import Callable
from typing import Any

from swinft.data.tables.table import Table
from swinft.data.tables.text import TextRules

# `['a', 'b']`, `["a"]`, `[]`, `{'a'}`, `('a', 'b')`: what Python and JSON print; then also `[0 1]` and `[a, b]`.
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
    """Sorted; by number where all are numbers, so that 10 comes after 9."""
    key: Callable[[str], Any] = float if all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", name) for name in names) else str
    return sorted(names, key=lambda name: (key(name), name))


def label_tokens(cell: str, delimiter: str, rules: TextRules) -> list[str]:
    """The labels of a cell; one that means missing has none, and blanks around a label do not count."""
    if rules.is_missing(cell):
        return []
    blank = re.sub(r"[^\S ]", " ", cell) if delimiter == " " else cell  # a tab or a no-break blank is a blank
    return [token.strip() for token in blank.split(delimiter)]
