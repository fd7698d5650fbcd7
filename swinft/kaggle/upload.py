"""Submits to Kaggle: checked before, recorded before and after, never twice, and waits for the score."""

import hashlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from swinft.errors import InputError, RunError, command
from swinft.kaggle.answers import Submitted
from swinft.kaggle.client import Client, UnknownOutcome
from swinft.kaggle.download import downloaded_from
from swinft.kaggle.failures import NotFound
from swinft.kaggle.preflight import check_competition, check_kernel, check_limits
from swinft.kaggle.record import COMPLETE, ERROR, NOT_SENT, PENDING, SENDING, Sent, now, read_sent, write_sent
from swinft.kaggle.slugs import competition_slug, kernel_name, page
from swinft.printing import format_score, format_seconds, print_line
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.store import is_committed, verify
from swinft.system.live import LiveLine

POLL_SECONDS = (2, 3, 5, 8, 12, 20, 30)  # the last again and again
YOUNG = 120  # seconds in which Kaggle's list may lack a submission
sleep = time.sleep


@dataclass(frozen=True)
class UploadOptions:
    """What is submitted to Kaggle, and how.

    Args:
        competition: Submit to this competition, by slug or address; by default that of `swinft download` in data.root.
        message: The description at Kaggle; with it the submission is sent.
        wait: Wait for the score, in seconds.
        again: Submit although the same file was submitted before.
        kernel: In a competition of notebooks: `owner/notebook`, whose output is submitted, in place of a file.
        kernel_version: Number of the notebook's version.
        kernel_file: The file that the notebook writes.
    """

    competition: str | None = None
    message: str | None = None
    wait: int = 300
    again: bool = False
    kernel: str | None = None
    kernel_version: int | None = None
    kernel_file: str = "submission.csv"

    @property
    def is_asked_for(self) -> bool:
        """Whether anything is to be submitted."""
        return self != UploadOptions()

    def check(self, run: Run) -> "UploadOptions":
        """The options with the competition's slug.

        Raises:
            InputError: One is missing or wrong.
        """
        if not (self.message or "").strip():
            raise InputError("give the description that Kaggle shows: --message TEXT.")
        if self.wait < 0:
            raise InputError(f"--wait is {self.wait}. Give seconds, 0 or more.")
        if (self.kernel is None) != (self.kernel_version is None):
            raise InputError("a notebook's output is submitted with both: --kernel OWNER/NOTEBOOK --kernel-version N.")
        if self.kernel_version is not None and self.kernel_version < 1:
            raise InputError(f"--kernel-version is {self.kernel_version}. Versions count from 1.")
        kernel = "/".join(kernel_name(self.kernel)) if self.kernel else None
        root = run.read_config()["data"]["root"]
        named = self.competition or downloaded_from(Path(root))
        if named is None:
            raise InputError(f"{root} is not of `swinft download`: name the competition with --competition SLUG.")
        return replace(self, competition=competition_slug(named), message=str(self.message).strip(), kernel=kernel)


def upload(run: Any, content: str | None = None, **options: Any) -> Sent:
    """Submits a run's submission to Kaggle; does and prints the same as `swinft submit RUN --message TEXT`.

    Args:
        run: The run, or its folder.
        content: The text of a submission: `run.submit(...).text`; None for the run's submission.csv.
        options: `message`, `competition`, `wait`, `again`, `kernel`, `kernel_version`, `kernel_file`.

    Returns:
        What was submitted: its `ref`, `status`, `public_score`, `private_score`.

    Raises:
        InputError: Kaggle would refuse it, or it was submitted before.
        RunError: The connection was lost, or Kaggle could not score it.
    """
    from swinft.run.config.parser import options_from  # slow to import

    opened = Run.open(getattr(run, "folder", run))
    checked = options_from(UploadOptions, options).check(opened)
    if content is None and not checked.kernel:
        if not is_committed(opened.submission):
            raise InputError(f"{opened.root} has no submission.csv. Run `{command('submit', opened.root)}` first.")
        content = verify(opened.submission).read_bytes().decode()
    return upload_submission(opened, (content or "").encode(), checked)


