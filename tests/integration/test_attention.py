"""Swin's attention where something else wants to see it, and where one call would be too large."""

import copy

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import nn

from swinft.model.attention import swin as window_attention
from swinft.model.attention import windows as window_kernels
from swinft.model.attention.swin import FastBlock, FastV2Block, accelerate, restore, set_attention
from swinft.model.attention.windows import Windows
from swinft.model.backbones.timm_backbone import create_backbone

V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
NARROW = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "drop_path_rate": 0.0}
CPU = torch.device("cpu")


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """timm's backbone at 64 px, and an accelerated copy."""
    torch.manual_seed(0)
    timms = create_backbone(name, 64, False, backbone_args=NARROW).model.eval()
    with torch.no_grad():
        for parameter in timms.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    ours = copy.deepcopy(timms)
    assert accelerate(ours) == 4
    return timms, ours


def images(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [V1, V2])
def test_f028_a_trained_swin_is_traced_at_any_batch_size(name):
    timms, ours = pair(name)
    traced = torch.jit.trace(ours, images(2), check_trace=False)
    for batch in (1, 3, 5):
        torch.testing.assert_close(traced(images(batch)), timms(images(batch)), atol=1e-5, rtol=1e-5)
    assert sum(isinstance(m, FastBlock | FastV2Block) for m in ours.modules()) == 4


