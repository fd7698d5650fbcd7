"""The nearest rows of a row by embeddings of the network that was not trained on it.

Shapes: N rows, D dimensions, G networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinft.errors import InputError, RunError, StoreError, command
from swinft.printing import visible
from swinft.run.embed.files import Table, read_about, read_table
from swinft.run.embed.makers import FROZEN
from swinft.run.fold_files import held_out_by, read_fold_id
from swinft.run.layout import Run
from swinft.run.report.rows.members import runs_behind
from swinft.store import digest, is_committed

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Neighbour:
    """A row near another one.

    Args:
        row: Its position in the training table.
        similarity: Cosine of the two embeddings.
        is_trained_on: Whether the network was trained on it; if not, its fold holds it out as well.
    """

    row: int
    similarity: float
    is_trained_on: bool


@dataclass(frozen=True)
class Embeddings:
    """The current embeddings of a run: those of one layer, by each network.

    Args:
        folder: The folder they are in.
        of_folds: The networks of each fold, by its number: with several seeds there are several; a pretrained backbone
            is the network of every fold.
        member: In an ensemble, the name of the member whose they are; else empty.
    """

    folder: Path
    of_folds: dict[int, list[str]]
    member: str = ""

    @classmethod
    def of(cls, run: Run) -> "Embeddings | str":
        """The embeddings of a run that are up to date, those by its own networks first.

        Returns:
            They; or why there are none, as a sentence.
        """
        folders = sorted(path for path in (run.root / "embeddings").glob("*") if path.is_dir())
        stale = False
        for folder in sorted(folders, key=lambda path: (not path.name.startswith("pooled"), path.name)):
            try:
                found = cls._in(run, folder)
            except (StoreError, RunError, InputError, OSError, ValueError) as error:
                return f"The embeddings in {folder} cannot be read: {error}"
            if found:
                return found
            stale = True
        return "The embeddings of this run are of other weights or rows: they are out of date." if stale else ""

    @classmethod
    def _in(cls, run: Run, folder: Path) -> "Embeddings | None":
        names = [path.name.removesuffix(".train.parquet") for path in folder.glob("*.train.parquet")]
        folds = sorted({held for name in run.planned_folds() if (held := held_out_by(name)) is not None})
        if names == [FROZEN]:
            found = cls(folder, {fold: [FROZEN] for fold in folds})
        else:
            of_folds: dict[int, list[str]] = {fold: [] for fold in folds}
            for name in names:
                known = read_fold_id(name.removeprefix("fold_"))
                held = None if known is None else held_out_by(known)
                if held is not None and held in of_folds:
                    of_folds[held].append(name)
            found = cls(folder, {fold: sorted(every) for fold, every in of_folds.items()})
        if not all(found.of_folds.values()):
            return None
        return (
            found if all(found._is_current(run, name) for every in found.of_folds.values() for name in every) else None
        )

    def _is_current(self, run: Run, name: str) -> bool:
        """Whether a network's embeddings of the training rows are of its weights, and of the rows of the run."""
        about = read_about(self.folder / f"{name}.{TRAIN}.parquet") or {}
        rows = {"folds": digest(run.folds), "images": digest(run.images), "inputs": digest(run.inputs)}
        weights = None if name == FROZEN else digest(run.root / name / "weights.safetensors")
        return about.get("of_rows") == rows and weights in (None, about.get("weights"))

    def table(self, name: str, rows: str) -> Table:
        """A network's embeddings of the training rows (`train`) or those to predict (`test`).

        Raises:
            StoreError: They are missing, or have changed.
        """
        return read_table(self.folder / f"{name}.{rows}.parquet")

    def has_test(self) -> bool:
        """Whether there are embeddings of the rows to predict by every network."""
        names = {name for every in self.of_folds.values() for name in every}
        return all(is_committed(self.folder / f"{name}.{TEST}.parquet") for name in names)


def embeddings_of(run: Run) -> Embeddings | str:
    """The current embeddings of a run; of an ensemble those of the strongest member that has some.

    Returns:
        They; or why there are none, as a sentence; an empty one where none were made.
    """
    if not run.is_ensemble:
        return Embeddings.of(run)
    notes: list[str] = []
    for behind in runs_behind(run, notes):
        found = Embeddings.of(behind.run)
        if isinstance(found, Embeddings):
            return replace(found, member=behind.name)
        notes += [f"{visible(behind.name)}: {found}"] if found else []
    return " ".join(dict.fromkeys(notes))


def how_to_embed(run: Run) -> str:
    """The command that makes the embeddings of a run, or of the strongest run behind an ensemble; empty without one."""
    wanted = next((each.run for each in runs_behind(run, [])), None) if run.is_ensemble else run
    return "" if wanted is None else command("embed", wanted.root)


def nearest(
    embeddings: Embeddings, ids: Sequence[str], rows: NDArray[np.int64], folds: NDArray[np.int64], count: int
) -> dict[int, list[Neighbour]]:
    """The nearest training rows of some training rows, by cosine, in the space of the network that held them out.

    Args:
        embeddings: The embeddings.
        ids: Ids of the training table.
        rows: Positions of the rows whose neighbours are looked for.
        folds: The fold of each of them; rows of other folds have no neighbours.
        count: Neighbours of a row, at most.

    Returns:
        Neighbours of each row, the nearest first, by its position.
    """
    place_of = {id: place for place, id in enumerate(ids)}
    found: dict[int, list[Neighbour]] = {}
    for fold in sorted(set(folds.tolist()) & embeddings.of_folds.keys()):
        table = embeddings.table(embeddings.of_folds[fold][0], TRAIN)
        places = np.array([place_of.get(id, -1) for id in table.ids])  # rows of extra tables have no place
        values = _unit(table.values[places >= 0])
        trained = np.zeros(len(table.ids), dtype=bool) if table.is_trained_on is None else table.is_trained_on
        places, trained = places[places >= 0], trained[places >= 0]
        position_of = {place: position for position, place in enumerate(places.tolist())}
        for row in rows[folds == fold].tolist():
            if (own := position_of.get(row)) is None:
                continue
            similarity = values @ values[own]
            similarity[own] = -np.inf
            order = np.argsort(-similarity, kind="stable")[: min(count, len(places) - 1)]
            found[row] = [Neighbour(int(places[k]), float(similarity[k]), bool(trained[k])) for k in order]
    return found


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(lengths > 0, lengths, 1), dtype=np.float32)