def upload_submission(run: Run, content: bytes, options: UploadOptions, dry_run: bool = False) -> Sent:
    """Submits a file's content, or a notebook's output, and waits for the score.

    Args:
        run: The run, in whose folder the submission is recorded.
        content: The file's content; empty for a notebook's output.
        options: The checked options.
        dry_run: Check everything and send nothing.

    Raises:
        InputError: Kaggle would refuse it, or it was submitted before.
        RunError: The connection was lost, or Kaggle could not score it.
    """
    client, entry = Client(), _entry(run, content, options)
    with hold(_lock(run), advice="Wait for it."):
        contest = check_competition(client, entry.competition, options.kernel or "", run)
        sent, settled = _settled(client, run, entry.competition)
        arrived = next((each for each in settled if each.is_like(entry) and each.ref), None)
        if arrived is None:
            if not options.again:
                _refuse_double(client, run, sent, entry)
            if options.kernel:
                check_kernel(client, options.kernel, options.kernel_version or 0)
            check_limits(client, contest)
            if dry_run:
                print_line(f"  {entry.kernel or entry.name} would be submitted; nothing was sent")
                return entry
            arrived = _send(client, run, sent, entry, content)
    print_line(f"submitted to {entry.competition}: ref {arrived.ref}, {page(entry.competition, 'submissions')}")
    return wait_for_score(client, run, arrived, options.wait)


def wait_for_score(client: Client, run: Run, entry: Sent, seconds: float) -> Sent:
    """Asks for a submission's score until it is there, records it and prints it.

    Raises:
        RunError: Kaggle could not score it.
    """
    later = f"read the score later with `{command('submissions', run.root, '--refresh')}`"
    with _said_where_it_stopped(f"submission {entry.ref} stands; {later}"):
        found = _polled(client, entry, seconds)
    if found is not None:
        entry = entry.updated(found)
        with hold(_lock(run), patience=10, advice="Wait for it."):
            write_sent(run, [entry if each.ref == entry.ref else each for each in read_sent(run)])
    if entry.status == ERROR:
        raise RunError(f"Kaggle could not score submission {entry.ref}: {entry.error or 'no reason is given'}")
    if entry.status == COMPLETE:
        print_line(f"  {describe(entry, run)}")
    elif seconds:
        print_line(f"  not scored within {format_seconds(seconds)}; {later}")
    else:
        print_line(f"  {later}")
    return entry


def refresh(client: Client, run: Run) -> list[Sent]:
    """Asks Kaggle about every submission of a run that may have changed, and records the answers."""
    with hold(_lock(run), advice="Wait for it."):
        for slug in dict.fromkeys(each.competition for each in read_sent(run) if each.status == SENDING):
            _settled(client, run, slug)
        found = [_asked(client, each) for each in read_sent(run)]
        write_sent(run, found)
    return found


def describe(entry: Sent, run: Run) -> str:
    """`public score 17.9, private score not yet known, out-of-fold rmse 17.4`."""
    public = entry.public_score or "not published"
    text = f"public score {public}, private score {entry.private_score or 'not yet known'}"
    if not is_committed(run.scores):
        return text
    name, score = next(iter(run.read_scores()["pooled"].items()))
    return f"{text}; out-of-fold {name} {format_score(score)}"


def _entry(run: Run, content: bytes, options: UploadOptions) -> Sent:
    """What is about to be sent. The file's name at Kaggle tells its content, so that it is found again there."""
    slug, message = options.competition or "", options.message or ""
    if options.kernel:
        return Sent(slug, message, options.kernel_file, kernel=f"{options.kernel}/{options.kernel_version}", sent=now())
    digest = hashlib.sha256(content).hexdigest()
    name = f"{re.sub('[^A-Za-z0-9._-]+', '_', run.root.resolve().name)[:60]}-{digest[:12]}.csv"
    return Sent(slug, message, name, digest, len(content), sent=now())


def _send(client: Client, run: Run, sent: list[Sent], entry: Sent, content: bytes) -> Sent:
    """Records that it will be sent, sends it, and records its number.

    Raises:
        InputError: Kaggle has refused it.
        RunError: It was not submitted, or that is not known.
    """
    write_sent(run, [*sent, entry])
    try:
        if entry.kernel:
            kernel, _, version = entry.kernel.rpartition("/")
            ref = client.submit_code(entry.competition, kernel, int(version), entry.name, entry.message)
        else:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / entry.name
                path.write_bytes(content)
                ref = client.submit(entry.competition, path, entry.message)
    except UnknownOutcome as error:
        print(f"{error} after everything was sent: looking for the submission", file=sys.stderr)
        ref = 0
    except (InputError, RunError) as error:
        write_sent(run, [*sent, replace(entry, status=NOT_SENT, error=str(error))])
        raise
    if ref:
        arrived = replace(entry, ref=ref, status=PENDING)
        write_sent(run, [*sent, arrived])
        return arrived
    arrived = _settled(client, run, entry.competition)[0][-1]
    if arrived.ref is None:
        raise RunError("Kaggle does not list the submission: it has not arrived. Run the same command again.")
    return arrived


