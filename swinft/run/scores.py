"""Joins the folds' out-of-fold predictions into one table, a pooled score and a report."""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from swinft.data.datamodule import CSVDataModule
from swinft.data.splits import OK
from swinft.errors import StoreError, command, listed, number_of
from swinft.inference.predictions import Predictions, mean_of, rows_of
from swinft.model.metrics import Metric
from swinft.printing import format_score, format_seconds
from swinft.run.environment import note_of_folds
from swinft.run.experiment import Experiment
from swinft.run.folds.kept import kept_epochs
from swinft.run.folds.recorder import WHOLE
from swinft.run.layout import Run
from swinft.run.mask_counts import MaskCounts
from swinft.run.mask_fit import count_scored, describe, fit_masks
from swinft.run.report.page import write_report
from swinft.run.scoring import score_rows, undefined_outputs
from swinft.run.submission.fitting import scores_with_rules
from swinft.store import commit, json_bytes

SLOW_CELLS = 10_000_000  # predictions from which on joining them takes more than some seconds


def join(run: Run, experiment: Experiment) -> dict[str, Any]:
    """Joins the folds' out-of-fold predictions, computes the pooled score, and writes the report.

    Returns:
        The content of scores.json.

    Raises:
        RunError: The folds do not cover every train id exactly once.
    """
    data = experiment.datamodule(run)
    data.image_files.use_known_cache("")  # no image is read here
    data.setup("fit")
    num_outputs, ids = len(data.schema.outputs), data.train_table.ids
    scored = [ids[row] for row in np.flatnonzero(data.is_scored)]
    if len(scored) * num_outputs > SLOW_CELLS:
        print(f"joining the out-of-fold predictions of {len(scored):,} rows and {num_outputs:,} outputs", flush=True)
    of_seeds: dict[int | None, Predictions] = {}
    for seed in experiment.config.seeds or [None]:
        folds = [run.fold(index) for index in run.planned_folds()]
        parts = (Predictions.read(fold.oof, num_outputs) for fold in folds if fold.seed == seed)
        of_seeds[seed] = Predictions.pooled(parts, scored, ids, f"the folds' oof.csv in {run.root}")
    found = next(iter(of_seeds.values()))
    if len(of_seeds) > 1:
        found = mean_of(list(of_seeds.values()))
    if data.schema.base.are_maps and found.maps is None:
        raise StoreError(f"the maps oof.maps.npy of folds in {run.root} are missing. Restore them from a copy.")
    oof = replace(found, fold=data.fold_of_row, status=data.splits.status if data.may_skip else None)
    oof.write(run.oof, "swinft fit")
    results = [run.fold(index).read_result() for index in run.planned_folds()]
    metrics, counts = _metrics(experiment, results), count_scored(oof, data)
    scores = _scores(oof, counts, data, results, experiment)
    if experiment.config.seeds:
        scores |= _of_seeds(of_seeds, data, results, experiment)
    scores |= fit_masks(counts, data, metrics)
    scores |= scores_with_rules(experiment, oof, data, metrics)
    commit(run.scores, json_bytes(scores), "swinft fit")
    del oof, found, of_seeds  # the report reads them again
    try:
        write_report(run, data, metrics, counts)
    except Exception as error:  # the scores must be shown all the same
        print(
            f"the report could not be written: {error!r}. `{command('report', run.root)}` tries again.", file=sys.stderr
        )
    return scores


def _scores(
    oof: Predictions,
    counts: MaskCounts | None,
    data: CSVDataModule,
    results: list[dict[str, Any]],
    experiment: Experiment,
) -> dict[str, Any]:
    """The pooled score of every metric, the folds' own, and their spread (standard deviation over folds)."""
    names = list(results[0]["oof"])
    scored = np.flatnonzero(data.is_scored)
    values = rows_of(oof.values, scored) if counts is None else counts
    pooled = score_rows(_metrics(experiment, results), data, scored, values)
    spread = {name: float(np.std([each["oof"][name] for each in results])) for name in names}
    spread = spread if len(results) > 1 else dict.fromkeys(names, math.nan)  # of one fold there is none
    undefined = undefined_outputs(_metrics(experiment, results), data, scored)
    return {
        "pooled": pooled,
        **({"undefined_outputs": undefined} if undefined else {}),
        "spread": spread,
        "folds": results,
        "rows": len(scored),
        "not_scored": dict(Counter(status for status in data.splits.status if status != OK)),
        "checkpoint": str(kept_epochs(experiment.config.checkpoint)),
        "views": [view.name for view in experiment.views()],
    }


