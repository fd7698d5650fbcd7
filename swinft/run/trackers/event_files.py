"""TensorBoard: event files in the run's folder."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swinft.extras import check_extra, import_extra
from swinft.run.config.yaml_text import yaml_text
from swinft.run.trackers.record import CaptionedImage, EpochValues, Record
from swinft.run.trackers.tracker import Tracker

WHAT = "tensorboard, which trainer.logger: tensorboard writes with,"
FOLDER = "tensorboard"  # in the run's folder, with a folder for each record


class TensorBoardTracker(Tracker):
    """Writes event files to `tensorboard/fold_0` and so on in the run's folder, with the epoch as step.

    Args:
        images: As in `Tracker`.
    """

    word = "tensorboard"

    def __init__(self, images: int = 8) -> None:
        super().__init__(images)
        self._writer: Any = None
        self._folder = Path()

    def check(self) -> None:
        """Checks that the package is installed."""
        check_extra("tensorboard", "tensorboard", WHAT)

    def start(self, record: Record) -> None:
        """Opens a new event file beside those of earlier processes."""
        self.check()
        tensorboard = import_extra("torch.utils.tensorboard", "tensorboard", WHAT)
        self.close()
        self._folder = record.folder / FOLDER / record.name
        if record.is_pooled:  # it is written once, as a whole
            shutil.rmtree(self._folder, ignore_errors=True)
        is_new = not self._folder.is_dir()
        self._writer = tensorboard.FileWriter(str(self._folder))
        if is_new:
            self._write(_summary().text("config", f"```yaml\n{yaml_text(dict(record.config))}```"), 0)

    def last_epoch(self) -> int:
        """The last epoch in the event files; a file whose end is missing is read up to there."""
        reader = import_extra("tensorboard.backend.event_processing.event_accumulator", "tensorboard", WHAT)
        files = reader.EventAccumulator(str(self._folder), {"scalars": 0, "images": 1, "tensors": 1}).Reload()
        if "epoch" not in files.Tags()["scalars"]:
            return 0
        return max(int(event.step) for event in files.Scalars("epoch"))

    def write(self, epoch: EpochValues) -> None:
        """Writes an epoch as one event: it is there as a whole or not at all."""
        for step, values in epoch.between:
            self._write(_scalars(values), step)
        self._write(_scalars(epoch.all_values()), epoch.epoch)
        self._writer.flush()

    def write_images(self, name: str, images: Sequence[CaptionedImage], epoch: int) -> None:
        """Writes images, with their captions as texts."""
        for number, each in enumerate(images):
            tag = name if len(images) == 1 else f"{name}/{number + 1}"
            self._write(_summary().image(tag, each.pixels, dataformats="HWC"), epoch)
            if each.caption:
                self._write(_summary().text(f"{tag}_caption", f"    {each.caption}"), epoch)  # indented: not Markdown
        self._writer.flush()

    def write_result(self, values: Mapping[str, float]) -> None:
        """Writes the final values at step 0: they belong to no epoch."""
        self._write(_scalars(values), 0)

    def write_file(self, path: Path) -> None:
        """Writes where the file is: event files hold none."""
        self._write(_summary().text(path.stem, f"    {path}"), 0)

    def finish(self) -> None:
        """Closes the event file."""
        self.close()

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def where(self) -> str:
        """The folder of the event files."""
        return str(self._folder)

    def how_to_see(self, folder: Path) -> str:
        """The command that shows them."""
        return f"tensorboard --logdir {folder / FOLDER}"

    def _write(self, summary: Any, step: int) -> None:
        self._writer.add_summary(summary, step)


def _summary() -> Any:
    """Torch's module that makes summaries.

    Raises:
        InputError: The package is not installed.
    """
    return import_extra("torch.utils.tensorboard.summary", "tensorboard", WHAT)


def _scalars(values: Mapping[str, float]) -> Any:
    """One summary with all of the values."""
    kinds = import_extra("tensorboard.compat.proto.summary_pb2", "tensorboard", WHAT)
    made = [kinds.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    return kinds.Summary(value=made)
