"""Provenance of a prediction table: a JSON file beside it, with the table's SHA-256."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.errors import number_of
from swinft.store import sha256_of

NAME = re.compile(r"\d+_seed_\d+|all(_seed_\d+)?")  # of a training that is not just a fold's number
BEFORE = "before"  # in a provenance, while a file is replaced: that of the present content
PREDICT = "swinft predict"  # the program that writes predictions with a provenance


@dataclass(frozen=True)
class Provenance:
    """What predictions were made with.

    Args:
        folds: The folds whose predictions were averaged.
        planned: All folds of the run.
        views: The views that were averaged.
        backend: `torch` or `openvino`.
        precision: The precision of the prediction.
        checkpoint: The epochs of the weights: `last`, `best`, or an average in words.
        weights: SHA-256 of each fold's weights file, by the fold's folder; of an ensemble, of its members' tables.
        ensemble: Method and members of an ensemble; empty for networks.
    """

    folds: list[int | str]
    planned: list[int | str]
    views: list[str]
    backend: str
    precision: str
    checkpoint: str
    weights: dict[str, str]
    ensemble: str = ""

    def __post_init__(self) -> None:
        is_right = _are_folds(self.folds) and _are_folds(self.planned) and _are(str, self.views)
        if not is_right or not isinstance(self.weights, dict):
            raise TypeError("not what `swinft predict` writes")

    def describe(self) -> str:
        """`5 folds, views identity, hflip, by torch in 32-true`."""
        if self.ensemble:
            return self.ensemble
        count = number_of(len(self.folds), "fold")
        if self.folds and all(str(fold).startswith("all") for fold in self.folds):
            count = f"{' and '.join(f'fold {fold}' for fold in self.folds)}, trained on every row"
        elif self.folds != self.planned:
            count = f"only {count} of {len(self.planned)} ({', '.join(map(str, self.folds))})"
        return f"{count}, views {', '.join(self.views)}, by {self.backend} in {self.precision}"


def _are_folds(values: object) -> bool:
    """Whether they are numbers of folds, or names of trainings with a seed or on every row."""
    return isinstance(values, list) and all(
        isinstance(each, int) or (isinstance(each, str) and NAME.fullmatch(each)) for each in values
    )


def _are(kind: type, values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def other_views(made_with: Provenance, oof_views: Sequence[str]) -> str:
    """A note if predictions were made with other views than the out-of-fold score; else empty."""
    if made_with.ensemble or set(made_with.views) == set(oof_views):
        return ""
    return (
        f"note: the out-of-fold score was made with the views {', '.join(oof_views)}; it does not measure "
        f"predictions with {', '.join(made_with.views)}"
    )


def beside(path: Path) -> Path:
    """Path of the JSON file beside a file."""
    return path.with_name(f"{path.stem}.made_from.json")


def maps_beside(path: Path) -> Path:
    """Path of the maps of segmentation beside their CSV."""
    return path.with_name(f"{path.stem}.maps.npy")


def read_made_from(path: Path, maker: str) -> dict[str, Any] | None:
    """The provenance record of a file; None if `maker` did not write the file, or it has changed since."""
    try:
        found: dict[str, Any] = json.loads(beside(path).read_bytes())
        both: tuple[dict[str, Any], ...] = found, found.pop(BEFORE, {})
        wanted = (maker, sha256_of(path))
        return next((each for each in both if (each.get("made_by"), each.get("sha256")) == wanted), None)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def read_provenance(path: Path) -> Provenance | None:
    """The provenance of predictions; None if `swinft predict` did not write them, or they have changed since."""
    return provenance_of(read_made_from(path, PREDICT))


def provenance_of(made_from: dict[str, Any] | None) -> Provenance | None:
    """The provenance in a record; None if there is none, or its form is not that of `swinft predict`."""
    try:
        return Provenance(**made_from["provenance"]) if made_from else None
    except (KeyError, TypeError):
        return None


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
