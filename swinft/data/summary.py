"""A summary of the data, and a figure of images with their labels, to inspect before training."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.folds import Folds
from swinft.data.images.depth import as_bytes
from swinft.data.loading.device_loader import DeviceLoader
from swinft.data.loading.workers import TimedLoader
from swinft.data.masks.overlay import add_legend, filled_masks
from swinft.data.schema import Schema
from swinft.printing import plain_names, visible, width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from swinft.data.splits import Splits


MOST_OUTPUTS = 40  # of a summary that is printed; of more, the first and the last ones
SHOWN_FIRST, SHOWN_LAST = 20, 5


def fold_summary(folds: Folds, targets: NDArray[Any], schema: Schema) -> list[dict[str, Any]]:
    """One entry per fold: number of rows, and rows per class, positive rows per label, or mean of each target."""
    entries: list[dict[str, Any]] = []
    for fold, size in enumerate(np.bincount(folds).tolist()):
        values = schema.target.counts(targets[folds == fold], len(schema.outputs))
        entries.append({"fold": fold, "rows": size, **dict(zip(schema.outputs, values, strict=True))})
    return entries


def summarize(splits: "Splits", notes: list[str]) -> dict[str, Any]:
    """Rows, targets, folds and image statistics; for `format_summary`.

    Args:
        splits: After their rows were read.
        notes: Notes, one line each.
    """
    train, schema, scored = splits.train, splits.schema, splits.is_scored[: splits.num_main]
    folds, targets = splits.fold_of_row[: splits.num_main], splits.targets[: splits.num_main]
    assert schema is not None
    summary: dict[str, Any] = {
        "train": str(train.table.path),
        "rows": splits.num_main,
        "target": f"{', '.join(splits.settings.targets)} ({splits.settings.kind_name})",
        "outputs": schema.target.summary(
            targets[(train.is_used & train.has_target)[: splits.num_main]], schema.outputs
        ),
        "folds": fold_summary(folds[scored], targets[scored], schema),
    }
    if not scored.all():
        reasons = (status for status, is_scored in zip(splits.status, scored, strict=True) if not is_scored)
        summary["not scored"] = dict(Counter(reasons))
    if notes:
        summary["notes"] = notes
    if splits.has_test:
        summary |= {"test": str(splits.test.table.path), "test rows": len(splits.test.table)}
    return summary | splits.image_files.summary(splits.by_name)


def format_summary(summary: dict[str, Any]) -> str:
    """Formats a summary as text: one line per entry, and the folds as a table.

    Of more than `MOST_OUTPUTS` outputs some are shown, those with the most rows first, and none in the table.
    """
    lines = []
    for name, value in summary.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            names = list(value[0]) if len(value[0]) <= MOST_OUTPUTS + 2 else ["fold", "rows"]
            lines += [name, *_table([{key: each[key] for key in names} for each in value])]
        elif isinstance(value, list):
            lines += [name, *(f"  {visible(str(item))}" for item in value)]
        elif isinstance(value, dict):
            lines += [name, *_entries(value)]
        else:
            lines.append(f"{name}: {_text(value)}")
    return "\n".join(lines)


def _entries(values: dict[str, Any]) -> list[str]:
    """A line for each output; of many, for those with the largest values and the smallest ones."""
    if len(values) <= MOST_OUTPUTS:
        return [f"  {visible(key)}: {_text(item)}" for key, item in values.items()]
    entries = list(values.items())
    if not any(isinstance(item, dict) for item in values.values()):
        entries.sort(key=lambda entry: -entry[1])
    lines = [f"  {visible(key)}: {_text(item)}" for key, item in (*entries[:SHOWN_FIRST], *entries[-SHOWN_LAST:])]
    rest = f"  … {len(entries) - SHOWN_FIRST - SHOWN_LAST:,} more; `--json` has all of them"
    return [*lines[:SHOWN_FIRST], rest, *lines[SHOWN_FIRST:]]


def batch_figure(loader: TimedLoader, n: int, titles: Callable[[list[int]], list[str]]) -> "Figure":
    """The first images of a loader's next pass, as the network sees them, with their masks; no others are decoded.

    Args:
        loader: A loader of a datamodule.
        n: Maximum number of images.
        titles: Returns the titles of some rows.
    """
    keys = [key for key, _ in zip(loader.sampler, range(n), strict=False)]
    if isinstance(loader, DeviceLoader):
        images = loader.images(keys)
    else:
        images = [in_a_row(loader.dataset[key]) for key in keys]
    return image_grid(images, titles([row for _, row in keys]), getattr(loader.dataset, "classes", ()))


def in_a_row(item: dict[str, Any]) -> NDArray[np.uint8]:
    """The images of an item as one, uint8 (H, W, 3), with its masks, if there are any.

    Images of a row are side by side, and so are channels beyond three.
    """
    image = as_bytes(np.asarray(item["image"]))
    if "target" in item and item["target"].ndim == 3:
        return filled_masks(image, item["target"].numpy().transpose(1, 2, 0))
    if image.ndim == 4:
        there = np.asarray(item["image_mask"]) if "image_mask" in item else np.ones(len(image), dtype=bool)
        return np.concatenate(list(image[there]), axis=1)
    if image.shape[2] == 3:
        return image
    planes = np.split(image, image.shape[2] // 3 if image.shape[2] % 3 == 0 else image.shape[2], axis=2)
    return np.concatenate([np.repeat(plane, 3 // plane.shape[2], axis=2) for plane in planes], axis=1)


def image_grid(images: Sequence[NDArray[np.uint8]], titles: Sequence[str], classes: Sequence[str] = ()) -> "Figure":
    """A figure of images (H, W, 3) with titles, and the names of classes whose masks are drawn."""
    import matplotlib.pyplot as plt

    with plain_names([*titles, *classes]) as drawable:
        figure = _grid(images, ["\n".join(map(drawable, title.split("\n"))) for title in titles])
        add_legend(figure, [drawable(name) for name in classes])
    plt.close(figure)  # a notebook shows the returned figure; an open one would be shown a second time
    return figure


def _grid(images: Sequence[NDArray[np.uint8]], titles: Sequence[str]) -> "Figure":
    import matplotlib.pyplot as plt

    columns = max(1, min(len(images), 8 if len(images) > 8 else 4))
    rows = -(-len(images) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(1.7 * columns, 2.0 * rows), squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        axes.imshow(image)
        axes.set_title(title if len(title) <= 40 else f"{title[:39]}…", fontsize=8, wrap=True)
    return figure


def _table(entries: list[dict[str, Any]]) -> list[str]:
    cells = [[visible(name) for name in entries[0]], *([_text(value) for value in entry.values()] for entry in entries)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    return [
        "".join(" " * (2 + most - width(cell)) + cell for cell, most in zip(row, widths, strict=True)) for row in cells
    ]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{visible(key)} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(_text, value))
    return (
        f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else visible(str(value))
    )
