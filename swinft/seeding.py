"""Random numbers for one use each: the numbers of one say nothing about those of another.

numpy's seeds are lists of numbers, of which trailing zeros do not count: without a word for each use, what row k draws
in epoch 0 would be what batch k mixes.
"""

import hashlib
from typing import Literal

import torch

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


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds torch's generators of the CPU and of one device, as `torch.manual_seed` does those of every kind of device.

    That notes down where it was called from for each kind that is not there: a millisecond, too much for every step.

    Args:
        device: The current one of its kind.
        seed: Of both.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
