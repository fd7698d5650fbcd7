"""The table that an ensemble prints: methods and members by their honest score."""

from collections.abc import Mapping
from typing import Any

from swinft.errors import listed, number_of
from swinft.printing import aligned, format_interval, format_known, format_score, visible
from swinft.run.ensemble.pairs import CERTAIN, SHOWN, pair_rows

MOST_WEIGHTS = 12
MOST_OUTPUTS = 6  # with weights of their own


def table_lines(found: Mapping[str, Any]) -> list[str]:
    """The lines that are printed.

    Args:
        found: What scores.json holds of an ensemble.
    """
    direction = "higher" if found["higher_is_better"] else "lower"
    against = visible(found["best_member"])
    reference = f"gain over {against}"
    header = ["", "nested", "in-sample", "optimism", reference, "95 % interval"]
    methods = [[each["name"], *_numbers(each)] for each in found["methods"]]
    lines = [f"{found['metric']}, {direction} is better; {found['rows']:,} rows in {number_of(found['folds'], 'fold')}"]
    lines += aligned([header, *methods])
    lines += [f"  {name}: not tried, {reason}" for name, reason in found["refused"].items()]
    header = ["member", "score", reference, "95 % interval", "mean correlation", "adds"]
    members = [
        [
            visible(each["name"]),
            format_score(each["score"]),
            *_difference(each),
            format_known(each["correlation"], ".3f"),
            format_known(each["adds"], "+.4g"),
        ]
        for each in found["members"]
    ]
    lines += ["", *aligned([header, *members]), ""]
    for are_members, what in ((False, "methods"), (True, "members")):
        rows = pair_rows(found.get("differences", ()), are_members)  # ensembles of before have none
        if len(rows) > 2 + are_members:  # one difference of two members is their gain
            best = f"the {SHOWN} best " if len(found[what]) > SHOWN else ""
            lines += [f"differences of {best}{what}, row less column:", *aligned(rows), ""]
    return [*lines, *notes(found)]


def notes(found: Mapping[str, Any]) -> list[str]:
    """What to know about the table."""
    lines = [
        "nested: each fold by what was fitted on the other folds; in-sample: by what was fitted on the rows that are "
        "scored; optimism: how much better that looks. Gains are positive where they are better."
    ]
    if found["bootstrap"]:
        resampled = "groups of rows" if found["are_groups"] else "rows"
        lines.append(
            f"intervals: {found['bootstrap']:,} resamples of the {resampled}, the same for all; {CERTAIN} if that of a "
            f"difference is on one side of 0. All differences: scores.json."
        )
    chosen = found["method"]
    if found["is_automatic"]:
        lines.append(
            f"auto chose {chosen}, the best nested score of {len(found['methods'])} methods: choosing by it is a small "
            f"optimism of its own, which the score does not show."
        )
    if any(each["adds"] is not None for each in found["members"]):
        part = found.get("adds_fitted_on")  # absent from ensembles of earlier versions
        on = f", both fitted on {part:,} rows outside of each fold and scored on all" if part else ""
        lines.append(f"adds: what {chosen} gains with the member, fitted again without it{on}.")
    if not found["keeps_unit"]:
        lines.append(
            f"{chosen} predicts ranks in 0–1, not probabilities or the target's units: for metrics of the order only."
        )
    if found["weights"]:
        lines.append(f"weights: {_weights(found['weights'])}")
    per_output = found.get("weights_per_output") or {}
    lines += [f"weights of {visible(name)}: {_weights(each)}" for name, each in list(per_output.items())[:MOST_OUTPUTS]]
    if len(per_output) > MOST_OUTPUTS:
        lines.append(f"weights of {len(per_output) - MOST_OUTPUTS} more outputs: scores.json")
    return [*lines, *found.get("warnings", ())]


def _weights(found: Mapping[str, float]) -> str:
    """`a 0.700 and b 0.300`, the largest first."""
    sized = sorted(found.items(), key=lambda item: -item[1])
    return listed([f"{visible(name)} {weight:.3f}" for name, weight in sized], MOST_WEIGHTS)


def _numbers(each: Mapping[str, Any]) -> list[str]:
    optimism = format_known(each["optimism"], "+.4g") if each["in_sample"] is not None else "–"
    in_sample = format_score(each["in_sample"]) if each["in_sample"] is not None else "–"
    return [format_score(each["score"]), in_sample, optimism, *_difference(each)]


def _difference(each: Mapping[str, Any]) -> list[str]:
    return [format_known(each["gain"], "+.4g"), format_interval(each["interval"])]
