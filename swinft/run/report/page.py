"""The report as one HTML file without scripts: scores, curves, out-of-fold predictions, worst rows, config."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from swinft.data.datamodule import CSVDataModule
from swinft.data.images.decode import decode
from swinft.data.images.depth import displayed
from swinft.data.inspection.scan import ImageSet
from swinft.data.masks.overlay import hex_color
from swinft.data.schema import Schema
from swinft.data.sources.source import ImageError
from swinft.errors import InputError, StoreError
from swinft.inference.predictions import Predictions, as_bytes
from swinft.inference.provenance import Provenance
from swinft.printing import format_score, plain_names
from swinft.run.embed.table import comparison_lines
from swinft.run.ensemble.table import table_lines
from swinft.run.layout import Run
from swinft.run.mask_counts import MaskCounts
from swinft.run.provenance import predictions_made_with
from swinft.run.report.errors import error_table
from swinft.run.report.masks import mask_groups
from swinft.store import commit

NUM_WORST = 12
MAX_IMAGES = 4  # of a row
THUMBNAIL = 160  # pixels: with twelve thumbnails the page is below half a megabyte
SHOWN_OUTPUTS = 12  # more panels or bars would be unreadable
INK, ACCENT, SECOND = "#1c2733", "#1f6f8b", "#d1773c"


def write_report(run: Run, data: CSVDataModule, metrics: Sequence[Any] = (), counts: MaskCounts | None = None) -> None:
    """Writes the report of a finished run.

    Args:
        run: The run.
        data: Its datamodule after `setup("fit")`.
        metrics: Those of its config; none for the head's.
        counts: Pixels of its out-of-fold masks, if they are counted.
    """
    scores = run.read_scores()
    environment = run.read_environment()
    config = run.read_config()
    outputs = data.schema.outputs
    oof = Predictions.read(run.oof, len(outputs)).join(data.train_table.ids, str(run.oof))
    values = oof.values
    made_with = _current_predictions(run)
    scored = data.is_scored
    with plain_names(outputs) as drawable:
        schema = replace(data.schema, outputs=[drawable(name) for name in outputs])
        figures = {
            "curves": "" if run.is_ensemble else _png(curves(run, next(iter(scores["pooled"])))),
            "predictions": _png(predictions_figure(values[scored], data.targets[scored], schema)),
            "test": _png(test_figure(run, values[scored], schema)) if made_with else "",
        }
    template = Environment(loader=PackageLoader("swinft.run.report", "."), autoescape=True, undefined=StrictUndefined)
    template.filters["score"] = format_score
    page = template.get_template("page.html").render(
        name=run.root.name,
        scores=scores,
        monitor=next(iter(scores["pooled"])),
        test_predictions=made_with.describe() if made_with else "",
        environment=environment,
        environment_text=json.dumps(environment, indent=1),
        described=run.read_ensemble()["described"] if run.is_ensemble else "",
        ensemble="\n".join(_compared(scores)) if run.is_ensemble else "",
        config=run.config.read_text(encoding="utf-8"),
        backbone=config["model"]["backbone"],
        image_size=config["data"]["image_size"],
        figures=figures,
        worst=[] if oof.maps else worst_rows(values, data),
        masks=_encoded(mask_groups(oof, data, scores, metrics, counts)),
        classes=[{"name": name, "color": hex_color(k)} for k, name in enumerate(outputs)],
    )
    commit(run.errors, as_bytes(error_table(values, data)), "swinft report")
    commit(run.report, page.encode(), "swinft report")


def _encoded(groups: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of `mask_groups`, their images as data URIs."""
    for row in (row for rows in groups.values() for row in rows):
        row["image"] = "" if row["image"] is None else _jpeg(Image.fromarray(row["image"]))
    return groups


def _compared(scores: dict[str, Any]) -> list[str]:
    """What an ensemble, or a model on embeddings, is compared with."""
    return table_lines(scores["ensemble"]) if "ensemble" in scores else comparison_lines(scores["embedding"])


