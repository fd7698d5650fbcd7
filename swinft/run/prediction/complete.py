"""Predictions of rows in the order of their table, with those of rows whose image is skipped."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.data.inspection.scan import scan
from swinft.data.sources.source import is_absent
from swinft.data.splits import OK
from swinft.errors import RunError
from swinft.inference.maps import Maps
from swinft.inference.predictions import Predictions


def complete(
    rows: NDArray[np.int64], values: NDArray[np.float32] | Maps, data: CSVDataModule, wanted: Sequence[int]
) -> Predictions:
    """The predictions of test rows, in the table's order.

    Args:
        rows: Rows that were predicted, each once.
        values: Their predictions (N, K), or maps.
        data: The datamodule. If it skips bad images, their rows get the mean of the training rows.
        wanted: All rows that must be predicted.

    Raises:
        RunError: A row is predicted twice, or not at all although it may not be skipped, or a prediction is not finite.
    """
    if not isinstance(values, Maps) and not np.isfinite(values).all():
        raise RunError("predictions are NaN or infinite: nothing is written.")
    skipped = sorted(set(wanted) - set(rows.tolist())) if data.settings.loading.on_bad_image == "skip" else []
    ids, expected = data.test_table.ids, set(wanted) - set(skipped)
    for row in skipped:
        errors = scan(data.images_of("predict", [row])).errors.values()
        missing = [] if data.splits.test.shown is None else [f"id '{ids[row]}' has no image."]
        for problem in [error for error in errors if not is_absent(error)] or missing:
            print(f"skipped, predicted as the mean of the training rows: {problem}", file=sys.stderr)
    found = Predictions.of([ids[row] for row in rows], values, data.schema.outputs)
    whole = found.join([ids[row] for row in wanted if row in expected], "what was predicted")
    status = ["bad image" if row in skipped else OK for row in wanted] if data.may_skip else None
    filler: Any = np.nan if not skipped else data.schema.prior if found.maps is None else 0.0
    return replace(whole.among([ids[row] for row in wanted], filler), status=status)
