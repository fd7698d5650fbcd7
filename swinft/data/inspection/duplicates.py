"""Duplicate images, found by pixel hash and perceptual hash: reported, or kept in one fold.

A cluster is a connected component: rows with equal or similar images, directly or through other rows.
Shapes: N rows. Time grows with N², memory with N.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from swinft.data.folds import Folds
from swinft.data.inspection.index import HASH_SIDE, ImageIndex
from swinft.data.inspection.scan import in_order
from swinft.errors import listed
from swinft.system.limits import available_cores

NUM_BITS = HASH_SIDE * HASH_SIDE
# JPEG quality 20, half the size or 20 levels more brightness change up to 28 of 256 bits; the two most similar of 500
# different satellite tiles differ in 92.
NEAR_BITS = 32
TILE = 256  # rows per block of the pairwise comparison
MAX_ROWS = 100_000  # comparing all pairs takes half a minute on two cores, and grows with the square
SHOWN = 10  # clusters and ids that are listed; the rest are counted


def find_duplicates(index: ImageIndex, is_used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The cluster of each row, labelled by its first row; unique rows are clusters of one.

    Blank images are never duplicates: being blank does not mean that they show the same thing.

    Args:
        index: Index of N images.
        is_used: Rows to compare, bool (N,); other rows link no clusters.

    Returns:
        int64 (N,).
    """
    records = index.records
    counts = is_used & records["is_usable"] & ~records["is_blank"]
    rows = np.flatnonzero(counts)
    labels = np.arange(len(index))
    if not len(rows):
        return labels
    _, first, codes = np.unique(records["pixels"][rows], axis=0, return_index=True, return_inverse=True)
    labels[rows] = rows[first[codes.ravel()]]  # np.unique is stable: the first row of each
    distinct = np.flatnonzero(counts & (labels == np.arange(len(index))) & ~records["is_flat"])
    if 1 < len(distinct) <= MAX_ROWS:
        linked = distinct[_linked(np.ascontiguousarray(records["perceptual"][distinct]))]
        labels[distinct] = linked
        labels[rows] = labels[labels[rows]]
    return labels


