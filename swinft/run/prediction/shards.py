"""Predicts on several devices: one process for each, whose parts are joined by id."""

import os
import shutil
import tempfile
from dataclasses import fields
from pathlib import Path

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, RunError
from swinft.inference.predictions import Predictions
from swinft.run.config.parser import option_words
from swinft.run.layout import Run
from swinft.run.prediction.options import PredictOptions
from swinft.system.cluster.checks import check_nodes
from swinft.system.cluster.place import LOCAL
from swinft.system.cluster.slots import cluster_slots
from swinft.system.device import slot_of, visible_gpus
from swinft.system.processes import Child, Slot, run_children

OWN = ("part", "output", "device", "devices", "on")  # options of each process, or of their parent


def predict_parts(run: Run, options: PredictOptions, path: Path | None, kind: str, data: CSVDataModule) -> Predictions:
    """Predicts with several processes, one device each, and joins their parts.

    Args:
        run: The run.
        options: The options, the same for each process except its part of the rows.
        path: File of the joined predictions; None if they are not written. If it is outside the run, the parts are
            written beside it, because the run may be on a read-only disk.
        kind: Type of the devices; processes on the CPU share its cores, each of the others sees only one GPU.
        data: The rows.

    Returns:
        The predictions of all rows.

    Raises:
        InputError: A process has ended with exit code 2; its output says why.
        RunError: A process failed, or the parts do not have every id exactly once.
    """
    if path is None and options.on == LOCAL:
        folder = Path(tempfile.mkdtemp(prefix="swinft-parts-"))
    else:
        folder = run.parts if path in (None, run.test_predictions) else path.with_name(f".{path.name}.parts")
    devices = min(options.devices, len(data.test_table))
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // devices))} if kind == "cpu" else {}
    shutil.rmtree(folder, ignore_errors=True)  # files of a prediction that was killed
    parts = [folder / f"{index}-of-{devices}.csv" for index in range(devices)]
    children = {}
    shared = [field.name for field in fields(options) if field.name not in OWN]
    for index, part in enumerate(parts):
        own = ["--part", f"{index}/{devices}", "--output", str(part), "--device", kind]
        children[index] = Child(
            ["predict", str(run.root), *option_words(options, shared), *own], threads, name=f"part {index}/{devices}"
        )
    try:
        slots = _slots(options, kind, devices, folder)
        codes = run_children(children, slots, together=True, on=options.on)
        if any(codes.values()):
            problem = f"the processes that predict ended with the exit codes {codes}; no predictions are written."
            raise InputError(f"{problem} What to change is above.") if 2 in codes.values() else RunError(problem)
        joined = Predictions.concat([Predictions.read(part, len(data.schema.outputs)) for part in parts])
        return joined.join(data.test_table.ids, f"the parts in {folder}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _slots(options: PredictOptions, kind: str, devices: int, folder: Path) -> list[Slot]:
    """The devices of the processes.

    Raises:
        InputError: A node of the cluster lacks what a process needs there.
    """
    if options.on != LOCAL:
        folder.mkdir(parents=True, exist_ok=True)
        check_nodes(options.on, folder, [Path(path) for path in (options.root, options.test) if path])
        return cluster_slots(options.on, int(kind == "cuda"), devices, options.device == "cpu")
    # If a process saw all GPUs, it would open a second context, of hundreds of MB, on the first one.
    return [slot_of([name]) for name in visible_gpus()[:devices]] if kind == "cuda" else [{}] * devices
