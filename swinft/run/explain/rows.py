"""The rows to explain, as their network sees them, and the networks that predicted them.

Shapes: B rows, V images of a row, C channels, K outputs, (H, W) pixels.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from swinft.data.datamodule import CSVDataModule
from swinft.data.loading.workers import Destination
from swinft.data.schema import Schema
from swinft.errors import InputError, RunError, StoreError, listed, suggest
from swinft.inference.maps import levels_of
from swinft.inference.predictions import Predictions
from swinft.inference.tta import predict_views
from swinft.model.network import ImageModel
from swinft.printing import print_line
from swinft.run.experiment import Experiment
from swinft.run.explain.options import ExplainOptions
from swinft.run.fold_files import FoldId, held_out_by
from swinft.run.inputs import check_inputs
from swinft.run.layout import NO_FOLD, Run
from swinft.run.prediction.networks import Networks
from swinft.run.prediction.options import PredictOptions
from swinft.run.provenance import predictions_made_with
from swinft.store import is_committed, verify
from swinft.system.precision import autocast, half_dtype

# Largest difference of a prediction from the committed one: of probabilities, or relative to the largest value.
SAME, SAME_ELSEWHERE, SAME_IN_HALF = 1e-3, 2e-2, 5e-2
SAME_LEVELS = 3.0  # mean difference of maps, of 255


@dataclass(frozen=True)
class Row:
    """A row, and what predicts it.

    Args:
        id: Its id.
        networks: Names of its networks: `fold_0`.
        nets: The networks, in evaluation mode; what they say is averaged.
        image: Pixels (1, C, H, W) or (1, V, C, H, W), on the device.
        features: Metadata (1, F), or None.
        image_mask: Which images exist, bool (1, V), or None.
        predictions: In the competition's units, (K,), or maps (K, H, W).
        difference: From the committed prediction; None if there is none.
    """

    id: str
    networks: list[str]
    nets: list[ImageModel]
    image: Tensor
    features: Tensor | None
    image_mask: Tensor | None
    predictions: Tensor
    difference: float | None


def is_training(run: Run, ids: Sequence[str], options: ExplainOptions) -> bool:
    """Whether the ids are rows of the training table.

    Raises:
        InputError: There is no id, one is named twice, or some are in the training table and others not.
    """
    if not ids:
        raise InputError("name the rows to explain: --ids ID [ID ...]")
    if twice := [id for id, count in Counter(ids).items() if count > 1]:
        raise InputError(f"--ids names {_quoted(twice)} more than once.")
    if options.rows is not None:
        return options.rows == "train"
    with verify(run.folds).open(encoding="utf-8", newline="") as file:
        known = {row["id"] for row in csv.DictReader(file)}
    inside = [id for id in ids if id in known]
    if inside and len(inside) < len(ids):
        outside = [id for id in ids if id not in known]
        raise InputError(
            f"--ids: {listed(inside)} are in the training table, and {listed(outside)} are not: explain training rows "
            f"and rows to predict in two calls.{suggest(outside[0], known)}"
        )
    data = run.read_config()["data"]
    if not inside and not (data.get("test") or data.get("sample_submission")):
        raise InputError(
            f"--ids: the training table has no row {_quoted(ids)}, and the run has no rows to predict (data.test is "
            f"not set).{suggest(ids[0], known)}",
            [f"there is no row '{id}'" for id in ids],
        )
    return bool(inside)


def _quoted(ids: Sequence[str]) -> str:
    return listed(f"'{id}'" for id in ids)


def rows_of(run: Run, ids: Sequence[str], options: ExplainOptions) -> Iterator[Row]:
    """The rows with their networks, verified to predict what the run has committed.

    Raises:
        InputError: A row or a network does not exist, a fold is not finished, or a row cannot be explained.
        RunError: A network predicts something else than it did.
    """
    run.check_trained()
    is_train = is_training(run, ids, options)
    data, device = _data_of(run, is_train, options)
    table = data.train_table if is_train else data.test_table
    place = {id: row for row, id in enumerate(table.ids)}
    if missing := [id for id in ids if id not in place]:
        raise InputError(
            f"{table.path}: there is no row {_quoted(missing)}.{suggest(missing[0], place)}",
            [f"{table.path}: there is no row '{id}'" for id in missing],
        )
    numbers = [place[id] for id in ids]
    by_networks: dict[tuple[FoldId, ...], list[int]] = {}
    for number in numbers:
        names = _out_of_fold(run, data, number) if is_train else run.finished_folds(_named(options), "--fold")
        by_networks.setdefault(tuple(names), []).append(number)
    for several, chosen in by_networks.items():
        networks = Networks.of(run, _predict_options(options, several))
        yield from _explainable(networks, data, chosen, is_train, device)


def _named(options: ExplainOptions) -> list[FoldId] | None:
    return None if options.fold is None else [options.fold]


def _predict_options(options: ExplainOptions, names: Sequence[FoldId] | None = None) -> PredictOptions:
    chosen = None if names is None else list(names)
    return PredictOptions(folds=chosen, root=options.root, device=options.device, allow_code=options.allow_code)


def _data_of(run: Run, is_train: bool, options: ExplainOptions) -> tuple[CSVDataModule, torch.device]:
    """The datamodule, set up, and the device."""
    shared = _predict_options(options)
    device, experiment = shared.torch_device(), Experiment.of_run(run, "predict", options.allow_code)
    config = experiment.config.clone()
    config.data.root = shared.root or config.data.root
    changes = {"loading": {"num_workers": 0}, "batch_size": 1, "root": config.data.root}
    if is_train:
        check_inputs(run, config, ("train",))
    elif not (config.data.test or config.data.sample_submission):
        raise InputError("--rows is test, and the run has no rows to predict: data.test is not set.")
    data = experiment.datamodule(run if is_train else None, **changes)
    if data.settings.tile is not None:
        raise InputError(
            f"{run.root} predicts large images in tiles, and a map is of one forward pass: cut out the part to "
            f"explain as an image of its own, and predict it with a run without data.target_kind.tile."
        )
    if is_train:
        data.setup("fit")
    else:
        data.schema = Schema.from_dict(run.read_schema())
        data.setup("predict")
    data.destination = Destination(device, is_command=True)
    return data, device


def _out_of_fold(run: Run, data: CSVDataModule, number: int) -> list[FoldId]:
    """The trainings that did not see a training row.

    Raises:
        InputError: Every one has, its fold is not finished, or its image is skipped.
    """
    id, fold = data.train_table.ids[number], int(data.fold_of_row[number])
    if not data.splits.train.is_used[number]:
        raise InputError(f"row '{id}' is skipped ({data.splits.status[number]}): there is nothing to explain.")
    if fold == NO_FOLD:
        raise InputError(f"row '{id}' is in no fold: no network can be named that did not train on it.")
    names = [name for name in run.planned_folds() if held_out_by(name) == fold]
    if not all(run.fold(name).is_done for name in names):
        raise InputError(
            f"row '{id}' is held out by fold {fold}, which is not finished: run `{run.resume_command}`, or explain "
            f"rows of a finished fold."
        )
    return names


def _explainable(
    networks: Networks, data: CSVDataModule, numbers: list[int], is_train: bool, device: torch.device
) -> Iterator[Row]:
    precision, experiment = networks.precision, networks.experiment
    fast = networks.choice.prediction
    nets = [experiment.network(data.schema, file, device, fast, precision) for file in networks.weights]
    names = [path.parent.name for path in networks.weights]
    committed = _committed(networks, data, is_train)
    if committed is None:
        print_line("there are no current test predictions of these networks to compare with")
    table = data.train_table if is_train else data.test_table
    loader = data.ordered_loader("val" if is_train else "predict", np.array(numbers, dtype=np.int64))
    for batch in loader:
        number = int(batch["row"][0])
        if number < 0:
            raise InputError("the image of a row cannot be used, and is skipped: there is nothing to explain.")
        more = {key: batch[key].to(device) for key in ("features", "image_mask") if key in batch}
        image = batch["image"].to(device)
        with torch.inference_mode(), autocast(precision, device):
            each = [predict_views(partial(net.predict, **more), image, networks.views) for net in nets]
            found = torch.stack(each).mean(0)[0].float().cpu()
        id = table.ids[number]
        difference = None if committed is None else _compared(id, found, committed, networks, data)
        kept = found.clone()
        yield Row(id, names, nets, image, more.get("features"), more.get("image_mask"), kept, difference)


def _committed(networks: Networks, data: CSVDataModule, is_train: bool) -> list[Predictions] | None:
    """The predictions of the networks that the run has stored; None if there are none."""
    run, count = networks.run, len(data.schema.outputs)
    if is_train:
        return [Predictions.read(run.fold(name).oof, count) for name in networks.folds]
    if not is_committed(run.test_predictions):
        return None
    try:
        made = predictions_made_with(run)
    except (InputError, StoreError):
        return None
    same = made.folds == networks.folds and made.views == [view.name for view in networks.views]
    return [Predictions.read(run.test_predictions, count)] if same and made.backend == "torch" else None


def _compared(
    id: str, found: Tensor, committed: Sequence[Predictions], networks: Networks, data: CSVDataModule
) -> float | None:
    """The largest difference of a prediction from the mean of the committed ones.

    Raises:
        RunError: It is more than rounding.
    """
    rows = [each.ids.index(id) for each in committed if id in each.ids]
    if len(rows) < len(committed):
        return None
    maps = [each.maps for each in committed]
    if found.ndim == 3:
        levels = np.mean([part.levels[row].astype(float) for part, row in zip(maps, rows, strict=True) if part], 0)
        difference, limit = float(np.abs(levels_of(found).numpy() - levels).mean()), SAME_LEVELS
    else:
        before = np.mean([each.values[row] for each, row in zip(committed, rows, strict=True)], 0)
        scale = (
            1.0
            if data.schema.base.are_probabilities
            else max(1e-12, *(float(np.abs(each.values).max()) for each in committed))
        )
        difference = float(np.abs(found.numpy() - before).max()) / scale
        is_half = half_dtype(networks.precision) is not None
        limit = SAME_IN_HALF if is_half else SAME if networks.device.type == "cpu" else SAME_ELSEWHERE
    if not difference <= limit:
        raise RunError(
            f"row '{id}': the network predicts something else than the run has committed (difference {difference:.2g}, "
            f"more than {limit:g}): its image, metadata or the versions of packages have changed since. It would be "
            f"another prediction that is explained."
        )
    return difference
