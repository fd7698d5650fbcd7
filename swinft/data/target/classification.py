"""Classification: class indices as targets, probabilities as predictions.

Shapes: N rows, K outputs.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.table import Problem, Table
from swinft.data.tables.text import Spellings, counted
from swinft.data.target.base import Target, TargetCells, twin_problems, unknown_names
from swinft.data.target.names import LIST_FIX, QUOTED_LIST, in_order
from swinft.errors import InputError, listed, number_of, suggest
from swinft.printing import visible

MAX_IMBALANCE = 100  # rows of the largest class per row of the smallest


class Classification(Target):
    """One class of K: targets int64 (N,), predictions are probabilities."""

    kind = "classification"
    formats = ("probabilities", "label", "top_k")
    are_classes = True

    def check_columns(self, columns: list[str], delimiter: str | None) -> None:
        """One column; several are the soft targets of `SoftClassification`.

        Raises:
            InputError: There are several columns.
        """
        if len(columns) > 1:
            raise InputError(f"data.target names {columns}, but {type(self).__name__} has one column of classes.")

    def names(self, cells: TargetCells) -> list[str]:
        """The class of each row, N texts; a word for a missing value if it has none."""
        return cells.table.names(cells.columns[0])

    def outputs(self, cells: TargetCells, class_order: Sequence[str] | None) -> list[str]:
        """The classes: in `class_order` if given, sorted by number if all are numbers, else by name."""
        found = in_order({name for name in self.names(cells) if not cells.rules.is_missing(name)})
        return found if class_order is None else ordered_classes(found, class_order)

    def encode(
        self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem], notes: list[str] | None = None
    ) -> NDArray[Any]:
        """Class indices int64 (N,), −1 if unknown."""
        table, column, rules = cells.table, cells.columns[0], cells.rules
        index = {name: k for k, name in enumerate(outputs)}
        found = self.names(cells)
        for row, cell in enumerate(found):
            if rules.is_missing(cell):
                what = f"is {cell!r}, a word for a missing value" if cell else "is empty"
                word = ", or, if the word is a class, remove it from data.columns.missing_words" if cell else ""
                fix = f"Give the row a class, set data.columns.on_missing_target to skip{word}."
                problems.append(table.problem(row, f"the class {what}", fix, column))
            elif QUOTED_LIST.fullmatch(cell):  # `[0, 5]` is an interval
                problems.append(table.problem(row, "the class is a printed list", LIST_FIX, column))
        problems += twin_problems(table, column, Counter(cell for cell in found if cell in index), rules)
        if len(outputs) < 2:
            message = f"all rows have the class {list(outputs)}"
            problems.append(Problem(str(table.path), message, "A classifier needs two classes or more.", column=column))
        return np.array([index.get(cell, -1) for cell in found], dtype=np.int64)

    def encode_answers(self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem]) -> NDArray[Any]:
        """Class indices; each class must be one of the training table's."""
        problems += unknown_names(list(enumerate(self.names(cells))), cells, outputs)
        return self.encode(cells, outputs, problems)

    def confidence(self, predictions: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The probability of the likeliest class."""
        found: NDArray[np.float32] = predictions.max(1)
        return found

    def hardened(self, predictions: NDArray[np.float32]) -> NDArray[Any]:
        """The index of the likeliest class, int64 (N,)."""
        found: NDArray[np.int64] = predictions.argmax(1).astype(np.int64)
        return found

    def size_problems(
        self,
        cells: TargetCells,
        targets: NDArray[Any],
        outputs: Sequence[str],
        groups: Sequence[str] | None,
        num_folds: int,
    ) -> list[Problem]:
        """Classes with fewer rows than folds, or with rows of a single group."""
        rows = np.flatnonzero(targets >= 0).tolist()
        names, of_row = [outputs[targets[row]] for row in rows], [groups[row] for row in rows] if groups else None
        return check_class_sizes(names, num_folds, of_row, cells.table, cells.columns[0])

    def unknown_answers(self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem]) -> list[str]:
        """Classes that training rows do not have."""
        table, column = cells.table, cells.columns[0]
        if column not in table.columns:
            return []
        spellings = Spellings(list(outputs))
        names = self.names(cells)
        found = Counter(names)
        unknown = Counter(
            {cell: n for cell, n in found.items() if not cells.rules.is_missing(cell) and spellings.find(cell) is None}
        )
        fixes = {
            cell: f"Write one of the training table's, or leave the column out.{suggest(cell, outputs)}"
            for cell in unknown
        }
        for row, cell in enumerate(names if unknown else []):
            if cell in unknown:
                problems.append(table.problem(row, "the training table has no such class", fixes[cell], column))
        if not unknown:
            return []
        what = f"is not used; the training table lacks some classes: {counted(unknown)}."
        return [f"{table.path}: column '{column}' {what}"]

    def prior(self, targets: NDArray[Any], num_outputs: int) -> list[float]:
        """Frequency of each class."""
        return [count / len(targets) for count in self.counts(targets, num_outputs)]

    def counts(self, targets: NDArray[Any], num_outputs: int) -> list[float]:
        """Rows per class."""
        found: list[float] = np.bincount(targets, minlength=num_outputs).tolist()
        return found

    def notes(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """A note if one class has more than 100 times the rows of another."""
        counts = np.bincount(targets, minlength=len(outputs))
        few, many = int(counts.argmin()), int(counts.argmax())
        if counts[many] <= MAX_IMBALANCE * counts[few]:
            return []
        rows = f"'{outputs[many]}' has {number_of(counts[many], 'row')}, '{outputs[few]}' {counts[few]:,}"
        return [f"the classes are uneven: {rows}. Prefer a metric like macro_f1 to accuracy."]

    def captions(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """Each row's class, or a dash."""
        return [visible(outputs[index]) if index >= 0 else "–" for index in targets]

    def valid(self, values: NDArray[Any]) -> NDArray[Any]:
        """Probabilities of sum 1; equal ones where all are 0."""
        clipped = np.clip(values, 0, 1)
        sums = clipped.sum(1, keepdims=True)
        shares: NDArray[Any] = np.where(sums > 0, clipped / np.where(sums > 0, sums, 1), 1 / values.shape[1])
        return shares

    def prediction_text(self, prediction: NDArray[np.float32], outputs: Sequence[str]) -> str:
        """The most probable class."""
        best = int(prediction.argmax())
        return f"{visible(outputs[best])} {prediction[best]:.2f}"

    def row_errors(self, values: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
        """One minus the true class's probability."""
        errors: NDArray[np.float64] = 1 - values[np.arange(len(values)), targets].astype(np.float64)
        return errors

    def error_columns(
        self, values: NDArray[np.float32], targets: NDArray[Any], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """The true and the most probable class."""
        names = np.array(outputs)
        return {"true": names[targets], "predicted": names[values.argmax(1)]}


def check_class_sizes(
    names: Sequence[str], num_folds: int, groups: Sequence[str] | None, table: Table, column: str
) -> list[Problem]:
    """A problem for each class with fewer rows than folds, or of one group: some fold could not learn or score it.

    Args:
        names: Class of each row, without missing ones.
        num_folds: Minimum rows of a class.
        groups: Group of each row, or None.
        table: The table, for messages.
        column: The class column.
    """
    problems, set_rare = [], "set data.folds.rare_classes to train or spread"
    groups_of: dict[str, set[str]] = {}
    for name, group in zip(names, groups or [], strict=False):
        groups_of.setdefault(name, set()).add(group)
    for name, count in Counter(names).items():
        of_class = groups_of.get(name, set())
        if count < num_folds:
            message = f"the class has fewer rows than the {num_folds} folds"
            fix = f"It has {count}. Merge it into another, lower data.folds.num, or {set_rare}."
        elif len(of_class) == 1:
            message = "all rows of the class are of one group, which is in one fold"
            fix = f"It is {min(of_class)!r}. Merge the class into another, or {set_rare}."
        else:
            continue
        problems.append(Problem(str(table.path), message, fix, column=column, value=name))
    return problems


def ordered_classes(found: list[str], class_order: Sequence[str]) -> list[str]:
    """The classes in the order of `data.columns.class_order`.

    Raises:
        InputError: A class is missing from it, unknown to the table, or named twice.
    """
    known, counts = set(found), Counter(class_order)
    wrong = {
        "without": [name for name in found if name not in counts],
        "with the unknown": [name for name in class_order if name not in known],
        "twice with": [name for name, count in counts.items() if count > 1],
    }
    reasons = [f"{what} {listed(names)}" for what, names in wrong.items() if names]
    if reasons:
        raise InputError(
            f"data.columns.class_order is {' and '.join(reasons)}. It must name each of {listed(found)} once."
        )
    return list(class_order)
