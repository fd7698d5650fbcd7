"""docs/defaults.md shows the rules of swinft/model/training/defaults.py, and these are what signatures say.

`python -m tests.repository.test_default_rules` writes the tables of docs/defaults.md again.
"""

import re

import pytest

from swinft.model.training.defaults import FIXED, RATES, Rule, Training, rates_of
from swinft.run.config.fit_options import fit_parser
from swinft.run.config.sections import load
from tests.conftest import ROOT, write_config

PAGE = ROOT / "docs" / "defaults.md"


def words(rule: Rule) -> str:
    names = {True: "with batch normalisation", False: "without batch normalisation", None: ""}
    weights = {True: "pretrained", False: "random weights", None: ""}
    return ", ".join(filter(None, [names[rule.has_batch_norm], weights[rule.is_pretrained]])) or "all"


def shown(value: object) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def tables() -> str:
    lines = []
    for title, rules in (("Values of `auto`", RATES), ("The same for every training", FIXED)):
        lines += [f"## {title}", "| default | for | why |", "| --- | --- | --- |"]
        for rule in rules:
            values = "<br>".join(f"`{key}: {shown(value)}`" for key, value in rule.values.items())
            lines.append(f"| {values} | {words(rule)} | {rule.why} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def with_tables(text: str) -> str:
    start = text.index("## Values of `auto`")
    end = text.index("## What was measured")
    return text[:start] + tables() + text[end:]


def test_the_page_shows_the_rules():
    assert with_tables(PAGE.read_text()) == PAGE.read_text()


def test_the_fixed_values_are_those_of_a_config_without_these_keys(tmp_path):
    """A default that changes has to change in the table."""
    data = {"root": "r", "train": "t.csv", "image": "{id}.png", "target": "t", "target_kind": "regression"}
    made = {"name": "n", "data": data, "model": {"head": {"class_path": "swinft.RegressionHead"}}}
    config = load(fit_parser(), ["--config", str(write_config(tmp_path / "c.yaml", made))])
    found = {key: config[key] for rule in FIXED for key in rule.values}
    assert found == {key: value for rule in FIXED for key, value in rule.values.items()}
    assert len(found) > 10


@pytest.mark.parametrize("has_batch_norm", [True, False])
@pytest.mark.parametrize("is_pretrained", [True, False])
def test_one_rule_applies_to_every_training(has_batch_norm, is_pretrained):
    training = Training(has_batch_norm, is_pretrained)
    assert [rule.values for rule in RATES if rule.applies(training)] == [rates_of(training)]


def test_every_rule_names_its_evidence_or_the_lack_of_it():
    for rule in (*RATES, *FIXED):
        script = re.match(r"benchmarks/(\w+).py", rule.why)
        assert script or rule.why.startswith(("not measured", "timed")), rule
        if script:
            assert (ROOT / "benchmarks" / "results" / f"{script[1].replace('_', '-')}.json").is_file()


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
