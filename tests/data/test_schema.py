"""Cells become numbers; what is no number, class or label is named."""

import json

import numpy as np
import pytest

from swinft.data.features import FillRules, encode_features
from swinft.data.schema import Schema, make_schema
from swinft.data.tables.table import read_table
from swinft.data.target.base import TargetCells
from swinft.data.target.classification import check_class_sizes
from swinft.data.target.kinds import TARGETS, target_columns
from swinft.errors import InputError


def table_of(tmp_path, **columns):
    """A table with ids a, b, c, … and these columns."""
    path = tmp_path / "train.csv"
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(["id", *columns]), *(f"{chr(97 + k)}," + ",".join(row) for k, row in enumerate(rows))]
    path.write_text("\n".join(lines) + "\n")
    problems = []
    table = read_table(path, "id", {}, problems)
    assert problems == []
    return table


def encoded(table, kind, target, delimiter=None):
    problems = []
    schema = make_schema(table, kind, target, delimiter, [], [])
    cells = TargetCells(table, target_columns(schema.target, target, delimiter), delimiter)
    targets = schema.target.encode(cells, schema.outputs, problems)
    return targets, schema, problems + schema.target.training_problems(cells, targets, schema.outputs)


def test_classes_are_sorted_as_text_or_as_whole_numbers(tmp_path):
    targets, schema, _ = encoded(table_of(tmp_path, y=["b", "a", "10", "9"]), "classification", "y")
    assert schema.outputs == ["10", "9", "a", "b"]
    assert targets.tolist() == [3, 2, 0, 1]
    assert targets.dtype == np.int64
    assert encoded(table_of(tmp_path, y=["10", "9", "-1"]), "classification", "y")[1].outputs == ["-1", "9", "10"]
    assert encoded(table_of(tmp_path, y=["10", "9", "--1"]), "classification", "y")[1].outputs == ["--1", "10", "9"]


def test_bad_classes(tmp_path):
    _, _, problems = encoded(table_of(tmp_path, y=["cat", "", "Cat ", "dog"]), "classification", "y")
    assert [problem.message for problem in problems] == [
        "the class is empty",
        "'Cat' and 'cat' differ only by case, blanks, quotes, the form of a number or of its Unicode characters",
    ]
    assert (problems[0].line, problems[0].id, problems[0].column, problems[0].value) == (3, "b", "y", "")
    assert "two classes or more" in encoded(table_of(tmp_path, y=["cat", "cat"]), "classification", "y")[2][0].fix


def test_numbers_are_float32_columns(tmp_path):
    table = table_of(tmp_path, y=["1", " -2.5e1 ", "+.5"], z=["0.1", "7.", "0"])
    targets, schema, problems = encoded(table, "regression", ["y", "z"])
    assert (problems, schema.outputs, targets.dtype) == ([], ["y", "z"], np.float32)
    np.testing.assert_array_equal(targets, np.array([[1, 0.1], [-25, 7], [0.5, 0]], dtype=np.float32))


@pytest.mark.parametrize(
    "cell", ["NaN", "inf", "-Infinity", "1e400", "1e39", "1_000", "0x10", "twelve", "", "1 2", "NA"]
)
def test_cells_that_are_no_finite_number(tmp_path, cell):
    _, _, problems = encoded(table_of(tmp_path, y=["1", cell, "2"]), "regression", "y")
    assert [(problem.line, problem.id, problem.value) for problem in problems] == [(3, "b", cell)]


def test_a_constant_number_cannot_be_learnt(tmp_path):
    _, _, problems = encoded(table_of(tmp_path, y=["1", "2"], z=["3", "3.0"]), "regression", ["y", "z"])
    assert [(problem.column, problem.message) for problem in problems] == [("z", "all rows have the same number")]


def test_label_columns_hold_0_or_1(tmp_path):
    targets, schema, problems = encoded(table_of(tmp_path, p=["1", "0.0"], q=["2", "x"]), "multilabel", ["p", "q"])
    assert schema.outputs == ["p", "q"]
    assert targets[:, 0].tolist() == [1, 0]
    found = [(problem.line, problem.column, problem.value) for problem in problems]
    assert sorted(found) == [(2, "q", "2"), (3, "q", "x")]


def test_labels_of_a_delimited_column(tmp_path):
    targets, schema, problems = encoded(table_of(tmp_path, y=["b|a", "", "a | c"]), "multilabel", "y", "|")
    assert (problems, schema.outputs) == ([], ["a", "b", "c"])
    assert targets.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize("cell", ["a|a", "a||b", "a|"])
def test_doubled_and_empty_labels(tmp_path, cell):
    _, _, problems = encoded(table_of(tmp_path, y=["a|b", cell]), "multilabel", "y", "|")
    assert [(problem.line, problem.value) for problem in problems] == [(3, cell)]


def test_metadata_is_numbers_then_one_column_per_known_value(tmp_path):
    table = table_of(tmp_path, age=["3", "4.5", "1"], sex=["f", "m", "f"])
    schema, problems = make_schema(table, "regression", "age", None, ["age"], ["sex"]), []
    assert (schema.num_features, schema.categories) == (3, {"sex": ["f", "m"]})
    assert encode_features(table, schema, problems).tolist() == [[3, 1, 0], [4.5, 0, 1], [1, 1, 0]]
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    others = table_of(tmp_path, age=["3", "", "1"], sex=["f", "", "x"])
    encode_features(others, schema, problems, fill_rules=FillRules("error", "error"), is_test=True)
    assert [(problem.column, problem.line, problem.message) for problem in problems] == [
        ("age", 3, "the cell is empty"),
        ("sex", 3, "the cell is empty"),
        ("sex", 4, "the training table has no such value"),
    ]


def test_a_rare_class_is_named_with_its_rows(tmp_path):
    table = table_of(tmp_path, y=["cat", "cat", "cat", "dog", "dog"])
    problems = check_class_sizes(table.names("y"), 3, None, table, "y")
    assert [problem.value for problem in problems] == ["dog"]
    assert "fewer rows than the 3 folds" in problems[0].message
    assert "It has 2" in problems[0].fix


@pytest.mark.parametrize(
    ("kind", "target", "delimiter", "expected"),
    [
        ("classification", ["a", "b"], None, "one column of classes"),
        ("regression", [], None, "names no column"),
        ("regression", "a", " ", "label_delimiter"),
        ("multilabel", ["a", "b"], " ", "label_delimiter"),
        ("multilabel", "a", None, "set data.columns.label_delimiter"),
    ],
)
def test_targets_that_do_not_fit_their_kind(kind, target, delimiter, expected):
    with pytest.raises(InputError, match=expected):
        target_columns(TARGETS[kind], target, delimiter)
