"""Predicts rows with all folds and views of a run, and averages in the competition's units."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from swinft.data.datamodule import CSVDataModule
from swinft.data.loading.workers import Destination, explain_worker_crash
from swinft.data.schema import Schema
from swinft.errors import number_of
from swinft.inference.finite import Origin
from swinft.inference.maps import write_maps
from swinft.inference.predictions import Predictions
from swinft.inference.predictor import Predictor, predict_rows, print_work
from swinft.inference.provenance import PREDICT, other_views
from swinft.inference.tta import View, check_views
from swinft.printing import format_seconds, print_line
from swinft.run.compute.out_of_memory import explain_in_prediction, out_of_memory_explained
from swinft.run.embed.predict import predict_member
from swinft.run.ensemble.predict import predict_ensemble
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.prediction.complete import complete
from swinft.run.prediction.networks import Networks
from swinft.run.prediction.options import PredictOptions
from swinft.run.prediction.shards import predict_parts
from swinft.run.provenance import check_output, is_own, submit_command, write_made_from
from swinft.run.room import COPIES, FLOAT, refuse_too_much
from swinft.system.allocator import keep_freed_memory


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
        return (predict_member if run.is_embedding else predict_ensemble)(run, options, writes)
    path = (Path(options.output) if options.output else run.test_predictions) if writes else None
    with nullcontext() if options.part else hold_if_writable(run.lock):  # for a part, the parent holds the lock
        if path:
            check_output(run, path, PREDICT)
        networks = Networks.of(run, options)
        data = _rows_to_predict(networks, options)
        check_views(networks.views, *data.settings.shown_to_network)
        made_with = networks.provenance()
        started = time.perf_counter()
        if options.is_divided:
            resolved = replace(options, precision=networks.precision)
            found = predict_parts(run, resolved, path, networks.device.type, data)
        else:
            found = _predict_share(networks, data, options.share())
        found = replace(found, provenance=made_with)
        took = format_seconds(time.perf_counter() - started)
        if options.part and path:
            found.write(path, PREDICT)
            print(f"part {options.part}: {number_of(len(found), 'row')} in {took}")
            return found
        if path:
            if found.maps is not None:
                write_maps(path, found.maps, found.ids, PREDICT, is_own(run, path, PREDICT))
            made_from = {"rows": len(found), "provenance": asdict(made_with)}
            write_made_from(run, path, found.write_to, PREDICT, made_from)
        _print_summary(run, path, found, took, networks.oof_views)
    return found


def _rows_to_predict(networks: Networks, options: PredictOptions) -> CSVDataModule:
    """The datamodule, with the rows to predict read and checked."""
    changes: dict[str, Any] = {"batch_size": networks.batch_size(options)}
    changes |= {} if options.num_workers is None else {"loading": {"num_workers": options.num_workers}}
    changes |= {"root": options.root} if options.root else {}
    # Relative to the working folder, not to the data's folder.
    changes |= {"test": str(Path(options.test).resolve())} if options.test else {}
    data = networks.experiment.datamodule(**changes)
    data.schema = Schema.from_dict(networks.run.read_schema())
    data.setup("predict")
    if not data.schema.base.are_maps:
        rows, outputs = len(data.test_table), len(data.schema.outputs)
        refuse_too_much(
            FLOAT * rows * outputs * COPIES,
            f"the predictions of {rows:,} rows and {outputs:,} outputs",
            "Predict parts of the rows: `--test PART.csv --output FILE.csv` for each.",
        )
    for note in [] if options.part else data.notes:
        print_line(f"  {note}")
    return data


def _predict_share(networks: Networks, data: CSVDataModule, share: tuple[int, int]) -> Predictions:
    """The predictions of this process's part of the rows."""
    device = networks.device
    keep_freed_memory(device)
    data.destination = Destination(device, devices=share[1], is_command=True)
    if device.type == "cuda":  # pinned memory opens a context on the current device, by default the first GPU
        torch.cuda.set_device(device)
    loader = data.predict_dataloader(share)
    print(loader.plan)
    with explained(networks, data.batch_size, share[1]), explain_worker_crash("", "", "--num-workers 0"):
        images = len(loader.sampler)  # type: ignore[arg-type]  # of this process
        nets = networks.load(data, device, images, len(loader))
        print_work(nets, loader, networks.views, device, networks.precision)
        label = f"part {share[0]}/{share[1]}" if share[1] > 1 else "predict"
        return predicted(networks, nets, data, loader, range(share[0], len(data.test_table), share[1]), label)


@contextmanager
def explained(networks: Networks, batch_size: int, devices: int = 1) -> Iterator[None]:
    """Explains what is raised where a device has too little memory."""
    other = networks.precision if networks.backend == "torch" else None  # OpenVINO has one precision
    needs = (batch_size, len(networks.folds), devices, networks.device, other)
    with out_of_memory_explained(lambda error: explain_in_prediction(error, *needs)):
        yield


def predicted(
    networks: Networks,
    nets: Sequence[Predictor],
    data: CSVDataModule,
    loader: DataLoader[Any],
    wanted: Sequence[int],
    label: str | None = None,
) -> Predictions:
    """The predictions of the rows of a loader, in the table's order.

    Args:
        networks: What predicts.
        nets: The loaded networks.
        data: The datamodule.
        loader: Its loader of the rows.
        wanted: All rows that must be predicted.
        label: Prefix of the progress line; None for none.
    """
    origin = Origin(data.test_table.ids, networks.weights, "Predict with --precision 32-true.")
    found = predict_rows(nets, loader, networks.views, networks.device, networks.precision, origin, label)
    return complete(*found, data, wanted)


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
        print(f"next: {submit_command(run, path)}")
