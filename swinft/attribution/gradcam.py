"""Grad-CAM (arXiv 1610.02391): which positions of a layer's activations raise an output, for any backbone.

Shapes: B rows, V images of a row, C channels, N positions, K outputs, (H, W) pixels.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from swinft.attribution.layers import FINAL, Activation, layer_names, recorded
from swinft.attribution.objective import chosen_outputs, objective
from swinft.attribution.prepared import prepared
from swinft.errors import InputError
from swinft.model.backbones.feature_maps import padded_size
from swinft.model.network import ImageModel

NORM = re.compile("LayerNorm|RmsNorm")  # of autograd's nodes
MOVES = ("Permute", "Transpose", "View", "UnsafeView", "Reshape", "Clone")  # nodes that compute nothing


def gradcam(
    network: ImageModel,
    images: Tensor,
    outputs: Tensor | Sequence[int] | int | None = None,
    features: Tensor | None = None,
    image_mask: Tensor | None = None,
    layer: str | None = None,
) -> Tensor:
    """Where a network sees an output of each row: the Grad-CAM of a batch, scaled to its largest value.

    The layer is the deepest one whose positions the output depends on: for a CNN the final features; for a ViT that
    reads its class token alone an earlier block, as its last one changes no position that is read. A norm of the last
    block's tokens, as in a Swin, is no layer of its own: it makes all positions equally strong, so that a map of it
    says little about where the output comes from (docs/explain.md has the measurement).

    Args:
        network: A network on its device; its mode is restored.
        images: Pixels on the device as the datamodule's loaders yield them, (B, C, H, W) in 0–255; of several images of
            a row (B, V, C, H, W).
        outputs: The output of each row, or one for all; None for the predicted one, that of the highest logit.
        features: Metadata (B, F), if any, which stays fixed.
        image_mask: Which of several images exist, bool (B, V); None for all.
        layer: Name of the layer, one of `layer_names(network.backbone.model)`; None for the deepest one that can be
            explained.

    Returns:
        float32 on the images' device, (B, H, W) or (B, V, H, W), in 0–1: 1 is the strongest position of the row, over
        all its images. All 0 where no position raises the output, and for an image that does not exist.

    Raises:
        InputError: The backbone has no layer with positions, or no such layer; or an output does not exist.
    """
    maps = gradcam_maps(network, images, outputs, features, image_mask, layer)[0]
    return scaled(maps)


def gradcam_maps(
    network: ImageModel,
    images: Tensor,
    outputs: Tensor | Sequence[int] | int | None = None,
    features: Tensor | None = None,
    image_mask: Tensor | None = None,
    layer: str | None = None,
) -> tuple[Tensor, str]:
    """The same before it is scaled, 0 or more, and the name of the layer; maps of several networks can be averaged.

    Raises:
        InputError: The backbone has no layer whose output was computed and has positions.
    """
    with prepared(network):
        pixels = images.detach().clone().float().requires_grad_()
        mask = None if image_mask is None else image_mask.clone()
        with recorded(network.backbone.model, layer) as found:
            logits = network(pixels, None if features is None else features.clone(), mask)
        of_row = objective(network, logits, chosen_outputs(network, logits, outputs))
        activation, grid, coarse = _deepest(network, found, of_row, _padded(network, images))
    maps = _at_image_size(network, coarse.detach().float().view(-1, *grid), images)
    if images.ndim == 5:
        maps = of_images(maps, images, mask)
    return maps, activation.layer


def scaled(maps: Tensor) -> Tensor:
    """Maps (B, …) of 0 or more, divided by the largest value of each row; rows of zeros stay zeros."""
    largest = maps.flatten(1).amax(1).view(-1, *[1] * (maps.ndim - 1))
    return torch.where(largest > 0, maps / largest, torch.zeros_like(maps)).clamp(0, 1)


def _deepest(
    network: ImageModel, found: list[Activation], of_row: Tensor, size: tuple[int, int]
) -> tuple[Activation, tuple[int, int], Tensor]:
    """The deepest layer that has a gradient at its positions, its grid, and its map (B, N).

    Raises:
        InputError: No layer has one.
    """
    reasons = []
    for activation in reversed(_without_norm(found, size)):
        values = activation.positions(activation.tensor, size)
        if values is None or values[1] == (1, 1):
            reasons.append(f"{activation.layer} has no grid ({tuple(activation.tensor.shape)})")
            continue
        (gradient,) = torch.autograd.grad(of_row.sum(), [activation.tensor], retain_graph=True, allow_unused=True)
        if gradient is not None and (gradients := activation.positions(gradient, size)) and gradients[0].any():
            weights = gradients[0].mean(1, keepdim=True)  # (B, 1, C)
            return activation, values[1], (values[0] * weights).sum(2).relu()
        reasons.append(f"the output does not depend on the positions of {activation.layer}")
    model = network.backbone.model
    raise InputError(
        f"Grad-CAM finds no layer of {type(model).__name__} to explain: {'; '.join(reasons) or 'none was computed'}. "
        f"Its layers: {', '.join(layer_names(model))}. Use a larger image, another layer, or the method occlusion."
    )


def _without_norm(found: list[Activation], size: tuple[int, int]) -> list[Activation]:
    """The layers without `final` where that is a norm of the last block's tokens, each by itself."""
    if len(found) < 2 or found[-1].layer != FINAL or found[-1].channels != found[-2].channels:
        return found
    node = found[-1].tensor.grad_fn
    while node is not None and node.name().startswith(MOVES):
        node = node.next_functions[0][0]
    grids = [values and values[1] for values in (each.positions(each.tensor, size) for each in found[-2:])]
    is_norm = node is not None and bool(NORM.search(node.name())) and grids[0] == grids[1]
    return found[:-1] if is_norm else found


def _padded(network: ImageModel, images: Tensor) -> tuple[int, int]:
    """Height and width of the images as the backbone sees them: a network with maps pads them."""
    size = int(images.shape[-2]), int(images.shape[-1])
    return size if network.maps is None else padded_size(size, network.maps.stride)


def _at_image_size(network: ImageModel, maps: Tensor, images: Tensor) -> Tensor:
    """Maps of a grid, which covers the padded image, at the size of the images."""
    full = functional.interpolate(maps[:, None], _padded(network, images), mode="bilinear", align_corners=False)
    return full[:, 0, : images.shape[-2], : images.shape[-1]]


def of_images(maps: Tensor, images: Tensor, mask: Tensor | None) -> Tensor:
    """Maps of the images that the backbone saw to maps of all images (B, V, H, W); 0 where there is no image."""
    rows, several = images.shape[:2]
    there = torch.ones(rows, several, dtype=torch.bool, device=maps.device) if mask is None else mask > 0
    every = maps.new_zeros(rows * several, *maps.shape[1:])
    every[there.flatten()] = maps if len(maps) < len(every) else maps[there.flatten()]
    return every.view(rows, several, *maps.shape[1:])
