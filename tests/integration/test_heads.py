"""Heads, losses and poolings named in a config: runs resume to the same bytes, and count the rows of their fold alone."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from swinft.cli import main
from swinft.inference.predictions import Predictions
from tests.conftest import power_gone_after, tiny_config, write_config

NUMBERS = {"data.target": "brightness", "data.target_kind": "regression"}
ARCFACE = {"margin": 0.4, "smallest_margin": 0.1, "sub_centres": 2, "dropout": 0.2, "dropout_samples": 3}
RUNS = {
    "arcface": {
        "model.head": {"class_path": "swinft.ArcFaceHead", "init_args": ARCFACE},
        "model.pooling": "gated_attention",
        "model.mix": {"mixup_alpha": 1.0, "cutmix_alpha": 1.0},
    },
    "distribution": {
        **NUMBERS,
        "model.head": {"class_path": "swinft.LabelDistributionHead", "init_args": {"low": 0.0, "high": 100.0}},
        "model.pooling": {"class_path": "swinft.StagesPooling", "init_args": {"stages": [0], "pool": "max"}},
        "model.mix": {"mixup_alpha": 1.0},
    },
}


@pytest.fixture(scope="module")
def uneven(competition, tmp_path_factory):
    """A table of 8 red, 4 green and 6 blue rows, with a fold for each row."""
    folder = tmp_path_factory.mktemp("uneven")
    lines = (competition / "train.csv").read_text().splitlines()
    left = [line for i, line in enumerate(lines[1:]) if not (i % 3 == 1 and i > 12) and not (i % 3 == 2 and i > 18)]
    (folder / "train.csv").write_text("\n".join([lines[0], *left]) + "\n")
    folds = [f"{line.split(',')[0]},{int(i % 5 < 2)}" for i, line in enumerate(left)]
    (folder / "folds.csv").write_text("\n".join(["id,fold", *folds]) + "\n")
    return folder


def config_of(competition, uneven, folder, **changes):
    tables = {"data.train": str(uneven / "train.csv"), "data.folds": {"file": str(uneven / "folds.csv")}}
    return write_config(folder / "config.yaml", tiny_config(competition, folder / "runs", **{**tables, **changes}))


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_has_the_same_bytes_and_predicts_in_the_targets_units(name, competition, uneven, tmp_path):
    config = config_of(competition, uneven, tmp_path, **RUNS[name])
    assert main(["fit", "--config", str(config), "--fold", "0", "--name", "whole"]) == 0
    with power_gone_after(1):
        main(["fit", "--config", str(config), "--fold", "0"])
    assert main(["fit", "--config", str(config), "--fold", "0", "--resume"]) == 0
    whole, resumed = (tmp_path / "runs" / run / "fold_0" for run in ("whole", "tiny"))
    for file in ("weights.safetensors", "oof.csv"):
        assert (whole / file).read_bytes() == (resumed / file).read_bytes()
    assert main(["predict", str(tmp_path / "runs" / "tiny"), "--folds", "0", "--device", "cpu"]) == 0
    outputs = 3 if name == "arcface" else 1
    values = Predictions.read(tmp_path / "runs" / "tiny" / "test_predictions.csv", outputs).values
    if name == "arcface":
        np.testing.assert_allclose(values.sum(1), 1, rtol=1e-5)
        assert 1 < load_file(resumed / "weights.safetensors")["head.margins"].sum() / 0.1 < 12
    else:
        assert ((values > 20) & (values < 90)).all()  # of the training rows


def test_each_fold_counts_the_classes_of_the_rows_that_it_trains_on(competition, uneven, tmp_path):
    loss = {"class_path": "swinft.BalancedSoftmaxLoss", "init_args": {"tau": 0.5}}
    head = {"class_path": "swinft.ClassificationHead", "init_args": {"loss": loss}}
    config = config_of(competition, uneven, tmp_path, **{"model.head": head, "trainer.max_epochs": 1})
    rows = dict(line.split(",")[:2] for line in (uneven / "train.csv").read_text().splitlines()[1:])
    folds = dict(line.split(",") for line in (uneven / "folds.csv").read_text().splitlines()[1:])
    found = []
    for fold in (0, 1):
        assert main(["fit", "--config", str(config), "--fold", str(fold), *(["--resume"] if fold else [])]) == 0
        trained = [color for id, color in rows.items() if int(folds[id]) != fold]
        counts = np.array([trained.count(color) for color in ("blue", "green", "red")])
        prior = load_file(tmp_path / "runs" / "tiny" / f"fold_{fold}" / "weights.safetensors")[
            "head.own_loss.log_prior"
        ]
        np.testing.assert_allclose(prior.exp(), counts / counts.sum(), rtol=1e-5)
        found.append(prior)
    assert not torch.equal(*found)


def test_balanced_weights_and_words_act_in_a_run(competition, uneven, tmp_path):
    """Each word changes what is learnt, and its weights say what they were learnt with."""
    weights = {}
    for name, arguments in {
        "plain": {},
        "balanced": {"class_weights": "balanced"},
        "focal": {"loss": "focal"},
        "samples": {"dropout": 0.3, "dropout_samples": 4},
        "dropout": {"dropout": 0.3},
    }.items():
        head = {"class_path": "swinft.ClassificationHead", "init_args": arguments}
        changes = {"model.head": head, "trainer.max_epochs": 1, "model.ema_decay": None}
        config = config_of(competition, uneven, tmp_path, **changes)
        assert main(["fit", "--config", str(config), "--fold", "0", "--name", name]) == 0
        weights[name] = load_file(tmp_path / "runs" / name / "fold_0" / "weights.safetensors")
    linear = [each["head.linear.weight"] for each in weights.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(linear) for b in linear[:i])
    assert "head.weights" in weights["balanced"]
    assert "head.weights" not in weights["plain"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.head": {"class_path": "swinft.OrdinalHead"}},
            "is for classes in an order, and the classes blue, green, red are not numbers. Set data.columns.class_order",
        ),
        (
            {"model.head": {"class_path": "swinft.OrdinalRegressionHead", "init_args": {"grades": [0, 50]}}, **NUMBERS},
            "the targets go from 20 to 89, outside the range [0.0, 50.0] of model.head",
        ),
        (
            {
                "model.head": {"class_path": "swinft.RegressionHead", "init_args": {"loss": "pearson"}},
                "data.batch_size": 1,
                **NUMBERS,
            },
            "PearsonLoss compares the rows of a batch, and there is one: set data.batch_size to 2 or more",
        ),
        ({"model.pooling": "cls"}, "SwinTransformer has no class token: set model.pooling to avg"),
        (
            {"model.head": {"class_path": "swinft.ClassificationHead", "init_args": {"loss": "asymmetric"}}},
            "asymmetric",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_training(changes, message, competition, tmp_path, capsys):
    config = write_config(tmp_path / "config.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def test_an_ordinal_head_of_classes_in_an_order_is_scored_by_kappa(competition, tmp_path):
    head = {"class_path": "swinft.OrdinalHead", "init_args": {"form": "coral"}}
    changes = {"model.head": head, "data.columns": {"class_order": ["green", "blue", "red"]}, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "config.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    fold = tmp_path / "runs" / "tiny" / "fold_0"
    metrics = json.loads((fold / "metrics.jsonl").read_text().splitlines()[-1])
    assert "quadratic_kappa" in " ".join(metrics)
    weights = load_file(fold / "weights.safetensors")
    assert weights["head.thresholds.linear.weight"].shape[0] == 1
    assert weights["head.thresholds.bias"].shape == (1, 2)
