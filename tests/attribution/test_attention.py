"""Attention weights, rollout and windows against plain loops over tokens."""

import pytest
import torch
from torch.nn import functional

from swinft import SegmentationHead
from swinft.attribution.attention import attended, window_tokens
from swinft.attribution.gradcam import scaled
from swinft.attribution.prepared import prepared
from swinft.attribution.rollout import rolled_out, rollout
from swinft.attribution.windows import window_attention
from swinft.errors import InputError, RunError
from swinft.model.attention.swin import accelerate
from swinft.model.attention.windows import Windows
from tests.attribution.networks import SHIFTED_SWIN, TINY_VIT, images_of, net_of

V2 = "swinv2_tiny_window8_256"


def attention_of(net, images):
    with prepared(net):
        return attended(net, images.float(), None, None)


def region(position, side, window, shift):
    """Which part of a wrapped side a shifted position belongs to: tokens of two parts do not see each other."""
    return 0 if not shift or position < side - window else 1 if position < side - shift else 2


def weights_by_hand(block, x):
    """Attention of every query to every key of a V1 block for its input (H, W, C), as a matrix (h, T, T); loops."""
    rows, columns, _ = x.shape
    window, shift, attn = block.window_size, block.shift_size, block.attn
    qkv = attn.qkv(block.norm1(x)).view(rows * columns, 3, attn.num_heads, -1)
    found = torch.zeros(attn.num_heads, rows * columns, rows * columns)
    for head in range(attn.num_heads):
        for q in range(rows * columns):
            qr, qc = (q // columns - shift[0]) % rows, (q % columns - shift[1]) % columns
            scores = torch.full((rows * columns,), -torch.inf)
            for k in range(rows * columns):
                kr, kc = (k // columns - shift[0]) % rows, (k % columns - shift[1]) % columns
                if qr // window[0] != kr // window[0] or qc // window[1] != kc // window[1]:
                    continue
                place = (qr - kr + window[0] - 1) * (2 * window[1] - 1) + qc - kc + window[1] - 1
                same = region(qr, rows, window[0], shift[0]) == region(kr, rows, window[0], shift[0])
                same = same and region(qc, columns, window[1], shift[1]) == region(kc, columns, window[1], shift[1])
                scores[k] = qkv[q, 0, head] @ qkv[k, 1, head] * attn.scale
                scores[k] += attn.relative_position_bias_table[place, head] + (0 if same else -100)
            found[head, q] = scores.softmax(0)
    return found


def as_matrix(block):
    """Recorded weights (B, W', h, N, N) of the first image as (h, T, T)."""
    count = block.grid[0] * block.grid[1]
    found = torch.zeros(block.weights.shape[2], count, count)
    for window, tokens in enumerate(block.tokens.tolist()):
        for i, q in enumerate(tokens):
            for j, k in enumerate(tokens):
                found[:, q, k] = block.weights[0, window, :, i, j]
    return found


@pytest.mark.parametrize("is_fast", [False, True])
def test_weights_are_those_with_which_a_fast_shifted_block_computes(is_fast):
    net = net_of(arguments=SHIFTED_SWIN)
    for name, parameter in net.named_parameters():
        if "bias_table" in name:
            torch.nn.init.normal_(parameter)
    if is_fast:
        assert accelerate(net) == 4
    images, inputs = images_of(1), {}
    shifted = net.backbone.model.layers[0].blocks[1]
    assert any(shifted.shift_size)
    handle = shifted.register_forward_hook(lambda module, given, returned: inputs.update(x=given[0][0]))
    found = attention_of(net, images)
    handle.remove()
    assert [(each.stage, each.block) for each in found.blocks] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with torch.no_grad():
        weights = weights_by_hand(shifted, inputs["x"])
        assert torch.allclose(as_matrix(found.blocks[1]), weights, atol=1e-5)
        assert weights.std() > 0.02  # not uniform
        attn = shifted.attn
        values = attn.qkv(shifted.norm1(inputs["x"])).view(64, 3, attn.num_heads, -1)[:, 2]
        out = attn.proj(torch.einsum("hqk,khd->qhd", weights, values).reshape(64, -1))
        assert torch.allclose(out.view(8, 8, -1), shifted._attn(shifted.norm1(inputs["x"][None]))[0], atol=1e-5)


def test_weights_that_do_not_give_what_is_computed_are_an_error(monkeypatch):
    net = net_of(arguments=SHIFTED_SWIN)
    accelerate(net)
    monkeypatch.setattr(
        "swinft.model.attention.swin.position_bias",
        lambda table, window: torch.randn(table.shape[1], *[window[0] * window[1]] * 2),
    )
    with pytest.raises(RunError, match="do not give what the network computes"):
        attention_of(net, images_of(1))


def test_windows_are_cut_as_the_fast_attention_cuts_them():
    index = torch.arange(48.0).view(1, 48, 1)
    for shift in ((0, 0), (2, 1)):
        cut = Windows((8, 6), (4, 3), shift, 1).cut(index)[0, ..., 0].long()
        assert torch.equal(window_tokens((8, 6), (4, 3), shift), cut)
    padded = window_tokens((3, 5), (2, 4), (1, 2))
    assert sorted(padded.flatten().tolist()) == [-1] * 17 + list(range(15))
    assert padded[0].tolist() == [7, 8, 9, 5, 12, 13, 14, 10]  # rows 1 and 2, columns 2, 3, 4 and 0


@pytest.mark.parametrize(
    ("backbone", "arguments"), [("swin_tiny_patch4_window7_224", SHIFTED_SWIN), (V2, SHIFTED_SWIN)]
)
def test_rollout_of_a_swin_is_the_product_of_full_matrices(backbone, arguments):
    net = net_of(backbone, arguments)
    for name, parameter in net.named_parameters():
        if "norm" in name and "weight" in name:  # V2 begins with 0, as if it had no attention
            torch.nn.init.ones_(parameter)
    images = images_of(1)
    blocks = attention_of(net, images).blocks
    product = torch.eye(64)
    for number, block in enumerate(blocks):
        if number == 2:  # 2 × 2 of 8 × 8 tokens become one
            merge = torch.zeros(16, 64)
            for token in range(64):
                merge[token // 16 * 4 + token % 8 // 2, token] = 1 / 4
            product = merge @ product
        product = (torch.eye(len(product)) + as_matrix(block).mean(0)) / 2 @ product
    expected = product.mean(0).view(1, 1, 8, 8) * 64
    full = functional.interpolate(expected, (32, 32), mode="bilinear")[0, 0]
    found = rollout(net, images, 0)[0]
    assert torch.allclose(found, full.detach(), atol=1e-5)
    assert float(found.mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(found, rollout(net, images, 1)[0])
    of_output = [scaled(rollout(net, images, k, by="gradient")) for k in (0, 1)]
    assert not torch.allclose(*of_output, atol=0.05)


def test_rollout_of_a_vit_is_the_plain_loop():
    net = net_of("vit_tiny_patch16_224", TINY_VIT)
    images = images_of(2)
    model, product = net.backbone.model, torch.eye(17).repeat(2, 1, 1)
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed((images.float() - net.backbone.mean) / net.backbone.std))
        for block in model.blocks:
            q, k, _ = block.attn.qkv(block.norm1(x)).view(2, 17, 3, 2, -1).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(2, 3) * block.attn.scale).softmax(-1).mean(1)
            product = (torch.eye(17) + weights) / 2 @ product
            x = block(x)
    expected = product[:, 0, 1:].view(2, 1, 4, 4) * 16
    full = functional.interpolate(expected, (32, 32), mode="bilinear")[:, 0]
    assert torch.allclose(rollout(net, images), full, atol=1e-5)


def test_shares_of_a_grid_of_odd_sides_are_kept():
    net = net_of(arguments={**SHIFTED_SWIN, "window_size": 5}, side=20)  # 5 × 5, then 3 × 3
    found = attention_of(net, images_of(1, 20))
    assert found.blocks[0].grid == (5, 5)
    shares = rolled_out(found.steps, torch.full((1, 9), 1 / 9))
    assert float(shares.sum()) == pytest.approx(1, abs=1e-5)
    assert shares.min() > 0


def test_windows_show_what_each_token_gets():
    net = net_of(arguments=SHIFTED_SWIN)
    images = images_of(1)
    block = attention_of(net, images).blocks[1]
    found = window_attention(net, images, stage=0, block=1, head=0)
    tokens = found.maps[0, ::4, ::4].flatten()  # each token is 4 × 4 pixels
    assert torch.allclose(tokens, as_matrix(block)[0].sum(0), atol=1e-5)
    assert found.rows == found.columns == [8.0, 24.0]  # windows of 16 px, shifted by 8
    assert found.name == "layers.0.blocks.1"

    one = window_attention(net, images, stage=0, block=1, head=0, query=(9, 30))
    row, column = 9 // 4, 30 // 4
    assert torch.allclose(one.maps[0, ::4, ::4].flatten() / 16, as_matrix(block)[0, row * 8 + column], atol=1e-5)

    vit = net_of("vit_tiny_patch16_224", TINY_VIT)
    of_class = window_attention(vit, images)
    assert of_class.rows == []
    assert torch.allclose(
        of_class.maps[0, ::8, ::8].flatten() / 17,
        attention_of(vit, images).blocks[2].weights[0, 0].mean(0)[0, 1:],
        atol=1e-6,
    )


def test_several_images_of_a_row_have_a_rollout_each():
    net, single = net_of(images=2), net_of()
    single.load_state_dict(net.state_dict())
    images, mask = images_of(2, 32, 2), torch.tensor([[1, 1], [1, 0]]).bool()
    found = rollout(net, images, image_mask=mask)
    assert torch.allclose(found[0], rollout(single, images[0]), atol=1e-5)
    assert found[1, 1].count_nonzero() == 0


def test_what_has_no_such_attention_is_an_error():
    with pytest.raises(InputError, match=r"ResNet has no attention.*Use the method gradcam"):
        rollout(net_of("resnet10t", {}, 64), images_of(1, 64))
    with pytest.raises(InputError, match="is not a softmax over all tokens"):
        rollout(net_of("xcit_nano_12_p16_224", {"depth": 1, "cls_attn_layers": 1}, 64), images_of(1, 64))
    four = {**SHIFTED_SWIN, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    with pytest.raises(InputError, match="SegmentationHead on SwinTransformer reads none"):
        rollout(net_of(arguments=four, side=64, head=SegmentationHead, outputs=2), images_of(1, 64))
    net = net_of(arguments=SHIFTED_SWIN)
    for options, words in (
        ({"stage": 2}, "stage is 2: the backbone has stages 0 to 1"),
        ({"stage": 0, "block": 2}, "block is 2: stage 0 has blocks 0 to 1"),
        ({"head": 3}, r"head is 3: layers\.\d\.blocks\.1 has heads 0 to"),
        ({"query": (0, 32)}, "the image has rows 0 to 31"),
    ):
        with pytest.raises(InputError, match=words):
            window_attention(net, images_of(1), **options)
