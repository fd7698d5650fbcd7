"""Faster window attention: timm's numbers, timm's weights, whatever is done to the model."""

import copy

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import nn
from torch.nn.attention import SDPBackend

from swinft.model.attention import swin as window_attention
from swinft.model.attention import windows as window_kernels
from swinft.model.attention.swin import FastBlock, FastV2Block, accelerate
from swinft.model.attention.windows import Windows, attend, attend_by_groups, attend_by_parts
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.training.ema import AveragedWeights

V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
# One pair of plain and shifted blocks per stage; few channels. Depth and width do not change what a block computes.
NARROW = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "drop_path_rate": 0.0}
NARROW_FOUR = {**NARROW, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
DEFINITIONS = [name for name in timm.list_models(["swin_*", "swinv2_*"]) if "v2_cr" not in name and "_mlp_" not in name]
AT_ALL_SIZES = {
    "swin_tiny_patch4_window7_224",
    "swin_base_patch4_window12_384",
    "swin_s3_tiny_224",
    "swinv2_tiny_window8_256",
    "swinv2_tiny_window16_256",
    "swinv2_base_window12_192",
    "swinv2_base_window12to24_192to384",
}
# In pixels, four for each window: with an odd grid, and with sides of different lengths.
SIZES = {24: [96, 132, (96, 200), (192, 96)], 16: [128, 132, (64, 192), (128, 64)]}
OTHER_SIZES = [112, 140, (96, 160), 192]
# One of each kind of block and window; the others take the same paths.
IN_EVERY_SUITE = {
    "swin_tiny_patch4_window7_224",
    "swin_s3_tiny_224",
    "swinv2_tiny_window8_256",
    "swinv2_base_window12to24_192to384",
}


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


def pair(
    name: str, size: int | tuple[int, int] = 112, kernel: str = "torch", device: str = "cpu", **changes
) -> tuple[nn.Module, nn.Module]:
    """timm's backbone, and an accelerated copy."""
    timms = randomized(create_backbone(name, size, False, backbone_args={**NARROW, **changes}).model).to(device)
    ours = copy.deepcopy(timms)
    blocks = sum(isinstance(m, SwinTransformerBlock | SwinTransformerV2Block) for m in ours.modules())
    assert accelerate(ours, kernel=kernel) == blocks
    return timms, ours


def images(model: nn.Module, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *model.patch_embed.img_size, generator=generator).to(next(model.parameters()))


def gradients(model: nn.Module, batch: int = 2) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Features, and the gradients of all parameters under a loss that no symmetry cancels."""
    features = model.forward_features(images(model, batch))
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(2), dtype=features.dtype).to(features)
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


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_EVERY_SUITE else pytest.mark.slow) for name in DEFINITIONS]
)
def test_every_definition_equals_timms(name):
    """At four sizes for one definition of each window, at one for the others: they differ in depth and width."""
    window = timm.create_model(name, pretrained=False, **NARROW_FOUR).layers[0].blocks[0].window_size[0]
    changes = NARROW_FOUR if "_s3_" in name else {}  # windows of their own for each of four stages
    sizes = SIZES.get(window, OTHER_SIZES)
    shifts = set()
    for size in sizes if name in AT_ALL_SIZES else sizes[2:3]:
        timms, ours = pair(name, size, **changes)
        shifts |= {m.shift_size != (0, 0) for m in ours.modules() if hasattr(m, "shift_size")}
        assert_equal(timms.train(), ours.train())
        with torch.inference_mode():
            expected = timms.eval()(images(timms))
            torch.testing.assert_close(ours.eval()(images(ours)), expected, atol=1e-5, rtol=1e-5)
    assert shifts == {True, False}


@pytest.mark.parametrize("seed", [0, 19, 26, 53, 57])  # each was refused: one gradient of a block was all rounding
def test_gradients_whose_terms_cancel_are_no_difference(seed):
    torch.manual_seed(seed)
    window = 8 if seed == 19 else 5
    model = create_backbone(V2, 8 * window, False, backbone_args={**NARROW, "window_size": window}).model
    assert accelerate(model) == 4


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
    torch.testing.assert_close(results[1], results[0], atol=3e-3, rtol=3e-3)  # of gradients that reach 100
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


def small(cosine: bool, shift: tuple[int, int]) -> tuple[list[torch.Tensor | None], Windows]:
    """Arguments of `attend` for two images of 4 x 6 tokens in windows of 2 x 3, with 2 heads of 3 channels."""
    windows = Windows((4, 6), (2, 3), shift, 2)
    generator = torch.Generator().manual_seed(0)
    qkv, bias, scale = (torch.randn(s, generator=generator).double() for s in ((2, 24, 18), (2, 6, 6), (2, 1, 1)))
    mask = torch.randn(4, 6, 6, generator=generator).double() if any(shift) else None
    return [qkv, bias, mask, scale.exp() if cosine else None], windows


@pytest.mark.parametrize(
    ("shift", "cosine", "is_fused"),
    [
        ((0, 0), False, False),
        ((0, 2), True, True),
        pytest.param((0, 0), False, True, marks=pytest.mark.slow),
        pytest.param((0, 2), True, False, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_the_numerical_ones(cosine, shift, is_fused, monkeypatch):
    monkeypatch.setattr(window_kernels, "FUSED_ON", {"cpu"} if is_fused else set())
    (qkv, bias, mask, scale), windows = small(cosine, shift)
    inputs = [x.requires_grad_() for x in (qkv, bias, scale) if x is not None]

    def attended(qkv, bias, scale=None):
        return attend(qkv, bias, mask, windows, 0.7, scale)

    assert torch.autograd.gradcheck(attended, inputs)
    assert torch.autograd.gradgradcheck(attended, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("computes", "fused"), [(attend_by_parts, False), (attend_by_parts, True), (attend_by_groups, True)]
)
@pytest.mark.parametrize(("name", "size"), [(V1, 112), (V2, 112), (V1, (56, 168))])  # the last has a row of windows
def test_what_gpus_and_compilers_compute_equals_timms(name, size, computes, fused, monkeypatch):
    timms, ours = pair(name, size)
    monkeypatch.setattr(window_attention, "attend", computes)
    monkeypatch.setattr(window_kernels, "FUSED_ON", {"cpu"} if fused else set())
    assert_equal(timms, ours)


@pytest.mark.parametrize("shift", [0, 1])
def test_fused_attention_copies_tokens_once_each_way(shift, monkeypatch):
    windows = Windows((6, 6), (2, 2), (shift, shift), 2)
    qkv, bias = torch.randn(3, 36, 24), torch.randn(2, 4, 4)
    mask = torch.zeros(9, 4, 4) if shift else None
    monkeypatch.setattr(window_kernels, "FUSED_ON", {"cpu"})
    attend(qkv, bias, mask, windows)  # makes the order that is kept
    with torch.profiler.profile() as profiled:
        attend(qkv, bias, mask, windows)
    moved = [event.key for event in profiled.key_averages() for _ in range(event.count)]
    assert moved.count("aten::index_select") == 2
    assert "aten::roll" not in moved
    assert moved.count("aten::scaled_dot_product_attention") == (4 if shift else 1)  # inside, two edges, a corner


def test_biased_attention_keeps_off_kernels_without_a_bias_gradient():
    assert set(window_kernels.BIASED_SDPA) == {SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH}


@pytest.mark.parametrize("name", [V1, V2])
def test_it_compiles_to_one_graph(name):
    _, ours = pair(name)
    expected = gradients(ours)
    graphs = []
    torch.compiler.reset()
    ours.layers[0].compile(backend=lambda graph, _: graphs.append(graph) or graph.forward, fullgraph=True)
    features, grads = gradients(ours)
    assert len(graphs) == 1
    assert "autograd_function_apply" not in graphs[0].code  # a compiler can fuse only what it sees
    torch.testing.assert_close(features, expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grads, expected[1], atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("name", [V1, V2])
def test_a_grid_that_windows_do_not_divide_is_left_to_timm(name):
    timms = randomized(timm.create_model(name, img_size=100, num_classes=0, **NARROW))
    ours = copy.deepcopy(timms)
    assert accelerate(ours) == 4
    assert any(block.input_resolution[0] % block.window_size[0] for block in ours.layers[0].blocks)
    assert torch.equal(ours.eval()(images(ours)), timms.eval()(images(timms)))


@pytest.mark.parametrize("name", [V1, V2])
def test_sizes_can_change_later(name):
    timms, ours = pair(name)
    for model in (timms, ours):
        model.eval()(images(model))
        model.set_input_size((96, 160), window_size=[(6, 10), (6, 10)])
    assert_equal(timms, ours)


@pytest.mark.parametrize("name", [V1, V2])
def test_a_mask_made_for_each_image_is_used(name):
    timms = randomized(timm.create_model(name, num_classes=0, dynamic_img_size=True, window_size=6, **NARROW)).eval()
    ours = copy.deepcopy(timms)
    accelerate(ours)
    x = torch.randn(2, 3, 96, 192)
    torch.testing.assert_close(ours(x), timms(x), atol=1e-5, rtol=1e-5)


def test_hooks_on_left_out_modules_see_what_timms_see():
    timms, ours = pair(V1)
    seen = []
    for model in (timms.eval(), ours.eval()):
        model.layers[0].blocks[1].attn.softmax.register_forward_hook(lambda m, i, out: seen.append(out))
        model(images(model))
    torch.testing.assert_close(seen[1], seen[0])


@pytest.mark.parametrize("name", [V1, V2])
def test_a_prediction_before_training_and_frozen_parts_do_not_matter(name):
    timms, ours = (model.double() for model in pair(name))
    with torch.inference_mode():
        ours(images(ours))
    for model in (timms, ours):
        for key, parameter in model.named_parameters():
            parameter.requires_grad_("qkv" in key)
        model.forward_features(images(model)).sin().sum().backward()
    for theirs, own in zip(timms.parameters(), ours.parameters(), strict=True):
        assert (own.grad is None) == (theirs.grad is None)
        if own.grad is not None:
            torch.testing.assert_close(own.grad, theirs.grad)


@pytest.mark.parametrize("name", [V1, V2])
def test_steps_repeat_to_the_bit_and_draw_no_random_numbers(name):
    timms, _ = pair(name)
    torch.manual_seed(0)
    accelerate(timms)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)
    torch.use_deterministic_algorithms(True)
    try:
        first, again = gradients(timms)[1], gradients(timms)[1]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_a_wrong_computation_is_refused_and_changes_nothing(monkeypatch):
    model = create_backbone(V2, 112, False, backbone_args=NARROW).model
    monkeypatch.setattr(
        window_attention,
        "position_bias",
        lambda table, window: window_kernels.position_bias(table, window) + torch.tensor(float("nan")),
    )
    with pytest.raises(RuntimeError, match="differs from timm's by nan"):
        accelerate(model)
    monkeypatch.setattr(
        window_attention,
        "position_bias",
        lambda table, window: window_kernels.position_bias(table.detach(), window) + 0 * table.sum(),
    )
    with pytest.raises(RuntimeError, match="differs from timm's"):  # only the gradient of the bias is wrong
        accelerate(model)
    assert not any(isinstance(m, FastV2Block) for m in model.modules())


def test_other_models_and_changed_blocks_are_left_alone():
    assert accelerate(timm.create_model("resnet18")) == 0
    model = create_backbone(V1, 112, False, backbone_args=NARROW).model
    model.layers[0].blocks[0].attn = nn.Identity()
    assert accelerate(model) == 3
    assert accelerate(model) == 0
