"""Finds at Kaggle what a command was sending when it was interrupted."""

import time
from dataclasses import replace
from datetime import UTC, datetime

from swinft.kaggle.answers import Submitted
from swinft.kaggle.client import Client
from swinft.kaggle.record import NOT_SENT, PENDING, SENDING, Sent, read_sent, write_sent
from swinft.printing import print_line
from swinft.run.layout import Run

YOUNG = 120  # seconds in which Kaggle's list may lack a submission
sleep = time.sleep


def settled(client: Client, run: Run, slug: str) -> tuple[list[Sent], list[Sent]]:
    """The run's submissions: those that were being sent when a process ended are found at Kaggle, or were not sent.

    Returns:
        All of them, and those that were being sent.
    """
    sent, changed = read_sent(run), list[Sent]()
    for place, entry in enumerate(sent):
        if entry.status != SENDING or entry.competition != slug:
            continue
        known = {each.ref for each in sent}
        found = _listed(client, entry, known)
        told = "it never arrived at Kaggle"
        status = PENDING if found else NOT_SENT
        sent[place] = replace(entry, ref=found.ref if found else None, status=status, error="" if found else told)
        changed.append(sent[place])
        if found:
            print_line(f"  submission {found.ref} was sent by an interrupted command, and has arrived: recorded")
    if changed:
        write_sent(run, sent)
    return sent, changed


def _listed(client: Client, entry: Sent, known: set[int | None]) -> Submitted | None:
    """The submission in Kaggle's list; looked for several times while it is young."""
    for attempt in range(3):
        found = [each for each in client.submissions(entry.competition) if entry.may_be(each) and each.ref not in known]
        age = (datetime.now(UTC) - datetime.fromisoformat(entry.sent)).total_seconds()
        if found or age > YOUNG or attempt == 2:
            return found[-1] if found else None
        sleep(5)
    return None
