"""Scores of submissions: waits for them, reads them again, and prints them beside the out-of-fold score."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat

from swinft.errors import RunError, command
from swinft.kaggle.answers import Submitted
from swinft.kaggle.client import Client
from swinft.kaggle.failures import NotFound
from swinft.kaggle.interrupted import settled
from swinft.kaggle.record import COMPLETE, ERROR, PENDING, SENDING, Sent, held, read_sent, write_sent
from swinft.printing import format_score, format_seconds, print_line
from swinft.run.layout import Run
from swinft.store import is_committed
from swinft.system.live import LiveLine
from swinft.system.status import Status

POLL_SECONDS = (2, 3, 5, 8, 12, 20, 30)  # the last again and again
sleep = time.sleep


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
        with held(run, patience=10):
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
    with held(run):
        for slug in dict.fromkeys(each.competition for each in read_sent(run) if each.status == SENDING):
            settled(client, run, slug)
        found = [_asked(client, each) for each in read_sent(run)]
        write_sent(run, found)
    return found


def describe(entry: Sent, run: Run) -> str:
    """`public score 17.9, private score not yet known, out-of-fold rmse 17.4`."""
    public = entry.public_score or "not published"
    text = f"public score {public}, private score {entry.private_score or 'not yet known'}"
    if not is_committed(run.scores):
        return text
    scores = run.read_scores()
    ruled = scores.get("with_rules", {}).get("pooled")
    name, score = next(iter((ruled or scores["pooled"]).items()))
    return f"{text}; out-of-fold {name}{' with rules' if ruled else ''} {format_score(score)}"


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
        live.show(Status(f"submission {entry.ref} is being scored"))
    live.clear()
    return found


def _asked(client: Client, entry: Sent) -> Sent:
    """A submission with its scores of now; those that cannot change are not asked for."""
    is_final = entry.status == ERROR or (entry.status == COMPLETE and entry.private_score)
    if entry.ref is None or is_final:
        return entry
    return entry.updated(client.submission(entry.ref))


@contextmanager
def _said_where_it_stopped(text: str) -> Iterator[None]:
    """Prints a text where Ctrl-C ends the block."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{text}", file=sys.stderr)
        raise
