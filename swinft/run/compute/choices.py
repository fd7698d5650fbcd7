"""The precision, attention and batch of a run: chosen once, the same for every fold and every resume."""

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
from swinft.system.precision import Precision, precision_choices, resolve_precision, training_precision

NAMES: dict[FastAttention, str] = {True: "ours", False: "timm's", "fused": "timm's fused"}
Rates = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Choice:
    """The precision, attention and batch of a run.

    Args:
        device: Type and name of the device for which they were chosen.
        precision: Precision of training and prediction.
        reason: The reason for this precision, as text.
        training: Attention in training, a value of `model.compute.fast_attention` other than auto.
        prediction: Attention in prediction; auto if it is still to be chosen.
        rates: Measured images per second, by setting and by candidate; empty if nothing was timed.
        halvings: How often `data.batch_size` was halved, and `trainer.accumulate_grad_batches` doubled, until a step
            fitted into memory.
    """

    device: str
    precision: Precision
    reason: str
    training: FastAttention
    prediction: FastAttention
    rates: Rates = field(default_factory=dict)
    halvings: int = 0

    @classmethod
    def from_dict(cls, values: Any) -> "Choice":
        """The inverse of `asdict`.

        Raises:
            ValueError: The values are not those of a choice.
        """
        try:  # the kernel `triton` of earlier versions computed the same as ours
            values |= {what: True for what in ("training", "prediction") if values[what] == "triton"}
            choice = cls(**values)
            choice.lines()
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("no choice") from error
        is_whole = choice.precision in get_args(Precision) and choice.precision != "auto"
        if not (is_whole and choice.training in NAMES and choice.prediction in NAMES and choice.halvings in range(64)):
            raise ValueError("no choice")
        return choice

    def applied(self, config: Namespace) -> Namespace:
        """A copy of a config with the chosen precision, batch, and attention of the training."""
        resolved = halved(config, self.halvings)
        resolved.trainer.precision = self.precision
        resolved.model.compute.fast_attention = self.training
        return resolved

    def described(self) -> dict[str, Any]:
        """Its entries in `environment.json` and in a fold's result."""
        attention = {"training": self.training, "prediction": self.prediction}
        found = {"precision": self.precision, "precision_reason": self.reason, "attention": attention}
        return found | ({"halvings": self.halvings} if self.halvings else {})

    def lines(self) -> list[str]:
        """What was timed and chosen, one line each; none if nothing was timed."""
        chosen = {
            "precision": str(self.precision),
            "attention in training": NAMES[self.training],
            "attention in prediction": NAMES[self.prediction],
        }
        return [f"{what} {format_rates(chosen[what], rates)}" for what, rates in self.rates.items()]


def halved(config: Namespace, times: int = 1) -> Namespace:
    """A copy of a config with smaller batches, and as many more of them per optimiser step and per epoch."""
    smaller: Namespace = config.clone()
    smaller.data.batch_size = config.data.batch_size >> times
    smaller.trainer.accumulate_grad_batches = config.trainer.accumulate_grad_batches << times
    if isinstance(limit := config.trainer.limit_train_batches, int):  # of batches, not a share of them
        smaller.trainer.limit_train_batches = limit << times
    return smaller


def format_rates(chosen: str, rates: Mapping[str, float]) -> str:
    """`bf16-mixed: 12.1 img/s, 32-true 6.3`."""
    others = [f"{name} {format_rate(rate)}" for name, rate in rates.items() if name != chosen]
    return ", ".join([f"{chosen}: {format_rate(rates[chosen])} img/s", *others])


def default_choice(config: Namespace, device: torch.device) -> Choice:
    """The choice without timing: by the units of the hardware."""
    precision, reason = resolve_precision(config.trainer.precision, device)
    configured = config.model.compute.fast_attention
    attention: FastAttention = True if configured == "auto" else configured
    return Choice(device_name(device), precision, reason, attention, attention)


def freeze_choice(run: Run, choice: Choice) -> None:
    """Stores a run's choice."""
    commit(run.choice, json.dumps(asdict(choice), indent=1).encode(), "swinft fit")


def read_choice(run: Run) -> Choice:
    """The choice of a run's start.

    Raises:
        StoreError: The file is missing or damaged, or is not a choice.
    """
    text = verify(run.choice).read_text(encoding="utf-8")
    try:
        return Choice.from_dict(json.loads(text))
    except ValueError as error:
        raise StoreError(
            f"{run.choice} is not a valid choice of precision and attention. Delete it: "
            f"`{command('fit', '--resume', run.root)}` makes it again."
        ) from error


def remade_choice(run: Run, config: Namespace) -> Choice:
    """The choice of a run without the file, with the precision of its start: lost, or from an earlier version.

    Raises:
        StoreError: The batch of a run that may have halved it is lost, too.
    """
    device, precision, reason = training_precision(config.trainer)
    try:
        environment = run.read_environment()
    except StoreError:
        if config.on_out_of_memory == "halve":
            raise
        environment = {"precision": precision}
    if (started := environment["precision"]) in precision_choices(device):
        precision, reason = started, "as at the start" if started != precision else reason
    rule, halvings = default_choice(config, device), environment.get("halvings", 0)
    return replace(rule, precision=precision, reason=reason, halvings=halvings)


def choice_here(run: Run, config: Namespace) -> Choice:
    """The choice for a fold on this machine: that of the start if the device supports it, else by rule.

    Raises:
        InputError: The device does not train in the configured precision.
        StoreError: The run's choice is missing or damaged.
    """
    device, *_ = training_precision(config.trainer)
    frozen = read_choice(run)
    rule = replace(default_choice(config, device), halvings=frozen.halvings)
    if frozen.device.partition(" ")[0] != device.type:
        return rule
    if frozen.precision in precision_choices(device) or config.trainer.precision != "auto":
        rule = replace(rule, precision=frozen.precision, reason=frozen.reason)
    return replace(rule, training=frozen.training, prediction=frozen.prediction)


def choice_to_predict(run: Run, config: Namespace, device: torch.device) -> Choice:
    """The choice for `swinft predict`: that of the run on the same type of device, else by rule.

    Returns:
        The choice; its attention may be `auto`: then the fastest one here is still unknown.

    Raises:
        StoreError: The run's choice is damaged.
    """
    choice = replace(default_choice(config, device), prediction=config.model.compute.fast_attention)
    if has_record(run.choice):  # a run of an earlier version has none
        frozen = read_choice(run)
        choice = frozen if frozen.device == choice.device else replace(choice, halvings=frozen.halvings)
    return choice


def device_name(device: torch.device) -> str:
    """Type and name of a device."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {_processor()}"


def _processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def choices_folder() -> Path:
    """The cache of timed choices on this machine. If it is deleted, everything is timed again."""
    return default_cache_folder() / "choices"


def read_cached(key: Mapping[str, Any]) -> Choice | None:
    """The cached choice for this key on this machine; None if there is none, or the file is damaged."""
    try:
        cached = json.loads(_cache_file(key).read_text(encoding="utf-8"))
        return Choice.from_dict(cached["choice"]) if cached["key"] == _plain(key) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_cached(key: Mapping[str, Any], choice: Choice) -> None:
    """Caches a choice; if the cache is not writable, the next run times again."""
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
    """The key after a round trip through JSON."""
    return json.loads(json.dumps(key))
