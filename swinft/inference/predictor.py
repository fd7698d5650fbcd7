"""Networks and rows become predictions, and what that will take.

Shapes: B batch, K outputs, N rows.
"""

import statistics
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from swinft.errors import number_of
from swinft.inference.finite import Origin, check_finite
from swinft.inference.tta import View, predict_views
from swinft.printing import format_seconds
from swinft.system.precision import Precision, autocast

TIMED_IMAGES = 32  # decoded to learn what decoding takes


class Predictor(Protocol):
    """What predicts: an `ImageModel`, or whatever takes its place."""

    def predict(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W), uint8 or float in 0–255, and metadata (B, F) to predictions (B, K)."""
        ...


def predict_rows(
    nets: Sequence[Predictor],
    loader: DataLoader[Any],
    views: Sequence[View],
    device: torch.device,
    precision: Precision,
    origin: Origin | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Predicts every row of a loader once.

    Images are the outer loop, networks and views the inner ones: each image is decoded and moved once.

    Args:
        nets: Networks on `device`, in evaluation mode; their predictions are averaged.
        loader: Batches with `image` and `row`; rows below 0 are padding and dropped.
        views: Test-time augmentations; their predictions are averaged.
        device: Where the networks are.
        precision: A resolved precision.
        origin: Names rows and networks where predictions are no numbers.

    Returns:
        Row positions (N,) in the loader's order, and float32 predictions (N, K) in the competition's units.

    Raises:
        InputError: A prediction is NaN or infinite, at the first batch that holds one.
    """
    rows: list[Tensor] = []
    values: list[Tensor] = []
    with torch.inference_mode(), autocast(precision, device):
        for batch in loader:
            predictions = _predict_batch(nets, batch, views, device)
            is_real = batch["row"] >= 0
            rows.append(batch["row"][is_real])
            values.append(predictions.cpu()[is_real])
            is_finite = values[-1].isfinite().all(1)  # of what is on the CPU anyway: nothing waits for the device
            if not is_finite.all():
                at_fault = [k for k, net in enumerate(nets) if not _is_finite(net, batch, views, device)]
                check_finite(rows[-1], is_finite, at_fault, precision, origin)
    return torch.cat(rows).numpy(), torch.cat(values).numpy()


def _is_finite(net: Predictor, batch: dict[str, Tensor], views: Sequence[View], device: torch.device) -> bool:
    """Whether one network alone predicts numbers for a batch."""
    return bool(_predict_batch([net], batch, views, device).cpu()[batch["row"] >= 0].isfinite().all())


def print_budget(
    nets: Sequence[Predictor],
    loader: DataLoader[Any],
    views: Sequence[View],
    device: torch.device,
    precision: Precision,
) -> None:
    """Says what a prediction will take."""
    num_images: int = len(loader.sampler)  # type: ignore[arg-type]  # of this process's share
    seconds = estimate(nets, loader, views, device, precision)
    print(
        f"{number_of(num_images, 'image')} × {number_of(len(nets), 'fold')} × {number_of(len(views), 'view')} "
        f"= {num_images * len(nets) * len(views)} "
        f"forwards on {device} in {precision}: estimated {format_seconds(seconds)}",
        flush=True,
    )


def estimate(
    nets: Sequence[Predictor],
    loader: DataLoader[Any],
    views: Sequence[View],
    device: torch.device,
    precision: Precision,
) -> float:
    """Seconds that `predict_rows` is going to take, from some images and the first batch with one network and view."""
    decoding = _decoding_seconds(loader)  # before loader processes, which would compete, are started
    batch = next(iter(loader))
    passes = []
    with torch.inference_mode(), autocast(precision, device):
        for _ in range(4):  # the first passes pay for memory and kernels: the quickest is what all others will be like
            started = time.perf_counter()
            _predict_batch(nets[:1], batch, views[:1], device).cpu()
            passes.append(time.perf_counter() - started)
    forward = min(passes) / len(batch["row"]) * len(nets) * len(views)
    num_images: int = len(loader.sampler)  # type: ignore[arg-type]  # of this process's share
    return num_images * seconds_per_image(forward, decoding, loader.num_workers, device)


def _decoding_seconds(loader: DataLoader[Any]) -> float:
    """Seconds that one of the loader's processes takes for an image; the first images pay for memory and code."""
    times = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if loader.num_workers else threads)  # as loader processes have it
    try:
        for key in islice(loader.sampler, TIMED_IMAGES):
            started = time.perf_counter()
            loader.dataset[key]
            times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return statistics.mean(times[len(times) // 2 :])


def seconds_per_image(forward: float, decoding: float, workers: int, device: torch.device) -> float:
    """What an image takes.

    Args:
        forward: Seconds of all networks and views.
        decoding: Seconds in one process.
        workers: Loader processes, which decode beside a GPU; on a CPU they take the network's cores.
        device: Where the networks are.
    """
    if not workers or device.type == "cpu":
        return forward + decoding
    return max(forward, decoding / workers)


def _predict_batch(
    nets: Sequence[Predictor], batch: dict[str, Tensor], views: Sequence[View], device: torch.device
) -> Tensor:
    """Mean prediction (B, K) of one batch over networks and views."""
    in_background = device.type == "cuda"  # on MPS such copies are unsafe: their source may be overwritten before
    images = batch["image"].to(device, non_blocking=in_background)
    features = batch["features"].to(device, non_blocking=in_background) if "features" in batch else None
    per_net = [predict_views(partial(net.predict, features=features), images, views) for net in nets]
    return torch.stack(per_net).mean(0)
