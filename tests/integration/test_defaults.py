"""Learning rates that nobody set: from the backbone's family and its weights, the same after a resume, and said."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from swinft import ClassificationHead, FineTuneTask
from swinft.cli import main
from swinft.model.training.optim import OptimConfig
from swinft.model.training.schedules import warmup_steps
from swinft.model.training.steps import Steps
from tests.conftest import TINY_SWIN, tiny_config, with_context, write_config

FROM_SCRATCH, WITH_BATCH_NORM, WITHOUT_BATCH_NORM = (1e-3, 1e-3), (2e-3, 2e-3), (1e-4, 1e-3)
RESNET = {"layers": [1, 1, 1, 1], "stem_width": 8, "channels": [8, 8, 8, 8]}
NETWORKS = {
    "swin_tiny_patch4_window7_224": ({**TINY_SWIN}, WITHOUT_BATCH_NORM),
    "convnext_tiny": ({"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}, WITHOUT_BATCH_NORM),
    "resnet18": (RESNET, WITH_BATCH_NORM),
}


def make_task(name, arguments, pretrained, **options):
    return FineTuneTask(
        ClassificationHead,
        name,
        pretrained,
        arguments,
        num_outputs=3,
        **with_context(image_size=32, **options),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rates_follow_the_family_and_the_weights(name, tmp_path):
    arguments, rates = NETWORKS[name]
    assert (lambda task: (task.optim.lr, task.optim.head_lr))(make_task(name, arguments, False)) == FROM_SCRATCH
    sized = {"img_size": 32} if "swin" in name else {}
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model(name, num_classes=0, **arguments, **sized).state_dict(), file)
    for loads_weights in (True, False):  # a resumed fold does not load the file, and learns at the same rates
        task = make_task(name, arguments, str(file), loads_weights=loads_weights)
        assert (task.optim.lr, task.optim.head_lr) == rates
        assert task.hparams["optim"]["lr"] == "auto"
    explicit = make_task(name, arguments, str(file), optim=OptimConfig(lr=7e-4))
    assert (explicit.optim.lr, explicit.optim.head_lr) == (7e-4, None)
    own_head = make_task(name, arguments, str(file), optim=OptimConfig(head_lr=0.5))
    assert (own_head.optim.lr, own_head.optim.head_lr) == (rates[0], 0.5)


@pytest.mark.parametrize(("total", "per_epoch"), [(38, 19), (190, 19), (3, 1)])
def test_the_warm_up_is_a_tenth_of_the_training(total, per_epoch):
    assert warmup_steps(OptimConfig(), Steps(total, per_epoch)) == pytest.approx(total / 10)


def test_what_was_chosen_is_printed_and_resumes(competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 2})
    del config["model"]["optim"]
    words = ["fit", "--config", str(write_config(tmp_path / "c.yaml", config)), "--fold", "0"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "lr 0.001: without batch normalisation, random weights, 12 rows (model.optim.lr auto)\n" in said
    assert "learning rate 0.001 in all layers, 0 of 4 steps of warm-up\n" in said
    assert main([*words, "--model.optim.lr", "fast", "--name", "other"]) == 2
    assert main([*words, "--model.optim.lr", "1e-3", "--name", "set"]) == 0
    assert "model.optim.lr auto" not in capsys.readouterr().out


def test_a_network_that_starts_from_scratch_learns_with_the_defaults(competition, tmp_path):
    torch.manual_seed(0)
    config = tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 20, "data.batch_size": 4})
    del config["model"]["optim"], config["model"]["ema_decay"]
    assert main(["fit", "--config", str(write_config(tmp_path / "c.yaml", config)), "--fold", "0"]) == 0
    lines = (tmp_path / "runs" / "tiny" / "fold_0" / "metrics.jsonl").read_text().splitlines()
    losses = [float(line.partition('"train_loss": ')[2].partition(",")[0]) for line in lines]
    assert losses[-1] < 0.5 * losses[0]
