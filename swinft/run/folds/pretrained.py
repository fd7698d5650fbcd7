"""Pretrained weights: which file each fold loads, and whether it was trained on the rows that the fold scores.

`model.pretrained` names a file, a fold's folder, or a run's folder; from a run, each fold loads the fold of its number.
What these weights started from has seen rows as well, and so on: all trainings that a fold comes from are looked at.
"""

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, RunError, number_of
from swinft.model.backbones.timm_backbone import weights_file
from swinft.run.fold_files import ALL, Fold, FoldId, held_out_by, read_fold_id
from swinft.run.layout import Run

FOLD = "{fold}"  # placeholder in model.pretrained for the fold's number
GONE = (InputError, RunError, OSError, KeyError, TypeError)  # where what a run started from is no longer here


class Leak(NamedTuple):
    """Held-out rows that weights were trained on.

    Args:
        rows: Their number.
        held_out: The number of rows that the fold holds out.
        file: The weights that saw them: those that the fold starts from, or some that these came from.
        is_direct: Whether the fold starts from this file.
    """

    rows: int
    held_out: int
    file: Path
    is_direct: bool


def pretrained_of(config: Namespace, fold: FoldId) -> bool | str:
    """`model.pretrained` of a fold: true, false, or a file.

    Raises:
        InputError: It is a folder without a fold's weights.
    """
    source = source_of(config, fold)
    if source is not None:
        return str(source.weights)
    pretrained: bool | str = config.model.pretrained
    return pretrained.replace(FOLD, _name(fold)) if isinstance(pretrained, str) else pretrained


def _name(fold: FoldId) -> str:
    """What stands for `FOLD`: the fold's number, or `all`, whatever the seed is."""
    held_out = held_out_by(fold)
    return ALL if held_out is None else str(held_out)


def source_of(config: Namespace, fold: FoldId) -> Fold | None:
    """The finished fold of another run from which a fold starts; None if it starts from other weights.

    Raises:
        InputError: `model.pretrained` is a folder but not that of a run or fold, or the fold is not finished.
    """
    named = str(config.model.pretrained).replace(FOLD, _name(fold))
    folder = Path(named)
    if not isinstance(config.model.pretrained, str) or not folder.is_dir():
        return None
    if Run.at(folder).is_run():
        run = Run.at(folder)
        run.check_trained()
        known = run.trainings()
        wanted = next((name for name in (fold, read_fold_id(_name(fold))) if name in known), None)
        if wanted is None:
            raise InputError(
                f"model.pretrained {named} has the folds {known}, and no weights for fold {fold} of this "
                f"run. Use that run's folds (data.folds.file {run.folds}), or name one fold's folder: "
                f"{run.fold(known[0]).root}."
            )
        found: Fold | None = run.fold(wanted)
    else:
        name = read_fold_id(folder.resolve().name.removeprefix("fold_"))
        found = None if name is None else Fold(folder, name)
        if not found or not Run.at(folder.resolve().parent).is_run():
            raise InputError(
                f"model.pretrained {named} is a folder, but not that of a run or a fold. Name a file, runs/NAME, or "
                f"runs/NAME/fold_0."
            )
    if found and not found.is_done:
        raise InputError(f"model.pretrained: {found.root} is not finished. Resume that run (--resume) first.")
    return found


def check_pretrained(config: Namespace, num_folds: int) -> None:
    """Checks that every fold has its weights.

    Args:
        config: The config.
        num_folds: Number of folds.

    Raises:
        InputError: A file is missing, or the backbone has no weights to download.
    """
    one_each = FOLD in str(config.model.pretrained) or Path(str(config.model.pretrained)).is_dir()
    several: Iterable[FoldId] = chain(range(num_folds), [ALL] * config.data.folds.all)
    for fold in several if one_each else (0,):
        weights_file(config.model.backbone, pretrained_of(config, fold))


