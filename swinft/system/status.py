"""What a process says of its progress, and the message by which a child tells it to its parent.

A message is one line: a record separator, as in JSON text sequences (RFC 7464), a word that the parent has made up for
this child, and JSON. Nothing that a program prints can be taken for one.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from swinft.errors import InputError

SEPARATOR = "\x1e"
LONGEST_TEXT = 200  # characters of a name or a stage


@dataclass(frozen=True)
class Status:
    """Where a process is.

    Args:
        what: The job: `fold 0`, `predict`, `part 1/4`.
        stage: The part of it: `epoch 3/10`, `validation`.
        done: Batches that are done in this stage; None if they are not counted.
        of: Batches of the stage.
        rate: Images per second; None before the second batch.
        loss: Mean training loss of the epoch so far.
        metric: Name of the score.
        score: The score of the last epoch.
        best: The best score so far.
        memory: Peak use of the device's memory, and its size: `7.1/16 GB`.
        stage_left: Seconds until the stage is done; None if unknown.
        left: Seconds until the job is done; None if unknown.
        whole: Expected seconds of the whole job, from the start of its process; None if unknown.
        is_rough: Whether the times are rough estimates.
        is_most: Whether the times are upper limits: the job may end sooner.
    """

    what: str
    stage: str = ""
    done: int | None = None
    of: int | None = None
    rate: float | None = None
    loss: float | None = None
    metric: str = ""
    score: float | None = None
    best: float | None = None
    memory: str = ""
    stage_left: float | None = None
    left: float | None = None
    whole: float | None = None
    is_rough: bool = False
    is_most: bool = False

    def after(self, earlier: "Status | None") -> "Status":
        """This status with what an earlier one of the same job knew besides: scores do not change in every stage."""
        if earlier is None:
            return self
        names = ("metric", "score", "best", "memory", "whole", "is_most")
        return replace(self, **{name: getattr(earlier, name) for name in names if _is_unknown(getattr(self, name))})

    def aged(self, seconds: float) -> "Status":
        """This status some seconds later: that much less is left."""
        times = {name: getattr(self, name) for name in ("stage_left", "left")}
        return replace(self, **{name: max(0.0, value - seconds) for name, value in times.items() if value is not None})

    def message(self, word: str) -> str:
        """The line that tells it to the parent.

        Args:
            word: What the parent has made up.
        """
        known = {name: value for name, value in asdict(self).items() if not _is_unknown(value)}
        return f"{SEPARATOR}{word}{json.dumps(known)}\n"


def _is_unknown(value: Any) -> bool:
    """Whether a value says nothing; a score of 0 does."""
    return value is None or value is False or value == ""


def read_status(text: str) -> Status | None:
    """The status in a message, without the separator and the word; None if it is none."""
    try:
        return _checked(json.loads(text))
    except (ValueError, TypeError, RecursionError, InputError):
        return None


def _checked(given: Mapping[str, Any]) -> Status:
    """A status of values with the right types; a number that is not finite is left out, but for losses and scores.

    Raises:
        InputError: A value has another type.
    """
    types = {
        "what": str,
        "stage": str,
        "metric": str,
        "memory": str,
        "done": int,
        "of": int,
        "is_rough": bool,
        "is_most": bool,
    }
    found: dict[str, Any] = {}
    for name in (field.name for field in fields(Status) if field.name in given):
        value, kind = given[name], types.get(name, float)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number if kind is float else type(value) is kind):
            raise InputError(f"{name} of a status is {value!r}")
        if isinstance(value, str):
            value = value[:LONGEST_TEXT]
        if not number or math.isfinite(value) or name in ("loss", "score", "best"):
            found[name] = value
    return Status(**found)
