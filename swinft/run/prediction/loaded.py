"""Loaded networks of a run, which predict rows in this process, again and again: for a server or a notebook."""

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from swinft.data.datamodule import CSVDataModule
from swinft.data.given_rows import GivenRows
from swinft.data.loading.workers import Destination
from swinft.data.schema import Schema
from swinft.errors import InputError, suggest
from swinft.inference.predictions import Predictions
from swinft.inference.tta import check_views
from swinft.printing import print_line
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.prediction.networks import Networks
from swinft.run.prediction.options import PredictOptions
from swinft.run.prediction.predict import explained, predicted
from swinft.run.python_inputs import FRAME, frame_content
from swinft.system.allocator import keep_freed_memory


class RowReader:
    """Reads rows of DataFrames like those of a run's test table.

    Args:
        run: The run.
        experiment: Its experiment.
        options: How to predict.
        batch_size: Images per batch.
        on_bad_image: In the place of the config's `data.loading.on_bad_image`; None for that.
    """

    def __init__(
        self, run: Run, experiment: Experiment, options: PredictOptions, batch_size: int, on_bad_image: str | None
    ) -> None:
        loading: dict[str, Any] = {"num_workers": options.num_workers or 0}
        loading |= {} if on_bad_image is None else {"on_bad_image": on_bad_image}
        arguments: dict[str, Any] = {"batch_size": batch_size, "loading": loading, "test": FRAME}
        arguments |= {"root": options.root} if options.root else {}
        self._arguments = experiment.data_arguments(**arguments)
        self.schema = Schema.from_dict(run.read_schema())
        self._noted: set[str] = set()

    def datamodule(self, root: str | Path | None = None) -> CSVDataModule:
        """A datamodule without rows."""
        data = CSVDataModule(**{**self._arguments, **({} if root is None else {"root": str(root)})})
        data.schema = self.schema
        return data

    def read(self, rows: pd.DataFrame, root: str | Path | None, images: str | None) -> CSVDataModule:
        """A datamodule of rows, checked; arguments and errors as of `RunPredictor.predict`.

        Raises:
            InputError: The rows are no DataFrame, or have no such column of images.
        """
        if not isinstance(rows, pd.DataFrame):
            raise InputError(f"rows are a {type(rows).__name__}; give a pandas.DataFrame, of one row or many.")
        data = self.datamodule(root)
        data.splits.given_rows = self._given(rows, data, images)
        data.setup("predict")
        for note in data.notes:
            if (kind := re.sub(r"[0-9,.]+", "0", note)) not in self._noted:  # once, not with every row
                self._noted.add(kind)
                print_line(f"  {note}")
        return data

    def _given(self, rows: pd.DataFrame, data: CSVDataModule, images: str | None) -> GivenRows:
        """The rows as a CSV in memory, with their images if they are in a column."""
        settings = data.settings
        names = [settings.columns.id_of(settings.id, is_sample=False)[0], *settings.columns.categories]
        if images is None:
            names += settings.test_image.columns
            return GivenRows(frame_content(rows, names, settings.columns.encoding), len(rows))
        if images not in rows.columns:
            raise InputError(f"images: {FRAME} has no column '{images}'.{suggest(images, map(str, rows.columns))}")
        if list(rows.columns).count(images) > 1:
            raise InputError(f"images: {FRAME} has several columns '{images}'. Give them different names.")
        content = frame_content(rows.drop(columns=images), names, settings.columns.encoding)
        return GivenRows(content, len(rows), images, rows[images].tolist())


class RunPredictor:
    """The networks of a run on their device; `swinft.open_run(folder).predictor()` returns it.

    It writes no file and starts no process. Threads may share it: their calls follow one another.

    Args:
        run: The run.
        options: How to predict.
        on_bad_image: In the place of the config's `data.loading.on_bad_image`; None for that.

    Raises:
        InputError: A fold is not finished, or an option is wrong.
    """

    def __init__(self, run: Run, options: PredictOptions, on_bad_image: str | None = None) -> None:
        self._lock = threading.Lock()
        with hold_if_writable(run.lock):
            self._networks = networks = Networks.of(run, options)
            batch_size = networks.batch_size(options)
            self._reader = RowReader(run, networks.experiment, options, batch_size, on_bad_image)
            self._made_with = networks.provenance()
            data = self._reader.datamodule()
            check_views(networks.views, *data.settings.shown_to_network)
            keep_freed_memory(networks.device)
            with explained(networks, batch_size):
                self._nets = networks.load(data, networks.device)

    def __repr__(self) -> str:
        return f"predictor of {self._networks.run.root}: {self._made_with.describe()} on {self._networks.device}"

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return list(self._reader.schema.outputs)

    def predict(self, rows: pd.DataFrame, *, root: str | Path | None = None, images: str | None = None) -> Predictions:
        """Predicts rows with every fold and averages, with the values of `swinft predict`.

        Batches are made of the rows of a call in their order. With the same batches, the values are those of
        `swinft predict` to the last bit; a row that is predicted alone, or in a batch of another size, may differ in
        the last digits, as sums are then computed in another order.

        Args:
            rows: The columns of the run's test table: the id, those that the image path is made of, and metadata; ids
                as text.
            root: Folder of the images, in the place of `data.root`.
            images: Column with the images themselves: bytes of an image file, a numpy array of RGB or grey pixels, or
                an image of Pillow; in a list where rows have several. Bytes give the values of the file; pixels those
                of a PNG with them, which for a large JPEG are not those of the JPEG, as it is decoded at reduced size.

        Returns:
            Ids, values and outputs. Where `data.loading.on_bad_image` is `skip`, rows without a usable image have the
            mean of the training rows and another `status` than `ok`.

        Raises:
            InputError: The rows are wrong, or an image cannot be used.
        """
        networks = self._networks
        is_cuda = networks.device.type == "cuda"
        with self._lock, torch.cuda.device(networks.device if is_cuda else -1):  # pinned memory is of this device
            data = self._reader.read(rows, root, images)
            data.destination = Destination(networks.device)
            with explained(networks, data.batch_size):
                found = predicted(networks, self._nets, data, data.predict_dataloader(), range(len(data.test_table)))
        return replace(found, provenance=self._made_with)


def check_predictor_options(options: dict[str, Any]) -> None:
    """Refuses options of `swinft predict` that a predictor does not have.

    Raises:
        InputError: There are some.
    """
    advice = {
        "test": "the rows are given to each call of `predict`",
        "output": "a predictor writes no file: write `found.to_frame()`",
        "devices": "a predictor is on one device: make one for each, with device='cuda:0' and device='cuda:1'",
        "on": "a predictor is in this process",
        "part": "give each predictor its part of the rows",
        "allow_code": "it is an argument of swinft.open_run",
    }
    if odd := [f"{name}: {advice[name]}" for name in advice if name in options]:
        raise InputError(f"not an option of a predictor: {'; '.join(odd)}.")
