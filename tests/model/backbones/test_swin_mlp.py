"""Swin-Mixer: the published numbers, the mixing of a window by a loop, shifts that let no edges meet, other sizes."""

import itertools

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from swinft.model.backbones.swin_mlp import SwinMLPBlock, checkpoint_filter_fn, resampled_weight
from swinft.model.backbones.timm_backbone import create_backbone

TINY = "swin_mlp_tiny_c24_patch4_window8_256"
NARROW = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}


def block(grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], heads: int = 2) -> SwinMLPBlock:
    """A block of four channels that mixes tokens and does nothing else."""
    torch.manual_seed(0)
    parts = {"norm1": nn.Identity(), "norm2": nn.Identity(), "mlp": nn.Identity()}
    made = SwinMLPBlock(4, grid, heads, window, shift, drop_path=(nn.Identity(), nn.Identity()), **parts)
    nn.init.normal_(made.spatial_mlp.weight)
    nn.init.normal_(made.spatial_mlp.bias)
    return made.double()


@pytest.mark.parametrize(
    ("name", "side", "millions", "giga"),
    [
        (TINY, 256, 20, 4.0),
        pytest.param("swin_mlp_tiny_c12_patch4_window8_256", 256, 21, 4.0, marks=pytest.mark.slow),
        pytest.param("swin_mlp_tiny_c6_patch4_window8_256", 256, 23, 4.0, marks=pytest.mark.slow),
        ("swin_mlp_base_patch4_window7_224", 224, 61, 10.4),
    ],
)
def test_parameters_and_operations_are_the_published_ones(name, side, millions, giga):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = timm.create_model(name).eval()
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 1000)
    assert round(sum(each.numel() for each in model.parameters()) / 1e6) == millions
    assert round(counter.get_total_flops() / 2e9, 1) == giga  # a multiplication with its addition is one


@pytest.mark.parametrize(
    ("grid", "window", "shift"),
    [((8, 8), (4, 4), (0, 0)), ((8, 8), (4, 4), (2, 2)), ((6, 9), (3, 3), (1, 1)), ((8, 4), (4, 4), (2, 2))],
)
def test_tokens_of_a_window_are_mixed_as_a_loop_over_pairs_mixes_them(grid, window, shift):
    mixing = block(grid, window, shift)
    shift = mixing.shift_size  # none along a side with a single window
    x = torch.randn(2, *grid, 4, dtype=torch.double)
    weight, bias = mixing.spatial_mlp.weight[..., 0], mixing.spatial_mlp.bias
    tokens = window[0] * window[1]
    expected = torch.zeros_like(x)
    for row, column, channel in itertools.product(range(grid[0]), range(grid[1]), range(4)):
        head = channel // 2
        # Windows begin at the shift, and the first one lies partly before the grid.
        top, left = ((p - s) // w * w + s for p, s, w in zip((row, column), shift, window, strict=True))
        out = head * tokens + (row - top) * window[1] + column - left
        total = bias[out].repeat(2)
        for r, c in itertools.product(range(window[0]), range(window[1])):
            if 0 <= top + r < grid[0] and 0 <= left + c < grid[1]:  # zeros elsewhere
                total = total + weight[out, r * window[1] + c] * x[:, top + r, left + c, channel]
        expected[:, row, column, channel] = total
    torch.testing.assert_close(mixing.mixed(x), expected)


def test_permuted_tokens_with_permuted_weights_give_the_permuted_output():
    mixing, order = block((4, 4), (4, 4), (0, 0), heads=1), torch.randperm(16)
    x = torch.randn(1, 16, 4, dtype=torch.double)
    before = mixing.mixed(x.view(1, 4, 4, 4)).view(1, 16, 4)
    with torch.no_grad():
        mixing.spatial_mlp.weight.copy_(mixing.spatial_mlp.weight[order][:, order])
        mixing.spatial_mlp.bias.copy_(mixing.spatial_mlp.bias[order])
    after = mixing.mixed(x[:, order].view(1, 4, 4, 4)).view(1, 16, 4)
    torch.testing.assert_close(after, before[:, order])


def test_opposite_edges_never_meet():
    mixing = block((8, 8), (4, 4), (2, 2))
    x = torch.randn(1, 8, 8, 4, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(mixing.mixed(x)[0, 0, 0].sum(), x)
    reached = gradient[0].abs().sum(-1) > 0
    assert reached[:2, :2].all()
    assert int(reached.sum()) == 4


def test_another_size_keeps_windows_whole_and_resamples_the_weights():
    model = create_backbone(TINY, 96, False, backbone_args=NARROW).model
    blocks = [module for module in model.modules() if isinstance(module, SwinMLPBlock)]
    assert len(blocks) == 4
    assert all(b.input_resolution[axis] % b.window_size[axis] == 0 for b in blocks for axis in (0, 1))
    assert all(len(b.spatial_mlp.bias) == b.num_heads * b.window_area for b in blocks)
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 16)
    constant = torch.full((2 * 16, 16, 1), 0.25)
    torch.testing.assert_close(resampled_weight(constant, (4, 4), (6, 2)), torch.full((2 * 12, 12, 1), 16 / 12 / 4))
    weight = torch.randn(2 * 16, 16, 1)
    assert torch.equal(resampled_weight(weight, (4, 4), (4, 4)), weight)


def test_weights_of_the_authors_release_load(tmp_path):
    """With their names: patches are merged at the end of a stage, and the classifier is `head`."""
    torch.manual_seed(1)
    ours = timm.create_model(TINY, num_classes=5, img_size=64, **NARROW).eval()
    state = {name.replace("head.fc.", "head."): tensor for name, tensor in ours.state_dict().items()}
    state = {name.replace("layers.1.downsample", "layers.0.downsample"): tensor for name, tensor in state.items()}
    assert set(checkpoint_filter_fn(state, ours)) == set(ours.state_dict())
    file = tmp_path / "released.safetensors"
    save_file(state, file)
    loaded = create_backbone(TINY, 64, str(file), backbone_args=NARROW).model.eval()
    ours.reset_classifier(0)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), ours(image))


def test_maps_of_its_stages_halve_and_its_layers_learn_at_their_rates():
    model = timm.create_model(TINY, num_classes=0, img_size=64, **NARROW)
    _, maps = model.forward_intermediates(torch.zeros(1, 3, 64, 64))
    assert [tuple(each.shape[1:]) for each in maps] == [(8, 16, 16), (16, 8, 8)]
    groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
    assert {group["lr_scale"] for group in groups} == {0.5**layer for layer in range(5)}  # the stem and four blocks