def _current_predictions(run: Run) -> Provenance | None:
    """The provenance of the run's test predictions; None if there are none of the run's current weights."""
    if not run.test_predictions.is_file():
        return None
    try:
        return predictions_made_with(run)
    except (InputError, StoreError) as error:
        print(f"the report omits the test predictions: {error}")
        return None


def curves(run: Run, monitor: str) -> Figure:
    """Training loss and the monitored validation score by epoch, one line per fold."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    loss, score = figure.subplots(1, 2)
    for index in run.planned_folds():
        history = pd.DataFrame(run.fold(index).read_history())
        loss.plot(history["epoch"], history["train_loss"], label=f"fold {index}")
        score.plot(history["epoch"], history[f"val_{monitor}"], label=f"fold {index}")
    _label(loss, "training loss", "epoch", "")
    _label(score, f"validation {monitor}", "epoch", "")
    for axis in (loss, score):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*score.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right upper")
    return figure


def predictions_figure(values: NDArray[np.float32], targets: NDArray[Any], schema: Schema) -> Figure:
    """Out-of-fold predictions against the truth, by the kind of target."""
    if schema.base.are_classes:
        return _confusion(values, schema.target.strata(targets), schema.outputs)
    # Not shares; NaN is a label that is missing.
    are_labels = schema.base.are_probabilities and bool((np.isin(targets, (0, 1)) | np.isnan(targets)).all())
    return (_separation if are_labels else _scatter)(values, targets, schema.outputs)


def test_figure(run: Run, values: NDArray[np.float32], schema: Schema) -> Figure:
    """Distribution of test predictions beside out-of-fold ones."""
    test = Predictions.read(run.test_predictions, len(schema.outputs)).values
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    if not schema.base.are_probabilities:
        axes = _panels(figure, len(schema.outputs))
        for k, axis in enumerate(axes):
            bins = np.histogram_bin_edges(np.concatenate([values[:, k], test[:, k]]), 30).tolist()
            axis.hist(values[:, k], bins, density=True, alpha=0.6, color=ACCENT, label="out-of-fold")
            axis.hist(test[:, k], bins, density=True, alpha=0.6, color=SECOND, label="test")
            _label(axis, schema.outputs[k], "prediction", "density")
        axes[0].legend(frameon=False, fontsize=8)
        return figure
    shown = schema.outputs[:SHOWN_OUTPUTS]
    axis, positions = figure.subplots(), np.arange(len(shown))
    axis.bar(positions - 0.2, values.mean(0)[: len(shown)], 0.4, color=ACCENT, label="out-of-fold")
    axis.bar(positions + 0.2, test.mean(0)[: len(shown)], 0.4, color=SECOND, label="test")
    axis.set_xticks(positions, shown, rotation=30, ha="right")
    _label(axis, "mean probability", "", "")
    figure.legend(frameon=False, fontsize=8, loc="outside upper right", ncols=2)
    return figure


def worst_rows(values: NDArray[np.float32], data: CSVDataModule) -> list[dict[str, Any]]:
    """The rows with the largest out-of-fold error, with thumbnails."""
    scored = np.flatnonzero(data.is_scored)
    targets, values = data.targets[scored], values[scored]
    chosen = np.argsort(-data.schema.target.row_errors(values, targets), kind="stable")[:NUM_WORST]
    return [
        {
            "id": data.train_table.ids[row],
            "fold": int(data.fold_of_row[row]),
            "truth": truth,
            "prediction": data.schema.target.prediction_text(prediction, data.schema.outputs),
            "image": _thumbnail(data.images_of("fit", [int(row)])),
        }
        for row, prediction, truth in zip(
            scored[chosen],
            values[chosen],
            data.schema.captions(targets[chosen]),
            strict=True,
        )
    ]


def _confusion(values: NDArray[np.float32], targets: NDArray[np.int64], outputs: list[str]) -> Figure:
    counts = np.zeros((len(outputs), len(outputs)), dtype=int)
    np.add.at(counts, (targets, values.argmax(1)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    matrix, bars = figure.subplots(1, 2)
    matrix.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(outputs) <= SHOWN_OUTPUTS:
        for (true, predicted), count in np.ndenumerate(counts):
            color = "white" if shares[true, predicted] > 0.5 else INK
            matrix.text(predicted, true, str(count), ha="center", va="center", color=color)
        matrix.set_xticks(range(len(outputs)), outputs, rotation=30, ha="right")
        matrix.set_yticks(range(len(outputs)), outputs)
    _label(matrix, "rows by true and predicted class", "predicted", "true")
    matrix.grid(visible=False)
    order = np.argsort(np.diag(shares))[:SHOWN_OUTPUTS]
    bars.barh(range(len(order)), np.diag(shares)[order], color=ACCENT)
    bars.set_yticks(range(len(order)), [outputs[k] for k in order])
    bars.set_xlim(0, 1)
    _label(bars, "recall, hardest class first", "recall", "")
    bars.invert_yaxis()
    return figure


def _scatter(values: NDArray[np.float32], targets: NDArray[np.float32], outputs: list[str]) -> Figure:
    shown = min(len(outputs), SHOWN_OUTPUTS // 2)
    figure = Figure(figsize=(10, 4.2 * shown), layout="constrained")
    axes = figure.subplots(shown, 2, squeeze=False)
    for k in range(shown):
        truth, predicted = targets[:, k], values[:, k]
        limits = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
        axes[k, 0].scatter(truth, predicted, s=10, alpha=0.5, color=ACCENT, edgecolors="none")
        axes[k, 0].plot(limits, limits, color=INK, linewidth=0.8)
        _label(axes[k, 0], outputs[k], "true", "predicted")
        axes[k, 1].hist(predicted - truth, 40, color=ACCENT)
        axes[k, 1].axvline(0, color=INK, linewidth=0.8)
        _label(axes[k, 1], f"{outputs[k]}: error", "predicted − true", "rows")
    return figure


def _separation(values: NDArray[np.float32], targets: NDArray[np.float32], outputs: list[str]) -> Figure:
    shown = min(len(outputs), SHOWN_OUTPUTS)
    figure = Figure(figsize=(10, 2.6 * -(-shown // 3)), layout="constrained")
    axes = _panels(figure, shown, columns=3)
    bins = np.linspace(0, 1, 26).tolist()
    for k, axis in enumerate(axes):
        present, absent = targets[:, k] > 0.5, targets[:, k] <= 0.5
        axis.hist(values[absent, k], bins, alpha=0.6, color=ACCENT, label="absent")
        axis.hist(values[present, k], bins, alpha=0.6, color=SECOND, label="present")
        _label(axis, outputs[k], "probability", "rows")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _panels(figure: Figure, count: int, columns: int = 3) -> list[Axes]:
    """`count` axes in rows of at most `columns`."""
    columns = min(columns, count)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False).ravel()
    for unused in grid[count:]:
        unused.set_visible(False)
    return list(grid[:count])


def _label(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=10, color=INK)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _thumbnail(images: ImageSet) -> str:
    """The first images of a row as one data URI; empty if one is missing, which the page shows."""
    try:
        found = [
            Image.fromarray(displayed(decode(path, images.rules, images.source))) for path in images.paths[:MAX_IMAGES]
        ]
    except ImageError:
        return ""
    if not found:
        return ""
    for each in found:
        each.thumbnail((THUMBNAIL, THUMBNAIL))
    image = Image.new("RGB", (sum(each.width for each in found), max(each.height for each in found)))
    for number, each in enumerate(found):
        image.paste(each, (sum(before.width for before in found[:number]), 0))
    return _jpeg(image)


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
