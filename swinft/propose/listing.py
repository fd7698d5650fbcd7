"""Lists a folder of data: its tables, and its images in groups of files whose names are built alike.

Folders with many sub-folders are sampled, so that hundreds of thousands of files take seconds.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from swinft.data.sources.archives import members
from swinft.data.sources.hdf5_objects import import_h5py
from swinft.errors import InputError

Container = Literal["files", "zip", "hdf5"]

IMAGES = frozenset(
    (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".npy", ".dcm")
)
MATRICES = frozenset((".parquet",))  # images where there are many of them, a table where there are few
TABLES = (".csv", ".tsv", ".csv.gz", ".csv.zip", ".csv.bz2", ".csv.xz", ".json", ".txt", ".list")
# Sub-folders with such names differ in what they are for; those with other names differ in a class or an id.
SPLITS = frozenset(
    "train training test testing valid validation val dev eval holdout unlabeled unlabelled".split()  # noqa: SIM905
)
CONTENTS = frozenset((
    "image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "jpeg", "jpegs", "jpg", "jpgs", "png",
    "pngs", "tiff", "dicom", "dicoms", "mask", "masks", "label", "labels", "annotation", "annotations", "roi", "rois",
    "box", "boxes", "crop", "crops", "thumbnail", "thumbnails", "segmentation", "segmentations", "metadata", "doc",
    "docs", "eeg", "eegs", "spectrogram", "spectrograms", "series", "extra", "data", "set", "v",
))  # fmt: skip
SKIPPED = ("__MACOSX", ".ipynb_checkpoints", "__pycache__")
MOST_FOLDERS, DEPTH = 400, 7  # sub-folders of one folder that are opened; levels
KEPT = 240  # names of a group that are kept
MOST_KEYS = 5000  # of an HDF5 file


@dataclass
class Group:
    """Files that are named alike: in one folder, or in sub-folders that differ by a class or an id.

    Args:
        folder: Their folder, relative to the root, with `*` for a sub-folder of any name; empty for the root.
        suffix: The end of their names, with its dot; empty where members of an HDF5 file have none.
        container: What holds them.
        count: How many there are; an estimate where `is_exact` is false.
        names: Some of their paths, relative to the root, evenly spread.
        folders: The sub-folders' names in place of the last `*`.
        is_exact: Whether every folder was opened.
        counts: How many files each of these sub-folders holds, as far as they were opened.
    """

    folder: str
    suffix: str
    container: Container = "files"
    count: int = 0
    names: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    is_exact: bool = True
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def pattern(self) -> str:
        """The group as text: `train/*/*.jpg`."""
        return f"{self.folder}/*{self.suffix}" if self.folder else f"*{self.suffix}"


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Args:
        root: The folder.
        groups: Its images.
        tables: Paths of files that may be tables, relative to the root.
        archives: Zip and tar files without images in them, and archives that are not read, relative to the root.
        problems: Files that cannot be read, one line each.
        num_files: How many files there are; at least so many where a folder was sampled.
    """

    root: Path
    groups: list[Group]
    tables: list[str]
    archives: list[str]
    problems: list[str]
    num_files: int


def list_folder(root: Path) -> Listing:
    """Lists a folder and what is inside its archives and HDF5 files.

    Raises:
        InputError: It is not a folder.
    """
    if not root.is_dir():
        what = "is a file: unpack it, and name the folder" if root.is_file() else "does not exist"
        raise InputError(f"--data {root} {what}.")
    walk = _Walk(root)
    groups = walk.folder("", 0)
    # A Parquet file at the top is a table; in a folder it is the image of a row.
    tables = [name for group in groups if group.suffix in MATRICES and not group.folder for name in group.names[:5]]
    groups = [group for group in groups if not (group.suffix in MATRICES and not group.folder)]
    return Listing(root, groups, sorted({*walk.tables, *tables}), walk.archives, walk.problems, walk.num_files)


