"""The record of what a run has submitted to Kaggle: `submissions.jsonl` in its folder, a line per submission."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from swinft.errors import InputError, StoreError
from swinft.kaggle.answers import Submitted
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.store import commit, is_unrecorded, verify

MAKER = "swinft submit"
SENDING, PENDING, COMPLETE, ERROR, NOT_SENT = "sending", "pending", "complete", "error", "not sent"


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
        after: The largest number of a submission at Kaggle before it was sent; its own is larger.
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
    after: int = 0
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
        """Whether a submission that Kaggle lists may be this one; no clocks are compared."""
        is_it = not self.kernel or " ".join(found.message.split())[:50] == " ".join(self.message.split())[:50]
        return found.ref > self.after and found.file_name == self.name and is_it

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


@contextmanager
def held(run: Run, patience: float = 0) -> Iterator[None]:
    """Holds the lock of the record; not that of the run, which may be training.

    Raises:
        InputError: Another process holds it, or the folder of the run is not writable.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(run.lock.with_name(f"{run.root.name}.upload.lock"), patience, "Wait for it."))
        except OSError as error:
            raise InputError(
                f"what is submitted cannot be recorded in {run.root} ({error.strerror or error}), so that nothing is "
                f"sent. Copy the run to a folder that is writable."
            ) from error
        yield
