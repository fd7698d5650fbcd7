"""The least expected cost: against a loop over all answers, with answers that are no class, and from files."""

import json

import numpy as np
import pandas as pd
import pytest

from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.inference.rules.expected_cost import completed, read_costs
from swinft.inference.rules.named import rules_of
from swinft.inference.rules.rule import after_rules, apply_rules, check_rules
from swinft.model.metrics.taxonomy import HierarchicalDistance
from swinft.model.scoring import score

# Two species of a genus, one of another, and an order that is a class itself.
PATHS = {
    "a1": ["animals", "A", "a1"],
    "a2": ["animals", "A", "a2"],
    "b1": ["animals", "B", "b1"],
    "animals": ["animals"],
}
CLASSES = Schema("classification", list(PATHS))
METRIC = HierarchicalDistance(PATHS)


def decided(schema: Schema, values: np.ndarray, rule: object) -> Predictions:
    rules, ids = rules_of([rule]), [str(row) for row in range(len(values))]
    check_rules(rules, schema)
    found = Predictions(ids, values, schema.outputs)
    return apply_rules(rules, found, pd.DataFrame(index=ids), schema)[0]


def test_the_answer_is_the_one_of_the_least_mean_distance():
    values = np.random.default_rng(0).dirichlet(np.full(4, 0.5), 200).astype(np.float32)
    found = decided(CLASSES, values, {"expected_cost": {"taxonomy": PATHS}})
    assert found.outputs == [*PATHS, "A", "B"]
    assert (found.values.sum(1) == 1).all()
    for row, chosen in zip(values.astype(float), found.values.argmax(1), strict=True):
        costs = [sum(p * METRIC.distance(answer, name) for p, name in zip(row, PATHS, strict=True))
                 for answer in found.outputs]  # fmt: skip
        assert costs[chosen] == pytest.approx(min(costs))
    assert {"A"} & {found.outputs[k] for k in found.values.argmax(1)}
    of_classes = decided(CLASSES, values, {"expected_cost": {"taxonomy": PATHS, "inner": False}})
    assert of_classes.outputs == list(PATHS)


def test_the_metric_scores_answers_that_are_no_class():
    numbers = np.random.default_rng(1)
    values = numbers.dirichlet(np.full(4, 0.7), 500)
    targets = np.array([numbers.choice(4, p=row) for row in values])
    found = decided(CLASSES, values.astype(np.float32), {"expected_cost": {"taxonomy": PATHS}})

    def distance(values: np.ndarray, outputs: list[str]) -> float:
        return score([METRIC], "classification", values, targets, outputs=outputs)["hierarchical_distance"]

    assert distance(found.values, found.outputs) < distance(values, CLASSES.outputs) - 0.05
    words = [found.outputs[k] for k in found.values.argmax(1)]
    wanted = [METRIC.distance(word, CLASSES.outputs[k]) for word, k in zip(words, targets, strict=True)]
    assert distance(found.values, found.outputs) == pytest.approx(np.mean(wanted))


PAIR = Schema("classification", ["cat", "dog"], prior=[0.5, 0.5])
COSTS = {"cat": {"cat": 0, "dog": 10}, "dog": {"cat": 1, "dog": 0}, "ask": {"dog": 0.5, "cat": 0.5}}


def test_costs_decide_and_the_first_of_equal_answers_wins():
    values = np.float32([[0.98, 0.02], [0.9, 0.1], [0.5, 0.5], [0.0, 1.0]])
    found = decided(PAIR, values, {"expected_cost": {"costs": COSTS}})
    assert [found.outputs[k] for k in found.values.argmax(1)] == ["cat", "ask", "dog", "dog"]
    extended = after_rules(rules_of([{"expected_cost": {"costs": COSTS}}]), PAIR)
    assert (extended.outputs, extended.prior) == (["cat", "dog", "ask"], [0.5, 0.5, 0.0])


def test_a_config_says_what_its_files_say(tmp_path):
    (tmp_path / "costs.csv").write_text("answer,cat,dog\ncat,0,10\ndog,1,0\nask,0.5,0.5\n")
    (tmp_path / "taxa.csv").write_text("name,kingdom,genus,species\na1,animals,A,a1\nb1,animals,B,b1\n")
    (tmp_path / "taxa.json").write_text(json.dumps(PATHS))
    assert read_costs(tmp_path / "costs.csv") == COSTS
    for given, wanted in (
        ({"costs": "costs.csv"}, {"costs": COSTS}),
        ({"taxonomy": "taxa.json", "inner": False}, {"taxonomy": PATHS, "inner": False}),
        ({"taxonomy": "taxa.csv"}, {"taxonomy": {"a1": ["animals", "A", "a1"], "b1": ["animals", "B", "b1"]}}),
        ({"taxonomy": PATHS}, {"taxonomy": PATHS}),
    ):
        assert completed({"expected_cost": given}, tmp_path) == {"expected_cost": wanted}
    for other in ("normalize", {"clip": {"min": 0}}, {"class_path": "own.Rule"}):
        assert completed(other, tmp_path) is other
    (rule,) = rules_of([completed({"expected_cost": {"taxonomy": "taxa.json"}}, tmp_path)])
    assert str(rule) == "expected_cost(taxonomy of 6 names)"
    for text, message in (
        ("answer,cat,dog\ncat,0\n", "a line for each answer, as long"),
        ("answer,cat\ncat,x\n", "could not convert"),
        ("answer,cat\ncat,1\ncat,2\n", "the answer 'cat' is there twice"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            read_costs(tmp_path / "bad.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_costs(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give costs or taxonomy, and not both"),
        ({"costs": COSTS, "taxonomy": PATHS}, "give costs or taxonomy, and not both"),
        ({"costs": {"cat": {"cat": 0}}}, "the costs of 'cat' lack the class dog"),
        ({"costs": {"cat": {"cat": 0, "dog": "1"}}}, "the cost of 'cat' for 'dog' is '1'. Give a number"),
        ({"costs": {"cat": 3}}, "Give the cost of each answer for each class"),
        ({"taxonomy": PATHS}, "the taxonomy does not have cat, dog"),
        ({"taxonomy": {"cat": ["animals"]}}, "the path of 'cat' ends with 'animals'"),
        ({"taxonomy": PATHS, "inner": 1}, "inner is 1. Give true or false"),
    ],
)
def test_wrong_costs_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        decided(PAIR, np.full((1, 2), 0.5, np.float32), {"expected_cost": arguments})


def test_an_output_that_is_there_is_not_added():
    with pytest.raises(InputError, match=r"rule 2, .*it adds 'ask', which is already an output"):
        after_rules(rules_of([{"expected_cost": {"costs": COSTS}}, Adding()]), PAIR)


class Adding(type(rules_of(["normalize"])[0])):  # type: ignore[misc]
    """A rule that adds an output."""

    name = "own.Adding"
    added = ("ask",)
