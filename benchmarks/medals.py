"""Whether the probabilities of `swinft compare` are right, by simulated competitions with known private splits.

    python benchmarks/medals.py              # all cases; half an hour on one core
    python benchmarks/medals.py auc groups   # some of them; the others keep their results

Each repetition has out-of-fold predictions of several models and a private split. What `swinft compare`
predicts from the first is compared with the scores on the second: how often a 90 % interval holds the private score and
the private difference of two models, and how often what is given a probability happens. Two designs:

- re-splits: one table of rows, split again and again; the models stay the same.
- new rows: rows and models are drawn anew in each repetition, the models' quality from a range.

The PetFinder cases have the published statistics of that competition: 9,912 rows; targets 1-100, mean 38.04, standard
deviation 20.6, 4 % of the rows from 90; models with a root mean squared error of 17.36 to 17.70 whose predictions
correlate by .87 to .95; with 991 rows the error of a private split has a standard deviation near .57.

Writes benchmarks/results/medals.json, and its figures in docs/compare.md.
"""

import functools
import itertools
import json
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from swinft.run.compare.counted import Counted, RankedColumn, weighted_means
from swinft.run.compare.outlook import LEVEL, Outlook, medal_chances, rarity_of, simulate
from swinft.run.resamples import Units, chance, interval
from swinft.store import replace as write_file

RESULT = Path(__file__).parent / "results" / "medals.json"
PAGE = Path(__file__).parent.parent / "docs" / "compare.md"
MARKERS = ("<!-- figures: written by `python benchmarks/medals.py` -->\n", "<!-- end of figures -->\n")
BINS = {
    "0–20 %": (0, 0.15),
    "20–40 %": (0.15, 0.35),
    "40–60 %": (0.35, 0.55),
    "60–80 %": (0.55, 0.75),
    "80–100 %": (0.75, 1),
}
RESAMPLES, INFLUENCES = 250, 250
MEAN, DEVIATION, EXPLAINED = 38.04, 20.59, 0.303
SHARED = 17.13  # error of what the models have in common
MEDALS = {"gold": 16.95041, "silver": 17.06636, "bronze": 17.0971}  # of PetFinder
Rows = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # targets (N,), predictions (M, N), groups (N,)


@dataclass(frozen=True)
class Case:
    """A kind of competition.

    Args:
        what: What it is, in the result.
        draw: Draws rows and models: a generator, the number of rows.
        score: Makes the scorer of a model's resamples.
        known: Rows with out-of-fold predictions.
        private: Rows of the private split.
        higher: Whether a higher score is better.
        resplits: Whether one table is split again and again.
        medals: Thresholds; None to draw them around the private score.
    """

    what: str
    draw: Callable[[np.random.Generator, int], Rows]
    score: Callable[[np.ndarray, np.ndarray], Counted]
    known: int
    private: int
    higher: bool
    resplits: bool
    medals: dict[str, float] | None = None


def petfinder(rng: np.random.Generator, rows: int, errors: tuple[float, ...] = (17.36, 17.5, 17.7)) -> Rows:
    """Skewed targets with a peak at 100, and correlated models whose errors are largest where targets are high."""
    targets = np.clip(np.rint(1 + rng.gamma(3.72, 9.55, rows)), 1, 99)
    targets[rng.random(rows) < 0.029] = 100
    noise = np.sqrt(EXPLAINED * (1 - EXPLAINED)) * DEVIATION * rng.standard_t(5, rows) * (0.58 + targets / 214)
    shared = MEAN + EXPLAINED * (targets - MEAN) + noise
    own = np.sqrt(np.square(errors) - SHARED**2)
    values = np.clip(shared + own[:, None] * rng.normal(size=(len(errors), rows)), 1, 100)
    return targets, values, None


def petfinder_drawn(rng: np.random.Generator, rows: int) -> Rows:
    """PetFinder with models of other quality in each repetition."""
    return petfinder(rng, rows, tuple(np.sort(rng.uniform(17.3, 18.2, 3))))


def petfinder_equal(rng: np.random.Generator, rows: int) -> Rows:
    """PetFinder with models of one quality: what looks better is luck."""
    return petfinder(rng, rows, (17.5, 17.5, 17.5))


def two_classes(rng: np.random.Generator, rows: int, rate: float, apart: float, drawn: bool) -> Rows:
    """Two classes, and three correlated scores of each row."""
    targets = rng.random(rows) < rate
    own = rng.uniform(0.2, 0.9, 3) if drawn else np.array([0.3, 0.4, 0.6])
    signal = apart * targets + rng.normal(size=rows)
    return targets, signal + own[:, None] * rng.normal(size=(3, rows)), None