def _metrics(experiment: Experiment, results: list[dict[str, Any]]) -> Sequence[str | Metric]:
    """The metrics of a run: those of its config, or the head's."""
    return experiment.section("model")["metrics"] or list(results[0]["oof"])


def _of_seeds(
    of_seeds: Mapping[int | None, Predictions],
    data: CSVDataModule,
    results: list[dict[str, Any]],
    experiment: Experiment,
) -> dict[str, Any]:
    """The pooled score of each seed alone, and their spread (standard deviation over seeds)."""
    names, scored = list(results[0]["oof"]), np.flatnonzero(data.is_scored)
    metrics = _metrics(experiment, results)
    pooled = {str(seed): score_rows(metrics, data, scored, each.values_of(scored)) for seed, each in of_seeds.items()}
    spread = {name: float(np.std([each[name] for each in pooled.values()])) for name in names}
    return {"seeds": pooled, "spread_over_seeds": spread if len(pooled) > 1 else dict.fromkeys(names, math.nan)}


def summary(run: Run, scores: dict[str, Any], seconds: float) -> str:
    """The summary that `fit` prints: a line per fold, their spread, the pooled scores, and the next command."""
    names = list(scores["pooled"])
    wide = max(18, *(len(name) + 2 for name in names))
    first = max(14, *(len(f"fold {each['fold']}") + 2 for each in scores["folds"]))
    lines = ["", f"{'':<{first}}" + "".join(f"{name:>{wide}}" for name in names)]
    lines += [
        f"{'fold ' + str(r['fold']):<{first}}" + "".join(f"{format_score(r['oof'][name]):>{wide}}" for name in names)
        for r in scores["folds"]
    ]
    for seed, pooled in scores.get("seeds", {}).items():
        lines.append(f"{f'seed {seed}':<{first}}" + "".join(f"{format_score(pooled[name]):>{wide}}" for name in names))
    lines += [f"{'spread':<{first}}" + "".join(f"{format_score(scores['spread'][name]):>{wide}}" for name in names)]
    lines += [f"{'pooled':<{first}}" + "".join(f"{format_score(scores['pooled'][name]):>{wide}}" for name in names)]
    ruled = scores.get("with_rules", {"pooled": {}})
    for title, found in (("with rules", ruled["pooled"]), ("in sample", ruled.get("in_sample"))):
        if found:
            lines += [f"{title:<{first}}" + "".join(f"{format_score(found[name]):>{wide}}" for name in names)]
    if "in_sample" in ruled:
        lines.append("with rules: fitted on the other folds; in sample: on the rows that they were fitted on, too good")
    lines += ruled.get("fitted", {}).get("described", [])
    lines += [f"the score with rules is not known: {ruled['problem']}"] if "problem" in ruled else []
    for name, outputs in scores.get("undefined_outputs", {}).items():
        lines.append(f"{name} is undefined for {number_of(len(outputs), 'output')}: {listed(outputs)}")
    lines.append("")
    monitor = f"val_{names[0]}"
    for which in ("last", "best"):
        mean = float(np.mean([result[f"{which}_epoch"][monitor] for result in scores["folds"]]))
        lines.append(
            f"mean {monitor} of the {which} epochs: {format_score(mean)}"
            + ("  <- used for predictions" if which == scores["checkpoint"] else "")
        )
    if note := note_of_folds(scores["folds"]):
        lines.append(note)
    lines += [
        f"fold {r['fold']} ended after epoch {r['last_epoch']['epoch']}: {r['end']}"
        for r in scores["folds"]
        if r.get("end") not in (None, WHOLE)
    ]
    lines += describe(scores)
    if scores["not_scored"]:
        counts = ", ".join(f"{count} {reason}" for reason, count in scores["not_scored"].items())
        lines.append(f"rows without an out-of-fold prediction: {counts}; see the column `status`")
    lines += [
        f"{scores['rows']} out-of-fold predictions, views {', '.join(scores['views'])}: {run.oof}",
        f"report: {run.report}",
        f"took {format_seconds(seconds)}\nnext: {command('predict', run.root)}",
    ]
    return "\n".join(lines)
