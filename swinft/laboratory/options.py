"""The options of `swinft lab`: those of every instrument, and those of each."""

from dataclasses import dataclass
from typing import Literal

from swinft.ranges import POSITIVE, SettingsError, is_whole, range_problems, whole_problems

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
class NoSettings:
    """An instrument without options of its own."""
