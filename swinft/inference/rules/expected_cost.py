"""The answer of the least expected cost under the predicted probabilities, in the place of the most probable class.

Shapes: N rows, K classes, A answers.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from swinft.data.roots import resolved_root
from swinft.errors import InputError, listed, suggest
from swinft.inference.rules.arguments import BuiltinRule
from swinft.inference.rules.rule import Values
from swinft.model.metrics.taxonomy import Paths, read_taxonomy, steps_between, with_nodes

Costs = dict[str, dict[str, float]]
FILES = ("costs", "taxonomy")  # the arguments that may be files


class ExpectedCostRule(BuiltinRule):
    """Gives probability 1 to the answer of the least expected cost, the first of equal ones.

    The expected cost is the sum over classes of their probability times the cost of the answer for them. An answer that
    is no class, such as the genus of a species, becomes a further output. One of `costs` and `taxonomy` is needed.

    Args:
        costs: The cost of each answer for each true class: `{cat: {cat: 0, dog: 1, fox: 3}, …}`. Or a CSV with the
            answers in the first column, and a column for each class; in a config relative to `data.root`.
        taxonomy: Paths of classes as in the metric `hierarchical_distance`, whose distance is the cost; or its file.
        inner: With a taxonomy, whether nodes that are no class are answers too.
    """

    name = "expected_cost"
    kinds = ("classification",)

    def __init__(
        self, costs: Costs | str | None = None, taxonomy: Paths | str | None = None, inner: bool = True
    ) -> None:
        self._flag("inner", inner)
        if (costs is None) == (taxonomy is None):
            raise InputError("expected_cost: give costs or taxonomy, and not both.")
        self.inner = inner
        self.costs = None if costs is None else _costs(read_costs(Path(costs)) if isinstance(costs, str) else costs)
        paths = read_taxonomy(Path(taxonomy)) if isinstance(taxonomy, str) else taxonomy
        self.paths = None if paths is None else with_nodes(_paths(paths))

    def __str__(self) -> str:
        """Its name, and the number of names that it knows."""
        known = "taxonomy" if self.costs is None else "costs"
        return f"{self.name}({known} of {len(self.costs or self.paths or {})} names)"

    def refusal(self) -> str:
        """Classes without costs or without a place in the taxonomy."""
        if self.paths is not None:
            unknown = [name for name in self.outputs if name not in self.paths]
            hint = suggest(unknown[0], self.paths) if unknown else ""
            return f"the taxonomy does not have {listed(unknown, 5)}.{hint}" if unknown else ""
        assert self.costs is not None
        for answer, known in self.costs.items():
            if lacking := [name for name in self.outputs if name not in known]:
                return f"the costs of '{answer}' lack the class {listed(lacking, 5)}.{suggest(lacking[0], known)}"
        return ""

    @property
    def added(self) -> list[str]:
        """Answers that are no class."""
        return [name for name in self._answers if name not in self.outputs]

    @property
    def _answers(self) -> list[str]:
        """All answers, classes first."""
        names = self.costs if self.costs is not None else self.paths or {}
        classes = [name for name in self.outputs if name in names]
        others = [name for name in names if name not in classes]
        return classes + (others if self.costs is not None or self.inner else [])

    @property
    def _matrix(self) -> Values:
        """The cost of each answer for each class, (A, K)."""
        if self.costs is not None:
            return np.array([[self.costs[answer][name] for name in self.outputs] for answer in self._answers])
        assert self.paths is not None
        paths, classes = self.paths, [self.paths[name] for name in self.outputs]
        return np.array([[steps_between(paths[answer], path) for path in classes] for answer in self._answers])

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """1 for the answer of the least expected cost, 0 for the others."""
        places = {name: k for k, name in enumerate([*self.outputs, *self.added])}
        of_answer = np.array([places[name] for name in self._answers])
        expected = np.round(values @ self._matrix.T, 12)  # sums of the same numbers in another order are equal
        decided = np.zeros((len(values), len(places)))
        decided[np.arange(len(values)), of_answer[expected.argmin(axis=1)]] = 1
        return decided


def completed(given: Any, root: str | Path) -> Any:
    """A rule of a config with what its files say, so that the frozen config alone defines it; others are unchanged.

    Raises:
        InputError: A file cannot be read.
    """
    arguments = given.get(ExpectedCostRule.name) if isinstance(given, Mapping) else None
    if not isinstance(arguments, Mapping):
        return given
    read: dict[str, Any] = {"costs": read_costs, "taxonomy": read_taxonomy}
    files = {key: arguments[key] for key in FILES if isinstance(arguments.get(key), str)}
    found = {key: read[key](Path(resolved_root(str(root))) / path) for key, path in files.items()}
    return {ExpectedCostRule.name: {**arguments, **found}} if found else given


def read_costs(path: Path) -> Costs:
    """The costs in a CSV.

    Raises:
        InputError: It cannot be read, or a cell is not a number.
    """
    try:
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if any(row)]
    except (OSError, ValueError) as error:
        raise InputError(f"expected_cost: {path} cannot be read: {error}") from None
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise InputError(f"expected_cost: {path}: write a line of classes, and a line for each answer, as long.")
    names, found = [name.strip() for name in rows[0][1:]], Costs()
    for line, row in enumerate(rows[1:], start=2):
        answer = row[0].strip()
        try:
            costs = [float(cell) for cell in row[1:]]
        except ValueError as error:
            raise InputError(f"expected_cost: {path}, answer '{answer}' (row {line}): {error}") from None
        if answer in found:
            raise InputError(f"expected_cost: {path}: the answer '{answer}' is there twice. Keep one.")
        found[answer] = dict(zip(names, costs, strict=True))
    return found


def _costs(given: Any) -> Costs:
    """The argument `costs`, checked.

    Raises:
        InputError: It is no mapping of answers to costs of classes.
    """
    is_table = isinstance(given, Mapping) and given and all(isinstance(each, Mapping) for each in given.values())
    rows = given.items() if is_table else ()
    cells = [(answer, name, cost) for answer, costs in rows for name, cost in costs.items()]
    for answer, name, cost in cells:
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not np.isfinite(cost):
            raise InputError(f"expected_cost: the cost of '{answer}' for '{name}' is {cost!r}. Give a number.")
        if not isinstance(answer, str) or not isinstance(name, str):
            raise InputError(f"expected_cost: {answer!r} or {name!r} is not text. Put names in quotes.")
    if not cells:
        raise InputError(f"expected_cost: costs is {given!r}. Give the cost of each answer for each class, or a file.")
    return {answer: dict(costs) for answer, costs in given.items()}


def _paths(given: Any) -> Paths:
    """The argument `taxonomy`, checked as by the metric."""
    from swinft.model.metrics.taxonomy import HierarchicalDistance

    return HierarchicalDistance(given).given
