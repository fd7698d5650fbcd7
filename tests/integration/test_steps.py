"""Runs on tables that steps make: the same run as on the CSV, resumed, predicted under another root, refused."""

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import swinft
from swinft.cli import main
from swinft.data.tables.table import read_table
from tests.conftest import fit_in_process, tiny_config, write_config

STEPS = {
    "data.train": [
        {"files": "images/{id:[0-9]{3}}.jpg"},
        {"join": {"table": [{"csv": "train.csv"}, {"rename": {"id": "name"}}], "on": {"id": "name"}}},
        {"drop": "path"},
    ],
    "data.test": [{"files": "images/{id:t[0-9]}.jpg"}, {"keep": ["id"]}],
    "data.sample_submission": [{"csv": "sample_submission.csv"}],
}


@pytest.fixture(scope="module")
def run(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a copy of the competition's folder."""
    folder = tmp_path_factory.mktemp("steps")
    shutil.copytree(competition, folder / "data")
    config = write_config(folder / "c.yaml", tiny_config(folder / "data", folder / "runs", **STEPS))
    fit_in_process(config)
    return folder / "runs" / "tiny"


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A folder with a copy of data, config and run."""
    shutil.copytree(run.parent.parent, tmp_path / "x")
    config = yaml.safe_load((tmp_path / "x" / "c.yaml").read_text())
    config["runs"], config["data"]["root"] = str(tmp_path / "x" / "runs"), str(tmp_path / "x" / "data")
    write_config(tmp_path / "x" / "c.yaml", config)
    return tmp_path / "x"


def test_the_run_is_that_on_the_csv_to_the_last_byte(run, tiny_run, tmp_path):
    output = tmp_path / "p.csv"
    assert (run / "oof.csv").read_bytes() == (tiny_run / "oof.csv").read_bytes()
    assert main(["predict", str(run), "--device", "cpu", "--output", str(output)]) == 0
    assert output.read_bytes() == (tiny_run / "test_predictions.csv").read_bytes()
    made = tmp_path / "s.csv"
    assert main(["submit", str(run), "--predictions", str(output), "--output", str(made)]) == 0
    assert made.read_bytes() == (tiny_run / "submission.csv").read_bytes()


def test_another_root_makes_the_test_table_again(run, tmp_path):
    root, output = tmp_path / "rerun", tmp_path / "p.csv"
    (root / "images").mkdir(parents=True)
    for name in ("t9", "t7", "x1"):
        shutil.copy(run.parent.parent / "data" / "images" / "t1.jpg", root / "images" / f"{name}.jpg")
    assert main(["predict", str(run), "--device", "cpu", "--root", str(root), "--output", str(output)]) == 0
    assert [row["id"] for row in csv.DictReader(output.open())] == ["t7", "t9"]


def test_a_run_resumes_with_the_same_table_only(copied, capsys):
    config, data = str(copied / "c.yaml"), copied / "data"
    recorded = json.loads((copied / "runs" / "tiny" / "inputs.json").read_text())
    assert set(recorded) == {"data.train", "data.test", "data.sample_submission"}
    assert main(["table", config, "--output", str(copied / "t.csv")]) == 0
    assert "data.train: step 2, join: 24 rows, 7 columns." in capsys.readouterr().out
    assert read_table(copied / "t.csv", "id", {"color": "x"}, []).ids == [f"{k:03d}" for k in range(24)]
    assert hashlib.sha256((copied / "t.csv").read_bytes()).hexdigest() == recorded["data.train"]
    lines = (data / "train.csv").read_text().splitlines()
    (data / "train.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")  # what is joined may be in any order
    assert main(["fit", "--config", config, "--resume"]) == 0
    (data / "train.csv").write_text("\n".join(lines).replace("000,red", "000,green") + "\n")
    assert main(["fit", "--config", config, "--resume"]) == 2
    err = capsys.readouterr().err
    assert "was started with other data" in err
    assert "what the steps of data.train make (SHA-256 was " in err


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"csv": "train.csv"}, {"kep": ["id"]}], "data.train: step 2: 'kep' is not a step. Did you mean 'keep'?"),
        ([{"csv": "train.csv"}, {"keep": ["id", "colour"]}], "data.train: step 2, keep: column 'colour': there is no"),
        ([{"csv": "train.csv"}, {"drop": ["color"]}], "data.train: column 'color': there is no such column. Change d"),
        ([{"csv": "train.csv"}, {"class_path": "torch.nn.Linear"}], "has the wrong type: data.train needs a class"),
        ([{"concat": [[{"class_path": "torch.nn.Linear"}]]}], "has the wrong type: data.train"),
        ([{"class_path": "other.Step"}], "'other.Step' is not in a trusted package"),
        ({"csv": "train.csv"}, "data.train: `{'csv': 'train.csv'}` is not allowed; it must be text, a list in bra"),
    ],
)
def test_check_names_what_is_wrong_with_steps(steps, said, competition, tmp_path, capsys):
    changes = {**STEPS, "data.train": steps}
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **changes)))]) == 2  # fmt: skip
    assert said in capsys.readouterr().err


def test_numbers_in_yaml_that_would_lose_digits_are_refused(competition, tmp_path, capsys):
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **{"data.train": ["HERE"]}))
    text = path.read_text().replace(
        "- HERE", "- csv: train.csv\n  - where: {column: id, is: [007, 1e5, 0.10, 12, 0.5]}"
    )
    path.write_text(text)
    assert main(["check", "--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert [word in err for word in ("`007`", "`1e5`", "`0.10`", "`12`", "`0.5`")] == [True, True, True, False, False]


def test_on_is_a_key_as_everybody_writes_it(competition, tmp_path, capsys):
    """YAML reads an unquoted `on` as true."""
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **{"data.train": ["HERE"]}))
    steps = "- csv: train.csv\n  - keep: [id]\n  - join: {table: train.csv, on: id, columns: [color]}"
    path.write_text(path.read_text().replace("- HERE", steps))
    assert main(["table", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["id,color", "000,red"]


def test_the_datamodule_takes_the_same_steps(competition):
    given = {key.removeprefix("data."): value for key, value in STEPS.items()}
    data = swinft.CSVDataModule(
        "color", "classification", image="images/{id}.jpg", root=str(competition), folds={"num": 2}, **given
    )
    data.setup("fit")
    assert (len(data.train_table), data.test_table.ids) == (24, [f"t{k}" for k in range(1, 7)])
    frame = swinft.read_table(given["train"], competition)
    assert frame["id"].tolist() == data.train_table.ids


OLD = """
import swinft


class Old(swinft.TableStep):
    def apply(self, frame, root):
        return frame.assign(tags="warm", note=root.name)[::-1]
"""


@pytest.fixture
def old(copied, tmp_path, monkeypatch):
    """A config with an extra table and a sample submission that a custom step makes, also inside of other steps."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old_rows.py").write_text(OLD)
    (copied / "data" / "old.csv").write_text("name;color\nx1;red\nx2;blue\n")
    for name in ("x1", "x2"):
        shutil.copy(copied / "data" / "images" / "005.jpg", copied / "data" / "images" / f"{name}.jpg")
    own = {"class_path": "old_rows.Old"}
    config = yaml.safe_load((copied / "c.yaml").read_text())
    steps = [{"concat": [[{"csv": "old.csv"}, own]]}, {"rename": {"name": "id"}}]
    config["name"], config["data"]["folds"]["extra"] = "old", [{"table": steps, "weight": 0.5}]
    config["data"]["sample_submission"] = [{"csv": "sample_submission.csv"}, own, {"keep": ["id", "color"]}]
    yield write_config(copied / "old.yaml", config)
    sys.modules.pop("old_rows", None)


