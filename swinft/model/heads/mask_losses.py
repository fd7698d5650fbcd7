"""Losses of segmentation: one value per image, of logits and masks (B, K, H, W).

Shapes: B batch, K classes, (H, W) image size.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.errors import InputError, suggest
from swinft.model.heads.label_losses import SigmoidFocalLoss
from swinft.model.heads.loss import Loss
from swinft.ranges import NOT_NEGATIVE, POSITIVE, UNIT, check_ranges

MaskLossName = Literal["bce", "dice", "focal", "lovasz"]  # the names of `MASK_LOSSES`
ABSENT = -1e4  # a logit whose sigmoid is 0, also in float16
LEAST_SHARE = 1e-9  # of the pixels of an image: where none counts its loss is 0, and not undefined
SoftmaxLossName = Literal["ce", "dice", "focal", "lovasz"]  # the names of `SOFTMAX_LOSSES`


class MaskLoss(Loss):
    """A loss of the probabilities of pixels: sigmoids, or a softmax over classes and background."""

    kinds = ("segmentation",)
    is_softmax: ClassVar[bool] = False
    is_mean: ClassVar[bool] = False  # over pixels, so that it must be divided by the fraction of them that counts

    def of_counted(self, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Loss of every image (B,), of the pixels that count.

        Args:
            logits: (B, K, H, W); pixels that do not count have the values of `neutral`, of loss 0.
            target: The same shape.
            counted: Fraction of the pixels that count, (B,).
        """
        losses: Tensor = self(logits, target)
        return losses / counted if self.is_mean else losses


class PixelLoss(MaskLoss):
    """Binary cross-entropy, averaged over classes and pixels."""

    is_mean = True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1)


class DiceLoss(MaskLoss):
    """One minus the Dice coefficient of the probabilities, averaged over classes (arXiv 1606.04797).

    Args:
        smooth: Added to numerator and denominator, in pixels, above 0: an empty mask that is predicted empty has loss
            0, and one of few pixels is learnt less abruptly.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        check_ranges("DiceLoss", {"smooth": smooth}, {"smooth": POSITIVE})
        self.smooth = smooth

    def activated(self, logits: Tensor, target: Tensor) -> Tensor:
        """Probabilities of each class and pixel."""
        return logits.sigmoid()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        found, wanted = self.activated(logits, target).flatten(2), target.flatten(2)
        both = (found * wanted).sum(2)
        return (1 - (2 * both + self.smooth) / (found.sum(2) + wanted.sum(2) + self.smooth)).mean(1)


class FocalMaskLoss(MaskLoss):
    """Focal loss of pixels (arXiv 1708.02002), averaged over classes and pixels.

    Args:
        gamma: As in `SigmoidFocalLoss`.
        alpha: As in `SigmoidFocalLoss`.
    """

    is_mean = True

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        check_ranges("FocalMaskLoss", {"gamma": gamma, "alpha": alpha}, {"gamma": NOT_NEGATIVE, "alpha": UNIT})
        self.focal = SigmoidFocalLoss(gamma, alpha)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        losses: Tensor = self.focal(logits.flatten(1), target.flatten(1))
        return losses


class LovaszLoss(MaskLoss):
    """Lovász hinge: a convex surrogate of one minus the intersection over union of an image (arXiv 1705.08790).

    Targets are hard: from 0.5 a pixel counts as in the mask. The loss of a class is averaged over classes.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        signs = (target.flatten(2) >= 0.5).to(logits.dtype)
        errors = 1 - logits.flatten(2) * (2 * signs - 1)
        errors, order = errors.sort(dim=2, descending=True)
        return (functional.relu(errors) * _lovasz_gradient(signs.gather(2, order))).sum(2).mean(1)


def _lovasz_gradient(wanted: Tensor) -> Tensor:
    """Gradient of the Lovász extension of the Jaccard loss, for pixels sorted by their errors (B, K, pixels)."""
    # Counted in whole numbers: on CUDA, torch 2.11 and before refuses cumsum of others with trainer.deterministic.
    found = wanted.cumsum(2, dtype=torch.int32)
    total, places = found[..., -1:], torch.arange(1, wanted.shape[2] + 1, device=wanted.device)
    jaccard = 1 - (total - found) / (total + places - found)
    return torch.cat([jaccard[..., :1], jaccard[..., 1:] - jaccard[..., :-1]], dim=2)


