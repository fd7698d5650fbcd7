"""Where a fold goes on: its newest whole checkpoint, and never the start where there was one."""

import zipfile
from pathlib import Path

from swinft.errors import StoreError, number_of
from swinft.run.layout import Fold
from swinft.store import is_unrecorded, newest_intact, record_existing, verify


def newest_checkpoint(fold: Fold) -> Path | None:
    """The checkpoint to go on from; None for a fold that has trained no epoch yet.

    A checkpoint without a record, as a copy without hidden files leaves it, is whole where the checksums inside it are
    right, and gets a record.

    Raises:
        StoreError: The fold has trained before, and nothing of it can be gone on from.
    """
    for path in fold.root.glob("epoch-*.ckpt"):
        if is_unrecorded(path) and is_whole_checkpoint(path):
            record_existing(path, "swinft fit")
            print(f"{path} has no commit record, or a damaged one; its own checksums are right, and it is used")
    newest = newest_intact(fold.checkpoints)
    if newest is None:
        _refuse_lost_work(fold)
    return newest


def is_whole_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of torch's whose parts have the checksums that it says."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None and any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError):
        return False


def _refuse_lost_work(fold: Fold) -> None:
    """Refuses to start from scratch what was trained before.

    Raises:
        StoreError: Files are there that only a trained fold has.
    """
    left = [path for path in (*fold.root.glob("epoch-*.ckpt"), fold.result, fold.oof) if path.is_file()]
    reasons = [reason for path in (fold.weights, *left) if (reason := _problem(path))]
    # The first epoch's line is written before its checkpoint.
    epochs = fold.recorded_epochs()
    if left or epochs > 1:
        trained = f" over {number_of(epochs, 'epoch')}" if epochs else ""
        title = (
            f"{fold.root} was fitted before{trained}, and can neither be used nor gone on with. Restore its files from "
            f"a copy, with the hidden folder .commits, or delete {fold.root} to fit it again:"
        )
        raise StoreError("\n  ".join([title, *reasons]))


def _problem(path: Path) -> str | None:
    try:
        verify(path)
    except StoreError as error:
        return str(error)
    return None
