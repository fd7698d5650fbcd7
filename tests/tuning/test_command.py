"""`swinft tune` through the front door."""

import json

import pandas as pd
import pytest
import yaml

import swinft
from swinft.cli import main
from swinft.errors import InputError
from swinft.tuning.command import split
from tests.browser import chromium, opened
from tests.conftest import fit_in_process, in_this_process, tiny_config, write_config
from tests.json_documents import document_of

SPACE = {"model.optim.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "data.augment": ["none", "light"]}


@pytest.fixture
def config(competition, tmp_path):
    """A config with a space, of one epoch."""
    return write_config(
        tmp_path / "config.yaml",
        tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 1, "tune": dict(SPACE)}),
    )


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)


def test_options_of_a_search_and_keys_of_a_config_are_told_apart(tmp_path):
    own, words = split(["--config", "c.yaml", "--trials", "5", "--folds", "0,1", "--model.optim.lr=1", "--on", "ray"])
    assert own == ["--trials=5", "--folds=0,1"]
    assert words == ["--config", "c.yaml", "--model.optim.lr=1", "--on", "ray"]
    assert split(["--resume", "--config", "c.yaml"]) == (["--resume=true"], ["--config", "c.yaml"])
    with pytest.raises(InputError, match=r"is not a search: it has no study\.json"):
        split(["--resume", str(tmp_path)])


def test_every_value_is_checked_before_anything_is_written(config, tmp_path, capsys):
    space = {
        "model.optim.lr": {"low": -1.0, "high": 1.0},
        "data.augment": ["light", "lihgt"],
        "model.backbone": ["swin_tiny_patch4_window7_224", "swin_tny"],
    }
    path = write_config(tmp_path / "space.yaml", space)
    assert main(["tune", "--config", str(config), "--space", str(path), "--trials", "2"]) == 2
    err = capsys.readouterr().err
    for message in (
        "model.optim.lr is -1.0. Allowed: a number above 0",
        "`lihgt` is not",
        "timm has no model 'swin_tny'",
    ):
        assert message in err
    assert not (tmp_path / "runs" / "tiny").exists()


def test_other_commands_name_the_option_for_the_section(config, capsys):
    assert main(["fit", "--config", str(config)]) == 2
    assert "only `swinft tune` reads the section `tune`" in capsys.readouterr().err


def test_rounds_are_not_searched(config, capsys):
    config.write_text(config.read_text() + "rounds: [{name: a}, {name: b}]\n")
    assert main(["tune", "--config", str(config)]) == 2
    assert "rounds are several runs, and a trial is one" in capsys.readouterr().err


def test_errors_name_the_users_file_and_line(config, capsys):
    config.write_text(config.read_text().replace("tune:", "tune:  # searched").replace("seed:", "seed:") + "sede: 1\n")
    assert main(["tune", "--config", str(config)]) == 2
    err = capsys.readouterr().err
    assert f"{config}:{len(config.read_text().splitlines())}: unknown key 'sede'" in err


def test_a_search_of_one_fold(config, tmp_path, capsys, in_process, monkeypatch):
    monkeypatch.setattr("swinft.tuning.command.write_report", lambda *_: None)  # its figures take half of the time
    found = document_of(capsys, "tune", "--config", str(config), "--folds", "0", "--trials", "1")
    folder = tmp_path / "runs" / "tiny"
    assert [each["state"] for each in found["trials"]] == ["complete"]
    # What best.yaml is: the values of the best trial in a config that `fit` takes.
    best = yaml.safe_load((folder / "best.yaml").read_text())
    row = pd.read_csv(folder / "trials.csv", dtype=str).iloc[found["best"]]
    assert (best["model"]["optim"]["lr"], best["data"]["augment"]) == (
        float(row["model.optim.lr"]),
        row["data.augment"],
    )
    assert best["name"] == "tiny_best"


@pytest.mark.slow
def test_a_search_is_continued_checked_and_refused(config, tmp_path, capsys, in_process):
    words = ["tune", "--config", str(config), "--folds", "0"]
    folder = tmp_path / "runs" / "tiny"
    assert main([*words, "--trials", "1"]) == 0
    assert main([*words, "--trials", "2"]) == 2
    assert "--resume continues it" in capsys.readouterr().err
    assert main(["tune", "--resume", str(folder), "--trials", "2", "--data.loading.num_workers", "0"]) == 0
    assert len(pd.read_csv(folder / "trials.csv")) == 2
    assert (folder / "report.html").read_text().count("<svg") == 2
    assert yaml.safe_load((folder / "best.yaml").read_text())["data"]["loading"]["num_workers"] == 0
    assert main(["check", "--config", str(folder / "best.yaml")]) == 0
    changed = write_config(tmp_path / "space.yaml", {**SPACE, "data.augment": ["none", "medium"]})
    assert main([*words, "--trials", "3", "--resume", "--space", str(changed), "--model.ema_decay", "0.5"]) == 2
    err = capsys.readouterr().err
    assert "space: was" in err
    assert "model.ema_decay: was 0.9, is 0.5" in err
    assert main([*words, "--overwrite", "--trials", "1"]) == 0
    assert len(pd.read_csv(folder / "trials.csv")) == 1