def grouped(rng: np.random.Generator, rows: int, drawn: bool) -> Rows:
    """Groups of 1 to 20 rows, whose errors are alike."""
    sizes = rng.integers(1, 21, rows)
    groups = np.repeat(np.arange(rows), sizes)[:rows]
    own = rng.uniform(5, 12, 3) if drawn else np.array([6.0, 7.0, 9.0])
    targets = rng.normal(50, 15, rows) + rng.normal(0, 10, rows)[groups]
    shared = rng.normal(0, 8, rows)[groups] + rng.normal(0, 6, rows)
    of_group = rng.normal(size=(3, rows))[:, groups]
    return targets, targets + shared + own[:, None] * (0.7 * of_group + 0.7 * rng.normal(size=(3, rows))), groups


def rmse(targets: np.ndarray, values: np.ndarray) -> Counted:
    """Root mean squared error."""
    return functools.partial(weighted_means, np.abs(values - targets), 2, None)


def auc(targets: np.ndarray, values: np.ndarray) -> Counted:
    """Area under the ROC curve."""
    return RankedColumn(values, targets, np.ones(len(values))).area


def partial_auc(targets: np.ndarray, values: np.ndarray) -> Counted:
    """Area above a true positive rate of 0.8."""
    return functools.partial(RankedColumn(values, targets, np.ones(len(values))).partial, least=0.8)


def classes(rate: float, apart: float, drawn: bool) -> Callable[[np.random.Generator, int], Rows]:
    """`two_classes` with these arguments."""
    return functools.partial(two_classes, rate=rate, apart=apart, drawn=drawn)


PETFINDER = Case("RMSE, PetFinder, 991 of 9,912 rows private", petfinder, rmse, 8921, 991, False, True, medals=MEDALS)
AUC_CASE = Case(
    "AUC, 20 % positive, 1,500 of 4,500 rows private", classes(0.2, 1.5, False), auc, 3000, 1500, True, True
)
RARE = Case("AUC, 1 % positive, 2,000 of 6,000 rows private", classes(0.01, 2.5, False), auc, 4000, 2000, True, True)
PARTIAL = replace(RARE, what="partial AUC, 1 % positive, 2,000 of 6,000 rows private", score=partial_auc)
GROUPS = Case(
    "RMSE, groups of 1 to 20 rows, about 1,500 of 4,500 rows private",
    functools.partial(grouped, drawn=False), rmse, 3000, 1500, False, True,
)  # fmt: skip
CASES = {
    "petfinder": PETFINDER,
    "petfinder_new": Case(
        "RMSE, PetFinder, 9,912 rows known, 5,100 private", petfinder_drawn, rmse, 9912, 5100, False, False
    ),
    "petfinder_equal": Case(
        "RMSE, PetFinder, models of one quality, 9,912 rows known, 5,100 private",
        petfinder_equal, rmse, 9912, 5100, False, False,
    ),
    "auc": AUC_CASE,
    "auc_rare": RARE,
    "auc_rare_new": replace(RARE, draw=classes(0.01, 2.5, True), resplits=False),
    "partial_auc_rare": PARTIAL,
    "groups": GROUPS,
    "groups_new": replace(GROUPS, draw=functools.partial(grouped, drawn=True), resplits=False),
}  # fmt: skip


