"""Pretrained weights: which file each fold loads, and whether it was trained on the rows that the fold scores.

`model.pretrained` names a file, a fold's folder, or a run's folder; from a run, each fold loads the fold of its number.
"""

import csv
import re
from pathlib import Path

import numpy as np
from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, number_of
from swinft.model.backbones.timm_backbone import weights_file
from swinft.run.layout import Fold, Run

FOLD = "{fold}"  # placeholder in model.pretrained for the fold's number


def pretrained_of(config: Namespace, fold: int) -> bool | str:
    """`model.pretrained` of a fold: true, false, or a file.

    Raises:
        InputError: It is a folder without a fold's weights.
    """
    source = source_of(config, fold)
    if source is not None:
        return str(source.weights)
    pretrained: bool | str = config.model.pretrained
    return pretrained.replace(FOLD, str(fold)) if isinstance(pretrained, str) else pretrained


def source_of(config: Namespace, fold: int) -> Fold | None:
    """The finished fold of another run from which a fold starts; None if it starts from other weights.

    Raises:
        InputError: `model.pretrained` is a folder but not that of a run or fold, or the fold is not finished.
    """
    named = str(config.model.pretrained).replace(FOLD, str(fold))
    folder = Path(named)
    if not isinstance(config.model.pretrained, str) or not folder.is_dir():
        return None
    if Run.at(folder).is_run():
        run = Run.at(folder)
        if fold not in run.planned_folds():
            raise InputError(
                f"model.pretrained {named} has the folds {run.planned_folds()}, and no weights for fold {fold} of this "
                f"run. Use that run's folds (data.folds.file {run.folds}), or name one fold's folder: "
                f"{run.fold(0).root}."
            )
        found: Fold | None = run.fold(fold)
    else:
        number = re.fullmatch(r"fold_(\d+)", folder.resolve().name)
        found = Fold(folder, int(number[1])) if number else None
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
    for fold in range(config.data.folds.num or 1) if one_each else (0,):
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
        if counts := _count_leaked(config, data, fold):
            raise InputError(
                f"model.pretrained {pretrained}: its fold {fold} was trained on {counts[0]} of the "
                f"{number_of(counts[1], 'row')} that fold {fold} holds out here, by their ids: the score would be too "
                f"good. Use that run's folds: data.folds.file {Run.at(Path(pretrained)).folds}. If the ids name other "
                f"images, name the folders of its folds: model.pretrained {pretrained}/fold_{FOLD}."
            )


def note_of_leak(config: Namespace, data: CSVDataModule, fold: int) -> str | None:
    """A warning if a fold starts from weights of a swinft fold that was trained on rows held out now.

    Args:
        config: The config.
        data: Its rows.
        fold: The fold that is held out.
    """
    counts = _count_leaked(config, data, fold)
    if counts is None:
        return None
    file = Path(str(pretrained_of(config, fold))).resolve()
    return (
        f"WARNING: {file} was trained on {counts[0]} of the {number_of(counts[1], 'row')} that fold {fold} "
        f"holds out, if their ids mean the same images: its score would be too good. Reuse that run's "
        f"folds (data.folds.file {file.parent.parent / 'folds.csv'}) and write "
        f"fold_{FOLD} into model.pretrained: each fold then starts from the fold of its number."
    )


def _count_leaked(config: Namespace, data: CSVDataModule, fold: int) -> tuple[int, int] | None:
    """How many of a fold's held-out rows its weights were trained on, by their ids, and how many rows it holds out.

    None if there are no such rows, or if the weights are not those of a swinft fold.
    """
    file = Path(str(pretrained_of(config, fold))).resolve()
    table, number = file.parent.parent / "folds.csv", re.fullmatch(r"fold_(\d+)", file.parent.name)
    if number is None or not table.is_file():
        return None
    with table.open(encoding="utf-8", newline="") as lines:
        fold_of = {row["id"]: row["fold"] for row in csv.DictReader(lines)}
    held_out = [data.train_table.ids[row] for row in np.flatnonzero(data.is_scored & (data.fold_of_row == fold))]
    leaked = sum(fold_of.get(id, number[1]) != number[1] for id in held_out)
    return (leaked, len(held_out)) if leaked else None
