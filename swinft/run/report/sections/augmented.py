"""Training images as a network saw them: the first batch of fold 0's first epoch, augmented and mixed."""

from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

from swinft.data.images.depth import as_bytes
from swinft.data.loading.collate import collate
from swinft.data.loading.dataset import ShuffledSampler
from swinft.data.sources.source import ImageError
from swinft.data.summary import in_a_row
from swinft.model.training.mixup import PIXELS, MixConfig, Mixing, draw
from swinft.run.report.contents import ReportInput, one_line
from swinft.run.report.section import Section, render
from swinft.run.report.thumbnails import SIDE, jpeg
from swinft.seeding import seed_for

NUM_SHOWN = 12
TITLE = "Training images as the network saw them"


def section(report: ReportInput) -> Section | None:
    """The section; none in an ensemble, which trains no network."""
    if report.run.is_ensemble:
        return None
    if report.config["data"].get("loading", {}).get("augment_on") == "device":
        why = (
            "Images are augmented in device memory, which the report does not fill: `swinft.open_run(…)` and "
            "`show_batch()` of its datamodule show them."
        )
        return Section("augmented", TITLE, why, render("sections/augmented.html", rows=[]))
    config = MixConfig(**(report.config["model"].get("mix") or {}))
    is_on = bool(config.mixup_alpha or config.cutmix_alpha)
    batch, rows = first_batch(report, is_on)
    if batch is None and report.lacking:  # said at the top of the page
        return None
    if batch is None:
        return Section(
            "augmented", TITLE, "An image of the first batch is not there.", render("sections/augmented.html", rows=[])
        )
    mixing = _mixing(report, config, batch)
    captions = one_line(report.schema.captions(report.data.splits.targets[rows]))
    shown = []
    for place in range(min(NUM_SHOWN, len(rows))):
        text = captions[place]
        if mixing is not None:
            other = int(mixing.order[place])
            text = f"{_share(mixing, batch):.0%} {text}, {1 - _share(mixing, batch):.0%} {captions[other]}"
        shown.append(
            {
                "id": report.data.splits.train.table.ids[rows[place]],
                "lines": [text],
                "note": "",
                "image": _drawn(batch, place, mixing),
            }
        )
    what = "" if mixing is None else f" The batch is mixed by {'cutmix' if mixing.box else 'mixup'}."
    if mixing is None and is_on and (batch["image"].ndim != 4 or config.mixup_at != "images"):
        what = " How its rows were mixed afterwards is not shown."
    lead = f"From the first batch of the first epoch with fold 0 held out, after augmentation.{what}"
    sizes = report.config["model"].get("optim", {}).get("sizes")
    lead += " The first epochs were trained on smaller images than these." if sizes else ""
    return Section("augmented", TITLE, lead, render("sections/augmented.html", rows=shown))


def first_batch(report: ReportInput, is_whole: bool) -> tuple[dict[str, Any] | None, list[int]]:
    """The first batch that one device sees; of a batch that is not mixed, only the rows that are shown.

    Returns:
        The batch as of a loader, None where an image is missing; and the rows' positions.
    """
    data, fold = report.data, 0
    settings, rows = data.settings, data.splits.trained_on(fold)
    rows = rows if settings.tile is None else np.repeat(rows, settings.tile.per_image)
    seed, parts = seed_for("order", settings.folds.seed, fold), settings.loading.virtual_epochs
    sampler = ShuffledSampler(rows, seed, parts=parts, sampled_order=data.splits.sampled_order(fold))
    count = data.batch_size if is_whole else min(data.batch_size, NUM_SHOWN)
    keys = list(islice(sampler, count))
    dataset = data.make_dataset("train", rows)
    try:
        return collate([dataset[key] for key in keys]), [row for _, row in keys]
    except ImageError:
        return None, []


def _mixing(report: ReportInput, config: MixConfig, batch: dict[str, Any]) -> Mixing | None:
    """How the training mixed the batch; None where it did not, or not its pixels."""
    if batch["image"].ndim != 4 or config.mixup_at == "random":
        return None
    seeds = report.config.get("seeds")
    seed = int(seeds[0] if seeds else report.config["seed"])
    place = [PIXELS] if config.mixup_at == "images" else ["features"]
    found = draw(config, batch["image"], np.random.default_rng([seed_for("mixing", seed), 0, 0, 0]), place)
    return found if found is not None and (found.box or found.place == PIXELS) else None


def _share(mixing: Mixing, batch: dict[str, Any]) -> float:
    """What the row itself has of a mixed image and target."""
    if mixing.box is None:
        return mixing.share
    top, bottom, left, right = mixing.box
    height, width = batch["image"].shape[-2:]
    return float(1 - (bottom - top) * (right - left) / (height * width))


def _drawn(batch: dict[str, Any], place: int, mixing: Mixing | None) -> str:
    """An image of a batch as a data URI."""
    if mixing is not None:
        image, _, _ = mixing.rows(batch["image"], torch.zeros(len(batch["image"]), 1), {})
        batch = {**batch, "image": image}
    item = {name: values[place] for name, values in batch.items() if name in ("image", "image_mask", "target")}
    item["image"] = as_bytes(item["image"].movedim(-3, -1).numpy())
    thumbnail = Image.fromarray(in_a_row(item))
    thumbnail.thumbnail((4 * SIDE, SIDE))
    return jpeg(thumbnail)
