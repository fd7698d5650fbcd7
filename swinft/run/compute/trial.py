"""The timed trial: finds the fastest precision and attention for a run's network and device, before the run starts.

Not all combinations are timed: first the precisions, then the attentions with the chosen precision, for training and
for prediction.
"""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from jsonargparse import Namespace
from torch import Tensor, nn

from swinft.data.row_images import row_images
from swinft.errors import InputError
from swinft.model.attention.swin import FastAttention, attentions, set_attention
from swinft.model.task import FineTuneTask
from swinft.model.timing import StepTimer, choose
from swinft.model.trial import TrialBatch, TrialSteps
from swinft.run.compute.choices import NAMES, Choice, device_name
from swinft.run.compute.out_of_memory import is_out_of_memory
from swinft.system.limits import available_cores
from swinft.system.precision import Precision, autocast, half_dtype, precision_choices
from swinft.versions import version

T = TypeVar("T")


@dataclass(frozen=True)
class TriedTask:
    """A task after a first training step, and the rows for further steps.

    Args:
        task: The initialised task; its weights have been changed by the step.
        targets: Targets of the training rows: int64 (N,) for classification, else float (N, K).
        features: float (N, F); None without metadata.
        size: Height and width in pixels.
        seconds: Seconds per image of this step, the first one of the process.
    """

    task: FineTuneTask
    targets: Tensor
    features: Tensor | None
    size: tuple[int, int]
    seconds: float


@dataclass(frozen=True)
class Candidates:
    """The precisions and attentions to choose from."""

    precisions: list[Precision]
    attentions: list[FastAttention]

    @classmethod
    def of(cls, config: Namespace, net: nn.Module, device: torch.device) -> "Candidates":
        """All that the device supports for `auto`, and the configured value otherwise."""
        precision, attention = config.trainer.precision, config.model.compute.fast_attention
        precisions = precision_choices(device) if precision == "auto" else [precision]
        return cls(precisions, attentions(net, device) if attention == "auto" else [attention])

    @property
    def is_open(self) -> bool:
        """Whether there is a choice."""
        return len(self.precisions) > 1 or len(self.attentions) > 1


