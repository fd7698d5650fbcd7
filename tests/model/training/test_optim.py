"""Learning rates: by layer, and really in the optimiser."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.heads import ClassificationHead
from swinft.model.training.optim import OptimConfig, param_groups
from swinft.model.training.optimizers import make_optimizer
from swinft.model.training.schedules import warmup_cosine

CPU = torch.device("cpu")


def swin_groups(**options):
    # All twelve blocks of Swin-T, narrow.
    backbone = create_backbone("swin_tiny_patch4_window7_224", 224, False, backbone_args={"embed_dim": 24})
    head = ClassificationHead(backbone.num_features, 3)
    return backbone, head, param_groups(backbone, [head], OptimConfig(**{"lr": 1e-4, **options}))


def test_learning_rates_differ_by_layer_also_under_a_torch_scheduler():
    backbone, head, groups = swin_groups(lr=1e-3, layer_decay=0.8, head_lr=5e-3)
    optimizer = make_optimizer(groups, OptimConfig(), CPU, scales_loss=False)
    scheduler = CosineAnnealingLR(optimizer, 10)
    optimizer.step()
    scheduler.step()
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    model = backbone.model
    stem, first, last = (
        model.patch_embed.proj.weight,
        model.layers[0].blocks[0].mlp.fc1.weight,
        model.layers[3].blocks[1].mlp.fc1.weight,
    )
    rates = [rate_of[id(p)] for p in (stem, first, last, head.linear.weight)]
    assert rates == sorted(rates)
    assert (
        len({group["lr"] for group in optimizer.param_groups}) == 14
    )  # 13 layers of Swin-T without its classifier, and the head
    assert rate_of[id(first)] / rate_of[id(stem)] == pytest.approx(1 / 0.8)


def test_every_parameter_is_in_exactly_one_group():
    backbone, head, groups = swin_groups(layer_decay=0.7)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for module in (backbone, head) for p in module.parameters())


def test_norms_biases_and_position_tables_are_not_decayed():
    backbone, head, groups = swin_groups(weight_decay=0.05)
    decay_of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(backbone.named_parameters()) | {f"head.{name}": p for name, p in head.named_parameters()}
    tables = [name for name in named if "relative_position_bias_table" in name]
    assert len(tables) == 12
    for name, parameter in named.items():
        is_free = parameter.ndim < 2 or name in tables
        assert decay_of[id(parameter)] == (0 if is_free else 0.05), name


@pytest.mark.parametrize("scales_loss", [False, True])
def test_s6_the_fused_kernel_leaves_loss_scaling_to_the_scaler(scales_loss):
    _, _, groups = swin_groups()
    optimizer = make_optimizer(groups, OptimConfig(), CPU, scales_loss)
    assert optimizer.defaults["fused"]
    assert optimizer._step_supports_amp_scaling is not scales_loss


def test_warm_up_rises_then_the_cosine_falls_to_its_share():
    factors = [warmup_cosine(step, 10, 100, 0.01) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert warmup_cosine(100, 10, 100, 0.01) == pytest.approx(0.01)
    assert warmup_cosine(0, 0, 100, 0.01) == 1


def test_the_schedule_keeps_the_ratio_between_layers():
    _, _, groups = swin_groups(lr=1e-3, layer_decay=0.5)
    optimizer = make_optimizer(groups, OptimConfig(), CPU, scales_loss=False)
    before = [group["lr"] for group in optimizer.param_groups]
    scheduler = LambdaLR(optimizer, lambda step: warmup_cosine(step, 2, 20, 0.01))
    for _ in range(12):
        optimizer.step()
        scheduler.step()
    ratios = {round(group["lr"] / lr, 9) for group, lr in zip(optimizer.param_groups, before, strict=True)}
    assert len(ratios) == 1


@pytest.mark.parametrize(
    "wrong", [{"lr": 0}, {"layer_decay": 1.5}, {"weight_decay": -1}, {"warmup_epochs": -1}, {"betas": (0.9, 1.0)}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        OptimConfig(**wrong)
