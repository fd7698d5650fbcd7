"""Figures of the report, drawn by matplotlib."""

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from swinft.data.schema import Schema
from swinft.run.layout import Run

SHOWN_OUTPUTS = 12  # more panels or bars would be unreadable
INK, ACCENT, SECOND = "#1c2733", "#1f6f8b", "#d1773c"


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


def test_figure(test: NDArray[np.float32], values: NDArray[np.float32], schema: Schema) -> Figure:
    """Distribution of test predictions beside out-of-fold ones."""
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


def png(figure: Figure) -> str:
    """A figure as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
