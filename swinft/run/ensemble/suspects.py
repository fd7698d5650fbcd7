"""Members that look wrong: too good to be predicted out of fold, the same as another one, or constant.

Shapes: M members, N rows, K outputs.
"""

from hashlib import sha256

import numpy as np

from swinft.errors import listed
from swinft.printing import visible
from swinft.run.ensemble.method import Array
from swinft.run.ensemble.nested import Problem

# Times that a member's error is smaller than that of the next one. Networks that see the same images differ by less,
# and predictions of rows that were trained on by more, as their error is nearly 0.
FACTOR = 5.0
NEARLY_0 = 1e-6  # in float32, whose resolution is 1e-7


def warnings_of(problem: Problem) -> list[str]:
    """One line for each kind of suspicious member, and for intervals that are too narrow."""
    found = [*_too_good(problem), *_twins(problem), *_constant(problem)]
    if problem.by_columns:
        found.append(
            f"the metric reads {listed(f'column {name!r}' for name in problem.by_columns)}: rows of one cell are "
            f"scored together, also where they were drawn several times; intervals may be too narrow."
        )
    return found


def mean_errors(problem: Problem) -> Array:
    """The mean distance of each member from the known targets, in standard deviations of the targets, (M,)."""
    spread = np.nanstd(problem.targets, axis=0)
    distances = np.abs(problem.members - problem.targets) / np.where(spread > 0, spread, 1)
    found: Array = np.nanmean(distances, axis=(1, 2))
    return found


def _too_good(problem: Problem) -> list[str]:
    """Members whose errors are far below those of all others, or nearly 0."""
    errors = mean_errors(problem)
    order = np.argsort(errors, kind="stable")
    found = [int(m) for m in order if errors[m] < NEARLY_0]
    for place in range(len(order) // 2):
        if errors[order[place]] * FACTOR < errors[order[place + 1]]:
            found = [int(m) for m in order[: place + 1]]
    if not found:
        return []
    names = listed(visible(problem.names[m]) for m in found)
    return [
        f"WARNING: {names} predict{'s' * (len(found) == 1)} the targets with less than a fifth of the error of the "
        f"next member, or without any. If these rows, or labels made from them, were trained on, or a column gives the "
        f"target away, every score with such a member is too good: compare it with the public score, or leave it out."
    ]


def _twins(problem: Problem) -> list[str]:
    """Members with the same predictions."""
    first: dict[bytes, str] = {}
    pairs = []
    for name, values in zip(problem.names, problem.members, strict=True):
        other = first.setdefault(sha256(values.tobytes()).digest(), name)
        if other is not name:
            pairs.append(f"{visible(other)} and {visible(name)}")
    what = "WARNING: the same predictions of every row"
    return [f"{what}: {listed(pairs, 5)}. They count twice in a mean."] if pairs else []


def _constant(problem: Problem) -> list[str]:
    """Members that predict every row alike."""
    names = [
        visible(name)
        for name, values in zip(problem.names, problem.members, strict=True)
        if len(values) > 1 and (values == values[:1]).all()
    ]
    return [f"WARNING: the same prediction for every row: {listed(names, 5)}."] if names else []
