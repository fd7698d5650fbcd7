"""How long a fold will take: by the epochs of its process that are done, and the batches of the one that runs."""

from collections.abc import Sequence

from swinft.system.pace import Pace

FORWARD = 1 / 3  # of a training step, until a validation is measured: the backward pass takes twice as long
FIRST_BATCHES = 5  # before them, or half an epoch, nothing is foretold: often each of them is slower than the next
RECENT = 5  # so many last epochs, or a quarter of them, say how long the next ones take, the later ones more


class Forecast:
    """Learns from when batches and epochs are done; all times are seconds of one clock.

    The first epoch of a process is slower (memory allocation, compilation, a cold cache). What its first batches took
    more than its later ones is its warm-up, which is not expected of later epochs, but of other folds. Epochs of an
    earlier process are not known here: they may have been trained on another machine.

    Args:
        planned: Epochs of the whole fold; with `max_steps` not always whole.
        num_views: Views of the out-of-fold predictions, each of which takes as long as a validation.
        start_up: Seconds from the start of the process to its first epoch.

    Attributes:
        batches: Training batches of an epoch.
        held_out: Validation batches of an epoch; 0 if nothing is validated.
        epochs: Epochs that are done.
    """

    def __init__(self, planned: float, num_views: int, start_up: float) -> None:
        self._planned, self._num_views, self._start_up = planned, num_views, start_up
        self.batches = self.held_out = self.epochs = 0
        self._warm_up = 0.0
        self._seconds: list[float] = []  # of epochs, from beginning to end; of the first one without warm-up
        self._gaps: list[float] = []  # from the end of an epoch to the beginning of the next: checkpoints, loaders
        self._training, self._validation = Pace(), Pace()
        self._first_began = self._began = self._trained = self._ended = 0.0
        self._is_running = False
        self._batch = self._held_out_batch = 0.0  # seconds, as measured in the last epoch

    def begin(self, now: float) -> None:
        """An epoch begins."""
        if self.epochs:
            self._gaps.append(now - self._ended)
        else:
            self._first_began = now
        self._training, self._validation = Pace(), Pace()
        self._began = self._trained = now
        self._is_running = True

    def trained(self, now: float) -> None:
        """A training batch is done."""
        self._training.add(now)
        self._trained = now

    def validated(self, now: float) -> None:
        """A validation batch is done."""
        self._validation.add(now)

    def end(self, now: float) -> None:
        """The epoch is over, but for what is saved."""
        took, self._ended, self._is_running = now - self._began, now, False
        by_all = (self._trained - self._began) / max(1, self._training.done)
        self._batch = self._training.seconds or self._batch or by_all
        in_validation = (self._validation.last or self._trained) - self._trained
        self._held_out_batch = self._validation.seconds or (in_validation / self.held_out if self.held_out else 0.0)
        if self.epochs == 0:
            more = self._trained - self._began - self._training.done * self._batch
            more += max(0.0, in_validation - self._validation.done * self._held_out_batch)
            self._warm_up = min(took, max(0.0, more))
        self._seconds.append(took - (0.0 if self.epochs else self._warm_up))
        self.epochs += 1

    @property
    def is_rough(self) -> bool:
        """Whether not even half an epoch was trained after the first one, which has a warm-up."""
        return self.epochs == 0 or (self.epochs == 1 and not (self._is_running and self._share >= 0.5))

    @property
    def warm_up(self) -> float:
        """Seconds from the start of the process that are not those of its epochs."""
        return self._start_up + self._warm_up

    @property
    def predictions(self) -> float:
        """Seconds of the out-of-fold predictions; 0 before anything is known."""
        return self._num_views * self.held_out * self._of_held_out_batch()

    def epoch(self, now: float) -> float | None:
        """Seconds of an epoch that is still to come, with what is saved after it; None in the very first batches."""
        if not self.epochs:
            batch, enough = self._training.seconds, min(FIRST_BATCHES, max(2, self.batches // 2))
            if batch is None or self._training.done < enough:
                return None
            return self.batches * batch + self.held_out * self._of_held_out_batch()
        known = [seconds + self._gap for seconds in self._seconds[1:][-self._recent :] or self._seconds]
        weights: list[float] = list(range(1, len(known) + 1))
        if self._is_running and self._training.seconds is not None and self.batches:
            known.append(now - self._began + self._of_this_epoch(1 - self._share))
            weights.append(len(known) * self._share)
        return sum(weight * seconds for weight, seconds in zip(weights, known, strict=True)) / sum(weights)

    def left(self, now: float, epochs: float) -> float | None:
        """Seconds until the fold is done; None in the very first batches.

        Args:
            now: The time.
            epochs: Epochs that are still to be trained, with what is left of this one.
        """
        epoch = self.epoch(now)
        if epoch is None:
            return None
        here, this = self._gap if epochs > 0 else 0.0, 0.0
        if self._is_running:
            part = 1 - self._share
            this = min(part, epochs)
            here = self._of_this_epoch(this, is_last=epochs <= part)
        return here + max(0.0, epochs - this) * epoch + self.predictions

    def whole(self, now: float, epochs: float, is_resumed: bool) -> float | None:
        """Seconds that a fold like this takes from the start of its process; None if unknown.

        Args:
            now: The time.
            epochs: As of `left`.
            is_resumed: Whether an earlier process has trained some of the epochs.
        """
        left, epoch = self.left(now, epochs), self.epoch(now)
        if left is None or epoch is None:
            return None
        if is_resumed:
            return self.warm_up + self._planned * epoch + self.predictions
        return self._start_up + now - self._first_began + left

    @property
    def _recent(self) -> int:
        return max(RECENT, self.epochs // 4)

    @property
    def _share(self) -> float:
        """What of the training of the epoch that runs is done, from 0 to 1."""
        return min(1.0, self._training.done / self.batches) if self.batches else 1.0

    @property
    def _gap(self) -> float:
        return _mean(self._gaps[1:][-self._recent :] or self._gaps)  # the first one has imports and new files, too

    def _of_held_out_batch(self) -> float:
        """Seconds of a validation batch, measured or guessed."""
        guess = (self._training.seconds or self._batch) * FORWARD
        return self._validation.seconds or self._held_out_batch or guess

    def _of_this_epoch(self, part: float, is_last: bool = False) -> float:
        """Seconds until the epoch that runs is over, with what is saved after it.

        Args:
            part: What of its training is still to be done, from 0 to 1.
            is_last: Whether it is the last one, after which nothing begins.
        """
        gap = 0.0 if is_last else self._gap
        validation = max(0, self.held_out - self._validation.done) * self._of_held_out_batch()
        return part * self.batches * (self._training.seconds or self._batch) + validation + gap


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
