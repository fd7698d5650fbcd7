"""Faster, exact window attention for timm's Swin V1 and V2, with timm's weights.

`accelerate` changes only the class of the blocks. Parameters, buffers, modules and keys of the state dict stay timm's,
so checkpoints are interchangeable. `restore` changes the class back. If a network is traced, scripted, exported,
transformed by `torch.func` or has hooks inside the attention, the blocks compute as timm's do. Shapes as in `windows`.
"""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from timm.layers.config import use_fused_attn
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer import WindowAttention as AttentionV1
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.swin_transformer_v2 import WindowAttention as AttentionV2
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.attention import sdpa_kernel
from torch.nn.modules.module import _has_any_global_hook

from swinft.errors import InputError
from swinft.model.attention.windows import BIASED_SDPA, FUSED_ON, Windows, attend, position_bias

MAX_LOGIT_SCALE = math.log(1 / 0.01)
# Largest difference from timm that the check allows, relative to the largest value, by number format. On devices other
# than CPUs, fp32 may be computed in tf32, with 10 bits.
CPU_TOLERANCES = {torch.float: 1e-4}
CANCELLED = 1e-2  # of the largest value: smaller ones may be sums of terms that cancel, and so mostly rounding
TOLERANCES = {torch.float: 1e-2, torch.bfloat16: 1e-1, torch.half: 1e-1}

Kernel = Literal["torch", "fused"]
FastAttention = bool | Literal["auto", "fused"]  # the setting `model.compute.fast_attention`
FAST_ATTENTION: tuple[FastAttention, ...] = ("auto", True, False, "fused")


class _Fast:
    """Common base of the V1 and V2 blocks."""

    def __prepare_scriptable__(self) -> Any:
        """Called by `torch.jit.script`, which compiles a class's source: turns this block into timm's for good."""
        return _restored(self)


