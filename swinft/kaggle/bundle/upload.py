"""Uploads a bundle: two private datasets, and a private notebook once Kaggle has processed them."""

import time
from pathlib import Path

from swinft.errors import InputError, RunError, command
from swinft.kaggle.bundle.metadata import SUFFIXES, slug_of
from swinft.kaggle.client import Client
from swinft.printing import print_line

READY = "ready"
POLL_SECONDS, MOST_SECONDS = 10.0, 1800.0
sleep = time.sleep


def upload(folder: Path, owner: str, title: str, run: Path) -> None:
    """Creates the datasets of a bundle, or new versions of them, and then the notebook, which Kaggle runs.

    Args:
        folder: The bundle.
        owner: The user.
        title: Title of the notebook.
        run: The run whose submission it is.

    Raises:
        InputError: Kaggle refuses a name.
        RunError: The connection failed, or Kaggle does not finish to process a dataset.
    """
    client = Client()
    names = {kind: f"{owner}/{slug_of(f'{title} {kind}')}" for kind in SUFFIXES}
    for kind, name in names.items():
        try:
            client.dataset_status(name)
            is_new = False
        except InputError:
            is_new = True
        path = folder / kind
        made = (
            client.dataset_create(path, folders="skip")
            if is_new
            else client.dataset_version(path, "swinft bundle", "skip")
        )
        print_line(f"{name}: {'created' if is_new else 'a new version'}: {made.url}")
    for name in names.values():
        _wait(client, name)
    made = client.kernel_push(folder / "kernel")
    for note in made.notes:
        print_line(f"  {note}")
    name = f"{owner}/{slug_of(title)}"
    print_line(f"{name}: version {made.version}: {made.url}")
    submits = ["--message", "TEXT", "--kernel", name, "--kernel-version", made.version or "N"]
    print_line(f"once it has ended: {command('submit', run, *submits)}")


def _wait(client: Client, name: str) -> None:
    """Waits until Kaggle has processed a dataset: before, a notebook cannot have it as an input.

    Raises:
        RunError: It takes too long, or fails.
    """
    state = ""
    for _ in range(int(MOST_SECONDS / POLL_SECONDS)):
        state = client.dataset_status(name)
        if state == READY:
            return
        if state in ("error", "failed"):
            break
        sleep(POLL_SECONDS)
    raise RunError(f"the dataset {name} is in the state '{state}', and the notebook is not uploaded. Try again later.")
