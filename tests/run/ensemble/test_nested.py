"""Nested scores: what was fitted never saw the rows that it is scored on, and optimism is seen for what it is."""

import json
import math

import numpy as np
import pytest

from swinft.data.target.kinds import TARGETS
from swinft.errors import InputError
from swinft.model.scoring import chosen_metrics, score
from swinft.run.ensemble.boosting import Boosting
from swinft.run.ensemble.compare import compare, methods_to_try
from swinft.run.ensemble.engines import ENGINES
from swinft.run.ensemble.fits import mean_rank
from swinft.run.ensemble.methods import METHODS
from swinft.run.ensemble.nested import (
    Problem,
    correlations,
    differences,
    evaluate,
    member_candidates,
    nested_values,
    resampled_gains,
)
from swinft.run.ensemble.pairs import every_pair, pair_rows
from swinft.run.ensemble.recipe import Recipe
from swinft.run.ensemble.suspects import mean_errors, warnings_of
from swinft.run.ensemble.table import notes, table_lines

FITTED = [name for name, method in METHODS.items() if method.is_fitted and name != "gbdt"]
SEARCHES = ("hill", "nelder-mead")  # which score thousands of times
SLOW = ("nelder-mead", "hill-per-output", "nelder-mead-per-output")


def problem(kind: str, metric: str, members: np.ndarray, targets: np.ndarray, **changes: object) -> Problem:
    names = [f"m{number}" for number in range(len(members))]
    folds = np.arange(members.shape[1]) % 4
    dense = np.eye(members.shape[2])[targets] if targets.ndim == 1 else targets
    given = {"weights": np.ones(len(folds)), "target": TARGETS[kind]}
    given |= {"higher_is_better": metric != "rmse" and metric != "log_loss", "compares_order": "auc" in metric}
    chosen = chosen_metrics([metric], kind)
    scored = lambda values, rows: score(chosen, kind, values, targets[rows])[metric]  # noqa: E731
    return Problem(names, members, dense, folds, score=scored, **{**given, **changes})


def of_numbers(rows: int = 80, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    truth = rng.normal(50, 9, (rows, 1))
    return problem("regression", "rmse", truth + rng.normal(0, [[[3.0]], [[4.0]], [[5.0]]], (3, rows, 1)), truth)


def of_labels(rows: int = 80, seed: int = 0, members: int = 3) -> Problem:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (rows, 2)).astype(float)
    odds = 2 * truth - 1 + rng.normal(0, 1.5, (members, rows, 2))
    return problem("multilabel", "mean_column_auc", 1 / (1 + np.exp(-odds)), truth)


