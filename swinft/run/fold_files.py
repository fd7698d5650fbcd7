"""One training of a run: its name and its files.

It holds out a fold, whose number is its name, or trains on `all` rows; with several seeds the seed stands behind it.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.inference.provenance import maps_beside
from swinft.store import discard, has_record, is_committed, verify

FoldId = int | str  # 3, "3_seed_1", "all", "all_seed_1"

ALL = "all"
BUNDLED = "bundled.json"  # in a copy of a run that only predicts, without out-of-fold predictions
FORM = re.compile(r"(\d{1,9}|all)(?:_seed_(\d{1,10}))?")


def read_json(path: Path) -> dict[str, Any]:
    """The content of a committed JSON file; errors as of `verify`."""
    found: dict[str, Any] = json.loads(verify(path).read_text(encoding="utf-8"))
    return found


def fold_id(fold: int | str, seed: int | None) -> FoldId:
    """The name of a training.

    Args:
        fold: The fold that is held out, or `ALL`.
        seed: Its seed; None in a run with one.
    """
    return fold if seed is None else f"{fold}_seed_{seed}"


def read_fold_id(text: str) -> FoldId | None:
    """The name in a text; None if it is none."""
    found = FORM.fullmatch(text)
    return None if found is None else int(text) if text.isdigit() else text


def held_out_by(name: FoldId) -> int | None:
    """The fold that a training holds out; None for one on every row."""
    found = FORM.fullmatch(str(name))
    return None if found is None or found[1] == ALL else int(found[1])


def seed_in(name: FoldId) -> int | None:
    """The seed in a name; None in a run with one."""
    found = FORM.fullmatch(str(name))
    return int(found[2]) if found and found[2] else None


def trainings_of(folds: Iterable[int | str], seeds: Sequence[int] | None) -> list[FoldId]:
    """The trainings of some folds, with every seed."""
    every: Sequence[int | None] = seeds or [None]
    return [fold_id(fold, seed) for fold in folds for seed in every]


def expanded(names: Iterable[FoldId], known: Sequence[FoldId]) -> list[FoldId]:
    """Names of trainings, where a fold's own stands for it with every seed: 0 for 0_seed_1 and 0_seed_2."""
    found: list[FoldId] = []
    for name in names:
        several = [each for each in known if str(each).startswith(f"{name}_seed_")]
        found += [name] if name in known or not several else several
    return found


@dataclass(frozen=True)
class Fold:
    """The folder of one training.

    Args:
        root: The folder.
        index: Its name: the number of the fold where the run has one seed.
    """

    root: Path
    index: FoldId

    @property
    def held_out(self) -> int | None:
        """The fold that is held out; None for a training on every row."""
        return held_out_by(self.index)

    @property
    def seed(self) -> int | None:
        """Its seed; None in a run with one."""
        return seed_in(self.index)

    def checkpoint(self, epoch: int) -> Path:
        """The training state after `epoch` whole epochs; deleted when the fold is done."""
        return self.root / f"epoch-{epoch:04d}.ckpt"

    @property
    def checkpoints(self) -> list[Path]:
        """The committed epoch checkpoints, newest first, with damaged ones."""
        return sorted(filter(has_record, self.root.glob("epoch-*.ckpt")), key=_epoch, reverse=True)

    def candidate(self, epoch: int) -> Path:
        """The weights of an epoch that may be part of an average; deleted when the fold is done."""
        return self.root / f"epoch-{epoch:04d}.safetensors"

    @property
    def candidates(self) -> list[Path]:
        """The weights of all such epochs."""
        return sorted(self.root.glob("epoch-*.safetensors"))

    def delete_checkpoints(self) -> None:
        """Deletes what a finished fold no longer needs; a checkpoint is several times the size of the weights."""
        for path in (*self.root.glob("epoch-*.ckpt"), *self.candidates):
            discard(path)

    @property
    def log(self) -> Path:
        """The output of all processes of the fold; for reading, not verified."""
        return self.root / "log.txt"

    @property
    def lock(self) -> Path:
        """The lock that the process of this fold holds."""
        return self.root.parent.parent / ".locks" / f"{self.root.parent.name}.{self.root.name}.lock"

    @property
    def weights(self) -> Path:
        """The weights for prediction: the averaged ones with EMA."""
        return self.root / "weights.safetensors"

    @property
    def metrics(self) -> Path:
        """One JSON line per epoch."""
        return self.root / "metrics.jsonl"

    def labels(self, number: int) -> Path:
        """What another run predicts for the extra table of a number, from 0; its rows are trained on with it."""
        return self.root / f"labels_{number}.csv"

    @property
    def oof(self) -> Path:
        """Predictions of the fold's own validation rows."""
        return self.root / "oof.csv"

    @property
    def oof_by_view(self) -> Path:
        """The same predictions by each view alone, float32 (V, N, K); none with one view, and none of masks."""
        return self.root / "oof_by_view.npy"

    @property
    def result(self) -> Path:
        """Score, epochs and seconds. Written last: a fold with a result is done."""
        return self.root / "result.json"

    def read_history(self) -> list[dict[str, float]]:
        """One entry per epoch."""
        return [json.loads(line) for line in verify(self.metrics).read_text(encoding="utf-8").splitlines()]

    def recorded_epochs(self) -> int:
        """The number of epochs in its metrics; not verified, for estimates only."""
        return len(self.metrics.read_bytes().splitlines()) if self.metrics.is_file() else 0

    def read_result(self) -> dict[str, Any]:
        """Scores (NaN if undefined), epochs, seconds, and the fold's environment."""
        result = read_json(self.result)
        for part in ("oof", "last_epoch", "best_epoch"):
            result[part] = {name: math.nan if value is None else value for name, value in result[part].items()}
        return result

    @property
    def is_done(self) -> bool:
        """Whether the fold is finished and has all files needed to predict with it."""
        only_predicts = self.held_out is None or (self.root.parent / BUNDLED).is_file()
        maps = maps_beside(self.oof)  # of segmentation only
        scored = [] if only_predicts else [self.oof, *([maps] if has_record(maps) else [])]
        return all(is_committed(path) for path in (self.weights, *scored, self.result))


def _epoch(checkpoint: Path) -> int:
    """The epoch in a checkpoint's name; −1 for another file."""
    number = checkpoint.stem.removeprefix("epoch-")
    return int(number) if number.isdecimal() else -1
