"""`swinft lab hessian`: the loss of the training, its largest eigenvalues found twice, and the same bytes after a stop."""

import csv
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import swinft
from swinft.cli import main
from swinft.laboratory.hessian import LOSSES, Hessian
from swinft.laboratory.training_options import HessianSettings
from swinft.run.experiment import Experiment
from tests.conftest import tiny_config, write_config
from tests.laboratory.test_command import files

QUICK = ["--device", "cpu", "--mini_batch", "6", "--batches", "2", "--maxima", "2", "--lanczos_steps", "10"]


def lines_of(folder, name: str = "hessian") -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "lab" / name / f"{name}.csv").open()))


def test_maxima_of_both_methods_agree_and_l2_adds_its_coefficient(run, without_figures):
    words = [*QUICK, "--batches", "1", "--maxima", "1"]
    assert main(["lab", "hessian", str(run), *words]) == 0
    by_lanczos = lines_of(run)
    assert main(["lab", "hessian", str(run), *words, "--method", "power", "--weight_decay", "10"]) == 0
    by_power = lines_of(run)

    def maxima(lines, loss):
        return [
            float(line["eigenvalue"])
            for line in lines
            if (line["loss"], line["what"], line["place"]) == (loss, "maximum", "0")
        ]

    assert len(maxima(by_lanczos, "NLL")) == 1
    np.testing.assert_allclose(maxima(by_lanczos, "NLL"), maxima(by_power, "NLL"), rtol=1e-2)
    # Almost all weights are decayed: a coefficient above all eigenvalues moves the largest one by nearly as much.
    shift = np.subtract(maxima(by_power, "NLL + L2"), maxima(by_power, "NLL"))
    assert ((shift > 8) & (shift < 10.001)).all()
    assert all(
        float(line["residual"]) < 0.1 * abs(float(line["eigenvalue"]))
        for line in by_lanczos
        if line["place"] == "0" and line["what"] == "maximum"
    )


def test_the_loss_is_that_of_the_networks_training(run, without_figures):
    assert main(["lab", "hessian", str(run), *QUICK, "--batches", "1"]) == 0
    fold = swinft.open_run(run)
    values = {float(line["nll"]) for line in lines_of(run)}
    (value,) = values
    experiment = Experiment.of_run(fold._files, "lab", None)
    module = experiment.datamodule(fold._files, folds={"held_out": 0}, batch_size=6, loading={"num_workers": 0})
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    with torch.no_grad():
        logits = fold.network(0)(batch["image"])
    assert value == pytest.approx(float(nn.functional.cross_entropy(logits, batch["target"])), rel=1e-5)


@pytest.mark.slow
def test_a_stopped_command_continues_with_the_same_bytes(run, tmp_path, monkeypatch, without_figures):
    other = shutil.copytree(run, tmp_path / "other" / "tiny")
    assert main(["lab", "hessian", str(run), *QUICK]) == 0
    measure, calls = Hessian.measure, []

    def killed(self, subject, step):
        calls.append(step)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(self, subject, step)

    monkeypatch.setattr(Hessian, "measure", killed)
    assert main(["lab", "hessian", str(other), *QUICK]) == 130
    assert main(["lab", "hessian", str(other), *QUICK]) == 0
    assert calls == ["batch 0", "batch 1", "batch 1"]
    assert files(run / "lab") == files(other / "lab")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "arguments", "changes"),
    [
        ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 12, "num_heads": 2, "patch_size": 8}, {}),
        ("swinv2_tiny_window8_256", {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}, {}),
        ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, {"model.mix": {"mixup_alpha": 0.5}}),
        (
            "convnext_atto",
            {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
            {
                "data.target": "brightness",
                "data.target_kind": "regression",
                "model.head": {"class_path": "swinft.RegressionHead"},
            },
        ),
        (
            "swin_mlp_tiny_c24_patch4_window8_256",
            {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]},
            {
                "data.target": ["is_red", "is_green"],
                "data.target_kind": "multilabel",
                "model.head": {"class_path": "swinft.MultilabelHead"},
            },
        ),
    ],
)
def test_every_kind_of_network_and_target(backbone, arguments, changes, competition, tmp_path):
    changes = {"model.backbone": backbone, "model.backbone_args": arguments, "trainer.max_epochs": 1, **changes}
    config = tiny_config(competition, tmp_path, **changes)
    assert main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config)), "--fold", "0"]) == 0
    assert main(["lab", "hessian", str(tmp_path / "tiny"), *QUICK]) == 0
    assert all(np.isfinite(float(line["eigenvalue"])) for line in lines_of(tmp_path / "tiny"))
    words = ["--device", "cpu", "--points", "3", "--training_rows", "6", "--mini_batch", "6"]
    assert main(["lab", "landscape", str(tmp_path / "tiny"), *words]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mini_batch", "64"], "trains on 12 rows, fewer than a mini-batch of 64"),
        (["--maxima", "30"], "maxima is 30, more than the 24 lanczos_steps"),
        (["--method", "newton"], "newton"),
        (["--weight_decay", "-1"], "weight_decay is -1"),
    ],
)
def test_wrong_options_name_the_fix(words, message, tiny_run, capsys):
    assert main(["lab", "hessian", str(tiny_run), "--device", "cpu", *words]) == 2
    assert message in capsys.readouterr().err


def test_figures_of_several_runs_also_where_nothing_is_negative():
    line = {"batch": 0, "nll": 1.0, "what": "maximum", "place": 0, "weight": 1.0, "residual": 0.0}
    lines = [
        {**line, "loss": loss, "what": what, "eigenvalue": value}
        for loss in LOSSES
        for what in ("maximum", "density")
        for value in (0.5, 2.0, None)
    ]
    instrument = Hessian(HessianSettings())
    assert instrument.summarize(lines)["share of negative eigenvalues"] == 0
    pictures = [drawing.svg() for drawing in instrument.figures({"one": lines, "$two$ <b>": lines})]
    assert len(pictures) == 2
    assert all("$two$ &lt;b&gt;" in picture for picture in pictures)
    assert not any("mathdefault" in picture for picture in pictures)  # labels of axes are no mathematical text
