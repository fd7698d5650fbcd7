"""Rules: each does what its name says, and what is wrong with one is an error that names it."""

import numpy as np
import pandas as pd
import pytest

from swinft import Rule
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.inference.rules.named import BUILTIN, rules_of
from swinft.inference.rules.rule import apply_rules, check_rules, try_rules

NUMBERS = Schema("regression", ["green", "dead", "total"])
CLASSES = Schema("classification", ["a", "b"])
LABELS = Schema("multilabel", ["any", "left", "right"])
ROWS = pd.DataFrame({"patient": ["p", "q", "p", "", ""]}, index=list("ijklm"))


def changed(schema: Schema, values: list[list[float]], *rules: object, fold=None, status=None) -> np.ndarray:
    """Predictions of the first rows, changed by rules."""
    checked, number = rules_of(rules), len(values)
    check_rules(checked, schema)
    found = Predictions(ROWS.index[:number].tolist(), np.array(values, np.float32), schema.outputs, fold, status)
    after, _ = apply_rules(checked, found, ROWS[:number], schema)
    assert (after.ids, after.outputs) == (found.ids, found.outputs)
    return after.values


SUM = {"total": "total", "of": ["green", "dead"]}
EACH = [
    ("total", NUMBERS, [1, 2, 9], {"sum": SUM}, [1, 2, 3]),
    ("parts", NUMBERS, [1, 2, 9], {"sum": {**SUM, "how": "parts"}}, [3, 6, 9]),
    ("parts of nothing", NUMBERS, [0, 0, 9], {"sum": {**SUM, "how": "parts"}}, [4.5, 4.5, 9]),
    ("parts below 0", NUMBERS, [-1, 2, 9], {"sum": {**SUM, "how": "parts"}}, [3, 6, 9]),
    ("project", NUMBERS, [1, 2, 9], {"sum": {**SUM, "how": "project"}}, [3, 4, 7]),
    ("clip", NUMBERS, [-1, 5, 9], {"clip": {"min": 0, "max": 4, "of": ["green", "dead"]}}, [0, 4, 9]),
    ("power of classes", CLASSES, [0.8, 0.2], {"power": {"exponent": 2}}, [0.64 / 0.68, 0.04 / 0.68]),
    ("huge power", CLASSES, [0.6, 0.4], {"power": {"exponent": 5000}}, [1, 0]),
    ("power of labels", LABELS, [0.5, 0.8, 0.2], {"power": {"exponent": 2, "of": ["left"]}}, [0.5, 0.64, 0.2]),
    ("normalize", NUMBERS, [1, 3, 5], {"normalize": {"without": ["total"]}}, [0.25, 0.75, 5]),
    ("exclusive", LABELS, [0.9, 0.9, 0.3], {"exclusive": {"of": ["left", "right"]}}, [0.9, 0.75, 0.25]),
    ("exclusive below 1", LABELS, [0.9, 0.5, 0.3], {"exclusive": {"of": ["left", "right"]}}, [0.9, 0.5, 0.3]),
    ("any", LABELS, [0.1, 0.5, 0.4], {"any": {"label": "any"}}, [0.5, 0.5, 0.4]),
    ("independent", LABELS, [0.1, 0.5, 0.4], {"any": {"label": "any", "how": "independent"}}, [0.7, 0.5, 0.4]),
    (
        "costs",
        CLASSES,
        [0.8, 0.2],
        {"expected_cost": {"costs": {"a": {"a": 0, "b": 9}, "b": {"a": 1, "b": 0}}}},
        [0, 1],
    ),
    ("alone", LABELS, [0.9, 0.8, 0.3], {"alone": {"of": ["any"]}}, [0.9, 0.5, 0.3]),
    ("not alone", LABELS, [0.7, 0.8, 0.6], {"alone": {"of": ["any"]}}, [0.5, 0.8, 0.6]),
    ("lower", LABELS, [0.2, 0.5, 0.4], {"hierarchy": {"parents": {"right": "left", "left": "any"}}}, [0.2] * 3),
    (
        "raise",
        LABELS,
        [0.2, 0.3, 0.4],
        {"hierarchy": {"parents": {"left": "any", "right": "left"}, "how": "raise"}},
        [0.4] * 3,
    ),
]


