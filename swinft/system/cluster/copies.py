"""Copies of the data on the nodes of a cluster: `--copy-data FOLDER`.

Each node gets every file of the data's folder once, from this command, compared by SHA-256. A copy is named by its
content: other runs and other folds on the node use it again.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from swinft.errors import InputError, number_of
from swinft.system.limits import format_bytes

COPY = "SWINFT_COPY_DATA"  # environment variable of a child: the list of files, and the folder on its node
BATCH_BYTES = 8 * 1024**2  # that are sent to a node at a time
Listed = dict[str, tuple[int, str]]  # size and SHA-256 of each file, by its path in the folder


def list_data(root: Path, folder: str, listing: Path) -> tuple[str, dict[str, str]]:
    """Lists the files of the data's folder for the nodes.

    Args:
        root: The data's folder.
        folder: Folder of the copies on every node.
        listing: Where the list is written.

    Returns:
        The folder of this copy on every node, and the environment variable of a child that needs it.

    Raises:
        InputError: A file cannot be read, or the folder is relative.
    """
    if not os.path.isabs(folder):
        raise InputError(f"--copy-data is '{folder}': give the whole path of a folder on the nodes, such as /scratch.")
    if not root.is_dir():
        raise InputError(f"--copy-data copies data.root, and there is no folder {root}.")
    found = [Path(at) / name for at, _, names in os.walk(root, followlinks=True) for name in names]
    names = sorted(str(path.relative_to(root)) for path in found)
    try:
        with ThreadPoolExecutor() as threads:
            files: Listed = dict(zip(names, threads.map(lambda name: _measured(root / name), names), strict=True))
    except OSError as error:
        raise InputError(f"--copy-data: {error.filename} cannot be read: {error.strerror}.") from error
    text = json.dumps(files)
    to = os.path.join(folder, f"swinft-data-{hashlib.sha256(text.encode()).hexdigest()[:16]}")
    listing.write_text(json.dumps({"root": str(root.absolute()), "to": to, "files": files}))
    size = format_bytes(sum(size for size, _ in files.values()))
    print(f"data: {number_of(len(files), 'file')}, {size}, copied once to {to} on every node")
    return to, {COPY: str(listing.absolute())}


def batches(root: Path, files: list[str]) -> Iterator[list[tuple[str, int, bytes]]]:
    """The content of files, as path, offset and bytes, in parts of at most `BATCH_BYTES`."""
    batch: list[tuple[str, int, bytes]] = []
    size = 0
    for name in files:
        with (root / name).open("rb") as file:
            offset = 0
            while (content := file.read(BATCH_BYTES - size)) or not offset:
                batch.append((name, offset, content))
                offset, size = offset + len(content), size + len(content)
                if size >= BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
                if not content:
                    break
    if batch:
        yield batch


def read_listing(environment: dict[str, str]) -> dict[str, Any] | None:
    """The list of files that a child's environment names; None if it needs no copy."""
    if COPY not in environment:
        return None
    return dict(json.loads(Path(environment[COPY]).read_text()))


def _measured(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
