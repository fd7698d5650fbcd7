"""Checkpoints and a table to predictions: all folds, all views, averaged in the competition's units."""

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from swinft.data.datamodule import OK, CSVDataModule
from swinft.data.inspection.scan import scan
from swinft.data.loading.feeding import Destination, NumWorkers, explained_deaths
from swinft.data.schema import Schema
from swinft.errors import InputError, RunError, command, number_of
from swinft.inference.compiled import nets_by_torch
from swinft.inference.finite import Origin
from swinft.inference.predictions import Predictions
from swinft.inference.predictor import Predictor, predict_rows, print_budget
from swinft.inference.provenance import Provenance, other_views
from swinft.inference.tta import View, check_views
from swinft.model.compiling import CompilePolicy
from swinft.model.network import ImageModel
from swinft.printing import format_seconds, say
from swinft.ranges import COUNT, check_ranges
from swinft.run.compute.choices import Choice, choice_to_predict
from swinft.run.compute.out_of_memory import explain_in_prediction, out_of_memory_explained
from swinft.run.compute.settle import settle_prediction
from swinft.run.config.parser import call
from swinft.run.environment import trained_in
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.provenance import check_output, weights_of, write_made_from
from swinft.run.shards import predict_parts
from swinft.system.allocator import keep_freed_memory
from swinft.system.device import check_usable
from swinft.system.precision import Precision, choose_device, prediction_precision

MAKER = "swinft predict"


def predict(
    run: str,
    views: list[View] | None = None,
    folds: list[int] | None = None,
    root: str | None = None,
    test: str | None = None,
    batch_size: int | None = None,
    num_workers: NumWorkers | None = None,
    device: str = "auto",
    devices: int = 1,
    backend: Literal["torch", "openvino"] = "torch",
    compile: CompilePolicy | None = None,
    precision: Precision = "auto",
    output: str | None = None,
    part: str | None = None,
    allow_code: list[str] | None = None,
) -> None:
    """Predicts the test rows with every fold of a run and averages.

    Args:
        run: The run folder.
        views: Test-time augmentations; by default the config's `predict.views`.
        folds: Folds to average; by default all of them.
        root: The data's folder where it is another than in training; the training rows need not be there. By default
            the config's `data.root`.
        test: A CSV of rows to predict; by default the config's `data.test` or sample submission.
        batch_size: Images per batch; by default the config's.
        num_workers: Processes that decode, for each device, or `auto`; by default the config's.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        devices: Devices of this kind that share the rows, one process each.
        backend: What computes. `openvino` is for CPUs, several times as fast as torch there; it needs
            `pip install 'swinft[openvino]'`, and is compared with torch before it is used.
        compile: Compile the backbone with `torch.compile`, or `auto`; by default the config's `predict.compile`.
        precision: Number format of the networks: `32-true`, `bf16-mixed`, `16-mixed` (GPUs only), or `auto` for what
            the folds were trained in where the device has units for it, and 32-true elsewhere.
        output: Where the predictions go; by default the run's test_predictions.csv.
        part: A share of the rows, `0/4` to `3/4`, into `output`: what `devices` starts, one process for each.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: A fold is not finished, or the test rows are not right.
        RunError: One of several processes failed.
    """
    check_ranges("", {"--batch-size": batch_size, "--devices": devices}, {"--batch-size": COUNT, "--devices": COUNT})
    share = _share(part, devices, output)
    opened = Run.open(run)
    path = Path(output) if output else opened.test_predictions
    with nullcontext() if part else hold_if_writable(opened.lock):  # the parts' parent holds it
        check_output(opened, path, MAKER)
        experiment = Experiment.of_run(opened, "predict", allow_code)
        config = experiment.config
        schema = Schema.from_dict(opened.read_schema())
        chosen = opened.finished_folds(folds)
        place = _place(device, devices, backend, compile, precision)
        changes: dict[str, Any] = {"schema": schema}
        changes["batch_size"] = batch_size or config.predict.batch_size or 2 * config.data.batch_size
        changes |= {} if num_workers is None else {"num_workers": num_workers}
        changes |= {"root": root} if root else {}
        # Typed in a shell: not relative to the data's folder.
        changes |= {"test": str(Path(test).resolve())} if test else {}
        data = experiment.datamodule(**changes)
        data.setup("predict")
        for note in [] if part else data.notes:
            say(f"  {note}")
        views = config.predict.views if views is None else views
        check_views(views, data.image_size)
        choice = choice_to_predict(opened, config, place)
        asked: Precision = "32-true" if backend == "openvino" else precision
        settled, note = prediction_precision(asked, trained_in(opened, chosen), place)
        if note:
            print(f"  {note}")
        weights = weights_of(opened, chosen)
        made_with = Provenance(
            chosen, opened.planned_folds(), list(views), backend, settled, config.checkpoint, weights
        )
        started = time.perf_counter()
        if devices > 1:
            options = {"views": views, "folds": folds, "root": root, "test": test, "batch_size": batch_size}
            options |= {"num_workers": num_workers, "backend": backend, "compile": compile, "allow_code": allow_code}
            options |= {"precision": settled}
            table = predict_parts(opened, options, path, place.type, min(devices, len(data.test_table)), data)
        else:
            policy = config.predict.compile if compile is None else compile
            files = [opened.fold(index).weights for index in chosen]
            predictors = _Predictors(experiment, choice, files, backend, policy)
            table = _predict_table(predictors, data, share, views, place, settled)
        took = format_seconds(time.perf_counter() - started)
        if part:
            table.write(path, MAKER)
            print(f"part {part}: {number_of(len(table), 'row')} in {took}")
            return
        write_made_from(opened, path, table.to_bytes(), MAKER, {"rows": len(table), "provenance": asdict(made_with)})
        _say(opened, path, table, took, made_with, config.predict.views)


