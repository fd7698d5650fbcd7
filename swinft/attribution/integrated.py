"""Integrated gradients (arXiv 1703.01365), by captum: how much each pixel contributes to an output.

Shapes: B rows, V images of a row, C channels, (H, W) pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swinft.attribution.baselines import baseline_of
from swinft.attribution.names import BaselineName
from swinft.attribution.objective import chosen_outputs, mask_of, objective
from swinft.attribution.prepared import prepared
from swinft.extras import import_extra
from swinft.model.network import ImageModel

CAPTUM = "captum, which computes integrated gradients,"


class Integrated(NamedTuple):
    """Contributions of pixels.

    Args:
        maps: Signed, summed over channels, float32 (B, H, W) or (B, V, H, W), in the unit of the score.
        score: Of each row's output, (B,): its logit, or its prediction where that is no probability.
        at_baseline: The same of the baseline.
        completeness_error: |sum of contributions − (score − at_baseline)| of each row, (B,): 0 for infinitely many
            steps.
    """

    maps: Tensor
    score: Tensor
    at_baseline: Tensor
    completeness_error: Tensor


def integrated_gradients(
    network: ImageModel,
    images: Tensor,
    outputs: Tensor | Sequence[int] | int | None = None,
    features: Tensor | None = None,
    image_mask: Tensor | None = None,
    baseline: BaselineName = "mean",
    steps: int = 64,
    batch_size: int = 16,
) -> Integrated:
    """The integrated gradients of a batch.

    Args:
        network: As of `gradcam`, as are the next four.
        images: Pixels.
        outputs: The output of each row.
        features: Metadata, which is the same at the baseline.
        image_mask: Which of several images exist.
        baseline: As of `baseline_of`.
        steps: Number of gradients on the way from the baseline to the image.
        batch_size: Images, or rows of several images, per forward pass.

    Raises:
        InputError: captum is not installed, or an output or the baseline does not exist.
    """
    captum = import_extra("captum.attr", "explain", CAPTUM)
    with prepared(network):
        pixels = images.detach().clone().float()
        others = [None if each is None else each.clone() for each in (features, image_mask)]
        with torch.no_grad():
            logits = network(pixels, *others)
        chosen = chosen_outputs(network, logits, outputs)
        where = mask_of(network, logits, chosen) if network.maps is not None else None
        given: list[Any] = [chosen, *others, where]

        def score(image: Tensor, output: Tensor, *more: Tensor | None) -> Tensor:
            return objective(network, network(image, more[0], more[1]), output, more[2], in_units=True)

        start = baseline_of(network, pixels, baseline)
        with torch.no_grad():
            ends = [score(each, *given) for each in (pixels, start)]
        method = captum.IntegratedGradients(score, multiply_by_inputs=True)
        found: Tensor = method.attribute(
            pixels,
            start,
            additional_forward_args=tuple(given),
            n_steps=steps,
            internal_batch_size=max(batch_size, len(pixels)),
        )
    found = found.detach().float()
    error = (found.flatten(1).sum(1) - (ends[0] - ends[1])).abs()
    maps = found.sum(-3)
    if image_mask is not None:
        maps = torch.where((image_mask > 0)[..., None, None], maps, torch.zeros_like(maps))
    return Integrated(maps, ends[0], ends[1], error)