def check_unseen(config: Namespace, data: CSVDataModule) -> None:
    """Checks that no fold that starts from a run's folder scores rows on which its weights were trained.

    Raises:
        InputError: A fold does, or has no weights to start from.
    """
    pretrained = str(config.model.pretrained)
    if not isinstance(config.model.pretrained, str) or FOLD in pretrained or not Path(pretrained).is_dir():
        return
    if not Run.at(Path(pretrained)).is_run():
        return  # a single fold's folder: each fold warns when it starts
    for fold in range(int(data.fold_of_row.max()) + 1):
        if leak := find_leak(config, data, fold):
            seen = "was trained" if leak.is_direct else f"started from {leak.file}, which was trained"
            fix = f"Use that run's folds: data.folds.file {Run.at(Path(pretrained)).folds}."
            raise InputError(
                f"model.pretrained {pretrained}: its fold {fold} {seen} on {leak.rows} of the "
                f"{number_of(leak.held_out, 'row')} that fold {fold} holds out here, by their ids: the score would be "
                f"too good. {fix if leak.is_direct else 'Start from other weights.'} If the ids name other "
                f"images, name the folders of its folds: model.pretrained {pretrained}/fold_{FOLD}."
            )


def note_of_leak(config: Namespace, data: CSVDataModule, fold: Fold) -> str | None:
    """A warning if a fold starts from weights of a swinft fold that was trained on rows held out now.

    Args:
        config: The config.
        data: Its rows.
        fold: The fold that is held out.
    """
    leak = None if fold.held_out is None else find_leak(config, data, fold.held_out)
    if leak is None:
        return None
    start = Path(str(pretrained_of(config, fold.index))).resolve()
    fix = (
        f"Reuse that run's folds (data.folds.file {leak.file.parent.parent / 'folds.csv'}) and write fold_{FOLD} into "
        f"model.pretrained: each fold then starts from the fold of its number."
    )
    file = leak.file if leak.is_direct else f"{start} started from {leak.file}, which"
    return (
        f"WARNING: {file} was trained on {leak.rows} of the {number_of(leak.held_out, 'row')} that fold "
        f"{fold.held_out} holds out, if their ids mean the same images: its score would be too good. "
        f"{fix if leak.is_direct else 'Start from other weights.'}"
    )


def find_leak(config: Namespace, data: CSVDataModule, fold: int) -> Leak | None:
    """Which of a fold's held-out rows its weights were trained on, by their ids.

    None if there are no such rows, or if the weights are not those of a swinft fold.

    Raises:
        InputError: The weights that the fold starts from are not here.
    """
    held_out = [data.train_table.ids[row] for row in np.flatnonzero(data.is_scored & (data.fold_of_row == fold))]
    leaked: set[str] = set()
    first: tuple[Path, bool] | None = None
    for number, file in enumerate(_lineage(config, fold)):
        name = _training_of(file)
        trained = is_trained_on(file.parent.parent / "folds.csv", None if name is None else held_out_by(name))
        if found := {id for id in held_out if trained.get(id, False)}:
            leaked |= found
            first = first or (file, number == 0)
    return Leak(len(leaked), len(held_out), *first) if first else None


def _lineage(config: Namespace, fold: FoldId) -> Iterator[Path]:
    """The weights of swinft folds that a fold comes from: what it starts from, what that started from, and so on.

    It ends with weights of another kind, or with a run whose own start is no longer here.
    """
    file, seen = Path(str(pretrained_of(config, fold))).resolve(), set[Path]()
    while (
        file not in seen and (name := _training_of(file)) is not None and (file.parent.parent / "folds.csv").is_file()
    ):
        seen.add(file)
        yield file
        try:
            given = Run(file.parent.parent).read_config()["model"]["pretrained"]
            before = Namespace(model=Namespace(pretrained=given))  # type: ignore[no-untyped-call]
            file = Path(str(pretrained_of(before, name))).resolve()
        except GONE:
            return


def _training_of(file: Path) -> FoldId | None:
    """The training that a file of weights is of, by the name of its folder."""
    return read_fold_id(file.parent.name.removeprefix("fold_"))


def is_trained_on(folds: Path, fold: int | None) -> dict[str, bool]:
    """Whether a run's network of a fold, or of no fold for None, was trained on a row, by the row's id.

    Args:
        folds: The run's folds.csv.
        fold: Its number.
    """
    unseen = str(fold)
    trained = {row["id"]: row["fold"] != unseen for row in _lines(folds)}
    extra = _lines(folds.with_name("extra.csv"))
    return trained | {row["id"]: unseen not in row["left_out_of"].split() for row in extra}


def _lines(table: Path) -> list[dict[str, str]]:
    """The rows of one of a run's tables; none where it is not there."""
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
