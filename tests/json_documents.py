"""The documents of `--json`, compared with the tables of docs/json.md."""

import json
import re

from swinft.cli import main
from tests.conftest import ROOT


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """The keys of each command's document: those that are always there, and those that are there where they apply."""
    found = {}
    for part in (ROOT / "docs" / "json.md").read_text().split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ") and "`" in line]
        optional = {key for cell in cells for key in re.findall(r"\*`(\w+)`\*", cell)}
        found[title] = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)} - optional, optional
    return found


def document(text: str, *parts: str) -> dict:
    """A document in a text, after a check of its keys: those of these parts of docs/json.md."""
    found = json.loads(text)
    known = documented()
    always, optional = (set().union(*(known[part][index] for part in parts)) for index in (0, 1))
    assert (always - set(found), set(found) - always - optional) == (set(), set())  # missing and unknown ones
    return found


def document_of(capsys, *words: str, code: int = 0) -> dict:
    """What a command prints with `--json`, after a check of its keys.

    Args:
        capsys: pytest's.
        words: The command line.
        code: The expected exit code.
    """
    capsys.readouterr()
    assert main([*words, "--json"]) == code, capsys.readouterr().err
    return document(capsys.readouterr().out, "Errors" if code else words[0])
