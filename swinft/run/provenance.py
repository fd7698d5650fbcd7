"""What a prediction table or a submission was made from: a JSON file beside it that knows its SHA-256.

It says which files a command may overwrite (only those that it made), and which predictions are of another network than
the run has now.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.errors import InputError, command, number_of
from swinft.run.layout import Run
from swinft.run.store import commit, digest, probe, replace, verify


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

    def check(self, run: Run, path: Path) -> None:
        """Compares the weights with those that the run has now.

        Raises:
            InputError: The predictions are of other weights.
        """
        now = weights_of(run, [index for index in self.folds if run.fold(index).is_done])
        changed = sorted({name for name in {**self.weights, **now} if self.weights.get(name) != now.get(name)})
        if changed:
            raise InputError(
                f"{path} was predicted with other weights than {run.root} has now in {', '.join(changed)}: it is out "
                f"of date, or of another run. Run `{command('predict', run.root)}` again."
            )


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


def weights_of(run: Run, folds: list[int]) -> dict[str, str]:
    """SHA-256 of the folds' weights files, as they were committed."""
    return {run.fold(index).root.name: digest(run.fold(index).weights) for index in folds}


def beside(path: Path) -> Path:
    """Where it is kept what a file was made from."""
    return path.with_name(f"{path.stem}.made_from.json")


def predictions_made_with(run: Run) -> Provenance:
    """What the run's test predictions were made with.

    Raises:
        InputError: They are not there, were not made by a whole `swinft predict`, or with weights that have changed.
    """
    path = run.test_predictions
    if not path.is_file():
        raise InputError(f"{run.root} has no test predictions yet. Run `{command('predict', run.root)}` first.")
    found = read_provenance(verify(path))
    if found is None:
        raise InputError(
            f"{path} does not say what it was made with: `swinft predict` was interrupted, or of another version. Run "
            f"`{command('predict', run.root)}` again."
        )
    found.check(run, path)
    return found


def read_made_from(path: Path, maker: str) -> dict[str, Any] | None:
    """What a file was made from; None where it is not what `maker` made, or has changed since."""
    try:
        made_from: dict[str, Any] = json.loads(beside(path).read_bytes())
        is_ours = made_from["made_by"] == maker and made_from["sha256"] == _sha256(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return made_from if is_ours else None


def read_provenance(path: Path) -> Provenance | None:
    """What a prediction table was made with; None where `swinft predict` did not make it, or it has changed since."""
    made_from = read_made_from(path, "swinft predict")
    try:
        return Provenance(**made_from["provenance"]) if made_from else None
    except (KeyError, TypeError):
        return None


def write_made_from(run: Run, path: Path, content: bytes, maker: str, made_from: dict[str, Any]) -> None:
    """Writes a file with what it was made from beside it; with commit records where it is one of the run's own."""
    text = json.dumps({"made_by": maker, "sha256": _sha256(content), **made_from}, indent=1).encode()
    if is_own(run, path, maker):
        commit(path, content, maker)
        commit(beside(path), text, maker)
    else:
        replace(path, content)
        replace(beside(path), text)


def is_own(run: Run, path: Path, maker: str) -> bool:
    """Whether a path is where a command writes to in the run's own folder."""
    own = run.test_predictions if maker == "swinft predict" else run.submission
    return path.resolve() == own.resolve()


def check_output(run: Run, path: Path, maker: str) -> None:
    """Finds out, before anything is computed, whether a file may and can be written.

    Raises:
        InputError: It is a folder, or a file that `maker` did not make; or the disk refuses.
    """
    if path.is_dir():
        raise InputError(f"--output {path} is a folder. Name a file: --output {path / 'FILE.csv'}.")
    if path.exists() and not is_own(run, path, maker) and read_made_from(path, maker) is None:
        raise InputError(f"{path} is there already, and not as `{maker}` made it: it is not overwritten. Name another.")
    if beside(path).exists() and not is_own(run, path, maker) and '"made_by": "swinft' not in beside(path).read_text():
        raise InputError(f"{beside(path)} is there already, and `{maker}` did not make it. Name another output.")
    probe(path.parent, what=path.name, advice="Choose another place with --output FILE.csv.")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
