"""Trackio: local dashboards, or a Space of Hugging Face."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from swinft.errors import InputError
from swinft.run.trackers.record import CaptionedImage, EpochValues, Record
from swinft.run.trackers.tracker import Tracker

PROJECT = "swinft"


class TrackioTracker(Tracker):
    """Writes records to Trackio's database on this machine, or sends them to a Space.

    Args:
        project: The project.
        space_id: A Space of Hugging Face, as `user/name`; null for that of TRACKIO_SPACE_ID, or else this machine.
        images: As in `Tracker`.
    """

    word = "trackio"

    def __init__(self, project: str = PROJECT, space_id: str | None = None, images: int = 8) -> None:
        super().__init__(images)
        self.project, self.space_id = project, space_id
        self._run: Any = None
        self._last = 0

    def check(self) -> None:
        """Checks that the package can be imported, and the login for a Space.

        Raises:
            InputError: The Space needs a login, or trackio cannot be imported.
        """
        trackio = _trackio()
        space, _ = trackio.utils.resolve_space_id_and_server_url(self.space_id, None)
        if space and not trackio.utils.huggingface_hub.get_token():
            raise InputError(
                f"trainer.logger: trackio: the Space {space} needs a login. Run `hf auth login`, or set HF_TOKEN; "
                f"without TRACKIO_SPACE_ID and `space_id`, records stay on this machine."
            )

    def start(self, record: Record) -> None:
        """Starts a run, or continues the last one of the record's name, which contains the run's.

        Raises:
            InputError: trackio cannot be imported.
        """
        self.close()
        with _silent():
            self._run = _trackio().init(
                project=self.project,
                name=f"{record.group}/{record.name}",
                group=record.group,
                space_id=self.space_id,
                config={**record.keys, "swinft_record": record.id},
                resume="allow" if record.is_known else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._last = max(0, int(self._run._next_step) - 1)

    def last_epoch(self) -> int:
        """The last epoch in the database, as it was when the run was started."""
        return self._last

    def write(self, epoch: EpochValues) -> None:
        """Sends an epoch as one entry; of what callbacks logged, the last value of each name."""
        between = {name: value for _, values in epoch.between for name, value in values.items()}
        self._log({**between, **epoch.all_values()}, epoch.epoch)
        self._last = epoch.epoch

    def write_images(self, name: str, images: Sequence[CaptionedImage], epoch: int) -> None:
        """Sends each image under a name of its own.

        Raises:
            InputError: trackio cannot be imported.
        """
        image = _trackio().Image
        for number, each in enumerate(images):
            key = name if len(images) == 1 else f"{name}/{number + 1}"
            self._log({key: image(each.pixels, caption=each.caption)}, epoch)

    def write_result(self, values: Mapping[str, float]) -> None:
        """Sends the values at the last epoch."""
        self._log(dict(values), self._last)

    def write_file(self, path: Path) -> None:
        """Sends a file as an artefact."""
        with _silent():
            self._run.log_artifact(path, name=f"{path.stem}-{self._run.name.replace('/', '-')}", type="report")

    def finish(self) -> None:
        """Ends the run."""
        run, self._run = self._run, None
        with _silent():
            run.finish()

    def close(self) -> None:
        """Ends the run."""
        if self._run is not None:
            with suppress(Exception):
                self.finish()

    def where(self) -> str:
        """The name of the run."""
        return str(self._run.name)

    def how_to_see(self, folder: Path) -> str:
        """The command that shows the project."""
        return f"trackio show --project {self.project}"

    @property
    def experiment(self) -> Any:
        """The run of trackio, for callbacks that log to it directly."""
        return self._run

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        with _silent():
            self._run.log(dict(values), step=step)


def _trackio() -> Any:
    """The package. No extra installs it: trackio asks for a Pillow before 13, whose JPEG decoder has an overflow.

    Raises:
        InputError: It is not installed, or cannot be imported.
    """
    try:
        import trackio
    except ImportError as error:
        raise InputError(
            f"trackio, which trainer.logger: trackio writes with, cannot be imported ({error}). docs/trackers.md says "
            f"how it is installed beside swinft's Pillow."
        ) from error
    return trackio


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps what trackio prints out of the fold's lines."""
    with redirect_stdout(io.StringIO()):
        yield
