"""The ledger of a folder of runs with their scores at Kaggle: what `swinft runs` lists."""

import fnmatch
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from swinft.errors import InputError, suggest
from swinft.kaggle.record import read_sent
from swinft.run.compare.ledger import Entry, ranked, read_entries
from swinft.run.layout import Run

if TYPE_CHECKING:
    import pandas as pd

Sort = Literal["score", "time", "date", "name", "parameters", "public", "private"]
FILTERS = ("name", "kind", "backbone", "metric", "note", "train", "target", "date", "lacks")


def entries_of(
    folder: str | Path, sort: Sort = "score", metric: str | None = None, filters: Sequence[str] = ()
) -> tuple[list[Entry], list[str]]:
    """The runs of a folder in an order, and the names of folders that are no runs.

    Raises:
        InputError: There is no such folder, no run has the metric, or a filter names an unknown field.
    """
    wanted = [_filter(each) for each in filters]
    found, others = read_entries(Path(folder), metric, submitted)
    if metric and found and not any(each.result.score is not None for each in found):
        every = read_entries(Path(folder), None, submitted)[0]
        known = {each.result.metric for each in every if each.result.metric}
        raise InputError(f"--metric {metric}: no run in {folder} has a score of it.{suggest(metric, known)}")
    kept = [each for each in found if all(_matches(each, *one) for one in wanted)]
    return ranked(kept, sort), others


def _filter(given: str) -> tuple[str, str]:
    """A field and the pattern of its text.

    Raises:
        InputError: There is no such field.
    """
    field, equals, pattern = given.partition("=")
    field, pattern = (field, pattern) if equals else ("name", given)
    if field not in FILTERS:
        raise InputError(f"--filter {given}: no field '{field}'.{suggest(field, FILTERS)}")
    return field, pattern


def _matches(entry: Entry, field: str, pattern: str) -> bool:
    """Whether a field matches; a pattern without `*`, `?` or `[` is a part of it."""
    text, pattern = str(entry.to_plain()[field] or "").casefold(), pattern.casefold()
    return fnmatch.fnmatchcase(text, pattern) if any(mark in pattern for mark in "*?[") else pattern in text


def submitted(run: Run) -> dict[str, Any]:
    """Public and private score of a run's newest submission that has one, and the number of its submissions."""
    sent = read_sent(run)
    scored = [each for each in sent if _number(each.public_score) is not None]
    found: dict[str, Any] = {"submissions": sum(each.ref is not None for each in sent)}
    if not scored:
        return found
    newest = max(scored, key=lambda each: each.sent)
    return found | {
        "public_score": _number(newest.public_score),
        "private_score": _number(newest.private_score),
    }


def _number(text: str | None) -> float | None:
    """A score as Kaggle writes it; None if it is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def runs(
    folder: str | Path = "runs",
    *,
    sort: Sort = "score",
    metric: str | None = None,
    filters: Sequence[str] | str = (),
) -> "pd.DataFrame":
    """The runs of a folder as a table, a row per run: what `swinft runs` lists.

    Args:
        folder: The folder that holds the folders of runs.
        sort: `score`, `public`, `private`: the best first by the metric's direction; `time`, `parameters`: the least
            first; `date`: the newest first; `name`.
        metric: The metric whose scores are shown; None for each run's first one.
        filters: Patterns of names, `swin*`, or of other fields, `backbone=convnext*`, `kind=ensemble`; all must match.

    Returns:
        A DataFrame; `lacks` says what an unfinished or unreadable run lacks.

    Raises:
        InputError: There is no such folder, no run has the metric, or a filter names an unknown field.
    """
    import pandas as pd  # slow to import

    found, _ = entries_of(folder, sort, metric, [filters] if isinstance(filters, str) else filters)
    return pd.DataFrame([each.to_plain() for each in found], columns=list(Entry("", "").to_plain()))
