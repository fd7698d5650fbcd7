"""What turning images into 8 bits of RGB hides or loses, counted, with the rule that changes it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swinft.data.images.decode import ImageRules
from swinft.errors import number_of

FADED = 0.5  # share of the pixels; from here on most of an image is not what its colours say


def conversion_notes(records: Sequence[NDArray[np.void]], rules: ImageRules) -> list[str]:
    """One sentence for each thing that is hidden or lost in some images.

    Args:
        records: Of `index.RECORD`, of each split.
        rules: By which the images were decoded.
    """
    every = np.concatenate(records)
    usable = every[every["is_usable"]]
    notes = [_unused_bits(usable, int(bits)) for bits in np.unique(usable["bits"])]
    faded = int((usable["faded"] > FADED).sum())
    if faded and rules.transparency == "blend":
        notes.append(
            f"{_count(faded, len(usable))}: transparency hides or fades more than half of the pixels, with "
            f"{list(rules.background)} behind them. Where the band is something else, set "
            f"data.loading.image_rules.transparency to ignore."
        )
    dropped = int((usable["dropped_bands"] > 0).sum())
    if dropped:
        most = int(usable["dropped_bands"].max())
        notes.append(
            f"{_count(dropped, len(usable))}: {most} band{'s' * (most > 1)} that the file calls neither colour nor "
            f"transparency {'are' if most > 1 else 'is'} left out."
        )
    return [note for note in notes if note]


def _unused_bits(usable: NDArray[np.void], bits: int) -> str:
    """Whether the images of so many bits use fewer, most of them by far; empty where they do not."""
    counted = usable[(usable["bits"] == bits) & (usable["used_bits"] > 0)]
    used = counted["used_bits"]
    few = used <= bits - 2  # a quarter of white at most
    # One dark image among others is a dark image, and so are some photographs of 8 bits.
    is_rule = bool(few.all()) and 2 * len(counted) >= len(usable) if bits <= 8 else 2 * few.sum() >= len(counted)
    if not len(counted) or not is_rule:
        return ""
    most = int(used[few].max())
    return (
        f"{_count(int(few.sum()), len(usable))}: their samples use {most} of {bits} bits, so that they are dark. If "
        f"white is {2**most - 1} there, set data.loading.image_rules.bits to {most}."
    )


def _count(some: int, all_of: int) -> str:
    return f"{some:,} of {number_of(all_of, 'image')}"
