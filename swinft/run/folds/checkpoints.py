"""Finds the checkpoint from which a fold resumes, and refuses to restart a fold whose checkpoints are lost."""

import zipfile
from pathlib import Path

from swinft.errors import StoreError, number_of
from swinft.run.fold_files import Fold
from swinft.store import is_unrecorded, newest_intact, record_existing, verify


def newest_checkpoint(fold: Fold) -> Path | None:
    """The newest intact checkpoint; None for a fold that has trained no epoch yet.

    A checkpoint without a record, as in a copy without hidden files, is accepted if its internal checksums match, and
    gets a record.

    Raises:
        StoreError: The fold has trained before, and has no checkpoint to resume from.
    """
    for path in fold.root.glob("epoch-*.ckpt"):
        if is_unrecorded(path) and is_whole_checkpoint(path):
            record_existing(path, "swinft fit")
            print(f"{path} has no commit record, or a damaged one; its internal checksums match, so it is used")
    newest = newest_intact(fold.checkpoints)
    if newest is None:
        _refuse_lost_work(fold)
    return newest


def is_whole_checkpoint(path: Path) -> bool:
    """Whether a file is a torch checkpoint whose internal checksums match."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None and any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError):
        return False


def _refuse_lost_work(fold: Fold) -> None:
    """Refuses to train a fold from scratch that was trained before.

    Raises:
        StoreError: The folder has files that only a trained fold has.
    """
    left = [path for path in (*fold.root.glob("epoch-*.ckpt"), fold.result, fold.oof) if path.is_file()]
    reasons = [reason for path in (fold.weights, *left) if (reason := _problem(path))]
    # The first epoch's line is written before its checkpoint.
    epochs = fold.recorded_epochs()
    if left or epochs > 1:
        trained = f" over {number_of(epochs, 'epoch')}" if epochs else ""
        title = (
            f"{fold.root} was fitted before{trained}, and can neither be used nor resumed. Restore its files from "
            f"a copy, with the hidden folder .commits, or delete {fold.root} to fit it again:"
        )
        raise StoreError("\n  ".join([title, *reasons]))


def _problem(path: Path) -> str | None:
    try:
        verify(path)
    except StoreError as error:
        return str(error)
    return None
