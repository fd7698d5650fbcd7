"""Grad-CAM of some scored rows, each by a network that was not trained on it, as images of a page.

Shapes: B rows, V images of a row, (H, W) pixels.
"""

import time
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from swinft.attribution.gradcam import gradcam
from swinft.data.datamodule import CSVDataModule
from swinft.data.images.depth import as_bytes
from swinft.data.loading.collate import collate
from swinft.data.sources.source import ImageError
from swinft.errors import InputError, StoreError
from swinft.inference.predictions import Predictions
from swinft.run.fold_files import held_out_by
from swinft.run.report.rows.members import Explaining
from swinft.run.report.thumbnails import MAX_IMAGES, SIDE, jpeg

SECONDS = 10.0  # for all rows: the page is made in half a minute
AT_ONCE = 4  # rows of a batch: a large network's activations are kept for the gradient
HEAT = 0.5  # how strongly the map covers the image


class GradCams:
    """Makes Grad-CAMs until its time is over; each row is explained once.

    Args:
        source: The networks; or why there are none.
        data: The datamodule of the report after `setup("fit")`.
        predicted: Of an ensemble its predictions of the training table: their likeliest output is explained. None to
            explain what the network itself predicts.
        seconds: Time for all rows, without that of the batch in which it ends.
    """

    def __init__(
        self,
        source: Explaining | str,
        data: CSVDataModule,
        predicted: Predictions | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self.data, self.predicted, self.left = data, predicted, seconds
        self.source = None if isinstance(source, str) else source
        self.reason = source if isinstance(source, str) else ""
        self._found: dict[int, str] = {}
        self.missing: list[int] = []
        if data.schema.base.are_maps or data.settings.tile is not None:
            self.source, self.reason = None, "masks are drawn instead"

    def of(self, rows: Sequence[int]) -> dict[int, str]:
        """Data URIs of rows, by their positions in the training table; rows without one are left out."""
        waiting = [row for row in dict.fromkeys(rows) if row not in self._found]
        folds = self.data.fold_of_row
        for fold in sorted({int(folds[row]) for row in waiting}):
            own = [row for row in waiting if folds[row] == fold]
            if self.source is None or self.left <= 0:
                self.missing += own
                continue
            try:
                self._explain(self.source, fold, own)
            except (InputError, StoreError, ImageError, RuntimeError) as error:  # also of a device that lacks memory
                self.reason = str(error).partition("\n")[0]
                self.source = None
                self.missing += [row for row in own if row not in self._found]
        return {row: self._found[row] for row in rows if row in self._found}

    def _explain(self, source: Explaining, fold: int, rows: Sequence[int]) -> None:
        """Explains the prediction of rows of a fold, by its network; of several seeds by the first one."""
        started = time.monotonic()
        name = next(name for name in source.run.planned_folds() if held_out_by(name) == fold)
        weights, schema = source.run.fold(name).weights, source.data.schema
        net = source.experiment.network(schema, weights, torch.device("cpu"), fast_attention=False)
        places = self._places(source, rows)
        dataset = source.data.make_dataset("val", places)
        for start in range(0, len(rows), AT_ONCE):
            some = list(rows[start : start + AT_ONCE])
            if self.left - (time.monotonic() - started) <= 0:
                self.missing += list(rows[start:])
                break
            batch = collate([dataset[0, int(place)] for place in places[start : start + AT_ONCE]])
            outputs = self._outputs(source, some)
            maps = gradcam(net, batch["image"], outputs, batch.get("features"), batch.get("image_mask")).numpy()
            for row, image, heat in zip(some, batch["image"].numpy(), maps, strict=True):
                self._found[row] = jpeg(overlay(image, heat))
        self.left -= time.monotonic() - started

    def _places(self, source: Explaining, rows: Sequence[int]) -> NDArray[np.int64]:
        """The positions of rows in the table of the networks, whose order may be another one."""
        if source.data is self.data:
            return np.array(rows)
        place_of = {id: place for place, id in enumerate(source.data.train_table.ids)}
        return np.array([place_of[self.data.train_table.ids[row]] for row in rows])

    def _outputs(self, source: Explaining, rows: Sequence[int]) -> list[int] | None:
        """The output to explain of each row, by its number in the networks; None for the one that they predict."""
        if self.predicted is None or not self.data.schema.base.are_probabilities:
            return None
        names = [self.predicted.outputs[k] for k in self.predicted.values[list(rows)].argmax(1)]
        return [source.data.schema.outputs.index(name) for name in names]

    def note(self) -> str:
        """What is said of rows without a map; empty if all have one."""
        if not self.missing:
            return ""
        return self.reason or f"the time for them was over after {SECONDS:.0f} s"


def overlay(image: NDArray[np.generic], heat: NDArray[np.float32]) -> Image.Image:
    """The map of a row over its images, side by side, as a thumbnail.

    Args:
        image: Pixels in 0–255 (C, H, W), or (V, C, H, W) of several images.
        heat: The map in 0–1, (H, W) or (V, H, W).
    """
    images = image if image.ndim == 4 else image[None]
    maps = heat if heat.ndim == 3 else heat[None]
    parts = []
    for pixels, own in list(zip(images, maps, strict=True))[:MAX_IMAGES]:
        grey = as_bytes(pixels).astype(np.float32).mean(0)
        colours = matplotlib.colormaps["inferno"](own)[..., :3] * 255
        mixed = (1 - HEAT) * grey[..., None] + HEAT * colours
        part = Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
        scale = SIDE / max(part.size)
        parts.append(part.resize((max(1, round(part.width * scale)), max(1, round(part.height * scale)))))
    whole = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)))
    for number, part in enumerate(parts):
        whole.paste(part, (sum(before.width for before in parts[:number]), 0))
    return whole
