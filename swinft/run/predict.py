"""Checkpoints and a table to predictions: all folds, all views, averaged in the competition's units."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.run.arguments import call
from swinft.run.build import build_datamodule, load_net
from swinft.run.config import build_parser, read_frozen
from swinft.run.layout import Run
from swinft.run.precision import Precision, autocast, resolve_precision
from swinft.run.predictions import prediction_table, write_predictions
from swinft.run.tta import View, check_views, predict_views


class Predictor(Protocol):
    """What predicts: an `ImageModel`, or whatever takes its place."""

    def predict(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W), uint8 or float in 0–255, and metadata (B, F) to predictions (B, K)."""
        ...


def predict(
    run: str,
    views: list[View] | None = None,
    folds: list[int] | None = None,
    root: str | None = None,
    test: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    output: str | None = None,
    allow_code: list[str] | None = None,
) -> None:
    """Predicts the test rows with every fold of a run and averages.

    Args:
        run: The run folder.
        views: Test-time augmentations; None for the config's `predict.views`.
        folds: Folds to average; None for all of them.
        root: The data's folder where it is another than in training; the training rows need not be there. None for the
            config's `data.root`.
        test: A CSV of rows to predict; None for the config's `data.test` or sample submission.
        batch_size: Images per batch; None for the config's.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        output: Where the predictions go; None for the run's test_predictions.csv.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: A fold is not finished, or the test rows are not right.
    """
    opened = Run.open(run)
    parser = build_parser("predict")
    config = read_frozen(parser, opened.config, allow_code)
    schema = Schema.from_dict(opened.read_schema())
    chosen = _finished_folds(opened, folds)
    place = choose_device(device)
    changes: dict[str, Any] = {
        "schema": schema,
        "batch_size": batch_size or config.predict.batch_size or 2 * config.data.batch_size,
    }
    changes |= {"root": root} if root else {}
    changes |= (
        {"test": str(Path(test).resolve())} if test else {}
    )  # typed in a shell: not relative to the data's folder
    data = build_datamodule(parser, config, **changes)
    data.setup("predict")
    views = views or config.predict.views
    check_views(views, data.image_size)
    precision, _ = resolve_precision(config.trainer.precision, place)
    nets = [load_net(parser, config, schema, opened.fold(index).weights, place) for index in chosen]
    loader = data.predict_dataloader()
    print_budget(nets, loader, views, place, precision)
    rows, values = predict_rows(nets, loader, views, place, precision)
    ids = np.asarray(data.test_table.ids)[rows]
    path = Path(output) if output else opened.test_predictions
    write_predictions(path, prediction_table(ids.tolist(), values, schema.outputs), "swinft predict")
    print(f"{len(rows)} rows, {', '.join(schema.outputs)}: {path}\nnext: swinft submit {run}")


def predict_rows(
    nets: Sequence[Predictor],
    loader: DataLoader[Any],
    views: Sequence[View],
    device: torch.device,
    precision: Precision,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Predicts every row of a loader once.

    Images are the outer loop, networks and views the inner ones: each image is decoded and moved once.

    Args:
        nets: Networks on `device`, in evaluation mode; their predictions are averaged.
        loader: Batches with `image` and `row`; rows below 0 are padding and dropped.
        views: Test-time augmentations; their predictions are averaged.
        device: Where the networks are.
        precision: A resolved precision.

    Returns:
        Row positions (N,) in the loader's order, and float32 predictions (N, K) in the competition's units.
    """
    rows: list[Tensor] = []
    values: list[Tensor] = []
    with torch.inference_mode(), autocast(precision, device):
        for batch in loader:
            predictions = _predict_batch(nets, batch, views, device)
            is_real = batch["row"] >= 0
            rows.append(batch["row"][is_real])
            values.append(predictions.cpu()[is_real])
    return torch.cat(rows).numpy(), torch.cat(values).numpy()


def print_budget(
    nets: Sequence[Predictor],
    loader: DataLoader[Any],
    views: Sequence[View],
    device: torch.device,
    precision: Precision,
) -> None:
    """Says what a prediction will take, from the second of two passes over the first batch."""
    batch = next(iter(loader))
    with torch.inference_mode(), autocast(precision, device):
        for _ in range(2):  # the first pass pays for memory and kernels
            started = time.perf_counter()
            _predict_batch(nets[:1], batch, views[:1], device).cpu()
            seconds = time.perf_counter() - started
    num_images = len(loader.dataset)  # type: ignore[arg-type]  # a map-style dataset has a length
    forwards = num_images * len(nets) * len(views)
    estimate = seconds / len(batch["row"]) * forwards
    print(
        f"{num_images} images × {len(nets)} folds × {len(views)} views = {forwards} forwards "
        f"on {device} in {precision}: about {format_seconds(estimate)}",
        flush=True,
    )


def choose_device(device: str) -> torch.device:
    """Settles `auto`: CUDA, then Apple's MPS, then the CPU.

    Raises:
        InputError: The device does not exist here.
    """
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        torch.empty(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device '{device}' cannot be used here: {str(error).splitlines()[0]} Allowed: auto, cpu, cuda, mps."
        ) from error


def format_seconds(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _predict_batch(
    nets: Sequence[Predictor], batch: dict[str, Tensor], views: Sequence[View], device: torch.device
) -> Tensor:
    """Mean prediction (B, K) of one batch over networks and views."""
    images = batch["image"].to(device, non_blocking=True)
    features = batch["features"].to(device, non_blocking=True) if "features" in batch else None
    per_net = [predict_views(partial(net.predict, features=features), images, views) for net in nets]
    return torch.stack(per_net).mean(0)


def _finished_folds(run: Run, folds: list[int] | None) -> list[int]:
    """The folds to predict with, checked to be finished."""
    planned = run.planned_folds()
    unknown = [index for index in folds or [] if index not in planned]
    if unknown:
        raise InputError(f"--folds names {unknown}, but the run has folds {planned}.")
    chosen = planned if folds is None else folds
    unfinished = [index for index in chosen if not run.fold(index).is_done]
    if unfinished:
        raise InputError(
            f"folds {unfinished} of {run.root} are not finished. Run `swinft fit --config {run.config} --resume`, "
            f"or name the finished ones with --folds."
        )
    return chosen


def main(argv: list[str]) -> int:
    """`swinft predict RUN`."""
    return call(predict, "predict", argv)
