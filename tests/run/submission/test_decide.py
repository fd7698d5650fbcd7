"""Forms of submissions: every example of docs/submissions.md, and what is ambiguous or wrong."""

import csv
import io
import re
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import yaml

from swinft.data.sample_rows import long_ids, split_ids
from swinft.data.schema import Schema
from swinft.data.tables.numbers import NUMBER
from swinft.data.tables.table import read_table
from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.inference.rules.named import rules_of
from swinft.inference.rules.rule import apply_rules, check_rules
from swinft.model.metrics import Traits, traits_of
from swinft.run.submission.decide import plan_submission
from swinft.run.submission.grouping import GroupConfig, check_ids, join_groups
from swinft.run.submission.plan import SubmissionConfig, as_csv, build_submission, check_submission
from swinft.run.submission.sample import Sample
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "submissions.md").read_text().partition("## Forms")[2].partition("\n## ")[0]
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n### ")[1:]}


def block(section: str, name: str) -> str:
    found = re.search(rf"```{name}\n(.*?)```", SECTIONS[section], re.DOTALL)
    return found[1] if found else ""


def table(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)


def sample_of(text: str, folder, id: str | None = None) -> Sample:
    path = folder / "sample.csv"
    path.write_text(text)
    problems: list = []
    found = read_table(path, text.partition(",")[0] if id is None else id, {}, problems)
    assert not problems
    return Sample.of(found)


def written(
    sample: Sample, schema: Schema, ids: list[str], values: np.ndarray, config: SubmissionConfig, rows=None
) -> tuple[str, list[str]]:
    """The text of a submission after its own check, and the notes."""
    found = Predictions(ids, values, schema.outputs)
    if config.group:
        found, _ = join_groups(config.group, found, rows, schema)
    plan = plan_submission(sample, schema, Traits(), config, predicted=found.ids)
    rules = rules_of(config.rules)
    check_rules(rules, schema)
    found, _ = apply_rules(rules, found, pd.DataFrame(index=found.ids), schema)
    cells, notes = build_submission(plan, found)
    text = as_csv(plan, cells)
    assert check_submission(text, plan) == []
    assert plan.describe()
    return text, [*plan.notes, *notes]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_example_of_the_page_is_written_as_printed(section, tmp_path):
    given = table(block(section, "csv predictions"))
    keys = yaml.safe_load(block(section, "yaml"))
    values = given.iloc[:, 1:].to_numpy(np.float32)
    kind = keys["data"]["target_kind"]
    limits = np.stack([values.min(0), values.max(0)], 1).tolist() if kind == "regression" else []
    schema = Schema(kind, list(given.columns[1:]), ranges=limits, prior=values.mean(0).tolist())
    rows = table(block(section, "csv rows")) if "csv rows" in SECTIONS[section] else None
    config = SubmissionConfig(**keys["submission"])
    sample = sample_of(block(section, "csv sample"), tmp_path, config.id or given.columns[0])  # as in a run
    text, _ = written(sample, schema, given.iloc[:, 0].tolist(), values, config, rows)
    assert text == block(section, "csv submission")


WHALES = Schema("classification", ["w1", "w2", "w3"])
IDS = ["a", "b"]


def ranked(folder, cells: list[str], values: list[list[float]], **keys: object) -> list[str]:
    sample = sample_of(
        "id,predictions\n" + "".join(f"{id},{cell}\n" for id, cell in zip(IDS, cells, strict=True)), folder
    )
    text, _ = written(sample, WHALES, IDS, np.array(values, np.float32), SubmissionConfig(**keys))
    return [row[1] for row in list(csv.reader(io.StringIO(text)))[1:]]


