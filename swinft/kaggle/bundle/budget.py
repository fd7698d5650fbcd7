"""A time budget: how many folds and views fit into it, by predictions of a few rows that are timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from swinft.errors import number_of
from swinft.printing import format_seconds

SHARE = 0.85  # of the time left that predictions may take by the estimate
ATTEMPTS = 6
CAUTION = 0.8  # from the second cut on


@dataclass(frozen=True)
class Work:
    """What a run predicts with.

    Args:
        folds: Number of folds.
        views: Number of views.
    """

    folds: int
    views: int

    def reduced(self, share: float) -> "Work":
        """Work of about this share of the passes: fewer views; where there is one, fewer folds; at least one each."""
        if self.views > 1:
            return Work(self.folds, max(1, int(share * self.views)))
        return Work(max(1, int(share * self.folds)), 1)

    def __str__(self) -> str:
        return f"{number_of(self.folds, 'fold')} × {number_of(self.views, 'view')}"


def fitting(
    whole: Mapping[str, Work], seconds_left: Callable[[], float], measure: Callable[[str, Work], float]
) -> dict[str, Work]:
    """The work that fits into the time left, measured; prints what is left out.

    Args:
        whole: All folds and views of each run.
        seconds_left: Of the budget, by now.
        measure: Seconds that a run needs for all rows with some work, by a few rows.
    """
    chosen = dict(whole)
    for attempt in range(ATTEMPTS):
        needed = sum(measure(name, work) for name, work in chosen.items())
        allowed = max(0.0, SHARE * seconds_left())
        # Half of the views may take more than half of the time: images are decoded as often.
        share = min(1.0, allowed / max(needed, 1e-9)) * (CAUTION if attempt else 1)
        smaller = {name: work.reduced(share) for name, work in chosen.items()}
        if needed <= allowed or smaller == chosen:
            break
        chosen = smaller
    else:
        needed = sum(measure(name, work) for name, work in chosen.items())
    for name, work in chosen.items():
        if work != whole[name]:
            print(
                f"WARNING: {name}: {whole[name]} do not fit into the time budget; it predicts with {work}.", flush=True
            )
    left = seconds_left()
    print(f"predictions will take about {format_seconds(needed)} of {format_seconds(max(left, 0))}", flush=True)
    if needed > left:
        print("WARNING: this is more than the time budget, with one fold and one view a run.", flush=True)
    return chosen
