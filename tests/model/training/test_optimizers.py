"""`model.optim.name` and `model.optim.schedule`: rates per layer and exceptions from decay act in all of them."""

from itertools import pairwise

import lightning.pytorch as pl
import pytest
import timm.optim
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from swinft import ClassificationHead, FineTuneTask, OptimConfig
from swinft.cli import main
from swinft.errors import InputError
from swinft.model.training.optimizers import make_optimizer
from swinft.model.training.schedules import NAMES, make_schedule
from swinft.model.training.steps import Steps
from tests.conftest import TINY_SWIN, tiny_config, with_context, write_config

CPU = torch.device("cpu")
STEPS = Steps(100, 10)


class Plain(Optimizer):
    """Weights minus rate times gradient."""

    def __init__(self, params, lr, weight_decay=0.0, factor=1.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "factor": factor})

    def step(self, closure=None):
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data.sub_(group["lr"] * group["factor"] * weight.grad)
        return loss


class OwnRates(Plain):
    """One rate for everything."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, lr, weight_decay)
        for group in self.param_groups:
            group["lr"] = lr


class NeedsClosure(Plain):
    def step(self, closure):
        return closure()


class Halves(LRScheduler):
    """Halves after every step."""

    def __init__(self, optimizer, num_training_steps, share=0.5):
        self.total, self.share = num_training_steps, share
        super().__init__(optimizer)

    def get_lr(self):
        return [rate * self.share**self.last_epoch for rate in self.base_lrs]


class Alike(LRScheduler):
    """The same rate for all groups."""

    def get_lr(self):
        return [1.0 for _ in self.base_lrs]


def groups_of(**given):
    config = OptimConfig(**{"lr": 0.1, "layer_decay": 0.5, **given})
    made = [nn.Parameter(torch.full((3, 3), 1.0)) for _ in range(2)]
    groups = [
        {"params": [each], "lr": lr, "weight_decay": decay, "layers": [0]}
        for each, lr, decay in zip(made, (0.1, 0.05), (config.weight_decay, 0.0), strict=True)
    ]
    return config, made, groups


def optimizer_of(**given):
    config, made, groups = groups_of(**given)
    return config, made, make_optimizer(groups, config, CPU, scales_loss=False)


def rates_of(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def curve(count=101, **given):
    """Factors on the first group's rate, after it was checked that the others keep their share."""
    config, made, optimizer = optimizer_of(**given)
    schedule = make_schedule(optimizer, config, STEPS)
    found = []
    for _ in range(count):
        first, second = rates_of(optimizer)
        assert first == pytest.approx(2 * second)  # layer decay acts
        found.append(first / 0.1)
        for each in made:
            each.grad = torch.zeros_like(each)
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "lamb", "adafactor", "nadamw", "muon", "adan"])
def test_rates_and_decays_of_groups_act_in_timms_optimisers(name):
    _, (decayed, other), optimizer = optimizer_of(name=name)
    assert rates_of(optimizer) == [0.1, 0.05]
    for each in (decayed, other):
        each.grad = torch.full_like(each, 0.5) + torch.eye(3)
    before = [group["weight_decay"] for group in optimizer.param_groups]
    assert before == [0.05, 0.0]
    optimizer.step()
    moved = [(1 - each).abs().mean().item() for each in (decayed, other)]
    assert moved[0] > moved[1] > 0


def test_arguments_reach_a_named_optimiser_and_a_class():
    _, _, optimizer = optimizer_of(name="sgd", args={"momentum": 0.25})
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.25
    _, (first, second), optimizer = optimizer_of(name={"class_path": f"{__name__}.Plain", "init_args": {"factor": 2.0}})
    for each in (first, second):
        each.grad = torch.ones_like(each)
    optimizer.step()
    assert (first.mean().item(), second.mean().item()) == pytest.approx((0.8, 0.9))
    assert OptimConfig(name=Plain).name == {"class_path": f"{__name__}.Plain", "init_args": {}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "adamm"}, r"model.optim.name is 'adamm'; it must be adamw, another name.* Did you mean 'adam'"),
        ({"name": "adahessian"}, "'adahessian' needs second derivatives"),
        (
            {"name": "sgd", "betas": (0.8, 0.9)},
            "model.optim.betas is for adamw: set those of 'sgd' in model.optim.args",
        ),
        ({"name": "sgd", "args": {"momentun": 1}}, "'sgd' cannot be built for 2 groups .*momentun"),
        ({"name": "sgd", "args": {"lr": 1}}, "the argument lr of 'sgd' would have no effect: every parameter group"),
        ({"name": torch.optim.LBFGS}, "LBFGS' cannot be built for 2 groups of parameters with no arguments"),
        ({"name": torch.optim.Rprop}, "Rprop' has no weight decay: set model.optim.weight_decay to 0"),
        ({"name": OwnRates}, "OwnRates' does not keep a learning rate per parameter group"),
        ({"name": NeedsClosure}, "NeedsClosure' needs a closure"),
        ({"name": nn.Linear}, "model.optim.name is a 'torch.nn.modules.linear.Linear', which is not loaded"),
        (
            {"name": Plain, "args": {"factor": 2}},
            "model.optim.args is for named optimisers: set those of .*Plain in its",
        ),
        ({"name": 3}, "model.optim.name is a int; it must be a name, or a class"),
    ],
)
def test_an_optimiser_that_could_not_act_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        optimizer_of(**given)