def test_lists_of_classes_are_found_from_the_sample(tmp_path):
    values = [[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]
    assert ranked(tmp_path, ["w1 w2", "w3 w1"], values) == ["w2 w3", "w1 w3"]  # equal ones in the classes' order
    assert ranked(tmp_path, ["w1 w2", "new w1"], values) == ["w2 w3", "w1 w3"]
    assert ranked(tmp_path, ["w1", "w2"], values) == ["w2", "w1"]  # one class a row: the most probable one
    assert ranked(tmp_path, ["w1", "w2"], values, format="top_k") == ["w2 w3 w1", "w1 w3 w2"]
    five = {"format": {"top_k": {"k": 5, "new": "new", "threshold": 0.25}}}
    assert ranked(tmp_path, ["w1 w2", "new w1"], values, **five) == ["w2 w3 new w1", "w1 w3 new w2"]
    tie = {"format": {"top_k": {"k": 2, "new": "new", "threshold": 0.4}}}
    assert ranked(tmp_path, ["w1 w2", "new w1"], values, **tie) == ["w2 new", "w1 w3"]
    words = {"words": {"w1": "one"}, "format": {"top_k": {"k": 1}}}
    assert ranked(tmp_path, ["one w2", "w3 one"], values, **words) == ["w2", "one"]


def test_a_new_class_that_is_a_class_of_the_training_rows_ranks_by_the_threshold(tmp_path):
    values = [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]]
    keys = {"format": {"top_k": {"k": 2, "new": "w1", "threshold": 0.3}}}
    assert ranked(tmp_path, ["w1 w2", "w3 w1"], values, **keys) == ["w1 w2", "w2 w1"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": {"top_k": {"k": 0}}}, "k is 0. Allowed: a whole number from 1"),
        ({"format": {"top_k": {"new": "a b"}}}, "Write a word without ' ' in it"),
        ({"format": {"top_k": {"threshold": 2}}}, "threshold is 2"),
        ({"format": {"top_k": {"kk": 2}}}, "top_k has no 'kk'"),
        ({"format": {"top5": {}}}, "submission.format is 'top5'"),
        ({"format": "top_k", "threshold": 0.4}, "submission.threshold: no effect"),
        ({"format": "top_k", "words": {"w1": "w 1"}}, "contain ' ', the delimiter"),
        (
            {"format": {"top_k": {"new": "n", "threshold": 0.4}}, "rules": ["new_class"]},
            "is not 0.5, to which the rule new_class",
        ),
        ({"format": "labels"}, "a classification run can write probabilities or label or top_k"),
    ],
)
def test_a_wrong_setting_of_ranked_classes_is_refused(keys, message, tmp_path):
    with pytest.raises(InputError, match=message):
        ranked(tmp_path, ["w1 w2", "w3 w1"], [[0.2, 0.5, 0.3]] * 2, **keys)


def test_cells_of_ranked_classes_are_checked(tmp_path):
    sample = sample_of("id,predictions\na,w1 w2\nb,w3 w1\n", tmp_path)
    plan = plan_submission(sample, WHALES, Traits(), SubmissionConfig(), predicted=IDS)
    for cell, problem in (
        ("w1 w4", "contains 'w4', which is none of w1, w2, w3"),
        ("w1 w1", "contains a class twice"),
        ("w1 w2 w3", "has 3 classes, more than 2"),
        ("", "contains ''"),
    ):
        (found,) = check_submission(f"id,predictions\na,{cell}\nb,w1\n", plan)
        assert problem in found
    assert check_submission("id,predictions\na,w1\nb,w2 w1\n", plan) == []


