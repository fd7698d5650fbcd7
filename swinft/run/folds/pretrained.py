"""Pretrained weights: which file each fold loads, and whether it was trained on the rows that the fold scores.

`model.pretrained` names a file, a fold's folder, or a run's folder; from a run, each fold loads the fold of its number.
"""

import csv
from pathlib import Path

import numpy as np
from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, number_of
from swinft.model.backbones.timm_backbone import weights_file
from swinft.run.fold_files import ALL, Fold, FoldId, held_out_by, read_fold_id
from swinft.run.layout import Run

FOLD = "{fold}"  # placeholder in model.pretrained for the fold's number


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


def check_pretrained(config: Namespace) -> None:
    """Checks that every fold has its weights.

    Raises:
        InputError: A file is missing, or the backbone has no weights to download.
    """
    one_each = FOLD in str(config.model.pretrained) or Path(str(config.model.pretrained)).is_dir()
    several: list[FoldId] = [*range(config.data.folds.num or 1), *([ALL] * config.data.folds.all)]
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
        if counts := count_leaked(config, data, fold):
            raise InputError(
                f"model.pretrained {pretrained}: its fold {fold} was trained on {counts[0]} of the "
                f"{number_of(counts[1], 'row')} that fold {fold} holds out here, by their ids: the score would be too "
                f"good. Use that run's folds: data.folds.file {Run.at(Path(pretrained)).folds}. If the ids name other "
                f"images, name the folders of its folds: model.pretrained {pretrained}/fold_{FOLD}."
            )


def note_of_leak(config: Namespace, data: CSVDataModule, fold: Fold) -> str | None:
    """A warning if a fold starts from weights of a swinft fold that was trained on rows held out now.

    Args:
        config: The config.
        data: Its rows.
        fold: The fold that is held out.
    """
    counts = None if fold.held_out is None else count_leaked(config, data, fold.held_out)
    if counts is None:
        return None
    file = Path(str(pretrained_of(config, fold.index))).resolve()
    return (
        f"WARNING: {file} was trained on {counts[0]} of the {number_of(counts[1], 'row')} that fold "
        f"{fold.held_out} holds out, if their ids mean the same images: its score would be too good. Reuse that run's "
        f"folds (data.folds.file {file.parent.parent / 'folds.csv'}) and write "
        f"fold_{FOLD} into model.pretrained: each fold then starts from the fold of its number."
    )


def count_leaked(config: Namespace, data: CSVDataModule, fold: int) -> tuple[int, int] | None:
    """How many of a fold's held-out rows its weights were trained on, by their ids, and how many rows it holds out.

    None if there are no such rows, or if the weights are not those of a swinft fold.
    """
    file = Path(str(pretrained_of(config, fold))).resolve()
    table, name = file.parent.parent / "folds.csv", read_fold_id(file.parent.name.removeprefix("fold_"))
    if name is None or not table.is_file():
        return None
    trained = is_trained_on(table, held_out_by(name))
    held_out = [data.train_table.ids[row] for row in np.flatnonzero(data.is_scored & (data.fold_of_row == fold))]
    leaked = sum(trained.get(id, False) for id in held_out)
    return (leaked, len(held_out)) if leaked else None


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
