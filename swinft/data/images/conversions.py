"""Notes on information lost in the conversion to 8-bit RGB, with the option that changes it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swinft.data.images.rules import KEY, ImageRules
from swinft.errors import number_of

FADED = 0.5  # fraction of partly transparent pixels from which an image is counted


def conversion_notes(records: Sequence[NDArray[np.void]], rules: ImageRules) -> list[str]:
    """One sentence for each kind of loss that affects some images.

    Args:
        records: Arrays of `index.RECORD`, one per split.
        rules: The rules by which the images were decoded.
    """
    every = np.concatenate(records)
    usable = every[every["is_usable"]]
    notes = [_unused_bits(usable, int(bits)) for bits in np.unique(usable["bits"])]
    if rules.keep:
        notes.append(_cut(usable, rules))
    faded = int((usable["altered"] > FADED).sum())
    if faded and rules.transparency == "blend" and not rules.keep:
        notes.append(
            f"{_count(faded, len(usable))}: transparency hides or fades more than half of the pixels, with "
            f"{list(rules.background)} behind them. If the fourth band is something else, set "
            f"data.loading.image_rules.transparency to ignore."
        )
    dropped = int((usable["dropped_bands"] > 0).sum())
    if dropped:
        most = int(usable["dropped_bands"].max())
        notes.append(
            f"{_count(dropped, len(usable))}: {most} band{'s' * (most > 1)} that the file declares neither colour nor "
            f"transparency {'are' if most > 1 else 'is'} ignored."
        )
    return [note for note in notes if note]


def _cut(usable: NDArray[np.void], rules: ImageRules) -> str:
    """A sentence if samples lie outside of the range that is kept; else empty."""
    cut = usable["altered"] > 0
    if rules.range is None or not cut.any():
        return ""
    most = float(usable["altered"].max())
    return (
        f"{_count(int(cut.sum()), len(usable))}: up to {most:.2g} of their samples lie outside of {KEY}.range, "
        f"{[*rules.range]}, and are cut to it."
    )


def _unused_bits(usable: NDArray[np.void], bits: int) -> str:
    """A sentence if most images of this bit depth use far fewer bits; else empty."""
    counted = usable[(usable["bits"] == bits) & (usable["used_bits"] > 0)]
    used = counted["used_bits"]
    few = used <= bits - 2  # at most a quarter of white
    # A single dark image is just dark, and so are some 8-bit photographs.
    is_rule = bool(few.all()) and 2 * len(counted) >= len(usable) if bits <= 8 else 2 * few.sum() >= len(counted)
    if not len(counted) or not is_rule:
        return ""
    most = int(used[few].max())
    return (
        f"{_count(int(few.sum()), len(usable))}: their samples use {most} of {bits} bits, so they are dark. If "
        f"white is {2**most - 1} in them, set data.loading.image_rules.bits to {most}."
    )


def _count(some: int, all_of: int) -> str:
    return f"{some:,} of {number_of(all_of, 'image')}"