@pytest.mark.parametrize(("schema", "before", "rule", "after"), [each[1:] for each in EACH], ids=[e[0] for e in EACH])
def test_each_rule(schema, before, rule, after):
    assert changed(schema, [before], rule)[0] == pytest.approx(after, abs=1e-6)


def test_every_built_in_rule_is_tried_here():
    assert {next(iter(each[3])) for each in EACH} | {"group"} == {rule.name for rule in BUILTIN}


def test_project_is_the_smallest_change():
    before = np.array([1.0, 2.0, 9.0])
    found = changed(NUMBERS, [before.tolist()], {"sum": {**SUM, "how": "project"}})[0]
    for other in np.random.default_rng(0).normal(found, 1, (200, 3)):
        other[2] = other[0] + other[1]
        assert ((found - before) ** 2).sum() <= ((other - before) ** 2).sum() + 1e-6


VALUES = [[0.1, 0.9], [0.5, 0.5], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]]  # the last two have no patient


@pytest.mark.parametrize(("how", "first"), [("max", 0.7), ("mean", 0.4), ("median", 0.4), ("min", 0.1)])
def test_group_joins_rows_of_one_name_and_leaves_those_without_one(how, first):
    found = changed(CLASSES, VALUES, {"group": {"by": "patient", "how": how, "of": ["a"]}})
    assert found[:, 0] == pytest.approx([first, 0.5, first, 0.2, 0.6])
    assert found[:, 1] == pytest.approx([0.9, 0.5, 0.3, 0.8, 0.4])


def test_group_exclusive_lets_one_row_be_positive():
    found = changed(CLASSES, VALUES, {"group": {"by": "patient", "how": "exclusive"}})
    assert found == pytest.approx(np.array([[0.1, 0.75], [0.5, 0.5], [0.7, 0.25], [0.2, 0.8], [0.6, 0.4]]), abs=1e-6)


def test_out_of_fold_rows_are_joined_with_those_of_their_own_fold_only():
    rule = {"group": {"by": "patient", "how": "max", "of": ["a"]}}
    assert changed(CLASSES, VALUES, rule, fold=np.array([0, 0, 1, 1, 1]))[:, 0] == pytest.approx(
        [0.1, 0.5, 0.7, 0.2, 0.6]
    )
    assert changed(CLASSES, VALUES, rule, fold=np.array([0, 1, 0, 1, 1]))[:, 0] == pytest.approx(
        [0.7, 0.5, 0.7, 0.2, 0.6]
    )


def test_a_row_without_its_own_prediction_gets_that_of_its_group_and_does_not_change_it():
    rule = {"group": {"by": "patient", "how": "max", "of": ["a"]}}
    found = changed(CLASSES, VALUES, rule, status=["ok", "ok", "bad image", "ok", "ok"])
    assert found[:, 0] == pytest.approx([0.1, 0.5, 0.1, 0.2, 0.6])


def test_rules_act_in_their_order():
    clip = {"clip": {"min": 0}}
    assert changed(NUMBERS, [[-1, 2, 9]], clip, {"sum": SUM})[0].tolist() == [0, 2, 2]
    assert changed(NUMBERS, [[-3, 2, 9]], {"sum": SUM}, clip)[0].tolist() == [0, 2, 0]


