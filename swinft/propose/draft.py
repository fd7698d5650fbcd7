"""What a proposal is collected in: keys with reasons, and sentences on what is undecided or to be known."""

from dataclasses import dataclass, field
from typing import Any

from swinft.propose.known import Known
from swinft.propose.lines import Line

SEVERAL = 12  # columns that are named in a comment


@dataclass
class Draft:
    """A proposal that is being made.

    Args:
        known: What is known about the competition.
        lines: Its keys.
        notes: What is undecided or to be known, one sentence each.
    """

    known: Known | None
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, value: Any, why: str = "", *others: str) -> None:
        """Adds a key with the reason, and with what was weighed besides."""
        self.lines.append(Line(key, value, why, tuple(each for each in others if each)))

    def leave_open(self, key: str, value: Any, missing: str) -> None:
        """Adds a key as a comment: without it the config cannot be used."""
        self.lines.append(Line(key, value, missing, is_open=True, is_comment=True))
        self.notes.append(f"{key}: {missing}")

    def hint(self, key: str, value: Any, why: str, *others: str) -> None:
        """Adds a key as a comment that may be of use."""
        self.lines.append(Line(key, value, why, tuple(each for each in others if each), is_comment=True))


def some(names: list[str], most: int = SEVERAL) -> str:
    """Names with commas between them, and dots for those that are left out."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
