"""The differences of all methods and members from one another, with resampled intervals.

Shapes: C candidates, R resamples.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from swinft.printing import visible
from swinft.run.ensemble.method import Array
from swinft.run.ensemble.nested import Candidate
from swinft.run.resamples import chance, interval

SHOWN = 10  # candidates in a printed table, the best ones: all are in scores.json
UNKNOWN, CERTAIN = "–", "*"


def every_pair(candidates: Sequence[Candidate], gains: Array) -> list[dict[str, Any]]:
    """The difference of each two candidates.

    Args:
        candidates: C candidates; the one that comes first is the first one of a pair.
        gains: What `resampled_gains` gives for them, (R, C).

    Returns:
        For each pair the names `first` and `second`, and whether they are members; `difference`, positive where the
        first one is better; `interval`, and `better`, the share of the resamples in which it is better, ties half;
        None where nothing is defined.
    """
    pairs: list[dict[str, Any]] = []
    for first, one in enumerate(candidates):
        for second, other in enumerate(candidates[first + 1 :], start=first + 1):
            resampled = gains[:, first] - gains[:, second]
            bounds, difference = interval(resampled), one.gain - other.gain
            pairs.append(
                {
                    "first": one.name,
                    "first_is_member": one.is_member,
                    "second": other.name,
                    "second_is_member": other.is_member,
                    "difference": difference if math.isfinite(difference) else None,
                    "interval": bounds,
                    "better": None if bounds is None else chance(resampled),
                }
            )
    return pairs


def pair_rows(pairs: Sequence[Mapping[str, Any]], are_members: bool) -> list[list[str]]:
    """The cells of the table of all methods, or of all members: a row less a column, of the best candidates.

    Args:
        pairs: What `every_pair` gives, in the order of candidates.
        are_members: Whether the table is of members.
    """
    chosen = [pair for pair in pairs if pair["first_is_member"] == pair["second_is_member"] == are_members]
    names = list(dict.fromkeys(pair[key] for pair in chosen for key in ("first", "second")))[:SHOWN]
    found = {(pair["first"], pair["second"]): _cell(pair) for pair in chosen}
    rows = [["", *(f"{number} " for number in range(2, len(names) + 1))]]
    for number, name in enumerate(names[:-1], start=1):
        rows.append([f"{number} {visible(name)}", *(found.get((name, other), "") for other in names[1:])])
    return [*rows, [f"{len(names)} {visible(names[-1])}", *([""] * (len(names) - 1))]] if len(names) > 1 else []


def _cell(pair: Mapping[str, Any]) -> str:
    """`+0.0123*`: a difference, with a mark if its interval is on one side of 0."""
    if pair["difference"] is None:
        return f"{UNKNOWN} "
    bounds = pair["interval"]
    is_certain = bounds is not None and (bounds[0] > 0 or bounds[1] < 0)
    return f"{pair['difference']:+.3g}{CERTAIN if is_certain else ' '}"