@dataclass(frozen=True)
class _Predictors:
    """What it takes to make the networks of some folds ready to predict."""

    experiment: Experiment
    choice: Choice
    weights: list[Path]
    backend: str
    policy: CompilePolicy

    def load(
        self,
        data: CSVDataModule,
        loader: DataLoader[Any],
        views: Sequence[View],
        place: torch.device,
        precision: Precision,
    ) -> Any:
        """The networks, on their device and compiled where that is wanted."""
        # OpenVINO compiles timm's own computation.
        is_openvino = self.backend == "openvino"
        fast = False if is_openvino else self.choice.prediction
        loaded = [self.experiment.network(data.schema, file, place, fast, precision) for file in self.weights]
        if is_openvino:
            return _by_openvino(loaded, data.image_size)
        if fast == "auto" and self.policy is not True:  # what is compiled is not what would be timed
            images = len(loader.sampler) * len(views)  # type: ignore[arg-type]  # of this process's share
            settle_prediction(loaded, images, data.batch_size, data.image_size, place, precision)
        return nets_by_torch(loaded, loader, views, place, self.policy, precision, data.image_size)


def _predict_table(
    predictors: _Predictors,
    data: CSVDataModule,
    share: tuple[int, int],
    views: Sequence[View],
    place: torch.device,
    precision: Precision,
) -> Predictions:
    """The prediction table of this process's share of the test rows."""
    keep_freed_memory(place)
    data.destination = Destination(place, devices=share[1], is_command=True)
    if place.type == "cuda":  # page-locked memory opens a context on the current device, which is the first GPU
        torch.cuda.set_device(place)
    loader = data.predict_dataloader(share)
    print(loader.feeding)
    other = precision if predictors.backend == "torch" else None  # OpenVINO has one precision
    needs = (data.batch_size, len(predictors.weights), share[1], place, other)
    with (
        explained_deaths("", "", "--num-workers 0"),
        out_of_memory_explained(lambda error: explain_in_prediction(error, *needs)),
    ):
        nets: Sequence[Predictor] = predictors.load(data, loader, views, place, precision)
        print_budget(nets, loader, views, place, precision)
        origin = Origin(data.test_table.ids, predictors.weights, "Predict with --precision 32-true.")
        rows, values = predict_rows(nets, loader, views, place, precision, origin)
    return complete(rows, values, data, range(share[0], len(data.test_table), share[1]))


def _say(run: Run, path: Path, table: Predictions, took: str, made_with: Provenance, oof_views: Sequence[View]) -> None:
    """What was predicted, with what, and the next command."""
    say(f"{number_of(len(table), 'row')} in {took}, columns {', '.join(table.outputs)}: {path}")
    say(f"  {made_with.describe()}")
    if note := other_views(made_with, oof_views):
        say(f"  {note}")
    is_own = path.resolve() == run.test_predictions.resolve()
    print(f"next: {command('submit', run.root, *([] if is_own else ['--predictions', path]))}")