class _Walk:
    """One pass over a folder; what it finds beside images is collected."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.tables: list[str] = []
        self.archives: list[str] = []
        self.problems: list[str] = []
        self.num_files = 0

    def folder(self, inside: str, depth: int) -> list[Group]:
        """The groups of a folder and of all folders in it."""
        try:
            with os.scandir(os.path.join(self.root, inside)) as entries:
                names = [(entry.name, entry.is_dir()) for entry in entries]
        except OSError as error:
            self.problems.append(f"{inside or self.root} cannot be read: {error.strerror}")
            return []
        names = sorted((name, is_dir) for name, is_dir in names if not name.startswith(".") and name not in SKIPPED)
        files = [name for name, is_dir in names if not is_dir]
        folders = [name for name, is_dir in names if is_dir]
        self.num_files += len(files)
        found = self._files(inside, files, depth)
        if depth < DEPTH and folders:
            opened = spread(folders, MOST_FOLDERS)
            found += merged(inside, [(name, self.folder(_join(inside, name), depth + 1)) for name in opened], folders)
        return found

    def _files(self, inside: str, files: list[str], depth: int) -> list[Group]:
        by_suffix: dict[str, list[str]] = {}
        for name in files:
            suffix = os.path.splitext(name)[1]
            by_suffix.setdefault(suffix, []).append(name)
        found = []
        for suffix, names in by_suffix.items():
            lower = suffix.lower()
            if lower in IMAGES or lower in MATRICES:
                paths = [_join(inside, name) for name in spread(names, KEPT)]
                found.append(Group(inside, suffix, "files", len(names), paths))
            elif lower in (".zip", ".tar", ".hdf5", ".h5", ".hdf"):
                for name in names[:50]:
                    if not name.lower().endswith(TABLES):
                        found += self._container(_join(inside, name), lower)
            elif lower in (".7z", ".rar"):
                self.archives += [_join(inside, name) for name in names[:50]]
                self.problems += [f"{_join(inside, name)}: not read: unpack it first" for name in names[:50]]
            if depth <= 3 and len(names) <= 50:
                self.tables += [_join(inside, name) for name in names if name.lower().endswith(TABLES)]
        return found

    def _container(self, path: str, suffix: str) -> list[Group]:
        """The images in a zip, tar or HDF5 file."""
        whole = os.path.join(self.root, path)
        try:
            found = list(_hdf5(whole, path)) if suffix.startswith(".h") else list(_archive(whole, path))
        except (InputError, OSError, ValueError) as error:
            self.problems.append(f"{path}: {error}")
            return []
        if not found:
            self.archives.append(path)
        return found


def _archive(whole: str, path: str) -> Iterator[Group]:
    for inner, listed in members(whole).items():
        if any(part.startswith(".") or part in SKIPPED for part in inner.split("/")):
            continue
        by_suffix: dict[str, list[str]] = {}
        for name in listed:
            by_suffix.setdefault(os.path.splitext(name)[1], []).append(name)
        for suffix, names in by_suffix.items():
            if suffix.lower() in IMAGES:
                folder = f"{path}/{inner}" if inner else path
                kept = [f"{folder}/{name}" for name in spread(sorted(names), KEPT)]
                yield Group(folder, suffix, "zip", len(names), kept)


def _hdf5(whole: str, path: str) -> Iterator[Group]:
    with import_h5py().File(whole, "r") as file:
        keys = list(islice(file, MOST_KEYS))
        are_arrays = [name for name in keys[:20] if hasattr(file[name], "shape")]
        if are_arrays and len(file) > 1 and len(file[are_arrays[0]].shape) <= 3:
            names = [f"{path}/{name}" for name in spread(keys, KEPT)]
            yield Group(path, "", "hdf5", len(file), names)


def merged(inside: str, children: list[tuple[str, list[Group]]], names: list[str]) -> list[Group]:
    """The groups of sub-folders, those of folders that differ by a class or an id as one.

    Args:
        inside: The folder that holds the sub-folders.
        children: Sub-folders that were opened, with their groups.
        names: All sub-folders.
    """
    with_groups = [(name, groups) for name, groups in children if groups]
    with_purpose = sum(has_purpose(name) for name, _ in with_groups)
    if len(with_groups) < 2 or with_purpose > 0.3 * len(with_groups):
        return [group for _, groups in with_groups for group in groups]
    scale = len(names) / len(children)
    together: dict[tuple[str, str], list[tuple[str, Group]]] = {}
    for name, groups in with_groups:
        for group in groups:
            rest = group.folder[len(_join(inside, name)) :]
            together.setdefault((_join(inside, "*") + rest, group.suffix), []).append((name, group))
    found = []
    for (folder, suffix), members_ in together.items():
        each = max(1, KEPT // len(members_))
        kept = spread([path for _, group in members_ for path in spread(group.names, each)], KEPT)
        known = names if scale > 1 and len(members_) > len(children) / 2 else [name for name, _ in members_]
        last = members_[0][1]
        folders = last.folders if "*" in last.folder[len(inside) :] and last.folders else known
        exact = scale == 1 and all(group.is_exact for _, group in members_)
        count = round(sum(group.count for _, group in members_) * scale)
        counts: dict[str, int] = {}
        for name, group in members_:
            for inner, number in (group.counts if folders is not known else {name: group.count}).items():
                counts[inner] = counts.get(inner, 0) + number
        found.append(Group(folder, suffix, last.container, count, kept, folders, exact, counts))
    return found


def has_purpose(folder: str) -> bool:
    """Whether a folder's name says what it is for, like `train_images`, and names no class."""
    words = re.findall("[a-z]+", folder.lower())
    return bool(words) and (bool(SPLITS & {*words}) or {*words} <= CONTENTS)


def spread(items: list[str], most: int) -> list[str]:
    """At most so many items, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[int((k + 0.5) * len(items) / most)] for k in range(most)]


def _join(inside: str, name: str) -> str:
    return f"{inside}/{name}" if inside else name
