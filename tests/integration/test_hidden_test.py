"""A run whose folds leave rows out, predicting a hidden test table that nobody can edit: from `fit` to `submit`."""

import csv
import shutil

import numpy as np
import pytest

from swinft.cli import main
from tests.conftest import fit_in_process, tiny_config, write_config


def read(path):
    with path.open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def run(competition, tmp_path_factory):
    """One epoch on two folds, with metadata; three rows are in no fold."""
    root = tmp_path_factory.mktemp("hidden")
    shutil.copytree(competition, root / "data")
    (root / "data" / "test.csv").write_text("id,brightness,tags\n" + "".join(f"t{k},{k},cool\n" for k in range(1, 7)))
    folds = root / "folds.csv"
    folds.write_text("id,fold\n" + "".join(f"{k:03d},{-1 if k < 3 else k // 3 % 2}\n" for k in range(24)))
    changes = {
        "data.columns.numeric_features": ["bright*"],  # a pattern: the schema has the name
        "data.columns.categorical_features": ["tags"],
        "data.folds.file": str(folds),
        "trainer.max_epochs": 1,
    }
    fit_in_process(write_config(root / "c.yaml", tiny_config(root / "data", root / "runs", **changes)))
    return root / "runs" / "tiny"


def test_f063_the_tables_say_which_rows_are_in_no_fold(run):
    oof = read(run / "oof.csv")
    assert [oof[f"{k:03d}"]["status"] for k in range(4)] == ["in no fold"] * 3 + ["ok"]


def test_f060_gaps_and_new_words_in_a_hidden_test_table_are_predicted_and_counted(run, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(run.parent.parent / "data", root)
    cells = ["4,cool", ",cool", "NaN,lukewarm", "many,", "5,Cool", "1e99,null"]
    (root / "test.csv").write_text("id,brightness,tags\n" + "".join(f"t{k + 1},{c}\n" for k, c in enumerate(cells)))
    output = tmp_path / "p.csv"
    assert main(["predict", str(run), "--device", "cpu", "--root", str(root), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "column 'brightness': 4 cells without a number are filled with the training rows' mean" in printed
    assert "'lukewarm' 1" in printed
    assert "'Cool' 1" in printed
    values = np.array([[float(row[name]) for name in ("blue", "green", "red")] for row in read(output).values()])
    assert np.isfinite(values).all()
    assert np.allclose(values.sum(1), 1, atol=1e-5)


def test_a_report_of_a_run_needs_none_of_the_settings_that_made_its_folds(competition, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(competition, root)
    table = (root / "train.csv").read_text().replace("000,red", "000,pink")
    (root / "train.csv").write_text(table)
    changes = {"data.folds.rare_classes": "train", "data.folds.kind": "stratified", "trainer.max_epochs": 1}
    fit_in_process(write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **changes)))
    assert main(["report", str(tmp_path / "runs" / "tiny")]) == 0
