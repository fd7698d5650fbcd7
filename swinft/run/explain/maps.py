"""The maps of a row: one of each output and image, averaged over its networks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinft.attribution.gradcam import gradcam_maps
from swinft.attribution.integrated import integrated_gradients
from swinft.attribution.occlusion import occlusion
from swinft.attribution.rollout import rollout
from swinft.attribution.windows import window_attention
from swinft.data.schema import Schema
from swinft.errors import InputError, suggest
from swinft.model.network import ImageModel
from swinft.run.explain.options import ExplainOptions, MethodOptions
from swinft.run.explain.rows import Row


@dataclass(frozen=True)
class Explained:
    """An output of a row, explained.

    Args:
        output: Its name.
        value: Its prediction in the competition's units; of a mask the share of the image.
        maps: float32 (V, H, W), one of each image; before they are scaled for display.
        is_signed: Whether negative values mean that a pixel lowers the output.
        facts: What else the method says, by name: its layer, its completeness error.
        cuts: Rows and columns of pixels at which windows begin, of `windows`.
    """

    output: str
    value: float
    maps: NDArray[np.float32]
    is_signed: bool
    facts: dict[str, Any]
    cuts: tuple[list[float], list[float]] = ((), ())  # type: ignore[assignment]


def chosen_outputs(row: Row, schema: Schema, options: ExplainOptions, threshold: float) -> list[int]:
    """Numbers of the outputs of a row to explain.

    Raises:
        InputError: There is no output of this name.
    """
    names = schema.outputs
    if options.output is not None:
        if options.output not in names:
            raise InputError(f"--output is '{options.output}'.{suggest(options.output, names)}")
        return [names.index(options.output)]
    found, kind = row.predictions, schema.base
    if found.ndim == 3:
        decided = row.nets[0].head.decided(found[None])[0].flatten(1).any(1)  # type: ignore[operator]
        return decided.nonzero().flatten().tolist() or [int(found.flatten(1).mean(1).argmax())]
    if kind.are_classes:
        return [int(found.argmax())]
    if kind.are_probabilities:
        return (found >= threshold).nonzero().flatten().tolist() or [int(found.argmax())]
    return list(range(len(names)))


def explained(row: Row, output: int, schema: Schema, options: ExplainOptions, own: MethodOptions) -> Explained:
    """The maps of an output of a row, the mean over its networks.

    Raises:
        InputError: The method cannot explain the backbone, or an option does not fit it.
        RunError: Attention weights do not give what a network computes.
    """
    found = [METHODS[options.method](net, row, output, own, options.batch_size) for net in row.nets]
    maps = torch.stack([each[0] for each in found]).mean(0)
    facts, cuts = found[0][1], found[0][2]
    errors = [each[1]["completeness_error"] for each in found if "completeness_error" in each[1]]
    facts |= {"completeness_error": max(errors)} if errors else {}
    for name in ("score", "at_baseline"):
        facts |= {name: float(np.mean([each[1][name] for each in found]))} if name in facts else {}
    values = row.predictions[output]
    is_signed = options.method in ("integrated-gradients", "occlusion")
    of_images = maps[0] if maps.ndim == 4 else maps
    value = float(values.float().mean())
    return Explained(schema.outputs[output], value, of_images.cpu().numpy(), is_signed, facts, cuts)


Made = tuple[Tensor, dict[str, Any], tuple[list[float], list[float]]]
NO_CUTS: tuple[list[float], list[float]] = ([], [])


def _gradcam(net: ImageModel, row: Row, output: int, options: MethodOptions, batch_size: int) -> Made:
    maps, layer = gradcam_maps(net, row.image, output, row.features, row.image_mask, options.layer)
    return maps, {"layer": layer}, NO_CUTS


def _rollout(net: ImageModel, row: Row, output: int, options: MethodOptions, batch_size: int) -> Made:
    by = options.by or "mean"
    maps = rollout(net, row.image, output, row.features, row.image_mask, by)
    return maps, {"by": by}, NO_CUTS


def _windows(net: ImageModel, row: Row, output: int, options: MethodOptions, batch_size: int) -> Made:
    query = None if options.query is None else (options.query[0], options.query[1])
    place = (options.stage, options.block, options.head, query)
    found = window_attention(net, row.image, *place, row.features, row.image_mask)
    facts = {"block": found.name, "head": "mean" if options.head is None else options.head, "query": options.query}
    return found.maps, facts, (found.rows, found.columns)


def _integrated(net: ImageModel, row: Row, output: int, options: MethodOptions, batch_size: int) -> Made:
    steps, baseline = options.steps or 64, options.baseline or "mean"
    given = (row.features, row.image_mask, baseline, steps, batch_size)
    found = integrated_gradients(net, row.image, output, *given)
    facts = {"baseline": baseline, "steps": steps, "score": float(found.score[0])}
    facts |= {"at_baseline": float(found.at_baseline[0]), "completeness_error": float(found.completeness_error[0])}
    return found.maps, facts, NO_CUTS


def _occlusion(net: ImageModel, row: Row, output: int, options: MethodOptions, batch_size: int) -> Made:
    baseline = options.baseline or "mean"
    sizes = (options.patch, options.stride, batch_size)
    return (
        occlusion(net, row.image, output, row.features, row.image_mask, baseline, *sizes),
        {"baseline": baseline},
        NO_CUTS,
    )


METHODS: dict[str, Callable[[ImageModel, Row, int, MethodOptions, int], Made]] = {
    "gradcam": _gradcam,
    "rollout": _rollout,
    "windows": _windows,
    "integrated-gradients": _integrated,
    "occlusion": _occlusion,
}
