"""Options of the instruments that look at the training loss, or train again."""

from dataclasses import dataclass, field
from typing import Any, Literal

from swinft.errors import InputError
from swinft.ranges import NOT_NEGATIVE, POSITIVE, SettingsError, range_problems, whole_problems


def _check(settings: Any, lowest: dict[str, int], ranges: dict[str, Any], more: list[str]) -> None:
    given = {name: value for name, value in vars(settings).items() if name in lowest or name in ranges}
    problems = whole_problems("", given, lowest)
    problems += range_problems("", {name: given[name] for name in ranges}, ranges)
    if problems + more:
        raise SettingsError(problems + more)


@dataclass(frozen=True)
class HessianSettings:
    """Mini-batches and eigenvalues.

    Args:
        batches: Number of mini-batches of training rows; fewer if there are fewer.
        mini_batch: Rows of each; the spectrum depends on it.
        maxima: Number of eigenvalues of the largest magnitudes of each mini-batch.
        method: How the maxima are found: `lanczos`, from the products that the density needs anyway; or `power`, by
            power iteration with deflation, which takes up to 100 more products for each.
        lanczos_steps: Products with the Hessian for each random vector.
        probes: Random vectors of the density.
        weight_decay: Coefficient of L2; by default the run's.

    Raises:
        InputError: A value is wrong; all of them are listed.
    """

    batches: int = 8
    mini_batch: int = 16
    maxima: int = 5
    method: Literal["lanczos", "power"] = "lanczos"
    lanczos_steps: int = 24
    probes: int = 1
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        lowest = {"batches": 1, "mini_batch": 1, "maxima": 1, "lanczos_steps": 2, "probes": 1}
        more = [] if self.method in ("lanczos", "power") else [f"method is {self.method!r}. Allowed: lanczos, power."]
        if self.method == "lanczos" and self.maxima > self.lanczos_steps:
            more.append(f"maxima is {self.maxima}, more than the {self.lanczos_steps} lanczos_steps: raise these.")
        _check(self, lowest, {"weight_decay": NOT_NEGATIVE}, more)


@dataclass(frozen=True)
class LandscapeSettings:
    """The grid, and the rows.

    Args:
        points: Points along a side of the grid, odd, so that its centre is one of them.
        span: Distance from the centre to a side, where 1 is the norm of each filter.
        training_rows: Rows on which the loss is computed.
        mini_batch: Rows that are computed together; a row counts the same in any.
        weight_decay: Coefficient of L2; by default the run's.

    Raises:
        InputError: A value is wrong; all of them are listed.
    """

    points: int = 11
    span: float = 1.0
    training_rows: int = 64
    mini_batch: int = 32
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        more = [] if isinstance(self.points, int) and self.points % 2 else [f"points is {self.points}. Allowed: odd."]
        lowest = {"points": 3, "training_rows": 1, "mini_batch": 1}
        if isinstance(self.training_rows, int) and self.training_rows < self.mini_batch:
            more.append(f"training_rows is {self.training_rows}, less than the mini_batch of {self.mini_batch}.")
        _check(self, lowest, {"span": POSITIVE, "weight_decay": NOT_NEGATIVE}, more)


@dataclass(frozen=True)
class ActSettings:
    """Which activations are trained.

    Args:
        activations: Names of timm's activations, such as `relu`, `silu`, `gelu`.

    Raises:
        InputError: A value is wrong.
    """

    activations: list[str] = field(default_factory=lambda: ["relu", "silu"])

    def __post_init__(self) -> None:
        if not self.activations or len(set(self.activations)) < len(self.activations):
            raise InputError(f"--activations is {self.activations}: name at least one, each once.")


@dataclass(frozen=True)
class MixerSettings:
    """The mixer's heads.

    Args:
        head_channels: Channels of each head of the mixer; by default as many heads as the run's Swin has.

    Raises:
        InputError: A value is wrong.
    """

    head_channels: int | None = None

    def __post_init__(self) -> None:
        _check(self, {} if self.head_channels is None else {"head_channels": 1}, {}, [])
