"""Mixup and cutmix: pure functions on a batch, and the random choice between them.

Image, target, metadata and weight of a row are mixed with those of another row, in the same ratio. Targets and metadata
are mixed in encoded form: one-hot rows, 0/1 rows and numbers. If the loss is linear in the target, as cross-entropy is,
the loss of a mixed target is the mixed loss.

Where rows have several images, all of them are mixed alike.

Shapes: B batch, H and W pixels, K outputs; images may be (B, V, 3, H, W).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from swinft.errors import InputError, together
from swinft.ranges import NOT_NEGATIVE, UNIT, check_ranges, word_problems

# Where a network blends rows, besides the names of modules of its backbone.
PIXELS, FEATURES = "", "head"
TAUGHT = "taught"  # what other networks predict for the rows, beside their other values
PLACES, LABELS = ("images", "features", "random"), ("mean", "max")


@dataclass(frozen=True)
class MixConfig:
    """When and how strongly to mix.

    Args:
        mixup_alpha: Both parameters of the Beta distribution of mixup's ratio; 0 for no mixup.
        cutmix_alpha: The same for cutmix's area; 0 for no cutmix. If both are set, one is chosen at random per batch.
        probability: Fraction of batches that are mixed, in 0–1.
        labels: Targets of a mixed row: `mean`, the mixture of both; or `max`, the labels of both rows, for multilabel
            targets.
        mixup_at: What mixup blends: `images`; `features`, the input of the head; or `random`: images, the output of a
            stage of the backbone, or features, chosen at random per batch (manifold mixup, arXiv 1806.05236).
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    probability: float = 1.0
    labels: Literal["mean", "max"] = "mean"
    mixup_at: Literal["images", "features", "random"] = "images"

    def __post_init__(self) -> None:
        """Checks ranges and words, and that they act."""
        ranges = {"mixup_alpha": NOT_NEGATIVE, "cutmix_alpha": NOT_NEGATIVE, "probability": UNIT}
        check_ranges("model.mix", vars(self), ranges)
        problems = word_problems("model.mix", vars(self), {"labels": LABELS, "mixup_at": PLACES})
        problems += [
            f"model.mix.{name} does nothing without model.mix.mixup_alpha or cutmix_alpha: set one, or this to {idle}."
            for name, idle in (("labels", "mean"), ("probability", 1.0))
            if getattr(self, name) != idle and not (self.mixup_alpha or self.cutmix_alpha)
        ]
        if self.mixup_at != "images" and not self.mixup_alpha:
            problems.append("model.mix.mixup_at does nothing without model.mix.mixup_alpha: set it.")
        if problems:
            raise together(problems)


