"""Predicts the rows of a loader with several networks and views.

Shapes: B batch, K outputs, N rows.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from swinft.data.loading.workers import last_pass
from swinft.errors import number_of
from swinft.inference.finite import Origin, check_finite
from swinft.inference.maps import LevelsFile, Maps, levels_of
from swinft.inference.tta import View, predictions_by_view
from swinft.model.tiles import Tiling, bands
from swinft.system.precision import Precision, autocast
from swinft.system.progress import Progress

Values = NDArray[np.float32] | Maps

FIRST_LINE_SECONDS = 15.0  # before the first progress line, if there is no terminal


class Predictor(Protocol):
    """An `ImageModel`, or a compiled or converted one."""

    def predict(self, image: Tensor, features: Tensor | None = None, image_mask: Tensor | None = None) -> Tensor:
        """Pixels, metadata and which of several images are there, as of `ImageModel.forward`, to predictions (B, K)."""
        ...


class ViewValues:
    """Collects the predictions of each view, which `predict_rows` averages: float32 (V, N, K) after the last batch."""

    def __init__(self) -> None:
        self._batches: list[Tensor] = []

    def add(self, of_nets: Sequence[Tensor], is_real: Tensor) -> None:
        """Adds a batch.

        Args:
            of_nets: Each network's predictions (V, B, K), whose mean is kept.
            is_real: Which rows are no padding, bool (B,).
        """
        self._batches.append(torch.stack(list(of_nets)).mean(0).cpu()[:, is_real])

    @property
    def values(self) -> NDArray[np.float32]:
        """The predictions of each view, in the rows' order, float32 (V, N, K)."""
        found: NDArray[np.float32] = torch.cat(self._batches, 1).numpy()
        return found


def predict_rows(
    nets: Sequence[Predictor],
    loader: DataLoader[Any],
    views: Sequence[View],
    device: torch.device,
    precision: Precision,
    origin: Origin | None = None,
    progress: str | None = None,
    by_view: ViewValues | None = None,
) -> tuple[NDArray[np.int64], Values]:
    """Predicts every row of a loader once.

    The outer loop is over batches, the inner ones over networks and views: each image is decoded and copied once.

    Args:
        nets: Networks on `device`, in evaluation mode; their predictions are averaged.
        loader: Batches with `image` and `row`; negative rows are padding, and dropped.
        views: Test-time augmentations; their predictions are averaged.
        device: Where the networks are.
        precision: A resolved precision.
        origin: Names of rows and networks, for the error about predictions that are not finite.
        progress: Prefix of the progress line, such as `part 1/4`; None for no progress line.
        by_view: Also gets the predictions of each view, of other targets than masks.

    Returns:
        Row indices (N,) in the loader's order, and float32 predictions (N, K) in the competition's units, or maps.

    Raises:
        InputError: A prediction is NaN or infinite; raised at the first such batch.
    """
    rows: list[Tensor] = []
    values: list[Tensor] = []
    sizes: list[Tensor] = []
    of_tiles: LevelsFile | None = None
    shown = nullcontext() if progress is None else Progress(progress, len(loader), FIRST_LINE_SECONDS)
    with torch.inference_mode(), autocast(precision, device), shown as counter, last_pass(loader):
        for batch in loader:
            is_real = batch["row"] >= 0
            rows.append(batch["row"][is_real])
            if (tiling := Tiling.of(batch)) is None:
                of_nets = None if by_view is None else list[Tensor]()
                found, is_finite = _on_cpu(_predict_batch(nets, batch, views, device, of_nets), is_real)
                if by_view is not None and of_nets:
                    by_view.add(of_nets, is_real)
                values.append(found)
            else:
                of_tiles = of_tiles or LevelsFile()
                is_finite = torch.ones(0, dtype=torch.bool)
                if is_real.all():
                    levels, is_finite = _tiled(nets, batch, views, device, tiling)
                    of_tiles.add(levels)
            if not is_finite.all():
                at_fault = [k for k, net in enumerate(nets) if not _is_finite(net, batch, views, device)]
                check_finite(rows[-1], is_finite, at_fault, precision, origin)
            if of_tiles is not None or values[-1].ndim == 4:
                sizes.append(batch["size"][is_real])
            if counter:
                counter.add(len(rows[-1]))
    numbers = torch.cat(rows).numpy()
    if of_tiles is None and not sizes:
        return numbers, torch.cat(values).numpy()
    maps = torch.cat(values).numpy() if of_tiles is None else of_tiles.read()
    return numbers, Maps(maps, torch.cat(sizes).numpy())


