"""Prediction shared among devices: a process for each, and their parts joined by id."""

import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, RunError
from swinft.inference.predictions import Predictions
from swinft.run.layout import Run
from swinft.run.prediction.options import PredictOptions
from swinft.system.device import slot_of, visible_gpus
from swinft.system.processes import Child, Slot, run_children


def predict_parts(run: Run, options: PredictOptions, path: Path | None, kind: str, data: CSVDataModule) -> Predictions:
    """Predicts with several processes, one device each, and joins what they write.

    Args:
        run: The run.
        options: The same for each process but for its part of the rows.
        path: Where the joined predictions will go; None where they are not kept. Where that is outside the run, the
            parts lie beside it until they are joined, because the run may be on a disk that cannot be written to.
        kind: Type of the devices; processes on the CPU share its cores, and each of the others sees one GPU only.
        data: The rows.

    Returns:
        The predictions of all rows.

    Raises:
        InputError: A process has refused what it was given, and said why.
        RunError: A process failed, or the parts do not hold every id exactly once.
    """
    if path is None:
        folder = Path(tempfile.mkdtemp(prefix="swinft-parts-"))
    else:
        folder = run.parts if path == run.test_predictions else path.with_name(f".{path.name}.parts")
    devices = min(options.devices, len(data.test_table))
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // devices))} if kind == "cpu" else {}
    shutil.rmtree(folder, ignore_errors=True)  # what a prediction that was killed has left
    parts = [folder / f"{index}-of-{devices}.csv" for index in range(devices)]
    children = {}
    for index, part in enumerate(parts):
        words = ["predict", str(run.root), *_words(options), "--part", f"{index}/{devices}", "--output", str(part)]
        children[index] = Child([*words, "--device", kind], threads)
    # A process that saw all GPUs would open a second context, of hundreds of MB, on the first of them.
    slots: list[Slot] = [slot_of([name]) for name in visible_gpus()[:devices]] if kind == "cuda" else [{}] * devices
    try:
        codes = run_children(children, slots, together=True)
        if any(codes.values()):
            said = f"the processes that predict ended with the exit codes {codes}; nothing is joined."
            raise InputError(f"{said} What to change is above.") if 2 in codes.values() else RunError(said)
        joined = Predictions.concat([Predictions.read(part, len(data.schema.outputs)) for part in parts])
        return joined.join(data.test_table.ids, f"the parts in {folder}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _words(options: PredictOptions) -> list[str]:
    """Options as words of a command line, without those that are not given, and those of each process."""
    own = ("part", "output", "device", "devices")
    given = {name: value for name, value in asdict(options).items() if value is not None and name not in own}
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in given.items()
    }
    return [word for name, text in texts.items() for word in (f"--{name}", text)]
