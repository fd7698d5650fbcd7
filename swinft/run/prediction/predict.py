"""Predicts rows with all folds and views of a run, and averages in the competition's units."""

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from swinft.data.datamodule import CSVDataModule
from swinft.data.inspection.scan import scan
from swinft.data.loading.workers import Destination, explain_worker_crash
from swinft.data.schema import Schema
from swinft.data.sources.source import is_absent
from swinft.data.splits import OK
from swinft.errors import RunError, command, number_of
from swinft.inference.compiled import nets_by_torch
from swinft.inference.finite import Origin
from swinft.inference.predictions import Predictions
from swinft.inference.predictor import Predictor, predict_rows, print_work
from swinft.inference.provenance import PREDICT, Provenance, other_views
from swinft.inference.tta import View, check_views, chosen_views
from swinft.model.compiling import CompilePolicy
from swinft.model.network import ImageModel
from swinft.printing import format_seconds, print_line
from swinft.run.compute.choices import Choice, choice_to_predict, halved
from swinft.run.compute.out_of_memory import explain_in_prediction, out_of_memory_explained
from swinft.run.compute.selection import select_attention
from swinft.run.config.trust import built_by_name
from swinft.run.ensemble.predict import predict_ensemble
from swinft.run.environment import trained_in
from swinft.run.experiment import Experiment
from swinft.run.fold_files import FoldId
from swinft.run.folds.kept import kept_epochs
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.prediction.options import PredictOptions
from swinft.run.prediction.shards import predict_parts
from swinft.run.provenance import check_output, weights_of, write_made_from
from swinft.system.allocator import keep_freed_memory
from swinft.system.precision import Precision, prediction_precision


def predict(run: Run, options: PredictOptions, writes: bool = True) -> Predictions:
    """Predicts rows with every fold of a run, averages, and prints a summary.

    Args:
        run: The run.
        options: The options of the prediction.
        writes: Whether to write the predictions, to `options.output` or the run's test_predictions.csv.

    Returns:
        The predictions, in the order of the table, with their provenance.

    Raises:
        InputError: A fold is not finished, or the rows are wrong.
        RunError: One of several processes failed.
    """
    if run.is_ensemble:
        return predict_ensemble(run, options, writes)
    path = (Path(options.output) if options.output else run.test_predictions) if writes else None
    with nullcontext() if options.part else hold_if_writable(run.lock):  # for a part, the parent holds the lock
        if path:
            check_output(run, path, PREDICT)
        experiment = Experiment.of_run(run, "predict", options.allow_code)
        chosen, device = run.finished_folds(options.folds), options.torch_device()
        choice = choice_to_predict(run, experiment.config, device)
        experiment = experiment.with_config(halved(experiment.config, choice.halvings))
        data = _rows_to_predict(run, experiment, options)
        oof_views = experiment.views()
        views = oof_views if options.views is None else _requested_views(options)
        check_views(views, *data.settings.shown_to_network)
        predictors = _predictors(run, experiment, options, chosen, choice, device)
        made_with = _provenance(run, predictors, chosen, views)
        started = time.perf_counter()
        if options.devices > 1:
            resolved = replace(options, precision=predictors.precision)
            found = predict_parts(run, resolved, path, device.type, data)
        else:
            found = _predict_share(predictors, data, options.share(), views, device)
        found = replace(found, provenance=made_with)
        took = format_seconds(time.perf_counter() - started)
        if options.part and path:
            found.write(path, PREDICT)
            print(f"part {options.part}: {number_of(len(found), 'row')} in {took}")
            return found
        if path:
            made_from = {"rows": len(found), "provenance": asdict(made_with)}
            write_made_from(run, path, found.to_bytes(), PREDICT, made_from)
        _print_summary(run, path, found, took, oof_views)
    return found


def _requested_views(options: PredictOptions) -> list[View]:
    """The views of a command line: names, and class paths of custom views, which get no arguments.

    Raises:
        InputError: There is no such view, or its class is not allowed.
    """
    allowed = options.allow_code or []
    return chosen_views(
        [
            built_by_name(name, "predict.views", "--views", allowed) if "." in name else name
            for name in options.views or []
        ]
    )


def _rows_to_predict(run: Run, experiment: Experiment, options: PredictOptions) -> CSVDataModule:
    """The datamodule, with the rows to predict read and checked."""
    config = experiment.config
    batch_size = options.batch_size or config.predict.batch_size or 2 * config.data.batch_size
    changes: dict[str, Any] = {"batch_size": batch_size}
    changes |= {} if options.num_workers is None else {"loading": {"num_workers": options.num_workers}}
    changes |= {"root": options.root} if options.root else {}
    # Relative to the working folder, not to the data's folder.
    changes |= {"test": str(Path(options.test).resolve())} if options.test else {}
    data = experiment.datamodule(**changes)
    data.schema = Schema.from_dict(run.read_schema())
    data.setup("predict")
    for note in [] if options.part else data.notes:
        print_line(f"  {note}")
    return data


def _predictors(
    run: Run,
    experiment: Experiment,
    options: PredictOptions,
    chosen: list[FoldId],
    choice: Choice,
    device: torch.device,
) -> "_Predictors":
    """The weights of the chosen folds, with precision and attention."""
    config = experiment.config
    requested: Precision = "32-true" if options.backend == "openvino" else options.precision
    precision, note = prediction_precision(requested, trained_in(run, chosen), device)
    if note:
        print(f"  {note}")
    policy = config.predict.compile if options.compile is None else options.compile
    weights = [run.fold(index).weights for index in chosen]
    return _Predictors(experiment, choice, weights, options.backend, policy, precision)