def _settled(client: Client, run: Run, slug: str) -> tuple[list[Sent], list[Sent]]:
    """The run's submissions: those that were being sent when a process ended are found at Kaggle, or were not sent.

    Returns:
        All of them, and those that were being sent.
    """
    sent, settled = read_sent(run), []
    for place, entry in enumerate(sent):
        if entry.status != SENDING or entry.competition != slug:
            continue
        known = {each.ref for each in sent}
        found = _listed(client, entry, known)
        told = "it never arrived at Kaggle"
        status = PENDING if found else NOT_SENT
        sent[place] = replace(entry, ref=found.ref if found else None, status=status, error="" if found else told)
        settled.append(sent[place])
        if found:
            print_line(f"  submission {found.ref} was sent by an interrupted command, and has arrived: recorded")
    if settled:
        write_sent(run, sent)
    return sent, settled


def _listed(client: Client, entry: Sent, known: set[int | None]) -> Submitted | None:
    """The submission in Kaggle's list; looked for several times while it is young."""
    for attempt in range(3):
        found = [each for each in client.submissions(entry.competition) if entry.may_be(each) and each.ref not in known]
        age = (datetime.now(UTC) - datetime.fromisoformat(entry.sent)).total_seconds()
        if found or age > YOUNG or attempt == 2:
            return found[-1] if found else None
        sleep(5)
    return None


def _refuse_double(client: Client, run: Run, sent: list[Sent], entry: Sent) -> None:
    """Refuses what was submitted before, by this run or, as Kaggle's list tells by the file's name, by another.

    Raises:
        InputError: It was.
    """
    before = next((each for each in sent if each.is_like(entry) and each.status not in (SENDING, NOT_SENT)), None)
    again = "To submit it once more, add --again."
    if before:
        told = f"{before.sent}, ref {before.ref}: {describe(before, run)}"
        raise InputError(f"the same {'notebook' if entry.kernel else 'file'} was submitted before, {told}. {again}")
    if entry.kernel:
        return
    mark = entry.name.rpartition("-")[2]
    for found in client.submissions(entry.competition):
        if found.file_name.endswith(f"-{mark}"):
            told = f"ref {found.ref} '{found.message}', public score {found.public_score or 'not yet known'}"
            raise InputError(f"Kaggle has the same file already, of another run or computer: {told}. {again}")


def _polled(client: Client, entry: Sent, seconds: float) -> Submitted | None:
    """What Kaggle says when it has scored the submission, or at the end of the time."""
    live, found, waited = LiveLine(), None, 0.0
    for pause in chain(POLL_SECONDS, repeat(POLL_SECONDS[-1])):
        waited += pause
        if waited > seconds:
            break
        sleep(pause)
        try:
            found = client.submission(entry.ref or 0)
        except NotFound:  # not there yet
            continue
        except RunError as error:
            print(f"{error}", file=sys.stderr)
            break
        finally:
            live.clear()
        if found.status != PENDING:
            return found
        live.show(f"submission {entry.ref} is being scored")
    live.clear()
    return found


def _asked(client: Client, entry: Sent) -> Sent:
    """A submission with its scores of now; those that cannot change are not asked for."""
    is_final = entry.status == ERROR or (entry.status == COMPLETE and entry.private_score)
    if entry.ref is None or is_final:
        return entry
    return entry.updated(client.submission(entry.ref))


def _lock(run: Run) -> Path:
    """The lock of the record; not that of the run, which may be training."""
    return run.lock.with_name(f"{run.root.name}.upload.lock")


@contextmanager
def _said_where_it_stopped(text: str) -> Iterator[None]:
    """Prints a text where Ctrl-C ends the block."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{text}", file=sys.stderr)
        raise
