"""Fitted rules: each finds what an independent search finds, and the score that is shown is one that it could not see."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    log_loss,
    mean_squared_error,
)

from swinft import FittedRule, Metric
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.inference.rules.class_weights import Counts
from swinft.inference.rules.f1 import f1_kinds
from swinft.inference.rules.fitted import FitRows, cross_fit, fit_rows, fit_rules, try_fit
from swinft.inference.rules.named import FITTED, rules_of
from swinft.inference.rules.rule import apply_rules, check_rules
from swinft.inference.rules.searches import ABOVE, BELOW, kappa_cuts, shifted
from swinft.model.metrics.classes import MAPAtK
from swinft.model.scoring import score

LABELS = Schema("multilabel", ["a", "b", "c"])
PAIR = Schema("classification", ["no", "yes"])
CLASSES = Schema("classification", ["a", "b", "c"])
GRADES = Schema("regression", ["grade"], ranges=[[0, 4]])


class F1(Metric):
    """scikit-learn's F1 of labels from 0.5 on, or of the most probable class."""

    higher_is_better = True

    def __init__(self, average: str) -> None:
        self.average, self.name = average, f"f1_{average}"

    def compute(self, predictions, targets, rows):
        chosen = predictions.argmax(1) if targets.ndim == 1 else predictions >= 0.5
        return f1_score(targets, chosen, average=self.average, zero_division=0)


def given(schema: Schema, values: np.ndarray, targets: np.ndarray, metric: object, folds=None, weights=None) -> FitRows:
    ids = [f"i{row}" for row in range(len(values))]
    folds = np.arange(len(values)) % 4 if folds is None else folds

    def scores(metrics, values, numbers, outputs):
        counts = None if weights is None else weights[numbers]
        return score(metrics, schema.kind, values, targets[numbers], schema.grades, outputs=outputs, weights=counts)

    rows = pd.DataFrame(index=ids)
    return fit_rows(Predictions(ids, values, schema.outputs, folds), targets, rows, schema, weights, [metric], scores)


def fitted(rule: object, rows: FitRows) -> tuple[dict, np.ndarray]:
    """The parameters of a rule, and the predictions that it makes of those that it was fitted on."""
    rules = rules_of([rule])
    check_rules(rules, rows.schema)
    (found,) = fit_rules(rules, rows, np.arange(len(rows.predictions)))
    return found.parameters, apply_rules([found], rows.predictions, rows.rows, rows.schema)[0].values


