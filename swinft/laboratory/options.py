"""The options of `swinft lab`: those of every instrument, and those of each."""

from dataclasses import dataclass, field
from typing import Literal

from swinft.errors import suggest
from swinft.ranges import POSITIVE, Range, SettingsError, is_whole, range_problems, whole_problems

RowCount = int | Literal["all"]


@dataclass(frozen=True)
class LabOptions:
    """What is measured, and how long it may take.

    Args:
        fold: The fold whose network is measured, on the rows that it holds out; by default the first finished one.
        rows: Number of held-out rows, drawn by the seed; `all` for every one.
        seconds: After so many seconds no further step is started; what is measured is written, and the same command
            continues. By default there is no limit.
        seed: Seed of everything that is drawn: rows, noise, permutations, directions.
        output: Folder of the CSV, the page and the steps; by default `RUN/lab/INSTRUMENT`, and for several runs or
            networks `lab/INSTRUMENT` in the working folder, with the steps of a run in the run's folder.
        root: The data's folder if it differs from that of the training.
        batch_size: Images per batch; by default twice the config's.
        num_workers: Loader workers, or `auto`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        allow_code: Packages or modules whose classes the runs' configs may name, besides the trusted ones.

    Raises:
        InputError: A value is wrong; all of them are listed.
    """

    fold: int | str | None = None
    rows: RowCount = 128
    seconds: float | None = None
    seed: int = 0
    output: str | None = None
    root: str | None = None
    batch_size: int | None = None
    num_workers: int | Literal["auto"] = 0
    device: str = "auto"
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        lowest = {"seed": 0} | ({} if self.batch_size is None else {"batch_size": 1})
        problems = whole_problems("", vars(self), lowest)
        if self.rows != "all" and not (is_whole(self.rows) and int(self.rows) >= 1):
            problems.append(f"rows is {self.rows!r}. Allowed: a whole number from 1, or all.")
        problems += range_problems("", {"seconds": self.seconds}, {"seconds": POSITIVE})
        if problems:
            raise SettingsError(problems)


@dataclass(frozen=True)
class ScaleSettings:
    """What `swinft lab scale` measures.

    Args:
        sides: Sides of the images in pixels; by default 1, 2, 3 and 4 times the native one. Windows are those of the
            smallest.
        repeats: Timed forward passes, of which the fastest counts.

    Raises:
        InputError: A value is wrong.
    """

    sides: list[int] | None = None
    repeats: int = 3

    def __post_init__(self) -> None:
        problems = whole_problems("", vars(self), {"repeats": 1})
        if self.sides is not None and (len(set(self.sides)) < len(self.sides) or not self.sides):
            problems.append(f"sides is {self.sides}: name at least one, each once.")
        problems += range_problems("", {"sides": self.sides}, {"sides": Range(8)})
        if problems:
            raise SettingsError(problems)


Way = Literal["remove", "shuffle", "block"]


@dataclass(frozen=True)
class LesionSettings:
    """What `swinft lab lesion` does to a network.

    Args:
        ways: `remove` a residual branch, `shuffle` the positions of its output, skip a `block` of several branches.

    Raises:
        InputError: A value is wrong.
    """

    ways: list[Way] = field(default_factory=lambda: ["remove", "shuffle", "block"])

    def __post_init__(self) -> None:
        if not self.ways or len(set(self.ways)) < len(self.ways):
            raise SettingsError([f"ways is {self.ways}: name at least one, each once."])


@dataclass(frozen=True)
class RobustSettings:
    """What `swinft lab robust` does to images.

    Args:
        corruptions: Names of corruptions, as gaussian_noise,jpeg; by default all of them, docs/lab.md has the list.
        severities: From 1 to 5.
        bands: Number of bands of frequencies, each with noise of its own; 0 for none.
        noise: Standard deviation of this noise, as a share of the range of a pixel.

    Raises:
        InputError: A value is wrong.
    """

    corruptions: list[str] | None = None
    severities: list[int] = field(default_factory=lambda: [1, 3, 5])
    bands: int = 10
    noise: float = 0.1

    def __post_init__(self) -> None:
        problems = whole_problems("", vars(self), {"bands": 0})
        given = self.corruptions or []
        problems += [
            f"no corruption '{name}'.{suggest(name, CORRUPTION_NAMES)}"
            for name in given
            if name not in CORRUPTION_NAMES
        ]
        for name, values in (("corruptions", given), ("severities", self.severities)):
            problems += [f"{name} is {values}: name each once."] if len(set(values)) < len(values) else []
        if not self.severities:
            problems.append("severities is empty: name at least one, from 1 to 5.")
        ranges = {"severities": Range(1, 5), "noise": Range(0, 1, above=True), "bands": Range(0, 50)}
        problems += range_problems("", vars(self), ranges)
        if problems:
            raise SettingsError(problems)


CORRUPTION_NAMES = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "gaussian_blur",
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "brightness",
    "darkness",
    "contrast",
    "saturation",
    "fog",
    "elastic",
    "pixelate",
    "jpeg",
    "rotation",
    "shift",
    "occlusion",
)


@dataclass(frozen=True)
class NoSettings:
    """An instrument without options of its own."""
