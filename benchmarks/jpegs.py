"""Writes JPEGs of a competition's typical size, in folds.

The demo's satellite tiles are enlarged to 500 × 375 pixels with fine texture, so that file size and decoding time are
those of a photograph. Folds share no tile.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

TILES = Path(__file__).parent.parent / "competitions" / "bluemarble"
WIDTH, HEIGHT = 500, 375
QUALITY = 90
# Grain in grey levels at one and at two pixels: it increases the file from 15 KB to the 70 KB of a photo.
FINE, COARSE = 6.5, 7.0


def make_table(root: Path, rows: list[int]) -> None:
    """Writes `train.csv` (id, image, climate), `folds.csv` (id, fold), and the JPEGs `fold_<fold>/<climate>/<id>.jpg`.

    Args:
        root: Output folder.
        rows: Number of rows of each fold.
    """
    table = []
    for fold, tiles in enumerate(_tiles(rows)):
        for row in range(rows[fold]):
            tile = tiles.iloc[row % len(tiles)]
            name = f"f{fold}-{row}-{tile['id']}"
            image = Path(f"fold_{fold}") / tile["climate"] / f"{name}.jpg"
            (root / image).parent.mkdir(parents=True, exist_ok=True)
            photo = enlarge(TILES / "images" / tile["image"], np.random.default_rng([fold, row]))
            photo.save(root / image, quality=QUALITY)
            table.append({"id": name, "image": image.as_posix(), "climate": tile["climate"], "fold": fold})
    frame = pd.DataFrame(table)
    frame[["id", "image", "climate"]].to_csv(root / "train.csv", index=False)
    frame[["id", "fold"]].to_csv(root / "folds.csv", index=False)


def enlarge(tile: Path, rng: np.random.Generator) -> Image.Image:
    """A crop of a tile at a photograph's size, with random rotation and grain, so that rows of one tile differ."""
    pixels = np.rot90(np.asarray(Image.open(tile).convert("RGB")), int(rng.integers(4)))
    height = pixels.shape[1] * HEIGHT // WIDTH
    top = int(rng.integers(pixels.shape[0] - height + 1))
    part = Image.fromarray(np.ascontiguousarray(pixels[top : top + height]))
    large = np.asarray(part.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), dtype=np.float32)
    coarse = rng.normal(0, COARSE, (-(-HEIGHT // 2), -(-WIDTH // 2))).repeat(2, axis=0).repeat(2, axis=1)
    grain = rng.normal(0, FINE, (HEIGHT, WIDTH)) + coarse[:HEIGHT, :WIDTH]
    return Image.fromarray((large + grain[:, :, None]).clip(0, 255).astype(np.uint8))


def _tiles(rows: list[int]) -> list[pd.DataFrame]:
    """The tiles of each fold, in proportion to its rows, by climate in turn, none in two folds."""
    tiles = pd.read_csv(TILES / "train.csv").sample(frac=1.0, random_state=0)
    ends = (np.cumsum(rows) / sum(rows)).tolist()
    folds: list[list[pd.DataFrame]] = [[] for _ in rows]
    for _, same in tiles.groupby("climate"):
        bounds = [0, *(round(end * len(same)) for end in ends)]
        for fold in range(len(rows)):
            folds[fold].append(same.iloc[bounds[fold] : bounds[fold + 1]].assign(turn=lambda part: range(len(part))))
    return [pd.concat(parts).sort_values(["turn", "climate"]) for parts in folds]