@dataclass(frozen=True)
class Mixing:
    """How one batch is mixed.

    Args:
        share: Weight of the row itself, in 0–1.
        order: The row to mix each with, int64 (B,).
        box: Of cutmix; None for mixup.
        unites: Whether a row gets the labels of both, instead of their mixture.
        place: What mixup blends: `PIXELS`, `FEATURES`, or the output of a module of the backbone, by its name.
    """

    share: float
    order: Tensor
    box: tuple[int, int, int, int] | None = None
    unites: bool = False
    place: str = PIXELS

    def rows(
        self, images: Tensor, targets: Tensor, more: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mixes what the network is given and learns.

        Args:
            images: uint8 or float in 0–255 (B, 3, H, W).
            targets: Encoded targets, float (B, K).
            more: What else belongs to the rows (B, …): `metadata`, encoded, `weight`, and `image_mask`, which becomes a
                number above 0 where one of two mixed rows has an image.
        """
        # The head's input holds the metadata, too: it is blended there, and nowhere else.
        kept = {"metadata"} if self.place == FEATURES else set()
        kept |= set() if self.place == PIXELS else {"image_mask"}  # the images stay those of the row itself
        given = {name: each for name, each in more.items() if name not in kept}
        given |= {name: given[name].float() for name in ("image_mask",) if name in given}
        if self.box is not None:
            mixed = cutmix(images, targets, self.box, self.order, *given.values())
        elif self.place == PIXELS:
            mixed = mixup(images, targets, self.share, self.order, *given.values())
        else:
            mixed = images, *(self.blend(each) for each in (targets, *given.values()))
        images, blended, *others = mixed
        both = self.united(targets) if self.unites else blended
        return images, both, more | dict(zip(given, others, strict=True))

    def united(self, targets: Tensor) -> Tensor:
        """Targets (B, …) of both rows: the labels of both, or their blend."""
        return torch.maximum(targets, targets[self.order]) if self.unites else self.blend(targets)

    def blend(self, values: Tensor) -> Tensor:
        """Blends every row of some values (B, …) with another one."""
        return values.lerp(values[self.order], 1 - self.share)

    @contextmanager
    def inside(self, net: Any) -> Iterator[None]:
        """Has an `ImageModel` blend rows in its forward pass, where that is the place.

        Raises:
            InputError: What is there is no tensor with a row for each of the batch, or was not computed once.
        """
        if self.place == PIXELS:
            yield
            return
        count = 0

        def blended(value: Any) -> Tensor:
            nonlocal count
            count += 1
            if not isinstance(value, Tensor) or len(value) != len(self.order):
                raise InputError(
                    f"model.mix.mixup_at: what '{self.place}' of the network gives cannot be blended: it does not have "
                    "a row for each of the batch. Set it to images."
                )
            return self.blend(value)

        if self.place == FEATURES:
            heads = [net.head, *(net.auxiliary or ())]
            before: Any = lambda _, given: (blended(given[0]), *given[1:])  # noqa: E731
            hooks = [head.register_forward_pre_hook(before) for head in heads]
        else:
            module = net.backbone.model.get_submodule(self.place)
            hooks = [module.register_forward_hook(lambda _, given, output: blended(output))]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if count != len(hooks):
            raise InputError(
                f"model.mix.mixup_at: '{self.place}' of the network is computed {count} times for a batch, and rows "
                "would not be blended as their targets are. Set it to features or images."
            )


def mixing_places(config: MixConfig, net: Any, is_recomputed: bool, is_compiled: bool) -> list[str]:
    """Where mixup may blend the rows of a network; one of them is drawn for each batch.

    Args:
        config: When and how strongly.
        net: An `ImageModel`.
        is_recomputed: Whether activations are recomputed in the backward pass.
        is_compiled: Whether the backbone may be compiled.

    Raises:
        InputError: Labels cannot be united, or the network's stages cannot be had.
    """
    if config.labels == "max" and net.head.kind != "multilabel":
        raise InputError(
            f"model.mix.labels is max, and the head is for {net.head.kind}: only multilabel targets have the labels of "
            "both rows. Set it to mean."
        )
    if config.mixup_at != "random":
        return [FEATURES if config.mixup_at == "features" else PIXELS]
    if net.fusion is not None:
        raise InputError(
            "model.mix.mixup_at is random, which blends what a stage gives of two rows, and a row has several images "
            "(data.image): set it to images or features."
        )
    if is_recomputed or is_compiled:
        key = "grad_checkpointing" if is_recomputed else "compile"
        raise InputError(
            f"model.mix.mixup_at is random, which changes what a stage gives in each step, and model.compute.{key} "
            f"computes stages in a way of its own. Set {key} to false, or mixup_at to features."
        )
    known = {name for name, _ in net.backbone.model.named_modules()}
    info = getattr(net.backbone.model, "feature_info", None) or []
    stages = [str(each["module"]) for each in info if isinstance(each, dict) and each.get("module") in known]
    if not stages:
        raise InputError("model.mix.mixup_at is random, and the backbone names no stages: set it to features.")
    return [PIXELS, *stages, FEATURES]


def check_maps(net: Any, config: MixConfig, optim: Any) -> None:
    """Checks that nothing changes images whose masks stay as they are.

    Args:
        net: An `ImageModel`.
        config: When rows are mixed.
        optim: The section `model.optim`.

    Raises:
        InputError: Rows are mixed, or shrunk, in the training step.
    """
    if net.maps is None:
        return
    wrong = [f"model.mix.{name}" for name in ("mixup_alpha", "cutmix_alpha") if getattr(config, name) > 0]
    wrong += ["model.optim.sizes"] if optim.sizes else []
    if wrong:
        raise InputError(
            f"{wrong[0]} changes images in the training step, and masks would stay as they are: remove it for "
            f"segmentation; crops and flips of data.augment change both."
        )


def mixup(images: Tensor, targets: Tensor, share: float, order: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
    """Blends every row with another one (arXiv 1710.09412).

    Args:
        images: uint8 or float (B, 3, H, W).
        targets: Encoded targets, float (B, K).
        share: Weight of the row itself, in 0–1.
        order: The row to blend with, int64 (B,).
        *more: Other tensors of the rows, float (B, …).

    Returns:
        Images as float in the same range, targets, and `more`.
    """
    return tuple(x.lerp(x[order], 1 - share) for x in (images.float(), targets, *more))


def cutmix(
    images: Tensor, targets: Tensor, box: tuple[int, int, int, int], order: Tensor, *more: Tensor
) -> tuple[Tensor, ...]:
    """Pastes a box of another row into every row, and mixes the rest by area (arXiv 1905.04899).

    Args:
        images: uint8 or float (B, 3, H, W).
        targets: Encoded targets, float (B, K).
        box: Top, bottom, left, right in pixels; bottom and right are exclusive.
        order: The row to paste from, int64 (B,).
        *more: Other tensors of the rows, float (B, …).

    Returns:
        Images in the same dtype, targets, and `more`.
    """
    top, bottom, left, right = box
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images[..., top:bottom, left:right][order]
    area = (bottom - top) * (right - left) / (images.shape[-2] * images.shape[-1])
    return mixed, *(x.lerp(x[order], area) for x in (targets, *more))


def draw_box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of about `1 - share` of the image around a uniformly drawn centre, clipped at the edges."""
    side = np.sqrt(1 - share)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    y, x = int(rng.integers(height)), int(rng.integers(width))
    return max(y - half_height, 0), min(y + half_height, height), max(x - half_width, 0), min(x + half_width, width)


def draw(
    config: MixConfig, images: Tensor, rng: np.random.Generator, places: Sequence[str] = (PIXELS,)
) -> Mixing | None:
    """Draws how a batch is mixed; None for a batch that is left alone.

    Args:
        config: When and how strongly.
        images: (B, 3, H, W).
        rng: On the CPU: drawing on the device would wait for it.
        places: As of `mixing_places`.
    """
    alphas = {"mixup": config.mixup_alpha, "cutmix": config.cutmix_alpha}
    methods = [method for method, alpha in alphas.items() if alpha > 0]
    if not methods or rng.random() >= config.probability:
        return None
    method = methods[int(rng.integers(len(methods)))]
    share = float(rng.beta(alphas[method], alphas[method]))
    # Only CUDA keeps the source of an asynchronous copy alive; on MPS it is freed at once, and may be overwritten.
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device, non_blocking=images.is_cuda)
    unites = config.labels == "max"
    if method == "cutmix":
        return Mixing(share, order, draw_box(images.shape[-2], images.shape[-1], share, rng), unites)
    place = places[int(rng.integers(len(places)))] if len(places) > 1 else places[0]
    return Mixing(share, order, None, unites, place)


def mixed_logits(
    net: Any,
    images: Tensor,
    targets: Tensor,
    more: dict[str, Tensor],
    mixing: Mixing | None,
    taught: Callable[[Tensor, dict[str, Tensor]], Tensor] | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A network's logits of a batch that is mixed, or left alone.

    Args:
        net: An `ImageModel`.
        images: As of `Mixing.rows`.
        targets: As of `Mixing.rows`.
        more: As of `Mixing.rows`.
        mixing: None for none.
        taught: What other networks predict for images, and what else belongs to the rows, (B, K); it is added by the
            key `TAUGHT`. It sees images as they are mixed; what is blended inside the network is predicted before, and
            blended as targets are.

    Returns:
        Logits (B, …), targets, and what was more as they were mixed, with the logits of auxiliary targets.
    """
    before = images, more
    if mixing is not None:
        images, targets, more = mixing.rows(images, targets, more)
    if taught is not None:
        is_inside = mixing is not None and mixing.place != PIXELS
        more = more | {TAUGHT: mixing.united(taught(*before)) if mixing and is_inside else taught(images, more)}
    with nullcontext() if mixing is None else mixing.inside(net):
        logits, others = net.all_logits(images, more)
    return logits, targets, more | others
