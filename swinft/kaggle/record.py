"""The record of what a run has submitted to Kaggle: `submissions.jsonl` in its folder, a line per submission."""

import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from swinft.errors import InputError, StoreError
from swinft.kaggle.answers import Submitted
from swinft.run.layout import Run
from swinft.store import commit, is_unrecorded, verify

MAKER = "swinft submit"
SENDING, PENDING, COMPLETE, ERROR, NOT_SENT = "sending", "pending", "complete", "error", "not sent"
CLOCKS_DIFFER = timedelta(minutes=10)


@dataclass(frozen=True)
class Sent:
    """One submission.

    Args:
        competition: The competition's slug.
        message: Its description.
        name: Name of the file at Kaggle, with the start of its SHA-256; of a notebook's, the file that it writes.
        sha256: SHA-256 of the uploaded file; empty for a notebook's.
        size: Bytes of the uploaded file.
        kernel: `owner/notebook/version`; empty for an uploaded file.
        sent: When it was sent, UTC.
        status: `sending`: written before it is sent, so that a killed process loses nothing; then `pending`, `complete`
            or `error`, as Kaggle says; `not sent` if it never arrived.
        ref: Its number at Kaggle; None while it is not known.
        public_score: Its score on the public leaderboard, as Kaggle writes it.
        private_score: Its score on the private leaderboard, which Kaggle tells after the deadline.
        error: Why it was not scored or not sent.
        checked: When Kaggle was last asked, UTC.
    """

    competition: str
    message: str
    name: str
    sha256: str = ""
    size: int = 0
    kernel: str = ""
    sent: str = ""
    status: str = SENDING
    ref: int | None = None
    public_score: str | None = None
    private_score: str | None = None
    error: str = ""
    checked: str = ""

    def is_like(self, other: "Sent") -> bool:
        """Whether both submit the same content to the same competition."""
        content = (self.competition, self.sha256, self.kernel, self.name if self.kernel else "")
        return content == (other.competition, other.sha256, other.kernel, other.name if other.kernel else "")

    def may_be(self, found: Submitted) -> bool:
        """Whether a submission that Kaggle lists may be this one."""
        is_later = found.date is None or found.date > datetime.fromisoformat(self.sent) - CLOCKS_DIFFER
        return is_later and found.file_name == self.name and found.message == self.message

    def updated(self, found: Submitted) -> "Sent":
        """This submission with what Kaggle says of it now."""
        scored = replace(self, public_score=found.public_score, private_score=found.private_score)
        return replace(scored, ref=found.ref, status=found.status, error=found.error, checked=now())

    @property
    def is_scored(self) -> bool:
        """Whether Kaggle has scored it, or tried to."""
        return self.status in (COMPLETE, ERROR)


def now() -> str:
    """The time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_sent(run: Run) -> list[Sent]:
    """A run's submissions, the oldest first.

    Raises:
        InputError: The record is damaged.
    """
    path = run.submissions
    if not path.exists():
        return []
    try:
        lines = path.read_bytes() if is_unrecorded(path) else verify(path).read_bytes()
        known = {field.name for field in fields(Sent)}
        read: list[dict[str, Any]] = [json.loads(line) for line in lines.splitlines()]
        return [Sent(**{key: value for key, value in each.items() if key in known}) for each in read]
    except (StoreError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged ({error}). Move it away: Kaggle's own list still tells what was submitted, and the "
            f"same file is not submitted twice."
        ) from error


def write_sent(run: Run, sent: list[Sent]) -> None:
    """Writes a run's submissions, durably.

    Raises:
        StoreError: The disk is full or not writable.
    """
    commit(run.submissions, "".join(f"{json.dumps(asdict(each))}\n" for each in sent).encode(), MAKER)
