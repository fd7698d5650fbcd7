"""The timed trial: what computes a run's network fastest on its device, found before anything is frozen.

Candidates are not tried in all combinations: the number format first, then with it the attention, once for training and
once for prediction.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import torch
from jsonargparse import Namespace
from torch import Tensor

from swinft.errors import InputError
from swinft.limits import available_cores
from swinft.memory import keep_freed_memory, return_freed_memory
from swinft.model.choosing import Stopwatch, choose
from swinft.model.task import FineTuneTask
from swinft.model.trial import TrialBatch, TrialSteps
from swinft.model.window_attention import FastAttention, attentions, refuse_impossible, restore, set_attention
from swinft.run.choices import NAMES, Choice, by_rule, device_name, read_cached, write_cached
from swinft.run.precision import Precision, autocast, offered

T = TypeVar("T")

LONG = 300.0  # seconds of training from which on a trial is worth it
SHARE = 0.05  # of the training, that its trial may take
MOST_SECONDS = 30.0  # that it may take on a CPU, where a step is slow, but much the same whatever the batch
MOST_IMAGES = 8  # of a step that is timed there
STEP_SECONDS = 1.0  # that such a step should not take


@dataclass(frozen=True)
class Tried:
    """A task that has been tried, and the rows that it was tried on.

    Args:
        task: Initialised; its weights are spent.
        targets: Of the training rows: int64 (N,) for classification, else float (N, K).
        features: float (N, F) where there is metadata.
        size: Height and width in pixels.
        seconds: What a training step took per image, the first one of the process.
    """

    task: FineTuneTask
    targets: Tensor
    features: Tensor | None
    size: tuple[int, int]
    seconds: float


def settle_choice(
    config: Namespace, tried: Tried, device: torch.device, images: int, say: Callable[[str], None] = print
) -> Choice:
    """What a run computes with: what is explicit, what is fastest by a timed trial, or what the rule says.

    Args:
        config: The config.
        tried: The network, and rows to train on.
        device: Where the run trains.
        images: How many the run trains on, each as often as it is seen.
        say: Prints what was timed.

    Raises:
        InputError: An attention is asked for that the network or the device does not have.
    """
    asked = config.model.fast_attention
    refuse_impossible(tried.task, device, asked)
    rule = by_rule(config, device)
    precisions = offered(device) if config.trainer.precision == "auto" else [rule.precision]
    kinds = attentions(tried.task, device) if asked == "auto" else [asked]
    is_open = len(precisions) > 1 or len(kinds) > 1
    # On a CPU what is compiled is not what runs step by step, and compiling takes longer than the trial may.
    if not is_open or device.type != "cpu" or config.model.compile is True or config.trainer.fast_dev_run:
        return rule
    if images * tried.seconds < LONG:  # the first step of a process is its slowest
        return rule
    count = max(2, min(MOST_IMAGES, config.data.batch_size, int(STEP_SECONDS / tried.seconds)))
    keep_freed_memory(device)  # as in a fold's process
    try:
        trial = _Trial(tried, device, count, rule, min(MOST_SECONDS, SHARE * images * tried.seconds))
        step = trial.training(rule.precision, rule.training)
        if step is None or images * step / count < LONG:
            return rule
        key = _key(config, device, count, precisions, kinds)
        choice = read_cached(key)
        if choice is None:
            choice = trial.choice(precisions, kinds)
            write_cached(key, choice)
    finally:
        restore(tried.task)
        return_freed_memory()
    for line in choice.lines():
        say(line)
    return choice


class _Trial:
    """Times a task's steps in several ways, each way once.

    Args:
        tried: The network, on its device, and its rows.
        device: Where it is.
        count: Images of a step.
        rule: What is taken of what nothing else beats.
        seconds: The budget.
    """

    def __init__(self, tried: Tried, device: torch.device, count: int, rule: Choice, seconds: float) -> None:
        self._tried, self._device, self._count, self._rule = tried, device, count, rule
        self._batch = TrialBatch.of(count, tried.targets, tried.features, tried.size, device)
        self._watch = Stopwatch(device, seconds)
        self._found: dict[tuple[Any, ...], float | None] = {}
        self._expected = 0.0

    def choice(self, precisions: list[Precision], kinds: list[FastAttention]) -> Choice:
        """The fastest of each kind of candidate; of those that the budget leaves no time for, none."""
        choice = self._rule
        if len(precisions) > 1:
            formats = _timed(precisions, lambda each: self.training(each, choice.training))
            if len(formats) > 1:
                # What loses digits has to be worth it: 32-true is what must be beaten.
                rates = {"precision": self._rates(formats, str)}
                choice = replace(choice, precision=choose(formats, "32-true"), reason="as timed", rates=rates)
        if len(kinds) > 1:
            precision = choice.precision
            for what, way in (("training", self.training), ("prediction", self.prediction)):
                found = _timed(kinds, partial(way, precision))
                if len(found) > 1:
                    rates = choice.rates | {f"attention in {what}": self._rates(found, NAMES.__getitem__)}
                    fastest = choose(found, getattr(choice, what))
                    choice = replace(choice, rates=rates, **{what: fastest})
        return choice

    def training(self, precision: Precision, attention: FastAttention) -> float | None:
        """Seconds of a training step; None where it cannot be taken, or the budget is spent."""
        return self._once("training", precision, attention)

    def prediction(self, precision: Precision, attention: FastAttention) -> float | None:
        """The same of a prediction."""
        return self._once("prediction", precision, attention)

    def _once(self, what: str, precision: Precision, attention: FastAttention) -> float | None:
        key = (what, precision, attention)
        if key not in self._found:
            self._found[key] = self._time(*key)
        return self._found[key]

    def _time(self, what: str, precision: Precision, attention: FastAttention) -> float | None:
        task, failures = self._tried.task, list[str]()
        try:
            set_attention(task, self._device, attention, failures.append)
            if failures:  # it is timm's now, which is another candidate
                return None
            context = autocast(precision, self._device)
            steps = TrialSteps(task, self._device, context, scales_loss=precision == "16-mixed")
            way = steps.train if what == "training" else steps.predict
            expected = self._expected if what == "training" else self._expected / 3
            found = self._watch.median(lambda: way(self._batch), expected)
        except (InputError, RuntimeError):  # out of memory, or no kernel for it: not a candidate
            return None
        if found and what == "training":
            self._expected = max(self._expected, found)
        return found

    def _rates(self, seconds: dict[T, float], name: Callable[[T], str]) -> dict[str, float]:
        """Images per second by the candidates' names."""
        return {name(candidate): self._count / taken for candidate, taken in seconds.items()}


def _timed(candidates: list[T], way: Callable[[T], float | None]) -> dict[T, float]:
    """Seconds of each candidate that could be timed."""
    taken = {candidate: way(candidate) for candidate in candidates}
    return {candidate: seconds for candidate, seconds in taken.items() if seconds is not None}


def _key(
    config: Namespace, device: torch.device, count: int, precisions: list[Precision], kinds: list[FastAttention]
) -> dict[str, Any]:
    """What a choice depends on."""
    model = config.model
    return {
        "device": device_name(device),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in ("torch", "timm", "swinft")},
        "backbone": [model.backbone, model.backbone_args, model.grad_checkpointing, model.compile],
        "image_size": config.data.image_size,
        "batch": [config.data.batch_size, count],
        "deterministic": config.trainer.deterministic,
        "candidates": [precisions, kinds],
    }
