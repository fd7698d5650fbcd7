"""Target cells become class indices, numbers or 0/1 labels; what is none of these is named.

Shapes: N rows, K outputs.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.schema import Schema, label_tokens, target_columns
from swinft.data.tables.numbers import numbers
from swinft.data.tables.table import Problem, Table
from swinft.data.tables.text import HOW_TWINS_DIFFER, TEXT_RULES, TextRules, counted, twins
from swinft.errors import number_of, suggest

# `['a', 'b']`, `["a"]`, `[]`, `{'a'}`, `('a', 'b')`: what Python and JSON print; then also `[0 1]` and `[a, b]`.
QUOTED_LIST = re.compile(r"""\[\s*\]|[\[({]\s*['"].*[\])}]""", re.DOTALL)
PRINTED_LIST = re.compile(QUOTED_LIST.pattern + r"|\[\s*[0-9-].*\]|\[.*,.*\]", re.DOTALL)
LIST_FIX = (
    "A row with several labels is target_kind multilabel; write the cell as its labels and one delimiter, like "
    "`cool|plant` (pandas: column.map('|'.join)), and set data.columns.label_delimiter."
)
USUAL_DELIMITERS = (",", ";", "|", "/", "\t", " ")


def encode_targets(
    table: Table,
    schema: Schema,
    target: str | list[str],
    delimiter: str | None,
    problems: list[Problem],
    rules: TextRules = TEXT_RULES,
    notes: list[str] | None = None,
) -> NDArray[Any]:
    """Targets as numbers.

    Args:
        table: The training table.
        schema: Its schema.
        target: Target column or columns.
        delimiter: What stands between labels in one cell.
        problems: Whatever is wrong is appended.
        rules: Which words mean a missing value, and whether two spellings are two names.
        notes: Columns of True and False, and cells that are taken for a row without labels, are appended with counts.

    Returns:
        int64 (N,) for classification, else float32 (N, K).
    """
    columns = target_columns(schema.kind, target, delimiter)
    if schema.kind == "classification":
        return _class_indices(table, schema, columns[0], problems, rules)
    if delimiter is not None:
        return _label_rows(table, schema, columns[0], delimiter, problems, rules, notes)
    way_out = "set data.columns.on_missing_target to skip"
    values = numbers(table, columns, problems, rules, "none", notes, way_out=way_out)
    if schema.kind == "regression":
        for k in np.flatnonzero((values == values[:1]).all(0)).tolist():
            message, fix = "all rows have the same number", "There is nothing to learn; name another column."
            problems.append(Problem(str(table.path), message, fix, column=columns[k]))
        return values
    for k, name in enumerate(columns):
        problems += _label_problems(table, name, values[:, k])
    return values


def encode_answers(
    table: Table,
    schema: Schema,
    target: str | list[str],
    delimiter: str | None,
    problems: list[Problem],
    rules: TextRules = TEXT_RULES,
) -> NDArray[Any]:
    """Targets of another table than the training table, whose classes and labels are the only ones.

    Args:
        table: A labelled test table.
        schema: Of the training table.
        target: As of `encode_targets`.
        delimiter: As of `encode_targets`.
        problems: Whatever is wrong is appended.
        rules: As of `encode_targets`.
    """
    columns = target_columns(schema.kind, target, delimiter)
    if schema.kind == "regression":
        return numbers(table, columns, problems, rules, "none")
    if schema.kind == "classification" or delimiter is not None:
        for row, cell in enumerate(table.names(columns[0])):
            words = [cell] if delimiter is None else label_tokens(cell, delimiter, rules)
            for word in words:
                if word and not rules.is_missing(word) and word not in schema.outputs:
                    fix = f"Write one of the training table's.{suggest(word, schema.outputs)}"
                    problems.append(table.problem(row, f"the training table has no {word!r}", fix, columns[0]))
    return encode_targets(table, schema, target, delimiter, problems, rules)


def missing_targets(table: Table, columns: Sequence[str], rules: TextRules) -> NDArray[np.bool_]:
    """Rows with a word for a missing value in one of the columns, bool (N,)."""
    cells = [[rules.is_missing(cell) for cell in table.names(name)] for name in columns]
    missing: NDArray[np.bool_] = np.logical_or.reduce(np.array(cells, dtype=bool))
    return missing


def missing_notes(table: Table, columns: Sequence[str], rules: TextRules) -> list[str]:
    """One line per column with cells that are taken for a missing target."""
    found = {name: rules.missing(table.names(name)) for name in columns}
    fix = "where one of these is a value, leave it out of data.columns.missing_words"
    return [
        f"{table.path}: column '{name}': {number_of(words.total(), 'cell is', 'cells are')} taken for missing: "
        f"{counted(words)}" + (f"; {fix}." if set(words) - {""} else ".")
        for name, words in found.items()
        if words
    ]


def check_class_sizes(
    names: Sequence[str], num_folds: int, groups: Sequence[str] | None, table: Table, column: str
) -> list[Problem]:
    """Every class with fewer rows than there are folds, or of one group: some fold could neither learn nor score it.

    Args:
        names: Class of each row, without missing ones.
        num_folds: Fewest rows of a class.
        groups: Group of each row, where there are groups.
        table: Where the classes come from, for messages.
        column: Their column.
    """
    problems = []
    homes: dict[str, set[str]] = {}
    for name, group in zip(names, groups or [], strict=False):
        homes.setdefault(name, set()).add(group)
    for name, count in Counter(names).items():
        of_class = homes.get(name, set())
        if count < num_folds:
            message = f"the class has fewer rows than the {num_folds} folds"
            fix = (
                f"It has {count}. Merge it into another, lower data.folds.num, or set data.folds.rare_classes to train."
            )
        elif len(of_class) == 1:
            message = "all rows of the class are of one group, which is in one fold"
            fix = f"It is {min(of_class)!r}. Merge the class into another, or set data.folds.rare_classes to train."
        else:
            continue
        problems.append(Problem(str(table.path), message, fix, column=column, value=name))
    return problems


def twin_problems(table: Table, column: str, counts: Counter[str], rules: TextRules) -> list[Problem]:
    """Names in a column that are two spellings of one.

    Args:
        table: Where they come from.
        column: Their column.
        counts: The names, each with its rows.
        rules: Whether two spellings are two names.
    """
    if rules.twins == "distinct":
        return []
    problems = []
    for spellings in twins(sorted(counts)):
        named = " and ".join(map(repr, spellings))
        rows = ", ".join(f"{counts[name]:,}" for name in spellings)
        message = f"{named} differ only by {HOW_TWINS_DIFFER}"
        fix = f"Write the name in one way ({rows} rows), or, where they are two, set data.columns.twins to distinct."
        problems.append(Problem(str(table.path), message, fix, column=column))
    return problems


def _class_indices(
    table: Table, schema: Schema, column: str, problems: list[Problem], rules: TextRules
) -> NDArray[np.int64]:
    index = {name: k for k, name in enumerate(schema.outputs)}
    cells = table.names(column)
    for row, cell in enumerate(cells):
        if rules.is_missing(cell):
            what = f"is {cell!r}, a word for a missing value" if cell else "is empty"
            word = ", or, where the word is a class, leave it out of data.columns.missing_words" if cell else ""
            fix = f"Give the row a class, set data.columns.on_missing_target to skip{word}."
            problems.append(table.problem(row, f"the class {what}", fix, column))
        elif QUOTED_LIST.fullmatch(cell):  # `[0, 5]` is an interval
            problems.append(table.problem(row, "the class is a printed list", LIST_FIX, column))
    problems += twin_problems(table, column, Counter(cell for cell in cells if cell in index), rules)
    if len(schema.outputs) < 2:
        message = f"all rows have the class {schema.outputs}"
        problems.append(Problem(str(table.path), message, "A classifier needs two classes or more.", column=column))
    return np.array([index.get(cell, -1) for cell in cells], dtype=np.int64)


def _label_rows(
    table: Table,
    schema: Schema,
    column: str,
    delimiter: str,
    problems: list[Problem],
    rules: TextRules,
    notes: list[str] | None,
) -> NDArray[np.float32]:
    index = {name: k for k, name in enumerate(schema.outputs)}
    values = np.zeros((len(table), len(schema.outputs)), dtype=np.float32)
    cells = table.names(column)
    used: Counter[str] = Counter()
    for row, cell in enumerate(cells):
        tokens = label_tokens(cell, delimiter, rules)
        used.update(tokens)
        if reason := _token_problem(cell, tokens, delimiter, rules):
            problems.append(table.problem(row, *reason, column))
        values[row, [index[token] for token in tokens if token in index]] = 1
    problems += twin_problems(table, column, used, rules)
    problems += _delimiter_problems(table, column, [cell for cell in cells if not rules.is_missing(cell)], delimiter)
    if notes is not None and (words := rules.missing(cells)):
        notes.append(
            f"{table.path}: column '{column}': {number_of(words.total(), 'row has', 'rows have')} no label: "
            f"{counted(words)}."
        )
    if notes is not None and len(table) > 1 and not any(delimiter in cell for cell in cells):
        notes.append(f"{table.path}: column '{column}': no cell holds data.columns.label_delimiter {delimiter!r}.")
    if not schema.outputs:
        problems.append(Problem(str(table.path), "no row has a label", "Name the column of labels.", column=column))
    return values


def _token_problem(cell: str, tokens: list[str], delimiter: str, rules: TextRules) -> tuple[str, str] | None:
    """What is wrong with the labels of a cell."""
    if PRINTED_LIST.fullmatch(cell):
        return "the cell is a printed list", LIST_FIX
    if "" in tokens or len(set(tokens)) < len(tokens):
        return "a label is empty or doubled", f"Write each label once, one {delimiter!r} between two."
    if any(map(rules.is_missing, tokens)):
        fix = "Remove it, or, where it is a label, leave it out of data.columns.missing_words."
        return "a word for a missing value stands among the labels", fix
    if mark := next((token[-1] for token in tokens if len(token) > 1 and token[-1] in ",;|"), ""):
        return f"a label ends in {mark!r}", f"Set data.columns.label_delimiter to {mark!r}, or remove the sign."
    return None


def _delimiter_problems(table: Table, column: str, cells: list[str], delimiter: str) -> list[Problem]:
    """A delimiter that no cell holds, where most hold another one that is usual."""
    if any(delimiter in cell for cell in cells):
        return []
    for mark in USUAL_DELIMITERS:
        count = sum(mark in cell for cell in cells)
        if 2 * count > len(cells):
            message = (
                f"no cell holds data.columns.label_delimiter {delimiter!r}, and {count:,} of {len(cells):,} hold "
                f"{mark!r}"
            )
            fix = (
                f"Set data.columns.label_delimiter to {mark!r}; rows of one label each are target_kind classification."
            )
            return [Problem(str(table.path), message, fix, column=column)]
    return []


def _label_problems(table: Table, column: str, values: NDArray[np.float32]) -> list[Problem]:
    """Numbers that are no labels: one problem for a column of shares, one per cell otherwise."""
    bad = np.flatnonzero(~np.isin(values, (0, 1)) & np.isfinite(values))
    if len(bad) and ((values[bad] > 0) & (values[bad] < 1)).all():
        message = number_of(len(bad), "label is a share between 0 and 1", "labels are shares between 0 and 1")
        fix = (
            "For shares set data.target_kind to regression and the head to RegressionHead with loss: bce, low: 0 "
            "and high: 1; for labels write 0 or 1."
        )
        first = table.problem(int(bad[0]), message, fix, column)
        return [first]
    return [table.problem(int(row), "a label must be 0 or 1", "Write 0 or 1.", column) for row in bad]
