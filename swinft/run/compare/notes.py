"""A note on a run, kept in its folder."""

from swinft.errors import InputError, StoreError
from swinft.printing import visible
from swinft.run.layout import Run
from swinft.store import commit, discard, verify

MAKER = "swinft runs --note"
LONGEST = 2000  # characters


def write_note(run: Run, text: str) -> None:
    """Writes a run's note in the place of an earlier one; an empty text deletes it.

    Raises:
        InputError: It is too long.
        StoreError: The disk is full or not writable; an earlier note is unchanged.
    """
    if len(text) > LONGEST:
        raise InputError(f"the note has {len(text):,} characters. Allowed: {LONGEST:,}.")
    if text.strip():
        commit(run.note, f"{visible(text.strip())}\n".encode(errors="backslashreplace"), MAKER)
    else:
        discard(run.note)


def read_note(run: Run) -> str:
    """A run's note; empty without one."""
    if not run.note.is_file():
        return ""
    try:
        return verify(run.note).read_text(encoding="utf-8").strip()
    except StoreError:  # edited by hand
        return run.note.read_text(encoding="utf-8", errors="replace").strip()
