"""Low-rank adapters (LoRA, arXiv 2106.09685) on frozen linear layers, as parametrizations of their weights.

Whatever reads a layer's weight reads the sum of the frozen weight and the adapter. Saved weights are those sums, under
the names that the layer has without an adapter: prediction and export know nothing of adapters.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from swinft.errors import InputError, listed
from swinft.ranges import NOT_NEGATIVE, POSITIVE, SettingsError, check_ranges, whole_problems

KEY = "model.optim.freeze.lora"
TARGETS = ("qkv", "proj", "fc1", "fc2")  # timm's names of the linear layers of attention and MLP


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters on the frozen linear layers of the backbone.

    Args:
        rank: Of an adapter: the weight W (M, N) becomes W + alpha / rank · B A, with B (M, rank) and A (rank, N); 0 for
            no adapters.
        alpha: Factor on the adapters, above 0.
        targets: Names of the layers, compared with the last part of their path; `*` stands for any characters. Null for
            qkv, proj, fc1 and fc2, the layers of attention and MLP.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        """Checks the ranges, and that every setting acts."""
        if problems := whole_problems(KEY, vars(self), {"rank": 0}):
            raise SettingsError(problems)
        check_ranges(KEY, vars(self), {"rank": NOT_NEGATIVE, "alpha": POSITIVE})
        if not self.rank and (self.targets or self.alpha != LoRAConfig.alpha):
            raise InputError(f"{KEY}: alpha and targets do nothing without rank: set it to 4, 8 or 16.")


class LowRank(nn.Module):
    """A weight (M, N) plus a product of two matrices that are trained; at first the weight itself."""

    def __init__(self, shape: torch.Size, config: LoRAConfig) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(config.rank, shape[1]))
        self.b = nn.Parameter(torch.zeros(shape[0], config.rank))
        self.scale = config.alpha / config.rank
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The sum."""
        return weight + self.scale * (self.b @ self.a)


def add_adapters(model: nn.Module, config: LoRAConfig) -> None:
    """Adds adapters to the frozen linear layers of a model that `config` names.

    Raises:
        InputError: It names none.
    """
    if not config.rank:
        return
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    frozen = {name: module for name, module in linears.items() if not module.weight.requires_grad}
    patterns = config.targets or TARGETS
    chosen = {
        name: module
        for name, module in frozen.items()
        if any(fnmatch(name.rpartition(".")[2], pattern) for pattern in patterns)
    }
    if not chosen:
        known = sorted({name.rpartition(".")[2] for name in frozen})
        there = (
            f"its frozen linear layers are named {listed(known)}" if known else "none of its linear layers is frozen"
        )
        raise InputError(f"{KEY}.targets is {list(patterns)}, and of the backbone {there}.")
    for module in chosen.values():
        parametrize.register_parametrization(module, "weight", LowRank(module.weight.shape, config))


def _adapted(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in net.named_modules():
        if parametrize.is_parametrized(module, "weight") and isinstance(module.parametrizations["weight"][0], LowRank):
            yield name, module


@torch.no_grad()
def merged_state(net: nn.Module) -> dict[str, Tensor]:
    """A network's weights by the names that they have without adapters, which are added to them."""
    state: dict[str, Tensor] = net.state_dict()
    for name, module in _adapted(net):
        prefix = f"{name}.parametrizations."
        state = {key: value for key, value in state.items() if not key.startswith(prefix)}
        state[f"{name}.weight"] = module.weight  # type: ignore[assignment]  # a tensor that is computed
    return state
