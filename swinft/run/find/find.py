"""Finds a learning rate and a batch size for a config, in throw-away processes beside a throw-away run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
import yaml

from swinft.data.schema import Schema
from swinft.errors import InputError, RunError, number_of
from swinft.printing import print_line
from swinft.ranges import Range, check_ranges
from swinft.run.compute.choices import Choice, default_choice
from swinft.run.compute.trial import TriedTask
from swinft.run.config.parser import Parser, built_once
from swinft.run.config.sections import new_parser
from swinft.run.experiment import Experiment
from swinft.run.find.batch import MARGIN, MOST, VERIFIED_STEPS, batch_for
from swinft.run.find.child import run_request
from swinft.run.find.rate import LAST, LEAST_STEPS
from swinft.run.folds.planned import Planned, fold_steps
from swinft.run.python_inputs import nested
from swinft.run.throw_away import ThrowAway
from swinft.system.precision import training_device

What = Literal["lr", "batch_size"]
STEPS = 100  # of a range test, as in fastai and Lightning
ROWS = 12  # of the printed curve


@dataclass(frozen=True)
class Found:
    """What was found. `swinft.find` returns it.

    Args:
        keys: Dotted keys of a config with their values: `swinft.fit(config, found.keys)`.
        lines: What was measured, as text.
    """

    keys: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def yaml(self) -> str:
        """The keys as YAML."""
        return str(yaml.safe_dump(nested(self.keys), sort_keys=False))

    def __add__(self, other: "Found") -> "Found":
        return Found({**self.keys, **other.keys}, [*self.lines, *other.lines])


@built_once
def find_parser() -> Parser:
    """The parser of `swinft find`."""
    parser = new_parser("find")
    parser.lists.add("what")
    parser.add_argument(
        "--what",
        type=list[What] | None,
        default=None,
        help="what to find: `lr`, `batch_size` or both; by default both, on a CPU the learning rate alone",
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="optimiser steps of the range test; a verification takes half as many"
    )
    parser.add_argument(
        "--trial", type=str | None, default=None, help="internal: measure what a folder requests, in this process"
    )
    return parser


def find_from_argv(argv: list[str]) -> Found:
    """Runs a command line of `find`, and prints what was measured and found. Errors as of `find_in`."""
    experiment = Experiment.from_argv(find_parser(), argv)
    if experiment.config.trial:
        run_request(experiment, Path(experiment.config.trial))
        return Found()
    found = find_in(experiment)
    for line in found.lines:
        print_line(line)
    print(found.yaml, end="")
    return found


def find_in(experiment: Experiment) -> Found:
    """Finds what the options of `find` ask for, and writes nothing into a run's folder.

    Raises:
        InputError: Data or config are wrong, or nothing can be found.
        RunError: A process has failed.
    """
    config = experiment.config
    check_ranges("", {"--steps": config.steps}, {"--steps": Range(LEAST_STEPS, 100_000)})
    if config.trainer.fast_dev_run:
        raise InputError("trainer.fast_dev_run tries a run, and find starts none: remove it.")
    on_cpu = training_device(config.trainer).type == "cpu"
    what = config.what or (["lr"] if on_cpu else ["batch_size", "lr"])
    if on_cpu and not config.what:
        print("batch_size is left out: on a CPU larger batches are not faster. `--what batch_size` finds one.")
    config.devices_per_fold, config.on_out_of_memory = None, "error"  # the batch is found here, or is the config's
    with TemporaryDirectory() as folder:
        parts = _Finder(experiment, Path(folder))
        found = parts.batch() if "batch_size" in what else Found()
        return found + parts.rate(found) if "lr" in what else found


class _Finder:
    """Asks throw-away processes for measurements.

    Args:
        experiment: The experiment.
        folder: Empty; will hold the throw-away run.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self._run = ThrowAway.of(experiment, folder, by_rule)
        checked, config = self._run.checked, self._run.experiment.config
        self._config, self._devices = config, self._run.devices
        number = checked.data.splits.num_training_rows(0)
        self._rows = number // self._devices // config.data.loading.virtual_epochs
        self._epochs = fold_steps(config, number, self._devices).epochs
        words = f"fold 0: {number_of(len(checked.data.training_targets), 'row')} to train on, the others are not read"
        print(f"{words}; precision {checked.choice.precision} ({checked.choice.reason})", flush=True)

    def batch(self) -> Found:
        """The largest batch that fits, and the accumulation that keeps the rows of a step.

        Raises:
            InputError: Not even one image fits, or the step cannot be accumulated.
        """
        config = self._config
        effective = config.data.batch_size * config.trainer.accumulate_grad_batches
        known: dict[int, bool] = {}
        while True:
            known = self._searched(known)
            largest = max((size for size, fit in known.items() if fit), default=0)
            if not largest:
                raise InputError(
                    "not even one image fits into memory: a smaller data.image_size or model.backbone needs less, and "
                    "model.compute.grad_checkpointing true, where the backbone supports it."
                )
            size, step = batch_for(effective, largest)
            if step > 1 and config.model.optim.name == "sam":
                raise InputError(
                    f"{number_of(effective, 'row')} of a step do not fit, and model.optim.name 'sam' does not "
                    f"accumulate: set data.batch_size to {largest}, the largest that fits, or another optimiser."
                )
            if self._ask("verified", size, step).get("fits"):
                break
            known = {each: fit for each, fit in known.items() if each < size} | {size: False}
        lines = [
            f"largest batch that fits into {MARGIN:.0%} of the free memory: {largest} of at most {self._most}",
            f"tried: {', '.join(f'{each} ' + ('fits' if fit else 'does not') for each, fit in sorted(known.items()))}",
            f"verified in a new process by {VERIFIED_STEPS} steps of {step} x {size} images, and an evaluated batch; a "
            f"step has {effective} rows, as before",
        ]
        return Found({"data.batch_size": size, "trainer.accumulate_grad_batches": step}, lines)

    @property
    def _most(self) -> int:
        return int(max(1, min(self._rows, MOST)))

    def _searched(self, known: dict[int, bool]) -> dict[int, bool]:
        """Which sizes fit; a process that the system kills is followed by another, which knows why."""
        while True:
            answer = self._ask("batch_size", self._config.data.batch_size, 1, known=known, most=self._most)
            known = {int(size): fit for size, fit in answer["fits"].items()}
            if "running" not in answer:
                return known
            known[answer["running"]] = False

    def rate(self, before: Found) -> Found:
        """The learning rate for the batch of the config, or for the one that was found.

        Raises:
            InputError: None can be found.
        """
        size, step = self._config.data.batch_size, self._config.trainer.accumulate_grad_batches
        size, step = before.keys.get("data.batch_size", size), before.keys.get("trainer.accumulate_grad_batches", step)
        step *= 1 if self._config.model.optim.name == "sam" else self._devices  # one device takes their whole step
        answer = self._ask("lr", size, step, steps=self._config.steps)
        keys = {"model.optim.lr": answer["lr"]}
        keys |= {} if answer["head_lr"] is None else {"model.optim.head_lr": answer["head_lr"]}
        return Found(keys, _rate_lines(answer, self._config.steps))

    def _ask(self, what: str, size: int, step: int, **more: Any) -> dict[str, Any]:
        """The answer of a new process."""
        request = {"what": what, "batch_size": size, "accumulate_grad_batches": step, "epochs": self._epochs, **more}
        answer = self._run.ask("find", request, may_be_killed=what in ("verified", "batch_size"))
        if not answer and what == "batch_size":
            raise RunError("the process that measures was killed before it began; its output is above.")
        return answer