def test_the_form_of_long_ids_is_found_or_named():
    found = long_ids(["a_b__x", "a_b__y_z", "a__x", "a__y_z"], ["a", "a_b"])
    assert (found.pattern, found.rows, found.words) == ("{id}__{output}", ["a_b"] * 2 + ["a"] * 2, ["x", "y_z"] * 2)
    assert long_ids(["1_x", "1_y", "12_x", "12_y"], ["1", "12"]).rows == ["1", "1", "12", "12"]
    for ids, predicted in (
        (["a", "b"], ["a", "b"]),
        (["a_x", "b_x"], ["a", "b"]),  # one output
        (["a_x", "a_y", "b_x"], ["a", "b"]),  # not the same of each
        (["ax", "ay"], ["a"]),  # nothing between
        (["a_x", "a-y"], ["a"]),  # two signs
        (["a_x", "a_y"], ["a", "b"]),  # a row without any
    ):
        assert long_ids(ids, predicted) is None
    assert split_ids(["x:a!", "y:a!", "x:ab!"], ["a", "ab"], "{output}:{image_id}!").words == ["x", "y", "x"]
    assert split_ids(["ax", "ay"], ["a"], "{id}{output}").words == ["x", "y"]
    for pattern, message in (
        ("{id}", "Write how the sample's ids are made"),
        ("{id}_{name}", "Write how the sample's ids are made"),
        ("{id}_{output}", "2 ids of the sample are not made so of an id of a row to predict, like 'a'"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            split_ids(["ax", "ay"], ["a"], pattern)


AREA = Schema("regression", ["x", "y"], ranges=[[0, 9], [0, 9]], prior=[1, 2])


@pytest.mark.parametrize(
    ("sample", "keys", "message"),
    [
        ("id,value\na_x,0\na_z,0\nb_x,0\nb_z,0\n", {}, "without a prediction: z"),
        ("id,value,other\na_x,0,1\na_y,0,1\nb_x,0,1\nb_y,0,1\n", {}, "one column is filled, and it has"),
        ("id,value\na_x,0\na_y,0\nb_x,0\nb_y,0\n", {"rows": "{id}-{output}"}, "are not made so"),
    ],
)
def test_a_wrong_long_sample_is_refused(sample, keys, message, tmp_path):
    with pytest.raises(InputError, match=message):
        written(sample_of(sample, tmp_path), AREA, IDS, np.ones((2, 2)), SubmissionConfig(**keys))


def test_a_long_sample_keeps_columns_and_its_order_and_is_checked_row_by_row(tmp_path):
    text = "id,unit,value\nb_y,cm,0\na_x,cm,0\na_y,mm,0\nb_x,mm,0\n"
    sample = sample_of(text, tmp_path)
    config = SubmissionConfig(keep=["unit"], format="integer", rules=[{"clip": {"max": 5}}])
    found, _ = written(sample, AREA, ["b", "a"], np.array([[1.4, 7], [3, 4]]), config)
    assert found == "id,unit,value\nb_y,cm,5\na_x,cm,3\na_y,mm,4\nb_x,mm,1\n"
    plan = plan_submission(sample, AREA, Traits(), config, predicted=IDS)
    for wrong, problem in (
        (found.replace("a_x,cm,3", "a_x,cm,6"), "line 3, column 'x': '6' is not in"),
        (found.replace("a_x,cm,3", "a_x,cm,3.5"), "'3.5' is not a whole number"),
        (found.replace("a_x,cm", "a_x,mm"), "line 3, column 'unit': 'mm' where"),
        (found.replace("a_x", "a_X"), "line 3: id 'a_X' where"),
        (found.replace("b_x,mm,1\n", ""), "3 rows, "),
    ):
        assert any(problem in each for each in check_submission(wrong, plan)), (problem, check_submission(wrong, plan))


PAIR, MANY = Schema("classification", ["no", "yes"]), Schema("classification", ["a", "b", "c"])
ROWS = pd.DataFrame({"study": ["s", "t", "s"], "votes": ["1", "2", "3"]})


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("mean", [0.5, 0.5]),
        ("weighted", [0.35, 0.65]),
        ("max", [0.2, 0.8]),
        ("min", [0.8, 0.2]),
        ("median", [0.5, 0.5]),
        ("noisy_or", [0.16, 0.84]),
    ],
)
def test_rows_of_a_group_are_joined(how, wanted):
    config = GroupConfig("study", how, "votes" if how == "weighted" else None)
    found = Predictions(["1", "2", "3"], np.array([[0.8, 0.2], [0.4, 0.6], [0.2, 0.8]], np.float32), ["no", "yes"])
    joined, first = join_groups(config, found, ROWS, PAIR)
    assert joined.ids == ["s", "t"]
    assert first.tolist() == [0, 1]
    assert joined.values == pytest.approx(np.array([wanted, [0.4, 0.6]]), abs=1e-6)


