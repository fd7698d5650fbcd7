"""Compares runs on the same rows: scores, paired differences, and what to expect of a private leaderboard.

Shapes: M runs, N rows, K outputs.
"""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.roots import resolved_root
from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.run.compare.members import Compared
from swinft.run.compare.options import CompareOptions
from swinft.run.compare.outlook import LEVEL, Outlook, medal_chances, rarity_of, simulate
from swinft.run.config.yaml_text import read_own_yaml
from swinft.run.ensemble.nested import correlations
from swinft.run.layout import Run
from swinft.run.resamples import Units, chance, interval
from swinft.seeding import seed_for
from swinft.store import is_committed, verify

SHOWN_IDS = 20
STUB_ROWS = 50  # a test table with fewer rows is that of a code competition, whose rows are hidden
ENSEMBLE = "ensemble."  # before the keys of a recipe
PLACES = ("name", "runs", "config", "allow_code")


def compared(found: Compared, options: CompareOptions) -> dict[str, Any]:
    """All that is printed and stored of a comparison, as plain values.

    Raises:
        InputError: Medals are asked for without a known number of test rows, or in the wrong order; or the metric is
            undefined for a run.
    """
    metric = found.metric
    medals = options.thresholds(metric.higher_is_better, metric.name)
    rows, why = private_rows(found, options)
    if medals and rows is None:
        raise InputError(f"--medals needs the size of the private split: {why}. Give the test rows: --rows N.")
    generator = np.random.default_rng(seed_for("resampling", options.seed))
    units = Units.of(found.groups, len(found.rows))
    size = rows or len(found.rows)
    rarity = rarity_of(found.base.data.targets[found.rows])
    outlook = simulate(found.counted, units, size, options.resamples, generator, metric.higher_is_better, rarity)
    if undefined := [name for name, score in zip(found.names, outlook.observed, strict=True) if math.isnan(score)]:
        raise InputError(f"the metric {metric.name} is undefined for the predictions of {', '.join(undefined)}.")
    runs = [_run(place, found, outlook, medals if rows else {}, rows is not None) for place in range(len(found.names))]
    folds = np.unique(found.folds)
    for place, of_folds in enumerate(_fold_scores(found, folds)):
        runs[place]["folds"] = of_folds
    if rows is not None:
        for each, share in zip(runs, outlook.best(), strict=True):
            each["best"] = float(share)
    return {
        "metric": metric.name,
        "higher_is_better": metric.higher_is_better,
        "base": str(found.base.run.root),
        "rows": len(found.rows),
        "units": units.number,
        "are_groups": found.groups is not None,
        "folds": len(folds),
        "has_rules": found.has_rules,
        "reference": found.names[0],
        "resamples": options.resamples,
        "level": LEVEL,
        "private_rows": rows,
        "private_rows_from": why,
        "medals": medals,
        "runs": runs,
        "correlations": _correlations(found),
        "config_differences": config_differences(found),
        "ids": _ids(found),
        "other_folds": found.other_folds,
        "notes": found.notes,
    }


def _run(place: int, found: Compared, outlook: Outlook, medals: dict[str, float], has_private: bool) -> dict[str, Any]:
    """The entry of a run; gains over the first run are positive where it is better."""
    entry: dict[str, Any] = {"name": found.names[place], "score": float(outlook.observed[place])}
    if place:
        whole = outlook.whole_gains(place, 0)
        entry |= {"gain": outlook.gain(place, 0), "interval": interval(whole)}
        entry["undefined"] = _undefined(whole, outlook)
    if not has_private:
        return entry
    scores = outlook.scores(place)
    entry["private"] = {"interval": interval(scores, LEVEL), "undefined": _undefined(scores, outlook)}
    if place:
        gains = outlook.gains(place, 0)
        entry["private"] |= {"gain_interval": interval(gains, LEVEL), "beats_reference": chance(gains)}
    if medals:
        entry["private"]["medals"] = medal_chances(scores, medals, found.metric.higher_is_better)
    return entry


def _undefined(values: NDArray[Any], outlook: Outlook) -> float:
    """The share of resamples in which the metric is undefined."""
    return 1 - len(values) / len(outlook.whole)


