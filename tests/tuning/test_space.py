"""The search space: what is written, what is wrong, and which values it has."""

from typing import Any, Literal

import pytest

from swinft.errors import InputError
from swinft.run.config.yaml_text import read_yaml
from swinft.tuning.space import label_of, parse_space

TYPES: dict[str, Any] = {
    "name": str,
    "model": None,
    "model.backbone": str,
    "model.backbone_args": dict[str, Any] | None,
    "model.optim": None,
    "model.optim.lr": float | Literal["auto"],
    "model.optim.name": str,
    "model.optim.weight_decay": float,
    "trainer": None,
    "trainer.max_epochs": int | None,
    "trainer.limit_train_batches": int | float | None,
    "data": None,
    "data.folds": None,
    "data.folds.num": int,
    "data.folds.extra": list[Any] | None,
}


def space(text: str):
    return parse_space(read_yaml(text), TYPES, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.optim.rl: [1e-3]", "unknown key 'model.optim.rl'. Did you mean 'model.optim.lr'?"),
        ("optim.lr: [1e-3]", "Did you mean 'model.optim.lr'?"),
        ("model.optim: [1, 2]", "model.optim is a section: give the keys in it"),
        ("name: [a, b]", "must be the same in every trial"),
        ("data.folds.num: [3, 5]", "must be the same in every trial"),
        ("model.optim.lr: 0.1", "give {low: …, high: …}, with log and step if wanted, or a list"),
        ("model.optim.lr: {low: 0.1}", "give {low: …, high: …}"),
        ("model.optim.lr: {low: 0.1, high: 1, lgo: true}", "has no 'lgo'. Did you mean"),
        ("model.optim.lr: {low: 0.1, high: 0.1}", "low must be lower"),
        ("model.optim.lr: {low: 0, high: 0.1, log: true}", "with log it must be above 0"),
        ("model.optim.lr: {low: 0.1, high: 1, log: 1}", "give true or false"),
        ("model.optim.lr: {low: .nan, high: 1}", "low is nan; give a finite number"),
        ("model.optim.lr: {low: 0.1, high: yes}", "high is True; give a finite number"),
        ("model.optim.lr: {low: 0.1, high: 1, step: 0.2}", "no whole number of steps"),
        ("model.optim.lr: {low: 0.1, high: 1, step: 0.1, log: true}", "without log"),
        ("model.optim.lr: []", "give at least one choice"),
        ("model.optim.lr: [0.1, 0.10]", "the choice 0.1 is given twice"),
        ("trainer.max_epochs: {low: 1.0, high: 5.0}", "takes whole numbers: write 1 to 5 without a decimal point"),
        ("model.backbone_args: [{}]\nmodel.backbone_args.depth: [1, 2]", "is a part of model.backbone_args"),
        ("model: {optim: {lr: [0.1]}}\nmodel.optim.lr: [0.2]", "model.optim.lr is given twice"),
        ("model.optim.lr: {low: 0.1, high: 1, when: {model.optim.name: sgd}}", "which is no parameter with choices"),
        (
            "model.optim.name: [sgd, lion]\nmodel.optim.lr: {low: 0.1, high: 1, when: {model.optim.name: lino}}",
            "model.optim.name has no choice lino. Did you mean 'lion'?",
        ),
        (
            "model.optim.name: {choices: [a, b], when: {model.backbone: c}}\n"
            "model.backbone: {choices: [c, d], when: {model.optim.name: a}}",
            "depend on one another",
        ),
        ("[1]", "give a mapping of config keys"),
        ("{}", "give a mapping of config keys"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(text, message):
    with pytest.raises(InputError) as error:
        space(text)
    assert message in str(error.value)


def test_all_that_is_wrong_is_listed_at_once():
    with pytest.raises(InputError) as error:
        space("model.optim.rl: [1]\nmodel.optim.lr: []\nname: [a]")
    assert len(str(error.value).splitlines()) == 4


def test_numbers_are_whole_where_the_key_takes_whole_numbers_only():
    found = {each.key: each for each in space(
        "model.optim.weight_decay: {low: 0, high: 1}\ntrainer.max_epochs: {low: 1, high: 5}\n"
        "trainer.limit_train_batches: {low: 1, high: 5}\nmodel.backbone_args.depth: {low: 1, high: 3}\n"
        "model.optim.lr: {low: 1e-5, high: 1e-2, log: true}"
    ).parameters}  # fmt: skip
    # 0 to 1 of a key of type float is continuous: only 0 and 1 would be tried otherwise.
    assert found["model.optim.weight_decay"].extremes() == [0.0, 1.0]
    whole = [key for key, each in found.items() if each.is_whole]
    assert whole == ["trainer.max_epochs", "trainer.limit_train_batches", "model.backbone_args.depth"]
    assert found["model.optim.lr"].low == 1e-5  # PyYAML alone reads text


def test_labels_tell_values_apart():
    values = [1, "1", True, "true", None, "null", 1e-5, "1e-5", 0.1, "a", "", "a: b", {"x": 1}, [1]]
    labels = [label_of(value) for value in values]
    assert len(set(labels)) == len(values)
    assert [read_yaml(label) for label in labels] == values


def test_a_parameter_exists_only_beside_the_choices_it_depends_on():
    found = space(
        "model.optim.lr: {low: 0.1, high: 1, when: {model.optim.name: [sgd, lion]}}\nmodel.optim.name: [sgd, lion, adamw]"
    )
    assert [each.key for each in found.parameters] == ["model.optim.name", "model.optim.lr"]

    def active(name):
        return [each.key for each in found.active({"model.optim.name": name})]

    assert active("sgd") == ["model.optim.name", "model.optim.lr"]
    assert active("adamw") == ["model.optim.name"]
    with pytest.raises(InputError, match="remove `when`"):
        found.grid()


def test_a_grid_has_every_value_and_no_continuous_range():
    found = space("trainer.max_epochs: {low: 2, high: 6, step: 2}\nmodel.optim.lr: [0.1, auto]")
    assert found.grid() == {"trainer.max_epochs": [2, 4, 6], "model.optim.lr": ["0.1", "auto"]}
    with pytest.raises(InputError, match="a grid needs a list of choices, or a `step`"):
        space("model.optim.lr: {low: 0.1, high: 1}").grid()


def test_a_space_is_read_again_as_it_was_written():
    text = (
        "model.optim.name: [sgd, adamw]\nmodel.optim.lr: {low: 1e-5, high: 1e-2, log: true, when: {model.optim.name: sgd}}\n"
        "trainer.max_epochs: {low: 2, high: 6, step: 2}\ndata.folds.extra: [null, [{table: a.csv}]]\n"
        "model.optim.weight_decay: {low: 0.0, high: 1.0, when: {model.backbone: [1.5, 'null', '1']}}\n"
        "model.backbone: [1.5, 'null', '1', 1]"
    )
    assert parse_space(space(text).described(), TYPES, {}) == space(text)