def by_rule(experiment: Experiment, schema: Schema, tried: TriedTask, device: torch.device, planned: Planned) -> Choice:
    """The choice without a trial, which would need the batch that is to be found."""
    return default_choice(experiment.config, device)


def _rate_lines(answer: dict[str, Any], steps: int) -> list[str]:
    """The curve of the range test, and the losses of the verified rates."""
    curve, tried, short = answer["curve"], answer["tried"], answer["steps"]
    has_head = answer["head_lr"] is not None
    ended = "" if len(curve) == steps else f", {len(curve)} taken: the loss diverged"
    shown: Sequence[Any] = curve[:: max(1, len(curve) // ROWS)]
    lines = [f"range test of {steps} steps{ended}", f"{'lr':>10}{'loss':>12}"]
    lines += [f"{rate:>10.1e}{loss:>12.4g}" for rate, loss in shown]
    lines += [
        f"suggested: {answer['suggested']:.1e}, the middle of the steep part of the descent",
        f"verified by {short} steps each, with the same seed and rows; the mean loss of the last {short // LAST}:",
        f"{'lr':>10}{'head_lr' if has_head else '':>10}{'loss':>12}",
    ]
    for each in tried:
        head = f"{each['head_lr']:.1e}" if has_head else ""
        loss = "diverged" if each["loss"] is None else f"{each['loss']:.4g}"
        best = "  best" if each["lr"] == answer["lr"] else ""
        lines.append(f"{each['lr']:>10.1e}{head:>10}{loss:>12}{best}")
    if answer["lr"] == tried[-1]["lr"]:
        lines.append("note: the highest of the three is the best, so that a higher one may be better still")
    if answer["loss"] >= answer["start"]:
        lines.append(
            f"note: none is below {answer['start']:.4g}, the loss of the untrained network: in so few steps little is "
            "learnt. Give more --steps."
        )
    return lines
