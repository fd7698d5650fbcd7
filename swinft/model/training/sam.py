"""Sharpness-aware minimisation (SAM, arXiv 2010.01412): a step with the gradient at the worst weights nearby."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from swinft.errors import InputError
from swinft.ranges import POSITIVE, check_ranges

KEY = "model.optim.args"


class SAM(Optimizer):
    """Another optimiser whose gradients are computed twice: at the weights, and at those that raise the loss most.

    Ranks of a training have the same gradients, so that they move by the same.

    Args:
        base: Takes the steps; its groups and its state are those of this optimiser.
        rho: Distance of the weights at which gradients are computed, above 0.
        adaptive: Measure distances relative to each weight (ASAM, arXiv 2102.11600).

    Raises:
        InputError: `rho` is out of its range.
    """

    def __init__(self, base: Optimizer, rho: float = 0.05, adaptive: bool = False) -> None:
        check_ranges(KEY, {"rho": rho}, {"rho": POSITIVE})
        super().__init__(base.param_groups, base.defaults)
        self.base, self.rho, self.adaptive = base, rho, adaptive
        self.is_second = False  # whether gradients are computed for the second time
        self._share()

    def _share(self) -> None:
        self.state, self.param_groups = self.base.state, self.base.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step.

        Args:
            closure: Sets the gradients anew and returns the loss; it is called twice, for the same batch.

        Raises:
            InputError: There is none.
        """
        if closure is None:
            raise InputError("model.optim.name 'sam' computes gradients twice, which fp16's loss scaling does not do.")
        with torch.enable_grad():
            loss = closure()
        moved = self._ascend()
        self.is_second = True
        try:
            with torch.enable_grad():
                closure()
        finally:
            self.is_second = False
            for weight, before in moved:
                weight.copy_(before)  # exactly, which a subtraction would not bring back
        self.base.step()
        return loss

    def _ascend(self) -> list[tuple[Tensor, Tensor]]:
        """Moves the weights up the gradient by `rho`; returns them with what they were."""
        weights = [each for group in self.param_groups for each in group["params"] if each.grad is not None]
        gradients = [each.grad for each in weights]
        factors = [each.abs() for each in weights] if self.adaptive else [torch.ones_like(each) for each in weights]
        norms = torch._foreach_norm([gradient * factor for gradient, factor in zip(gradients, factors, strict=True)])
        scale = self.rho / (torch.stack([norm.float() for norm in norms]).norm() + 1e-12)
        before = [each.clone() for each in weights]
        for weight, gradient, factor in zip(weights, gradients, factors, strict=True):
            weight.add_(factor**2 * gradient * scale.to(gradient.dtype))
        return list(zip(weights, before, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """That of the base."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads that of the base."""
        self.base.load_state_dict(state_dict)
        self._share()


@contextmanager
def kept_statistics(net: nn.Module) -> Iterator[None]:
    """Inside the block BatchNorm's running statistics stay as they are, in training mode too."""
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
