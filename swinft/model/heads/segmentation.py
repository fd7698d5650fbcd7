"""Head for masks: a decoder of the backbone's feature maps, and a probability of each class in each pixel.

Shapes: B batch, D channels, K classes, (H, W) pixels.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.decoders import Decoder, DecoderName
from swinft.model.heads.base import Head, check_equal_shapes, checked_fraction, made_loss
from swinft.model.heads.loss import Loss
from swinft.model.heads.mask_losses import (
    MASK_LOSSES,
    SOFTMAX_LOSSES,
    MaskLoss,
    MaskLossName,
    SoftmaxLossName,
    SumLoss,
    neutral,
)
from swinft.model.metrics.pixel_counts import THRESHOLD
from swinft.system.precision import in_float64

IGNORED = 255  # in targets: a pixel that does not count; the same as in swinft.data.masks.rle


class SegmentationHead(Head):
    """Predicts a mask of each of K independent classes; a pixel may be in several, or in none.

    Args:
        in_features: Not used: `connect` gives it the channels of the maps.
        num_outputs: K, given by the target.
        decoder: `unet`, `fpn`, `upernet`, `unetplusplus`, `manet`, `linknet`, `pspnet`, `pan` or `segformer`, by
            segmentation-models-pytorch. A backbone whose first map has stride 4, as Swin's, is not for all of them.
        decoder_args: Arguments of the decoder's class to replace: `{decoder_channels: [256, 128, 64, 32, 16]}`.
        loss: `bce`, `dice`, `focal` or `lovasz`; the weights of several, `{bce: 1, dice: 1}`; or a class with
            arguments, such as `swinft.DiceLoss` or a custom one, of logits and masks (B, K, H, W). Pixels that are
            ignored come to it as outside of the mask, and predicted so with certainty.
        dropout: Probability of dropping a channel of the decoder's map, in [0, 1).
    """

    kind = "segmentation"
    default_metrics: ClassVar[list[str]] = ["dice"]
    reads: ClassVar[Literal["vector", "maps"]] = "maps"
    classes: str = "independent"  # of a pixel, as in `data.target_kind`
    losses: ClassVar[dict[str, Any]] = MASK_LOSSES

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        decoder: DecoderName = "unet",
        decoder_args: dict[str, Any] | None = None,
        loss: MaskLossName | dict[str, float] | Loss = "bce",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, num_outputs)
        self._decoder = decoder, decoder_args
        self.own_loss = SumLoss(loss, self.losses) if isinstance(loss, dict) else made_loss(self, loss, self.losses)
        if isinstance(loss, MaskLoss) and loss.is_softmax != isinstance(self, SoftmaxSegmentationHead):
            raise InputError(
                f"{type(self).__name__}: {type(loss).__name__} is for the other kind of classes of a pixel; use one of "
                f"{', '.join(each.__name__ for each in self.losses.values())}."
            )
        self.dropout = nn.Dropout2d(checked_fraction("dropout", dropout))

    @property
    def num_logits(self) -> int:
        """Of each pixel."""
        return self.num_outputs

    def connect(self, channels: list[int]) -> None:
        """Builds decoder and last layer for maps of so many channels: of the images, and of strides 2, 4, …."""
        name, arguments = self._decoder
        self.decoder = Decoder(name, channels, arguments)
        self.last = nn.Conv2d(self.decoder.num_features, self.num_logits, 3, padding=1)
        nn.init.trunc_normal_(self.last.weight, std=0.02)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, features: Any) -> Tensor:
        """Images (B, C, H, W) and their maps to logits (B, K, H, W)."""
        logits: Tensor = self.last(self.dropout(self.decoder(features)))
        size = features[0].shape[-2:]
        if logits.shape[-2:] != size:
            logits = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits

    def encode(self, target: Tensor) -> Tensor:
        """Masks (B, K, H, W) as float; NaN where a pixel does not count."""
        return target.float().masked_fill(self.ignored(target), math.nan)

    def ignored(self, target: Tensor) -> Tensor:
        """Pixels that do not count, bool (B, K, H, W)."""
        return target == IGNORED

    def example_targets(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks for a trial step, from the coverage of each row (B, K): the upper part of the image."""
        rows = torch.linspace(0, 1, size[0], device=targets.device)[:, None].expand(size)
        return (rows < targets.clamp(0.1, 0.9)[..., None, None]).to(torch.uint8)

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        check_equal_shapes(self, logits, encoded)
        assert self.own_loss is not None
        loss, is_softmax = self.own_loss, isinstance(self, SoftmaxSegmentationHead)
        given, wanted, counted = neutral(logits.float(), encoded.float(), is_softmax)
        losses: Tensor = loss.of_counted(given, wanted, counted) if isinstance(loss, MaskLoss) else loss(given, wanted)
        return losses

    def decode(self, logits: Tensor) -> Tensor:
        """Logits to probabilities, (B, K, H, W)."""
        return logits.float().sigmoid()

    def evaluated(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """As `counted`; NaN for an image with a NaN logit."""
        return self.counted(self.decode(logits), target)

    def counted(self, predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels of each class that are predicted and true, and predicted, float64 (B, K, 2); those true (B, K).

        Pixels that are ignored are in none of them.
        """
        counts_here = ~self.ignored(target)
        found = (self.decided(predictions) & counts_here).flatten(2)
        wanted = ((target > 0) & counts_here).flatten(2)
        if self.classes == "complete":  # pixels in no class are beyond the image
            found = found & wanted.any(1, keepdim=True)
        counts = in_float64(torch.stack([(found & wanted).sum(2), found.sum(2)], dim=2))
        is_nan = predictions.isnan().flatten(1).any(1)[:, None, None].to(counts.device)
        return counts.masked_fill(is_nan, math.nan), in_float64(wanted.sum(2))

    def decided(self, predictions: Tensor) -> Tensor:
        """The pixels that are in each mask, bool (B, K, H, W)."""
        return predictions >= THRESHOLD


class SoftmaxSegmentationHead(SegmentationHead):
    """Predicts one of K classes for each pixel, or background: a softmax over them.

    Args:
        in_features: Not used: `connect` gives it the channels of the maps.
        num_outputs: K, given by the target.
        decoder: As in `swinft.SegmentationHead`.
        decoder_args: As in `swinft.SegmentationHead`.
        loss: `ce`, `dice`, `focal` or `lovasz`; the weights of several, `{ce: 1, dice: 1}`; or a class with arguments,
            such as `swinft.SoftmaxDiceLoss` or a custom one, of logits and masks (B, K, H, W), where masks sum to 1;
            background is a further class, the last.
        dropout: Probability of dropping a channel of the decoder's map, in [0, 1).
        classes: `exclusive`, where a pixel may be background, or `complete`, as in `data.target_kind`.
    """

    losses = SOFTMAX_LOSSES

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        decoder: DecoderName = "unet",
        decoder_args: dict[str, Any] | None = None,
        loss: SoftmaxLossName | dict[str, float] | Loss = "ce",
        dropout: float = 0.0,
        classes: Literal["exclusive", "complete"] = "exclusive",
    ) -> None:
        if classes not in ("exclusive", "complete"):
            raise InputError(f"SoftmaxSegmentationHead: classes is {classes!r}. Allowed: exclusive, complete.")
        super().__init__(in_features, num_outputs, decoder, decoder_args, loss, dropout)  # type: ignore[arg-type]
        self.classes = classes

    @property
    def num_logits(self) -> int:
        """Of each pixel: K, and one for background."""
        return self.num_outputs + (self.classes == "exclusive")

    def encode(self, target: Tensor) -> Tensor:
        """Masks (B, K, H, W) as float, and where there may be background what is in none; NaN where none counts."""
        is_ignored = self.ignored(target)
        masks = target.float().masked_fill(is_ignored, 0.0)
        if self.classes != "complete":
            masks = torch.cat([masks, 1 - masks.sum(1, keepdim=True)], dim=1)
        return masks.masked_fill(is_ignored[:, :1], math.nan)

    def ignored(self, target: Tensor) -> Tensor:
        """Pixels that do not count for any class, bool (B, K, H, W)."""
        return (target == IGNORED).any(1, keepdim=True).expand_as(target)

    def example_targets(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks for a trial step: stripes of the classes from the top to the bottom."""
        rows = torch.arange(size[0], device=targets.device) * self.num_logits // size[0]
        classes = torch.arange(self.num_outputs, device=targets.device)
        return (rows == classes[:, None])[None, :, :, None].expand(len(targets), -1, -1, size[1]).to(torch.uint8)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits to probabilities of the K classes, (B, K, H, W)."""
        return logits.float().softmax(1)[:, : self.num_outputs]

    def decided(self, predictions: Tensor) -> Tensor:
        """The most probable class of each pixel, bool (B, K, H, W); none where background is more probable."""
        highest, index = predictions.max(1, keepdim=True)
        found = torch.zeros_like(predictions, dtype=torch.bool).scatter_(1, index, True)
        return found if self.classes == "complete" else found & (highest >= 1 - predictions.sum(1, keepdim=True))
