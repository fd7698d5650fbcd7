"""Whole folders: one takes another's place when it is complete, and one that is deleted is gone at once."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swinft.errors import StoreError
from swinft.store import probe
from swinft.whole_files import flush


@contextmanager
def new_folder(folder: Path, what: str, advice: str = "") -> Iterator[Path]:
    """A hidden folder that takes the place of `folder` at the end of the block.

    A crash leaves the earlier folder, or none; `restore` puts it back if a crash came between both. The caller holds a
    lock.

    Args:
        folder: The final place.
        what: What will be written, for messages.
        advice: What to do if it cannot be written there.

    Raises:
        InputError: The folder is not writable.
        StoreError: The disk is full or not writable; what was there stays.
    """
    restore(folder)
    part, old = unfinished(folder), _beside(folder, "replaced")
    shutil.rmtree(part, ignore_errors=True)
    probe(part, what=what, advice=advice)
    try:
        part.mkdir(parents=True)
        yield part
        _flush_all(part)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        flush(folder.parent)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written: {error.strerror or error}. What was there stays. Free some space, or fix the "
            f"folder's permissions, and run the command again."
        ) from error
    finally:
        restore(folder)
        shutil.rmtree(part, ignore_errors=True)


def unfinished(folder: Path) -> Path:
    """What `new_folder` writes to before it takes the place of `folder`."""
    return _beside(folder, "unfinished")


def restore(folder: Path) -> None:
    """Puts back a folder that was about to be replaced when a process was killed, and deletes what was left beside it.

    Call it with the folder's lock, before asking whether the folder exists.
    """
    clear_deleted(folder)
    old = _beside(folder, "replaced")
    if old.is_dir() and folder.exists():
        delete_folder(old, of=folder)
    elif old.is_dir():
        old.rename(folder)


def hint_to_restore(folder: Path) -> str:
    """The end of an error about a folder that is missing, if `restore` would put it back; else empty."""
    old = _beside(folder, "replaced")
    if folder.exists() or not old.is_dir():
        return ""
    return f" A command was ended while it replaced it: the same command puts the earlier one back, which is in {old}."


def delete_folder(folder: Path, of: Path | None = None) -> None:
    """Deletes a folder. Renamed first: a partly deleted one might no longer be recognised as what it was, or put back.

    Args:
        folder: The folder.
        of: The one that it was, if it is an earlier one; by default itself.
    """
    clear_deleted(of or folder)
    folder.rename(_beside(of or folder, "overwritten"))
    clear_deleted(of or folder)


def clear_deleted(folder: Path) -> None:
    """Deletes what a killed `delete_folder` has left."""
    shutil.rmtree(_beside(folder, "overwritten"), ignore_errors=True)


def _beside(folder: Path, word: str) -> Path:
    return folder.with_name(f".{folder.name}.{word}")


def _flush_all(folder: Path) -> None:
    """Flushes all files and folders: some were copied there by other programs."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            flush(path)
    flush(folder)
