"""Distances of classes in a taxonomy.

Shapes: N rows, K classes.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swinft.errors import InputError, listed, suggest
from swinft.model.metrics.base import CLASSES, Array, BuiltinMetric
from swinft.ranges import NOT_NEGATIVE

Paths = dict[str, list[str]]


class HierarchicalDistance(BuiltinMetric):
    """Mean number of steps in a taxonomy from the most probable class up to the common node and down to the true class.

    Args:
        taxonomy: The path of each class from the root to itself: `{Asteronyx: [Animalia, …, Asteronyx]}`. Or a file
            with them: JSON of this form, or CSV with the name in the first column and its path in the others, empty
            where a rank is missing. In a config the file is relative to `data.root`, and the run keeps what it says.
        farthest: The distance of classes that the taxonomy does not have, from 0; by default that is an error.
    """

    name = "hierarchical_distance"
    kinds = CLASSES
    higher_is_better = False

    def __init__(self, taxonomy: dict[str, list[str]] | str, farthest: float | None = None) -> None:
        given = read_taxonomy(Path(taxonomy)) if isinstance(taxonomy, str) else taxonomy
        self.given = self._paths(given)
        self.paths = with_nodes(self.given)  # a rule may answer with a node that is no class
        self.arguments["taxonomy"] = self.given  # a checkpoint must not need the file
        self.farthest = None if farthest is None else float(self._number("farthest", farthest, NOT_NEGATIVE))

    def refusal(self, kind: str) -> str:
        """Classes that the taxonomy does not have."""
        unknown = [name for name in self.outputs if name not in self.paths]
        if not self.outputs:
            return "without a table the classes have no names."
        if unknown and self.farthest is None:
            return (
                f"the taxonomy does not have {listed(unknown, 5)}.{suggest(unknown[0], self.paths)} Add them, or set "
                f"farthest to their distance."
            )
        return ""

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        pairs, counts = np.unique(np.stack([predictions.argmax(1), targets]), axis=1, return_inverse=True)
        distances = np.array([self.distance(self.outputs[one], self.outputs[other]) for one, other in pairs.T.tolist()])
        return float(np.average(distances[counts.reshape(-1)], weights=self.weights))

    def distance(self, one: str, other: str) -> float:
        """Steps between two classes."""
        if one == other:
            return 0.0
        if one not in self.paths or other not in self.paths:
            assert self.farthest is not None
            return self.farthest
        return steps_between(self.paths[one], self.paths[other])

    def _paths(self, given: Any) -> Paths:
        """The paths, checked.

        Raises:
            InputError: A path is no list of names, ends with another name, or a name has two parents.
        """
        if not isinstance(given, Mapping) or not given:
            raise InputError(f"{self.name}: taxonomy is {given!r}. Give the path of each class, or a file with them.")
        found: Paths = {}
        for name, path in given.items():
            is_list = isinstance(path, Sequence) and not isinstance(path, str) and len(path) > 0
            if not isinstance(name, str) or not is_list or not all(isinstance(node, str) and node for node in path):
                raise InputError(f"{self.name}: the path of {name!r} is {path!r}. Give names from the root to itself.")
            if path[-1] != name:
                raise InputError(
                    f"{self.name}: the path of '{name}' ends with '{path[-1]}'. End it with the name itself."
                )
            found[name] = list(path)
        parents: dict[str, list[str]] = {}
        for name, path in found.items():
            for depth, node in enumerate(path):
                if parents.setdefault(node, path[:depth]) != path[:depth]:
                    ways = f"below {'/'.join(path[:depth])} and {'/'.join(parents[node])}"
                    raise InputError(f"{self.name}: '{node}', in the path of '{name}', is {ways}. Give it one place.")
        return found


def steps_between(one: Sequence[str], other: Sequence[str]) -> float:
    """Steps from the end of one path up to the common node and down to the end of another."""
    common = next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    depth = min(len(one), len(other)) if common is None else common
    return float(len(one) + len(other) - 2 * depth)


def with_nodes(paths: Paths) -> Paths:
    """Paths with those of every node on them, after the others."""
    found = dict(paths)
    for path in paths.values():
        for depth, node in enumerate(path, start=1):
            found.setdefault(node, path[:depth])
    return found


def read_taxonomy(path: Path) -> Paths:
    """The paths in a file.

    Raises:
        InputError: It cannot be read, or has another form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.casefold() == ".json":
            found: Paths = json.loads(text)
            return found
    except (OSError, ValueError) as error:
        raise InputError(f"hierarchical_distance: {path} cannot be read: {error}") from None
    paths: Paths = {}
    for line, cells in enumerate(csv.reader(text.splitlines()), start=1):
        names = [cell.strip() for cell in cells]
        if line == 1 or not any(names):
            continue
        if names[0] in paths:
            raise InputError(f"hierarchical_distance: {path}, line {line}: '{names[0]}' is there twice. Keep one.")
        paths[names[0]] = [name for name in names[1:] if name]
    return paths