@pytest.mark.slow
def test_the_report_of_a_search_works_in_a_browser(competition, tmp_path, in_process):
    """Names that could be taken for HTML or for formulas stay text, trials are sorted, light and dark, a phone."""
    name = "<i>x_1$ $y & {{7*7}} 🎉"
    changes = {"name": name, "trainer.max_epochs": 1, "tune": dict(SPACE)}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    found = swinft.tune(config, SPACE, trials=3, folds=[0])
    with chromium() as browser, opened(browser, found.folder / "report.html", color_scheme="light") as watched:
        watched.check()
        page = watched.page
        assert page.title() == page.locator("h1").inner_text() == name
        scores = "[...document.querySelectorAll('tbody tr')].map((row) => row.cells[2].textContent)"
        page.locator("th button", has_text="score").click()
        assert page.evaluate(scores) == sorted(page.evaluate(scores), key=float, reverse=True)
        assert page.locator("tr.strong").count() == 1
        assert page.locator("figure.drawing svg").count() == 2
        with opened(browser, found.folder / "report.html", 360, color_scheme="dark") as phone:
            phone.check()


@pytest.mark.slow
def test_trials_of_a_search_are_runs(config, tmp_path, in_process):
    """Values that do not fit together, a training that diverges, weights of the best alone, members of an ensemble."""
    space = {"data.image_size": [32, 34], "model.optim.lr": [3e-3, 1e-3, 1e20]}
    found = swinft.tune(config, space, trials=50, keep=1, pruner="none", sampler="grid")
    trials = found.trials.set_index(["data.image_size", "model.optim.lr"])
    assert len(trials) == 6
    assert trials.loc["34", "state"].tolist() == ["failed"] * 3
    assert all("34 x 34" in reason for reason in trials.loc["34", "reason"])
    diverged = trials.loc[("32", "1e+20")]
    assert diverged["state"] == "failed"
    assert "finite" in diverged["reason"] or "diverged" in diverged["reason"]
    complete = [
        found.folder / "trials" / f"{int(number):04d}" for number in found.trials.query("state == 'complete'").trial
    ]
    assert len(complete) == 2
    assert sorted(len(list(trial.glob("fold_*/weights.safetensors"))) for trial in complete) == [0, 2]
    blend = swinft.ensemble(complete, "blend", runs=str(tmp_path / "runs"), method="mean", bootstrap=10)
    assert len(blend.oof) == 24
    # The same run by `swinft fit`, byte for byte.
    fit_in_process(complete[0] / "config.yaml", "--name", "again", "--runs", str(tmp_path / "runs"))
    assert (tmp_path / "runs" / "again" / "oof.csv").read_bytes() == (complete[0] / "oof.csv").read_bytes()
    assert found.nested_score is not None
    assert swinft.fit(found.config, {"trainer.fast_dev_run": True}) is None


@pytest.mark.slow
def test_the_default_space_is_one_that_trials_have(competition, tmp_path, capsys, in_process):
    config = write_config(
        tmp_path / "c.yaml",
        tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 2, "model.ema_decay": None}),
    )
    assert main(["tune", "--config", str(config), "--trials", "3", "--folds", "0,1"]) == 0
    out = capsys.readouterr().out
    assert "the default one for Swin, random weights" in out
    assert "model.drop_path_rate: {'low': 0.0, 'high': 0.4}" in out
    assert set(pd.read_csv(tmp_path / "runs" / "tiny" / "trials.csv").state) <= {"complete", "pruned"}


@pytest.mark.slow
def test_two_objectives_and_two_jobs(config, tmp_path, capsys):
    words = ["--trials", "3", "--objective", "score,parameters", "--jobs", "2", "--sampler", "random", "--json"]
    words += ["--storage", f"sqlite:///{tmp_path / 'other.db'}"]
    assert main(["tune", "--config", str(config), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["number"] for each in found["trials"]] == [0, 1, 2]
    assert not (tmp_path / "runs" / "tiny" / "study.db").exists()
    assert found["front"]
    assert found["nested_score"] is not None
