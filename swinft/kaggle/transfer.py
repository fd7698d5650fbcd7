"""Downloads one file: into a part file, which a later call continues, with its size checked and its SHA-256."""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from swinft.errors import InputError, RunError, StoreError
from swinft.kaggle.client import Client
from swinft.kaggle.failures import is_transient, seconds_to_wait
from swinft.printing import format_brief
from swinft.store import json_bytes, replace
from swinft.system.limits import format_bytes
from swinft.system.live import LiveLine
from swinft.system.status import Status

ATTEMPTS = 5  # in a row without a byte
CHUNK = 1 << 20
SPARE = 100_000_000  # bytes that stay free on the disk
sleep = time.sleep


@dataclass(frozen=True)
class Remote:
    """A file as Kaggle serves it.

    Args:
        name: Its name; of all files of a competition, that of the zip. Large single files come as `name.zip`.
        size: Bytes; None if the server does not say.
        validator: What changes when the file does: its ETag or date; empty if the server names none.
    """

    name: str
    size: int | None
    validator: str

    @classmethod
    def of(cls, answer: Any) -> "Remote":
        """Reads an answer's headers.

        Raises:
            RunError: The answer is a page, such as that of a network's login, and not a file.
        """
        headers = answer.headers
        name = unquote(urlsplit(answer.url).path).rpartition("/")[2]
        if "text/html" in headers.get("Content-Type", "") and not name.endswith((".html", ".htm")):
            answer.close()
            raise RunError("the answer is a web page and not the file: a proxy or a network's login may stand between.")
        is_plain = headers.get("Content-Encoding", "identity") == "identity"
        length = headers.get("Content-Length", "")
        tag = headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
        return cls(name, int(length) if is_plain and length.isdigit() else None, validator if is_plain else "")


@dataclass(frozen=True)
class Transferred:
    """A file that is here as a whole.

    Args:
        path: The part file.
        remote: The file at Kaggle.
        size: Its bytes.
        sha256: Its SHA-256.
    """

    path: Path
    remote: Remote
    size: int
    sha256: str


