"""A competition without a sample submission: settings act or are errors at `check`, and `data.test` has the rows."""

import shutil

import pandas as pd
import pytest
import yaml

from swinft.cli import main
from swinft.store import commit
from tests.conftest import tiny_config, write_config

CASES = {
    "id": ({"id": "image"}, "submission.id does nothing without a sample submission: set data.sample_submission"),
    "rows, keep": ({"rows": "{id}__{output}", "keep": ["w"]}, "submission.keep and submission.rows do nothing without"),
    "columns": ({"columns": {"colour": "red"}}, "submission.columns names 'colour', which data.test does not have."),
    "words": ({"words": {"purple": "p"}}, "submission.words names 'purple', which the run does not have."),
    "delimiter": ({"delimiter": ";"}, "submission.delimiter: no effect in format 'label'"),
    "format": ({"format": "rle"}, "submission.format is 'rle', but a classification run can write"),
}


@pytest.mark.parametrize("case", CASES)
def test_settings_that_do_nothing_are_errors_before_anything_is_trained(case, competition, tmp_path, capsys):
    settings, said = CASES[case]
    changes = {"data.sample_submission": None, "submission": settings}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_submission_has_the_rows_of_the_test_table(tiny_run, competition, tmp_path, capsys):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "sample.json").unlink()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["sample_submission"] = None
    commit(run / "config.yaml", yaml.safe_dump(config).encode(), "swinft fit")
    assert main(["submit", str(run)]) == 0
    assert "checked against data.test" in capsys.readouterr().out
    ids = pd.read_csv(competition / "test.csv", dtype=str).iloc[:, 0].tolist()
    assert pd.read_csv(run / "submission.csv", dtype=str).iloc[:, 0].tolist() == ids
    found = pd.read_csv(run / "test_predictions.csv", dtype=str)
    for name, table, said in (
        ("fewer", found[1:], f"id '{ids[0]}' has no prediction"),
        ("more", pd.concat([found, found[:1].assign(id="x9")]), "id 'x9' is predicted but not in data.test"),
    ):
        table.to_csv(path := tmp_path / f"{name}.csv", index=False)
        words = ["submit", str(run), "--predictions", str(path), "--output", str(tmp_path / "s.csv")]
        assert main(words) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()
    assert main(["submit", str(run), "--id", "image"]) == 2
    assert "submission.id does nothing" in capsys.readouterr().err
