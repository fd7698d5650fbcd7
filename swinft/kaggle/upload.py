"""Submits to Kaggle: checked before, recorded before and after, never twice, and waits for the score."""

import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swinft.errors import InputError, RunError, StoreError, command
from swinft.inference.provenance import sha256
from swinft.kaggle.answers import Submitted
from swinft.kaggle.client import Client, UnknownOutcome
from swinft.kaggle.download import competition_of
from swinft.kaggle.interrupted import settled
from swinft.kaggle.preflight import check_competition, check_kernel, check_limits
from swinft.kaggle.record import NOT_SENT, PENDING, SENDING, Sent, held, now, write_sent
from swinft.kaggle.scores import describe, wait_for_score
from swinft.kaggle.slugs import competition_slug, kernel_name, page
from swinft.printing import print_line
from swinft.run.layout import Run
from swinft.run.submission.submit import Submission
from swinft.store import is_committed, verify


@dataclass(frozen=True)
class UploadOptions:
    """What is submitted to Kaggle, and how.

    Args:
        competition: Submit to this competition, by slug or address; by default that of data.root, which `swinft
            download` has brought, or which is `kaggle://SLUG`.
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
        named = _competition_of(run) if self.competition is None else self.competition
        return replace(self, competition=competition_slug(named), message=str(self.message).strip(), kernel=kernel)


def upload(run: Any, submission: Submission | str | None = None, **options: Any) -> Sent:
    """Submits a run's submission to Kaggle; does and prints the same as `swinft submit RUN --message TEXT`.

    Args:
        run: The run, or its folder.
        submission: What `run.submit(...)` returned, or a file's text; None for the run's submission.csv.
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
    content = submission.text if isinstance(submission, Submission) else submission
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
    with held(run):
        contest = check_competition(client, entry.competition, options.kernel or "", run)
        sent, found = settled(client, run, entry.competition)
        arrived = next((each for each in found if each.is_like(entry) and each.ref), None)
        if arrived is None:
            listed = client.submissions(entry.competition)
            entry = replace(entry, after=max((each.ref for each in listed), default=0))
            if not options.again:
                _refuse_double(run, sent, listed, entry)
            if options.kernel:
                check_kernel(client, options.kernel, options.kernel_version or 0)
            check_limits(client, contest)
            if dry_run:
                print_line(f"  {entry.kernel or entry.name} would be submitted; nothing was sent")
                return entry
            arrived = _send(client, run, sent, entry, content)
    print_line(f"submitted to {entry.competition}: ref {arrived.ref}, {page(entry.competition, 'submissions')}")
    return wait_for_score(client, run, arrived, options.wait)


def _competition_of(run: Run) -> str:
    """The competition of a run's data.

    Raises:
        InputError: It is not known.
    """
    root = str(run.read_config()["data"]["root"])
    named = competition_of(root)
    if named is None:
        raise InputError(f"{root} is not of `swinft download`: name the competition with --competition SLUG.")
    return named


def _entry(run: Run, content: bytes, options: UploadOptions) -> Sent:
    """What is about to be sent. The file's name at Kaggle tells its content, so that it is found again there."""
    slug, message = options.competition or "", options.message or ""
    if options.kernel:
        return Sent(slug, message, options.kernel_file, kernel=f"{options.kernel}/{options.kernel_version}", sent=now())
    digest = sha256(content)
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
    except (InputError, RunError, OSError) as error:  # the disk of temporary files may be full
        write_sent(run, [*sent, replace(entry, status=NOT_SENT, error=str(error))])
        raise (StoreError(f"{error}. Nothing was sent.") if isinstance(error, OSError) else error) from error
    if ref:
        arrived = replace(entry, ref=ref, status=PENDING)
        write_sent(run, [*sent, arrived])
        return arrived
    arrived = settled(client, run, entry.competition)[0][-1]
    if arrived.ref is None:
        raise RunError("Kaggle does not list the submission: it has not arrived. Run the same command again.")
    return arrived


def _refuse_double(run: Run, sent: list[Sent], listed: list[Submitted], entry: Sent) -> None:
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
    for found in listed:
        if found.file_name.endswith(f"-{mark}"):
            told = f"ref {found.ref} '{found.message}', public score {found.public_score or 'not yet known'}"
            raise InputError(f"Kaggle has the same file already, of another run or computer: {told}. {again}")