def private_rows(found: Compared, options: CompareOptions) -> tuple[int | None, str]:
    """The number of rows of the private split, and where it is from, or why it is not known."""
    total, source = options.rows, "--rows"
    if total is None:
        total, source = test_rows(found.base.run)
        if total is None:
            return None, source
        if total < STUB_ROWS:
            return None, f"{source} has {total} rows, so that the test set may be hidden"
    share = f", of which {options.public:.0%} are public" if options.public else ", all taken as private"
    return max(1, round(total * (1 - options.public))), f"{total:,} test rows of {source}{share}"


def test_rows(run: Run) -> tuple[int | None, str]:
    """The number of rows to predict, and the name of the table."""
    if is_committed(run.test_predictions):
        outputs = len(run.read_schema()["outputs"])
        return len(Predictions.read(run.test_predictions, outputs)), run.test_predictions.name
    data = run.read_config()["data"]
    for key in ("test", "sample_submission"):
        if not isinstance(data.get(key), str):
            continue
        try:
            path = Path(resolved_root(data["root"])) / data[key]
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                return max(0, sum(1 for _ in csv.reader(file)) - 1), data[key]
        except (OSError, InputError, csv.Error):
            continue
    return None, "there is no test table"


def _fold_scores(found: Compared, folds: NDArray[np.int64]) -> list[list[dict[str, Any]]]:
    """Each run's score of each fold, and its gain over the first run."""
    counts = np.stack([(found.folds == fold).astype(np.float64) for fold in folds])
    scores = np.stack([counted(counts) for counted in found.counted])
    sign = 1 if found.metric.higher_is_better else -1
    return [
        [
            {"fold": int(fold), "score": float(score), "gain": float(sign * (score - first))}
            for fold, score, first in zip(folds, own, scores[0], strict=True)
        ]
        for own in scores
    ]


def _correlations(found: Compared) -> list[list[float]] | None:
    """Correlations of the runs' predictions; None where rules made different outputs."""
    if len({each.shape for each in found.values}) > 1:
        return None
    matrix: list[list[float]] = correlations(np.stack(found.values)).tolist()
    return matrix


def _ids(found: Compared) -> dict[str, list[dict[str, Any]]]:
    """The ids where each run differs most from the first one, with both predictions of the output that does."""
    first, ids = found.values[0], dict[str, list[dict[str, Any]]]()
    for name, values in list(zip(found.names, found.values, strict=True))[1:]:
        if values.shape != first.shape:
            continue
        changes = np.abs(values - first)
        order = np.argsort(-changes.max(1), kind="stable")[:SHOWN_IDS]
        outputs = changes.argmax(1)
        ids[name] = [
            {
                "id": found.ids[row],
                "output": found.base.data.schema.outputs[k] if k < len(found.base.data.schema.outputs) else str(k),
                "reference": float(first[row, k]),
                "run": float(values[row, k]),
            }
            for row, k in ((int(row), int(outputs[row])) for row in order)
            if changes[row, k] > 0
        ]
    return ids


def config_differences(found: Compared) -> dict[str, list[Any]]:
    """The keys in which the runs' configs differ, each with the values of all runs; None where it is no key of one.

    Keys of a training are compared among runs that were trained: that an ensemble has none of them says nothing.
    """
    configs = [_flat_config(Path(place)) if place else {} for place in found.folders]
    known = [config for config, place in zip(configs, found.folders, strict=True) if place]
    trained = [config for config in known if not any(key.startswith(ENSEMBLE) for key in config)]
    differ = {}
    for key in dict.fromkeys(key for config in known for key in config):
        having = known if key.startswith(ENSEMBLE) else trained
        if any(config.get(key) != having[0].get(key) for config in having[1:]):
            differ[key] = [config.get(key) for config in configs]
    return differ


def _flat_config(folder: Path) -> dict[str, Any]:
    """The keys that decide on a run's predictions; of an ensemble, those of its recipe."""
    run = Run.open(folder)
    if run.is_ensemble and (folder / "ensemble.yaml").is_file():
        recipe = read_own_yaml(verify(folder / "ensemble.yaml").read_text(encoding="utf-8"))
        return {f"{ENSEMBLE}{key}": value for key, value in _flat(recipe).items() if key not in PLACES}
    return {key: value for key, value in _flat(run.read_config()).items() if key.partition(".")[0] not in PLACES}


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    if not isinstance(values, dict) or not values:
        return {prefix: values}
    found = dict[str, Any]()
    for key, value in values.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
