"""A small segmentation competition on disk: bright discs on dark noise."""

import numpy as np
from PIL import Image

from swinft.data.masks.rle import encode, text_of

SIZE = (40, 52)


def disc(number, size=SIZE):
    """A disc whose place and size depend on the number; every sixth mask is empty."""
    y, x = np.mgrid[: size[0], : size[1]]
    radius = 0 if number % 6 == 5 else 6 + number % 5
    return (y - 12 - number % 16) ** 2 + (x - 14 - 3 * number % 24) ** 2 < radius**2


def bright_disc(mask, rng):
    """Dark noise, with a bright disc where the mask is."""
    pixels = rng.normal(60, 12, (*mask.shape, 3)) + 120 * mask[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_salt(root, num_train=18, num_test=4, size=SIZE):
    """The folder of a segmentation competition: images, mask files, run-length encoding in train.csv."""
    rng = np.random.default_rng(0)
    lines = []
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(num_train):
        mask, id = disc(i, size), f"{i:03d}"
        bright_disc(mask, rng).save(root / "images" / f"{id}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / f"{id}.png")
        lines.append(f"{id},{text_of(encode(mask))},{text_of(encode(mask, 'rows'))}")
    (root / "train.csv").write_text("id,rle_mask,by_rows\n" + "\n".join(lines) + "\n")
    ids = [f"t{i}" for i in range(num_test)][::-1]
    for i, id in enumerate(ids):
        bright_disc(disc(i + 2, (44, 36)), rng).save(root / "images" / f"{id}.png")
    (root / "sample_submission.csv").write_text("id,rle_mask\n" + "".join(f"{id},1 1\n" for id in ids))
    return root
