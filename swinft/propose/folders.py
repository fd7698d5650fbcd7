"""Tables of images without a table: the class is the name of a folder, or a part of the file's name."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swinft.propose.listing import SPLITS, Group
from swinft.propose.tables import TableFacts, made
from swinft.propose.templates import is_aside

TEST, VALID = (
    frozenset(("test", "testing", "eval", "unlabeled", "unlabelled")),
    frozenset(("val", "valid", "validation", "dev", "holdout")),
)
NUMBERED = re.compile(r"(?P<label>.*?[^0-9._\- ])(?P<sign>[._\- ]*)(?P<number>[0-9]+)(?P<rest>[^0-9].*)?")
# Folders of this name and a number are parts of the data, not classes: `study1`, `part_2`.
PART = re.compile(r"(study|series|patient|subject|case|visit|session|view|part|batch|fold|split|scan|set)[_ -]?[0-9]+")
FEWEST = 2  # images of a class, on average, in the files that were looked at


@dataclass(frozen=True)
class Named:
    """How the names of a group's files hold a class.

    Args:
        pattern: Of a step `files`.
        cells: The columns of some files.
        why: Why.
        counts: Files of each class, where known.
    """

    pattern: str
    cells: dict[str, list[str]]
    why: str
    counts: dict[str, int]


@dataclass(frozen=True)
class FolderTable:
    """A training table that a step makes of files.

    Args:
        table: The table, with the columns `label` and `path`.
        why: Why the label is what it is.
        has_split: Whether its column `fold` holds a given validation split.
        counts: Files of each class.
    """

    table: TableFacts
    why: str
    has_split: bool
    counts: dict[str, int]


def purpose(group: Group) -> str:
    """`train`, `val`, `test`, or empty where no folder says."""
    for part in group.folder.lower().split("/"):
        words = {*re.findall("[a-z]+", part)} & SPLITS
        if words:
            return "test" if words & TEST else "val" if words & VALID else "train"
    return ""


def folder_table(groups: Sequence[Group]) -> FolderTable | None:
    """The training table that the files' names make; None where they hold no class."""
    by_purpose: dict[str, list[Group]] = {}
    for group in groups:
        if group.container == "files":
            by_purpose.setdefault(purpose(group), []).append(group)
    train = _named(by_purpose.get("train") or by_purpose.get("") or [])
    if train is None:
        return None
    valid = _named(by_purpose.get("val", []))
    unsplit = _table(train, {})
    if valid is None or not {*valid.counts} <= {*train.counts}:
        return FolderTable(unsplit, train.why, False, train.counts)
    cells = {name: [*train.cells[name], *valid.cells[name]] for name in ("label", "path")}
    cells["fold"] = ["-1"] * len(train.cells["path"]) + ["0"] * len(valid.cells["path"])
    steps: list[dict[str, Any]] = [
        {
            "concat": [
                [{"files": each.pattern}, {"format": {"fold": fold}}] for each, fold in ((train, "-1"), (valid, "0"))
            ]
        }
    ]
    counts = Counter(train.counts)
    counts.update(valid.counts)
    whole = sum(counts.values()) == len(cells["path"])
    table = made("", cells, sum(counts.values()), is_whole=whole, steps=tuple(steps))
    return FolderTable(table, train.why, True, dict(counts))


def _table(found: Named, more: dict[str, list[str]]) -> TableFacts:
    rows = sum(found.counts.values())
    whole = rows == len(found.cells["path"])
    return made("", {**found.cells, **more}, rows, is_whole=whole, steps=({"files": found.pattern},))


def _named(groups: Sequence[Group]) -> Named | None:
    """The way in which the largest group's names hold a class."""
    groups = sorted(groups, key=lambda group: (is_aside(group.folder), -group.count))
    for group in groups[:3]:
        same = [each for each in groups if each.folder == group.folder]
        found = _by_folder(same) if "*" in group.folder else _by_name(group)
        if found is not None:
            return found
    return None


def _by_folder(groups: Sequence[Group]) -> Named | None:
    """The class is the sub-folder's name: `train/{label}/{name}.jpg`."""
    first = groups[0]
    if len(first.folders) < 2 or all(PART.fullmatch(name.lower()) for name in first.folders):
        return None
    before, _, after = first.folder.rpartition("*")
    if "*" in before:  # of several levels, the last one; the others are part of the path
        names = iter("abcdefgh")
        before = re.sub(r"\*", lambda _: f"{{folder_{next(names)}}}", before)
    suffixes = [group.suffix for group in groups]
    end = f"{{name}}{suffixes[0]}" if len(suffixes) == 1 else f"{{name}}{{suffix:{'|'.join(map(re.escape, suffixes))}}}"
    paths = [path for group in groups for path in group.names]
    depth = first.folder.split("/").index("*") if "*" not in before else len(first.folder.split("/")) - 1
    labels = [path.split("/")[depth] for path in paths]
    counts: Counter[str] = Counter()
    for group in groups:
        counts.update(group.counts)
    why = f"the name of the folder: {len(first.folders):,} in {before.rstrip('/') or 'the folder itself'}"
    cells = {"label": labels, "name": [path.rpartition("/")[2] for path in paths], "path": paths}
    return Named(f"{before}{{label}}{after}/{end}", cells, why, dict(counts))


def _by_name(group: Group) -> Named | None:
    """The class is the beginning of the file's name, before a number: `cat.0.jpg`, `Abyssinian_100.jpg`."""
    stems = [path.rpartition("/")[2].removesuffix(group.suffix) for path in group.names]
    matches = [NUMBERED.fullmatch(stem) for stem in stems]
    if not stems or not all(matches):
        return None
    found = [match for match in matches if match is not None]
    labels, signs = [match["label"] for match in found], {match["sign"] for match in found}
    if len(signs) > 1 or any(match["rest"] for match in found) or not 2 <= len({*labels}) <= len(labels) / FEWEST:
        return None
    counts = Counter(labels)
    exact = group.count == len(stems)
    scaled = (
        dict(counts) if exact else {name: max(1, round(n * group.count / len(stems))) for name, n in counts.items()}
    )
    place = f"{group.folder}/" if group.folder else ""
    sign = signs.pop()
    plain = sign == "." and not any("." in label for label in labels)
    label = "{label}" if plain else "{label:.+?}" if sign else "{label:.*[^0-9]}"
    pattern = (
        f"{place}{label}{sign}{{number:[0-9]+}}{group.suffix}"
        if not plain
        else f"{place}{{label}}.{{number}}{group.suffix}"
    )
    shown = ", ".join(sorted(counts)[:3])
    why = f"the beginning of the file's name: {len(counts):,}, such as {shown}"
    cells = {"label": labels, "number": [match["number"] for match in found], "path": list(group.names)}
    return Named(pattern, cells, why, scaled)
