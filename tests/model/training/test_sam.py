"""`model.optim.name: sam`: gradients are those of the worst weights nearby, on the same batch, mix and dropout."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from swinft import ClassificationHead, FineTuneTask, MixConfig, OptimConfig
from swinft.cli import main
from swinft.errors import InputError
from swinft.model.training.optimizers import make_optimizer
from swinft.model.training.sam import SAM
from tests.conftest import TINY_SWIN, power_gone_after, tiny_config, with_context, write_config

CPU = torch.device("cpu")


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_step_is_that_of_the_base_with_the_gradient_nearby(adaptive):
    torch.manual_seed(0)
    weight, target = nn.Parameter(torch.randn(4)), torch.randn(4)
    before = weight.detach().clone()
    sam = SAM(torch.optim.SGD([weight], lr=0.1), rho=0.5, adaptive=adaptive)
    seen = []

    def closure():
        sam.zero_grad()
        loss = ((weight - target) ** 4).sum()
        loss.backward()
        seen.append(weight.detach().clone())
        return loss

    loss = sam.step(closure)
    gradient = 4 * (before - target) ** 3
    factor = before.abs() if adaptive else torch.ones(4)
    nearby = before + 0.5 * factor**2 * gradient / (factor * gradient).norm()
    torch.testing.assert_close(seen[0], before)
    torch.testing.assert_close(seen[1], nearby)
    torch.testing.assert_close(weight.detach(), before - 0.1 * 4 * (nearby - target) ** 3)
    torch.testing.assert_close(loss.detach(), ((before - target) ** 4).sum())


def made(**given):
    config = OptimConfig(lr=0.1, **given)
    weight = nn.Parameter(torch.ones(3, 3))
    groups = [{"params": [weight], "lr": 0.1, "weight_decay": 0.0, "layers": [0]}]
    return make_optimizer(groups, config, CPU, scales_loss=False)


def test_the_base_has_its_arguments_and_its_state_is_saved():
    sam = made(name="sam", args={"base": "sgd", "momentum": 0.25, "rho": 0.1, "adaptive": True})
    assert (sam.rho, sam.adaptive, sam.base.param_groups[0]["momentum"]) == (0.1, True, 0.25)
    assert isinstance(made(name="sam").base, torch.optim.AdamW)
    [weight] = sam.param_groups[0]["params"]

    def closure():
        weight.grad = torch.ones_like(weight)

    sam.step(closure)
    again = made(name="sam", args={"base": "sgd", "momentum": 0.25})
    again.load_state_dict(sam.state_dict())
    [other] = again.param_groups[0]["params"]
    assert torch.equal(again.base.state[other]["momentum_buffer"], sam.state[weight]["momentum_buffer"])
    assert again.param_groups is again.base.param_groups


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"rho": 0}, "rho is 0. Allowed: a number above 0"),
        ({"base": "schedulefree_adamw"}, "base of 'sam' is 'schedulefree_adamw'"),
        ({"base": "adamm"}, "Did you mean 'adam'"),
        ({"momentun": 1}, "momentun"),
    ],
)
def test_wrong_arguments_are_refused(args, message):
    with pytest.raises(InputError, match=message):
        made(name="sam", args=args)


def test_fp16_and_accumulation_are_refused(competition, tmp_path, capsys):
    groups = [{"params": [nn.Parameter(torch.ones(3, 3))], "lr": 0.1, "weight_decay": 0.0, "layers": [0]}]
    with pytest.raises(InputError, match="which fp16 does not"):
        make_optimizer(groups, OptimConfig(lr=0.1, name="sam"), CPU, scales_loss=True)
    changes = {"model.optim.name": "sam", "trainer.accumulate_grad_batches": 2}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert "set trainer.accumulate_grad_batches to 1" in capsys.readouterr().err


class Look(pl.Callback):
    """What the network was given and gave, pass by pass, and the weights after each batch."""

    def __init__(self, task):
        self.inputs, self.outputs, self.losses, self.updates, self.means = [], [], [], [], []
        self.norm = next((m for m in task.net.modules() if isinstance(m, nn.BatchNorm2d)), None)
        task.net.head.register_forward_hook(self.passed)
        task.net.backbone.register_forward_pre_hook(lambda _, given: self.inputs.append(given[0].clone()))

    def passed(self, module, given, output):
        self.outputs.append(output.detach().clone())
        self.means += [] if self.norm is None else [self.norm.running_mean.clone()]

    def on_train_batch_end(self, trainer, task, *_):
        self.losses.append(len(task._losses._taken))
        self.updates.append(int(task.averaged.updates))


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "test_resnet"])
def test_both_passes_see_the_same_mix_and_dropout_and_count_once(backbone):
    torch.manual_seed(0)
    task = FineTuneTask(
        **with_context(
            head=ClassificationHead, backbone=backbone, pretrained=False, num_outputs=3, image_size=32, ema_decay=0.9,
            backbone_args=dict(TINY_SWIN) if "swin" in backbone else None,
            drop_path_rate=0.5 if "swin" in backbone else None, mix=MixConfig(mixup_alpha=1.0),
            optim=OptimConfig(lr=1e-9, name="sam", args={"rho": 1e-9}, warmup_epochs=0, weight_decay=0.0),
        )
    )  # fmt: skip
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=rng)
    batches = [{"image": image, "target": torch.tensor([0, 1, 2] * 2), "row": torch.arange(6)}] * 3
    look = Look(task)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    counted = [m for m in task.net.modules() if isinstance(m, nn.BatchNorm2d)]
    pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=[look], enable_checkpointing=False, **quiet).fit(
        task, DataLoader(batches, batch_size=None)
    )
    assert len(look.inputs) == 6
    for first in (0, 2, 4):
        assert torch.equal(look.inputs[first], look.inputs[first + 1])
        torch.testing.assert_close(look.outputs[first], look.outputs[first + 1], atol=1e-4, rtol=1e-4)
    assert not torch.equal(look.inputs[0], look.inputs[2])
    # A loss and an update for each batch, not for each pass; the last ones come after the callback's look.
    assert look.losses == look.updates == [0, 1, 2]
    assert len(task._losses._taken) == int(task.averaged.updates) == 3
    assert all(norm.momentum == 0.1 for norm in counted)
    for first, second in zip(look.means[::2], look.means[1::2], strict=True):
        assert torch.equal(first, second)  # the second pass leaves the statistics alone
    assert len(look.means) == (6 if counted else 0)
    assert not counted or not torch.equal(look.means[1], look.means[2])


def test_a_run_with_sam_resumes_to_the_same_bytes(competition, tmp_path):
    def fitted(name, *options, **changes):
        given = {"model.backbone": "test_resnet", "model.backbone_args": None, **changes}
        config = write_config(
            tmp_path / f"{name}.yaml", tiny_config(competition, tmp_path / "runs", name=name, **given)
        )
        assert main(["fit", "--config", str(config), "--fold", "0", *options]) == 0
        return (tmp_path / "runs" / name / "fold_0" / "weights.safetensors").read_bytes()

    sam = {"model.optim.name": "sam", "model.optim.args": {"rho": 0.1}}
    whole = fitted("whole", **sam)
    with power_gone_after(1):
        fitted("again", **sam)
    assert fitted("again", "--resume", **sam) == whole
    assert fitted("plain") != whole
