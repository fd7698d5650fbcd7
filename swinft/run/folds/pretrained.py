"""Weights that a run starts from: which file each fold loads, and whether they have learnt from the rows it scores."""

import csv
import re
from pathlib import Path

import numpy as np
from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.errors import number_of
from swinft.model.backbones.timm_backbone import weights_file

FOLD = "{fold}"  # in model.pretrained: the fold's number


def pretrained_of(config: Namespace, fold: int) -> bool | str:
    """`model.pretrained` of a fold."""
    pretrained: bool | str = config.model.pretrained
    return pretrained.replace(FOLD, str(fold)) if isinstance(pretrained, str) else pretrained


def check_pretrained(config: Namespace) -> None:
    """Checks that every fold has its weights.

    Raises:
        InputError: A file is missing, or there are no weights to download.
    """
    one_each = FOLD in str(config.model.pretrained)
    for fold in range(config.data.folds.num or 1) if one_each else (0,):
        weights_file(config.model.backbone, pretrained_of(config, fold))


def note_of_leak(config: Namespace, data: CSVDataModule, fold: int) -> str | None:
    """A warning where a fold starts from weights of a swinft fold that learnt from rows held out now.

    Args:
        config: The config.
        data: Its rows.
        fold: The fold that is held out.
    """
    file = Path(str(pretrained_of(config, fold))).resolve()
    table, number = file.parent.parent / "folds.csv", re.fullmatch(r"fold_(\d+)", file.parent.name)
    if number is None or not table.is_file():
        return None
    with table.open(encoding="utf-8", newline="") as lines:
        fold_of = {row["id"]: row["fold"] for row in csv.DictReader(lines)}
    held_out = [data.train_table.ids[row] for row in np.flatnonzero(data.is_scored & (data.fold_of_row == fold))]
    learnt = sum(fold_of.get(id, number[1]) != number[1] for id in held_out)
    if not learnt:
        return None
    return (
        f"WARNING: {file} has learnt from {learnt} of the {number_of(len(held_out), 'row')} that fold {fold} "
        f"holds out, if their ids mean the same images: its score would be too good. Reuse that run's "
        f"folds (data.folds.file {table}) and write "
        f"fold_{FOLD} into model.pretrained: each fold then starts from its own."
    )