def split(case: Case, rows: Rows, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Known and private rows; groups stay together."""
    targets, values, groups = rows
    if groups is None:
        order = rng.permutation(len(targets)) if case.resplits else np.arange(len(targets))
        known, private = order[: case.known], order[case.known :]
    else:
        names = rng.permutation(np.unique(groups))
        is_known = np.isin(groups, names[: round(len(names) * case.known / len(targets))])
        known, private = np.flatnonzero(is_known), np.flatnonzero(~is_known)
    parts = [(targets[part], values[:, part], None if groups is None else groups[part]) for part in (known, private)]
    return parts[0], parts[1]


def repetition(case: Case, rows: Rows, rng: np.random.Generator, found: dict[str, Any]) -> None:
    """What is predicted from the known rows, beside what is so on the private rows; appended to `found`."""
    (targets, values, groups), (answers, predicted, _) = split(case, rows, rng)
    truth = np.array([case.score(answers, each)(np.ones((1, len(answers))))[0] for each in predicted])
    if np.isnan(truth).any():
        return
    scorers = [case.score(targets, each) for each in values]
    rarity = rarity_of(targets.astype(int) if targets.dtype == bool else targets[:, None])
    arguments = (len(answers), RESAMPLES, rng, case.higher, rarity, INFLUENCES)
    outlook = simulate(scorers, Units.of(groups, len(targets)), *arguments)
    sign = 1 if case.higher else -1
    for run in range(len(values)):
        found["private score"].append(holds(outlook.scores(run), truth[run]))
        private = outlook.private[:, run]
        found["private score, out-of-fold score taken as exact"].append(
            holds(outlook.observed[run] + private - np.nanmean(private), truth[run])
        )
        found["private score, not stretched"].append(
            holds(outlook.observed[run] + private - outlook.whole[:, run], truth[run])
        )
    for one, other in itertools.combinations(range(len(values)), 2):
        gains, truly = outlook.gains(one, other), sign * (truth[one] - truth[other])
        found["private difference"].append(holds(gains, truly))
        won = float(truly > 0)
        found["wins"] += [(chance(gains), won), (1 - chance(gains), 1 - won)]
    if groups is not None:
        alone = simulate(scorers, Units.of(None, len(targets)), *arguments)
        found["private score, groups ignored"] += [holds(alone.scores(m), truth[m]) for m in range(len(values))]
    medals(case, outlook, truth, rng, found)


def medals(case: Case, outlook: Outlook, truth: np.ndarray, rng: np.random.Generator, found: dict[str, Any]) -> None:
    """Chances of medals: with the thresholds of the case, and with thresholds around the long-run score."""
    spread = float(np.nanstd(outlook.private[:, 0]))
    sign = 1 if case.higher else -1
    centre = found["long run"] + rng.uniform(-3, 3) * spread
    drawn = {name: centre - sign * step * spread for name, step in (("gold", 0.0), ("silver", 0.4), ("bronze", 0.6))}
    for run in range(len(truth)):
        scores = outlook.scores(run)
        for kind, thresholds in (("medals", drawn), ("medals of the case", case.medals)):
            if thresholds is None:
                continue
            chances = medal_chances(scores, thresholds, case.higher)
            won = medal_chances(truth[run : run + 1], thresholds, case.higher)
            found[kind] += [(chances[name], won[name]) for name in ("gold", "any")]


def holds(values: np.ndarray, truth: float) -> bool:
    """Whether the interval of simulated values holds what is so."""
    low_high = interval(values, LEVEL)
    return low_high is not None and low_high[0] <= truth <= low_high[1]


def measure(case: Case, repetitions: int) -> dict[str, Any]:
    """All repetitions of a case."""
    names = ("private score", "private difference", "private score, out-of-fold score taken as exact")
    names += ("private score, not stretched", "private score, groups ignored")
    found: dict[str, Any] = {name: [] for name in (*names, "wins", "medals", "medals of the case")}
    started = time.monotonic()
    total = case.known + case.private
    long_run = case.draw(np.random.default_rng(10**6), 60_000)
    found["long run"] = float(np.mean([case.score(long_run[0], v)(np.ones((1, 60_000))) for v in long_run[1]]))
    rows = case.draw(np.random.default_rng(1), total)
    for number in range(repetitions):
        rng = np.random.default_rng([number, 7])
        repetition(case, rows if case.resplits else case.draw(rng, total), rng, found)
    runs = len(rows[1])
    result = {
        "what": case.what,
        "design": "re-splits" if case.resplits else "new rows",
        "repetitions": len(found["private score"]) // runs,
        "level": LEVEL,
        "runs": runs,
        "statistics": statistics(case, rows),
        "coverage": {name: coverage(found[name], len(found["private score"]) // runs) for name in names if found[name]},
    }
    for name in ("wins", "medals", "medals of the case"):
        if found[name]:
            result[name] = reliability(found[name])
    return result | {"seconds": round(time.monotonic() - started)}


def statistics(case: Case, rows: Rows) -> dict[str, Any]:
    """What the rows look like."""
    targets, values, groups = rows
    ones = np.ones((1, len(targets)))
    found: dict[str, Any] = {
        "rows": len(targets),
        "target mean": round(float(targets.mean()), 3),
        "target deviation": round(float(targets.std()), 3),
        "scores": [round(float(case.score(targets, each)(ones)[0]), 4) for each in values],
        "correlations": [round(float(each), 3) for each in np.corrcoef(values)[np.triu_indices(len(values), 1)]],
    }
    units = Units.of(groups, len(targets))
    blocks = units.resamples(np.random.default_rng(0), units.size_of(case.private), 1000)
    scores = np.concatenate([case.score(targets, values[0])(block) for block in blocks])
    return found | {"deviation of a private score": round(float(np.nanstd(scores)), 4)}


def coverage(hits: list[bool], repetitions: int) -> dict[str, Any]:
    """How many of 1,000 intervals hold what is so: of all runs or pairs, and of the worst and the best of them."""
    each = np.reshape(hits, (repetitions, -1)).mean(0) * 1000
    found = {"per 1,000": float(each.mean()), "least": float(each.min()), "most": float(each.max())}
    return {name: round(value, 1) for name, value in found.items()}


def reliability(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """How often what is given a probability happens, in ten bins; the Brier score, and that of the overall share."""
    given, happened = np.array(pairs).T
    number = np.minimum((given * 10).astype(int), 9)
    bins = [
        {
            "from": round(k / 10, 1),
            "count": int((number == k).sum()),
            "given": round(float(given[number == k].mean()), 3),
            "happened": round(float(happened[number == k].mean()), 3),
        }
        for k in range(10)
        if (number == k).any()
    ]
    brier = float(np.mean(np.square(given - happened)))
    base = float(np.mean(np.square(happened.mean() - happened)))
    error = float(sum(each["count"] * abs(each["given"] - each["happened"]) for each in bins) / len(given))
    return {"bins": bins, "brier": round(brier, 4), "brier of the share": round(base, 4), "mean gap": round(error, 4)}


def page(text: str, results: dict[str, Any]) -> str:
    """The text of docs/compare.md with the figures of the results."""
    before, _, rest = text.partition(MARKERS[0])
    return before + MARKERS[0] + "\n".join(tables(results)) + "\n" + MARKERS[1] + rest.partition(MARKERS[1])[2]


def tables(results: dict[str, Any]) -> list[str]:
    """Coverage of the intervals, and how often what is given a probability happens."""
    lines = [
        "| simulated | repetitions | private score | private difference | OOF score taken as exact | not stretched |"
    ]
    lines += ["|---|--:|--:|--:|--:|--:|"]
    columns = ["private score", "private difference", "private score, out-of-fold score taken as exact"]
    columns += ["private score, not stretched"]
    for each in results.values():
        cells = [f"{each['coverage'][name]['per 1,000']:.0f}" for name in columns]
        lines.append(f"| {each['what']}; {each['design']} | {each['repetitions']:,} | {' | '.join(cells)} |")
    lines += ["", "| simulated | what | " + " | ".join(BINS) + " | Brier | of the share |", "|---|---|" + "--:|" * 7]
    for each in results.values():
        for what in ("wins", "medals"):
            if what == "wins" and each["design"] == "re-splits":
                continue  # what is better on the known rows of one table is worse on its others
            found = each[what]
            cells = [share_of(found["bins"], *limits) for limits in BINS.values()]
            scores = f"{found['brier']:.3f} | {found['brier of the share']:.3f}"
            lines.append(f"| {each['what']}; {each['design']} | {what} | {' | '.join(cells)} | {scores} |")
    return lines


def share_of(bins: list[dict[str, float]], low: float, high: float) -> str:
    """The mean probability that was given in some bins, and how often it happened."""
    used = [each for each in bins if low <= each["from"] < high]
    count = sum(each["count"] for each in used)
    if not count:
        return "–"
    given, happened = (sum(each[name] * each["count"] for each in used) / count for name in ("given", "happened"))
    return f"{given:.2f} → {happened:.2f}"


def main() -> None:
    """Measures cases, and keeps the results of the others."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--repetitions", type=int, help="by default 1,000 re-splits, or 500 times new rows")
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args()
    for name in given.cases or CASES:
        case = CASES[name]
        result = measure(case, given.repetitions or (1000 if case.resplits else 500))
        known = json.loads(given.output.read_text()) if given.output.is_file() else {}
        known[name] = result
        ordered = {each: known[each] for each in CASES if each in known}
        write_file(given.output, (json.dumps(ordered, indent=1) + "\n").encode())
        if given.output == RESULT:
            PAGE.write_text(page(PAGE.read_text(), ordered))
        print(name, result["coverage"], result["seconds"], "s", flush=True)


if __name__ == "__main__":
    main()