class SoftmaxPixelLoss(MaskLoss):
    """Cross-entropy of the softmax over classes, averaged over pixels."""

    is_softmax, is_mean = True, True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        return -(logits.log_softmax(1) * target).sum(1).flatten(1).mean(1)


class SoftmaxDiceLoss(DiceLoss):
    """The same as `DiceLoss` for the softmax over classes, background included.

    Pixels in no class, such as those that a transform adds around an image, do not count, as in all softmax losses.

    Args:
        smooth: As in `DiceLoss`.
    """

    is_softmax = True

    def activated(self, logits: Tensor, target: Tensor) -> Tensor:
        """Probabilities of each class and pixel."""
        return logits.softmax(1) * target.sum(1, keepdim=True)


class SoftmaxFocalMaskLoss(MaskLoss):
    """Focal loss of pixels (arXiv 1708.02002) for the softmax over classes, averaged over pixels.

    Args:
        gamma: Exponent of the factor by which pixels that are predicted well count less, 0 or more.
    """

    is_softmax, is_mean = True, True

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        check_ranges("SoftmaxFocalMaskLoss", {"gamma": gamma}, {"gamma": NOT_NEGATIVE})
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        log = logits.log_softmax(1)
        return -((1 - log.exp()) ** self.gamma * log * target).sum(1).flatten(1).mean(1)


class SoftmaxLovaszLoss(MaskLoss):
    """Lovász-softmax (arXiv 1705.08790), averaged over the classes that an image has, background included."""

    is_softmax = True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        wanted = (target.flatten(2) >= 0.5).to(logits.dtype)
        is_known = wanted.sum(1, keepdim=True)
        errors = (wanted - logits.softmax(1).flatten(2)).abs() * is_known
        errors, order = errors.sort(dim=2, descending=True)
        losses = (errors * _lovasz_gradient(wanted.gather(2, order))).sum(2)
        is_there = (wanted.sum(2) > 0).to(logits.dtype)
        return (losses * is_there).sum(1) / is_there.sum(1).clamp(min=1)


class SumLoss(MaskLoss):
    """A weighted sum of losses.

    Args:
        losses: Weight of each loss, above 0, by its name.
        known: The class of each loss that may be named.
    """

    def __init__(self, losses: Mapping[str, float], known: Mapping[str, Any]) -> None:
        super().__init__()
        wrong = next((name for name in losses if name not in known), None)
        if wrong is not None or not losses:
            raise InputError(
                f"SegmentationHead: loss is {dict(losses)}; name some of {', '.join(known)}, each with its "
                f"weight.{suggest(str(wrong), known) if wrong is not None else ''}"
            )
        check_ranges("SegmentationHead: loss", dict(losses), dict.fromkeys(losses, POSITIVE))
        self.weights = [float(weight) for weight in losses.values()]
        self.parts = nn.ModuleList(known[name]() for name in losses)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        return self.of_counted(logits, target, logits.new_ones(len(logits)))

    def of_counted(self, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Loss of every image (B,), of the pixels that count."""
        parts: list[Tensor] = []
        for weight, part in zip(self.weights, self.parts, strict=True):
            assert isinstance(part, MaskLoss)
            parts.append(weight * part.of_counted(logits, target, counted))
        return torch.stack(parts).sum(0)


def neutral(logits: Tensor, target: Tensor, is_softmax: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Replaces pixels that do not count by values of loss 0 without a gradient, so that any loss can be used.

    Independent classes are predicted absent with certainty, and are absent. Of classes that exclude each other the
    pixel is in none, not even background: what all losses of a softmax leave out.

    Args:
        logits: (B, K, H, W).
        target: Masks of the same shape; NaN where a pixel does not count.
        is_softmax: Whether classes exclude each other.

    Returns:
        Logits, masks, and the fraction of the pixels that count, (B,), above 0.
    """
    is_ignored = target.isnan()
    counted = 1 - is_ignored.flatten(1).float().mean(1)
    filled = target.masked_fill(is_ignored, 0.0)
    return logits if is_softmax else logits.masked_fill(is_ignored, ABSENT), filled, counted.clamp(min=LEAST_SHARE)


MASK_LOSSES: dict[str, Any] = {
    "bce": PixelLoss,
    "dice": DiceLoss,
    "focal": FocalMaskLoss,
    "lovasz": LovaszLoss,
}
SOFTMAX_LOSSES: dict[str, Any] = {
    "ce": SoftmaxPixelLoss,
    "dice": SoftmaxDiceLoss,
    "focal": SoftmaxFocalMaskLoss,
    "lovasz": SoftmaxLovaszLoss,
}
