"""The list `rounds:` of a config: what each round does, with all that is wrong with it, by file and line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from swinft.data.fold_settings import ExtraTable
from swinft.errors import InputError, listed, suggest
from swinft.model.training.distillation import RANGES
from swinft.ranges import INSIDE_UNIT, SettingsError, range_problems, settings_of, word_problems
from swinft.run.config.sections import COMMAND_KEYS
from swinft.run.config.yaml_checks import Source, number_problems, read_nodes, repeated_keys
from swinft.run.config.yaml_text import read_yaml
from swinft.run.layout import FILTERS, check_name
from swinft.run.python_inputs import nested

ROUNDS, TEST = "rounds", "test"
KEYS = ("name", "from", "drop_noisy", "pseudo_labels", "distill", "set")
LEARNS = ("drop_noisy", "pseudo_labels", "distill")
# Keys that all rounds share: their scores are of the same rows, targets and folds, by the same metric.
SHARED = (
    *("name", "runs", "model.metrics", "data.root", "data.id", "data.train", "data.test", "data.sample_submission"),
    *("data.target", "data.target_kind", "data.columns", "data.folds", "distill", *COMMAND_KEYS),
)
OWN = ("data.folds.all", "data.columns.numeric_features", "data.columns.categorical_features")


@dataclass(frozen=True)
class DropNoisy:
    """A filter of training rows whose labels look wrong.

    Args:
        share: The largest share of a fold's training rows that is dropped, between 0 and 1; null for all rows that
            cleanlab finds. For numbers it must be given: their largest residuals are dropped.
        nested: Whether what a fold drops is decided by networks that have not seen the rows which the fold scores. With
            false, the out-of-fold predictions of the round before decide: nothing more is trained, and the score is too
            good.
    """

    share: float | None = None
    nested: bool = True

    def __post_init__(self) -> None:
        """Checks the values."""
        problems = range_problems("drop_noisy", vars(self), {"share": INSIDE_UNIT})
        problems += word_problems("drop_noisy", vars(self), {"nested": (True, False)})
        if problems:
            raise SettingsError(problems)


@dataclass(frozen=True)
class Distilled:
    """Distillation from the networks that a round learns from; as the keys of `distill:`."""

    weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if problems := range_problems("distill", vars(self), RANGES):
            raise SettingsError(problems)


@dataclass(frozen=True)
class Round:
    """One round.

    Args:
        name: Its name, which is that of its folder.
        place: File and line.
        sources: The rounds and runs that it learns from.
        drop_noisy: Its filter; None for none.
        pseudo_labels: Tables that it trains on with the labels of the sources, as the keys of `data.folds.extra`.
        distill: Its distillation; None for none.
        changes: Keys of the config that differ from those of the base, nested.
    """

    name: str
    place: str
    sources: list[str] = field(default_factory=list)
    drop_noisy: DropNoisy | None = None
    pseudo_labels: list[dict[str, Any]] = field(default_factory=list)
    distill: Distilled | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def does(self) -> str:
        """What it does, in words."""
        done = {"drop_noisy": self.drop_noisy, "pseudo_labels": self.pseudo_labels, "distill": self.distill}
        return ", ".join(name for name, given in {**done, "set": self.changes}.items() if given)


def read_rounds(path: Path) -> list[Round]:
    """The rounds of a YAML file.

    Raises:
        InputError: Something is wrong with them; all problems are listed.
    """
    source = Source(str(path))
    text = path.read_text(encoding="utf-8")
    root = read_nodes(source, text)
    node = next(value for key, value in root.value if key.value == ROUNDS)
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise InputError(f"{source.location(node)}: rounds is a list of mappings, such as [{{name: base}}].")
    given = read_yaml(text)[ROUNDS]
    rounds, problems = list[Round](), list[str]()
    for position, (each, keys) in enumerate(zip(node.value, given, strict=True)):
        place = source.location(each)
        if not isinstance(each, yaml.MappingNode) or "name" not in keys or not isinstance(keys["name"], str):
            problems.append(f"{place}: round {position + 1} is no mapping with a `name`, such as {{name: base}}.")
            continue
        problems += [f"{source.location(twice)}: key '{twice.value}' is given twice." for twice in repeated_keys(each)]
        problems += _table_problems(source, each)
        found, wrong = _read(keys, place, [known.name for known in rounds])
        problems += [f"{place}: round '{keys['name']}': {problem}" for problem in wrong]
        rounds.append(found)
    if problems:
        raise InputError("\n  ".join(["the rounds are wrong:", *dict.fromkeys(problems)]), dict.fromkeys(problems))
    return rounds


def _read(given: Mapping[str, Any], place: str, before: Sequence[str]) -> tuple[Round, list[str]]:
    """A round, and what is wrong with it."""
    problems = [f"no key '{key}'.{suggest(str(key), KEYS)}" for key in given if key not in KEYS]
    name = given["name"]
    try:
        check_name(name)
    except InputError as error:
        problems.append(str(error))
    if name in before or name == FILTERS:
        is_folder = "it is the name of a folder of all rounds."
        problems.append("another round has this name." if name in before else is_folder)
    learns = [key for key in LEARNS if given.get(key) is not None]
    sources = _sources(given.get("from"), learns, before, problems)
    for key in ("distill", "drop_noisy"):
        if key in given and not isinstance(given[key], Mapping):
            problems.append(f"{key} is {given[key]!r}; write a mapping of its keys, {{}} for the defaults.")
    tables = given.get("pseudo_labels") or []
    found = Round(
        name,
        place,
        sources,
        _settings(DropNoisy, "drop_noisy", given, problems),
        _tables([tables] if isinstance(tables, Mapping) else tables, problems),
        _settings(Distilled, "distill", given, problems),
        _changes(given.get("set"), problems),
    )
    if "pseudo_labels" in given and not tables:
        problems.append("pseudo_labels is empty: write {table: FILE}, or {table: test}; or remove it.")
    if found.drop_noisy and found.drop_noisy.nested and not (len(sources) == 1 and sources[0] in before):
        problems.append(
            "drop_noisy trains networks with the settings of the one round that it learns from: name one round in "
            "`from`, or set nested: false."
        )
    return found, problems


def _sources(given: Any, learns: Sequence[str], before: Sequence[str], problems: list[str]) -> list[str]:
    """The rounds and runs that a round learns from: by default the round before."""
    names = [given] if isinstance(given, str) else given
    if names is None:
        if learns and not before:
            problems.append(f"{listed(learns)}: there is no round before it: name a finished run, from: runs/NAME.")
        return [before[-1]] if learns and before else []
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        problems.append(f"from is {given!r}; write the name of an earlier round or the folder of a run, or a list.")
        return []
    if not learns:
        problems.append(f"`from` does nothing without {' or '.join(LEARNS)}: set one, or remove it.")
    if len(set(names)) < len(names):
        problems.append(f"from is {names}: name each once.")
    for name in names:
        if name not in before and not Path(name).is_dir():
            problems.append(f"from: there is no earlier round or run '{name}'.{suggest(name, before)}")
    return names


def _settings(kind: type[Any], key: str, given: Mapping[str, Any], problems: list[str]) -> Any:
    """The settings below a key; None without it."""
    if not isinstance(given.get(key), Mapping):
        return None
    try:
        return settings_of(kind, key, given[key])
    except SettingsError as error:
        problems += error.problems
        return None


def _tables(given: Any, problems: list[str]) -> list[dict[str, Any]]:
    """The tables of pseudo-labels, checked as extra tables."""
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        problems.append(f"pseudo_labels is {given!r}; write {{table: FILE}}, {{table: test}}, or a list of those.")
        return []
    for each in given:
        if "labels" in each:
            problems.append("pseudo_labels: no key 'labels': the round learns from those that `from` names.")
            continue
        if "table" not in each:
            problems.append("pseudo_labels: each needs a `table`: a CSV, or test for the rows of data.test.")
            continue
        try:
            settings_of(ExtraTable, "pseudo_labels", {**each, "labels": "a round"})
        except SettingsError as error:
            problems += [problem.replace("data.folds.extra", "pseudo_labels") for problem in error.problems]
        if each["table"] == TEST and each.get("image") is not None:
            problems.append("pseudo_labels: image is that of data.test, which `table: test` names: remove it.")
    return [dict(each) for each in given]


def _changes(given: Any, problems: list[str]) -> dict[str, Any]:
    """The keys that differ from those of the base."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not given:
        problems.append(f"set is {given!r}; write keys of the config, such as {{trainer.max_epochs: 20}}.")
        return {}
    try:
        found = nested(given)
    except InputError as error:
        problems.append(f"set: {error}")
        return {}
    for key in _dotted(found):
        if any(key == each or key.startswith(f"{each}.") for each in SHARED) and key not in OWN:
            own = " Write `distill:` beside `set:`." if key.startswith("distill") else ""
            problems.append(
                f"set: {key} is the same in all rounds, whose scores are compared: set it outside of `rounds`.{own}"
            )
    return found


def _dotted(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _table_problems(source: Source, node: yaml.MappingNode) -> Iterator[str]:
    """Numbers in the steps of a table that YAML would change, such as 007."""
    for key, value in node.value:
        tables = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for each in tables if key.value == "pseudo_labels" else []:
            for name, inner in each.value if isinstance(each, yaml.MappingNode) else []:
                if name.value == "table":
                    yield from number_problems(source, inner, "data.folds.extra.table")
