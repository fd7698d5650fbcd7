"""Independent random seeds for each use: data order, augmentation, mixing, dropout.

numpy ignores trailing zeros in a list of seeds. Without the name of the use in the seed, the augmentation of row k in
epoch 0 and the mixing of batch k would draw the same numbers.
"""

import hashlib
from typing import Literal

import torch

Use = Literal["order", "augmentation", "mixing", "dropout", "resampling", "search", "few rows"]


def seed_for(use: Use, seed: int, fold: int = 0) -> int:
    """The seed of one use of random numbers in one fold.

    Args:
        use: What the numbers are for.
        seed: Seed of the run.
        fold: Number of the fold; folds draw independently of one another.

    Returns:
        A number of 63 bits with the highest bit set, so that every seed has the same number of words in numpy.
    """
    digest = hashlib.blake2b(f"{use} {seed} {fold}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 2 | 1 << 62


def seed_generators(device: torch.device, seed: int) -> None:
    """Seeds torch's generators of the CPU and of one device.

    `torch.manual_seed` seeds all kinds of device, and records a stack trace for each that is absent. That takes a
    millisecond, too long for every step.

    Args:
        device: The current device of its type.
        seed: Seed of both generators.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
