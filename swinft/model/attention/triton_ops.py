"""Attention inside windows computed by Triton kernels, as operators of torch.

Shapes as in `window_kernels`; the kernels are in `triton_kernels`. Importing this module imports Triton, which exists
for Linux only: ask `window_attention.triton_problem` first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.attention import triton_kernels
from swinft.model.attention.windows import Windows

# Tokens on either side of a tile: the largest whose numbers stay in the registers of four warps. In fp32 matrix units
# are not used, and threads hold more.
TILES = {torch.half: 64, torch.bfloat16: 64, torch.float: 32}
MAX_DEPTH = 128
FIRST_CAPABILITY = (8, 0)  # for older GPUs Triton compiles no matrix units: it would be slower than torch's own
# Of the first launch of the backward pass, at most: several per multiprocessor of the largest GPU. Each adds up a
# gradient of the bias of its own, so this bounds their memory too. Not asked of the device: sums are the same on all.
PROGRAMS = 2048
# Stages would prefetch, into registers that are not there. Fusion as ever, or Triton warns of its new default.
OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
NO_WEIGHT = -1e30  # a score whose exponential is 0; an infinite one would make NaN of rows that only fill a tile


def attend(
    qkv: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    windows: Windows,
    scale: float = 1.0,
    cosine: Tensor | None = None,
) -> Tensor:
    """The same as `window_kernels.attend`, without dropout.

    Args:
        qkv: Queries, keys and values (B, H·W, 3·h·d) in fp32, fp16 or bf16; d is at most 128.
        bias: Of token pairs (h, N, N).
        mask: Of token pairs (W', N, N), as a shift makes it: its numbers are not read but computed. None for no shift.
        windows: How the grid is cut.
        scale: Of all scores.
        cosine: Scale per head (h, 1, 1) of cosine attention, which normalises queries and keys; None for dot products.

    Returns:
        (B, H·W, h·d) in the precision of `qkv`.

    Raises:
        InputError: The kernel cannot do this precision or width of heads.
    """
    geometry = [*windows.grid, *windows.window, *windows.shift, windows.heads]
    arguments = qkv, bias, cosine, geometry, scale, mask is not None
    # An operator costs more on its way than these kernels take for a few images; only those who record need one.
    if type(qkv) is Tensor and not torch.compiler.is_compiling():
        attended: Tensor = _Attend.apply(*arguments)[0]
    else:
        attended = _attention(*arguments)[0]
    return attended


def device_problem(device: torch.device) -> str | None:
    """Why the kernel cannot run on a device; None where it can.

    Where Triton interprets its kernels, a tool for tests many thousand times slower, they run on all devices.
    """
    if triton.knobs.runtime.interpret:
        return None
    is_nvidia = device.type == "cuda" and torch.version.hip is None  # ROCm's capabilities are numbers of its own
    capability = torch.cuda.get_device_capability(device) if is_nvidia else (0, 0)
    if capability >= FIRST_CAPABILITY:
        return None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"'{device}'"
    return f"needs an NVIDIA GPU of generation Ampere (sm_80) or later, but the device is {name}"


def tile_side(tokens: int, dtype: torch.dtype) -> int:
    """Tokens on either side of a tile: a power of 2, and the 16 that matrix units take at least."""
    side: int = min(TILES.get(dtype, 16), max(16, triton.next_power_of_2(tokens)))
    return side


class _Launch:
    """Arguments that kernels share.

    Args:
        qkv: As of `attend`.
        geometry: H, W, sides of a window, shifts and h.
        is_masked: Whether tokens that only the shift made neighbours are kept apart.
    """

    def __init__(self, qkv: Tensor, geometry: Sequence[int], scale: float, is_masked: bool) -> None:
        self.grid, self.window, self.shift, self.heads = geometry[:2], geometry[2:4], geometry[4:6], geometry[6]
        self.tokens = self.window[0] * self.window[1]
        self.count = qkv.numel() // (qkv.shape[-1] * self.tokens)  # windows of all images
        self.depth = qkv.shape[-1] // (3 * self.heads)
        self.tile = tile_side(self.tokens, qkv.dtype)
        self.tiles = triton.cdiv(self.tokens, self.tile)
        self.sizes = (*self.grid, *self.shift, self.heads, scale, *self.window, self.depth)
        self.sizes += (max(16, triton.next_power_of_2(self.depth)), is_masked, self.tile)
        if qkv.dtype not in TILES or self.depth > MAX_DEPTH:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in TILES)
            raise InputError(
                f"model.fast_attention is 'triton', whose kernel computes in {allowed} with at most {MAX_DEPTH} "
                f"channels per head, not in {qkv.dtype} with {self.depth}. Write model.fast_attention: true."
            )

    def padded(self, bias: Tensor) -> Tensor:
        """Bias of token pairs in whole tiles, in fp32; keys that do not exist get no weight."""
        missing = self.tile * self.tiles - self.tokens
        return functional.pad(bias.float(), (0, missing, 0, missing), value=NO_WEIGHT).contiguous()

    def run(self, kernel: Any, programs: int, tensors: Sequence[Tensor | None], *sizes: int, **steps: int) -> None:
        """Runs programs of a kernel, on the device of its tensors."""
        with torch.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]
            kernel[(programs,)](*tensors, *sizes, *self.sizes, **steps, **OPTIONS)


def _attended(
    qkv: Tensor, bias: Tensor, cosine: Tensor | None, geometry: Sequence[int], scale: float, is_masked: bool
) -> tuple[Tensor, Tensor]:
    """Attention (B, H·W, h·d), and the logarithms of the sums of exponentials (B, H·W, h)."""
    launch = _Launch(qkv, geometry, scale, is_masked)
    out, log_sums = _empty_results(qkv, launch.heads)
    tensors = [qkv.contiguous(), launch.padded(bias), _contiguous(cosine), out, log_sums]
    launch.run(triton_kernels.forward, launch.count * launch.heads * launch.tiles, tensors)
    return out, log_sums


# Operators of torch, not plain functions: compilers keep them whole, and the graph around them in one piece.
_attention = torch.library.custom_op("swinft::window_attention", _attended, mutates_args=())


@_attention.register_fake
def _(
    qkv: Tensor, bias: Tensor, cosine: Tensor | None, geometry: Sequence[int], scale: float, is_masked: bool
) -> tuple[Tensor, Tensor]:
    return _empty_results(qkv, geometry[-1])


def _empty_results(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    batch, tokens, channels = qkv.shape
    out = qkv.new_empty(batch, tokens, channels // 3)
    return out, qkv.new_empty(batch, tokens, heads, dtype=torch.float)


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _differentiated(
    grad: Tensor,
    qkv: Tensor,
    bias: Tensor,
    cosine: Tensor | None,
    out: Tensor,
    log_sums: Tensor,
    geometry: Sequence[int],
    scale: float,
    is_masked: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `qkv`, bias and scale per head; empty for what needs none."""
    launch = _Launch(qkv, geometry, scale, is_masked)
    tiles, heads, qkv = launch.tiles, launch.heads, qkv.contiguous()
    group = triton.cdiv(launch.count * heads * tiles, PROGRAMS)
    groups = triton.cdiv(launch.count, group)
    qkv_grad = torch.empty_like(qkv)
    bias_parts = qkv.new_empty(groups, *bias.shape, dtype=torch.float) if needs_bias else None
    cosine_parts = None if cosine is None else qkv.new_empty(groups, heads, tiles, dtype=torch.float)
    inputs = [qkv, launch.padded(bias), _contiguous(cosine), out, log_sums, grad.contiguous()]
    # A launch for everything, or for each kind of gradient its own: of queries, of keys and values, of pairs of tokens.
    launches: list[tuple[list[Tensor | None], int, int]] = [([qkv_grad, bias_parts, cosine_parts], 1, 1)]
    if tiles > 1:
        launches = [([qkv_grad, None, cosine_parts], 1, tiles), ([qkv_grad, None, None], tiles, 1)]
        launches += [([None, bias_parts, None], 1, 1)] if needs_bias else []
    for results, query_steps, key_steps in launches:
        programs = groups * heads * (tiles // query_steps) * (tiles // key_steps)
        steps = {"QUERY_STEPS": query_steps, "KEY_STEPS": key_steps}
        launch.run(triton_kernels.backward, programs, [*inputs, *results], launch.count, group, **steps)
    bias_grad, cosine_grad = _empty_sums(bias, cosine, needs_bias)
    if bias_parts is not None:
        bias_grad = bias_parts.sum(0).to(bias.dtype)
    if cosine is not None and cosine_parts is not None:
        cosine_grad = cosine_parts.sum((0, 2)).view_as(cosine).to(cosine.dtype)
    return qkv_grad, bias_grad, cosine_grad


_attention_backward = torch.library.custom_op("swinft::window_attention_backward", _differentiated, mutates_args=())


@_attention_backward.register_fake
def _(
    grad: Tensor,
    qkv: Tensor,
    bias: Tensor,
    cosine: Tensor | None,
    out: Tensor,
    log_sums: Tensor,
    geometry: Sequence[int],
    scale: float,
    is_masked: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return qkv.new_empty(qkv.shape), *_empty_sums(bias, cosine, needs_bias)


def _empty_sums(bias: Tensor, cosine: Tensor | None, needs_bias: bool) -> tuple[Tensor, Tensor]:
    """Places for the gradients of bias and scale: operators return tensors, so there is an empty one for none."""
    bias_grad = bias.new_empty(bias.shape if needs_bias else 0)
    return bias_grad, bias.new_empty(0) if cosine is None else cosine.new_empty(cosine.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """What the backward pass needs."""
    qkv, bias, cosine, *rest = inputs
    ctx.save_for_backward(qkv, bias, cosine, *output)
    ctx.rest = rest
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor, differentiated: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor | None, ...]:
    """Gradients of the arguments of `_attended`."""
    qkv, bias, cosine, out, log_sums = ctx.saved_tensors
    _, needs_bias, needs_cosine, *_ = ctx.needs_input_grad
    found = differentiated(grad, qkv, bias, cosine, out, log_sums, *ctx.rest, needs_bias)
    return found[0], found[1] if needs_bias else None, found[2] if needs_cosine else None, None, None, None


_attention.register_autograd(lambda ctx, grad, _: _gradients(ctx, grad, _attention_backward), setup_context=_keep)


class _Attend(Function):
    """The same step by step."""

    forward = staticmethod(_attended)
    setup_context = staticmethod(_keep)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the arguments."""
        return _gradients(ctx, grad, _differentiated)
