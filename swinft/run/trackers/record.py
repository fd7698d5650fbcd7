"""What a tracker keeps of one training: its place, its config, and the file that remembers under which id."""

import json
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.run.lock import hold
from swinft.store import json_bytes, replace

LOCK_SECONDS = 120.0  # MLflow makes the tables of a new sqlite file in 10
POOLED = "pooled"  # name of the record of the whole run, with the scores of all folds together


@dataclass(frozen=True)
class Record:
    """One training, or the whole run, as it is shown by a service.

    Args:
        group: Name of the run, which groups its records.
        name: `fold_0`, `fold_1`, …, or `pooled`.
        id: Identifies the record at the service, also after a resume.
        group_id: The id of the run's pooled record.
        folder: Absolute path of the run's folder.
        config: The run's config, without secrets.
        keys: The same as dotted keys with plain values.
        is_known: Whether it was started before, by this or another process.
        lock: A lock of all processes that fit the run.
    """

    group: str
    name: str
    id: str
    group_id: str
    folder: Path
    config: Mapping[str, Any]
    keys: Mapping[str, Any]
    is_known: bool
    lock: Path

    def alone(self) -> AbstractContextManager[None]:
        """Lets one process of the run after another in: what they share at a service is made once."""
        return hold(self.lock, patience=LOCK_SECONDS)

    @property
    def is_pooled(self) -> bool:
        """Whether it is the record of the whole run."""
        return self.name == POOLED


@dataclass(frozen=True)
class EpochValues:
    """What is sent of one epoch.

    Args:
        epoch: Its number, from 1.
        step: Optimiser steps until its end; None if they are not known.
        values: The line of `metrics.jsonl`, without the epoch.
        between: What callbacks logged during the epoch: optimiser step and values.
    """

    epoch: int
    step: int | None
    values: Mapping[str, float]
    between: list[tuple[int, dict[str, float]]]

    def all_values(self) -> dict[str, float]:
        """The values of the epoch's end, with `epoch` and, if it is known, `global_step`."""
        steps = {} if self.step is None else {"global_step": float(self.step)}
        return {**self.values, **steps, "epoch": float(self.epoch)}


@dataclass(frozen=True)
class CaptionedImage:
    """An image of a record.

    Args:
        pixels: RGB, uint8 (H, W, 3).
        caption: Its text.
    """

    pixels: NDArray[np.uint8]
    caption: str


class Memory:
    """The file `trackers.json` of a fold or a run: by tracker the record's id, its steps, and whether all is sent.

    Args:
        path: The file; it is written when something is remembered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, tracker: str) -> dict[str, Any]:
        """What is known of a tracker's record; nothing if the file is damaged: training must not stop for it."""
        return dict(self._read_all().get(tracker, {}))

    def id_of(self, tracker: str) -> str:
        """The id of a tracker's record: known, or new and remembered before it is used."""
        known = self.read(tracker).get("id")
        if known is None:
            known = secrets.token_hex(4)
            self.remember(tracker, id=known)
        return str(known)

    def remember(self, tracker: str, **changes: Any) -> None:
        """Changes what is known of a tracker's record."""
        known = self._read_all()
        here = known.get(tracker, {}) | changes
        if known.get(tracker) != here:
            replace(self.path, json_bytes({**known, tracker: here}))

    def _read_all(self) -> dict[str, Any]:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}
