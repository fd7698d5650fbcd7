"""The options of `swinft compare`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from swinft.errors import InputError, listed, suggest
from swinft.ranges import BELOW_ONE, Range, SettingsError, range_problems, whole_problems

MEDALS = ("gold", "silver", "bronze")
MOST_RESAMPLES = 100_000


@dataclass(frozen=True)
class CompareOptions:
    """Compares runs on the same rows, and predicts how they will differ on a private leaderboard.

    Args:
        metric: The metric: one of the first run's, or the name of any other; by default the first run's first one.
        rows: Number of test rows, public and private ones; by default those of the first run's test table.
        public: Share of the test rows that the public leaderboard scores, as Kaggle's leaderboard page says.
        medals: The scores from which a medal is won: `gold=17.0,silver=17.3,bronze=17.5`; one or more of them.
        base: The run with the training table, the folds and the metric; by default the first run among those compared.
        rules: Whether scores are those after the `submission.rules` of each run, fitted on other folds.
        common_rows: Compare on the training rows that all have predicted; otherwise it is an error if they differ.
        resamples: Number of resamples.
        seed: Seed of the resamples.
        allow_code: Packages or modules whose classes the runs' configs may name, besides the trusted ones.

    Raises:
        InputError: A value is wrong.
    """

    metric: str | None = None
    rows: int | None = None
    public: float = 0.0
    medals: str | dict[str, float] | None = None
    base: str | None = None
    rules: bool = True
    common_rows: bool = False
    resamples: int = 2000
    seed: int = 42
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        lowest = {"resamples": 100, "seed": 0} | ({} if self.rows is None else {"rows": 1})
        problems = whole_problems("", vars(self), lowest)
        if not problems:
            ranges = {"public": BELOW_ONE, "resamples": Range(100, MOST_RESAMPLES)}
            problems = range_problems("", vars(self), ranges)
        if problems:
            raise SettingsError(problems)
        object.__setattr__(self, "medals", read_medals(self.medals))

    def thresholds(self, higher_is_better: bool, metric: str) -> dict[str, float]:
        """The score from which each medal is won, the best medal first.

        Raises:
            InputError: A better medal has a worse score.
        """
        given: Any = self.medals or {}
        found = {name: float(given[name]) for name in MEDALS if name in given}
        scores = [value if higher_is_better else -value for value in found.values()]
        if any(better < worse for better, worse in pairwise(scores)):
            first = "highest" if higher_is_better else "lowest"
            raise InputError(
                f"--medals {', '.join(f'{name}={value:g}' for name, value in found.items())}: of {metric}, gold needs "
                f"the {first} score, then silver, then bronze."
            )
        return found


def read_medals(given: str | Mapping[str, Any] | None) -> dict[str, float]:
    """Thresholds from `gold=17.0,silver=17.3`, or from a mapping.

    Raises:
        InputError: A medal is unknown or named twice, or its score is not a number.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        pairs = [part.partition("=")[::2] for part in given.split(",")]
    else:
        pairs = [(str(name), str(value)) for name, value in given.items()]
    found = dict[str, float]()
    for name, text in ((name.strip().casefold(), text.strip()) for name, text in pairs):
        if name not in MEDALS:
            raise InputError(f"--medals {given}: no medal '{name}'.{suggest(name, MEDALS)}")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or name in found:
            raise InputError(f"--medals {given}: {name} needs one number. Write {listed([f'{name}=17.0'])}.")
        found[name] = value
    return found
