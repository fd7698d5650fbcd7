"""The blocks of a network: residual ones, their branches, and what each branch computes.

Shapes: B batch, C channels, H and W positions, N tokens.
"""

import re
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["image", "stem", "msa", "mlp", "conv", "mixer", "downsample", "other"]
ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
OF_CHANNELS = re.compile(r"channel|squeeze|eca|^se", re.IGNORECASE)  # gates of channels are no attention of positions
OF_TOKENS = re.compile(r"token|spatial", re.IGNORECASE)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def find_blocks(model: nn.Module) -> list[str]:
    """Names of the residual blocks of a network, the innermost ones.

    Of a network that has none, the parts of its largest nn.Sequential or nn.ModuleList.
    """
    found = [name for name, module in model.named_modules() if name and _is_block(module)]
    inner = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]
    if inner:
        return inner
    kinds = (nn.Sequential, nn.ModuleList)
    containers = [(name, each) for name, each in model.named_modules() if isinstance(each, kinds)]
    if not containers:
        return []
    name, largest = max(containers, key=lambda pair: len(pair[1]))
    return [f"{name}.{part}".removeprefix(".") for part, _ in largest.named_children()] if len(largest) > 1 else []


def _is_block(module: nn.Module) -> bool:
    return any(hasattr(module, name) for name in ("drop_path", "drop_path1"))


def branch_ends(block: nn.Module) -> list[nn.Module]:
    """The modules of a block whose output is added to what came in; one that is called twice ends two branches."""
    ends = [module for name, module in block.named_children() if name.startswith("drop_path")]
    if ends or not hasattr(block, "downsample"):
        return ends
    last = [getattr(block, name, None) for name in ("se", "bn3", "bn2")]  # of a ResNet, from the last one back
    return [module for module in last if isinstance(module, nn.Module)][:1]


def kind_of(used: list[tuple[str, nn.Module]]) -> Kind:
    """What a branch computes, by the modules that it used.

    Args:
        used: Names and modules.
    """
    attentive = [name for name, module in used if ATTENTION.search(type(module).__name__)]
    if any(not OF_CHANNELS.search(name.rpartition(".")[2]) for name in attentive):
        return "msa"
    if any(isinstance(module, CONVOLUTIONS) and max(module.kernel_size) > 1 for _, module in used):
        return "conv"
    if any(OF_TOKENS.search(name) for name, _ in used):
        return "mixer"
    if any(isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) for _, module in used):
        return "mlp"
    return "other"


def channels_last(features: Tensor, block: nn.Module) -> bool:
    """Whether (B, ?, ?, ?) is (B, H, W, C), by the first layer of a block whose channels are those of an end."""
    first, last = features.shape[1], features.shape[-1]
    for module in block.modules():
        if isinstance(module, nn.LayerNorm):
            count, is_last = module.normalized_shape[-1], True
        elif isinstance(module, nn.Linear):
            count, is_last = module.in_features, True
        elif isinstance(module, nn.Conv2d):
            count, is_last = module.in_channels, False
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            count, is_last = module.num_features, False
        else:
            continue
        if first == last == count:
            return is_last
        if count in (first, last):
            return bool(count == last)
    return False


def shuffled(tokens: Tensor, order: torch.Generator, prefix: int, is_last: bool) -> Tensor:
    """Features with their positions in another order, the same for all rows of a batch; prefix tokens stay.

    Args:
        tokens: (B, C, H, W), (B, H, W, C) if `is_last`, or (B, prefix + N, C).
        order: Draws the order.
        prefix: Number of tokens that stay.
        is_last: Where the channels of four dimensions are.
    """
    if tokens.ndim == 3:
        kept, moved = tokens[:, :prefix], tokens[:, prefix:]
        places = torch.randperm(moved.shape[1], generator=order).to(tokens.device)
        return torch.cat([kept, moved[:, places]], 1)
    flat = tokens.flatten(1, 2) if is_last else tokens.flatten(2)
    dim = 1 if is_last else 2
    places = torch.randperm(flat.shape[dim], generator=order).to(tokens.device)
    return flat.index_select(dim, places).reshape(tokens.shape)
