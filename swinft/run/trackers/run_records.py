"""The record of a whole run: pooled scores and report; and what the records of its folds still lack."""

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from PIL import Image

from swinft.data.images.decode import decode
from swinft.data.images.depth import displayed
from swinft.data.sources.source import ImageError
from swinft.errors import command, listed, number_of
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.trackers.configured import loggers_of, trackers_in
from swinft.run.trackers.fold_records import result_values, sender_of
from swinft.run.trackers.record import CaptionedImage
from swinft.run.trackers.sender import Sender
from swinft.run.trackers.tracker import Tracker
from swinft.system.orphans import is_child
from swinft.system.processes import rank

LONGEST_SIDE = 512  # pixels of an image of a row


def trackers_of(experiment: Experiment) -> list[Tracker]:
    """The trackers of a config.

    Raises:
        InputError: A class does not accept its arguments.
    """
    return trackers_in(loggers_of(experiment.section("trainer")["logger"]))


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Checks before a training that every tracker is installed and answers; in the command's own process only.

    Raises:
        InputError: One does not.
    """
    if is_child() or rank():
        return
    for tracker in trackers:
        tracker.check()


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
            pooled.finish(
                [], lambda: pooled_values(run), {"worst_rows": lambda most: worst_rows(run, experiment, most)}, files
            )
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


def pooled_values(run: Run) -> dict[str, float]:
    """The pooled score of every metric and its spread over the folds."""
    scores = run.read_scores()
    values = {f"oof_{name}": value for name, value in scores["pooled"].items()}
    values |= {f"oof_{name}_spread": value for name, value in scores["spread"].items()}
    return {name: float("nan" if value is None else value) for name, value in values.items()} | {
        "rows": float(scores["rows"]),
        "folds": float(len(scores["folds"])),
    }


def worst_rows(run: Run, experiment: Experiment, most: int) -> list[CaptionedImage]:
    """The rows with the largest out-of-fold error, with truth and prediction as in `errors.csv`.

    Args:
        run: The run, with its report.
        experiment: Its experiment.
        most: Rows at most; those whose image cannot be read are left out.
    """
    if not run.errors.is_file():
        return []
    table = pd.read_csv(run.errors, dtype=str, keep_default_na=False, nrows=most)
    data = experiment.datamodule(run)
    data.image_files.use_known_cache("")  # nothing is checked again
    data.setup("fit")
    rows = {id: row for row, id in enumerate(data.train_table.ids)}
    found = []
    for line in table.to_dict("records"):
        images = data.images_of("fit", [rows[line["id"]]])
        try:
            pixels = displayed(decode(images.paths[0], images.rules, images.source)) if images.paths else None
        except ImageError:
            continue
        if pixels is not None:
            caption = ", ".join(f"{name} {value}" for name, value in line.items())
            found.append(CaptionedImage(_shrunk(pixels), caption))
    return found


def _shrunk(
    pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]",
) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(image)
