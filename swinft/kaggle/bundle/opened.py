"""A bundle in a notebook: its files are compared with their SHA-256, and put in run folders as they were."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.errors import InputError, listed, number_of
from swinft.kaggle.bundle.contents import CODE, MANIFEST
from swinft.run.fold_files import BUNDLED
from swinft.run.layout import Run
from swinft.store import record_existing, sha256_of

FORMAT = 1  # of the manifest
LINKED = 1_000_000  # bytes from which on a file is linked, not copied
MAKER = "swinft bundle"


@dataclass(frozen=True)
class Bundle:
    """The runs of a bundle, in folders that can be written to.

    Args:
        folder: The folder of all of them.
        runs: Their names in the order in which they predict; those after which no other comes submit.
        submits: Those whose predictions are submitted, as a mean where they are several.
        modules: The user's modules that they need.
        views: Views of every run; None for those of its config.
        folds: Folds of every run; None for those that score rows.
    """

    folder: Path
    runs: list[str]
    submits: list[str]
    modules: list[str]
    views: list[str] | None = None
    folds: list[int | str] | None = None

    def run(self, name: str) -> Run:
        """One of its runs."""
        return Run.open(self.folder / name)


def open_bundle(folder: Path, into: Path) -> Bundle:
    """Makes run folders of a bundle's files, which may be read-only.

    Args:
        folder: The folder with `bundle.json`.
        into: A new folder for the runs; large files are links in it.

    Raises:
        InputError: It is no bundle, files are missing or have changed, or `into` is not new.
    """
    manifest = _manifest(folder)
    files = manifest["files"]
    _check(folder, files)
    if into.is_dir() and any(into.iterdir()):
        raise InputError(f"{into} is not empty: name a new folder for the runs.")
    for each in files:
        path, source = into / each["path"], folder / each["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if each["size"] >= LINKED:
            path.symlink_to(os.path.abspath(source))
        else:
            shutil.copyfile(source, path)  # not the permissions of a read-only file
        if each["producer"]:
            record_existing(path, each["producer"])
    for name in manifest["runs"]:
        path = into / name / BUNDLED
        path.write_text(json.dumps({"made_by": MAKER}))
        record_existing(path, MAKER)
    if (code := into / CODE).is_dir():
        sys.path.append(str(code))
        paths = [os.environ.get("PYTHONPATH", ""), str(code)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # of processes for several devices
    return Bundle(into, *(manifest[name] for name in ("runs", "submits", "modules", "views", "folds")))


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        there = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
        raise InputError(
            f"{folder} has no {MANIFEST}: no bundle of `swinft bundle`, or not all of it was uploaded. There is: "
            f"{listed(there) or 'nothing'}."
        )
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        is_known = found["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}. Upload the dataset again.") from None
    if not is_known:
        raise InputError(f"{path} is of another version of swinft: make the bundle again, and upload both datasets.")
    return found


def _check(folder: Path, files: list[dict[str, Any]]) -> None:
    """Compares all files with the manifest; nothing outside of the folder is read or written.

    Raises:
        InputError: Files are missing or have changed, or a path leads out of its folder.
    """
    problems = []
    for each in files:
        path, parts = folder / each["name"], Path(each["path"]).parts
        if Path(each["name"]).name != each["name"] or ".." in parts or Path(each["path"]).is_absolute():
            problems.append(f"{each['path']}: the path leaves the folder")
        elif not path.is_file():
            problems.append(f"{each['name']} is missing")
        elif path.stat().st_size != each["size"]:
            problems.append(f"{each['name']} has {path.stat().st_size:,} bytes instead of {each['size']:,}")
        elif sha256_of(path) != each["sha256"]:
            problems.append(f"{each['name']} has changed: its SHA-256 is not that of {MANIFEST}")
    if problems:
        found = number_of(len(problems), "file is", "files are")
        raise InputError(
            "\n  ".join([f"{found} not as `{MAKER}` wrote them to {folder}. Upload the dataset again:", *problems[:10]])
        )
