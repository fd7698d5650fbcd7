"""Every built-in metric against an independent one (scikit-learn, scipy or a plain loop), on pooled rows."""

import math
import re
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics as sk
import torch

from swinft.class_spec import parameters_of
from swinft.errors import InputError
from swinft.model.metrics import METRICS
from swinft.model.metrics.named import NameWithArguments
from swinft.model.scoring import score
from tests.conftest import ROOT

FEW, MANY = range(8), range(8, 208)  # draws against an independent answer
CLASSES, LABELS, GRADES = ["a", "b", "c", "d"], ["x", "y", "z"], ["normal", "moderate", "severe"]
PATHS = {
    name: ["root", *path] for name, path in {"a": ["p", "a"], "b": ["p", "b"], "c": ["c"], "d": ["p", "b", "d"]}.items()
}


def half_tied(values: np.ndarray) -> np.ndarray:
    """Values of which half are rounded to one digit."""
    return np.where(np.arange(len(values))[:, None] % 2 == 0, np.round(values, 1), values)


class Draw:
    """Predictions and targets of n rows: `outputs` say what they are."""

    def __init__(self, seed: int, outputs: list[str], kind: str) -> None:
        rng = self.rng = np.random.default_rng(seed)
        n = self.n = int(rng.integers(5, 401))
        self.outputs, self.kind, size = outputs, kind, len(outputs)
        if kind == "classification":
            given = half_tied(rng.dirichlet(np.full(size, 0.7), n)) + 1e-9
            self.given = given / given.sum(1, keepdims=True)
            self.wanted = np.concatenate([np.arange(size), rng.integers(0, size, n)])[:n]
        elif kind == "multilabel":
            self.given = half_tied(rng.random((n, size)))
            self.wanted = (rng.random((n, size)) < rng.uniform(0.1, 0.9, size)).astype(float)
            self.wanted[:2] = [[0] * size, [1] * size]
        else:
            self.wanted = half_tied(rng.uniform(1, 9, (n, size)))
            self.given = half_tied(self.wanted * rng.uniform(0.6, 1.4, (n, size)))
        cells = {
            "group": np.resize(["g1", "g2", "g2", "g3"], n),
            "study": [f"s{k // 3}" for k in range(n)],
            "name": rng.choice(["first", "second"], n),
        }
        self.rows = pd.DataFrame(cells, dtype=str)

    @property
    def one_hot(self) -> np.ndarray:
        return np.eye(len(self.outputs))[self.wanted]

    @property
    def hard(self) -> np.ndarray:
        return self.given.argmax(1)

    def score(self, metric, order=None) -> float:
        order = np.arange(self.n) if order is None else order
        rows = self.rows.iloc[order].reset_index(drop=True)
        more = {"outputs": self.outputs, "rows": rows, "unseen": getattr(self, "unseen", np.zeros(self.n, bool))[order]}
        (found,) = score([metric], self.kind, self.given[order], self.wanted[order], **more).values()
        return found


def ranked(d: Draw) -> list[list[int]]:
    """The classes of each row from the most to the least probable, the first of equal ones first."""
    return [sorted(range(len(d.outputs)), key=lambda k, row=row: (-row[k], k)) for row in d.given]


def map_at_3(d: Draw) -> float:
    total = 0.0
    for row, wanted, is_new, order in zip(d.given, d.wanted, d.unseen, ranked(d), strict=True):
        answer = [k for k in order if row[k] >= 0.4] + ["new"] + [k for k in order if row[k] < 0.4]
        truth = "new" if is_new else wanted
        total += next((1 / place for place, each in enumerate(answer[:3], start=1) if each == truth), 0)
    return total / d.n


def with_unseen(d: Draw) -> Draw:
    d.unseen = d.rng.random(d.n) < 0.2
    return d


def host_partial_auc(d: Draw) -> float:
    """As the host of ISIC 2024 computes it, by flipped labels and scikit-learn's scaled area."""
    most, flipped = 0.2, (d.wanted != 1).astype(int)
    scaled = sk.roc_auc_score(flipped, -d.given[:, 1], max_fpr=most)
    return 0.5 * most**2 + (most - 0.5 * most**2) / 0.5 * (scaled - 0.5)


def host_grouped(d: Draw) -> float:
    """As the host of RSNA 2024 computes it: scikit-learn's log loss by condition, and that of any severe row."""
    weights = np.array([1.0, 2.0, 4.0])[d.wanted]
    scores = []
    for cells in (["g1"], ["g2", "g3"]):
        chosen = d.rows["group"].isin(cells).to_numpy()
        scores.append(sk.log_loss(d.wanted[chosen], d.given[chosen], labels=[0, 1, 2], sample_weight=weights[chosen]))
    table = pd.DataFrame({"study": d.rows["study"], "has": d.wanted == 2, "p": d.given[:, 2], "w": weights})
    table = table[d.rows["group"] == "g1"].groupby("study").max()
    scores.append(sk.log_loss(table["has"].astype(int), table["p"], labels=[0, 1], sample_weight=table["w"]))
    return float(np.mean(scores))