def test_f028_a_trained_swin_is_scripted():
    timms, ours = pair(V1)
    scripted = torch.jit.script(ours)
    torch.testing.assert_close(scripted(images()), timms(images()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours(images()), timms(images()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [V1, V2])
def test_f028_a_trained_swin_is_exported_with_a_dynamic_batch(name):
    timms, ours = pair(name)
    dynamic = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
    exported = torch.export.export(ours, (images(2),), dynamic_shapes=dynamic).module()
    for batch in (1, 3, 7):
        torch.testing.assert_close(exported(images(batch)), timms(images(batch)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [V1, V2])
def test_f028_transforms_of_functions_work(name):
    timms, ours = pair(name)
    many = torch.stack([images(2), images(2).flip(0)])
    expected = torch.stack([timms(each) for each in many])
    torch.testing.assert_close(torch.func.vmap(ours)(many), expected, atol=1e-5, rtol=1e-5)
    found = torch.func.grad(lambda x: ours(x).square().sum())(images())
    torch.testing.assert_close(
        found, torch.func.grad(lambda x: timms(x).square().sum())(images()), atol=1e-4, rtol=1e-4
    )
    (_, forward) = torch.func.jvp(ours, (images(),), (torch.ones(3, 3, 64, 64),))
    (_, theirs) = torch.func.jvp(timms, (images(),), (torch.ones(3, 3, 64, 64),))
    torch.testing.assert_close(forward, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [V1, V2])
def test_f028_a_replaced_forward_is_called(name, monkeypatch):
    _, ours = pair(name)
    block, seen = ours.layers[0].blocks[1], []
    original = block.attn.forward
    block.attn.forward = lambda *given, **named: seen.append("instance") or original(*given, **named)
    ours(images())
    assert seen == ["instance"]
    del block.attn.forward
    cls = type(block.attn)
    plain = cls.forward
    monkeypatch.setattr(
        cls, "forward", lambda self, *given, **named: seen.append("class") or plain(self, *given, **named)
    )
    ours(images())
    assert seen == ["instance", *["class"] * 4]


@pytest.mark.parametrize("name", [V1, V2])
def test_f028_modules_put_in_another_ones_place_are_called(name):
    _, ours = pair(name)
    seen = []

    class Watched(nn.Softmax):
        def forward(self, x):
            seen.append(x.shape)
            return super().forward(x)

    class Own(type(ours.layers[0].blocks[0].attn)):
        def forward(self, x, mask=None):
            seen.append("own")
            return super().forward(x, mask)

    ours.layers[0].blocks[0].attn.softmax = Watched(-1)
    ours.layers[1].blocks[0].attn.__class__ = Own
    ours(images())
    assert len(seen) == 2
    assert "own" in seen


@pytest.mark.parametrize("kind", ["global", "backward"])
def test_f028_hooks_of_every_kind_are_called(kind):
    _, ours = pair(V1)
    seen = []
    attn = ours.layers[0].blocks[0].attn
    if kind == "global":
        handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    else:
        handle = attn.register_full_backward_pre_hook(lambda module, _: seen.append(type(module)))
    ours(images()).sum().backward()
    handle.remove()
    assert WindowAttention in seen


@pytest.mark.parametrize("name", [V1, V2])
def test_f028_restore_gives_timms_blocks_back(name):
    timms, ours = pair(name)
    assert restore(ours) == 4
    assert [type(m) for m in ours.modules()] == [type(m) for m in timms.modules()]
    assert any(type(m) in (SwinTransformerBlock, SwinTransformerV2Block) for m in ours.modules())
    assert torch.equal(ours(images()), timms(images()))
    assert restore(ours) == 0
    assert accelerate(ours) == 4


def test_f029_a_check_that_fails_leaves_timms_attention_and_says_so(monkeypatch, capsys):
    model = create_backbone(V2, 64, False, backbone_args=NARROW).model
    wrong = lambda table, window: window_kernels.position_bias(table, window) * 2  # noqa: E731
    monkeypatch.setattr(window_attention, "position_bias", wrong)
    set_attention(model, CPU, True)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "attention is computed as timm does: Faster window attention differs from timm's by" in said
    assert not any(isinstance(m, FastV2Block) for m in model.modules())


@pytest.mark.parametrize("shift", [(0, 0), (1, 1)])
@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_f029_many_windows_are_split_into_calls_with_the_same_result(shift, limit, monkeypatch):
    windows = Windows((4, 6), (2, 3), shift, 2)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(5, 24, 18, generator=generator, requires_grad=True)
    bias = torch.randn(2, 6, 6, generator=generator)
    mask = torch.randn(4, 6, 6, generator=generator) if any(shift) else None
    expected = window_kernels.attend_by_parts(qkv, bias, mask, windows)
    monkeypatch.setattr(window_kernels, "FUSED_ON", {"cpu"})
    monkeypatch.setattr(window_kernels, "MAX_PER_CALL", limit)
    torch.testing.assert_close(window_kernels.attend_by_parts(qkv, bias, mask, windows), expected)


@pytest.mark.parametrize(("batch", "side", "shift"), [(1024, 56, 0), (256, 192, 0), (1, 3136, 3)])
def test_f029_no_call_asks_for_more_than_a_grid_holds(batch, side, shift, monkeypatch):
    calls = []

    def recorded(q, *_, **__):
        calls.append(tuple(q.shape[:2]))
        return q

    monkeypatch.setattr(window_kernels, "FUSED_ON", {"meta"})
    monkeypatch.setattr(window_kernels.functional, "scaled_dot_product_attention", recorded)
    windows = Windows((side, side), (7, 7) if side % 7 == 0 else (8, 8), (shift, shift), 3)
    number = (side // windows.window[0]) ** 2
    qkv = torch.empty(batch, side * side, 27, device="meta")
    bias = torch.empty(3, windows.tokens, windows.tokens, device="meta")
    mask = torch.empty(number, windows.tokens, windows.tokens, device="meta") if shift else None
    assert window_kernels.attend_by_parts(qkv, bias, mask, windows).shape == (batch, side * side, 9)
    assert len(calls) > 1
    assert max(max(call) for call in calls) <= 65_535
    assert sum(a * b for a, b in calls) == batch * number * 3


def test_f029_what_is_kept_for_batches_of_many_sizes_is_bounded(monkeypatch):
    monkeypatch.setattr(window_kernels, "MAX_CACHED_BYTES", 200_000)
    windows = Windows((8, 8), (4, 4), (0, 0), 2)
    for batch in range(1, 40):
        window_kernels.attend(torch.zeros(batch, 64, 6), torch.zeros(2, 16, 16), None, windows)
    assert sum(2 * order.nbytes for order, _ in window_kernels._kept.values()) <= 200_000


def test_f029_timms_own_model_is_what_the_checks_compare_with():
    """The control: what the tests above ask of ours, timm's does."""
    timms = timm.create_model(V1, img_size=64, num_classes=0, **NARROW).eval()
    torch.jit.trace(timms, images(2), check_trace=False)(images(3))
    torch.func.vmap(timms)(images(2)[:, None])