WRONG = [
    ([{"sum": {"total": "total", "of": ["gren"]}}], NUMBERS, r"rule 1, sum.*no output 'gren'. Did you mean 'green'"),
    (["normalize", {"clip": {"mim": 0}}], NUMBERS, "rule 2: clip has no 'mim'. Did you mean 'min'"),
    ([{"klip": {"min": 0}}], NUMBERS, "rule 1: 'klip' is not a rule. Did you mean 'clip'"),
    ([{"clip": None, "min": 0}], NUMBERS, "names clip, min: write one rule per entry"),
    (["clip"], NUMBERS, "give the lowest value"),
    (["sum"], NUMBERS, "sum needs total and of"),
    ([{"clip": {"min": "0"}}], NUMBERS, "min is '0'. Give a number"),
    ([{"clip": {"min": float("nan")}}], NUMBERS, "min is nan. Allowed"),
    ([{"clip": 3}], NUMBERS, "clip is given 3; its arguments are min, max, of"),
    ([{"power": {"exponent": 0}}], CLASSES, "exponent is 0. Allowed: a number above 0"),
    ([{"power": {"exponent": 2}}], NUMBERS, "it is for classification and multilabel, not for regression"),
    ([{"group": {"by": "patient", "how": "exclusive"}}], NUMBERS, "is for probabilities"),
    ([{"group": {"by": "patient", "how": "most"}}], NUMBERS, "how is 'most'"),
    ([{"hierarchy": {"parents": {"left": "any", "any": "left"}}}], LABELS, "no label is its own parent"),
    ([{"hierarchy": {"parents": {1: "any"}}}], LABELS, "parents contains 1, which is not text"),
    ([{"exclusive": {"of": ["left"]}}], LABELS, "Name two labels or more"),
    ([{"normalize": {"without": ["a", "b"]}}], CLASSES, "no output is left"),
]


@pytest.mark.parametrize(("rules", "schema", "message"), WRONG, ids=[each[2][:30] for each in WRONG])
def test_a_wrong_rule_is_refused_with_its_number(rules, schema, message):
    with pytest.raises(InputError, match=message):
        changed(schema, [[0.5] * len(schema.outputs)], *rules)


class Own(Rule):
    """Returns what a function does."""

    columns = ("patient",)

    def __init__(self, function) -> None:
        self.function = function

    def apply(self, values, rows):
        return self.function(values, rows)


BAD = [
    (lambda v, r: v * np.nan, r"4 values are NaN or infinite after it, as nan for output 'a' of id 'i', which was 0.1"),
    (lambda v, r: v + (v == v.max()), r"1 value is outside 0–1 after it, as 1.9 for output 'b' of id 'i'"),
    (lambda v, r: np.divide(v, 0, out=v), r"4 values are NaN or infinite after it, as inf .* which was 0.1"),
    (lambda v, r: v[:1], r"returns an array \(1, 2\) of float64 for predictions \(2, 2\)"),
    (lambda v, r: v.tolist(), "returns a list"),
    (lambda v, r: v > 0, "returns an array .* of bool"),
    (lambda v, r: v[5], "fails for 2 rows: IndexError"),
    (lambda v, r: r["other"], "fails for 2 rows: KeyError: 'other'"),
]


@pytest.mark.parametrize(("function", "message"), BAD)
def test_a_rule_that_returns_something_else_is_refused(function, message):
    with pytest.raises(InputError, match="submission.rules: rule 2, .*Own.*" + message):
        changed(CLASSES, VALUES[:2], {"clip": {"min": 0}}, Own(function))


def test_a_rule_may_change_its_copies_and_reads_the_rows_of_its_ids():
    def spoil(values, rows):
        assert rows.index.tolist() == ["i", "j"]
        assert rows.columns.tolist() == ["patient"]
        values[:], rows["patient"] = 0, ""
        return values

    found = changed(CLASSES, VALUES[:2], Own(spoil), Own(lambda v, r: v + (r["patient"] != "").to_numpy()[:, None]))
    assert found.tolist() == [[1, 1], [1, 1]]


def test_a_rule_that_is_not_deterministic_is_found_before_training():
    numbers = np.random.default_rng(0)
    rules = [Own(lambda v, r: v), Own(lambda v, r: v * numbers.uniform())]
    with pytest.raises(InputError, match=r"rule 2, .* returns other values when it is called again"):
        try_rules(rules, np.zeros(5, np.int64), ROWS, CLASSES)


def test_predictions_that_are_not_finite_are_not_blamed_on_a_rule():
    with pytest.raises(InputError, match="a prediction is NaN or infinite"):
        changed(NUMBERS, [[np.nan, 0, 0]], {"clip": {"min": 0}})
