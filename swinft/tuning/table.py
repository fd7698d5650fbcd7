"""The table that a search prints: the best trials, those that failed, and how far the best score can be trusted."""

from collections.abc import Mapping, Sequence
from typing import Any

from swinft.errors import command, number_of
from swinft.printing import aligned, format_brief, format_number, format_score, shortened, visible
from swinft.tuning.results import COMPLETE, FAILED, PRUNED, Row, best_of, pareto, ranked
from swinft.tuning.study import Folder, Settings

SHOWN = 10
LONGEST = 28  # columns of a value


def table_lines(rows: Sequence[Row], settings: Settings, folder: Folder, nested: float | None) -> list[str]:
    """The lines that are printed.

    Args:
        rows: The finished trials.
        settings: What the search was started with.
        folder: Its folder.
        nested: The score of trials that were chosen by other folds; None if it is not known.
    """
    direction = "higher" if settings.higher_is_better else "lower"
    counts = [(state, sum(row.state == state for row in rows)) for state in (COMPLETE, PRUNED, FAILED)]
    listed = ", ".join(f"{count} {state}" for state, count in counts if count)
    lines = ["", f"{settings.metric}, {direction} is better; {number_of(len(rows), 'trial')}: {listed}"]
    is_single = settings.objective == ["score"]
    best = ranked(rows, settings)[:SHOWN] if is_single else pareto(rows, settings)[: 2 * SHOWN]
    if not is_single and best:
        lines.append(f"trials that no other beats in {' and '.join(settings.objective)}:")
    keys = list(dict.fromkeys(key for row in best for key in row.labels))
    header = ["trial", "score", "time", "parameters", *_short(keys)]
    lines += aligned([header, *(_cells(row, keys) for row in best)])
    failed = [row for row in rows if row.state == FAILED]
    lines += [f"trial {row.number} failed: {visible(row.reason.splitlines()[0])}" for row in failed[:SHOWN]]
    lines += [f"and {len(failed) - SHOWN} more, in {folder.table}"] if len(failed) > SHOWN else []
    return [*lines, *_ends(rows, settings, folder, nested)]


def _ends(rows: Sequence[Row], settings: Settings, folder: Folder, nested: float | None) -> list[str]:
    """How far the best score can be trusted, and what comes next."""
    best = best_of(rows, settings)
    if best is None or best.score is None:
        return [f"no trial is complete. Every trial: {folder.table}"]
    complete = sum(row.state == COMPLETE for row in rows)
    lines = ["", *honesty(best, nested, settings, complete)]
    check = command("fit", "--config", folder.best, "--seed", settings.seed + 1, "--name", f"{settings.name}_check")
    return [
        *lines,
        f"check it on other folds, by which nothing was chosen: {check}",
        f"every trial: {folder.table}; report: {folder.report}",
        f"next: {command('fit', '--config', folder.best)}",
    ]


def honesty(best: Row, nested: float | None, settings: Settings, complete: int) -> list[str]:
    """What the best score is worth, in sentences."""
    assert best.score is not None
    shown = (
        f"best: {format_score(best.score)} of trial {best.number}, the best of {complete}, and so too good by chance"
    )
    if nested is None:
        why = "one fold" if len(settings.folds) < 2 else "fewer than two complete trials" if complete < 2 else "masks"
        return [f"{shown}; by how much is not known, of {why}"]
    sign = 1 if settings.higher_is_better else -1
    return [
        shown,
        f"{format_score(nested)} if each fold's trial is chosen by the other folds (optimism "
        f"{sign * (best.score - nested):+.4g}); the sampler saw every fold, so even that is a little too good",
    ]


def as_json(rows: Sequence[Row], settings: Settings, folder: Folder, nested: float | None) -> dict[str, Any]:
    """The trials and the best one as plain values."""
    best = best_of(rows, settings)
    return {
        "folder": str(folder.root),
        "metric": settings.metric,
        "higher_is_better": settings.higher_is_better,
        "objective": settings.objective,
        "best": None if best is None else best.number,
        "score": None if best is None else best.score,
        "nested_score": nested,
        "front": [row.number for row in pareto(rows, settings)],
        "trials": [dict(vars(row)) for row in rows],
    }


def _cells(row: Row, keys: Sequence[str]) -> list[str]:
    labels: Mapping[str, Any] = row.labels
    shown = [_shown(labels[key]) if key in labels else "–" for key in keys]
    parameters = format_number(row.parameters) if row.parameters else "–"
    return [str(row.number), format_score(row.score), format_brief(row.seconds), parameters, *shown]


def _short(keys: Sequence[str]) -> list[str]:
    """The last part of each key, where no other key ends in the same."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shortened(visible(str(value)), LONGEST)