def test_steps_of_custom_classes_are_run_only_if_they_are_allowed(old, capsys):
    assert main(["check", "--config", str(old)]) == 2
    assert capsys.readouterr().err.count("'old_rows.Old' is not in a trusted package") == 2
    assert "old_rows" not in sys.modules
    assert main(["check", "--config", str(old), "--allow-code", "old_rows"]) == 0
    out = capsys.readouterr().out
    assert "data.folds.extra: table: step 1, concat: table 1: step 2, old_rows.Old: 2 rows, 4 columns." in out
    assert "data.folds.extra: table: 2 rows that every fold trains on and none scores, weight 0.5" in out


@pytest.mark.slow
def test_a_run_with_custom_steps_is_resumed_and_submitted_with_their_table(old, capsys):
    fit_in_process(old, "--allow-code", "old_rows")
    run = old.parent / "runs" / "old"
    assert "data.folds.extra.0" in json.loads((run / "inputs.json").read_text())
    assert main(["predict", str(run), "--device", "cpu", "--allow-code", "old_rows"]) == 0
    del sys.modules["old_rows"]
    assert main(["submit", str(run)]) == 2
    assert "add --allow-code old_rows" in capsys.readouterr().err
    assert main(["submit", str(run), "--allow-code", "old_rows"]) == 0
    sample = (old.parent / "data" / "sample_submission.csv").read_text().split()
    assert [line.split(",")[0] for line in (run / "submission.csv").read_text().split()[1:]] == [
        line.split(",")[0] for line in sample[:0:-1]
    ]
    (old.parent / "data" / "old.csv").write_text("name;color\nx1;red\nx2;red\n")
    assert main(["fit", "--config", str(old), "--allow-code", "old_rows", "--resume"]) == 2
    assert "what the steps of data.folds.extra.0 make" in capsys.readouterr().err


def test_options_replace_the_steps_of_a_file(competition, tmp_path, capsys):
    config = str(write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **STEPS)))
    steps = "[{csv: train.csv}, {where: {column: color, is_not: [blue]}}]"
    assert main(["check", "--config", config, "--data.train", steps]) == 0
    assert "data.train: step 2, where: 16 rows, 6 columns; 8 rows left out." in capsys.readouterr().out
    assert main(["check", "--config", config, "--data.train", steps.replace("blue", "007")]) == 2
    assert "--data.train: YAML reads `007` as another number: write '007' in quotes." in capsys.readouterr().err