def test_a_schedule_free_optimiser_validates_and_saves_the_weights_that_it_averages():
    class Look(pl.Callback):
        def __init__(self):
            self.trained, self.validated, self.modes = [], [], set()

        def on_train_batch_end(self, trainer, task, *_):
            self.trained.append(task.net.head.linear.weight.detach().clone())
            self.modes.add(trainer.optimizers[0].param_groups[0]["train_mode"])

        def on_validation_batch_start(self, trainer, task, *_):
            self.validated.append(task.net.head.linear.weight.detach().clone())
            self.modes.add(trainer.optimizers[0].param_groups[0]["train_mode"])

    torch.manual_seed(0)
    optim = OptimConfig(lr=1e-2, name="schedulefree_adamw", schedule="constant", warmup_epochs=0)
    given = {"pretrained": False, "backbone_args": dict(TINY_SWIN), "num_outputs": 3, "image_size": 32}
    task, look = FineTuneTask(ClassificationHead, **with_context(**given), optim=optim), Look()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=2, callbacks=[look], enable_checkpointing=False, **quiet)
    trainer.fit(task, *(DataLoader(batches(), batch_size=None) for _ in range(2)))
    assert look.modes == {True, False}
    assert not torch.equal(look.trained[-1], look.validated[-1])
    assert torch.equal(task.net.head.linear.weight, look.validated[-1])
    # The weights that are trained lie between those that are averaged and those of plain AdamW.
    z = trainer.optimizers[0].state[task.net.head.linear.weight]["z"]
    torch.testing.assert_close(look.trained[-1], 0.9 * look.validated[-1] + 0.1 * z)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'schedulefree_adamw' takes the place of a schedule: set model.optim.schedule to constant"),
        ({"ema_decay": 0.9, "schedule": "constant"}, "averages weights by itself: set model.ema_decay to null"),
        ({"backbone": "test_resnet", "schedule": "constant"}, "name a model.backbone without BatchNorm"),
    ],
)
def test_what_would_spoil_a_schedule_free_optimiser_is_refused_by_check(competition, tmp_path, capsys, given, message):
    changes = {"model.optim.name": "schedulefree_adamw", "model.ema_decay": given.get("ema_decay")}
    changes |= {"model.optim.schedule": given.get("schedule", "warmup_cosine")}
    if "backbone" in given:
        changes |= {"model.backbone": given["backbone"], "model.backbone_args": None}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert message in capsys.readouterr().err


def test_every_name_of_timm_is_built_or_refused_in_words():
    built = 0
    for name in timm.optim.list_optimizers(exclude_filters=["kron*"]):  # torch.compile takes them twenty seconds
        try:
            _, made, optimizer = optimizer_of(name=name)
        except InputError:  # of a package that is not installed, or one that cannot be had so
            continue
        for each in made:
            each.grad = torch.ones_like(each)
        optimizer.step()
        built += 1
    assert built > 60


def test_named_schedules_are_what_they_say():
    assert curve(schedule="constant", warmup_epochs=1)[9:] == pytest.approx([10 / 11, *[1.0] * 91])
    line = curve(schedule="linear", warmup_epochs=1, min_lr_ratio=0.2)
    assert (line[10], line[55], line[100]) == pytest.approx((1.0, 0.6, 0.2))
    one = curve(schedule="onecycle", min_lr_ratio=0.0)
    assert (one[0], one[30], one[100]) == pytest.approx((1 / 25, 1.0, 0.0), abs=1e-6)
    assert one[65] == pytest.approx(0.5)
    steps = curve(schedule="multistep", schedule_args={"decay_t": [3, 6], "decay_rate": 0.1}, warmup_epochs=0)
    assert (steps[28], steps[30], steps[60]) == pytest.approx((1.0, 0.1, 0.01))
    cosine = curve(schedule="cosine", warmup_epochs=0)
    assert cosine == pytest.approx(curve(schedule="warmup_cosine", warmup_epochs=0))
    restarts = curve(schedule="cosine", schedule_args={"t_initial": 5, "cycle_limit": 2}, warmup_epochs=0)
    assert restarts[50] == pytest.approx(1.0)
    for name in ("tanh", "poly"):
        falling = curve(schedule=name, warmup_epochs=1)
        assert all(before >= after for before, after in pairwise(falling[10:])), name