def distance(one: str, other: str) -> int:
    """Steps between two classes, by the sets of what is above them."""
    return len({*PATHS[one]} ^ {*PATHS[other]})


def chosen_labels(d: Draw, threshold: float = 0.5) -> np.ndarray:
    sets = [{k for k, p in enumerate(row) if p >= threshold} or {int(np.argmax(row))} for row in d.given]
    return np.array([[k in each for k in range(len(d.outputs))] for each in sets], dtype=int)


def samples_f2(d: Draw) -> float:
    return sk.fbeta_score(d.wanted, chosen_labels(d, 0.3), beta=2, average="samples", zero_division=0)


def weighted_r2(d: Draw) -> float:
    cells = np.resize([0.1, 0.5, 0.2], d.wanted.size)
    return sk.r2_score(d.wanted.ravel(), d.given.ravel(), sample_weight=cells)


def columns_of(d: Draw, function) -> list[float]:
    return [function(wanted, given) for wanted, given in zip(d.wanted.T, d.given.T, strict=True)]


def probabilistic_f1(d: Draw) -> float:
    found = hits = others = positives = 0.0
    for study in dict.fromkeys(d.rows["study"]):
        rows = np.flatnonzero(d.rows["study"] == study)
        d.wanted[rows] = d.wanted[rows[0]]
        p, is_one = d.given[rows, 1].mean(), d.wanted[rows[0]] == 1
        hits, others, positives = hits + p * is_one, others + p * (not is_one), positives + is_one
        found = 2 * hits / (hits + others + positives)
    return found


def kaggle_log_loss(d: Draw) -> float:
    rows = np.clip(d.given / d.given.sum(1, keepdims=True), 1e-15, 1 - 1e-15)
    return float(np.mean([-math.log(row[k]) for row, k in zip(rows, d.wanted, strict=True)]))


