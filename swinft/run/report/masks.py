"""Out-of-fold masks of the report: the best, the worst and random rows, with true and predicted outlines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.data.images.decode import decode
from swinft.data.images.depth import displayed
from swinft.data.images.resize import nearest, resized
from swinft.data.masks.overlay import filled_masks, outlined
from swinft.data.sources.source import ImageError
from swinft.inference.predictions import Predictions
from swinft.model.scoring import chosen_metrics
from swinft.run.mask_counts import MaskCounts, MaskDecision
from swinft.run.mask_fit import count_scored, fitted
from swinft.run.scoring import row_scorer

NUM_BEST, NUM_WORST, NUM_RANDOM = 4, 8, 4
SIDE = 320  # pixels of the longer side
SEED = 0


def mask_groups(
    oof: Predictions, data: CSVDataModule, scores: dict[str, Any], metrics: Sequence[Any], counts: MaskCounts | None
) -> dict[str, list[dict[str, Any]]]:
    """Rows to draw by title, each with `id`, `fold`, `score` and `image`, uint8 (H, W, 3); none without maps.

    Args:
        oof: Out-of-fold predictions in the order of the table.
        data: The datamodule after `setup("fit")`.
        scores: The content of scores.json; masks are decided as for a submission, by the fitted decision.
        metrics: Those of the config, of which the first one orders the rows; none for the head's.
        counts: What `count_scored` returns; None to count now.
    """
    masks, counts = data.splits.train.masks, count_scored(oof, data) if counts is None else counts
    if oof.maps is None or masks is None or counts is None:
        return {}
    scored, resize, outputs = np.flatnonzero(data.is_scored), data.settings.loading.resize, data.schema.outputs
    decision = fitted(scores, outputs) or MaskDecision.default(len(outputs))
    metric = chosen_metrics(metrics or list(scores["pooled"]), data.schema.kind)[0]
    score, decided = row_scorer([metric], data, scored, counts.true), counts.decided(decision)
    places = np.arange(len(scored))
    found = np.array([score(decided[[place]], places[[place]])[metric.name] for place in places])
    order = np.argsort(found if metric.higher_is_better else -found, kind="stable")
    order = order[np.isfinite(found[order])]
    random = np.random.default_rng(SEED).permutation(order)[:NUM_RANDOM]
    chosen = {"worst": order[:NUM_WORST], "best": order[::-1][:NUM_BEST], "random": random}

    def drawn(place: int) -> dict[str, Any]:
        row = int(scored[place])
        assert oof.maps is not None
        levels = oof.maps.decided(row, resize, masks.classes)
        predicted = np.stack([decision.mask(each, k) for k, each in enumerate(levels)], axis=2).astype(np.uint8)
        shown = {"image": _overlay(data, row, masks.planes(row), predicted), "score": float(found[place])}
        return {"id": data.train_table.ids[row], "fold": int(data.fold_of_row[row]), **shown}

    return {f"{title}, by {metric.name}": [drawn(place) for place in each] for title, each in chosen.items()}


def _overlay(
    data: CSVDataModule, row: int, true: NDArray[np.uint8], predicted: NDArray[np.uint8]
) -> NDArray[np.uint8] | None:
    """A row's image with its true masks, filled, and the dashed outlines of predicted ones; None if it is missing."""
    images = data.images_of("fit", [row])
    try:
        image = displayed(decode(images.paths[0], images.rules, images.source))
    except ImageError:
        return None
    scale = SIDE / max(image.shape[:2])
    size = max(1, round(scale * image.shape[0])), max(1, round(scale * image.shape[1]))
    small = filled_masks(resized(image, *size).astype(np.uint8), nearest(true, *size))
    return outlined(small, nearest(predicted, *size), is_dashed=True)
