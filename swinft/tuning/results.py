"""What a search has found: every trial, the best ones, and the files with them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swinft.run.config.yaml_text import read_yaml, yaml_text
from swinft.run.lock import hold
from swinft.store import commit
from swinft.tuning.base import Base
from swinft.tuning.objective import Objective
from swinft.tuning.sampling import import_optuna
from swinft.tuning.study import MAKER, PATIENCE, Settings, Study

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class Row:
    """A finished trial.

    Args:
        number: Its number.
        state: `complete`, `pruned` or `failed`.
        steps: How often it was scored.
        score: Its last score; None if it failed.
        values: Its objectives, by name; empty unless it is complete.
        labels: Labels and numbers of its parameters, by key.
        reason: Why it failed.
        seconds: Time of training.
        parameters: Numbers in its network.
        took: Seconds from its beginning to its end; None if several processes have run it, or a version that did not
            record it.
    """

    number: int
    state: str
    steps: int
    score: float | None
    values: dict[str, float]
    labels: dict[str, Any]
    reason: str = ""
    seconds: float = 0.0
    parameters: int = 0
    took: float | None = None


def read_rows(study: Study) -> list[Row]:
    """The finished trials, in the order of their numbers."""
    states = import_optuna().trial.TrialState
    words = {states.COMPLETE: COMPLETE, states.PRUNED: PRUNED, states.FAIL: FAILED}
    rows = []
    for trial in study.trials():
        if trial.state not in words:
            continue
        about = trial.user_attrs
        is_complete = trial.state == states.COMPLETE
        values = dict(zip(study.settings.objective, trial.values, strict=True)) if is_complete else {}
        rows.append(
            Row(
                trial.number,
                words[trial.state],
                about.get("steps", 0),
                about.get("score"),
                values,
                {each.key: trial.params[each.key] for each in study.space.parameters if each.key in trial.params},
                about.get("reason", ""),
                about.get("seconds", 0.0),
                about.get("parameters", 0),
                about.get("took") if about.get("starts") == 1 else None,
            )
        )
    return sorted(rows, key=lambda row: row.number)


def ranked(rows: Sequence[Row], settings: Settings) -> list[Row]:
    """Complete trials, those with the best score first, and earlier ones before later ones."""
    sign = -1 if settings.higher_is_better else 1
    complete = [row for row in rows if row.state == COMPLETE and row.score is not None]
    return sorted(complete, key=lambda row: (sign * (row.score or 0.0), row.number))


def best_of(rows: Sequence[Row], settings: Settings) -> Row | None:
    """The complete trial with the best score, or, where the score is no objective, with the best first objective."""
    front = pareto(rows, settings) if settings.objective != ["score"] else ranked(rows, settings)
    return front[0] if front else None


def pareto(rows: Sequence[Row], settings: Settings) -> list[Row]:
    """The complete trials that no other one beats: as good in every objective, and better in one."""
    signs = [-1 if direction == "maximize" else 1 for direction in settings.directions]
    complete = ranked(rows, settings)
    costs = {
        row.number: tuple(sign * row.values[name] for sign, name in zip(signs, settings.objective, strict=True))
        for row in complete
    }

    def beats(other: Row, row: Row) -> bool:
        theirs, own = costs[other.number], costs[row.number]
        return theirs != own and all(a <= b for a, b in zip(theirs, own, strict=True))

    found = [row for row in complete if not any(beats(other, row) for other in complete)]
    return sorted(found, key=lambda row: (costs[row.number], row.number))


def kept(rows: Sequence[Row], settings: Settings, keep: int) -> set[int]:
    """Numbers of the trials whose weights are kept."""
    best = ranked(rows, settings)[:keep] if settings.objective == ["score"] else pareto(rows, settings)
    return {row.number for row in best} if keep else set()


def write_results(study: Study, objective: Objective, keep: int) -> list[Row]:
    """Writes `trials.csv` and `best.yaml`, and deletes what is large of trials that are not among the best.

    Returns:
        The finished trials, of other processes too.
    """
    folder, settings = study.folder, study.settings
    with hold(folder.claims, PATIENCE):
        rows = read_rows(study)
        commit(folder.table, table_csv(rows, study), MAKER)
        best = best_of(rows, settings)
        if best is not None:
            commit(folder.best, best_yaml(study, best).encode(), MAKER)
        stay = kept(rows, settings, keep)
        for row in rows:
            if row.number not in stay:
                objective.drop(row.number)
    return rows


def table_csv(rows: Sequence[Row], study: Study) -> bytes:
    """Every finished trial as CSV. Times, which no two searches share, are in it only if they are an objective."""
    settings, keys = study.settings, [each.key for each in study.space.parameters]
    others = [name for name in settings.objective if name != "score"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", "folds", "score", *others, *keys, "reason"])
    for row in rows:
        folds = row.steps if settings.is_fold_by_fold else len(settings.folds) * row.steps
        score = "" if row.score is None else repr(row.score)
        numbers = [repr(row.values[name]) if name in row.values else "" for name in others]
        cells = [repr(v) if isinstance(v := row.labels.get(key, ""), float) else v for key in keys]
        writer.writerow([row.number, row.state, folds, score, *numbers, *cells, " ".join(row.reason.split())])
    return file.getvalue().encode()


def best_yaml(study: Study, best: Row) -> str:
    """The config of a trial, for `swinft fit`."""
    keys = read_yaml(study.folder.base.read_text(encoding="utf-8"))
    values = {"name": f"{study.settings.name}_best", **study.space.values(best.labels)}
    lines = [f"# Trial {best.number} of the search {study.settings.name}: {study.settings.metric} {best.score!r}."]
    lines += [f"#   {key}: {value}" for key, value in best.labels.items()]
    return "\n".join([*lines, yaml_text(Base(keys).with_values(values))])