def _linked(codes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The first code of each code's cluster, linked by differences of at most `NEAR_BITS` bits.

    Only one block of the comparison per thread is in memory, and links within a cluster are dropped at once: a thousand
    frames of one camera have half a million pairs.

    Args:
        codes: Perceptual hashes, uint64 (N, 4).

    Returns:
        int64 (N,).
    """
    labels = np.arange(len(codes))

    def near(tile: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        row, column = tile
        block, others = codes[row : row + TILE], codes[column : column + TILE]
        # Half of the words decide nearly every pair: unrelated images differ in 64 ± 6 of 128 bits.
        is_near = _differing_bits(block[:, None, :2], others[None, :, :2]) <= NEAR_BITS
        if not is_near.any():
            return _NONE, _NONE
        is_near &= labels[row : row + TILE, None] != labels[None, column : column + TILE]
        one, other = np.nonzero(is_near)
        close = _differing_bits(block[one], others[other]) <= NEAR_BITS
        return row + one[close], column + other[close]

    tiles = [(row, column) for row in range(0, len(codes), TILE) for column in range(row, len(codes), TILE)]
    threads = available_cores()
    with ThreadPoolExecutor(threads) as pool:  # NumPy releases the GIL while it compares
        for one, other in in_order(pool, near, tiles, ahead=2 * threads):
            if len(one):
                labels = _joined(labels, labels[one], labels[other])
    return labels


_NONE: NDArray[np.int64] = np.zeros(0, dtype=np.int64)


def _differing_bits(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Number of differing bits of hashes (…, 4) that broadcast; word by word, to save memory."""
    bits: NDArray[np.int16] = np.bitwise_count(one[..., 0] ^ other[..., 0]).astype(np.int16)
    for word in range(1, one.shape[-1]):
        bits += np.bitwise_count(one[..., word] ^ other[..., word])
    return bits


def _joined(labels: NDArray[np.int64], one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels int64 (N,), each the smallest row of its cluster, after merging clusters `one` and `two` pairwise."""
    names, nodes = np.unique(np.concatenate([one, two]), return_inverse=True)
    edges = (np.ones(len(one), dtype=np.int8), (nodes[: len(one)], nodes[len(one) :]))
    graph = coo_array(edges, shape=(len(names), len(names)))  # type: ignore[no-untyped-call]
    parts = connected_components(graph, directed=False)[1]
    smallest = np.full(len(names), len(labels))
    np.minimum.at(smallest, parts, names)
    mapping = np.arange(len(labels))
    mapping[names] = smallest[parts]
    return mapping[labels]


def row_clusters(labels: NDArray[np.int64], files: NDArray[np.int64], index: ImageIndex) -> NDArray[np.int64]:
    """The cluster of each row of several images, named by its first row: rows with alike images hang together.

    Args:
        labels: Of M images, from `find_duplicates`.
        files: Which of them each row shows, int64 (N, V); −1 for none.
        index: What was found out about the images.

    Returns:
        int64 (N,).
    """
    own = np.arange(len(files))
    rows, slots = np.nonzero(files >= 0)
    images = files[rows, slots]
    counts = (index.records["is_usable"] & ~index.records["is_blank"])[images]
    rows, codes = rows[counts], labels[images[counts]]
    first = np.zeros(len(labels), dtype=np.int64)
    first[codes[::-1]] = rows[::-1]
    return _joined(own, rows, first[codes]) if len(rows) else own


def shared_images(
    labels: NDArray[np.int64], files: NDArray[np.int64], index: ImageIndex
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and their images of clusters that several rows share, one of a cluster for each row; and of blank images.

    What a row shows twice, or the slices of one body, is no news. Arguments as of `row_clusters`.
    """
    rows, slots = np.nonzero(files >= 0)
    images = files[rows, slots]
    _, first = np.unique(np.stack([rows, labels[images]]), axis=1, return_index=True)
    rows, images = rows[np.sort(first)], images[np.sort(first)]
    is_shared = np.bincount(labels[images], minlength=len(labels))[labels[images]] > 1
    kept = is_shared | index.records["is_blank"][images]
    return rows[kept], images[kept]


def cluster_groups(labels: NDArray[np.int64], groups: Sequence[str] | None = None) -> list[str]:
    """A group name for each row: rows of one cluster, or of one given group, get the same name.

    Args:
        labels: From `find_duplicates`.
        groups: N names of existing groups, or None.

    Returns:
        N names.
    """
    if groups is not None:
        first: dict[str, int] = {}
        named = np.array([first.setdefault(name, row) for row, name in enumerate(groups)], dtype=np.int64)
        labels = _joined(labels, labels, labels[named])
    return [str(label) for label in labels]


def fold_leaks(labels: NDArray[np.int64], folds: Folds) -> list[NDArray[np.int64]]:
    """The clusters with rows in more than one fold."""
    return [rows for rows in _members(labels) if (folds[rows] != folds[rows[0]]).any()]


def _members(labels: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows of each cluster with several rows, ordered by first row."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    several = ends - starts > 1
    return (order[start:end] for start, end in zip(starts[several], ends[several], strict=True))


def duplicate_notes(
    labels: NDArray[np.int64], index: ImageIndex, ids: Sequence[str], folds: Folds, targets: NDArray[Any]
) -> list[str]:
    """Notes on images that occur under several ids.

    Clusters in several folds come first, then those within a fold whose targets differ; the rest are counted.

    Args:
        labels: From `find_duplicates`.
        index: Index of N images.
        ids: N ids.
        folds: Fold of each row.
        targets: Target of each row.
    """
    notes, targets = _blank(index, ids), np.nan_to_num(targets, nan=np.inf)  # two missing ones are equal
    if len(ids) > MAX_ROWS:
        notes.append(f"more than {MAX_ROWS:,} rows: only equal images were searched for, not similar ones.")
    kinds: dict[str, list[NDArray[np.int64]]] = {"leak": [], "differ": [], "harmless": []}
    for rows in _members(labels):
        is_leak, differ = (folds[rows] != folds[rows[0]]).any(), (targets[rows] != targets[rows[0]]).any()
        kinds["leak" if is_leak else "differ" if differ else "harmless"].append(rows)
    for kind, shown in (("leak", SHOWN), ("differ", SHOWN), ("harmless", 1)):
        notes += [_sentence(rows, index, ids, folds, targets) for rows in kinds[kind][:shown]]
        rest = len(kinds[kind]) - shown
        where = "over several folds" if kind == "leak" else "within one fold"
        notes += [f"and {rest:,} more clusters of equal or similar images {where}."] * (rest > 0)
    if kinds["leak"]:
        notes.append("`data.folds.duplicates: group` keeps such rows in one fold.")
    return notes


def _sentence(
    rows: NDArray[np.int64], index: ImageIndex, ids: Sequence[str], folds: Folds, targets: NDArray[Any]
) -> str:
    """Describes one cluster."""
    records = index.records[rows]
    where = np.unique(folds[rows]).tolist()
    split = f"in folds {where}, a leak in the out-of-fold score" if len(where) > 1 else f"all in fold {where[0]}"
    differ = "; their targets differ" if (targets[rows] != targets[rows[0]]).any() else ""
    bits = _differing_bits(records["perceptual"], records["perceptual"][:1])
    furthest = int(bits.argmax())
    if (records["pixels"] == records["pixels"][0]).all():
        what = "are the same image"
    elif bits[furthest] <= NEAR_BITS:
        what = f"look alike (up to {bits[furthest]} of {NUM_BITS} bits differ)"
    else:
        what = (
            f"look alike in a chain: each differs from another in at most {NEAR_BITS} of {NUM_BITS} bits, "
            f"{ids[rows[0]]} and {ids[rows[furthest]]} in {bits[furthest]}"
        )
    return f"ids {listed([ids[row] for row in rows.tolist()])} {what}, {split}{differ}."


def _blank(index: ImageIndex, ids: Sequence[str]) -> list[str]:
    rows = np.flatnonzero(index.records["is_blank"]).tolist()
    if not rows:
        return []
    verb = "images are" if len(rows) > 1 else "image is"
    return [f"{len(rows):,} {verb} blank (one colour): ids {listed([ids[row] for row in rows])}."]


def test_duplicate_notes(train: ImageIndex, ids: Sequence[str], test: ImageIndex, test_ids: Sequence[str]) -> list[str]:
    """One line per image to predict whose exact pixels occur in a training image; blank images are left out."""
    seen = np.flatnonzero(train.records["is_usable"] & ~train.records["is_blank"]).tolist()
    known = {train.records["pixels"][row].tobytes(): row for row in reversed(seen)}
    candidates = np.flatnonzero(test.records["is_usable"] & ~test.records["is_blank"]).tolist()
    shared = [(row, known[code]) for row in candidates if (code := test.records["pixels"][row].tobytes()) in known]
    lines = [f"test id {test_ids[row]} is the same image as training id {ids[twin]}." for row, twin in shared[:SHOWN]]
    return lines + [f"and {len(shared) - SHOWN:,} more test images are training images."] * (len(shared) > SHOWN)
