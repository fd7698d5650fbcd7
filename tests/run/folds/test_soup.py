"""`checkpoint: {soup: …}`: a fold predicts with the mean of its epochs' weights, whenever it was killed."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import swinft
from swinft.cli import main
from swinft.model.scoring import METRICS
from swinft.run.experiment import save_net
from swinft.run.fold_files import Fold
from swinft.run.folds import fold as fold_module
from swinft.run.folds import recorder as recorder_module
from swinft.run.folds.kept import Kept, SoupConfig
from swinft.run.folds.soup import Soup, recompute
from swinft.store import commit
from tests.conftest import power_gone_after, tiny_config, write_config


def fit(competition, folder, *options, **changes):
    given = {"trainer.max_epochs": 4, "data.batch_size": 4, **changes}
    folder.mkdir(exist_ok=True)
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **given))
    assert main(["fit", "--config", str(config), "--fold", "0", *options]) == 0
    return folder / "runs" / "tiny" / "fold_0"


@pytest.fixture
def every_epoch(monkeypatch):
    """The weights that each epoch would predict with, by their number."""
    seen = {}
    save = recorder_module.FoldRecorder.on_train_epoch_end

    def look(recorder, trainer, task):
        seen[len(recorder.history) + 1] = {n: t.clone() for n, t in task.predictor.state_dict().items()}
        save(recorder, trainer, task)

    monkeypatch.setattr(recorder_module.FoldRecorder, "on_train_epoch_end", look)
    return seen


def result(fold):
    return json.loads((fold / "result.json").read_text())


def test_the_last_epochs_are_averaged_and_nothing_else_is_left_behind(competition, tmp_path, every_epoch, capsys):
    fold = fit(competition, tmp_path, checkpoint={"soup": "last", "epochs": 2})
    assert "predicts with the mean weights of epochs 3, 4" in capsys.readouterr().out
    weights = load_file(fold / "weights.safetensors")
    for name, tensor in weights.items():
        torch.testing.assert_close(
            tensor, (every_epoch[3][name].double() + every_epoch[4][name].double()).div(2).to(tensor.dtype)
        )
    assert not torch.equal(weights["head.linear.weight"], every_epoch[4]["head.linear.weight"])
    assert result(fold)["averaged_epochs"] == [3, 4]
    assert sorted(path.suffix for path in fold.iterdir() if path.is_file() and path.name.startswith("epoch-")) == []


def test_the_best_epochs_are_those_of_the_folds_own_scores(competition, tmp_path, every_epoch):
    fold = fit(competition, tmp_path, **{"checkpoint": {"soup": "best", "epochs": 2}, "model.metrics": ["log_loss"]})
    lines = [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]
    best = sorted(sorted(range(1, 5), key=lambda epoch: lines[epoch - 1]["val_log_loss"])[:2])
    assert result(fold)["averaged_epochs"] == best
    mean = (every_epoch[best[0]]["head.linear.weight"] + every_epoch[best[1]]["head.linear.weight"]) / 2
    torch.testing.assert_close(load_file(fold / "weights.safetensors")["head.linear.weight"], mean)


RESNET = {"model.backbone": "test_resnet", "model.backbone_args": None, "model.optim.lr": 1e-2, "model.ema_decay": None}


def test_a_killed_fold_averages_to_the_same_bytes(competition, tmp_path, monkeypatch):
    changes = {"checkpoint": {"soup": "greedy", "epochs": 2}, "trainer.max_epochs": 3, **RESNET}
    whole = fit(competition, tmp_path / "whole", **changes)
    with power_gone_after(2):
        fit(competition, tmp_path / "again", **changes)
    newest = max((tmp_path / "again" / "runs" / "tiny" / "fold_0").glob("epoch-*.ckpt"))
    newest.write_bytes(newest.read_bytes()[:-9])  # the crash has damaged it: the one before is gone on from
    with monkeypatch.context() as patch:
        patch.setattr(fold_module, "predict_held_out", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            fit(competition, tmp_path / "again", "--resume", **changes)
    again = fit(competition, tmp_path / "again", "--resume", **changes)
    for name in ("weights.safetensors", "oof.csv"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()
    assert result(whole)["averaged_epochs"] == result(again)["averaged_epochs"]


def test_statistics_of_batch_norm_are_those_of_the_average_on_the_training_rows(competition, tmp_path, every_epoch):
    auxiliary = {"data.columns": {"auxiliary": [{"target": "brightness", "target_kind": "regression"}]}}
    soup = {"checkpoint": {"soup": "last", "epochs": 2}, "data.batch_size": 12}
    fold = fit(competition, tmp_path, **soup, **auxiliary, **RESNET)
    weights = load_file(fold / "weights.safetensors")
    assert weights.keys() == every_epoch[4].keys()
    for key in [name for name in weights if name.startswith("auxiliary.")]:  # what only predicts has no such heads
        torch.testing.assert_close(weights.pop(key), (every_epoch[3][key] + every_epoch[4][key]) / 2)
    key = next(name for name in weights if name.endswith("bn1.running_mean"))
    mean = (every_epoch[3][key] + every_epoch[4][key]) / 2
    assert not torch.allclose(weights[key], mean, atol=1e-6)  # of the average of weights, not of statistics
    # All 12 training rows were one batch: their own statistics at the first BatchNorm behind the first convolution.
    data = swinft.CSVDataModule(
        root=str(competition), train="train.csv", image="images/{id}.jpg", target="color", target_kind="classification",
        folds={"file": str(fold.parent / "folds.csv"), "held_out": 0, "seed": 42}, image_size=32, batch_size=12,
    )  # fmt: skip
    data.setup("fit")
    task = swinft.FineTuneTask(
        swinft.ClassificationHead, "test_resnet", pretrained=False, num_outputs=3, context=swinft.TaskContext(32)
    )
    task.net.load_state_dict(weights)
    backbone = task.net.backbone
    batch = next(iter(data.train_dataloader()))["image"]
    with torch.no_grad():
        out = backbone.model.conv1((batch - backbone.mean) / backbone.std)
    torch.testing.assert_close(weights[key], out.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_statistics_of_several_images_per_row_are_of_those_that_exist():
    context = swinft.TaskContext(32, num_images=2)
    task = swinft.FineTuneTask(
        swinft.ClassificationHead, "test_resnet", pretrained=False, num_outputs=3, context=context
    )
    backbone, mask = task.net.backbone, torch.tensor([[True, True], [True, False], [True, True]])
    images = torch.randint(0, 256, (3, 2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[~mask] = 255
    loader = DataLoader([{"image": images, "image_mask": mask}], batch_size=None)
    norms = [module for module in task.net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    recompute(task.net.eval(), norms, loader, torch.device("cpu"), "32-true")
    with torch.no_grad():
        out = backbone.model.conv1[0]((images[mask] - backbone.mean) / backbone.std)
    torch.testing.assert_close(backbone.model.conv1[1].running_mean, out.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_a_greedy_soup_takes_what_makes_the_score_better(tmp_path):
    fold = Fold(tmp_path / "fold_0", 0)
    net = torch.nn.Linear(1, 1, bias=False)
    for epoch, value in enumerate((1.0, 4.0, -1.0, 0.5), start=1):
        net.weight.data.fill_(value)
        save_net(net, fold.candidate(epoch))

    def network():
        made = torch.nn.Linear(1, 1, bias=False)
        made.load_state_dict(load_file(fold.weights))
        return made

    loss = METRICS["rmse"]
    soup = Soup(fold, None, network, lambda made: abs(made.weight.item()), loss, torch.device("cpu"), "32-true")
    # 0.5 is best alone; with 1.0 it would be 0.75; with -1.0 it is -0.25; with 4.0 it would be worse again.
    assert soup.make(SoupConfig("greedy", 4), [4, 1, 3, 2]) == [3, 4]
    assert load_file(fold.weights)["weight"].item() == -0.25
    undefined = Soup(fold, None, network, lambda made: math.nan, loss, torch.device("cpu"), "32-true")
    assert undefined.make(SoupConfig("greedy", 2), [2, 1]) == [2]


def test_what_is_kept_is_enough_for_the_checkpoint_before(tmp_path):
    fold = Fold(tmp_path, 0)
    kept = Kept(fold, METRICS["accuracy"], SoupConfig("best", 2))
    scores, history = [0.5, 0.9, 0.7, 0.95, 0.1], []
    for score in scores:
        history.append({"val_accuracy": score, "val_loss": 1.0})
        for path in kept.files(history):
            commit(path, b"w", "swinft fit")
        kept.tidy(history)
        for seen in (history, history[:-1]):
            assert all(fold.candidate(number).is_file() for number in kept.candidates(seen))
        assert len(fold.candidates) <= 3
    assert kept.candidates(history) == [4, 2]


def test_a_training_on_every_row_averages_its_last_epochs_since_no_score_says_which_are_best(tmp_path):
    kept = Kept(Fold(tmp_path, "all"), METRICS["accuracy"], SoupConfig("greedy", 2))
    history = [{"epoch": epoch, "train_loss": 1.0} for epoch in (1, 2, 3)]
    assert kept.checkpoint == SoupConfig("last", 2)
    assert kept.candidates(history) == [2, 3]
    assert kept.best(history)["epoch"] == 3


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"soup": "best", "epochs": 1}, "checkpoint.epochs is 1. Allowed: a number from 2"),
        ({"soup": "last", "epochs": 9}, "checkpoint.epochs is 9, and training has 4 epochs"),
        ({"soup": "worst"}, "checkpoint"),
    ],
)
def test_an_average_that_cannot_be_had_is_refused(checkpoint, message, competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path, **{"checkpoint": checkpoint, "trainer.max_epochs": 4})
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
    assert message in capsys.readouterr().err