def _provenance(run: Run, predictors: "_Predictors", chosen: list[FoldId], views: Sequence[View]) -> Provenance:
    return Provenance(
        chosen,
        run.planned_folds(),
        [view.name for view in views],
        predictors.backend,
        predictors.precision,
        str(kept_epochs(predictors.experiment.config.checkpoint)),
        weights_of(run, chosen),
    )


@dataclass(frozen=True)
class _Predictors:
    """Loads the networks of some folds, ready to predict."""

    experiment: Experiment
    choice: Choice
    weights: list[Path]
    backend: str
    policy: CompilePolicy
    precision: Precision

    def load(self, data: CSVDataModule, loader: DataLoader[Any], views: Sequence[View], device: torch.device) -> Any:
        """The networks on their device, compiled if configured."""
        # OpenVINO compiles timm's attention.
        is_openvino, precision = self.backend == "openvino", self.precision
        fast = False if is_openvino else self.choice.prediction
        loaded = [self.experiment.network(data.schema, file, device, fast, precision) for file in self.weights]
        if is_openvino:
            return _by_openvino(loaded, data.image_size)
        if fast == "auto" and self.policy is not True:  # a compiled network would be timed eagerly
            images = len(loader.sampler) * len(views)  # type: ignore[arg-type]  # of this process
            select_attention(loaded, images, data.batch_size, data.image_size, device, precision)
        return nets_by_torch(loaded, loader, views, device, self.policy, precision, data.image_size)


def _predict_share(
    predictors: _Predictors, data: CSVDataModule, share: tuple[int, int], views: Sequence[View], device: torch.device
) -> Predictions:
    """The predictions of this process's part of the rows."""
    precision = predictors.precision
    keep_freed_memory(device)
    data.destination = Destination(device, devices=share[1], is_command=True)
    if device.type == "cuda":  # pinned memory opens a context on the current device, by default the first GPU
        torch.cuda.set_device(device)
    loader = data.predict_dataloader(share)
    print(loader.plan)
    other = precision if predictors.backend == "torch" else None  # OpenVINO has one precision
    needs = (data.batch_size, len(predictors.weights), share[1], device, other)
    with (
        explain_worker_crash("", "", "--num-workers 0"),
        out_of_memory_explained(lambda error: explain_in_prediction(error, *needs)),
    ):
        nets: Sequence[Predictor] = predictors.load(data, loader, views, device)
        print_work(nets, loader, views, device, precision)
        origin = Origin(data.test_table.ids, predictors.weights, "Predict with --precision 32-true.")
        label = f"part {share[0]}/{share[1]}" if share[1] > 1 else "predict"
        rows, values = predict_rows(nets, loader, views, device, precision, origin, label)
    return complete(rows, values, data, range(share[0], len(data.test_table), share[1]))


def _print_summary(run: Run, path: Path | None, found: Predictions, took: str, oof_views: Sequence[View]) -> None:
    """Prints what was predicted, the provenance, and the next command."""
    assert found.provenance
    print_line(
        f"{number_of(len(found), 'row')} in {took}, columns {', '.join(found.outputs)}{f': {path}' if path else ''}"
    )
    print_line(f"  {found.provenance.describe()}")
    if note := other_views(found.provenance, [view.name for view in oof_views]):
        print_line(f"  {note}")
    if path:
        is_own = path.resolve() == run.test_predictions.resolve()
        print(f"next: {command('submit', run.root, *([] if is_own else ['--predictions', path]))}")


def complete(
    rows: NDArray[np.int64], values: NDArray[np.float32], data: CSVDataModule, wanted: Sequence[int]
) -> Predictions:
    """The predictions of test rows, in the table's order.

    Args:
        rows: Rows that were predicted, each once.
        values: Their predictions (N, K).
        data: The datamodule. If it skips bad images, their rows get the mean of the training rows.
        wanted: All rows that must be predicted.

    Raises:
        RunError: A row is predicted twice, or not at all although it may not be skipped, or a prediction is not finite.
    """
    if not np.isfinite(values).all():
        raise RunError("predictions are NaN or infinite: nothing is written.")
    skipped = sorted(set(wanted) - set(rows.tolist())) if data.settings.loading.on_bad_image == "skip" else []
    ids, expected = data.test_table.ids, set(wanted) - set(skipped)
    for row in skipped:
        errors = scan(data.images_of("predict", [row])).errors.values()
        missing = [] if data.splits.test.shown is None else [f"id '{ids[row]}' has no image."]
        for problem in [error for error in errors if not is_absent(error)] or missing:
            print(f"skipped, predicted as the mean of the training rows: {problem}", file=sys.stderr)
    found = Predictions([ids[row] for row in rows], values, data.schema.outputs)
    whole = found.join([ids[row] for row in wanted if row in expected], "what was predicted")
    status = ["bad image" if row in skipped else OK for row in wanted] if data.may_skip else None
    return replace(whole.among([ids[row] for row in wanted], data.schema.prior if skipped else np.nan), status=status)


def _by_openvino(nets: Sequence[ImageModel], image_size: tuple[int, int]) -> Sequence[Predictor]:
    """The networks compiled by OpenVINO, each compared with torch."""
    from swinft.inference.openvino import compile_net  # optional, and slow to import

    compiled = [compile_net(net, image_size) for net in nets]
    largest = max(net.deviation for net in compiled)
    print(f"compiled by OpenVINO; largest difference from torch: {largest:.1e} of the range")
    return compiled
