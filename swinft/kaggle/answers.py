"""What Kaggle answers, as plain values: a competition, a team's limits, a submission, something that was made."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from swinft.printing import visible


@dataclass(frozen=True)
class Competition:
    """What decides whether a submission can be made.

    Args:
        slug: Its name in addresses.
        title: Its title.
        metric: Its metric in Kaggle's words.
        deadline: The end of the competition, UTC; None if it has none.
        entered: Whether the user has accepted the rules.
        is_code: Whether only notebooks can be submitted.
        is_closed: Whether it accepts no submissions at all.
        max_daily: Submissions of a team per day, UTC.
    """

    slug: str
    title: str
    metric: str
    deadline: datetime | None
    entered: bool
    is_code: bool
    is_closed: bool
    max_daily: int

    @property
    def is_over(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and self.deadline < datetime.now(UTC)


@dataclass(frozen=True)
class Limits:
    """A team's submissions so far, and how many more it may make today (UTC)."""

    today: int
    total: int
    left: int
    is_total_reached: bool

    @property
    def is_known(self) -> bool:
        """False before the first submission: Kaggle answers zeros until there is a team."""
        return bool(self.today or self.total or self.left)


@dataclass(frozen=True)
class Submitted:
    """A submission as Kaggle lists it.

    Args:
        ref: Its number.
        date: When it was made, UTC.
        file_name: Name of the file.
        message: Its description.
        status: `pending`, `complete` or `error`.
        public_score: Its score on the public leaderboard, as Kaggle writes it; None if there is none.
        private_score: Its score on the private leaderboard; None before the end of the competition.
        error: Why it could not be scored.
    """

    ref: int
    date: datetime | None
    file_name: str
    message: str
    status: str
    public_score: str | None
    private_score: str | None
    error: str


@dataclass(frozen=True)
class Created:
    """Something that Kaggle was told to make: its address, version and warnings."""

    url: str
    version: int | None
    notes: tuple[str, ...] = ()


def utc(date: datetime | None) -> datetime | None:
    """Kaggle's dates, which are UTC without saying so."""
    return date.replace(tzinfo=date.tzinfo or UTC) if date is not None else None


def submitted(found: Any) -> Submitted:
    """A submission from the client's answer."""
    return Submitted(
        int(found.ref),
        utc(found.date),
        found.file_name or "",
        found.description or "",
        found.status.name.lower(),
        found.public_score or None,
        found.private_score or None,
        visible(found.error_description or ""),
    )
