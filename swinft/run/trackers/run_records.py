"""The record of a whole run: pooled scores and report; and what the records of its folds still lack."""

import sys
from functools import cached_property, partial

import numpy as np
import pandas as pd
from PIL import Image

from swinft.data.datamodule import CSVDataModule
from swinft.data.images.decode import decode
from swinft.data.images.depth import displayed
from swinft.data.sources.source import ImageError
from swinft.errors import command, listed, number_of
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.report.contents import ReportInput
from swinft.run.report.intervals import Scorer
from swinft.run.trackers.checks import trackers_of
from swinft.run.trackers.fold_records import result_values, sender_of
from swinft.run.trackers.record import CaptionedImage
from swinft.run.trackers.sender import Sender
from swinft.run.trackers.tracker import Tracker

LONGEST_SIDE = 512  # pixels of an image of a row


def send_run(run: Run, experiment: Experiment) -> None:
    """Sends the pooled scores and the report, and what is missing in the records of the folds.

    Args:
        run: A run whose folds are joined.
        experiment: Its experiment.
    """
    for tracker in trackers_of(experiment):
        missing = _send_folds(run, tracker)
        pooled = sender_of(run, tracker, None)
        if not missing:
            files = [path for path in (run.report, run.scores) if path.is_file()]
            ended = _RunEnd(run, experiment)
            pooled.finish([], ended.values, {"worst_rows": ended.worst_rows}, files)
        missing += [pooled] if pooled.problem or not pooled.is_complete else []
        if missing:
            names = listed(each.record.name for each in missing)
            print(f"{tracker.word} lacks {names}: `{command('fit', '--resume', run.root)}` sends it", file=sys.stderr)
            continue
        see = f": {see}" if (see := tracker.how_to_see(pooled.record.folder)) else ""
        count = number_of(len(run.trainings()) + 1, "record")
        print(f"{tracker.word} has {count} of group {pooled.record.group}{see}")


def _send_folds(run: Run, tracker: Tracker) -> list[Sender]:
    """Sends the records of finished folds that are incomplete; after a failure, no other is tried.

    Returns:
        Those that stay incomplete.
    """
    missing: list[Sender] = []
    for name in run.trainings():
        fold = run.fold(name)
        sender = sender_of(run, tracker, fold)
        if not fold.is_done or sender.is_complete:
            continue
        if not missing:
            sender.finish(fold.read_history(), partial(result_values, fold))
        if missing or sender.problem:
            missing.append(sender)
    return missing


class _RunEnd:
    """What the pooled record gets at the end; its rows are read when they are asked for.

    Args:
        run: A run with scores and report.
        experiment: Its experiment.
    """

    def __init__(self, run: Run, experiment: Experiment) -> None:
        self._run, self._experiment = run, experiment

    @cached_property
    def _data(self) -> CSVDataModule:
        data = self._experiment.datamodule(self._run, needs_images=False)
        data.setup("fit")
        return data

    def values(self) -> dict[str, float]:
        """The pooled score of every metric with its 95 % interval, as in the report, and its spread over the folds."""
        scores = self._run.read_scores()
        values = {f"oof_{name}": value for name, value in scores["pooled"].items()}
        values |= {f"oof_{name}_spread": value for name, value in scores["spread"].items()}
        report = ReportInput.of(self._run, self._data, self._experiment.section("model")["metrics"] or ())
        for metric in report.metrics:
            ends = Scorer(report, metric).pooled() or ()
            values |= dict(zip((f"oof_{metric.name}_low", f"oof_{metric.name}_high"), ends, strict=False))
        values |= {"rows": scores["rows"], "folds": len(scores["folds"])}
        return {name: float("nan" if value is None else value) for name, value in values.items()}

    def worst_rows(self, most: int) -> list[CaptionedImage]:
        """The rows with the largest out-of-fold error, as in `errors.csv`, except those whose image cannot be read."""
        if not self._run.errors.is_file():
            return []
        table = pd.read_csv(self._run.errors, dtype=str, keep_default_na=False, nrows=most)
        rows = {id: row for row, id in enumerate(self._data.train_table.ids)}
        found = []
        for line in table.to_dict("records"):
            images = self._data.images_of("fit", [rows[line["id"]]])
            try:
                pixels = displayed(decode(images.paths[0], images.rules, images.source)) if images.paths else None
            except ImageError:
                continue
            if pixels is not None:
                caption = ", ".join(f"{name} {value}" for name, value in line.items() if value)
                found.append(CaptionedImage(_shrunk(pixels), caption))
        return found


def _shrunk(
    pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]",
) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(image)
