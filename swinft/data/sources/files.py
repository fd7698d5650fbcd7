"""Images as separate files: the default source."""

import os
from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from swinft.data.image_paths import Flaw, is_within
from swinft.data.sources.source import Source
from swinft.data.tables.csv_lines import missing_folder


class FileSource(Source):
    """Image files in folders.

    Args:
        follow_links: Allow links that lead out of the images' folder, as those of DVC, git-annex and the hub's cache. A
            cell's path may never leave the folder.
    """

    identity = ""  # a file's state is enough

    def __init__(self, follow_links: bool = False) -> None:
        self.follow_links = follow_links
        self._folders: dict[str, tuple[str, AbstractSet[str]]] = {}  # by path: its real path, and which names are links
        self._boundaries: dict[str, str] = {}  # real paths of folders that rows may not leave

    def __reduce__(self) -> tuple[type["FileSource"], tuple[bool]]:
        return FileSource, (self.follow_links,)

    def read(self, reference: str) -> bytes:
        """All bytes of a file."""
        with open(reference, "rb") as file:
            return file.read()

    def stat(self, reference: str) -> tuple[int, ...]:
        """The result of `state_of`."""
        return state_of(os.stat(reference))

    def names(self, folder: str) -> Collection[str] | None:
        """The files of a folder, listed once: one check per row would be slow on network disks."""
        if not os.path.isdir(folder):
            return None
        with os.scandir(folder) as entries:
            is_link = {entry.name: entry.is_symlink() for entry in entries if entry.is_file()}
        self._folders[folder] = os.path.realpath(folder), {name for name in is_link if is_link[name]}
        return is_link

    def missing(self, folder: str) -> str:
        """Which part of the folder's path is missing, and what exists instead."""
        if path := containing_file(folder):
            return f"{path} is a file: data.loading.source zip, or hdf5, reads the images in it."
        return missing_folder(Path(folder))

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """A link that leads out of the images' folder, unless that is allowed."""
        if self.follow_links:
            return None
        folder, name = os.path.split(reference)
        real, links = self._folders[folder]
        if inside not in self._boundaries:
            self._boundaries[inside] = os.path.realpath(inside)
        if is_within(os.path.realpath(reference) if name in links else real, self._boundaries[inside]):
            return None
        fix = f"If you trust the links, set data.loading.follow_links to true; or copy the file into {inside}."
        return Flaw("the path is a link that leaves the images' folder", fix)


class FewFiles(FileSource):
    """The same for a few rows: each file is looked for by its name, and a folder is listed only to explain an error."""

    def names(self, folder: str) -> Collection[str] | None:
        """The files of a folder, which may be many."""
        if not os.path.isdir(folder):
            return None
        self._folders[folder] = os.path.realpath(folder), _Links(folder)
        return _Files(folder, self)


class _Files(Collection[str]):
    """The files of a folder, not listed to find one."""

    def __init__(self, folder: str, source: FileSource) -> None:
        self._folder, self._source = folder, source

    def __contains__(self, name: object) -> bool:
        return os.path.isfile(os.path.join(self._folder, str(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(FileSource.names(self._source, self._folder) or ())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Links(AbstractSet[str]):
    """Names of the links in a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __contains__(self, name: object) -> bool:
        return os.path.islink(os.path.join(self._folder, str(name)))

    def __iter__(self) -> Iterator[str]:
        return (name for name in os.listdir(self._folder) if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def state_of(stat: os.stat_result) -> tuple[int, ...]:
    """A cheap fingerprint of a file: size, times of modification and change, inode, device.

    Links are followed. Programs cannot set the time of change, so a file that is replaced with the same size and time
    of modification, as archives and copies do, is still detected.
    """
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev


def containing_file(folder: str) -> str | None:
    """The file in a folder's path, if a part of it is a file; else None."""
    while not os.path.isfile(folder):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return folder


FILES = FileSource()
