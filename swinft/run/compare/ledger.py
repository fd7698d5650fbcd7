"""The ledger of a folder of runs: what each is, what it scored, and what unfinished ones lack."""

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from swinft.errors import InputError, RunError, listed, number_of
from swinft.model.metrics import METRICS, word_of
from swinft.run.compare.notes import read_note
from swinft.run.layout import ROUNDS, Run
from swinft.store import is_committed

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RunError, yaml.YAMLError)
PARTS = ("training", "result", "submitted")  # of an entry
BUFFERS = ("running_mean", "running_var")  # of batch normalisation: saved with the weights, and not trained


@dataclass(frozen=True)
class Training:
    """How a run was trained; None where something is not known, and in an ensemble.

    Args:
        backbone: Name of the backbone.
        image_size: Its images' size in pixels.
        folds_done: Finished trainings that score rows.
        folds: All of them.
        seconds: Seconds of training, of all finished folds.
        parameters: Trained numbers of a fold's network.
    """

    backbone: str | None = None
    image_size: int | list[int] | None = None
    folds_done: int | None = None
    folds: int | None = None
    seconds: float | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Result:
    """What a run is ranked by; None where something is not known.

    Args:
        metric: Name of the metric.
        higher_is_better: Its direction.
        score: The pooled out-of-fold score; with rules, where the run has rules.
        spread: Standard deviation of the score over folds.
        rows: Scored rows.
    """

    metric: str | None = None
    higher_is_better: bool | None = None
    score: float | None = None
    spread: float | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Submitted:
    """What a run has submitted to Kaggle.

    Args:
        public_score: The newest scored submission's score on the public leaderboard.
        private_score: Its score on the private leaderboard.
        submissions: Number of submissions.
    """

    public_score: float | None = None
    private_score: float | None = None
    submissions: int = 0


@dataclass(frozen=True)
class Entry:
    """A run in the ledger.

    Args:
        name: Name of its folder.
        folder: The folder.
        kind: `run`, `ensemble` or `embed`.
        lacks: What is missing or unreadable; empty for a finished run.
        date: When its config was written, UTC.
        note: Its note.
        train: Its training table.
        target: Its target columns.
        training: How it was trained.
        result: What it is ranked by.
        submitted: What it has submitted.
    """

    name: str
    folder: str
    kind: str = "run"
    lacks: str = ""
    date: str | None = None
    note: str = ""
    train: str | None = None
    target: str | None = None
    training: Training = Training()
    result: Result = Result()
    submitted: Submitted = Submitted()

    @property
    def ranking(self) -> tuple[str, ...]:
        """Runs with an equal one are ranked together: the same metric of the same target of the same table."""
        known = (self.result.metric, self.train, self.target)
        return () if self.result.score is None else tuple(str(each) for each in known)

    def to_plain(self) -> dict[str, Any]:
        """All of it as plain values, without sections."""
        values = asdict(self)
        parts = [values.pop(name) for name in PARTS]
        return values | {name: value for part in parts for name, value in part.items()}

    def updated(self, found: Mapping[str, Any]) -> "Entry":
        """The entry with other values, by their names in `to_plain`."""
        parts = {name: getattr(self, name) for name in PARTS}
        known = {key: name for name, part in parts.items() for key in vars(part)}
        for name, part in parts.items():
            parts[name] = replace(part, **{key: value for key, value in found.items() if known.get(key) == name})
        return replace(self, **{key: value for key, value in found.items() if key not in known}, **parts)


def read_entries(
    folder: Path, metric: str | None, submitted: Callable[[Run], Mapping[str, Any]]
) -> tuple[list[Entry], list[str]]:
    """The runs in a folder, by name.

    Args:
        folder: The folder that holds the runs' folders.
        metric: The metric whose scores are shown; None for each run's first one.
        submitted: What a run has submitted: some of the fields of an entry.

    Returns:
        The entries, and the names of folders that are no runs.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder '{folder}': name the folder that holds the folders of runs.")
    found, others = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            is_one = any(file.exists() for file in (Run(path).config, Run(path).scores, Run(path).ensemble))
        except OSError:
            is_one = True  # it cannot be read, which its entry says
        if is_one:
            found.append(read_entry(Run(path), metric, submitted))
        elif (path / "trials").is_dir():
            others.append(f"{path.name} (a search: name {path / 'trials'})")
        elif (path / ROUNDS).is_file():
            others.append(f"{path.name} (rounds: name this folder)")
        else:
            others.append(path.name)
    return found, others


def read_entry(run: Run, metric: str | None, submitted: Callable[[Run], Mapping[str, Any]]) -> Entry:
    """A run's entry; what cannot be read is said in `lacks`."""
    entry, lacks = Entry(run.root.name, str(run.root)), list[str]()
    parts: list[Callable[[], Mapping[str, Any]]] = [
        lambda: {"note": read_note(run), "date": _date(run)},
        lambda: _of_config(run),
        lambda: _of_folds(run),
        lambda: _of_scores(run, metric),
        lambda: submitted(run),
    ]
    for part in parts:
        try:
            entry = entry.updated(part())
        except UNREADABLE as error:
            lacks.append(f"unreadable: {_reason(error)}".replace(f"{run.root}/", ""))
    if entry.lacks:
        lacks.insert(0, entry.lacks)
    elif entry.result.score is None and not lacks:
        lacks.append(f"no score of {metric}" if metric and is_committed(run.scores) else "no score")
    return replace(entry, lacks="; ".join(dict.fromkeys(lacks)))