def _place(
    device: str, devices: int, backend: str, compile: CompilePolicy | None, precision: Precision
) -> torch.device:
    """The device, or the kind of devices, to predict on.

    Raises:
        InputError: There are not so many, or the backend cannot work there or has no such option.
    """
    place = choose_device("cpu" if backend == "openvino" and device == "auto" else device)
    if devices > 1:
        _check_devices(device, place, devices)
    if backend == "openvino" and place.type != "cpu":
        raise InputError(f"--backend openvino predicts on the CPU, not on {place}. Remove --device or --backend.")
    if backend == "openvino" and compile is not None:
        raise InputError("--compile is torch's, and OpenVINO always compiles. Remove --compile or --backend.")
    if backend == "openvino" and precision not in ("auto", "32-true"):
        raise InputError(f"--backend openvino is 32-true, not {precision}. Remove --precision or --backend.")
    first = place.index or 0
    used = [torch.device(place.type, first + index) for index in range(devices)] if place.type == "cuda" else [place]
    check_usable(used, "add --device cpu")
    return place


def complete(
    rows: NDArray[np.int64], values: NDArray[np.float32], data: CSVDataModule, wanted: Sequence[int]
) -> Predictions:
    """The predictions of test rows, in the table's order.

    Args:
        rows: Rows that were predicted, each once.
        values: Their predictions (N, K).
        data: Where the rows come from. Where it lets images be skipped, a skipped row has the training rows' mean.
        wanted: All rows that must be predicted.

    Raises:
        RunError: A row is predicted twice, has a prediction that is no number, or none although it may not be skipped.
    """
    if not np.isfinite(values).all():
        raise RunError("predictions are NaN or infinite: nothing is written.")
    skipped = sorted(set(wanted) - set(rows.tolist())) if data.on_bad_image == "skip" else []
    for problem in scan(data.images_of("predict", skipped)).errors.values():
        print(f"skipped, predicted as the mean of the training rows: {problem}", file=sys.stderr)
    ids, expected = data.test_table.ids, set(wanted) - set(skipped)
    found = Predictions([ids[row] for row in rows], values, data.schema.outputs)
    whole = found.join([ids[row] for row in wanted if row in expected], "what was predicted")
    status = ["bad image" if row in skipped else OK for row in wanted] if data.may_skip else None
    return replace(whole.among([ids[row] for row in wanted], data.schema.prior if skipped else np.nan), status=status)


def _by_openvino(nets: Sequence[ImageModel], image_size: tuple[int, int]) -> Sequence[Predictor]:
    """The networks compiled by OpenVINO, each compared with torch."""
    from swinft.inference.openvino import compile_net  # an extra, and slow to import

    compiled = [compile_net(net, image_size) for net in nets]
    print(f"compiled by OpenVINO, at most {max(net.deviation for net in compiled):.1e} of the range away from torch")
    return compiled


def _check_devices(named: str, place: torch.device, devices: int) -> None:
    """Refuses to share rows among devices that are not there.

    Raises:
        InputError: `--device` names a single one, or there are fewer GPUs.
    """
    kind, _, index = named.partition(":")
    if index:
        raise InputError(f"--device {named} names one device, --devices {devices} several: give --device {kind}.")
    if place.type == "cuda" and devices > torch.cuda.device_count():
        raise InputError(
            f"--devices is {devices}, but there {number_of(torch.cuda.device_count(), 'GPU', verb='is')} here."
        )


def _share(part: str | None, devices: int, output: str | None) -> tuple[int, int]:
    """`1/4` as (1, 4); all rows as (0, 1)."""
    if devices < 1:
        raise InputError(f"--devices is {devices}; it must be at least 1.")
    if part is None:
        return 0, 1
    index, _, count = part.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)) or devices > 1 or not output:
        raise InputError(f"--part {part}: write 0/4 to 3/4 for four parts, with --output and without --devices.")
    return int(index), int(count)


def main(argv: list[str]) -> int:
    """`swinft predict RUN`."""
    return call(predict, "predict", argv)
