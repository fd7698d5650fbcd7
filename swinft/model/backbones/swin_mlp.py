"""Swin-Mixer: Swin with an MLP over the tokens of a window in the place of attention; registered as timm models.

Of the appendix of Swin's paper (arXiv 2103.14030, table 10), under the names of its authors' release, where it is
called Swin-MLP: `swin_mlp_tiny_c24_patch4_window8_256` and others. timm has no such models; all else is its Swin V1.

Shapes: B batch, H and W rows and columns of the grid, C channels, N windows of all images, M tokens of a window.
"""

import math
import re
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import to_2tuple, trunc_normal_  # type: ignore[attr-defined]
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional

Sides = tuple[int, int]
WITHOUT_ATTENTION = ("attn_drop_rate", "head_dim", "qkv_bias")  # arguments of timm's Swin that say nothing here
RELEASE = "https://github.com/SwinTransformer/storage/releases/download/v1.0.5/"


class SwinMLPBlock(nn.Module):
    """A block of Swin-Mixer: for each head a linear layer over the tokens of a window, then the MLP of each token.

    Shifted windows come from zeros around the grid, not from a cyclic shift: an MLP has no mask that could keep
    opposite edges apart.

    Args:
        dim: C.
        input_resolution: H and W.
        num_heads: Groups of channels, each mixed with its own weights.
        window_size: Sides of a window; a grid that is smaller is one window without a shift.
        shift_size: Rows and columns by which the windows are shifted.
        norm1: The norm before the mixing.
        norm2: The norm before the MLP.
        mlp: C to C.
        drop_path: Stochastic depth of both branches.
    """

    def __init__(
        self,
        dim: int,
        input_resolution: Sides,
        num_heads: int,
        window_size: Sides,
        shift_size: Sides,
        *,
        norm1: nn.Module,
        norm2: nn.Module,
        mlp: nn.Module,
        drop_path: tuple[nn.Module, nn.Module],
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide the {dim} channels of its stage")
        self.dim, self.num_heads, self.target_shift_size = dim, num_heads, shift_size
        self.input_resolution, self.window_size = input_resolution, window_size
        self._set_windows(window_size)
        channels = num_heads * self.window_area
        self.norm1 = norm1
        # A grouped convolution over the channels (head, token) is a linear layer over the tokens for each head.
        self.spatial_mlp = nn.Conv1d(channels, channels, kernel_size=1, groups=num_heads)
        trunc_normal_(self.spatial_mlp.weight, std=0.02)
        nn.init.zeros_(self.spatial_mlp.bias)  # type: ignore[arg-type]
        self.drop_path1, self.norm2, self.mlp, self.drop_path2 = drop_path[0], norm2, mlp, drop_path[1]

    def _set_windows(self, window_size: Sides) -> None:
        """Sets window and shift, neither larger than the grid allows."""
        self.window_size = _each(min, self.input_resolution, window_size)
        shifts = any(self.target_shift_size)
        halves = [side // 2 if shifts else 0 for side in self.window_size]
        grid = zip(self.input_resolution, self.window_size, halves, strict=True)
        self.shift_size = tuple(half if side > window else 0 for side, window, half in grid)
        self.window_area = self.window_size[0] * self.window_size[1]

    def set_input_size(self, feat_size: Sides, window_size: Sides, always_partition: bool | None = None) -> None:
        """Adapts the block to a grid and a window, as timm's Swin blocks; weights over the tokens are resampled."""
        before, self.input_resolution = self.window_size, feat_size
        self._set_windows(to_2tuple(window_size))
        if self.window_size != before:
            mixing, channels = self.spatial_mlp, self.num_heads * self.window_area
            weight = resampled_weight(mixing.weight.detach(), before, self.window_size)
            bias = resampled_bias(mixing.bias.detach(), before, self.window_size)  # type: ignore[union-attr]
            new = nn.Conv1d(channels, channels, 1, groups=self.num_heads, device=weight.device, dtype=weight.dtype)
            new.weight, new.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.spatial_mlp = new.requires_grad_(mixing.weight.requires_grad)

    def mixed(self, x: Tensor) -> Tensor:
        """Mixes the tokens of each window, (B, H, W, C) to the same shape."""
        height, width, channels = x.shape[1:]
        top, left = (w - s if s else 0 for w, s in zip(self.window_size, self.shift_size, strict=True))
        rows, columns = _each(_whole, (height + top, width + left), self.window_size)
        x = functional.pad(x, (0, 0, left, columns - width - left, top, rows - height - top))
        windows = window_partition(x, self.window_size).flatten(1, 2)  # (N, M, C)
        heads = windows.view(*windows.shape[:2], self.num_heads, -1).transpose(1, 2)  # (N, heads, M, C / heads)
        heads = self.spatial_mlp(heads.flatten(1, 2)).view_as(heads)
        windows = heads.transpose(1, 2).reshape(-1, *self.window_size, channels)
        whole: Tensor = window_reverse(windows, self.window_size, rows, columns)
        return whole[:, top : top + height, left : left + width]

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self.drop_path1(self.mixed(self.norm1(x)))
        out: Tensor = x + self.drop_path2(self.mlp(self.norm2(x)))
        return out


def _each(compute: Any, first: Sides, second: Sides) -> Sides:
    return compute(first[0], second[0]), compute(first[1], second[1])


def _whole(length: int, window: int) -> int:
    """The next multiple of the window."""
    return math.ceil(length / window) * window


def resampled_weight(weight: Tensor, before: Sides, after: Sides) -> Tensor:
    """Weights from each token of a window to each, for another window.

    They are interpolated in the positions of both, and the sum over the tokens that a token reads is kept.

    Args:
        weight: (heads · M, M, 1), as of the grouped convolution.
        before: Sides of the window with M tokens.
        after: Sides of the other window.
    """
    old, new = before[0] * before[1], after[0] * after[1]
    read = functional.interpolate(weight.reshape(-1, 1, *before), after, mode="bilinear", align_corners=False)
    read = read.reshape(-1, old, new).transpose(1, 2) * (old / new)
    written = functional.interpolate(read.reshape(-1, 1, *before), after, mode="bilinear", align_corners=False)
    return written.reshape(-1, new, new).transpose(1, 2).reshape(-1, new, 1)


def resampled_bias(bias: Tensor, before: Sides, after: Sides) -> Tensor:
    """Biases of the tokens of a window (heads · M,) for another window."""
    grids = bias.reshape(-1, 1, *before)
    return functional.interpolate(grids, after, mode="bilinear", align_corners=False).flatten()


class SwinMLP(SwinTransformer):
    """Swin-Mixer: timm's Swin V1 with blocks that mix the tokens of a window by an MLP.

    Args:
        **arguments: Those of `timm.models.swin_transformer.SwinTransformer`, except those of attention.

    Raises:
        TypeError: An argument is unknown.
    """

    def __init__(self, **arguments: Any) -> None:
        if unknown := [name for name in WITHOUT_ATTENTION if name in arguments]:
            raise TypeError(f"SwinMLP has no attention, and got an argument of it: {', '.join(unknown)}")
        super().__init__(**arguments)
        stages: Any = self.layers
        for stage in stages:
            stage.blocks = nn.Sequential(*(_mixing(block) for block in stage.blocks))


def _mixing(block: Any) -> SwinMLPBlock:
    """A mixing block of the norms and the MLP of a block with attention."""
    return SwinMLPBlock(
        block.dim,
        block.input_resolution,
        block.attn.num_heads,
        block.window_size,
        block.target_shift_size,
        norm1=block.norm1,
        norm2=block.norm2,
        mlp=block.mlp,
        drop_path=(block.drop_path1, block.drop_path2),
    )


def checkpoint_filter_fn(state: dict[str, Any], model: SwinMLP) -> dict[str, Tensor]:
    """Weights of the authors' release, or of another window, with the names and shapes of this model."""
    state = state.get("model", state)
    # The authors merge patches at the end of a stage, timm at the start of the next one.
    is_released = "layers.0.downsample.reduction.weight" in state
    found = {}
    for name, tensor in state.items():
        if is_released:
            name = re.sub(r"layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", name)
            name = re.sub(r"^head\.", "head.fc.", name)
        if ".spatial_mlp." in name:
            tensor = _fitted(tensor, model.get_submodule(name.rpartition(".spatial_mlp.")[0]))
        found[name] = tensor
    return found


def _fitted(tensor: Tensor, block: Any) -> Tensor:
    """A tensor of `spatial_mlp` for the window of a block; windows of other shapes are taken for squares."""
    side = math.isqrt(len(tensor) // block.num_heads)
    if len(tensor) == block.num_heads * block.window_area or side * side * block.num_heads != len(tensor):
        return tensor  # the loader reports shapes that do not fit
    resampled = resampled_weight if tensor.ndim == 3 else resampled_bias
    return resampled(tensor, (side, side), block.window_size)


def _config(side: int) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, side, side),
        "pool_size": (side // 32, side // 32),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
        "license": "mit",
    }


SIDES = {
    "swin_mlp_tiny_c24_patch4_window8_256": 256,
    "swin_mlp_tiny_c12_patch4_window8_256": 256,
    "swin_mlp_tiny_c6_patch4_window8_256": 256,
    "swin_mlp_base_patch4_window7_224": 224,
}
default_cfgs = generate_default_cfgs(
    {f"{name}.ms_in1k": {**_config(side), "url": f"{RELEASE}{name}.pth"} for name, side in SIDES.items()}
)


def _create(name: str, pretrained: bool, given: dict[str, Any], **own: Any) -> SwinMLP:
    model: SwinMLP = build_model_with_cfg(
        SwinMLP,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"flatten_sequential": True, "out_indices": given.pop("out_indices", (0, 1, 2, 3))},
        **{"img_size": SIDES[name], **own, **given},
    )
    return model


# C24 means 24 channels per head.
@register_model
def swin_mlp_tiny_c24_patch4_window8_256(pretrained: bool = False, **kwargs: Any) -> SwinMLP:
    """Swin-Mixer-T/D24 of the paper."""
    own = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (4, 8, 16, 32), "window_size": 8}
    return _create("swin_mlp_tiny_c24_patch4_window8_256", pretrained, kwargs, **own)


@register_model
def swin_mlp_tiny_c12_patch4_window8_256(pretrained: bool = False, **kwargs: Any) -> SwinMLP:
    """Swin-Mixer-T/D12 of the paper."""
    own = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (8, 16, 32, 64), "window_size": 8}
    return _create("swin_mlp_tiny_c12_patch4_window8_256", pretrained, kwargs, **own)


@register_model
def swin_mlp_tiny_c6_patch4_window8_256(pretrained: bool = False, **kwargs: Any) -> SwinMLP:
    """Swin-Mixer-T/D6 of the paper."""
    own = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (16, 32, 64, 128), "window_size": 8}
    return _create("swin_mlp_tiny_c6_patch4_window8_256", pretrained, kwargs, **own)


@register_model
def swin_mlp_base_patch4_window7_224(pretrained: bool = False, **kwargs: Any) -> SwinMLP:
    """Swin-Mixer-B of the paper."""
    own = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "window_size": 7}
    return _create("swin_mlp_base_patch4_window7_224", pretrained, kwargs, **own)
