"""Sends one record to one tracker: what the service lacks, once it is saved; a failure is said and stops nothing."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from swinft.errors import command
from swinft.model.training.steps import Steps
from swinft.run.trackers.record import CaptionedImage, EpochValues, Memory, Record
from swinft.run.trackers.tracker import Tracker

RETRY_SECONDS = 60.0  # a service that is down costs time at each try

Images = Callable[[int], list[CaptionedImage]]  # makes at most so many


class Sender:
    """One record at one tracker.

    Args:
        tracker: The tracker.
        record: The record.
        memory: Remembers the record's id, its steps, and whether it is complete.
        whole: Remembers the same of the run, and the name of its group.
        augmented: Makes the images of the start, which are sent with a new record.
    """

    def __init__(
        self, tracker: Tracker, record: Record, memory: Memory, whole: Memory, augmented: Images | None = None
    ) -> None:
        self.tracker, self.record, self._augmented = tracker, record, augmented
        self._memory, self._whole = memory, whole
        self.problem: str | None = None  # why the last try failed; None if it did not
        self._sent: int | None = None  # epochs that the service has; None while the record is not open
        self._failed_at: float | None = None

    @property
    def _label(self) -> str:
        return self.record.name.replace("_", " ", 1)

    @property
    def is_complete(self) -> bool:
        """Whether the service has all of it."""
        return bool(self._memory.read(self.tracker.word).get("is_complete"))

    def open(self) -> None:
        """Starts or continues the record, and says where it is."""
        with self._said("it could not be started"):
            self._open()

    def send(self, history: Sequence[Mapping[str, float]], steps: Steps | None = None) -> None:
        """Sends the epochs that the service lacks.

        Args:
            history: All saved epochs.
            steps: The planned steps of the training; None for those that are remembered.
        """
        between = self.tracker.take_between(history[-1]) if history else []
        if self._failed_at is not None and time.monotonic() - self._failed_at < RETRY_SECONDS:
            return
        with self._said(f"epoch {len(history)} could not be sent"):
            if steps:
                self._memory.remember(self.tracker.word, steps=[steps.per_epoch, steps.total])
            self._send(history, between)

    def finish(
        self,
        history: Sequence[Mapping[str, float]],
        results: Callable[[], Mapping[str, float]],
        images: Mapping[str, Images] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Sends what is missing and the results, and ends the record.

        Args:
            history: All epochs.
            results: Makes the final values.
            images: Makes images, by name.
            files: Files, which are sent as artefacts.
        """
        with self._said("its results could not be sent"):
            self._send(history, self.tracker.take_between(history[-1]) if history else [])
            self.tracker.write_result(results())
            for name, make in (images or {}).items():
                self._write_images(name, make, len(history))
            for path in files:
                self.tracker.write_file(path)
            self.tracker.finish()
            self._memory.remember(self.tracker.word, is_complete=True)

    def close(self) -> None:
        """Leaves a record that is not complete."""
        self.tracker.close()
        self._sent = None

    def _open(self) -> None:
        if self._sent is not None:
            return
        word = self.tracker.word
        if not self._whole.read(word).get("group"):
            with self.record.alone():  # several folds may start together
                self._whole.remember(word, id=self._whole.id_of(word), group=self.record.group)
        id, group_id = self._memory.id_of(word), self._whole.id_of(word)
        is_known = bool(self._memory.read(word).get("is_started"))
        self.tracker.start(replace(self.record, id=id, group_id=group_id, is_known=is_known))
        self._memory.remember(word, is_started=True, is_complete=False)
        self._sent = self.tracker.last_epoch()
        where = f": {where}" if (where := self.tracker.where()) else ""
        print(f"{self._label}: {word}{where}", flush=True)
        if self._sent == 0 and self._augmented:
            self._write_images("augmented_batch", self._augmented, 0)

    def _send(self, history: Sequence[Mapping[str, float]], between: list[tuple[int, dict[str, float]]]) -> None:
        self._open()
        assert self._sent is not None
        per_epoch, total = self._memory.read(self.tracker.word).get("steps") or (None, None)
        for line in history[self._sent :]:
            epoch = int(line["epoch"])
            step = None if per_epoch is None else min(epoch * per_epoch, total)
            values = {name: value for name, value in line.items() if name != "epoch"}
            self.tracker.write(EpochValues(epoch, step, values, between if epoch == len(history) else []))
            self._sent = epoch

    def _write_images(self, name: str, make: Images, epoch: int) -> None:
        if self.tracker.images and (made := make(self.tracker.images)):
            self.tracker.write_images(name, made, epoch)

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """Prints an exception of the tracker as one line, at the first of several; the record is then opened again."""
        try:
            yield
        except Exception as error:  # of a foreign package and a foreign service: anything may go wrong
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            if self.problem is None:
                again = command("fit", "--resume", self.record.folder)
                print(
                    f"{self._label}: {self.tracker.word}: {what} ({reason}). The training goes on. What is missing is "
                    f"sent at a later epoch, or by `{again}`.",
                    file=sys.stderr,
                    flush=True,
                )
            self.problem, self._failed_at = reason, time.monotonic()
            self.close()
        else:
            if self.problem is not None:
                print(f"{self._label}: {self.tracker.word} answers again, and has what was missing", flush=True)
            self.problem = self._failed_at = None
