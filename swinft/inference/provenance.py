"""What a prediction table was made from: a JSON file beside it that knows its SHA-256."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.errors import number_of

PREDICT = "swinft predict"  # what made predictions that have a provenance


@dataclass(frozen=True)
class Provenance:
    """What predictions were made with.

    Args:
        folds: The folds whose predictions were averaged.
        planned: All folds of the run.
        views: The views that were averaged.
        backend: `torch` or `openvino`.
        precision: What was computed in.
        checkpoint: Which epoch's weights the folds have: `last` or `best`.
        weights: SHA-256 of each fold's weights file, by the fold's folder.
    """

    folds: list[int]
    planned: list[int]
    views: list[str]
    backend: str
    precision: str
    checkpoint: str
    weights: dict[str, str]

    def __post_init__(self) -> None:
        is_right = _are(int, self.folds) and _are(int, self.planned) and _are(str, self.views)
        if not is_right or not isinstance(self.weights, dict):
            raise TypeError("not what `swinft predict` writes")

    def describe(self) -> str:
        """`5 folds, views identity, hflip, by torch in 32-true`."""
        count = number_of(len(self.folds), "fold")
        if self.folds != self.planned:
            count = f"only {count} of {len(self.planned)} ({', '.join(map(str, self.folds))})"
        return f"{count}, views {', '.join(self.views)}, by {self.backend} in {self.precision}"


def _are(kind: type, values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def other_views(made_with: Provenance, oof_views: Sequence[str]) -> str:
    """A line where predictions were made with other views than the out-of-fold score; empty where not."""
    if set(made_with.views) == set(oof_views):
        return ""
    return (
        f"note: the out-of-fold score was made with the views {', '.join(oof_views)}; it does not say how good "
        f"predictions with {', '.join(made_with.views)} are"
    )


def beside(path: Path) -> Path:
    """Where it is kept what a file was made from."""
    return path.with_name(f"{path.stem}.made_from.json")


def read_made_from(path: Path, maker: str) -> dict[str, Any] | None:
    """What a file was made from; None where it is not what `maker` made, or has changed since."""
    try:
        made_from: dict[str, Any] = json.loads(beside(path).read_bytes())
        is_ours = made_from["made_by"] == maker and made_from["sha256"] == sha256(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return made_from if is_ours else None


def read_provenance(path: Path) -> Provenance | None:
    """What predictions were made with; None where `swinft predict` did not make them, or they have changed since."""
    return provenance_of(read_made_from(path, PREDICT))


def provenance_of(made_from: dict[str, Any] | None) -> Provenance | None:
    """What predictions were made with; None where that is not said, or not as `swinft predict` does."""
    try:
        return Provenance(**made_from["provenance"]) if made_from else None
    except (KeyError, TypeError):
        return None


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
