"""Compares the methods and the members of an ensemble, and chooses the method.

Shapes: M members, N rows, K outputs.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swinft.errors import InputError
from swinft.printing import format_brief, print_line
from swinft.run.ensemble.method import Method
from swinft.run.ensemble.methods import methods_with
from swinft.run.ensemble.nested import (
    FEW_ROWS,
    Candidate,
    Problem,
    correlations,
    evaluate,
    fits_few_rows,
    leave_one_out,
    member_candidates,
    resampled_gains,
)
from swinft.run.ensemble.pairs import every_pair
from swinft.run.ensemble.recipe import ALL, AUTO, Recipe
from swinft.run.ensemble.suspects import warnings_of
from swinft.run.resamples import interval

LONG_SECONDS = 30.0


@dataclass(frozen=True)
class Comparison:
    """Methods and members, scored.

    Args:
        chosen: The chosen method with its predictions.
        table: What is printed and stored of all of them: plain values.
    """

    chosen: Candidate
    table: dict[str, Any]


def methods_to_try(problem: Problem, recipe: Recipe) -> tuple[list[Method], dict[str, str]]:
    """The methods to compare, and why others are not.

    Raises:
        InputError: The method that is asked for cannot combine these predictions.
    """
    wanted, known = recipe.method, methods_with(recipe.engine)
    refused = {name: reason for name, method in known.items() if (reason := problem.refusal(method))}
    if wanted in refused:
        others = [name for name in known if name not in refused]
        advice = f"Use --method {' or '.join(others)}." if others else "Name more members."
        raise InputError(f"--method {wanted}: {refused[wanted]}. {advice}")
    names = [name for name, method in known.items() if method.is_automatic or wanted == ALL]
    if wanted not in (AUTO, ALL):
        names = list(dict.fromkeys(["mean", wanted]))
    tried = [known[name] for name in names if name not in refused]
    if not tried:
        raise InputError(f"no method can combine the members: {refused['mean']}.")
    return tried, {name: reason for name, reason in refused.items() if name in names}


def compare(problem: Problem, recipe: Recipe, metric: str) -> Comparison:
    """Scores methods and members, chooses a method, and compares all of them with one another.

    Raises:
        InputError: The method cannot combine the members, or the metric is undefined for all of them.
    """
    methods, refused = methods_to_try(problem, recipe)
    singles = member_candidates(problem)
    best = max(singles, key=lambda each: each.gain)
    if best.gain == -math.inf:
        raise InputError(f"the metric {metric} is undefined for the predictions of every member.")
    seconds: dict[str, float] = {}
    tried = sorted([_timed(problem, method, seconds) for method in methods], key=lambda each: -each.gain)
    chosen = next((each for each in tried if each.name == recipe.method), tried[0])
    method = next(each for each in methods if each.name == chosen.name)
    ranked = sorted(singles, key=lambda each: -each.gain)
    gains = resampled_gains(problem, [*tried, *ranked], recipe.bootstrap, recipe.seed)
    against = gains[:, len(tried) + ranked.index(best)]
    bounds = [interval(own - against) for own in gains.T]
    entries = [_entry(*each, best, problem) for each in zip([*tried, *ranked], bounds, strict=True)]
    adds = [math.nan] * len(singles)
    if recipe.leave_one_out:
        is_part = fits_few_rows(problem, method)
        share = FEW_ROWS / len(problem.folds) if is_part else 1.0
        _say_how_long(seconds[method.name] * (len(singles) + is_part) * share)
        adds = leave_one_out(problem, method, chosen, recipe.seed)
    table = {
        "method": chosen.name,
        "engine": (chosen.fitted or {}).get("engine"),
        "is_automatic": recipe.method in (AUTO, ALL),
        "keeps_unit": method.keeps_unit,
        "metric": metric,
        "higher_is_better": problem.higher_is_better,
        "rows": len(problem.folds),
        "folds": problem.num_folds,
        "best_member": best.name,
        "bootstrap": recipe.bootstrap,
        "are_groups": problem.groups is not None,
        "adds_fitted_on": FEW_ROWS if recipe.leave_one_out and fits_few_rows(problem, method) else None,
        "methods": entries[: len(tried)],
        "refused": refused,
        **_of_members(problem, {each["name"]: each for each in entries[len(tried) :]}, adds),
        **_weights(chosen.fitted or {}, problem),
        "differences": every_pair([*tried, *ranked], gains),
        "warnings": warnings_of(problem),
    }
    return Comparison(chosen, table)


def _timed(problem: Problem, method: Method, seconds: dict[str, float]) -> Candidate:
    """A method's score; its time is noted."""
    started = time.perf_counter()
    found = evaluate(problem, method)
    seconds[method.name] = time.perf_counter() - started
    return found


def _say_how_long(seconds: float) -> None:
    """Prints how long the fits without each member take, if it is long."""
    if seconds > LONG_SECONDS:
        print_line(
            f"fitting without each member in turn, about {format_brief(seconds)}: --leave-one-out false does without"
        )


def _entry(each: Candidate, bounds: Sequence[float] | None, best: Candidate, problem: Problem) -> dict[str, Any]:
    """A line of the table: gains and optimism are positive where they are better."""
    in_sample = each.in_sample
    return {
        "name": each.name,
        "score": problem.score_of(each.gain),
        "in_sample": None if in_sample is None else problem.score_of(in_sample),
        "optimism": None if in_sample is None else in_sample - each.gain,
        "gain": each.gain - best.gain,
        "interval": None if each is best else bounds,
    }


def _of_members(problem: Problem, entries: Mapping[str, dict[str, Any]], adds: Sequence[float]) -> dict[str, Any]:
    """The members in their order, and their correlations; the others' mean correlation is of the defined ones."""
    matrix, found = correlations(problem.members), []
    for m, name in enumerate(problem.names):
        others = np.delete(matrix[m], m)
        mean = float(others.mean()) if len(others) else None
        found.append({**entries[name], "correlation": mean, "adds": adds[m] if math.isfinite(adds[m]) else None})
    return {"members": found, "correlations": matrix.tolist()}


def _weights(fitted: Mapping[str, Any], problem: Problem) -> dict[str, Any]:
    """The weights by member; by output and member, where outputs have their own."""
    shared, own = fitted.get("weights"), fitted.get("weights_per_output")
    named = None
    if own is not None:
        outputs = problem.outputs or [str(k) for k in range(len(own[0]))]
        columns = zip(outputs, zip(*own, strict=True), strict=True)
        named = {output: dict(zip(problem.names, column, strict=True)) for output, column in columns}
    return {
        "weights": None if shared is None else dict(zip(problem.names, shared, strict=True)),
        "weights_per_output": named,
    }
