"""The table of rounds: the score of each, and its difference to others on the same rows, with an interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swinft.data.fold_settings import ExtraTable
from swinft.data.pseudo_labels import PseudoLabels
from swinft.data.schema import Schema
from swinft.errors import command, number_of
from swinft.inference.predictions import Predictions
from swinft.model.scoring import chosen_metrics
from swinft.printing import aligned, format_interval, format_known, format_score, format_seconds, visible
from swinft.run.ensemble.members import Base, common_rows, read_oof
from swinft.run.ensemble.nested import differences, member_candidates
from swinft.run.ensemble.problem import make_problem
from swinft.run.ensemble.recipe import MemberSpec
from swinft.run.layout import Run
from swinft.run.rounds.plan import Plan
from swinft.run.rounds.settings import Round
from swinft.store import verify

RESAMPLES, SEED = 500, 42


def compare_rounds(plan: Plan) -> dict[str, Any]:
    """Scores all rounds on the same rows, as plain values.

    Differences are positive where they are better. Each is to the first round, and to the round before.
    """
    allow_code = plan.base.config.allow_code
    base = Base.open(plan.run(plan.rounds[0].name).root, allow_code)
    specs = [MemberSpec(each.name, plan.run(each.name).root) for each in plan.rounds]
    members = [read_oof(spec, base, allow_code) for spec in specs]
    (metric,) = chosen_metrics(base.metrics[:1], base.data.schema.kind)
    problem = make_problem(base, members, common_rows(members, base, may_differ=False), metric)
    found = member_candidates(problem)
    to_first = differences(problem, found, found[0], RESAMPLES, SEED)
    rounds = []
    for number, each in enumerate(plan.rounds):
        entry: dict[str, Any] = {"name": each.name, "score": problem.score_of(found[number].gain)}
        entry["is_optimistic"] = plan.is_optimistic(each)
        entry |= _changed(plan, each, base.data.schema)
        if number:
            before = found[number - 1]
            (interval,) = differences(problem, [found[number]], before, RESAMPLES, SEED)
            entry["over_first"] = {"gain": found[number].gain - found[0].gain, "interval": to_first[number]}
            entry["over_previous"] = {"gain": found[number].gain - before.gain, "interval": interval}
        rounds.append(entry)
    return {
        "metric": metric.name,
        "higher_is_better": problem.higher_is_better,
        "rows": len(problem.folds),
        "are_groups": problem.groups is not None,
        "resamples": RESAMPLES,
        "rounds": rounds,
    }


def _changed(plan: Plan, each: Round, schema: Schema) -> dict[str, Any]:
    """How many rows each fold of a round drops, and how many pseudo-labels it trains on."""
    run, found = plan.run(each.name), dict[str, Any]()
    seeds = run.read_config()["seeds"] or [None]
    folds = [fold for fold in map(run.fold, run.planned_folds()) if fold.seed == seeds[0]]
    if each.drop_noisy:
        lines = verify(run.dropped).read_text(encoding="utf-8").splitlines()[1:]
        names = [line.split(",", 1)[0] for line in lines]
        found["dropped"] = {str(fold.held_out): names.count(str(fold.held_out)) for fold in folds}
    if each.pseudo_labels:
        tables = run.read_config()["data"]["folds"]["extra"]
        given = [number for number, table in enumerate(tables) if table.get("labels")]
        found["added"] = {str(fold.held_out): _labelled(run, fold.index, given, tables, schema) for fold in folds}
    return found


def _labelled(
    run: Run, fold: int | str, numbers: Sequence[int], tables: Sequence[Mapping[str, Any]], schema: Schema
) -> int:
    """How many rows of extra tables a fold trains on with the labels of others."""
    total = 0
    for number in numbers:
        labels = Predictions.read(run.fold(fold).labels(number), len(schema.outputs))
        given = PseudoLabels(ExtraTable(**tables[number]), np.arange(len(labels)), labels.values)
        total += int(given.is_confident(schema).sum())
    return total


def table_lines(found: Mapping[str, Any], plan: Plan, seconds: float) -> list[str]:
    """The lines that are printed."""
    direction = "higher" if found["higher_is_better"] else "lower"
    first = visible(found["rounds"][0]["name"])
    rows = [["round", "score", f"gain over {first}", "95 % interval", "over the round before", "95 % interval", "rows"]]
    for each in found["rounds"]:
        mark = " *" if each["is_optimistic"] else ""
        differences = [cell for key in ("over_first", "over_previous") for cell in _difference(each.get(key))]
        counts = [_range(each[key], sign) for key, sign in (("dropped", "−"), ("added", "+")) if key in each]
        rows.append([visible(each["name"]) + mark, format_score(each["score"]), *differences, " ".join(counts)])
    resampled = "groups of rows" if found["are_groups"] else "rows"
    lines = [f"{found['metric']}, {direction} is better; {number_of(found['rows'], 'row')} that every round scores"]
    lines += aligned(rows)
    lines += [
        f"Gains are positive where they are better; intervals: {found['resamples']:,} resamples of the {resampled}, "
        f"the same for both. rows: dropped (−) and pseudo-labelled (+) in the folds."
    ]
    if any(each["is_optimistic"] for each in found["rounds"]):
        lines.append("*: what it trains on was chosen by networks that have seen the scored labels; too good.")
    return [*lines, f"took {format_seconds(seconds)}", f"next: {command('predict', plan.folder)}"]


def _difference(given: Mapping[str, Any] | None) -> list[str]:
    if given is None:
        return ["–", ""]
    return [format_known(given["gain"], "+.4g"), format_interval(given["interval"])]


def _range(counts: Mapping[str, int], sign: str) -> str:
    """Counts of all folds, as the lowest and the highest."""
    low, high = min(counts.values()), max(counts.values())
    return f"{sign}{low:,}" if low == high else f"{sign}{low:,} to {high:,}"
