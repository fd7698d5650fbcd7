"""Compares the methods and the members of an ensemble, and chooses the method.

Shapes: M members, N rows, K outputs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swinft.errors import InputError
from swinft.run.ensemble.method import Method
from swinft.run.ensemble.methods import METHODS
from swinft.run.ensemble.nested import (
    Candidate,
    Problem,
    correlations,
    differences,
    evaluate,
    leave_one_out,
    member_candidates,
)
from swinft.run.ensemble.recipe import Recipe


@dataclass(frozen=True)
class Comparison:
    """Methods and members, scored.

    Args:
        chosen: The chosen method with its predictions.
        table: What is printed and stored of all of them: plain values.
    """

    chosen: Candidate
    table: dict[str, Any]

    @property
    def method(self) -> Method:
        """The chosen method."""
        return METHODS[self.chosen.name]


def methods_to_try(problem: Problem, wanted: str) -> tuple[list[Method], dict[str, str]]:
    """The methods to compare, and why others are not.

    Raises:
        InputError: The method that is asked for cannot combine these predictions.
    """
    refused = {name: reason for name, method in METHODS.items() if (reason := problem.refusal(method))}
    if wanted in refused:
        others = [name for name in METHODS if name not in refused]
        advice = f"Use --method {' or '.join(others)}." if others else "Name more members."
        raise InputError(f"--method {wanted}: {refused[wanted]}. {advice}")
    names = [name for name, method in METHODS.items() if method.is_automatic]
    if wanted != "auto":
        names = list(dict.fromkeys(["mean", wanted]))
    tried = [METHODS[name] for name in names if name not in refused]
    if not tried:
        raise InputError(f"no method can combine the members: {refused['mean']}.")
    return tried, {name: reason for name, reason in refused.items() if name in names}


def compare(problem: Problem, recipe: Recipe, metric: str) -> Comparison:
    """Scores methods and members, chooses a method, and compares all with the best member.

    Raises:
        InputError: The method cannot combine the members, or the metric is undefined for all of them.
    """
    methods, refused = methods_to_try(problem, recipe.method)
    singles = member_candidates(problem)
    best = max(singles, key=lambda each: each.gain)
    if best.gain == -math.inf:
        raise InputError(f"the metric {metric} is undefined for the predictions of every member.")
    tried = [evaluate(problem, method) for method in methods]
    chosen = next((each for each in tried if each.name == recipe.method), None)
    chosen = chosen or max(tried, key=lambda each: each.gain)
    adds = [math.nan] * len(singles)
    if recipe.leave_one_out:
        adds = leave_one_out(problem, METHODS[chosen.name], chosen)
    every = [*tried, *singles]
    intervals = differences(problem, every, best, recipe.bootstrap, recipe.seed)
    entries = [_entry(*each, best, problem) for each in zip(every, intervals, strict=True)]
    matrix = correlations(problem.members)
    for m, entry in enumerate(entries[len(tried) :]):
        others = [matrix[m, other] for other in range(len(singles)) if other != m]
        entry["correlation"] = float(sum(others) / len(others)) if others else None
        entry["adds"] = adds[m] if math.isfinite(adds[m]) else None
    weights = (chosen.fitted or {}).get("weights")
    order = sorted(range(len(tried)), key=lambda number: -tried[number].gain)
    table = {
        "method": chosen.name,
        "is_automatic": recipe.method == "auto",
        "keeps_unit": METHODS[chosen.name].keeps_unit,
        "metric": metric,
        "higher_is_better": problem.higher_is_better,
        "rows": len(problem.folds),
        "folds": problem.num_folds,
        "best_member": best.name,
        "bootstrap": recipe.bootstrap,
        "are_groups": problem.groups is not None,
        "methods": [entries[number] for number in order],
        "refused": refused,
        "members": entries[len(tried) :],
        "correlations": matrix.tolist(),
        "weights": None if weights is None else dict(zip(problem.names, weights, strict=True)),
    }
    return Comparison(chosen, table)


def _entry(each: Candidate, interval: Sequence[float] | None, best: Candidate, problem: Problem) -> dict[str, Any]:
    """A line of the table: gains and optimism are positive where they are better."""
    in_sample = each.in_sample
    return {
        "name": each.name,
        "score": problem.score_of(each.gain),
        "in_sample": None if in_sample is None else problem.score_of(in_sample),
        "optimism": None if in_sample is None else in_sample - each.gain,
        "gain": each.gain - best.gain,
        "interval": interval,
    }