def _reason(error: BaseException) -> str:
    """An error on one line; of a key that is missing, its name."""
    if isinstance(error, KeyError):
        return f"there is no key {error}"
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _date(run: Run) -> str | None:
    files = [path for path in (run.config, run.scores) if path.is_file()]
    if not files:
        return None
    return datetime.fromtimestamp(files[0].stat().st_mtime, UTC).isoformat(timespec="seconds")


def _of_config(run: Run) -> dict[str, Any]:
    config = run.read_config()
    data, model = config["data"], config.get("model") or {}
    found = {"kind": _kind(run), "train": _text(data.get("train")), "target": _text(data.get("target"))}
    if run.is_ensemble:
        return found
    return found | {"backbone": _backbone(model.get("backbone")), "image_size": data.get("image_size")}


def _kind(run: Run) -> str:
    """What made a run's folder."""
    return "embed" if run.is_embedding else "ensemble" if run.is_ensemble else "run"


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str)


def _backbone(given: Any) -> str | None:
    """A backbone's name; of a custom one, its class."""
    return str(given["class_path"]) if isinstance(given, Mapping) and "class_path" in given else _text(given)


def _of_folds(run: Run) -> dict[str, Any]:
    """Finished folds, seconds and parameters; none of an ensemble's."""
    if run.is_ensemble:
        return {}
    planned = run.planned_folds()
    done = [index for index in planned if run.fold(index).is_done]
    seconds = [run.fold(index).read_result().get("seconds") for index in done]
    found: dict[str, Any] = {"folds_done": len(done), "folds": len(planned)}
    if known := [each for each in seconds if each is not None]:
        found["seconds"] = float(sum(known))
    if done and run.fold(done[0]).weights.is_file():
        found["parameters"] = count_parameters(run.fold(done[0]).weights)
    if unfinished := [index for index in planned if index not in done]:
        found["lacks"] = f"unfinished: {listed(map(str, unfinished), 5)} of {number_of(len(planned), 'fold')}"
    return found


def count_parameters(path: Path) -> int:
    """Trained numbers in a file of weights, by its header alone."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(size, 100_000_000)))
    tensors = {name: each for name, each in header.items() if name != "__metadata__"}
    return sum(
        math.prod(each["shape"])
        for name, each in tensors.items()
        if "F" in each["dtype"] and not name.endswith(BUFFERS)
    )


def _of_scores(run: Run, metric: str | None) -> dict[str, Any]:
    """The score by which a run is ranked."""
    if not is_committed(run.scores):
        if run.scores.is_file():
            run.read_scores()  # raises why it cannot be read
        return {}
    scores = run.read_scores()
    pooled = scores["pooled"]
    name = metric or next(iter(pooled))
    if name not in pooled:
        return {"metric": name}
    ruled = (scores.get("with_rules") or {}).get("pooled") or {}
    score = ruled.get(name, pooled[name])
    spread = (scores.get("spread") or {}).get(name)
    return {
        "metric": name,
        "higher_is_better": _direction(name, run, scores),
        "score": None if score is None else float(score),
        "spread": None if spread is None else float(spread),
        "rows": scores.get("rows"),
    }


def _direction(name: str, run: Run, scores: Mapping[str, Any]) -> bool | None:
    """Whether a higher score is better; of a custom metric by the best epochs of the folds, None if these do not say.

    No custom code is run.
    """
    given = (run.read_config().get("model") or {}).get("metrics") or []
    words = [word_of(each) for each in given]
    shown = {_shown(each): word for each, word in zip(given, words, strict=True)}
    if known := METRICS.get(shown.get(name) or name):
        return known.higher_is_better
    if (scores.get("ensemble") or {}).get("metric") == name:
        return bool(scores["ensemble"]["higher_is_better"])
    is_first = next(iter(scores["pooled"])) == name  # the first metric decides on the best epoch
    for fold in scores.get("folds", []) if is_first else []:
        best, last = (fold.get(which, {}).get(f"val_{name}") for which in ("best_epoch", "last_epoch"))
        if best is not None and last is not None and best != last:
            return bool(best > last)
    return None


def _shown(given: Any) -> str:
    """The name of the score of a metric with arguments."""
    arguments = next(iter(given.values())) if isinstance(given, Mapping) and len(given) == 1 else None
    return str(arguments["name"]) if isinstance(arguments, Mapping) and "name" in arguments else word_of(given)


def ranked(entries: Sequence[Entry], by: str) -> list[Entry]:
    """Entries in an order: those with an unknown value last, and runs of one ranking beside each other.

    Args:
        entries: The entries.
        by: `score`: the best first; `time`, `parameters`: the least first; `date`: the newest first; `public`,
            `private`: the best first; `name`.
    """
    rankings = list(dict.fromkeys(each.ranking for each in sorted(entries, key=lambda each: (not each.ranking,))))
    scores = {"score": "score", "public": "public_score", "private": "private_score"}

    def key(entry: Entry) -> tuple[Any, ...]:
        value = entry.to_plain()[scores.get(by) or {"time": "seconds"}.get(by, by)]
        higher = entry.result.higher_is_better
        place = rankings.index(entry.ranking)
        if by == "date":
            return place, value is None, -datetime.fromisoformat(value).timestamp() if value else 0, entry.name
        if by in scores:
            value = None if value is None or math.isnan(value) or higher is None else value
            value = -value if value is not None and higher else value
        return place, value is None, 0 if value is None else value, entry.name

    return sorted(entries, key=key)