def labels(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets of labels of different frequency, and probabilities that are too low."""
    numbers = np.random.default_rng(seed)
    targets = (numbers.uniform(size=(count, 3)) < (0.1, 0.3, 0.5)).astype(float)
    values = 1 / (1 + np.exp(-(3 * targets - 3 + numbers.normal(size=targets.shape))))
    return values.round(2).astype(np.float32), targets  # rounded: some are equal


def test_a_shift_keeps_order_and_decisions_in_float32():
    values = np.float32([[0.3, np.nextafter(np.float32(0.3), np.float32(0)), 0.0, 1.0, 0.299999, 0.7]]).T.astype(float)
    for threshold in (float(np.float32(0.3)), 0.7, 1.0, 1e-9):
        found = shifted(values, threshold).astype(np.float32)
        assert ((found >= 0.5) == (values >= threshold)).all()
        assert (np.diff(found[np.argsort(values[:, 0]), 0]) >= 0).all()
    assert np.float32(BELOW) < 0.5 < np.float32(ABOVE)


@pytest.mark.parametrize("average", ["samples", "micro", "macro"])
@pytest.mark.parametrize("never_empty", [False, True])
def test_thresholds_are_the_best_of_all(average, never_empty):
    values, targets = labels(9)
    rule = {"thresholds": {"min_positives": 0, "never_empty": never_empty}}
    parameters, changed = fitted(rule, given(LABELS, values, targets, F1(average)))
    assert list(parameters["thresholds"]) == ["a", "b", "c"]

    def gain(cuts) -> float:
        chosen = values >= cuts
        if never_empty:
            chosen[np.arange(len(values)), values.argmax(1)] |= ~chosen.any(1)
        axis = {"samples": 1, "micro": None, "macro": 0}[average]
        hits, total = (chosen & (targets > 0)).sum(axis), chosen.sum(axis) + targets.sum(axis)
        return np.mean(2 * hits / np.maximum(total, 1))

    every = [[*np.unique(column), 1.1] for column in values.T]
    best = max(gain(cuts) for cuts in itertools.product(*every))
    found = f1_score(targets, changed >= 0.5, average=average, zero_division=0)
    assert found == pytest.approx(gain(np.array(list(parameters["thresholds"].values()))))
    # A coordinate ascent may end beside the best of all combinations, but near it; macro F1 is a sum over labels.
    assert found >= best - (1e-9 if average == "macro" and not never_empty else 0.05)
    if never_empty:
        assert (changed >= 0.5).any(1).all()


def test_a_rare_label_keeps_the_threshold_of_all_and_one_of_all_is_one():
    values, targets = labels(300)
    targets[10:, 0] = 0
    parameters, _ = fitted({"thresholds": {"min_positives": 20}}, given(LABELS, values, targets, F1("macro")))
    every, _ = fitted({"thresholds": {"per_label": False}}, given(LABELS, values, targets, F1("macro")))
    assert parameters["thresholds"]["a"] == every["thresholds"]["a"]
    assert len(set(every["thresholds"].values())) == 1 < len(set(parameters["thresholds"].values()))


@pytest.mark.parametrize(("metric", "function"), [(F1("binary"), f1_score), ("accuracy", accuracy_score)])
def test_the_threshold_of_two_classes(metric, function):
    values, targets = labels(60)
    pair, truth = np.stack([1 - values[:, 1], values[:, 1]], 1), targets[:, 1].astype(int)
    _, changed = fitted("thresholds", given(PAIR, pair, truth, metric))
    best = max(function(truth, values[:, 1] >= cut) for cut in [*np.unique(values[:, 1]), 1.1])
    assert function(truth, changed.argmax(1)) == pytest.approx(best)
    assert changed.sum(1) == pytest.approx(np.ones(60))


def test_weights_of_rows_count():
    values, targets = labels(80)
    weights = np.repeat([1.0, 0.0], 40)
    weighted = given(LABELS, values, targets, F1("samples"), weights=weights)
    alone = given(LABELS, values[:40], targets[:40], F1("samples"))
    rule = {"thresholds": {"min_positives": 0}}
    found = [np.array([*fitted(rule, rows)[0]["thresholds"].values()]) for rows in (alone,)]
    assert found[0].shape == (3,)
    assert fitted("temperature", weighted)[0]["temperature"] == pytest.approx(
        fitted("temperature", alone)[0]["temperature"], rel=1e-3
    )


def grades(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Grades 0 to 4, most of them 0, and numbers that are drawn to the middle."""
    numbers = np.random.default_rng(seed)
    truth = numbers.choice(5, count, p=[0.5, 0.1, 0.25, 0.05, 0.1])
    return (0.6 * truth + 0.7 + numbers.normal(0, 0.5, count)).astype(np.float32)[:, None], truth[:, None].astype(float)


def kappa(truth, found) -> float:
    return cohen_kappa_score(truth, found, weights="quadratic")


def test_cuts_have_the_highest_kappa_of_all():
    values, truth = grades(11)
    cuts = kappa_cuts(values[:, 0].astype(float), truth[:, 0].astype(int), 0, 2, np.ones(11))
    truth = np.minimum(truth, 2)
    cuts = kappa_cuts(values[:, 0].astype(float), truth[:, 0].astype(int), 0, 2, np.ones(11))
    middles = (np.unique(values)[1:] + np.unique(values)[:-1]) / 2
    every = itertools.combinations_with_replacement([-9, *middles, 9], 2)
    best = max(kappa(truth[:, 0].astype(int), np.searchsorted(each, values[:, 0])) for each in every)
    assert kappa(truth[:, 0].astype(int), np.searchsorted(cuts, values[:, 0])) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_cuts_are_at_least_as_good_as_nelder_mead(seed):
    values, truth = grades(400, seed)
    wanted = truth[:, 0].astype(int)

    def loss(cuts) -> float:
        return -kappa(wanted, np.searchsorted(np.sort(cuts), values[:, 0]))

    searched = min(
        minimize(loss, start, method="Nelder-Mead").fun for start in ([0.5, 1.5, 2.5, 3.5], [1, 1.6, 2.2, 3])
    )
    _, changed = fitted("cuts", given(GRADES, values, truth, "quadratic_kappa"))
    found = np.clip(np.rint(changed[:, 0]), 0, 4).astype(int)
    assert kappa(wanted, found) >= -searched
    assert kappa(wanted, found) > kappa(wanted, np.clip(np.rint(values[:, 0]), 0, 4).astype(int)) + 0.02


def test_cuts_of_classes_and_of_another_metric():
    values, truth = grades(300)
    near = np.exp(-np.square(values - np.arange(5)))
    schema = Schema("classification", ["4", "0", "2", "1", "3"])  # not in the order of the grades
    order = [4, 0, 2, 1, 3]
    shares = (near / near.sum(1, keepdims=True))[:, order].astype(np.float32)
    targets = np.array([order.index(int(grade)) for grade in truth[:, 0]])
    parameters, changed = fitted("cuts", given(schema, shares, targets, "quadratic_kappa"))
    assert sorted(np.unique(changed)) == [0, 1]
    assert kappa(truth[:, 0].astype(int), np.array(order)[changed.argmax(1)]) > kappa(
        truth[:, 0].astype(int), np.array(order)[shares.argmax(1)]
    )
    assert np.all(np.diff(parameters["cuts"]["cuts"]) >= 0)

    class Exact(Metric):
        higher_is_better = True

        def compute(self, predictions, targets, rows):
            return float((np.rint(predictions) == targets).mean())

    _, changed = fitted("cuts", given(GRADES, values[:100], truth[:100], Exact()))
    best, _ = fitted("cuts", given(GRADES, values[:100], truth[:100], "quadratic_kappa"))
    by_kappa = np.searchsorted(best["cuts"]["grade"], values[:100, 0])
    assert (np.rint(changed) == truth[:100]).mean() > (by_kappa == truth[:100, 0]).mean()


def classes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A frequent and two rare classes, and probabilities that favour the frequent one."""
    numbers = np.random.default_rng(seed)
    truth = numbers.choice(3, count, p=[0.8, 0.12, 0.08])
    logits = 1.3 * np.eye(3)[truth] + numbers.normal(size=(count, 3)) + (3.5, 0, 0)
    shares = np.exp(logits)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32), truth


class Recall(Metric):
    """scikit-learn's balanced accuracy."""

    higher_is_better, name = True, "recall"

    def compute(self, predictions, targets, rows):
        return balanced_accuracy_score(targets, predictions.argmax(1))


@pytest.mark.parametrize("weights", [np.ones(60), np.linspace(0.5, 2, 60)], ids=["equal", "weighted"])
def test_scores_of_many_thresholds_at_once_are_those_of_each_alone(weights):
    numbers = np.random.default_rng(1)
    values, targets = numbers.uniform(size=(60, 4)).round(1), numbers.uniform(size=(60, 4)) < 0.4
    cuts = np.array([0.0, 0.15, 0.3, 0.55, 0.9, 0.95, 1.0])
    for kind in f1_kinds(targets, weights, values.argmax(1)):
        assert kind.of_cuts(values, cuts) == pytest.approx([kind.of(values >= cut) for cut in cuts], abs=1e-12)
    truth, others, needed = numbers.integers(0, 5, 60), numbers.integers(0, 4, 60), numbers.normal(size=60).round(1)
    for name in ("accuracy", "balanced", "f1", "all_f1"):
        counts = Counts(name, truth, weights, 6)
        alone = [counts(np.where(needed < cut, 4, others)) for cut in (-1, 0.1, 0.15, 5)]
        assert counts.of_cuts(needed, [-1, 0.1, 0.15, 5], 4, others) == pytest.approx(alone, abs=1e-12)


def test_class_weights_raise_the_metric_of_the_most_probable_class():
    values, truth = classes(400)
    for metric in ("macro_f1", "accuracy", Recall()):
        rows = given(CLASSES, values, truth, metric)
        parameters, changed = fitted("class_weights", rows)
        name = metric if isinstance(metric, str) else metric.name
        found, before = (score([metric], "classification", each, truth)[name] for each in (changed, values))
        assert found > before
        tried = [(1.0, *each) for each in itertools.product(np.geomspace(0.2, 20, 9), repeat=2)]
        assert found >= max(rows.scorer(None, np.arange(400), "abc")(values * each) for each in tried) - 0.01
        assert np.prod(list(parameters["weights"].values())) == pytest.approx(1)


def test_a_limit_of_probabilities_ends_the_cost_of_certain_rows():
    values, truth = classes(200)
    sure = (values == values.max(1, keepdims=True)).astype(np.float32)
    parameters, changed = fitted("clip_fitted", given(CLASSES, sure, truth, "log_loss"))
    wrong = (sure.argmax(1) != truth).mean()
    assert log_loss(truth, changed) < log_loss(truth, sure) / 5
    assert parameters["limit"] == pytest.approx(wrong / (2 - wrong), rel=0.2)  # of e / (1 + e) twice
    assert fitted("clip_fitted", given(CLASSES, np.full((9, 3), 1 / 3), truth[:9], "log_loss"))[0]["limit"] == 0


def test_temperature_and_calibration_lower_the_log_loss():
    numbers = np.random.default_rng(0)
    logits = numbers.normal(size=(1500, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([numbers.choice(3, p=row) for row in shares])
    sharp = shares**2.5 / (shares**2.5).sum(1, keepdims=True)
    rows = given(CLASSES, sharp, truth, "log_loss")
    parameters, changed = fitted("temperature", rows)
    assert parameters["temperature"] == pytest.approx(2.5, rel=0.1)
    assert log_loss(truth, changed) < log_loss(truth, sharp) - 0.1
    for how in ("platt", "isotonic"):
        _, changed = fitted({"calibrate": {"how": how}}, rows)
        assert log_loss(truth, changed) < log_loss(truth, sharp) - 0.1
        assert changed.sum(1) == pytest.approx(np.ones(1500), abs=1e-6)


def test_isotonic_regression_of_labels_is_scikit_learns_and_rare_ones_stay():
    values, targets = labels(300)
    targets[5:, 0] = 0
    parameters, changed = fitted({"calibrate": {"how": "isotonic"}}, given(LABELS, values, targets, "mean_column_auc"))
    wanted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit_transform(values[:, 1], targets[:, 1])
    assert changed[:, 1] == pytest.approx(wanted, abs=1e-6)
    assert list(parameters["isotonic"]) == ["b", "c"]
    assert (changed[:, 0] == values[:, 0]).all()


def test_a_line_is_that_of_least_squares():
    values, truth = grades(200)
    parameters, changed = fitted("affine", given(GRADES, values, truth, "rmse"))
    wanted = np.polynomial.Polynomial.fit(values[:, 0], truth[:, 0], 1).convert().coef
    assert parameters["line"]["grade"] == pytest.approx([wanted[1], wanted[0]])
    assert mean_squared_error(truth, changed) < mean_squared_error(truth, values)
    factor, _ = fitted({"affine": {"constant": False}}, given(GRADES, values, truth, "rmse"))
    assert factor["line"]["grade"] == pytest.approx([(values * truth).sum() / (values**2).sum(), 0])


@pytest.mark.parametrize("constant", [0.1, 1.7, 3.3])
def test_a_line_of_equal_numbers_moves_them_and_stretches_nothing(constant):
    _, truth = grades(200)
    weights = np.random.default_rng(0).random(200)  # with which the mean of equal numbers is not quite that number
    rows = given(GRADES, np.full_like(truth, constant), truth, "rmse", weights=weights)
    parameters, changed = fitted("affine", rows)
    assert parameters["line"]["grade"][0] == 1
    assert changed == pytest.approx(np.full_like(truth, np.average(truth, axis=0, weights=weights)))


class Known(Metric):
    """Share of the known labels that are right."""

    higher_is_better = True

    def compute(self, predictions, targets, rows):
        known = ~np.isnan(targets)
        return float(((predictions >= 0.5) == targets)[known].mean())


def test_labels_that_are_missing_are_left_out():
    values, targets = labels(200)
    targets[::3, 1] = np.nan
    rows = given(LABELS, values, targets, "mean_column_auc")
    alone = given(LABELS, values[np.arange(200) % 3 > 0], targets[np.arange(200) % 3 > 0], "mean_column_auc")
    for rule in ("calibrate", {"calibrate": {"how": "isotonic"}}):
        (how, of_all), (_, of_known) = (next(iter(fitted(rule, each)[0].items())) for each in (rows, alone))
        assert np.ravel(of_all["b"]) == pytest.approx(np.ravel(of_known["b"])), how
    for rule in ("temperature", "clip_fitted"):
        assert np.isfinite(fitted(rule, rows)[1]).all()
    assert np.isfinite(fitted("thresholds", given(LABELS, values, targets, Known()))[1]).all()


def constants(schema: Schema, targets: np.ndarray) -> list[np.ndarray]:
    """Predictions that are the same for all rows."""
    count, width = len(targets), len(schema.outputs)
    if not schema.base.are_classes:
        return [np.ones((count, width)), np.tile(targets.mean(0), (count, 1))]
    share = np.bincount(targets, minlength=width) / count
    return [np.tile(row, (count, 1)) for row in (*np.eye(width), share)]


NOISE = [
    ("thresholds", LABELS, F1("samples")),
    ("class_weights", CLASSES, "accuracy"),
    ("cuts", GRADES, "quadratic_kappa"),
    ({"calibrate": {"how": "isotonic"}}, PAIR, "log_loss"),
    ("affine", GRADES, "rmse"),
]


@pytest.mark.parametrize(("rule", "schema", "metric"), NOISE, ids=[str(each[0]) for each in NOISE])
def test_of_noise_only_the_score_of_the_fit_rises(rule, schema, metric):
    """Predictions without any relation to the target: what a rule gains over the best constant is chance."""
    gains = []
    for seed in range(6):
        numbers, width = np.random.default_rng(seed), len(schema.outputs)
        if schema.base.are_classes:
            values, targets = numbers.dirichlet(np.ones(width), 120), numbers.integers(width, size=120)
        elif schema.base.are_probabilities:
            values, targets = numbers.uniform(size=(120, 3)), numbers.integers(2, size=(120, 3)).astype(float)
        else:
            values, targets = numbers.uniform(1.9, 2.1, (120, 1)), numbers.integers(5, size=(120, 1)).astype(float)
        rows = given(schema, values.astype(np.float32), targets, metric, folds=np.arange(120) % 5)
        gain = rows.scorer(None, np.arange(120), schema.outputs)
        base = max(gain(each) for each in constants(schema, targets))
        changed = fitted(rule, rows)[1], cross_fit(rules_of([rule]), rows)[0].values
        gains.append([gain(each) - base for each in changed])
    inside, outside = np.mean(gains, 0)
    assert inside > 0.0005
    assert outside < 0.0005


def test_a_fold_is_changed_by_what_the_other_folds_say():
    values, targets = labels(120)
    folds = np.arange(120) % 3
    rule = rules_of([{"thresholds": {"min_positives": 0}}])
    before, of_fold = cross_fit(rule, given(LABELS, values, targets, F1("macro"), folds))
    other = targets.copy()
    other[folds == 1] = 1 - other[folds == 1]
    after, of_other = cross_fit(rule, given(LABELS, values, other, F1("macro"), folds))
    assert of_fold[1][0].parameters == of_other[1][0].parameters  # its own targets do not matter to a fold
    assert (before.values[folds == 1] == after.values[folds == 1]).all()
    assert of_fold[0][0].parameters != of_other[0][0].parameters
    assert before.ids == after.ids == [f"i{row}" for row in range(120)]
    with pytest.raises(InputError, match="only one fold is scored"):
        cross_fit(rule, given(LABELS, values, targets, F1("macro"), np.zeros(120, int)))


def test_a_rule_is_fitted_on_what_the_rules_before_it_return():
    values, truth = grades(150)
    rows = given(GRADES, values, truth, "quadratic_kappa")
    one, two = fit_rules(rules_of(["affine", "cuts"]), rows, np.arange(150))
    (alone,) = fit_rules(rules_of(["cuts"]), rows, np.arange(150))
    factor, constant = one.parameters["line"]["grade"]
    assert two.parameters["cuts"]["grade"] == pytest.approx(
        [factor * cut + constant for cut in alone.parameters["cuts"]["grade"]], abs=1e-5
    )


def test_the_threshold_of_a_new_class_is_the_best_for_the_metric():
    numbers = np.random.default_rng(0)
    truth, unseen = numbers.integers(3, size=300), numbers.uniform(size=300) < 0.3
    values = numbers.dirichlet(np.ones(3), 300)
    values[~unseen] = (values[~unseen] + 2 * np.eye(3)[truth[~unseen]]) / 3
    metric = MAPAtK(k=2, new="new", threshold=0.5)
    ids = [f"i{row}" for row in range(300)]

    def scores(metrics, values, some, outputs):
        return score(metrics, "classification", values, truth[some], outputs=outputs, unseen=unseen[some])

    frame, predictions = pd.DataFrame(index=ids), Predictions(ids, values, CLASSES.outputs, np.arange(300) % 3)
    rows = fit_rows(predictions, truth, frame, CLASSES, None, [metric], scores)
    parameters, changed = fitted("new_class", rows)

    def mean_precision(threshold: float) -> float:
        ranked = np.argsort(-np.hstack([values, np.full((300, 1), threshold)]), axis=1, kind="stable")
        right = np.where(unseen, 3, truth)
        return float(np.mean([1 / (1 + list(row[:2]).index(k)) if k in row[:2] else 0
                              for row, k in zip(ranked, right, strict=True)]))  # fmt: skip

    (found,) = scores([metric], changed, np.arange(300), CLASSES.outputs).values()
    assert found == pytest.approx(mean_precision(parameters["threshold"]))
    assert found >= max(mean_precision(t) for t in np.linspace(0.01, 0.99, 99)) - 1e-9
    assert (np.argsort(-changed, 1) == np.argsort(-values, 1)).all()
    for rate in (0.0, 0.25, 1.0):
        parameters, changed = fitted({"new_class": {"rate": rate}}, rows)
        assert parameters == {"rate": rate}
        assert (changed.max(1) < 0.5).mean() == pytest.approx(rate, abs=0.01)


class Own(FittedRule):
    """Fits what a function returns."""

    def __init__(self, function) -> None:
        self.function = function

    def fit(self, values, targets, rows, score):
        return self.function(values, targets, score)

    def apply(self, values, rows):
        return values * self.parameters["factor"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda v, t, s: {"factor": np.float32(1)}, "cannot be stored as JSON"),
        (lambda v, t, s: {"factor": float("nan")}, "cannot be stored as JSON"),
        (lambda v, t, s: {"factor": (1, 2)}, "must return a dictionary of numbers"),
        (lambda v, t, s: [1.0], "must return a dictionary"),
        (lambda v, t, s: {1: 2}, "text keys"),
        (lambda v, t, s: v[5000], "fit fails for 40 rows: IndexError"),
        (lambda v, t, s: {"other": 1.0}, "fails for 40 rows: KeyError: 'factor'"),
        (
            lambda v, t, s: {"factor": float(np.random.default_rng().uniform(0, 1))},
            "other parameters when it is called",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused(function, message):
    values, targets = labels(40)
    with pytest.raises(InputError, match="rule 1, .*Own.*" + message):
        try_fit([Own(function)], given(LABELS, values, targets, F1("macro"), np.zeros(40, int)))


def test_a_custom_rule_gets_copies_and_a_score_that_is_higher_where_better():
    values, targets = labels(40)
    seen = []

    def function(given_values, wanted, gain):
        seen.append((gain(given_values), gain.name))
        given_values[:] = 0
        return {"factor": 1.0}

    truth = targets[:, 1].astype(int)
    pair = np.stack([1 - values[:, 1], values[:, 1]], 1)
    rows = given(PAIR, pair, truth, "log_loss")
    _, changed = fitted(Own(function), rows)
    assert (changed == pair).all()
    assert seen[0] == (pytest.approx(-log_loss(truth, pair.astype(np.float64))), "log_loss")


@pytest.mark.parametrize(
    ("rule", "schema", "message"),
    [
        ("thresholds", CLASSES, "it is for labels and for two classes, not for 3"),
        ({"thresholds": {"never_empty": True}}, PAIR, "never_empty is for labels"),
        ({"thresholds": {"per_label": "no"}}, LABELS, "per_label is 'no'. Give true or false"),
        ({"thresholds": {"min_positives": 1.5}}, LABELS, "min_positives is 1.5"),
        ({"thresholds": {"metric": "f2"}}, LABELS, "there is no metric 'f2'"),
        ("thresholds", LABELS, "mean_column_auc compares the order of rows, which the rule does not change"),
        ({"class_weights": {"metric": "auc"}}, CLASSES, "auc compares the order of rows"),
        ({"class_weights": {"metric": "rmse"}}, CLASSES, "'rmse' does not score classification"),
        ("cuts", CLASSES, "the classes have no order. Set data.columns.class_order"),
        ("cuts", LABELS, "it is for classification and regression"),
        ({"calibrate": {"how": "plat"}}, LABELS, "Did you mean 'platt'"),
        ("affine", LABELS, "it is for regression, not for multilabel"),
    ],
)
def test_a_wrong_fitted_rule_is_refused(rule, schema, message):
    width = len(schema.outputs)
    values = np.full((8, width), 1 / width, np.float32)
    targets = np.arange(8) % width if schema.base.are_classes else np.tile([[0.0], [1.0]], (4, width))
    first = {"multilabel": "mean_column_auc", "classification": "accuracy", "regression": "rmse"}[schema.kind]
    with pytest.raises(InputError, match=message):
        fitted(rule, given(schema, values, targets, first))


def test_every_fitted_rule_bears_rows_that_say_nothing():
    """One row, equal predictions, one class only: no rule fails or makes a prediction that is none."""
    for rule, schema, first in [
        *((rule.name, LABELS, Known()) for rule in FITTED if "multilabel" in rule.kinds),
        *((rule.name, PAIR, "log_loss") for rule in FITTED if "classification" in rule.kinds and rule.name != "cuts"),
        *((rule.name, GRADES, "quadratic_kappa") for rule in FITTED if "regression" in rule.kinds),
    ]:
        for count in (1, 5):
            width = len(schema.outputs)
            values = np.full((count, width), 1 / width, np.float32)
            targets = np.zeros(count, int) if schema.base.are_classes else np.zeros((count, width))
            _, changed = fitted({rule: {"min_positives": 0}} if rule == "calibrate" else rule,
                                given(schema, values, targets, first))  # fmt: skip
            assert np.isfinite(changed).all(), rule
