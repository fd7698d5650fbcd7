"""Patterns in lists of columns: names in the table's order, without those that another setting names."""

import json
from pathlib import Path

import numpy as np
import pytest

import swinft
from tests.conftest import write_image

COLUMNS = ["id", "tbp_b", "age", "tbp_a", "tbp_where", "Tbp_c", "x[0]", "x0", "a_vote", "b_vote", "c_vote"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, numbers = tmp_path_factory.mktemp("patterns"), np.random.default_rng(0)
    lines = [",".join(COLUMNS)]
    for k in range(12):
        write_image(folder / f"{k}.jpg", (200, 20 * k, 40), numbers)
        lines.append(f"{k},{k},{k + 1},{k + 2},{'ab'[k % 2]},{k + 3},{k + 4},{k + 5},{k % 3},{k % 2},{1 + k % 4}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    (folder / "test.csv").write_text("\n".join(lines[:4]) + "\n")
    return folder


def made(root: Path, **changes: object) -> swinft.CSVDataModule:
    target = {"target": "age", "target_kind": "regression"} | {
        k: v for k, v in changes.items() if k.startswith("target")
    }
    columns = {key: value for key, value in changes.items() if not key.startswith("target")}
    given = {"train": "train.csv", "test": "test.csv", "image": "{id}.jpg", "folds": {"num": 2}}
    return swinft.CSVDataModule(root=str(root), columns=columns, **given, **target)


def schema(root: Path, **changes: object) -> swinft.Schema:
    data = made(root, **changes)
    data.setup("fit")
    return data.schema


def test_a_pattern_stands_for_names_in_the_order_of_the_table(root):
    found = schema(root, numeric_features=["tbp_*", "x0"], categorical_features=["tbp_where"])
    assert (found.numeric_features, list(found.categories)) == (["tbp_b", "tbp_a", "x0"], ["tbp_where"])
    found = schema(root, numeric_features=["x0", "tbp_a", "tbp_[ab]"])
    assert found.numeric_features == ["x0", "tbp_a", "tbp_b"]
    assert schema(root, numeric_features=["x[0]"]).numeric_features == ["x[0]"]  # a column of this name
    assert schema(root, numeric_features=["tbp_a", "tbp_b"]).numeric_features == ["tbp_a", "tbp_b"]
    assert schema(root, numeric_features=["*e*"], categorical_features=["tbp_where"], target="tbp_a").numeric_features == [
        "age", "a_vote", "b_vote", "c_vote",
    ]  # fmt: skip


def test_several_columns_of_the_target_may_be_a_pattern(root):
    assert schema(root, target=["*_vote"], target_kind="regression").outputs == ["a_vote", "b_vote", "c_vote"]
    soft = schema(root, target=["*_vote"], target_kind="classification")
    assert (soft.is_soft, soft.outputs) == (True, ["a_vote", "b_vote", "c_vote"])
    found = schema(root, target=["b_vote", "*_vote"], target_kind="regression", numeric_features=["age"])
    assert found.outputs == ["b_vote", "a_vote", "c_vote"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"numeric_features": ["tpb_*", "x0"]}, "column 'tpb_*': no column matches the pattern. Change data.columns.numeric_"),
        ({"numeric_features": ["tbp_*"], "categorical_features": ["tbp_w*"]}, "'tbp_where' is named twice among the fea"),
        ({"target": ["*_votes"]}, "column '*_votes': no column matches the pattern. Change data.target."),
        ({"target": ["*_vote"], "numeric_features": ["a*"]}, "'a_vote' is in data.target and among the features"),
        ({"numeric_features": ["tbp_*"]}, "column 'tbp_where', value 'a'"),
    ],
)  # fmt: skip
def test_what_a_pattern_cannot_mean_is_an_error(root, changes, said):
    with pytest.raises(swinft.InputError) as error:
        made(root, **changes).setup("fit")
    assert said in str(error.value)


def test_rows_to_predict_have_the_columns_of_the_training_table(root, tmp_path):
    known = schema(root, numeric_features=["tbp_?"], target=["*_vote"], target_kind="regression")
    data = made(root, numeric_features=["tbp_?"], target=["*_vote"], target_kind="regression")
    data.schema = swinft.Schema.from_dict(json.loads(json.dumps(known.to_dict())))
    (root / "test.csv").write_text("tbp_z,tbp_a,id,tbp_b\nnone,5,1,6\n")
    data.setup("predict")
    assert data.splits.test.features.tolist() == [[6, 5]]
    (root / "test.csv").write_text("tbp_z,tbp_a,id\nnone,5,1\n")
    data = made(root, numeric_features=["tbp_?"], target=["*_vote"], target_kind="regression")
    data.schema = known
    with pytest.raises(
        swinft.DataError, match=r"column 'tbp_b': there is no such column\. Change data\.columns\.numeric_fea"
    ):
        data.setup("predict")
