"""Trainings beside one per fold: one on every row after the folds, and one per fold and seed."""

import json
import shutil

import numpy as np
import pytest

from swinft import open_run
from swinft.cli import main
from swinft.inference.predictions import Predictions
from swinft.inference.provenance import read_provenance
from swinft.run.folds.fold import chosen_epochs
from swinft.run.layout import Run
from tests.conftest import in_this_process, power_gone_after, tiny_config, write_config


@pytest.fixture(autouse=True)
def _in_one_process(monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)


def fit(competition, tmp_path, *options, name="tiny", **changes):
    settings = tiny_config(competition, tmp_path, **{"data.image_size": 16, **changes}) | {"name": name}
    return main(["fit", "--config", str(write_config(tmp_path / f"{name}.yaml", settings)), *options])


STOPPING = {
    "class_path": "lightning.pytorch.callbacks.EarlyStopping",
    "init_args": {"monitor": "val_log_loss", "mode": "min", "patience": 1, "min_delta": 100.0},
}


def test_a_training_on_every_row_follows_the_folds(competition, tmp_path, capsys):
    keys = {"data.folds.all": True, "trainer.max_epochs": 4, "trainer.callbacks": [STOPPING]}
    assert fit(competition, tmp_path, **keys) == 0
    said = capsys.readouterr().out
    run = tmp_path / "tiny"
    assert "fold all: 24 rows to train on, none held out" in said
    assert "fold all: batches are made without loader processes" in said
    files = {path.name for path in (run / "fold_all").iterdir()}
    assert files == {".commits", "log.txt", "metrics.jsonl", "result.json", "weights.safetensors"}
    folds = [json.loads((run / f"fold_{k}" / "result.json").read_text()) for k in (0, 1)]
    assert [each["last_epoch"]["epoch"] for each in folds] == [2, 2]  # stopped: nothing is better by 100
    history = [json.loads(line) for line in (run / "fold_all" / "metrics.jsonl").read_text().splitlines()]
    assert len(history) == round(np.mean([each["best_epoch"]["epoch"] for each in folds]))
    assert {name for line in history for name in line if name.startswith("val_")} == set()
    scores = json.loads((run / "scores.json").read_text())
    assert [each["fold"] for each in scores["folds"]] == [0, 1]
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert read_provenance(run / "test_predictions.csv").folds == [0, 1]
    by_folds = (run / "test_predictions.csv").read_bytes()
    assert main(["predict", str(run), "--device", "cpu", "--folds", "all"]) == 0
    found = read_provenance(run / "test_predictions.csv")
    assert found.folds == ["all"]
    assert list(found.weights) == ["fold_all"]
    assert "fold all, trained on every row" in capsys.readouterr().out
    assert (run / "test_predictions.csv").read_bytes() != by_folds
    assert main(["submit", str(run)]) == 0
    assert main(["report", str(run)]) == 0
    assert main(["fit", "--resume", str(run)]) == 0
    assert "fold all: done, skipped" in capsys.readouterr().out