def test_classes_of_schedules_are_given_the_length_and_the_rates():
    halves = curve(count=3, schedule=Halves)
    assert halves == pytest.approx([1.0, 0.5, 0.25])
    cosine = curve(schedule=torch.optim.lr_scheduler.CosineAnnealingLR)
    assert (cosine[50], cosine[100]) == pytest.approx((0.5, 0.0), abs=1e-9)
    assert max(curve(count=100, schedule=torch.optim.lr_scheduler.OneCycleLR)) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": "cosin"}, "model.optim.schedule is 'cosin'; it must be one of .* Did you mean 'cosine'"),
        (
            {"schedule": "constant", "min_lr_ratio": 0.5},
            "min_lr_ratio has no effect with model.optim.schedule constant",
        ),
        ({"schedule": Halves, "warmup_epochs": 1}, "warmup_epochs has no effect with model.optim.schedule .*Halves"),
        ({"schedule": "onecycle", "schedule_args": {"a": 1}}, "schedule_args is {'a': 1}, and 'onecycle' has none"),
        ({"schedule": "step", "schedule_args": {"decay": 1}}, "'step' has no argument 'decay'. Did you mean 'decay_t'"),
        ({"schedule": "step"}, "model.optim.schedule is 'step' with no schedule_args: .*decay_t"),
        ({"schedule": Alike}, "Alike changes the ratios of the learning rates"),
        ({"schedule": torch.optim.lr_scheduler.ReduceLROnPlateau}, "ReduceLROnPlateau follows a metric"),
        ({"schedule": torch.optim.lr_scheduler.StepLR}, "StepLR cannot be built with no arguments: TypeError"),
        (
            {"schedule": {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 1.0}}},
            "OneCycleLR changes the ratios of the learning rates",
        ),
    ],
)
def test_a_schedule_that_could_not_act_is_refused(given, message):
    config, _, optimizer = optimizer_of(**given)
    with pytest.raises(InputError, match=message):
        make_schedule(optimizer, config, STEPS)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"name": {"class_path": "torch.nn.Linear"}},
            "'torch.nn.Linear' has the wrong type: model.optim.name needs a class",
        ),
        ({"schedule": {"class_path": "torch.optim.SGD"}}, "'torch.optim.SGD' has the wrong type: model.optim.schedule"),
        ({"name": {"class_path": "torch.optim.SGD", "init_args": {"momentun": 1}}}, "has no argument 'momentun'"),
        ({"name": {"class_path": "mine.Optimiser"}}, "add --allow-code mine"),
        ({"name": "lionn"}, "Did you mean 'lion'"),
        ({"schedule": "one_cycle"}, "Did you mean 'onecycle'"),
    ],
)
def test_what_a_config_may_not_say_is_found_before_a_run(competition, tmp_path, capsys, keys, message):
    changes = {f"model.optim.{key}": value for key, value in keys.items()}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def batches():
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=rng)
    return [{"image": image, "target": torch.tensor([0, 1, 2] * 2), "row": torch.arange(6)}] * 4


@pytest.mark.parametrize(
    ("name", "schedule", "accumulate"),
    [
        ("nadamw", "onecycle", 1),
        ("nadamw", Halves, 1),
        *((name, "linear", 2) for name in ("muon", "lion", "adan", "radam", "madgrad", "lamb")),
        ("schedulefree_adamw", "constant", 2),
        ("schedulefree_radam", "constant", 1),
    ],
)
def test_a_fit_goes_on_with_optimiser_and_schedule_to_the_bit(tmp_path, name, schedule, accumulate):
    def fit(epochs, ckpt=None, stop=None):
        torch.manual_seed(0)
        optim = OptimConfig(lr=1e-3, name=name, schedule=schedule, layer_decay=0.5)
        given = {"pretrained": False, "backbone_args": dict(TINY_SWIN), "num_outputs": 3, "image_size": 32}
        task = FineTuneTask(ClassificationHead, **with_context(**given), optim=optim)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        steps = {"accumulate_grad_batches": accumulate, "enable_checkpointing": False}
        trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs, **steps, **quiet)
        if stop:
            end = task.on_train_epoch_end
            task.on_train_epoch_end = lambda: (end(), setattr(trainer, "should_stop", True))
        trainer.fit(task, DataLoader(batches(), batch_size=None), ckpt_path=ckpt, weights_only=True if ckpt else None)
        if stop:
            trainer.save_checkpoint(stop)
        return task

    fit(2, stop=tmp_path / "half.ckpt")
    half, whole = fit(2, ckpt=tmp_path / "half.ckpt"), fit(2)
    assert all(torch.equal(a, b) for a, b in zip(half.parameters(), whole.parameters(), strict=True))


def test_the_names_are_those_of_the_documentation():
    for name in NAMES:
        assert f"`{name}`" in " ".join((OptimConfig.__doc__ or "").split()), name