def kl(d: Draw) -> float:
    soft = d.rng.dirichlet(np.ones(4), d.n)
    soft[: d.n // 2] = d.one_hot[: d.n // 2]
    d.wanted = soft
    return float(scipy.special.rel_entr(soft, d.given).sum(1).mean())


def f1_of_1(d: Draw) -> float:
    return sk.f1_score(d.wanted, d.given[:, 1] >= 0.4, pos_label=1, zero_division=0)


def smape(d: Draw) -> float:
    cells = zip(d.wanted.ravel(), d.given.ravel(), strict=True)
    return float(np.mean([200 * abs(t - p) / (abs(t) + abs(p)) for t, p in cells]))


TWO = ["no", "yes"]
# By metric: the outputs and the kind of a draw, the metric as a config names it, and the independent answer.
EXPECTED = {
    "accuracy": (CLASSES, "classification", "accuracy", lambda d: sk.accuracy_score(d.wanted, d.hard)),
    "balanced_accuracy": (
        CLASSES,
        "classification",
        "balanced_accuracy",
        lambda d: np.mean([(d.hard[d.wanted == k] == k).mean() for k in np.unique(d.wanted)]),
    ),
    "macro_f1": (
        LABELS,
        "multilabel",
        {"macro_f1": {"never_empty": False}},
        lambda d: sk.f1_score(d.wanted, d.given >= 0.5, average="macro"),
    ),
    "f1": (TWO, "classification", {"f1": {"threshold": 0.4}}, f1_of_1),
    "mcc": (CLASSES, "classification", "mcc", lambda d: sk.matthews_corrcoef(d.wanted, d.hard)),
    "top_k_accuracy": (
        CLASSES,
        "classification",
        {"top_k_accuracy": {"k": 2}},
        lambda d: np.mean([wanted in order[:2] for wanted, order in zip(d.wanted, ranked(d), strict=True)]),
    ),
    "map_at_k": (
        CLASSES,
        "classification",
        {"map_at_k": {"k": 3, "new": "new", "threshold": 0.4}},
        lambda d: map_at_3(with_unseen(d)),
    ),
    "hierarchical_distance": (
        CLASSES,
        "classification",
        {"hierarchical_distance": {"taxonomy": PATHS}},
        lambda d: np.mean([distance(CLASSES[p], CLASSES[t]) for p, t in zip(d.hard, d.wanted, strict=True)]),
    ),
    "log_loss": (
        CLASSES,
        "classification",
        "log_loss",
        lambda d: sk.log_loss(d.wanted, d.given, labels=range(4)),
    ),
    "kaggle_log_loss": (CLASSES, "classification", "kaggle_log_loss", kaggle_log_loss),
    "kl_divergence": (CLASSES, "classification", "kl_divergence", kl),
    "brier": (TWO, "classification", "brier", lambda d: sk.brier_score_loss(d.wanted, d.given[:, 1])),
    "grouped_log_loss": (
        GRADES,
        "classification",
        {
            "grouped_log_loss": {
                "column": "group",
                "weights": {"normal": 1, "moderate": 2, "severe": 4},
                "groups": {"spinal": ["g1"], "other": ["g2", "g3"]},
                "any_class": "severe",
                "any_group": "spinal",
                "any_by": "study",
            }
        },
        host_grouped,
    ),
    "auc": (TWO, "classification", "auc", lambda d: sk.roc_auc_score(d.wanted, d.given[:, 1])),
    "partial_auc": (TWO, "classification", "partial_auc", host_partial_auc),
    "gini": (TWO, "classification", "gini", lambda d: 2 * sk.roc_auc_score(d.wanted, d.given[:, 1]) - 1),
    "probabilistic_f1": (TWO, "classification", {"probabilistic_f1": {"by": "study"}}, probabilistic_f1),
    "mean_column_auc": (LABELS, "multilabel", "mean_column_auc", lambda d: sk.roc_auc_score(d.wanted, d.given)),
    "weighted_auc": (
        LABELS,
        "multilabel",
        {"weighted_auc": {"weights": {"z": 13}}},
        lambda d: np.average(columns_of(d, sk.roc_auc_score), weights=[1, 1, 13]),
    ),
    "mean_average_precision": (
        LABELS,
        "multilabel",
        "mean_average_precision",
        lambda d: np.mean(columns_of(d, sk.average_precision_score)),
    ),
    "mean_column_log_loss": (
        LABELS,
        "multilabel",
        {"mean_column_log_loss": {"weights": {"x": 2}}},
        lambda d: np.average(columns_of(d, lambda t, p: sk.log_loss(t, p, labels=[0, 1])), weights=[2, 1, 1]),
    ),
    "samples_f1": (LABELS, "multilabel", {"samples_f1": {"threshold": 0.3, "beta": 2}}, samples_f2),
    "micro_f1": (
        LABELS,
        "multilabel",
        "micro_f1",
        lambda d: sk.f1_score(d.wanted, chosen_labels(d), average="micro"),
    ),
    "quadratic_kappa": (
        CLASSES,
        "classification",
        "quadratic_kappa",
        lambda d: sk.cohen_kappa_score(d.wanted, d.hard, weights="quadratic", labels=range(4)),
    ),
    "rmse": (LABELS, "regression", "rmse", lambda d: np.mean(columns_of(d, sk.root_mean_squared_error))),
    "pooled_rmse": (
        LABELS,
        "regression",
        "pooled_rmse",
        lambda d: sk.root_mean_squared_error(d.wanted.ravel(), d.given.ravel()),
    ),
    "rmsle": (LABELS, "regression", "rmsle", lambda d: sk.root_mean_squared_log_error(d.wanted, d.given)),
    "mae": (LABELS, "regression", "mae", lambda d: sk.mean_absolute_error(d.wanted, d.given)),
    "mape": (LABELS, "regression", "mape", lambda d: sk.mean_absolute_percentage_error(d.wanted, d.given)),
    "smape": (LABELS, "regression", "smape", smape),
    "r2": (LABELS, "regression", "r2", lambda d: sk.r2_score(d.wanted, d.given)),
    "weighted_r2": (
        LABELS,
        "regression",
        {"weighted_r2": {"weights": {"x": 0.1, "y": 0.5, "z": 0.2}}},
        weighted_r2,
    ),
    "pearson": (
        LABELS,
        "regression",
        "pearson",
        lambda d: np.mean(columns_of(d, lambda t, p: scipy.stats.pearsonr(t, p).statistic)),
    ),
    "spearman": (
        LABELS,
        "regression",
        "spearman",
        lambda d: np.mean(columns_of(d, lambda t, p: scipy.stats.spearmanr(t, p).statistic)),
    ),
}


def test_every_metric_is_compared():
    of_masks = {name for name, metric in METRICS.items() if metric.kinds == ("segmentation",)}  # test_segmentation.py
    assert set(EXPECTED) == set(METRICS) - of_masks


@pytest.mark.parametrize("seeds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("name", EXPECTED)
def test_the_value_is_the_independent_one_in_any_order_of_the_rows(name, seeds):
    outputs, kind, metric, expected = EXPECTED[name]
    compared = 0
    for seed in seeds:
        draw = Draw(seed, outputs, kind)
        right = expected(draw)
        found = draw.score(metric)
        if math.isnan(found):
            assert name in ("mcc", "probabilistic_f1", "r2", "pearson", "spearman"), (
                "only a few rows that agree leave these undefined"
            )
            continue
        compared += 1
        assert found == pytest.approx(right, rel=1e-10, abs=1e-12)
        assert draw.score(metric, draw.rng.permutation(draw.n)) == pytest.approx(found, rel=1e-12, abs=1e-14)
    assert compared > 0.9 * len(seeds)


@pytest.mark.parametrize("name", EXPECTED)
def test_whole_weights_count_a_row_so_often(name):
    outputs, kind, metric, _ = EXPECTED[name]
    draw = Draw(3, outputs, kind)
    weights = np.arange(draw.n) % 4
    context = {"outputs": outputs, "rows": draw.rows}
    if not METRICS[name].takes_weights:
        with pytest.raises(InputError, match="has no weighted form"):
            score([metric], kind, draw.given, draw.wanted, weights=weights, **context)
        return
    plain = draw.score(metric)
    draw.rows = draw.rows.iloc[np.arange(draw.n).repeat(weights)].reset_index(drop=True)
    repeated = {**context, "rows": draw.rows}
    (expected,) = score(
        [metric], kind, draw.given.repeat(weights, 0), draw.wanted.repeat(weights, 0), **repeated
    ).values()
    (given,) = score([metric], kind, draw.given, draw.wanted, weights=weights, **context).values()
    assert given == pytest.approx(expected)
    assert given != pytest.approx(plain, rel=1e-6)
    (none,) = score([metric], kind, draw.given, draw.wanted, weights=0 * weights, **context).values()
    assert math.isnan(none)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_f094_a_prediction_that_is_no_number_has_no_score(name, bad):
    outputs, kind, metric, expected = EXPECTED[name]
    draw = Draw(0, outputs, kind)
    expected(draw)
    assert math.isfinite(draw.score(metric))
    draw.given[3, 1] = bad
    assert math.isnan(draw.score(metric))


BEST = {"gini": 1, "partial_auc": 0.2, "hierarchical_distance": 0}


@pytest.mark.parametrize("name", EXPECTED)
def test_perfect_and_constant_predictions(name):
    outputs, kind, metric, _ = EXPECTED[name]
    draw = Draw(5, outputs, kind)
    if name == "probabilistic_f1":
        draw.wanted[:] = 1  # of a study, all rows have one target
    elif kind == "multilabel":
        draw.wanted[draw.wanted.sum(1) == 0, 0] = 1  # rows without a label get one all the same
    plain = draw.score(metric)
    draw.given = draw.one_hot if kind == "classification" else draw.wanted.copy()
    higher = METRICS[name].higher_is_better
    best = BEST.get(name, 1 if higher else 0)
    assert draw.score(metric) == pytest.approx(best, abs=1e-12)
    assert (best > plain) == higher
    draw.given = np.full_like(draw.given, 1 / len(outputs))
    constant = draw.score(metric)
    known = {"auc": 0.5, "mean_column_auc": 0.5, "weighted_auc": 0.5, "gini": 0, "partial_auc": 0.02}
    known |= {"log_loss": math.log(4), "kaggle_log_loss": math.log(4), "brier": 0.25, "quadratic_kappa": 0}
    assert constant == pytest.approx(known[name]) if name in known else constant != pytest.approx(best)
    undefined = {"pearson", "spearman", "mcc"}
    assert math.isnan(constant) == (name in undefined)


def value(metric, kind, given, wanted, outputs=(), **context):
    (found,) = score([metric], kind, np.array(given, float), np.array(wanted), outputs=outputs, **context).values()
    return found


def test_published_values_of_f1():
    letters = {"A": 0, "B": 1, "C": 2}

    def sets(words):
        return [[float(letter in word) for letter in letters] for word in words]

    wanted, given = sets(["A", "AB", "C", "B", "C"]), sets(["A", "AC", "ABC", "A", "C"])
    for name, right in {"samples_f1": 0.6, "micro_f1": 0.571429, "macro_f1": 0.488889}.items():
        assert value(name, "multilabel", given, wanted) == pytest.approx(right, abs=1e-6)
    numbers = [1, 2, 3, 4, 5, 6, 7, 9, 12]  # the example on Kaggle's page
    wanted, given = ([[float(n in row) for n in numbers] for row in rows] for rows in (
        ({1, 2}, {3, 4, 5}, {6}, {7}), ({1, 2, 3, 9}, {3, 4}, {6, 12}, {1})
    ))  # fmt: skip
    assert value("samples_f1", "multilabel", given, wanted) == pytest.approx(0.533333, abs=1e-6)
    scores = np.array([0.9, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.45])
    wanted = [1, 0, 1, 1, 0, 0, 0, 1]
    for threshold, right in {0.5: 0.571429, 0.4: 0.888889}.items():
        two = np.stack([1 - scores, scores], 1)
        found = value({"f1": {"threshold": threshold, "positive": 1}}, "classification", two, wanted, ["0", "1"])
        assert found == pytest.approx(right, abs=1e-6)


def test_published_values_of_ranked_answers():
    # a, b, c, d, e and the threshold of `new` between them, so that the answers are those of the example
    orders = ["abcde", "ab*cd", "abcd*", "abd*e", "dbcae"]
    wanted, is_new = [0, 1, 0, 2, 3], [False, False, True, False, False]
    given = np.zeros((5, 5))
    for row, order in enumerate(orders):
        for place, letter in enumerate(order):
            if letter != "*":
                given[row, "abcde".index(letter)] = 0.5 + (order.find("*") if "*" in order else 9) / 10 - place / 10
    metric = {"map_at_k": {"new": "new", "threshold": 0.5}}
    found = value(metric, "classification", given, wanted, list("abcde"), unseen=is_new)
    assert found == pytest.approx((1 + 1 / 2 + 1 / 5 + 0 + 1) / 5)
    named = value(metric, "classification", np.c_[given, np.ones(5)], [0, 1, 5, 2, 3], [*"abcde", "new"])
    assert named == pytest.approx(found), "rows of the class itself are new, and its probability does not count"


def test_published_values_of_probabilities():
    scores = [0.95, 0.9, 0.8, 0.35, 0.30, 0.85, 0.7, 0.6, 0.4, 0.35, 0.25, 0.2, 0.15, 0.1, 0.05]
    two = np.stack([1 - np.array(scores), scores], 1)
    wanted = [1] * 5 + [0] * 10
    assert value("partial_auc", "classification", two, wanted) == pytest.approx(0.1)
    assert value("auc", "classification", two, wanted) == pytest.approx(0.79)
    for t, q, right in (
        (
            [(0.5, 0.5, 0), (1, 0, 0), (0.25, 0.25, 0.5)],
            [(0.4, 0.4, 0.2), (0.9, 0.05, 0.05), (0.3, 0.3, 0.4)],
            0.116305,
        ),
        ([(0, 0.1, 0.9), (0.5, 0.5, 0), (0.5, 0.5, 0)], [(0.2, 0.1, 0.7), (0.3, 0.5, 0.2), (0.5, 0.5, 0)], 0.160532),
    ):
        assert value("kl_divergence", "classification", q, t) == pytest.approx(right, abs=1e-6)
    rows = [(0.7, 0.2, 0.1), (0, 0.5, 0.5), (0.2, 0.2, 0.2), (0.1, 0.1, 0.8)]
    assert value("kaggle_log_loss", "classification", rows, [0, 0, 1, 2]) == pytest.approx(9.054302, abs=1e-6)
    one = np.array([0.8, 0.3, 0.1, 0.4])
    given = value("probabilistic_f1", "classification", np.stack([1 - one, one], 1), [1, 0, 0, 1])
    assert given == pytest.approx(2 / 3)
    wanted = [[int(c) for c in row] for row in ["1001", "0000", "0101", "0000", "0011", "0000"]]
    given = [
        (0.6, 0.2, 0.1, 0.7), (0.3, 0.4, 0.2, 0.6), (0.2, 0.3, 0.1, 0.4),
        (0.1, 0.1, 0.3, 0.2), (0.7, 0.1, 0.2, 0.9), (0.2, 0.2, 0.05, 0.5),
    ]  # fmt: skip
    metric = {"weighted_auc": {"weights": {"any": 3}}}
    assert value(metric, "multilabel", given, wanted, ["1", "2", "3", "any"]) == pytest.approx(0.772222, abs=1e-6)


GROUPED = {
    "column": "condition",
    "weights": {"normal": 1, "moderate": 2, "severe": 4},
    "any_class": "severe",
    "any_group": "spinal",
    "any_by": "study",
}


def test_published_values_of_groups():
    conditions = ["spinal"] * 4 + ["foraminal"] * 2 + ["subarticular"] * 2
    rows = pd.DataFrame({"condition": conditions, "study": list("1122") + ["1"] * 4})
    given = [
        (0.8, 0.15, 0.05), (0.2, 0.3, 0.5), (0.3, 0.5, 0.2), (0.9, 0.08, 0.02),
        (0.7, 0.2, 0.1), (0.4, 0.4, 0.2), (0.1, 0.3, 0.6), (0.6, 0.3, 0.1),
    ]  # fmt: skip
    wanted = [0, 2, 1, 0, 0, 1, 2, 0]
    context = {"outputs": GRADES, "rows": rows}
    found = value({"grouped_log_loss": GROUPED}, "classification", given, wanted, **context)
    assert found == pytest.approx(0.584495, abs=1e-6)
    plain = {"grouped_log_loss": {"column": "condition", "weights": GROUPED["weights"]}}
    three = value(plain, "classification", given, wanted, **context)
    assert three == pytest.approx((0.560923 + 0.729752 + 0.510826) / 3, abs=1e-6)
    thirds = np.full((8, 3), 1 / 3)
    assert value(plain, "classification", thirds, wanted, **context) == pytest.approx(math.log(3))
    cells = {"Green": 0.1, "Dead": 0.1, "Clover": 0.1, "GDM": 0.2, "Total": 0.5}
    y = np.array([(10, 5, 0, 10, 15), (30, 10, 5, 35, 45), (20, 0, 10, 30, 30)], float)
    p = np.array([(12, 4, 1, 13, 17), (25, 12, 4, 29, 41), (22, 1, 8, 30, 31)], float)
    wide = value({"weighted_r2": {"weights": cells}}, "regression", p, y, list(cells))
    long = {"weighted_r2": {"weights": cells, "column": "target_name"}}
    names = pd.DataFrame({"target_name": list(cells) * 3})
    assert wide == pytest.approx(0.959866, abs=1e-6)
    assert value(long, "regression", p.reshape(-1, 1), y.reshape(-1, 1), ["target"], rows=names) == pytest.approx(wide)
    assert value("weighted_r2", "regression", p, y, list(cells)) == pytest.approx(0.958736, abs=1e-6)
    truth, given = [0, 0, 1, 2, 2, 3, 4, 4], [0, 1, 1, 2, 3, 3, 2, 4]
    found = value("quadratic_kappa", "regression", np.array(given)[:, None], np.array(truth, float)[:, None])
    assert found == pytest.approx(0.8)
    classes = list("abcO")
    right, answers = "aaaabbcO", "aaabbaca"
    one_hot = np.eye(4)[[classes.index(a) for a in answers]]
    wanted = [classes.index(t) for t in right]
    assert value("balanced_accuracy", "classification", one_hot, wanted, classes) == 0.5625
    assert value("accuracy", "classification", one_hot, wanted, classes) == 0.625


def test_what_is_undefined_is_nan_and_not_zero():
    ones = np.ones(5, int)
    two = np.full((5, 2), 0.5)
    for name in ("auc", "partial_auc", "gini", "mcc"):
        assert math.isnan(value(name, "classification", two, ones)), name
    assert math.isnan(value("probabilistic_f1", "classification", two, 0 * ones))
    assert math.isnan(value("kaggle_log_loss", "classification", 0 * two, ones))
    for name in ("mean_column_auc", "mean_average_precision", {"weighted_auc": {"weights": {"x": 2}}}):
        assert math.isnan(value(name, "multilabel", two, np.ones((5, 2)), ["x", "y"]))
    empty = {"never_empty": False}
    assert math.isnan(value({"macro_f1": empty}, "multilabel", 0 * two, np.zeros((5, 2))))
    assert math.isnan(value({"micro_f1": empty}, "multilabel", 0 * two, np.zeros((5, 2))))
    assert value({"samples_f1": empty}, "multilabel", 0 * two, np.zeros((5, 2))) == 0
    assert value({"samples_f1": {**empty, "both_empty": 1}}, "multilabel", 0 * two, np.zeros((5, 2))) == 1
    assert value("f1", "classification", [[1, 0]] * 5, 0 * ones) == 0
    for name in ("r2", "weighted_r2", "pearson", "spearman"):
        assert math.isnan(value(name, "regression", np.ones((1, 1)), np.ones((1, 1)))), name
    assert math.isnan(value("weighted_r2", "regression", [[1.0], [2]], [[3.0], [3]]))
    assert math.isnan(value("mape", "regression", [[1.0], [2]], [[0.0], [3]]))
    assert math.isnan(value("rmsle", "regression", [[-1.0], [2]], [[0.0], [3]]))
    assert value("smape", "regression", [[0.0], [2]], [[0.0], [3]]) == pytest.approx(200 * 0.2 / 2)
    rows = pd.DataFrame({"condition": ["spinal", "other"], "study": ["1", "1"]})
    groups = {**GROUPED, "groups": {"spinal": ["spinal"], "rest": ["other", "none"], "third": ["nowhere"]}}
    context = {"outputs": GRADES, "rows": rows}
    assert math.isnan(value({"grouped_log_loss": groups}, "classification", np.full((2, 3), 1 / 3), [0, 1], **context))


def test_undefined_labels_are_left_out_or_make_the_score_undefined():
    given, wanted = np.random.default_rng(0).random((9, 3)), np.zeros((9, 3))
    wanted[:4, :2] = 1
    wanted[2, 0] = math.nan
    for name in ("mean_column_auc", "mean_average_precision"):
        both = value(name, "multilabel", given, wanted, LABELS)
        assert both == pytest.approx(value(name, "multilabel", given[:, :2], wanted[:, :2], LABELS[:2]))
        assert math.isnan(value({name: {"undefined": "nan"}}, "multilabel", given, wanted, LABELS))
        metric = METRICS[name]()
        metric.outputs = LABELS
        assert metric.undefined_outputs(wanted) == ["z"]
    weighted = {"weights": {"z": 0}, "undefined": "nan"}
    assert math.isfinite(value({"weighted_auc": weighted}, "multilabel", given, wanted, LABELS)), "z does not count"


def test_distances_are_the_hosts():
    sea = ["Animalia", "Echinodermata", "Ophiuroidea"]
    snake = [*sea, "Euryalida", "Asteronychidae", "Asteronyx"]
    names = ["Asteronyx loveni", "Asteronyx", "Asteronyx longifissus", "Ophiacanthidae"]
    paths = [[*snake, names[0]], snake, [*snake, names[2]], [*sea, "Ophiacanthida", names[3]]]
    metric = {"hierarchical_distance": {"taxonomy": dict(zip(names, paths, strict=True))}}
    for k, right in enumerate((0, 1, 2, 6)):
        assert value(metric, "classification", np.eye(4)[[k]], [0], names) == right
    far = {"hierarchical_distance": {**metric["hierarchical_distance"], "farthest": 12}}
    assert value(far, "classification", np.eye(5)[[4]], [0], [*names, "Sponge"]) == 12
    with pytest.raises(InputError, match="the taxonomy does not have Sponge"):
        value(metric, "classification", np.eye(5)[[4]], [0], [*names, "Sponge"])


@pytest.mark.parametrize(
    ("metric", "kind", "outputs", "said"),
    [
        ({"partial_auc": {"min_tpr": 1}}, "classification", TWO, "min_tpr is 1. Allowed: a number from 0, below 1"),
        ({"partial_auc": {"tpr": 0.8}}, "classification", TWO, "partial_auc has no 'tpr'. Did you mean 'min_tpr'"),
        ("partial_auc", "classification", ["cat", "dog"], "there are cat, dog: set positive to one of them"),
        ({"f1": {"positive": "dgo"}}, "classification", ["cat", "dog"], "no output 'dgo'. Did you mean 'dog'"),
        ({"f1": {"positive": 1.5}}, "classification", TWO, "positive is 1.5, which is not text"),
        ({"samples_f1": {"threshold": 2}}, "multilabel", LABELS, "threshold is 2. Allowed: a number from 0 to 1"),
        ({"samples_f1": {"beta": True}}, "multilabel", LABELS, "beta is True"),
        ({"samples_f1": {"never_empty": "no"}}, "multilabel", LABELS, "never_empty is 'no'"),
        ({"macro_f1": {"threshold": 0.4}}, "classification", TWO, "are for labels"),
        ({"mean_column_auc": {"undefined": "skp"}}, "multilabel", LABELS, "Did you mean 'skip'"),
        ({"weighted_auc": {}}, "multilabel", LABELS, "weighted_auc needs weights; its arguments are"),
        ({"weighted_auc": {"weights": {"w": 1}}}, "multilabel", LABELS, "there is no output 'w'"),
        ({"weighted_auc": {"weights": {"x": -1}}}, "multilabel", LABELS, "weights.x is -1. Allowed: a number from 0"),
        ({"weighted_r2": {"weights": {"x": 1}}}, "regression", LABELS, "the outputs y, z have no weight"),
        ({"weighted_r2": {"weights": {"x": 1}, "column": "c"}}, "regression", LABELS, "tables with one output"),
        ({"weighted_r2": {"weights": {"x": 1}, "column": "gruop"}}, "regression", ["t"], "which the table lacks"),
        ({"weighted_r2": {"weights": {"g1": 1}, "column": "group"}}, "regression", ["t"], "2 names have no weight"),
        ({"map_at_k": {"threshold": 0.4}}, "classification", TWO, "threshold is for the answer `new`"),
        ({"top_k_accuracy": {"k": 0}}, "classification", TWO, "k is 0. Allowed: a whole number from 1"),
        ("top_k_accuracy", "classification", ["a", "b", "c"], "always among the 5 most probable ones: set k to 2 or"),
        ({"top_k_accuracy": {"k": 2}}, "classification", TWO, "always among the 2 most probable ones: use accuracy"),
        ({"grouped_log_loss": {"column": "group", "any_class": "yes"}}, "classification", TWO, "any_by missing"),
        (
            {"grouped_log_loss": {"column": "group", "groups": {"a": ["g1"], "b": ["g1"]}}},
            "classification",
            TWO,
            "groups has 'g1' in a and in b",
        ),
        ({"grouped_log_loss": {"column": "group", "groups": {"a": ["g1"]}}}, "classification", TWO, "in no group"),
        ({"accuracy": {"k": 1}}, "classification", TWO, "accuracy has no 'k'"),
        ({"hierarchical_distance": {"taxonomy": {"a": ["b"]}}}, "classification", TWO, "ends with 'b'"),
        (
            {"hierarchical_distance": {"taxonomy": {"a": ["x", "a"], "b": ["y", "x", "b"]}}},
            "classification",
            TWO,
            "'x', in the path of 'b', is below y and",
        ),
        ({"hierarchical_distance": {"taxonomy": "nowhere.csv"}}, "classification", TWO, "nowhere.csv cannot be read"),
        ({"f1": {"name": "f 1"}}, "classification", TWO, "has the name 'f 1'"),
        ({"f1": {"name": "auc"}}, "classification", TWO, "has the name of another metric: 'auc'"),
    ],
)
def test_wrong_arguments_are_explained(metric, kind, outputs, said):
    draw = Draw(0, outputs, kind)
    with pytest.raises(InputError) as error:
        draw.score(metric)
    assert said in str(error.value)
    assert (
        "model.metrics" in str(error.value) or "grouped_log_loss" in str(error.value) or "weighted" in str(error.value)
    )


def test_one_word_may_be_given_twice_under_two_names():
    draw = Draw(0, LABELS, "multilabel")
    both = [{"samples_f1": {"threshold": 0.3, "name": "low"}}, {"samples_f1": {"threshold": 0.7}}]
    found = score(both, "multilabel", draw.given, draw.wanted)
    assert list(found) == ["low", "samples_f1"]
    assert found["low"] != found["samples_f1"]
    with pytest.raises(InputError, match="give one of the same word another `name`"):
        score(["samples_f1", both[1]], "multilabel", draw.given, draw.wanted)


def test_a_studys_rows_have_one_target():
    given, rows = np.full((2, 2), 0.5), pd.DataFrame({"study": ["1", "1"]})
    with pytest.raises(InputError, match="the rows of '1' in column 'study' have different targets"):
        value({"probabilistic_f1": {"by": "study"}}, "classification", given, [0, 1], TWO, rows=rows)


def test_labels_need_whole_rows_and_targets_of_0_and_1():
    given, gaps, soft = np.full((3, 2), 0.5), np.array([[1, math.nan], [0, 1], [1, 1]]), np.full((3, 2), 0.3)
    with pytest.raises(InputError, match="scores whole rows"):
        value("samples_f1", "multilabel", given, gaps, ["x", "y"])
    for name in ("samples_f1", "mean_column_auc", "mean_column_log_loss"):
        with pytest.raises(InputError, match="needs targets of 0 and 1"):
            value(name, "multilabel", given, soft, ["x", "y"])


def test_metrics_with_arguments_are_those_that_a_config_may_give_arguments():
    takes = {name for name, metric in METRICS.items() if parameters_of(metric)}
    assert takes == set(get_args(NameWithArguments))


def test_f1_of_a_class_is_that_of_the_most_probable_class_and_of_a_label_that_of_a_half():
    for seed in range(20):
        draw = Draw(seed, CLASSES, "classification")
        expected = sk.f1_score(draw.wanted == 2, draw.hard == 2, zero_division=0)
        assert draw.score({"f1": {"positive": "c"}}) == pytest.approx(expected)
        draw = Draw(seed, LABELS, "multilabel")
        expected = sk.fbeta_score(draw.wanted[:, 1], draw.given[:, 1] >= 0.5, beta=2)
        assert draw.score({"f1": {"positive": "y", "beta": 2}}) == pytest.approx(expected)


def test_binary_auc_takes_the_second_class():
    draw = Draw(1, TWO, "classification")
    expected = sk.roc_auc_score(draw.wanted, draw.given[:, 1])
    given = score(["auc"], "classification", torch.from_numpy(draw.given), torch.from_numpy(draw.wanted))
    assert given["auc"] == pytest.approx(expected)


def test_f002_kappa_of_numbers_rounds_them_and_clips_them_to_the_grades():
    rng = np.random.default_rng(0)
    grades = rng.integers(-1, 4, (200, 1)).astype(np.float32)
    predicted = (grades + rng.normal(0, 0.7, grades.shape)).astype(np.float32)
    written = np.rint(predicted).clip(-1, 3).ravel().astype(int)
    assert (written != np.rint(predicted).ravel()).any()
    expected = sk.cohen_kappa_score(grades.ravel().astype(int), written, weights="quadratic")
    got = score(["quadratic_kappa"], "regression", torch.from_numpy(predicted), torch.from_numpy(grades))
    assert got["quadratic_kappa"] == pytest.approx(expected, abs=1e-5)


def test_all_wrong_names_are_listed_with_the_nearest():
    with pytest.raises(InputError) as error:
        score(["acuracy", "rmse"], "classification", torch.rand(2, 2), torch.tensor([0, 1]))
    assert "'acuracy' does not score classification (model.metrics). Did you mean 'accuracy'?" in str(error.value)
    assert "'rmse' does not score classification" in str(error.value)


def test_the_page_of_metrics_names_all_of_them_with_their_arguments():
    lines = (ROOT / "docs" / "metrics.md").read_text().splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:3] for line in lines if line.startswith("| `")]
    shown = {name.strip(" `"): re.findall(r"`(\w+)`", arguments) for name, arguments in rows}
    assert shown == {name: [*parameters_of(metric)] for name, metric in METRICS.items()}