class Transfer:
    """The download of one file into a part file.

    Args:
        client: The connection.
        slug: The competition.
        file: One file of it; None for all files, as a zip.
        folder: Folder of the part file.
    """

    def __init__(self, client: Client, slug: str, file: str | None, folder: Path) -> None:
        self._client, self._slug, self._file = client, slug, file
        key = hashlib.sha256(f"{slug}/{file or ''}".encode()).hexdigest()[:12]
        self.part, self._state = folder / f"{key}.part", folder / f"{key}.json"

    def remote(self) -> Remote:
        """The file as Kaggle serves it now; nothing is downloaded."""
        answer = self._client.open_download(self._slug, self._file)
        answer.close()
        return Remote.of(answer)

    def run(self) -> Transferred:
        """Downloads the file, or what is missing of it.

        Raises:
            InputError: The rules are not accepted, there is no such file, or it needs more space than there is.
            RunError: The connection was lost too often; the next call continues.
            StoreError: The disk is full or not writable.
        """
        attempt = 0
        while True:
            before = self._size()
            try:
                return self._attempt()
            except KeyboardInterrupt:
                print(f"\n{format_bytes(self._size())} are kept: the same command continues", file=sys.stderr)
                raise
            except Exception as error:
                attempt = 0 if self._size() > before else attempt + 1
                if isinstance(error, InputError | RunError) or not is_transient(error) or attempt == ATTEMPTS:
                    raise self._failed(error) from (error.__cause__ or error)
                wait = seconds_to_wait(error, attempt)
                print(
                    f"the connection was lost at {format_bytes(self._size())}; again in {wait:.0f} s", file=sys.stderr
                )
                sleep(wait)

    def take(self, path: Path, remote: Remote) -> None:
        """Uses a whole file that is here already as the part file: `run` finds nothing to download."""
        self._keep_state(remote)
        path.replace(self.part)

    def done(self) -> None:
        """Deletes the part file and its state, when the file is in its place."""
        self.part.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def _failed(self, error: Exception) -> Exception:
        """The error to raise, which says whether anything is kept."""
        failed = self._client.explained(error, f"download {self._file or 'the data'}", self._slug)
        if not isinstance(failed, RunError) or not self._size():
            return failed
        return RunError(f"{failed} {format_bytes(self._size())} are kept: the same command continues.")

    def _attempt(self) -> Transferred:
        """One connection: all of the file, or the rest of it."""
        answer = self._client.open_download(self._slug, self._file)
        remote = Remote.of(answer)
        first = self._kept(remote)
        check_space(self.part.parent, (remote.size or 0) - first)
        if first and first == remote.size:
            answer.close()
        elif first:
            answer = self._client.continue_download(answer, first, remote.validator)
            if answer.status_code != 206 or not _starts_at(answer, first):
                first = 0  # it has changed, or the server ignores the range
            if answer.status_code == 416:
                answer.close()
                answer = self._client.open_download(self._slug, self._file)
            answer.raise_for_status()
        if first == 0:
            self._keep_state(remote)
        digest = self._write(answer, remote, first)
        size = self._size()
        if remote.size is not None and size != remote.size:
            self.part.unlink()
            raise RunError(f"{remote.name} has {size:,} bytes here and {remote.size:,} at Kaggle. Download it again.")
        return Transferred(self.part, remote, size, digest)

    def _keep_state(self, remote: Remote) -> None:
        """Writes down of which file the part file is."""
        replace(self._state, json_bytes({"size": remote.size, "validator": remote.validator}))

    def _kept(self, remote: Remote) -> int:
        """How many bytes of the part file belong to the file as it is now."""
        try:
            state = json.loads(self._state.read_bytes())
            same = state == {"size": remote.size, "validator": remote.validator} and remote.validator
            size = self.part.stat().st_size
        except (OSError, ValueError):
            return 0
        return size if same and remote.size is not None and size <= remote.size else 0

    def _write(self, answer: Any, remote: Remote, first: int) -> str:
        """Writes an answer's bytes behind the `first` ones, and returns the SHA-256 of the file."""
        digest, started, live = hashlib.sha256(), time.monotonic(), LiveLine()
        try:
            with self.part.open("r+b" if first else "wb") as file:
                for _ in range(0, first, CHUNK):
                    digest.update(file.read(min(CHUNK, first - file.tell())))
                if first == remote.size and first:
                    return digest.hexdigest()
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    live.show(Status(_progress(remote, file.tell(), first, time.monotonic() - started)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(
                    f"the disk of {self.part.parent} is full at {format_bytes(self._size())}. Free some space."
                ) from error
            raise
        finally:
            live.clear()
            answer.close()
        return digest.hexdigest()

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0


def check_space(folder: Path, needed: int) -> None:
    """Checks that the disk has room.

    Raises:
        InputError: It has not.
    """
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    if needed + SPARE > free and needed > 0:
        raise InputError(
            f"{folder} has {format_bytes(free)} free, and {format_bytes(needed)} are needed. Free some space, or "
            f"choose another folder with --output."
        )


def _starts_at(answer: Any, first: int) -> bool:
    """Whether a partial answer is the part that was asked for."""
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == first


def _progress(remote: Remote, size: int, first: int, seconds: float) -> str:
    """`data.zip  1.20 GB of 5.10 GB, 23.4 MB/s, 2m 47s left`."""
    rate = (size - first) / max(seconds, 1e-3)
    if remote.size is None:
        return f"{remote.name}  {format_bytes(size)}, {format_bytes(rate)}/s"
    left = format_brief((remote.size - size) / max(rate, 1), is_rough=True)
    return f"{remote.name}  {format_bytes(size)} of {format_bytes(remote.size)}, {format_bytes(rate)}/s, {left} left"
