"""Faster window attention: timm's numbers, timm's weights, whatever is done to the model."""

import copy

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import nn

from swinft.model.backbone import create_backbone
from swinft.model.ema import AveragedWeights
from swinft.model.window_attention import FastBlock, FastV2Block, accelerate

V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
# One pair of plain and shifted blocks per stage; few channels. Depth and width do not change what a block computes.
NARROW = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "drop_path_rate": 0.0}
NARROW_FOUR = {**NARROW, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
DEFINITIONS = [name for name in timm.list_models(["swin_*", "swinv2_*"]) if not name.startswith("swinv2_cr")]
# In pixels, four for each window: an odd grid in the second, and sides of different lengths in the third.
SIZES = {24: [192, 200, (192, 256), 240], 16: [128, 132, (128, 192), 192]}
OTHER_SIZES = [112, 140, (96, 160), 192]


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter random: timm starts biases, and the norms behind V2's attention, at 0, which hides errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "logit_scale" in name:  # on both sides of its limit, log 100
                p.copy_(torch.tensor([1.0, 5.0]).repeat(len(p))[: len(p)].view_as(p))
            elif "bias_table" in name or p.ndim == 1:
                p.copy_(torch.randn(p.shape, generator=generator) + ("norm" in name and "weight" in name))
            else:
                p.copy_(torch.randn(p.shape, generator=generator) * p[0].numel() ** -0.5)
    return model


def pair(name: str, size: int | tuple[int, int] = 112, **changes) -> tuple[nn.Module, nn.Module]:
    """timm's backbone, and an accelerated copy."""
    timms = randomized(create_backbone(name, size, False, backbone_args={**NARROW, **changes}).model)
    ours = copy.deepcopy(timms)
    assert accelerate(ours) == sum(isinstance(m, SwinTransformerBlock | SwinTransformerV2Block) for m in ours.modules())
    return timms, ours


def images(model: nn.Module, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *model.patch_embed.img_size, generator=generator).to(next(model.parameters()).dtype)


def gradients(model: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Features, and the gradients of all parameters under a loss that no symmetry cancels."""
    features = model.forward_features(images(model))
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(2), dtype=features.dtype)
    model.zero_grad()
    (features * weights).sum().backward()
    return features.detach(), {name: p.grad for name, p in model.named_parameters()}


def assert_equal(timms: nn.Module, ours: nn.Module) -> None:
    """In fp64 the two agree to its rounding; in fp32 to 1e-5 and 1e-4, or timm's own rounding where sums cancel."""
    results = [
        gradients(copy.deepcopy(model).to(dtype)) for dtype in (torch.double, torch.float) for model in (timms, ours)
    ]
    (truth, true_grads), (ours64, ours64_grads), (timm32, timm32_grads), (ours32, ours32_grads) = results
    assert (ours64 - truth).abs().max() <= 1e-12 * truth.abs().max()
    assert (ours32 - timm32).abs().max() <= 1e-5 * timm32.abs().max()
    assert true_grads.keys() == ours32_grads.keys()
    for name, true in true_grads.items():
        assert (ours64_grads[name] - true).norm() <= 1e-9 * true.norm(), name
        rounding = (timm32_grads[name] - true).norm()
        assert (ours32_grads[name] - timm32_grads[name]).norm() <= 1e-4 * true.norm() + 3 * rounding, name


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_definition_equals_timms(name):
    window = timm.create_model(name, pretrained=False, **NARROW_FOUR).layers[0].blocks[0].window_size[0]
    changes = NARROW_FOUR if "_s3_" in name else {}  # windows of their own for each of four stages
    shifts = set()
    for size in SIZES.get(window, OTHER_SIZES):
        timms, ours = pair(name, size, **changes)
        shifts |= {m.shift_size != (0, 0) for m in ours.modules() if hasattr(m, "shift_size")}
        assert_equal(timms.train(), ours.train())
        with torch.inference_mode():
            expected = timms.eval()(images(timms))
            torch.testing.assert_close(ours.eval()(images(ours)), expected, atol=1e-5, rtol=1e-5)
    assert shifts == {True, False}


@pytest.mark.parametrize("name", [V1, V2])
def test_checkpoints_are_interchangeable(name):
    timms, ours = pair(name)
    for of in ("named_parameters", "named_buffers", "named_modules"):
        assert [key for key, _ in getattr(timms, of)()] == [key for key, _ in getattr(ours, of)()]
    other = randomized(copy.deepcopy(timms), seed=1)
    ours.load_state_dict(other.state_dict(), strict=True)
    torch.testing.assert_close(ours.eval()(images(ours)), other.eval()(images(other)), atol=1e-5, rtol=1e-5)
    timms.load_state_dict(ours.state_dict(), strict=True)
    torch.testing.assert_close(timms.eval()(images(timms)), other(images(other)))


@pytest.mark.parametrize("name", [V1, V2])
def test_a_copy_is_faster_too_and_independent(name):
    _, ours = pair(name)
    averaged = AveragedWeights(ours, 0.5)
    expected = ours.eval()(images(ours))
    assert {type(m) for m in averaged.modules()} >= {FastBlock if name == V1 else FastV2Block}
    torch.testing.assert_close(averaged.module(images(ours)), expected)
    randomized(ours, seed=1)
    torch.testing.assert_close(averaged.module(images(ours)), expected)
    averaged.update(ours)
    assert not torch.allclose(averaged.module(images(ours)), expected)


@pytest.mark.parametrize("name", [V1, V2])
def test_drop_path_and_attention_dropout_draw_what_timms_draw(name):
    timms, ours = pair(name, drop_path_rate=0.5, attn_drop_rate=0.3)
    results = []
    for model in (timms.train(), ours.train()):
        torch.manual_seed(0)
        results.append(gradients(model))
    torch.testing.assert_close(results[1], results[0], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(ours(images(ours)), ours(images(ours)))


@pytest.mark.parametrize("name", [V1, V2])
def test_output_dropout_is_applied_in_training_only(name):
    timms, ours = pair(name, proj_drop_rate=1.0)
    block = ours.layers[0].blocks[1]
    x = torch.randn(1, *block.input_resolution, block.dim)
    assert not block.train()._attn(x).any()
    torch.testing.assert_close(block.eval()._attn(x), timms.eval().layers[0].blocks[1]._attn(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [V1, V2])
def test_gradient_checkpointing_changes_nothing(name):
    _, ours = pair(name)
    expected = gradients(ours.train())
    ours.set_grad_checkpointing(True)
    torch.testing.assert_close(gradients(ours), expected)


@pytest.mark.parametrize("name", [V1, V2])
def test_bf16_rounds_hardly_more_than_timms(name):
    errors = []
    for seed in range(3):
        timms, ours = (randomized(model, seed) for model in pair(name))
        truth, true_grads = gradients(copy.deepcopy(timms).double())
        for model in (timms, ours):
            with torch.autocast("cpu", torch.bfloat16):
                features, grads = gradients(model)
            relative = [(grads[key] - true).norm() / true.norm() for key, true in true_grads.items()]
            errors.append(torch.stack([(features - truth).norm() / truth.norm(), torch.stack(relative).median()]))
    theirs, own = torch.stack(errors).view(3, 2, 2).mean(0)
    assert (own <= 1.3 * theirs).all(), (own, theirs)
    assert own[0] < 0.05
