"""Random numbers for one use each: the numbers of one say nothing about those of another.

numpy's seeds are lists of numbers, of which trailing zeros do not count: without a word for each use, what row k draws
in epoch 0 would be what batch k mixes.
"""

import hashlib
from typing import Literal

Use = Literal["order", "augmentation", "mixing", "dropout"]


def seed_for(use: Use, seed: int, fold: int = 0) -> int:
    """The seed of one use of random numbers in one fold.

    Args:
        use: What they are for.
        seed: Of the run.
        fold: Whose numbers they are; folds draw independently of one another.

    Returns:
        A number of 63 bits, the uppermost of them set: as a seed it takes the same place whatever it is.
    """
    digest = hashlib.blake2b(f"{use} {seed} {fold}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 2 | 1 << 62