def test_it_can_be_asked_for_later_and_goes_on_where_it_was_interrupted(competition, tmp_path, tiny_run, capsys):
    assert fit(competition, tmp_path, "--fold", "all") == 2
    assert "folds [0, 1]" in capsys.readouterr().err
    assert main(["predict", str(tiny_run), "--folds", "all", "--device", "cpu"]) == 2
    assert "Train on every row with `swinft fit --resume" in capsys.readouterr().err
    whole, cut = (shutil.copytree(tiny_run, tmp_path / name) for name in ("whole", "cut"))
    assert main(["fit", "--resume", str(whole), "--fold", "all"]) == 0
    with power_gone_after(1):
        main(["fit", "--resume", str(cut), "--fold", "all"])
    assert main(["fit", "--resume", str(cut)]) == 0  # what was begun is finished
    weights = [run / "fold_all" / "weights.safetensors" for run in (whole, cut)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not open_run(whole).network("all").training


@pytest.mark.parametrize(
    ("checkpoint", "ends", "epochs"),
    [
        ("last", ["as planned", "as planned"], 10),
        ("best", ["as planned", "as planned"], 4),
        ("last", ["a callback stopped it", "as planned"], 6),
        ("last", ["max_hours", "max_hours"], 10),
    ],
)
def test_it_takes_as_many_epochs_as_the_folds_predict_with(
    competition, tmp_path, monkeypatch, checkpoint, ends, epochs
):
    results = [
        {"end": end, "best_epoch": {"epoch": best}, "last_epoch": {"epoch": 10}}
        for end, best in zip(ends, (3, 5), strict=True)
    ]
    monkeypatch.setattr(Run, "finished_folds", lambda *_: [0, 1])
    monkeypatch.setattr("swinft.run.fold_files.Fold.read_result", lambda fold: results[fold.index])

    class Config:
        pass

    Config.checkpoint = checkpoint
    assert chosen_epochs(Run(tmp_path), Config) == epochs


@pytest.fixture(scope="module")
def seeded(competition, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swinft.run.fit.run_children", in_this_process)
        assert fit(competition, folder, seeds=[3, 7], **{"data.folds.all": True, "trainer.max_epochs": 1}) == 0
    return folder / "tiny"


def test_each_fold_is_trained_with_each_seed_and_scored_on_their_mean(seeded, competition, tmp_path):
    names = [path.name for path in sorted(seeded.glob("fold_*"))]
    assert names == [f"fold_{fold}_seed_{seed}" for fold in (0, 1, "all") for seed in (3, 7)]
    oof = Predictions.read(seeded / "oof.csv", 3)
    for fold in (0, 1):
        one, two = (Predictions.read(seeded / f"fold_{fold}_seed_{seed}" / "oof.csv", 3) for seed in (3, 7))
        assert one.ids == two.ids
        assert not np.array_equal(one.values, two.values)
        rows = [oof.ids.index(id) for id in one.ids]
        np.testing.assert_allclose(oof.values[rows], (one.values + two.values) / 2, rtol=1e-5)
    scores = json.loads((seeded / "scores.json").read_text())
    assert list(scores["seeds"]) == ["3", "7"]
    values = [each["log_loss"] for each in scores["seeds"].values()]
    assert scores["spread_over_seeds"]["log_loss"] == pytest.approx(np.std(values))
    assert [each["fold"] for each in scores["folds"]] == ["0_seed_3", "0_seed_7", "1_seed_3", "1_seed_7"]


def test_a_seed_of_several_trains_as_a_run_of_that_seed_on_the_same_folds(seeded, competition, tmp_path):
    keys = {"data.folds": {"file": str(seeded / "folds.csv")}, "trainer.max_epochs": 1, "seed": 7}
    assert fit(competition, tmp_path, "--fold", "1", **keys) == 0
    alone, among = tmp_path / "tiny" / "fold_1", seeded / "fold_1_seed_7"
    assert (alone / "weights.safetensors").read_bytes() == (among / "weights.safetensors").read_bytes()
    assert (alone / "oof.csv").read_bytes() == (among / "oof.csv").read_bytes()


@pytest.mark.slow
def test_a_run_killed_in_its_second_seed_goes_on_byte_for_byte(competition, tmp_path):
    keys = {
        "seeds": [0, 1],
        "data.augment": "medium",
        "model.mix": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0},
        "model.drop_path_rate": 0.2,
        "checkpoint": {"soup": "last", "epochs": 2},
        "predict": {"views": ["identity", "hflip"]},
        "trainer.max_epochs": 3,
    }
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    assert fit(competition, tmp_path / "whole", **keys) == 0
    with power_gone_after(2, "0_seed_1"):
        fit(competition, tmp_path / "cut", **keys)
    runs = [tmp_path / name / "tiny" for name in ("whole", "cut")]
    assert (runs[1] / "fold_0_seed_0" / "result.json").is_file()
    assert not (runs[1] / "fold_0_seed_1" / "result.json").exists()
    assert fit(competition, tmp_path / "cut", "--resume", **keys) == 0
    names = [f"fold_{fold}_seed_{seed}" for fold in (0, 1) for seed in (0, 1)]
    files = [f"{name}/{file}" for name in names for file in ("weights.safetensors", "oof.csv", "oof_by_view.npy")]
    for file in [*files, "oof.csv"]:
        assert (runs[0] / file).read_bytes() == (runs[1] / file).read_bytes(), file


def test_folds_with_several_seeds_are_named_one_by_one_or_together(seeded, tmp_path, capsys):
    table = str(tmp_path / "p.csv")
    for given, expected in {
        "0_seed_7": ["0_seed_7"],
        "1": ["1_seed_3", "1_seed_7"],
        "all": ["all_seed_3", "all_seed_7"],
        None: ["0_seed_3", "0_seed_7", "1_seed_3", "1_seed_7"],
    }.items():
        words = ["--folds", given] if given else []
        assert main(["predict", str(seeded), "--device", "cpu", "--output", table, *words]) == 0
        assert read_provenance(tmp_path / "p.csv").folds == expected
    assert main(["predict", str(seeded), "--folds", "2"]) == 2
    assert "--folds names [2], but the run has folds ['0_seed_3'" in capsys.readouterr().err


def test_one_fold_with_all_of_its_seeds_is_fitted_alone(competition, tmp_path, capsys):
    keys = {"seeds": [3, 7], "trainer.max_epochs": 1}
    assert fit(competition, tmp_path, "--fold", "1", **keys) == 0
    run = tmp_path / "tiny"
    assert [path.name for path in sorted(run.glob("fold_*"))] == ["fold_1_seed_3", "fold_1_seed_7"]
    assert fit(competition, tmp_path, "--fold", "0_seed_7", "--resume", **keys) == 0
    assert (run / "fold_0_seed_7" / "result.json").is_file()
    assert fit(competition, tmp_path, "--resume", **{**keys, "seeds": [3]}) == 2
    assert "seeds: was [3, 7], is [3]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "options", "said"),
    [
        ({"seeds": [1, 1]}, [], "seeds is [1, 1]; give at least one, each once, or null."),
        ({"seeds": []}, [], "seeds is []; give at least one"),
        ({"seeds": [-1]}, [], "seeds is [-1]. Allowed: a number from 0 to 4294967293 each."),
        ({"seeds": [1]}, ["--fold", "0_seed_2"], "--fold 0_seed_2: the folds are 0_seed_1, 1_seed_1, …, all_seed_1."),
        ({}, ["--fold", "2"], "--fold 2: the folds are 0 to 1. `all` trains on every row."),
        ({}, ["--fold", "../0"], "--fold is '../0'; give the number of a fold, or all."),
        ({}, ["--fold", "every"], "--fold every: the folds are 0 to 1."),
    ],
)
def test_wrong_seeds_and_folds_are_refused(competition, tmp_path, capsys, keys, options, said):
    assert fit(competition, tmp_path, *options, **keys) == 2
    assert said in capsys.readouterr().err


def test_a_training_on_every_row_is_a_leak_for_any_fold(seeded, competition, tmp_path, capsys):
    weights = seeded / "fold_all_seed_3" / "weights.safetensors"
    keys = {"model.pretrained": str(weights), "trainer.max_epochs": 1}
    assert fit(competition, tmp_path, "--fold", "0", name="next", **keys) == 0
    assert "was trained on 12 of the 12 rows that fold 0 holds out" in capsys.readouterr().err