class FastBlock(_Fast, SwinTransformerBlock):
    """timm's V1 block with faster attention."""

    kernel: Kernel = "torch"

    def _attn(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        if not _can_accelerate(self, x):
            return super()._attn(x)  # type: ignore[no-any-return, no-untyped-call]
        attn: Any = self.attn
        bias = position_bias(attn.relative_position_bias_table, attn.window_size)
        return _attended(self, x, attn.qkv(x.flatten(1, 2)), bias, attn.scale, None)


class FastV2Block(_Fast, SwinTransformerV2Block):
    """timm's V2 block with faster attention."""

    kernel: Kernel = "torch"

    def _attn(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        if not _can_accelerate(self, x):
            return super()._attn(x)
        attn: Any = self.attn
        # Sigmoid per relative position, not per pair of tokens: 225 values instead of 4,096 at window 8.
        table = 16 * attn.cpb_mlp(attn.relative_coords_table).flatten(0, 2).sigmoid()
        cosine = attn.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        return _attended(self, x, _qkv_v2(attn, x.flatten(1, 2)), position_bias(table, attn.window_size), 1.0, cosine)


class FusedBlock(_Fast, SwinTransformerBlock):
    """timm's V1 block with timm's own attention and torch's fused function, which timm disables by default."""

    kernel: Kernel = "fused"

    def _attn(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        attn: Any = self.attn
        if _is_traced() or _has_hooks_inside(self):
            attn.fused_attn = False
            try:
                return super()._attn(x)  # type: ignore[no-any-return, no-untyped-call]
            finally:
                attn.fused_attn = True
        with sdpa_kernel(BIASED_SDPA) if x.device.type in FUSED_ON else nullcontext():
            return super()._attn(x)  # type: ignore[no-any-return, no-untyped-call]


def _qkv_v2(attn: Any, x: Tensor) -> Tensor:
    """Tokens (B, H·W, C) to queries, keys and values (B, H·W, 3·C)."""
    if attn.q_bias is None:
        qkv: Tensor = attn.qkv(x)
        return qkv
    bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
    return attn.qkv(x) + bias if attn.qkv_bias_separate else functional.linear(x, attn.qkv.weight, bias)


def _can_accelerate(block: Any, x: Tensor) -> bool:
    """Whether nothing is traced, no bypassed module has hooks, and the windows divide the grid."""
    if _is_traced() or x.shape[1] % block.window_size[0] or x.shape[2] % block.window_size[1]:
        return False
    return not _has_hooks_inside(block)


def _has_hooks_inside(block: Any) -> bool:
    """Whether a module whose `forward` is bypassed here has hooks."""
    bypassed = (block.attn, block.attn.softmax, block.attn.attn_drop)
    return _has_any_global_hook() or any(_is_hooked(module) for module in bypassed)  # type: ignore[no-untyped-call]


def _is_hooked(module: nn.Module) -> bool:
    """Whether a module has hooks, or it or its `forward` was replaced."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in vars(module)
        or type(module).forward is not BYPASSED.get(type(module))
    )


def _is_traced() -> bool:
    """Whether operations are traced, exported or transformed by tools that support timm's operations, not these."""
    return bool(
        torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch.compiler.is_exporting()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def _attended(block: Any, x: Tensor, qkv: Tensor, bias: Tensor, scale: float, cosine: Tensor | None) -> Tensor:
    """From queries, keys and values (B, H·W, 3·C) to the output of the block's attention, (B, H, W, C) as `x`."""
    attn = block.attn
    mask = block.get_attn_mask(x) if block.dynamic_mask else block.attn_mask
    windows = Windows((x.shape[1], x.shape[2]), tuple(block.window_size), tuple(block.shift_size), attn.num_heads)
    dropout = attn.attn_drop.p if attn.attn_drop.training else 0.0
    attended = attend(qkv, bias, mask, windows, scale, cosine, dropout)
    out: Tensor = attn.proj_drop(attn.proj(attended))
    return out.view_as(x)


BYPASSED: dict[type[nn.Module], Any] = {cls: cls.forward for cls in (AttentionV1, AttentionV2, nn.Softmax, nn.Dropout)}
# Exact classes only: a subclass may compute something else.
FASTER: dict[type[nn.Module], tuple[type[nn.Module], dict[Kernel, type[nn.Module]]]] = {
    SwinTransformerBlock: (AttentionV1, {"torch": FastBlock, "fused": FusedBlock}),
    SwinTransformerV2Block: (AttentionV2, {"torch": FastV2Block}),
}


def accelerate(
    model: nn.Module,
    device: torch.device | None = None,
    kernel: Kernel = "torch",
    dtype: torch.dtype = torch.float,
) -> int:
    """Speeds up the attention of a model's Swin blocks, in place.

    Blocks whose windows do not divide their grid, or whose attention has hooks, still compute as timm does.

    Args:
        model: Any module; only timm's Swin blocks are changed.
        device: Where the model will run, for the check; None for its current device.
        kernel: torch's operations, or timm's own attention with torch's fused function (V1 only).
        dtype: Autocast's dtype. It is checked in addition to float32, since each uses other kernels.

    Returns:
        Number of changed blocks.

    Raises:
        InputError: No block supports the fused kernel. The model is unchanged.
        RuntimeError: On this device the result differs from timm's. The model is unchanged.
    """
    blocks = _timms_blocks(model, kernel)
    refuse_impossible(model, kernel)
    kinds = {(type(block), tuple(block.window_size), any(block.shift_size)): block for block in reversed(blocks)}
    for block in kinds.values():
        _check(block, device or next(block.parameters()).device, kernel, dtype)
    for block in blocks:
        _made_fast(block, kernel)
    return len(blocks)


def _made_fast(block: Any, kernel: Kernel) -> Any:
    """Changes the class of a timm block to the one for a kernel."""
    block.__class__ = FASTER[type(block)][1][kernel]
    if kernel == "fused":
        block.attn.fused_attn = True
    return block


def restore(model: nn.Module) -> int:
    """Restores timm's attention in the Swin blocks of a model, in place.

    Returns:
        Number of changed blocks.
    """
    blocks = [module for module in model.modules() if isinstance(module, _Fast)]
    for block in blocks:
        _restored(block)
    return len(blocks)


def _restored(block: Any) -> Any:
    """Changes the class of a block back to timm's."""
    if block.kernel == "fused":
        block.attn.fused_attn = use_fused_attn(experimental=True)  # timm's default
    (block.__class__,) = (timms for timms, (_, ours) in FASTER.items() if type(block) in ours.values())
    return block


def set_attention(
    model: nn.Module,
    device: torch.device,
    fast_attention: FastAttention,
    say: Callable[[str], None] = print,
    dtype: torch.dtype = torch.float,
) -> None:
    """Sets the attention of a model as configured; if the check fails, it stays timm's, and a line says so.

    Args:
        model: Any module.
        device: Where it will run.
        fast_attention: The setting; `auto` is the same as true here (a run has resolved it before).
        say: Prints a line.
        dtype: Autocast's dtype.

    Raises:
        InputError: As `accelerate`.
    """
    restore(model)
    try:
        if fast_attention:
            kernel: Kernel = "torch" if fast_attention is True or fast_attention == "auto" else fast_attention
            accelerate(model, device, kernel, dtype)
    except InputError:
        raise
    except Exception as error:  # compilers raise many kinds, and timm's own computation always works
        reason = next(iter(str(error).splitlines()), "") or repr(error)
        say(f"attention is computed as timm does: {reason}")


def attentions(model: nn.Module, device: torch.device) -> list[FastAttention]:
    """The values of the setting that a model supports on a device, the default first.

    Args:
        model: Any module.
        device: Where it will run.

    Returns:
        An empty list if the model has no Swin block of timm.
    """
    kinds: list[Any] = [module for module in model.modules() if isinstance(module, _Fast) or type(module) in FASTER]
    if not kinds:
        return []
    found: list[FastAttention] = [True, False]
    if device.type in FUSED_ON and all(isinstance(module, SwinTransformerBlock) for module in kinds):
        found.append("fused")
    return found


def refuse_impossible(model: nn.Module, setting: FastAttention | Kernel) -> None:
    """Checks that a model supports a setting, without computing anything.

    Args:
        model: Any module.
        setting: The setting.

    Raises:
        InputError: As `accelerate`.
    """
    if setting != "fused" or _timms_blocks(model, "fused"):
        return
    if not any(isinstance(module, FusedBlock) for module in model.modules()):
        raise InputError(
            "model.compute.fast_attention is 'fused', but the backbone has no block of timm's Swin V1. Write "
            "model.compute.fast_attention: auto."
        )


def _timms_blocks(model: nn.Module, kernel: Kernel) -> list[Any]:
    """The timm blocks that a kernel supports."""
    modules: list[Any] = [module for module in model.modules() if type(module) in FASTER]
    return [
        module
        for module in modules
        if type(module.attn) is FASTER[type(module)][0] and kernel in FASTER[type(module)][1]
    ]


def _check(block: Any, device: torch.device, kernel: Kernel, dtype: torch.dtype) -> None:
    """Compares output and gradients of a copy of a block with timm's, with random biases, on 2 by 2 windows.

    Raises:
        RuntimeError: They differ.
    """
    timms = copy.deepcopy(block).to(device).float().eval().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in timms.named_parameters():
        if "cpb_mlp" in name or parameter.ndim == 1 or "bias_table" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    timms.set_input_size(tuple(2 * side for side in block.window_size), block.window_size)
    ours = _made_fast(copy.deepcopy(timms), kernel)
    x = torch.randn(1, *timms.input_resolution, timms.dim, generator=generator).to(device)
    tolerances = TOLERANCES | (CPU_TOLERANCES if device.type == "cpu" else {})
    for number_format in dict.fromkeys((torch.float, dtype)):
        tolerance = tolerances[number_format]
        pairs = list(zip(_results(timms, x, number_format), _results(ours, x, number_format), strict=True))
        noise = CANCELLED * max(float(theirs.abs().max()) for theirs, _ in pairs)
        for theirs, own in pairs:
            difference, largest = float((theirs - own).abs().max()), float(theirs.abs().max())
            if not difference <= tolerance * max(largest, noise):  # also true for NaN
                raise RuntimeError(
                    f"Faster window attention differs from timm's by {difference:.1e}, where values reach "
                    f"{largest:.1e}, on {device} in {number_format} with torch {torch.__version__}."
                )


def _results(block: Any, x: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The output, and the gradients of all parameters of the attention."""
    with torch.enable_grad(), torch.autocast(x.device.type, dtype, enabled=dtype != torch.float):
        out: Tensor = block._attn(x).float()
        parameters = [parameter for parameter in block.attn.parameters() if parameter.requires_grad]
    # The mean over tokens: gradients of their sum can overflow fp16 if weights are large.
    return [out.detach(), *torch.autograd.grad(out.square().sum(-1).mean(), parameters)]
