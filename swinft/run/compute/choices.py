"""How a run computes: number format and attention, settled once, the same for every fold and every resume."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
from jsonargparse import Namespace

from swinft.data.cache.folder import default_cache_folder
from swinft.errors import StoreError, command
from swinft.model.attention.swin import FastAttention
from swinft.printing import format_rate
from swinft.run.layout import Run
from swinft.store import commit, has_record, verify
from swinft.store import replace as write
from swinft.system.precision import Precision, offered, resolve_precision, training_precision

NAMES: dict[FastAttention, str] = {True: "ours", False: "timm's", "fused": "timm's fused"}
Rates = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Choice:
    """What a run computes with.

    Args:
        device: Type and name of the device that it was made for.
        precision: Of training and prediction.
        reason: Why this precision, in words.
        training: Attention in training, a value of `model.compute.fast_attention` other than auto.
        prediction: The same in prediction; auto where that is still to be chosen.
        rates: What was timed: images per second, by what was chosen and by candidate; empty where nothing was.
    """

    device: str
    precision: Precision
    reason: str
    training: FastAttention
    prediction: FastAttention
    rates: Rates = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Any) -> "Choice":
        """The choice that `asdict` gave.

        Raises:
            ValueError: The values are none of a choice.
        """
        try:  # a kernel that earlier versions had gave the same numbers as ours
            values |= {what: True for what in ("training", "prediction") if values[what] == "triton"}
            choice = cls(**values)
            choice.lines()
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("no choice") from error
        is_whole = choice.precision in get_args(Precision) and choice.precision != "auto"
        if not (is_whole and choice.training in NAMES and choice.prediction in NAMES):
            raise ValueError("no choice")
        return choice

    def applied(self, config: Namespace) -> Namespace:
        """A copy of a config that says what training computes with."""
        settled: Namespace = config.clone()
        settled.trainer.precision = self.precision
        settled.model.compute.fast_attention = self.training
        return settled

    def described(self) -> dict[str, Any]:
        """What `environment.json` and a fold's result say of it."""
        attention = {"training": self.training, "prediction": self.prediction}
        return {"precision": self.precision, "precision_reason": self.reason, "attention": attention}

    def lines(self) -> list[str]:
        """What was timed and chosen, one line each; nothing where nothing was timed."""
        chosen = {
            "precision": str(self.precision),
            "attention in training": NAMES[self.training],
            "attention in prediction": NAMES[self.prediction],
        }
        return [f"{what} {format_rates(chosen[what], rates)}" for what, rates in self.rates.items()]


def format_rates(chosen: str, rates: Mapping[str, float]) -> str:
    """`bf16-mixed: 12.1 img/s, 32-true 6.3`."""
    others = [f"{name} {format_rate(rate)}" for name, rate in rates.items() if name != chosen]
    return ", ".join([f"{chosen}: {format_rate(rates[chosen])} img/s", *others])


def by_rule(config: Namespace, device: torch.device) -> Choice:
    """What is chosen where nothing is timed: by what the hardware has."""
    precision, reason = resolve_precision(config.trainer.precision, device)
    asked = config.model.compute.fast_attention
    attention: FastAttention = True if asked == "auto" else asked
    return Choice(device_name(device), precision, reason, attention, attention)


def freeze_choice(run: Run, choice: Choice) -> None:
    """Writes down what a run computes with."""
    commit(run.choice, json.dumps(asdict(choice), indent=1).encode(), "swinft fit")


def read_choice(run: Run) -> Choice:
    """What a run was started with.

    Raises:
        StoreError: The file is missing or damaged, or was accepted although it holds something else.
    """
    text = verify(run.choice).read_text(encoding="utf-8")
    try:
        return Choice.from_dict(json.loads(text))
    except ValueError as error:
        raise StoreError(
            f"{run.choice} does not hold what a run computes with. Delete it: `{command('fit', '--resume', run.root)}` "
            f"makes it again."
        ) from error


def choice_again(run: Run, config: Namespace) -> Choice:
    """The choice of a run that has lost it, or was started by a version without: with the precision of its start."""
    device, precision, reason = training_precision(config.trainer.accelerator, config.trainer.precision)
    try:
        started = run.read_environment()["precision"]
    except StoreError:
        started = precision
    if started in offered(device):
        precision, reason = started, "as at the start" if started != precision else reason
    return replace(by_rule(config, device), precision=precision, reason=reason)


def choice_here(run: Run, config: Namespace) -> Choice:
    """What a fold of a run computes with on this machine: as at the start where the device can, else by rule.

    Raises:
        InputError: The device does not train in the configured precision.
        StoreError: The run's choice is missing or damaged.
    """
    device, *_ = training_precision(config.trainer.accelerator, config.trainer.precision)
    frozen, rule = read_choice(run), by_rule(config, device)
    if frozen.device.partition(" ")[0] != device.type:
        return rule
    if frozen.precision in offered(device) or config.trainer.precision != "auto":
        rule = replace(rule, precision=frozen.precision, reason=frozen.reason)
    return replace(rule, training=frozen.training, prediction=frozen.prediction)


def choice_to_predict(run: Run, config: Namespace, device: torch.device) -> Choice:
    """What `swinft predict` computes with: as the run where the device is the one that it was fitted on, else by rule.

    Returns:
        The choice; where it is not settled which attention predicts fastest here, that is `auto`.

    Raises:
        StoreError: The run's choice is damaged.
    """
    asked = config.model.compute.fast_attention
    choice = replace(by_rule(config, device), prediction=asked)
    if has_record(run.choice):  # a run of an earlier version has none
        frozen = read_choice(run)
        choice = frozen if frozen.device == choice.device else choice
    return choice


def device_name(device: torch.device) -> str:
    """Type and name of a device."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {_processor()}"


def _processor() -> str:
    """What the system calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def choices_folder() -> Path:
    """Where what was timed on this machine is kept. Deleting it has everything timed again."""
    return default_cache_folder() / "choices"


def read_cached(key: Mapping[str, Any]) -> Choice | None:
    """What was chosen on this machine for such a network before; None where nothing was, or the file is damaged."""
    try:
        kept = json.loads(_cache_file(key).read_text(encoding="utf-8"))
        return Choice.from_dict(kept["choice"]) if kept["key"] == _plain(key) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_cached(key: Mapping[str, Any], choice: Choice) -> None:
    """Keeps a choice; where that is not possible, it is made again next time."""
    path = _cache_file(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps({"key": _plain(key), "choice": asdict(choice)}, indent=1).encode())
    except (OSError, StoreError):
        return


def _cache_file(key: Mapping[str, Any]) -> Path:
    text = json.dumps(_plain(key), sort_keys=True)
    return choices_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _plain(key: Mapping[str, Any]) -> Any:
    """The key as JSON gives it back."""
    return json.loads(json.dumps(key))
