"""Pictures that occur more than once: found by their pixels and by how they look, named, and kept in one fold.

Shapes: N rows, G clusters.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from swinft.data.folds import Folds
from swinft.data.scan import HASH_SIDE, Seen

NUM_BITS = HASH_SIDE * HASH_SIDE
# Compressing at quality 20, halving the size or brightening by 20 levels changes up to 20 of 256 bits; the most alike
# of 500 different satellite tiles differ in 92.
NEAR_BITS = 32
BLOCK = 512  # rows compared with all others at once: against 100,000 rows this takes 0.6 GB
MOST_ROWS = 100_000  # comparing every pair takes a minute or two, and four times that for twice the rows
SHOWN = 20


def alike(files: Sequence[Seen]) -> NDArray[np.int64]:
    """Pairs of rows that show the same picture or nearly.

    Args:
        files: N files that were decoded.

    Returns:
        int64 (pairs, 3): two rows, the smaller first, and how many of 256 bits differ; −1 for the same pixels.
    """
    return np.concatenate([_same_pixels(files), _near(files)])


def clusters(pairs: NDArray[np.int64], num_rows: int, groups: Sequence[str] | None = None) -> list[str]:
    """A group for each row, such that rows of a pair, and rows of a group that was given, share one.

    Args:
        pairs: From `alike`.
        num_rows: N.
        groups: N names of groups that there are already.

    Returns:
        N names.
    """
    edges = [pairs[:, :2]]
    if groups is not None:
        first: dict[str, int] = {}
        edges.append(np.array([(first.setdefault(name, row), row) for row, name in enumerate(groups)]))
    joined = np.concatenate(edges)
    ones = (np.ones(len(joined)), (joined[:, 0], joined[:, 1]))
    graph = coo_array(ones, shape=(num_rows, num_rows))  # type: ignore[no-untyped-call]
    return [str(label) for label in connected_components(graph, directed=False)[1]]


def leaks(pairs: NDArray[np.int64], folds: Folds) -> NDArray[np.int64]:
    """The pairs whose rows are trained on in one fold and scored in another."""
    first, second = folds[pairs[:, 0]], folds[pairs[:, 1]]
    leaking: NDArray[np.int64] = pairs[first != second]
    return leaking


def describe(pairs: NDArray[np.int64], ids: Sequence[str], folds: Folds, targets: NDArray[Any]) -> list[str]:
    """What is worth knowing about pictures that occur under several ids: one line per cluster, leaks first.

    Args:
        pairs: From `alike`.
        ids: N ids.
        folds: Fold of each row.
        targets: Target of each row.
    """
    limit = [f"more than {MOST_ROWS:,} rows: pictures that look alike were not looked for, only equal ones."]
    limit *= len(ids) > MOST_ROWS
    if not len(pairs):
        return limit
    labels = np.array(clusters(pairs, len(ids)), dtype=np.int64)
    lines: dict[bool, list[str]] = {True: [], False: []}
    for label in np.unique(labels[pairs[:, 0]]):
        rows = np.flatnonzero(labels == label).tolist()
        bits = int(pairs[np.isin(pairs[:, 0], rows), 2].max())
        where = sorted(set(folds[rows].tolist()))
        is_leak = len(where) > 1
        place = f"in folds {where}, a leak in the out-of-fold score" if is_leak else f"all in fold {where[0]}"
        differ = "" if all(np.array_equal(targets[row], targets[rows[0]]) for row in rows) else "; their targets differ"
        what = "are the same picture" if bits < 0 else f"look alike (up to {bits} of {NUM_BITS} bits differ)"
        lines[is_leak].append(f"ids {', '.join(ids[row] for row in rows)} {what}, {place}{differ}.")
    notes = [*lines[True], *lines[False]]
    shown = limit + notes[:SHOWN] + [f"and {len(notes) - SHOWN:,} more such pictures."] * (len(notes) > SHOWN)
    fix = "`data.duplicates: group` keeps such rows in one fold."
    return [*shown, fix] if lines[True] else shown


def describe_shared(
    train: Sequence[Seen], ids: Sequence[str], test: Sequence[Seen], test_ids: Sequence[str]
) -> list[str]:
    """One line per picture to predict whose very pixels are among the training rows."""
    known = {seen.pixels: id for seen, id in zip(train, ids, strict=True) if seen.pixels}
    shared = [(id, known[seen.pixels]) for seen, id in zip(test, test_ids, strict=True) if seen.pixels in known]
    lines = [f"test id {id} is the same picture as training id {twin}." for id, twin in shared[:SHOWN]]
    return lines + [f"and {len(shared) - SHOWN:,} more test pictures are training pictures."] * (len(shared) > SHOWN)


def _same_pixels(files: Sequence[Seen]) -> NDArray[np.int64]:
    first: dict[str, int] = {}
    pairs = [(first.setdefault(seen.pixels, row), row, -1) for row, seen in enumerate(files) if seen.pixels]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], dtype=np.int64).reshape(-1, 3)


def _near(files: Sequence[Seen]) -> NDArray[np.int64]:
    """Pairs whose perceptual hashes differ in few bits, without those with the same pixels."""
    rows = np.array([row for row, seen in enumerate(files) if seen.perceptual], dtype=np.int64)
    if not 1 < len(rows) <= MOST_ROWS:
        return np.zeros((0, 3), dtype=np.int64)
    packed = b"".join(bytes.fromhex(files[row].perceptual) for row in rows)
    words = np.frombuffer(packed, dtype=np.uint64).reshape(len(rows), -1)  # (N, 4)
    found = []
    for start in range(0, len(rows), BLOCK):
        block = words[start : start + BLOCK]
        bits = np.zeros((len(block), len(words) - start), dtype=np.int16)
        for word in range(words.shape[1]):
            bits += np.bitwise_count(block[:, None, word] ^ words[None, start:, word])
        one, other = np.nonzero(bits <= NEAR_BITS)
        is_pair = one < other
        one, other = one[is_pair], other[is_pair]
        found.append(np.stack([rows[start + one], rows[start + other], bits[one, other]], axis=1))
    pairs = np.concatenate(found)
    pixels = np.array([seen.pixels for seen in files])
    others: NDArray[np.int64] = pairs[pixels[pairs[:, 0]] != pixels[pairs[:, 1]]]
    return others
