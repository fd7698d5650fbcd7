"""Transforms of regression targets: the network learns the transformed target, predictions are in the target's units.

Shapes: B rows, N training rows, K outputs, Q knots.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from swinft.errors import InputError, number_of, suggest

TransformName = Literal["none", "log1p", "sqrt", "rank"]
NUM_KNOTS = 256  # of the piecewise linear function between ranks and values
LARGEST_LOG = 88.0  # e to the power of more is infinite in float32


class TargetTransform(nn.Module):
    """A transform of each target column, and its inverse.

    `log1p` is log(1 + y) and `sqrt` the square root, both for targets of 0 or more; what another network predicts
    below 0 counts as 0. `rank` replaces a target by the
    normal deviate of its rank among the training rows, so that the transformed targets are normally distributed; its
    inverse interpolates between training targets, and stays within their range.

    Args:
        given: A name for all columns, or one for each.
        num_outputs: K.

    Raises:
        InputError: A name is unknown, or there are not K of them.
    """

    values: Tensor
    deviates: Tensor

    def __init__(self, given: TransformName | Sequence[TransformName], num_outputs: int) -> None:
        super().__init__()
        names = [given] * num_outputs if isinstance(given, str) else list(given)
        allowed = get_args(TransformName)
        for name in names:
            if name not in allowed:
                raise InputError(f"RegressionHead: transform is '{name}'.{suggest(str(name), allowed)}")
        if len(names) != num_outputs:
            raise InputError(
                f"RegressionHead: transform has {number_of(len(names), 'name')}; give one, or {num_outputs}, one for "
                f"each target column."
            )
        self.names = names
        if "rank" in names:  # learned from the training rows: saved with the weights
            self.register_buffer("values", torch.zeros(num_outputs, NUM_KNOTS))
            self.register_buffer("deviates", torch.zeros(num_outputs, NUM_KNOTS))

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Fits the ranks to the targets of the training rows (N, K), NaN where one is missing.

        Raises:
            InputError: A target is below 0, and its transform is for numbers of 0 or more.
        """
        for k, name in enumerate(self.names):
            known = target[:, k][~target[:, k].isnan()].cpu().double()
            if name in ("log1p", "sqrt") and len(known) and known.min() < 0:
                raise InputError(
                    f"RegressionHead: transform {name} is for targets of 0 or more, and target column {k} has "
                    f"{known.min():g}. Use rank or none for it."
                )
            if name == "rank":
                values, deviates = _knots(known)
                self.values[k], self.deviates[k] = values, deviates

    def forward(self, target: Tensor) -> Tensor:
        """Targets (B, K) to transformed targets (B, K)."""
        return torch.stack([self._column(target[:, k], k, False) for k in range(len(self.names))], dim=1)

    def inverse(self, transformed: Tensor) -> Tensor:
        """Transformed targets (B, K) to targets (B, K)."""
        return torch.stack([self._column(transformed[:, k], k, True) for k in range(len(self.names))], dim=1)

    def _column(self, values: Tensor, k: int, is_inverse: bool) -> Tensor:
        """One column (B,)."""
        name = self.names[k]
        if name == "log1p":
            return values.clamp(max=LARGEST_LOG).expm1() if is_inverse else values.clamp(min=0).log1p()
        if name == "sqrt":
            return values.clamp(min=0).square() if is_inverse else values.clamp(min=0).sqrt()
        if name == "rank":
            knots = self.values[k], self.deviates[k]
            return _interpolated(values, *(knots[::-1] if is_inverse else knots))
        return values

    def to_dict(self) -> dict[str, Any]:
        """The transforms as plain values: names, and the knots of the ranks."""
        ranked = [k for k, name in enumerate(self.names) if name == "rank"]
        knots = {str(k): {"deviates": self.deviates[k].tolist(), "values": self.values[k].tolist()} for k in ranked}
        return {"transform": self.names, **({"knots": knots} if knots else {})}


def _knots(known: Tensor) -> tuple[Tensor, Tensor]:
    """Values in ascending order and the normal deviates of their ranks, (Q,) each; the last one repeats if needed."""
    values, counts = torch.unique(known, return_counts=True)
    ranks = (counts.cumsum(0) - counts / 2) / len(known)  # the middle rank of equal values, in 0–1
    if len(values) > NUM_KNOTS:
        positions = torch.searchsorted(ranks, torch.linspace(0, 1, NUM_KNOTS, dtype=ranks.dtype)).clamp(
            max=len(values) - 1
        )
        positions[0] = 0
        positions = torch.unique(positions)
        values, ranks = values[positions], ranks[positions]
    missing = NUM_KNOTS - len(values)
    deviates = torch.special.ndtri(ranks)
    found = (torch.cat([each, each[-1:].expand(missing)]).float() for each in (values, deviates))
    return next(found), next(found)


def _interpolated(x: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear interpolation (B,) between knots (Q,) in ascending order, constant beyond them.

    It uses arithmetic only, which every export format knows.
    """
    widths = at[1:] - at[:-1]
    slopes = torch.where(widths > 0, (values[1:] - values[:-1]) / widths.clamp(min=torch.finfo(at.dtype).tiny), 0.0)
    steps = (x[:, None] - at[:-1]).clamp(min=0).minimum(widths)
    found: Tensor = values[0] + (steps * slopes).sum(1)
    return found


def checked_clip(clip: Sequence[float] | None) -> tuple[float, float]:
    """Lowest and highest target; infinite for no limits.

    Raises:
        InputError: They are not two numbers in ascending order.
    """
    if clip is None:
        return -math.inf, math.inf
    if len(clip) != 2 or not all(math.isfinite(each) for each in clip) or clip[0] >= clip[1]:
        raise InputError(
            f"RegressionHead: clip is {list(clip)}; give the lowest and the highest target, like [0, 100]."
        )
    return float(clip[0]), float(clip[1])
