"""Whole files: written beside their place, flushed to disk, then renamed, so that none is ever there by half."""

import hashlib
import io
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from swinft.errors import StoreError

Content = bytes | Callable[[IO[bytes]], None]  # the bytes, or a function that writes them to an open binary file
MOVED = r"\.moved"  # in the name of the file that `probe` renames
OWNER = r"\.(\d+)(?:@(.+))?\.tmp"  # how names of temporary files end: process and machine
ABANDONED_SECONDS = 3600.0  # a temporary file of another machine that was not written to for so long is deleted


def write_beside(path: Path, content: Content) -> tuple[Path, str]:
    """Writes and flushes a temporary file beside `path`; returns it with its SHA-256.

    What killed processes have left of the same file is deleted.
    """
    _make_folder(path.parent)
    clear_left(path.parent, name=f"{re.escape(path.name)}(?:{MOVED})?")
    # In the same folder: a rename across file systems is a copy, which is not atomic.
    temporary = path.with_name(f".{path.name}.{own_suffix()}")
    try:
        with temporary.open("wb") as file:
            hashing = Hashing(file)
            try:
                if isinstance(content, bytes):
                    hashing.write(content)
                else:
                    content(cast(IO[bytes], hashing))
            except Exception as error:
                first = error.__context__  # torch.save raises an error of its own after that of a full disk or a signal
                raise hashing.error or (error if isinstance(first, Exception | None) else first) from None
            file.flush()
            os.fsync(file.fileno())
        return temporary, hashing.digest.hexdigest()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Hashing(io.RawIOBase):
    """Writes to a file, hashes what is written, and remembers an error, of a full disk or a signal."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: BaseException | None = None

    def writable(self) -> bool:
        """It is only written to."""
        return True

    def write(self, content: Any) -> int:
        """Writes and hashes."""
        try:
            self.digest.update(content)
            return self.file.write(content)
        except BaseException as error:
            self.error = error
            raise


def move(temporary: Path, path: Path) -> None:
    """Renames, and flushes the folder, so that the new name survives a crash."""
    temporary.replace(path)
    flush(path.parent)


def put(path: Path, temporary: Path) -> None:
    """Moves a temporary file to its place, or deletes it if that fails."""
    try:
        move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _make_folder(folder: Path) -> None:
    """Creates a folder with its parents, and flushes them."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        flush(each.parent)


def flush(path: Path) -> None:
    """Flushes a folder's entries, or a file that another program has written, to disk."""
    if hasattr(os, "O_DIRECTORY"):  # Windows can neither open nor flush a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_together(
    files: Mapping[Path, Content], last: Path, describe: Callable[[Mapping[Path, str]], bytes]
) -> None:
    """Writes files outside a run, and a last one that describes them.

    All of them are on disk before the first one is replaced, and the last one is missing until the others are there.
    What a crash leaves is remembered, for `is_left`.

    Args:
        files: Paths in one folder, with their content.
        last: The path of the description, in the same folder.
        describe: Makes it of the SHA-256 of each file.

    Raises:
        StoreError: The disk is full or not writable.
    """
    written: dict[Path, Path] = {}
    digests: dict[Path, str] = {}
    try:
        for path, content in files.items():
            written[path], digests[path] = write_beside(path, content)
        written[last] = write_beside(last, describe(digests))[0]
        known = {path.name: [_signature(path), _signature(temporary)] for path, temporary in written.items()}
        put(_journal(last), write_beside(_journal(last), json.dumps(known).encode())[0])
        last.unlink(missing_ok=True)
        flush(last.parent)
        for path, temporary in written.items():
            move(temporary, path)
        _journal(last).unlink()
    except OSError as error:
        raise StoreError(
            f"{', '.join(map(str, (*files, last)))} cannot be written: {error.strerror or error}. Free some space, or "
            f"fix the folder's permissions, and run the command again."
        ) from error
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def is_left(path: Path, last: Path) -> bool:
    """Whether `path` is as a `replace_together` that was interrupted has left it.

    Args:
        path: One of the files.
        last: The one that describes the others.
    """
    try:
        known = json.loads(_journal(last).read_bytes())[path.name]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return path.is_file() and _signature(path) in known


def _journal(last: Path) -> Path:
    return last.with_name(f".{last.name}.unfinished")


def _signature(path: Path) -> list[int] | None:
    """Size and time of a file: renaming does not change them."""
    if not path.is_file():
        return None
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def is_temporary(name: str) -> bool:
    """Whether a file's name is that of an unfinished commit."""
    return name.startswith(".") and name.endswith(".tmp")


def clear_left(*folders: Path, name: str = ".*") -> None:
    """Deletes temporary files that writes of dead processes left in folders.

    Args:
        folders: The folders; those that do not exist are skipped.
        name: Pattern of the names of the files that were written.
    """
    pattern = re.compile(rf"\.{name}{OWNER}", re.DOTALL)
    for folder in folders:
        for entry in os.scandir(folder) if folder.is_dir() else ():
            if found := pattern.fullmatch(entry.name):
                _delete_if_left(Path(entry.path), *found.groups())


def _delete_if_left(path: Path, pid: str, host: str | None) -> None:
    if is_abandoned(path) if host not in (None, socket.gethostname()) else not _is_running(int(pid)):
        path.unlink(missing_ok=True)


def own_suffix() -> str:
    """The end of the names of this process's temporary files, in folders that machines may share: ids recur there."""
    return f"{os.getpid()}@{socket.gethostname()}.tmp"


def is_abandoned(path: Path) -> bool:
    """Whether a temporary file of another machine, whose processes cannot be asked for, is one that nobody writes."""
    with suppress(FileNotFoundError):  # it is finished
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        pass
    return True


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
