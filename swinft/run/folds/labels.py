"""Pseudo-labels of a fold: before it trains, another run's networks of the same fold predict rows of extra tables."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from swinft.data.datamodule import CSVDataModule
from swinft.data.fold_settings import ExtraTable
from swinft.data.loading.workers import Destination, explain_worker_crash
from swinft.data.pseudo_labels import PseudoLabels, rows_to_label
from swinft.data.row_images import row_images
from swinft.errors import InputError, number_of
from swinft.inference.compiled import nets_by_torch
from swinft.inference.finite import Origin
from swinft.inference.predictions import Predictions
from swinft.inference.predictor import predict_rows
from swinft.printing import print_line
from swinft.ranges import named_runs
from swinft.run.environment import trained_in
from swinft.run.experiment import Experiment
from swinft.run.fold_files import Fold
from swinft.run.folds.teacher import LABELS, TeacherRun, by_share
from swinft.store import is_committed
from swinft.system.precision import prediction_precision
from swinft.system.processes import rank

WAIT_SECONDS = 3600.0  # for the first process of a fold, which predicts


def label_extra_rows(
    experiment: Experiment, fold: Fold, data: CSVDataModule, teachers: list[TeacherRun], device: torch.device
) -> None:
    """Gives the rows of extra tables their labels, from the fold's files, which are predicted and committed first.

    Args:
        experiment: Of the run that learns.
        fold: The training.
        data: Its rows.
        teachers: The runs that it learns from.
        device: Where they predict.

    Raises:
        InputError: A prediction is not finite.
        StoreError: The labels have changed since they were predicted.
    """
    tables, found = data.settings.folds.extra_tables, []
    for number, rows in rows_to_label(data.splits.train, tables).items():
        table, path = tables[number], fold.labels(number)
        named = by_share(teachers, LABELS, named_runs(LABELS, table.labels), fold.index)
        if not is_committed(path) and not rank():
            # New networks draw random weights: what the fold draws must not depend on whether labels are there already.
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                _blended(experiment, fold, table, named, device).write(path, "swinft fit")
        _wait_for(path, fold)
        given = Predictions.read(path, len(data.schema.outputs))
        place = {id: row for row, id in enumerate(given.ids)}
        ids = [data.splits.train.table.ids[row] for row in rows.tolist()]
        kept = np.array([id in place for id in ids], dtype=bool)  # images that cannot be used have no prediction
        values = given.values[[place[id] for id in ids if id in place]]
        labels = PseudoLabels(table, rows[kept], values)
        found.append(labels)
        if not rank():
            print_line(f"fold {fold.index}: {_described(labels, data, [*named], fold)}")
    if found:
        data.splits.label(found)


def _described(labels: PseudoLabels, data: CSVDataModule, teachers: Sequence[TeacherRun], fold: Fold) -> str:
    """How many rows of a table are trained on, and whose labels they have."""
    names = [(each, [each.run.fold(name).root.name for name in each.trainings(fold.index)]) for each in teachers]
    used, least = int(labels.is_confident(data.schema).sum()), labels.table.min_confidence
    many = f"{used:,} of the {number_of(len(labels.rows), 'row')} of {labels.table.name}"
    limit = "" if least is None else f" have labels of confidence {least:g} or more,"
    who = [f"{', '.join(folders)} of {each.named}" for each, folders in names]
    return f"{many}{limit or ' have labels,'} predicted by {' and '.join(who)}"


def _wait_for(path: Any, fold: Fold) -> None:
    """Waits in other processes of a fold until the first one has predicted.

    Raises:
        InputError: It has not after an hour.
    """
    started = time.monotonic()
    while not is_committed(path):
        if time.monotonic() - started > WAIT_SECONDS:
            raise InputError(f"fold {fold.index}: there are no labels {path}: the first process of the fold has ended.")
        time.sleep(0.5)


def rows_of(experiment: Experiment, table: ExtraTable, teacher: TeacherRun) -> CSVDataModule:
    """A table's rows as the teacher predicts rows: at its image size, with its preprocessing and metadata.

    Args:
        experiment: Of the run that learns, which says where rows and images are.
        table: The extra table.
        teacher: The run that labels it.

    Raises:
        DataError: A column that the teacher needs is missing, or has wrong cells.
    """
    own = experiment.section("data")
    image = row_images(own["image"])
    loading = {name: own["loading"][name] for name in ("source", "follow_links", "on_bad_image", "num_workers")}
    changes = {
        "root": own["root"],
        "id": own["id"],
        "image": image.elsewhere(table.image, "the image of data.folds.extra") if table.image else image,
        "test": table.source,
        "sample_submission": None,
        "batch_size": experiment.config.predict.batch_size or 2 * own["batch_size"],
        "columns": {"test_id": None, "test_image": None, "encoding": own["columns"]["encoding"]},
        "loading": {**loading, "test_source": None},
    }
    data = teacher.experiment.datamodule(**changes)
    data.schema = teacher.schema
    data.setup("predict")
    return data


def _blended(
    experiment: Experiment, fold: Fold, table: ExtraTable, teachers: Mapping[TeacherRun, float], device: torch.device
) -> Predictions:
    """The predictions of all teachers for a table, averaged by what each counts."""
    found = [_predicted(experiment, fold, table, teacher, device) for teacher in teachers]
    if len(found) == 1:
        return found[0]
    common = set(found[0].ids).intersection(*(each.ids for each in found[1:]))  # each skips images that it cannot use
    ids = [id for id in found[0].ids if id in common]
    values = np.stack([each.among(ids, np.nan).values for each in found]).astype(np.float64)
    return Predictions.of(ids, np.tensordot([*teachers.values()], values, 1).astype(np.float32), found[0].outputs)


def _predicted(
    experiment: Experiment, fold: Fold, table: ExtraTable, teacher: TeacherRun, device: torch.device
) -> Predictions:
    """The teacher's predictions for a table, with its own views and precision."""
    data, names = rows_of(experiment, table, teacher), teacher.trainings(fold.index)
    data.destination = Destination(device, is_command=True)
    config, views, files = teacher.experiment.config, teacher.experiment.views(), teacher.files(fold.index)
    precision, _ = prediction_precision("auto", trained_in(teacher.run, names), device)
    loader = data.predict_dataloader()
    network = partial(teacher.experiment.network, teacher.schema, device=device, precision=precision)
    with explain_worker_crash(f"fold {fold.index}: ", "", "--data.loading.num_workers 0"):
        nets = nets_by_torch(
            [network(file) for file in files], loader, views, device, config.predict.compile, precision, data.image_size
        )
        origin = Origin(data.test_table.ids, files, f"Its predictions are the labels of {table.name}.")
        rows, values = predict_rows(nets, loader, views, device, precision, origin, f"fold {fold.index}  labels")
    ids = np.asarray(data.test_table.ids)[rows].tolist()
    return Predictions.of(ids, values, teacher.schema.outputs)
