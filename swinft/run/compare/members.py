"""The runs that are compared: their out-of-fold predictions on common rows, and their scorers.

Shapes: N rows, K outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swinft.errors import InputError, listed, number_of
from swinft.inference.predictions import Predictions
from swinft.inference.rules.fitted import objective
from swinft.inference.rules.named import rules_of
from swinft.model.metrics import Metric
from swinft.run.compare.counted import Array, Counted, counted
from swinft.run.compare.options import CompareOptions
from swinft.run.ensemble.leaks import doubts_of
from swinft.run.ensemble.members import Base, Member, common_rows, read_oof
from swinft.run.ensemble.recipe import MemberSpec
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.scoring import row_scorer
from swinft.run.submission.fitting import cross_fitted
from swinft.run.submission.grouping import GroupConfig
from swinft.run.submission.plan import SubmissionConfig


@dataclass(frozen=True)
class Compared:
    """Runs on the same rows.

    Args:
        names: Names of the runs.
        base: The run with table, folds and metric.
        metric: The metric.
        rows: Numbers of the N training rows; of joined rows, the first one of each group.
        ids: Their ids.
        folds: Their folds in the base, (N,).
        groups: Their groups, where the folds keep groups together, (N,).
        values: Each run's predictions (N, K), after its rules.
        counted: Each run's scorer of resamples.
        other_folds: Runs with other folds than the base, with the number of rows that are in another one.
        notes: What to know.
        folders: The folders of the runs; None for tables of other programs.
        has_rules: Whether a run has rules that act here.
    """

    names: list[str]
    base: Base
    metric: Metric
    rows: NDArray[np.int64]
    ids: list[str]
    folds: NDArray[np.int64]
    groups: NDArray[Any] | None
    values: list[Array]
    counted: list[Counted]
    other_folds: dict[str, int]
    notes: list[str]
    folders: list[str | None]
    has_rules: bool


def member_specs(given: Sequence[Any]) -> list[MemberSpec]:
    """Runs, and tables of out-of-fold predictions, with names that differ.

    Raises:
        InputError: Fewer than two are named, or one twice.
    """
    if len(given) < 2:
        raise InputError("name at least two runs: swinft compare runs/a runs/b.")
    specs = [_spec(each) for each in given]
    places = [spec.place.resolve() for spec in specs]
    if same := sorted({str(place) for place in places if places.count(place) > 1}):
        raise InputError(f"two of the runs are {listed(same)}: name each once.")
    names = [spec.name for spec in specs]
    return [replace(spec, name=str(spec.place)) if names.count(spec.name) > 1 else spec for spec in specs]


def _spec(given: Any) -> MemberSpec:
    text = str(given)
    is_table = not Path(text).is_dir() and text.casefold().endswith(".csv") and ":" not in text
    return MemberSpec(Path(text).stem, None, Path(text)) if is_table else MemberSpec.read(given)


def read_compared(specs: Sequence[MemberSpec], options: CompareOptions) -> Compared:
    """Reads runs, and joins them by id.

    Raises:
        InputError: A run is missing or unfinished, or they predict other targets or rows.
    """
    first = next((spec.run for spec in specs if spec.run), None)
    if options.base is None and first is None:
        raise InputError("none of these is a run: add --base runs/NAME, with the training table and the metric.")
    base = Base.open(Path(options.base) if options.base else Path(str(first)), options.allow_code)
    members = [read_oof(spec, base, options.allow_code, same_folds=False) for spec in specs]
    rows = common_rows(members, base, options.common_rows)
    metric = objective(options.metric, base.metrics, base.data.schema.kind)
    changed = [_changed(member, base, rows, options) for member in members]
    for spec, each in zip(specs, changed, strict=True):
        if not np.array_equal(each.rows, changed[0].rows):
            raise InputError(
                f"{spec.place} joins rows in other groups (submission.group) than {specs[0].place}: --rules false "
                f"compares single rows."
            )
    numbers, data = changed[0].rows, base.data
    weights = None if data.score_weights is None else data.score_weights[numbers].astype(np.float64)
    targets, scorers = data.targets[numbers], list[Counted]()
    for found in (each.predictions for each in changed):
        score = row_scorer([metric], data, numbers)

        def of_rows(chosen: NDArray[np.int64], values: Any = found, score: Any = score) -> float:
            return float(score(values.values[chosen], chosen, values.outputs)[metric.name])

        given = found.values.astype(np.float64)
        scorers.append(counted(of_rows, metric, given, targets, weights, found.outputs))
    groups, others = data.splits.train.groups, _other_folds(members, base, rows)
    return Compared(
        names=[spec.name for spec in specs],
        base=base,
        metric=metric,
        rows=numbers,
        ids=[data.train_table.ids[row] for row in numbers],
        folds=data.fold_of_row[numbers],
        groups=None if groups is None else np.array(groups)[numbers],
        values=[each.predictions.values.astype(np.float64) for each in changed],
        counted=scorers,
        other_folds=others,
        notes=[*_notes(members, metric), *_doubts(members, others, base, options.allow_code)],
        folders=[str(spec.run) if spec.run else None for spec in specs],
        has_rules=any(each.has_rules for each in changed),
    )


def _submission(run: Run, allow_code: list[str] | None) -> SubmissionConfig:
    return SubmissionConfig(**Experiment.of_run(run, "compare", allow_code).section("submission"))


class _Changed(NamedTuple):
    """Predictions after rules, and the numbers of their rows."""

    rows: NDArray[np.int64]
    predictions: Predictions
    has_rules: bool


def _changed(member: Member, base: Base, rows: NDArray[np.int64], options: CompareOptions) -> _Changed:
    """A run's predictions of the rows, after its rules; and the numbers of the rows.

    A table of another program has the rules of the base.
    """
    only = np.full(member.oof.values.shape, np.nan, dtype=np.float32)
    only[rows] = member.oof.values[rows]
    fold = member.oof.fold
    is_unknown = fold is None or not (fold[rows] >= 0).all()
    oof = replace(member.oof, values=only, fold=base.data.fold_of_row if is_unknown else fold)
    rules: list[Any] = []
    group: GroupConfig | None = None
    if options.rules:
        config = _submission(Run.open(member.spec.run) if member.spec.run else base.run, options.allow_code)
        rules, group = rules_of(config.rules), config.group
    numbers, found = cross_fitted(rules, oof, base.data, base.metrics, group)
    return _Changed(numbers, found, bool(rules or group))


def _other_folds(members: Sequence[Member], base: Base, rows: NDArray[np.int64]) -> dict[str, int]:
    """How many of the rows are in another fold than in the base, of each run with such rows."""
    found = dict[str, int]()
    for member in members:
        fold = member.oof.fold
        if fold is not None and (fold[rows] >= 0).all():
            count = int((fold[rows] != base.data.fold_of_row[rows]).sum())
            found |= {member.spec.name: count} if count else {}
    return found


def _notes(members: Sequence[Member], metric: Metric) -> list[str]:
    """Runs with another first metric, and with several seeds."""
    notes = []
    for member in members:
        if member.spec.run is None:
            continue
        scores = Run.open(member.spec.run).read_scores()
        own = next(iter(scores["pooled"]))
        if own != metric.name:
            notes.append(f"{member.spec.name} was chosen by {own}; here it is scored by {metric.name}")
        if seeds := scores.get("seeds"):
            notes.append(f"{member.spec.name} is the mean of {number_of(len(seeds), 'seed')}")
    return notes


def _doubts(
    members: Sequence[Member], others: Mapping[str, int], base: Base, allow_code: list[str] | None
) -> list[str]:
    """Reasons to doubt the scores of runs that have the folds of the base."""
    runs = {each.spec.name: Run.open(each.spec.run) for each in members if each.spec.run is not None}
    return [
        f"{name}: {doubt}"
        for name, run in runs.items()
        if name not in others
        for doubt in doubts_of(run, base, allow_code)
    ]
