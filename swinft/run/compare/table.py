"""A comparison as lines of at most 100 characters."""

import json
import math
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from swinft.errors import listed, number_of
from swinft.printing import aligned, format_interval, format_known, format_score, shortened, visible, width
from swinft.run.compare.ledger_table import WIDTH

NAME, KEYS, IDS = 24, 30, 5


def comparison_lines(found: Mapping[str, Any]) -> list[str]:
    """What `swinft compare` prints."""
    direction = "higher" if found["higher_is_better"] else "lower"
    rules = ", after the rules of the submission" if found["has_rules"] else ""
    rows = f"{found['rows']:,} rows in {number_of(found['folds'], 'fold')}"
    lines = [
        f"{found['metric']}, {direction} is better; {rows}{rules}",
        *_scores(found),
        "",
        *_folds(found),
    ]
    if found["private_rows"]:
        lines += ["", *_private(found)]
    lines += ["", *_differences(found), *_ids(found), *_notes(found)]
    return [shortened(visible(line), WIDTH) for line in lines]


def _name(text: str) -> str:
    return shortened(visible(text), NAME)


def _scores(found: Mapping[str, Any]) -> list[str]:
    rows = [["", "score", "gain", "95 % interval", "correlation"]]
    for place, each in enumerate(found["runs"]):
        correlation = found["correlations"][0][place] if found["correlations"] else math.nan
        cells = ["", "", ""]
        if place:
            cells = [_signed(each["gain"]), format_interval(each["interval"], "–"), format_known(correlation, ".3f")]
        rows.append([_name(each["name"]), format_score(each["score"]), *cells])
    return [*aligned(rows), f"gain over {_name(found['reference'])}, positive is better; and correlation with it"]


def _folds(found: Mapping[str, Any]) -> list[str]:
    """A line per fold: the scores of two runs and their difference, or the gains of several over the first."""
    runs, folds = found["runs"], [each["fold"] for each in found["runs"][0]["folds"]]
    first = _name(found["reference"])
    shown = runs[1:7]
    header = ["", first, *(f"{_name(each['name'])}" for each in shown)]
    rows = [header]
    for place, fold in enumerate(folds):
        gains = [_signed(each["folds"][place]["gain"]) for each in shown]
        rows.append([f"fold {fold}", format_score(runs[0]["folds"][place]["score"]), *gains])
    better = [sum(each["gain"] > 0 for each in run["folds"]) for run in shown]
    rows.append(["better in", "", *(f"{count} of {len(folds)}" for count in better)])
    lines = aligned(rows)
    while max(map(width, lines)) > WIDTH and len(rows[0]) > 3:
        rows = [row[:-1] for row in rows]
        lines = aligned(rows)
    left = len(runs) + 1 - len(rows[0])
    title = f"folds: the score of {first}, and the gains over it" + (f"; {left} more in --json" if left else "")
    return [title, *lines]


def _private(found: Mapping[str, Any]) -> list[str]:
    """What to expect on the private split."""
    medals = list(found["medals"])
    header = ["", "90 % interval", "beats first", "best"]
    header += [*medals, "any medal"] if medals else []
    rows = [header]
    for each in found["runs"]:
        private = each["private"]
        low_high = "" if private["interval"] is None else " to ".join(map(format_score, private["interval"]))
        beats = _percent(private["beats_reference"]) if "beats_reference" in private else ""
        won = [_percent(private["medals"][name]) for name in (*medals, "any")] if medals else []
        rows.append([_name(each["name"]), low_high, beats, _percent(each["best"]), *won])
    lines = [f"a private split of {found['private_rows']:,} rows ({found['private_rows_from']}):", *aligned(rows)]
    if medals:
        named = listed(f"{name} {value:g}" for name, value in found["medals"].items())
        lines.append(f"{named}; each column is that medal and no better one.")
    lines += [
        "Assumed: test rows are drawn as the training rows are, and thresholds do not move with the split.",
        "Both samples of rows are random, the known one and the private one; docs/compare.md says how right",
        "such probabilities were in simulated competitions.",
    ]
    if len(found["runs"]) > 2:
        lines.append("The best of several runs looks better than it is: what is chosen by its score is partly luck.")
    return lines


def _differences(found: Mapping[str, Any]) -> list[str]:
    """What differs in the configs."""
    differ = found["config_differences"]
    if not differ:
        return ["configs: no key differs"]
    lines = ["configs differ in:"]
    for key, values in list(differ.items())[:KEYS]:
        lines.append(f"  {key}: {' | '.join(_value(each) for each in values)}")
    return lines + ([f"  {len(differ) - KEYS} more in --json"] if len(differ) > KEYS else [])


def _ids(found: Mapping[str, Any]) -> list[str]:
    """Where two runs differ most."""
    if len(found["runs"]) != 2:
        return []
    ((name, rows),) = found["ids"].items() or [("", [])]
    if not rows:
        return ["the predictions are equal"] if found["ids"] else []
    first = _name(found["reference"])
    shown = [["largest changes", "output", first, _name(name)]]
    shown += [
        [_name(each["id"]), _name(each["output"]), f"{each['reference']:.4g}", f"{each['run']:.4g}"]
        for each in rows[:IDS]
    ]
    return ["", *aligned(shown)]


def _notes(found: Mapping[str, Any]) -> list[str]:
    drawn = "groups of rows" if found["are_groups"] else "rows"
    lines = [f"intervals: {found['resamples']:,} resamples of the {found['units']:,} {drawn}, the same for all."]
    if not found["private_rows"]:
        lines.append(f"no private split: {found['private_rows_from']}; --rows N and --public SHARE give its size")
    for name, count in found["other_folds"].items():
        lines.append(f"{_name(name)} has other folds ({number_of(count, 'row')} in another one): compared row by row,")
        lines.append(
            "  and by the folds of the first run; its networks saw other rows, which is noise that is not paired"
        )
    share = max(each.get("private", each).get("undefined", 0) or 0 for each in found["runs"])
    if share > 0:
        lines.append(f"the metric is undefined in up to {share:.1%} of the resamples, which are left out")
    notes = [line for note in found["notes"] for line in wrap(visible(note), WIDTH, subsequent_indent="  ")]
    return ["", *lines, *notes]


def _signed(value: float) -> str:
    return format_known(value, "+.4g")


def _percent(value: float) -> str:
    """A probability, without more digits than resamples give."""
    return (
        "–"
        if math.isnan(value)
        else "< 1 %"
        if value < 0.005
        else "> 99 %"
        if value > 0.995
        else f"{value:.0%}".replace("%", " %")
    )


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return shortened(visible(text), NAME)