def of_noise() -> Problem:
    """Twenty members that know nothing, on few rows."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, (40, 1)).astype(float)
    return problem("multilabel", "mean_column_auc", rng.random((20, 40, 1)), truth)


@pytest.mark.parametrize("name", ["nnls", *(pytest.param(name, marks=pytest.mark.slow) for name in SEARCHES)])
def test_twenty_members_of_noise_look_good_in_sample_and_are_not(name):
    """The planted optimism: fitted weights beat the best of them where they were fitted, and nowhere else."""
    planted = of_noise()
    best = max(each.gain for each in member_candidates(planted))
    found = evaluate(planted, METHODS[name])
    assert found.in_sample > best
    assert found.gain < best
    assert found.in_sample - found.gain > 0.2


def test_the_printed_table_tells_noise_from_gain():
    planted = of_noise()
    found = compare(
        planted, Recipe("e", ["x"], method="nnls", bootstrap=50, leave_one_out=False), "mean_column_auc"
    ).table
    (fitted,) = [each for each in found["methods"] if each["name"] == "nnls"]
    assert fitted["optimism"] > 0.2
    assert fitted["gain"] < 0
    assert fitted["interval"][1] < 0.1


@pytest.mark.parametrize("made", [of_numbers, of_labels])
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FITTED])
def test_no_row_is_predicted_by_what_was_fitted_on_it(name, made):
    """Other targets of a fold change the predictions of other folds, and none of its own."""
    before = made()
    if before.refusal(METHODS[name]):
        pytest.skip(before.refusal(METHODS[name]))
    inside = before.folds == 2
    targets = before.targets.copy()
    targets[inside] = targets[inside][::-1] if made is of_numbers else 1 - targets[inside]
    metric = "rmse" if made is of_numbers else "mean_column_auc"
    kind = "regression" if made is of_numbers else "multilabel"
    after = problem(kind, metric, before.members, targets)
    first, second = (nested_values(each, METHODS[name]) for each in (before, after))
    assert np.array_equal(first[inside], second[inside])
    if name != "power":  # its exponent is one of a few
        assert not np.array_equal(first[~inside], second[~inside])


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FITTED])
def test_what_was_learned_is_applied_to_rows_of_any_number_and_order(name):
    made = of_labels()
    method = METHODS[name]
    if name == "logistic" or not made.refusal(method):
        fitted = method.fit(made.rows(np.arange(80)))
        whole = method.apply(fitted, made.members, None)
        assert np.allclose(method.apply(fitted, made.members[:, ::-1], None), whole[::-1])
        assert np.allclose(method.apply(fitted, made.members[:, :1], None), whole[:1])


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in METHODS])
def test_probabilities_stay_probabilities(name):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    odds = np.exp(np.eye(3)[truth] + rng.normal(0, 2, (2, 60, 3)))
    made = problem("classification", "log_loss", odds / odds.sum(-1, keepdims=True), truth)
    if reason := made.refusal(METHODS[name]):
        pytest.skip(reason)
    values = evaluate(made, METHODS[name]).values
    assert values.min() >= 0
    assert np.allclose(values.sum(1), 1, atol=1e-6)


def test_the_valid_predictions_of_each_kind():
    given = np.array([[-0.5, 0.5, 1.5], [-1.0, 0.0, 0.0]])
    assert TARGETS["classification"].valid(given).tolist() == [[0, 1 / 3, 2 / 3], [1 / 3, 1 / 3, 1 / 3]]
    assert TARGETS["multilabel"].valid(given).tolist() == [[0, 0.5, 1], [0, 0, 0]]
    assert TARGETS["regression"].valid(given) is given


def test_methods_that_make_no_sense_are_refused():
    numbers, labels = of_numbers(), of_labels()
    assert "ranks are none" in numbers.refusal(METHODS["rank"])
    assert "no probabilities" in numbers.refusal(METHODS["logistic"])
    assert labels.refusal(METHODS["rank"]) == ""
    below = problem("regression", "rmse", numbers.members - 60, numbers.targets - 60)
    assert "negative" in below.refusal(METHODS["geometric"])
    assert "negative" in below.refusal(METHODS["power"])
    one = of_labels(members=1)
    assert "at least 2" in one.refusal(METHODS["mean"])
    assert one.refusal(METHODS["ridge"]) == ""
    alone = problem("multilabel", "mean_column_auc", labels.members, labels.targets)
    object.__setattr__(alone, "folds", np.zeros(80, dtype=np.int64))
    tried, refused = methods_to_try(alone, Recipe("e", ["x"]))
    assert [method.name for method in tried] == ["mean", "geometric", "rank"]
    assert "one fold alone" in refused["hill"]
    with pytest.raises(InputError, match="--method hill: one fold alone is scored"):
        methods_to_try(alone, Recipe("e", ["x"], method="hill"))


def test_ranks_are_said_to_leave_the_unit():
    made = of_labels()
    found = compare(made, Recipe("e", ["x"], method="rank", bootstrap=0, leave_one_out=False), "mean_column_auc")
    assert np.allclose(found.chosen.values, mean_rank(made.members), atol=1e-6)
    assert any("rank predicts ranks in 0–1, not probabilities" in line for line in notes(found.table))
    plain = compare(made, Recipe("e", ["x"], method="mean", bootstrap=0, leave_one_out=False), "mean_column_auc")
    assert not any("ranks" in line for line in notes(plain.table))


def test_auto_takes_the_best_nested_score_and_the_simplest_of_a_tie():
    made = of_numbers()
    found = compare(made, Recipe("e", ["x"], bootstrap=0, leave_one_out=False), "rmse")
    scores = [each["score"] for each in found.table["methods"]]
    assert scores == sorted(scores)
    assert found.table["method"] == found.table["methods"][0]["name"] == found.chosen.name
    labels = of_labels()
    object.__setattr__(labels, "score", lambda values, rows: 0.5)
    assert compare(labels, Recipe("e", ["x"], bootstrap=0, leave_one_out=False), "auc").chosen.name == "mean"


@pytest.mark.parametrize("engine", ENGINES)
def test_boosted_trees_are_nested_and_see_the_metadata(engine, monkeypatch):
    monkeypatch.setattr("swinft.run.ensemble.engines.ROUNDS", 40)
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    method, made = Boosting(engine), of_numbers(200)
    noise = np.random.default_rng(1).normal(0, 5, (200, 1))
    hidden = problem("regression", "rmse", made.members, made.targets + noise)
    seen = problem("regression", "rmse", made.members, made.targets + noise, features=noise)
    blind, helped = (evaluate(each, method) for each in (hidden, seen))
    assert helped.gain > blind.gain + 0.5  # the noise of the target is in the metadata
    assert blind.in_sample > blind.gain + 0.2
    fitted = json.loads(json.dumps(helped.fitted))
    again = METHODS["gbdt"].apply(fitted, seen.members[:, :5], noise[:5])  # by the engine that is stored
    assert np.array_equal(again, method.apply(fitted, seen.members, noise)[:5])
    assert method.fit(seen.rows(np.arange(200))) == helped.fitted  # the same text each time
    assert fitted["engine"] == engine
    with pytest.raises(InputError, match="metadata columns have changed"):
        method.apply(fitted, seen.members, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_boosted_trees_count_weights_and_leave_out_missing_labels(engine, monkeypatch):
    monkeypatch.setattr("swinft.run.ensemble.engines.ROUNDS", 40)
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    method, made = Boosting(engine), of_labels(160)
    targets, half, some = made.targets, np.arange(160) < 80, made.members[:, :80]
    gaps = np.where(half[:, None], targets, np.nan)
    weighted = problem("multilabel", "mean_column_auc", made.members, targets, weights=half.astype(float))
    trees = [
        method.fit(each.rows(np.arange(each.members.shape[1])))["trees"]
        for each in (
            problem("multilabel", "mean_column_auc", some, targets[:80]),
            problem("multilabel", "mean_column_auc", made.members, gaps),
            weighted,
            made,
        )
    ]
    assert trees[0] == trees[1] == trees[2] != trees[3]
    heavy = problem("multilabel", "mean_column_auc", made.members, targets, weights=np.where(half, 3.0, 1.0))
    assert method.fit(heavy.rows(np.arange(160)))["trees"] != trees[3]
    values = method.apply(method.fit(made.rows(np.arange(160))), made.members, None)
    assert 0 < values.min() < values.max() < 1
    assert ((values > 0.5) == targets).mean() > 0.8
    constant = problem("multilabel", "mean_column_auc", made.members, np.zeros((160, 2)))
    assert method.fit(constant.rows(np.arange(160)))["trees"] == [0.0, 0.0]


def test_trees_of_before_there_were_several_engines_are_those_of_lightgbm():
    pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    made = of_numbers(60)
    fitted = METHODS["gbdt"].fit(made.rows(np.arange(60)))
    old = {key: fitted[key] for key in ("trees", "features")}
    both = [METHODS["gbdt"].apply(each, made.members, None) for each in (fitted, old)]
    assert np.array_equal(*both)


def test_an_engine_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("swinft.run.ensemble.boosting.is_installed", lambda engine: engine != "catboost")
    with pytest.raises(InputError, match=r"it needs catboost: pip install 'swinft\[catboost\]'"):
        methods_to_try(of_numbers(), Recipe("e", ["x"], method="gbdt", engine="catboost"))
    tried, refused = methods_to_try(of_numbers(), Recipe("e", ["x"], method="all", engine="catboost"))
    assert "gbdt" in refused
    assert "hill" in [each.name for each in tried]
    with pytest.raises(InputError, match="engine xgboost is for method gbdt, and the method is auto"):
        Recipe("e", ["x"], engine="xgboost")


def test_leave_one_out_is_the_score_without_the_member():
    made = of_numbers()
    found = compare(made, Recipe("e", ["x"], method="nnls", bootstrap=0), "rmse")
    for number, member in enumerate(found.table["members"]):
        rest = evaluate(made.without(number), METHODS["nnls"])
        assert member["adds"] == pytest.approx(found.chosen.gain - rest.gain)
    assert found.table["members"][0]["adds"] > found.table["members"][2]["adds"]


@pytest.mark.parametrize("name", ["hill", "nelder-mead"])
def test_a_search_is_fitted_on_some_rows_to_see_what_a_member_adds(name, monkeypatch):
    monkeypatch.setattr("swinft.run.ensemble.nested.FEW_ROWS", 40)
    monkeypatch.setattr("swinft.run.ensemble.compare.FEW_ROWS", 40)
    made, fitted_on = of_numbers(400), []
    rows_of = type(made).rows
    monkeypatch.setattr(Problem, "rows", lambda self, numbers: fitted_on.append(numbers) or rows_of(self, numbers))
    found = compare(made, Recipe("e", ["x"], method=name, bootstrap=0), "rmse").table
    parts = [numbers for numbers in fitted_on if len(numbers) == 40]
    assert len(parts) == 4 * (1 + len(made.names))  # each fold, with all members and without one
    for fold in range(4):
        for numbers in parts[fold::4]:
            np.testing.assert_array_equal(numbers, parts[fold])
            assert not (made.folds[numbers] == fold).any()
    adds = [each["adds"] for each in found["members"]]
    assert adds[0] == max(adds) > 0
    assert found["adds_fitted_on"] == 40
    assert "fitted on 40 rows outside of each fold and scored on all" in "\n".join(table_lines(found))
    exact = compare(made, Recipe("e", ["x"], method="nnls", bootstrap=0), "rmse").table
    assert exact["adds_fitted_on"] is None


def test_all_rows_are_fitted_on_where_the_metric_is_undefined_for_some(monkeypatch):
    monkeypatch.setattr("swinft.run.ensemble.nested.FEW_ROWS", 5)
    truth = np.zeros((400, 1))
    truth[:8] = 1  # two positive rows of each fold: 5 drawn ones have mostly none
    members = np.random.default_rng(0).random((3, 400, 1)) / 2 + truth / 3
    found = compare(
        problem("multilabel", "mean_column_auc", members, truth), Recipe("e", ["x"], method="hill", bootstrap=0), "auc"
    )
    assert np.isfinite([each["adds"] for each in found.table["members"]]).all()


def test_a_difference_is_paired_and_groups_are_drawn_whole():
    made = of_numbers(400)
    first, *_ = member_candidates(made)
    worse = member_candidates(problem("regression", "rmse", made.members[:1] + 0.05, made.targets))[0]
    ((low, high), none) = differences(made, [worse, first], first, 300, 1)
    assert none is None
    alone = np.std(
        [made.gain(made.members[0][rows], rows) for rows in np.random.default_rng(0).integers(400, size=(300, 400))]
    )
    assert high - low < alone  # the rows are the same: their noise falls away
    assert differences(made, [worse], first, 300, 1) == [(low, high)]
    assert differences(made, [worse], first, 0, 1) == [None]
    groups = np.arange(400) // 100
    grouped = problem("regression", "rmse", made.members, made.targets, groups=groups)
    drawn: list[np.ndarray] = []
    watched = problem("regression", "rmse", made.members, made.targets, groups=groups)
    object.__setattr__(watched, "score", lambda values, rows: drawn.append(rows) or grouped.score(values, rows))
    differences(watched, [worse], first, 5, 1)
    assert len(drawn) == 10
    for rows in drawn:
        counts = np.bincount(rows, minlength=400).reshape(4, 100)
        assert (counts == counts[:, :1]).all()


def test_every_two_methods_and_members_are_compared_on_the_same_resamples():
    made = of_numbers(200)
    found = compare(made, Recipe("e", ["x"], method="nnls", bootstrap=60, leave_one_out=False), "rmse").table
    names = {(pair["first"], pair["second"]) for pair in found["differences"]}
    every = [*(each["name"] for each in found["methods"]), "m0", "m1", "m2"]
    assert len(names) == len(found["differences"]) == len(every) * (len(every) - 1) / 2
    scores = {each["name"]: each["score"] for each in [*found["methods"], *found["members"]]}
    for pair in found["differences"]:
        assert pair["difference"] == pytest.approx(scores[pair["second"]] - scores[pair["first"]])
        assert pair["interval"][0] <= pair["interval"][1]
    alone = next(pair for pair in found["differences"] if (pair["first"], pair["second"]) == ("m0", "m2"))
    members = {each.name: each for each in member_candidates(made)}
    assert alone["interval"] == differences(made, [members["m0"]], members["m2"], 60, 42)[0]
    assert alone["interval"][0] > 0
    assert alone["better"] == 1
    assert alone["first_is_member"]
    lines = [line for line in table_lines(found) if line.startswith(("1 m0", "2 m1", "1 nnls"))]
    assert [line.count("*") for line in lines][1:] == [2, 1]
    gains = np.array([[1.0, 2.0], [np.nan, 2.0], [3.0, 3.0]])
    (pair,) = every_pair([members["m0"], members["m1"]], gains)
    assert pair["better"] == 0.25  # a tie is half, and what is undefined does not count
    (pair,) = every_pair([members["m0"], members["m1"]], np.array([[1.0, 2.0], [3.0, 2.0]]))
    assert [row[1] for row in pair_rows([pair], True)[1:]] == [f"{pair['difference']:+.3g} ", ""]  # from -1 to 1
    (pair,) = every_pair([members["m0"], members["m1"]], np.empty((0, 2)))
    assert pair["interval"] is pair["better"] is None
    object.__setattr__(made, "score", lambda values, rows: math.nan)
    assert np.isnan(resampled_gains(made, list(members.values()), 2, 1)).all()


def test_suspicious_members_are_named():
    made = of_labels(members=4)
    assert warnings_of(made) == []
    truth, flat = made.targets, np.full_like(made.targets, 0.4)
    good = (truth + made.members[0]) / 2
    assert warnings_of(problem("multilabel", "mean_column_auc", np.stack([*made.members, good]), truth)) == []
    leaks = problem("multilabel", "mean_column_auc", np.stack([*made.members, truth]), truth)
    assert "WARNING: m4 predicts the targets with less than a fifth of the error" in warnings_of(leaks)[0]
    near = 0.97 * truth + 0.03 * made.members[0]
    leaks = problem("multilabel", "mean_column_auc", np.stack([*made.members, truth, near]), truth)
    assert "WARNING: m4, m5 predict the targets" in warnings_of(leaks)[0]
    assert "m0 predicts" in warnings_of(problem("multilabel", "mean_column_auc", truth[None], truth))[0]
    twins = problem("multilabel", "mean_column_auc", np.stack([made.members[0], flat, made.members[0]]), truth)
    assert "the same predictions of every row: m0 and m2" in warnings_of(twins)[0]
    assert "the same prediction for every row: m1" in warnings_of(twins)[1]
    read = problem("multilabel", "mean_column_auc", made.members, truth, by_columns=["patient"])
    assert "the metric reads column 'patient'" in warnings_of(read)[0]


def test_errors_of_outputs_of_other_sizes_count_alike():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(0, 1, (50, 2)), rng.normal(0, 1, (2, 50, 2))
    small = problem("regression", "rmse", truth + noise, truth)
    large = problem("regression", "rmse", (truth + noise) * [1, 1000], truth * [1, 1000])
    assert mean_errors(small) == pytest.approx(mean_errors(large))


@pytest.mark.parametrize("members", [1, 40])
def test_one_member_and_forty(members):
    made = of_labels(members=members)
    recipe = Recipe("e", ["x"], method="auto" if members == 1 else "nnls-per-output", bootstrap=3, leave_one_out=False)
    found = compare(made, recipe, "mean_column_auc").table
    names = [each["name"] for each in found["methods"]]
    assert set(names) == ({"ridge", "logistic"} if members == 1 else {"mean", "nnls-per-output"})
    assert ("at least 2 members" in found["refused"].get("mean", "")) == (members == 1)
    lines = table_lines(found)
    assert any("differences of the 10 best members" in line for line in lines) == (members == 40)
    assert max(map(len, lines[: 2 * members])) < 200


def test_several_numbers_and_a_worse_direction_take_every_method():
    """Two target columns of other sizes, some cells missing, weights of rows; lower is better."""
    rng = np.random.default_rng(0)
    truth = rng.normal(50, [9, 900], (120, 2))
    noise = rng.normal(0, 1, (3, 120, 2)) * np.array([[[3, 900]], [[6, 300]], [[4, 600]]])
    gaps = truth.copy()
    gaps[::7, 1] = np.nan
    made = problem("regression", "rmse", truth + noise, gaps, weights=rng.random(120))
    for name in ("mean", "nnls", "nnls-per-output", "ridge"):
        values = evaluate(made, METHODS[name])
        assert np.isfinite(values.values).all()
        assert values.gain > min(made.gain(member) for member in made.members)
    shared, own = (evaluate(made, METHODS[name]) for name in ("nnls", "nnls-per-output"))
    assert own.gain > shared.gain  # each column has another best member
    table = compare(made, Recipe("e", ["x"], method="nnls-per-output", bootstrap=0, leave_one_out=False), "rmse").table
    assert list(table["weights_per_output"]["1"]) == ["m0", "m1", "m2"]
    assert max(table["weights_per_output"]["1"].items(), key=lambda each: each[1])[0] == "m1"
    assert any(line.startswith("weights of 1: m1 0.") for line in notes(table))


def test_correlations_are_those_of_numpy():
    made = of_numbers()
    assert np.allclose(correlations(made.members), np.corrcoef(made.members[:, :, 0]))


def test_an_undefined_metric_never_wins():
    made = of_labels()
    nothing = problem("multilabel", "mean_column_auc", made.members, made.targets)
    object.__setattr__(nothing, "score", lambda values, rows: math.nan)
    with pytest.raises(InputError, match="undefined for the predictions of every member"):
        compare(nothing, Recipe("e", ["x"]), "mean_column_auc")