def test_groups_of_classes_sum_to_one_and_bad_images_do_not_count():
    values = np.array([[0.8, 0.2, 0], [0.4, 0.6, 0], [0.2, 0, 0.8]], np.float32)
    found = Predictions(["1", "2", "3"], values, MANY.outputs)
    joined, _ = join_groups(GroupConfig("study", "max"), found, ROWS, MANY)
    assert joined.values[0] == pytest.approx(np.array([0.8, 0.2, 0.8]) / 1.8)
    bad = Predictions(["1", "2", "3"], values, MANY.outputs, status=["ok", "ok", "bad image"])
    joined, _ = join_groups(GroupConfig("study"), bad, ROWS, MANY)
    assert joined.values[0] == pytest.approx([0.8, 0.2, 0])
    folds = Predictions(["1", "2", "3"], values, MANY.outputs, np.array([0, 0, 1]))
    joined, _ = join_groups(GroupConfig("study"), folds, ROWS, MANY)
    assert (joined.ids, joined.fold.tolist()) == (["s", "t", "s"], [0, 0, 1])


def test_what_is_wrong_with_groups_is_named(tmp_path):
    found = Predictions(["1", "2", "3"], np.full((3, 2), 0.5), ["no", "yes"])
    for config, rows, message in (
        ({"by": "study", "how": "most"}, ROWS, "submission.group.how is 'most'"),
        ({"by": "study", "how": "weighted"}, ROWS, "how: weighted and weight belong together"),
        ({"by": "study"}, ROWS.assign(study=["s", "", "t"]), "column 'study' is empty for 1 id: 2"),
        ({"by": "study", "how": "weighted", "weight": "votes"}, ROWS.assign(votes=["1", "x", "2"]), "'x' for id '2'"),
        ({"by": "study", "how": "weighted", "weight": "votes"}, ROWS.assign(votes=["1", "-1", "2"]), "from 0"),
    ):
        with pytest.raises(InputError, match=message):
            join_groups(GroupConfig(**config), found, rows, PAIR)
    assert "two classes" in GroupConfig("study", "noisy_or").refusal(MANY)
    assert NUMBER.fullmatch("3")
    (tmp_path / "test.csv").write_text("id,study\n1,s\n2,t\n3,s\n")
    rows = read_table(tmp_path / "test.csv", "id", {}, [])
    sample = sample_of("study,no,yes\ns,0,0\nt,0,0\n", tmp_path)
    with pytest.raises(InputError, match=re.escape("set submission.group: {by: study, how: mean}")):
        check_ids(sample, rows, rows.ids, None)
    with pytest.raises(InputError, match="only the rows to predict have t"):
        check_ids(sample_of("study,no,yes\ns,0,0\n", tmp_path), rows, ["s", "t"], GroupConfig("study"))


def test_rows_that_should_sum_to_one_and_do_not_are_noted(tmp_path):
    sample = sample_of("id,a,b,c\n1,0.2,0.3,0.5\n", tmp_path)
    for value, is_noted in ((0.50002, True), (0.500005, False)):
        _, notes = written(sample, MANY, ["1"], np.array([[0.2, 0.3, value]]), SubmissionConfig())
        assert any("the sample's rows sum to 1" in note for note in notes) == is_noted


@pytest.mark.parametrize(("cells", "metric", "refused"), [
    ("0.2,0.3,0.5", "kl_divergence", True), ("0,0,0", "kl_divergence", False), ("0.2,0.3,0.5", "log_loss", False),
])  # fmt: skip
def test_rows_that_a_scorer_refuses_for_their_sum_are_refused(tmp_path, cells, metric, refused):
    plan = plan_submission(sample_of(f"id,a,b,c\n1,{cells}\n", tmp_path), MANY, traits_of(metric), SubmissionConfig())
    for value, is_refused in ((0.4, refused), (0.5, False)):
        values = np.array([[0.2, 0.3, value]])
        with (
            pytest.raises(InputError, match=r"0\.9, which the scorer of kl_divergence") if is_refused else nullcontext()
        ):
            build_submission(plan, Predictions(["1"], values, ["a", "b", "c"]))


def test_classes_are_written_in_the_unicode_form_of_the_sample():
    schema = Schema("classification", ["caf\u00e9", "\u00fcber", "tea"])
    sample = Sample("s.csv", "id", ["id", "kind"], ["1"], {"kind": ["cafe\u0301"]})
    plan = plan_submission(sample, schema, Traits("accuracy"), SubmissionConfig())
    assert plan.format.words == ["cafe\u0301", "u\u0308ber", "tea"]