def _on_cpu(predictions: Tensor, is_real: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions (B, K) of a batch, or the levels of its maps (B, K, H, W), on the CPU; and which are finite, (B,).

    Args:
        predictions: On the device, which makes the levels: they are a quarter of the bytes to copy.
        is_real: Which rows are no padding, bool (B,).
    """
    if predictions.ndim < 4:
        found = predictions.cpu()[is_real]
        return found, found.flatten(1).isfinite().all(1)  # on the CPU already: no extra synchronisation
    is_finite = predictions.flatten(1).isfinite().all(1)
    return levels_of(predictions).cpu()[is_real], is_finite.cpu()[is_real]


def _is_finite(net: Predictor, batch: dict[str, Tensor], views: Sequence[View], device: torch.device) -> bool:
    """Whether all predictions of one network for a batch are finite."""
    if (tiling := Tiling.of(batch)) is not None:
        return bool(_tiled([net], batch, views, device, tiling)[1].all())
    return bool(_predict_batch([net], batch, views, device).cpu()[batch["row"] >= 0].isfinite().all())


def print_work(
    nets: Sequence[Predictor],
    loader: DataLoader[Any],
    views: Sequence[View],
    device: torch.device,
    precision: Precision,
) -> None:
    """Prints the number of forward passes; arguments as in `predict_rows`."""
    num_images: int = len(loader.sampler)  # type: ignore[arg-type]  # of this process only
    is_tiled = bool(getattr(loader.dataset, "per_pass", 0))  # of which only their number is known
    unit = "image" if getattr(loader.dataset, "shown", None) is None else "row"  # of one or of several images
    print(
        f"{number_of(num_images, unit)} × {number_of(len(nets), 'fold')} × {number_of(len(views), 'view')} "
        f"{'in tiles' if is_tiled else f'= {num_images * len(nets) * len(views)} forwards'} on {device} in {precision}",
        flush=True,
    )


def _predict_batch(
    nets: Sequence[Predictor],
    batch: dict[str, Tensor],
    views: Sequence[View],
    device: torch.device,
    of_nets: list[Tensor] | None = None,
) -> Tensor:
    """Mean prediction (B, K), or maps (B, K, H, W), of one batch over networks and views; `of_nets` as of `_mean`."""
    non_blocking = device.type == "cuda"  # unsafe on MPS: the source may be overwritten before it is copied
    images = batch["image"].to(device, non_blocking=non_blocking)
    names = [name for name in ("features", "image_mask") if name in batch]
    more: dict[str, Tensor] = {name: batch[name].to(device, non_blocking=non_blocking) for name in names}
    return _mean(nets, images, views, more, of_nets)


def _mean(
    nets: Sequence[Predictor],
    images: Tensor,
    views: Sequence[View],
    more: dict[str, Tensor],
    of_nets: list[Tensor] | None = None,
) -> Tensor:
    """Mean prediction of images over networks and views; each network's predictions (V, B, K) go to `of_nets`."""
    means = []
    for net in nets:
        of_views = predictions_by_view(partial(net.predict, **more), images, views)
        means.append(of_views.mean(0))
        if of_nets is not None:
            of_nets.append(of_views)
    return torch.stack(means).mean(0)


def _tiled(
    nets: Sequence[Predictor], batch: dict[str, Tensor], views: Sequence[View], device: torch.device, tiling: Tiling
) -> tuple[NDArray[np.uint8], Tensor]:
    """The levels of a batch of one image, (K, H, W), blended of its tiles; and whether they are finite, bool (1,)."""
    image = batch["image"][0].to(device, non_blocking=device.type == "cuda")
    parts, is_finite = [], True
    for band in bands(lambda tiles, _: _mean(nets, tiles, views, {}), image, tiling):
        is_finite = is_finite and bool(band.isfinite().all())
        parts.append(levels_of(band).cpu().numpy())
    return np.concatenate(parts, axis=1), torch.tensor([is_finite])