class Trial:
    """Times a task's steps with each candidate, each once.

    Args:
        tried: The network, on its device, and its rows.
        device: Its device.
        count: Images per step.
        rule: The choice unless a candidate is faster.
        seconds: The time budget.
        is_compiled: Whether the backbone is compiled, as it will be in the run.
    """

    def __init__(
        self,
        tried: TriedTask,
        device: torch.device,
        count: int,
        rule: Choice,
        seconds: float,
        is_compiled: bool = False,
    ) -> None:
        self._tried, self._device, self._count, self._rule = tried, device, count, rule
        shape = tried.task.net.image_shape(tried.size)
        self._batch = TrialBatch.of(count, tried.targets, tried.features, shape, device)
        self._watch, self._is_compiled = StepTimer(device, seconds), is_compiled
        self._found: dict[tuple[Any, ...], float | None] = {}
        self._expected = dict[str, float]()

    def choice(self, candidates: Candidates) -> Choice:
        """The fastest candidates among those for which the budget suffices."""
        choice = self._rule
        if len(candidates.precisions) > 1:
            # A mixed precision must be faster than 32-true to be chosen.
            lossless: Precision = "32-true"
            measure = partial(self._once, "training", attention=choice.training)
            timed = _timed(candidates.precisions, measure, lossless)
            if len(timed) > 1:
                rates = {"precision": self._rates(timed, str)}
                choice = replace(choice, precision=choose(timed, lossless), reason="as timed", rates=rates)
        if len(candidates.attentions) > 1:
            for what in ("training", "prediction"):
                before = getattr(choice, what)
                found = _timed(candidates.attentions, partial(self._once, what, choice.precision), before)
                if len(found) > 1:
                    rates = choice.rates | {f"attention in {what}": self._rates(found, NAMES.__getitem__)}
                    fastest = choose(found, before)
                    choice = replace(choice, rates=rates, **{what: fastest})
        return choice

    def step(self) -> float:
        """Seconds of a training step by the rule.

        Raises:
            InputError: The step fails on the device.
            RuntimeError: There is not enough memory.
        """
        key = ("training", self._rule.precision, self._rule.training)
        try:
            # If our attention fails its check, timm's is used, as in the folds.
            failures: list[str] = []
            seconds = self._measured(*key, failures.append)
        except InputError:
            raise
        except Exception as error:  # a GPU that torch is not built for, a missing kernel
            if is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), repr(error))
            if "deterministic implementation" in reason:  # what torch goes on to say is for who calls it
                advice = "set trainer.deterministic to warn, or choose another head or loss"
                reason = f"{reason.partition(',')[0]}: {advice}"
            raise InputError(f"a training step fails on {self._device}: {reason}") from error
        assert seconds is not None  # the budget has just begun
        if not failures and not self._is_compiled:
            self._found[key] = seconds
        return seconds

    def predict(self) -> None:
        """Predicts a batch by the rule.

        Raises:
            RuntimeError: There is not enough memory.
        """
        self._measured("prediction", self._rule.precision, self._rule.prediction, lambda _: None)

    def _once(self, what: str, precision: Precision, attention: FastAttention, is_again: bool = False) -> float | None:
        """Seconds of a step with one candidate; None if it fails, or the budget is spent."""
        key = (what, precision, attention)
        if is_again or key not in self._found:
            self._found[key] = self._time(*key)
        return self._found[key]

    def _time(self, what: str, precision: Precision, attention: FastAttention) -> float | None:
        try:
            return self._measured(what, precision, attention, _refuse)
        except Exception as error:  # out of memory, a missing kernel, any error of the compiler: not a candidate
            failed = next(iter(str(error).splitlines()), repr(error))
            print(f"{what} in {precision} with {NAMES[attention]} attention is not chosen: {failed}")
            return None
        finally:
            self._clear()

    def _measured(
        self, what: str, precision: Precision, attention: FastAttention, on_failure: Callable[[str], None]
    ) -> float | None:
        """Seconds of a step; `on_failure` is called if the attention fails its check."""
        task, started = self._tried.task, time.perf_counter()
        set_attention(task, self._device, attention, on_failure, half_dtype(precision) or torch.float)
        if self._is_compiled:
            for net in {task.net, task.predictor}:
                net.backbone.compile()
        context = autocast(precision, self._device)
        steps = TrialSteps(task, self._device, context, scales_loss=precision == "16-mixed")
        step = steps.train if what == "training" else steps.predict
        found = self._watch.median(lambda: step(self._batch), self._expected.get(what, 0.0))
        taken = time.perf_counter() - started
        self._expected[what] = max(self._expected.get(what, 0.0), taken)
        return found

    def _clear(self) -> None:
        """Frees compiled code and memory of a candidate before the next one."""
        if self._is_compiled:
            torch.compiler.reset()
            for net in {self._tried.task.net, self._tried.task.predictor}:
                net.backbone._compiled_call_impl = None
        if self._device.type != "cpu":
            gc.collect()
            torch.accelerator.empty_cache()

    def _rates(self, seconds: dict[T, float], name: Callable[[T], str]) -> dict[str, float]:
        """Images per second by the candidates' names."""
        return {name(candidate): self._count / taken for candidate, taken in seconds.items()}


def _refuse(problem: str) -> None:
    """Rejects attention that fails its check: it falls back to timm's, which is another candidate."""
    raise RuntimeError(problem)


def _timed(candidates: list[T], measure: Callable[..., float | None], first: T) -> dict[T, float]:
    """Seconds of each candidate that could be timed.

    If another one is faster, the first one is timed again: other processes may have slowed it down.
    """
    taken = {candidate: measure(candidate) for candidate in candidates}
    found = {candidate: seconds for candidate, seconds in taken.items() if seconds is not None}
    if choose(found, first) != first and (again := measure(first, is_again=True)) is not None:
        found[first] = min(found[first], again)
    return found


def cache_key(config: Namespace, device: torch.device, count: int, candidates: Candidates) -> dict[str, Any]:
    """Everything that a choice depends on."""
    model, trainer = config.model, config.trainer
    return {
        "device": device_name(device),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in ("torch", "timm", "swinft")},
        "backbone": [model.backbone, model.backbone_args, model.compute.grad_checkpointing],
        "compiled": [model.compute.compile, config.predict.compile],
        "image_size": config.data.image_size,
        "images": row_images(config.data.image).for_network,
        "batch": [config.data.batch_size, count],
        "deterministic": trainer.deterministic,
        "candidates": [candidates.precisions, candidates.attentions],
    }
