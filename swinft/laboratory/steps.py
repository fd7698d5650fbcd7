"""Measured steps on disk: each is committed alone, so that a killed command continues after the last one."""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from swinft.errors import StoreError
from swinft.store import commit, is_committed, json_bytes, sweep, verify

DIGITS = 8  # significant ones of every number, in steps and CSV alike


class Steps:
    """The steps of one subject that were measured in one way.

    Args:
        folder: The folder of all steps of the subject.
        made_with: Everything that decides what they measure, as plain values; steps of another way lie beside them.
        producer: The command, for records.
    """

    def __init__(self, folder: Path, made_with: dict[str, Any], producer: str) -> None:
        digest = hashlib.sha256(json_bytes(made_with)).hexdigest()
        self.folder, self.producer = folder / digest[:12], producer
        self.made_with = made_with

    def path(self, step: str) -> Path:
        """The file of a step: a readable part of its name, and its hash, which tells long and odd names apart."""
        readable = re.sub(r"[^\w.-]+", "_", step, flags=re.ASCII).strip("._")[:60] or "step"
        return self.folder / f"{readable}-{hashlib.sha256(step.encode()).hexdigest()[:8]}.json"

    def read(self, step: str) -> list[dict[str, Any]] | None:
        """The lines of a step; None if it is not measured, or its file is damaged."""
        path = self.path(step)
        if not is_committed(path):
            return None
        try:
            found = json.loads(verify(path).read_bytes())
        except StoreError:
            return None
        return list(found["lines"])

    def write(self, step: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Commits the lines of a step, and returns them as they will be read."""
        sweep(self.folder)
        rounded = [{key: _plain(value) for key, value in line.items()} for line in lines]
        content = {"step": step, "made_with": self.made_with, "lines": rounded}
        commit(self.path(step), json_bytes(content), self.producer)
        found = self.read(step)
        assert found is not None
        return found


def _plain(value: Any) -> Any:
    """A value of a line as JSON has it; numbers with so many digits, those that are not finite as None."""
    if hasattr(value, "item"):  # of numpy or torch
        value = value.item()
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
