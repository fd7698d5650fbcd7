"""The files of a search: configs with a section `tune:`, which no other command reads, and files with a space."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from swinft.errors import InputError, suggest
from swinft.run.config.old_keys import migrated
from swinft.run.config.yaml_checks import Source, read_nodes, repeated_keys
from swinft.run.config.yaml_text import read_yaml
from swinft.tuning.space import SECTION


@dataclass
class Words:
    """The words of a command line, for the parser of configs.

    Args:
        words: With copies of the configs, which lack the section `tune:`.
        space: The section as plain values; None if no config has one.
        copies: The copies by the file that each is of.
    """

    words: list[str]
    space: Any = None
    copies: dict[str, str] = field(default_factory=dict)

    def in_files(self, text: str) -> str:
        """A message with the names of the user's files."""
        for path, copy in self.copies.items():
            text = text.replace(copy, path)
        return text


@contextmanager
def without_section(words: Sequence[str]) -> Iterator[Words]:
    """A command line whose configs have no section `tune:`; errors inside name the user's files, with their lines.

    Raises:
        InputError: A file is not valid YAML.
    """
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    with TemporaryDirectory() as folder:
        found = Words(parts)
        for place in range(1, len(parts)):
            path = Path(parts[place])
            if parts[place - 1] != "--config" or not path.is_file():  # the parser reports a missing file
                continue
            text, space = _split(path)
            copy = Path(folder) / str(place) / path.name
            copy.parent.mkdir()
            copy.write_text(text, encoding="utf-8")
            found.copies[str(path)] = found.words[place] = str(copy)
            found.space = found.space if space is None else space
        try:
            yield found
        except InputError as error:
            if folder not in str(error):
                raise
            raise InputError(found.in_files(str(error))) from None


def _split(path: Path) -> tuple[str, Any]:
    """A config without its section `tune:`, line for line, and the section."""
    try:
        text = migrated(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not re.search(rf"(^|[{{,]\s*)['\"]?{SECTION}['\"]?\s*:", text, re.MULTILINE):
        return text, None
    root = read_nodes(Source(str(path)), text)
    if not isinstance(root, yaml.MappingNode):
        return text, None
    lines, space = text.split("\n"), None
    for key, value in root.value:
        if key.value != SECTION:
            continue
        if root.flow_style:
            raise InputError(f"{path}: write the section {SECTION} on lines of its own.")
        space = _with_keys_once(path, value, text)
        following = [other.start_mark.line for other, _ in root.value if other.start_mark.line > key.start_mark.line]
        for number in range(key.start_mark.line, min(following, default=len(lines))):
            lines[number] = ""
    return "\n".join(lines), space


def _with_keys_once(path: Path, node: yaml.Node, text: str) -> Any:
    """The plain values of a node; `{}` for an empty section, which is an error later.

    Raises:
        InputError: A key is given twice, in the section or in a mapping inside of it.
    """
    if twice := next(repeated_keys(node), None):
        raise InputError(f"{path}: {SECTION}: {twice.value} is given twice. Keep one of them.")
    return read_yaml(text)[SECTION] or {}


def read_space(path: Path) -> Any:
    """The space of a file, alone or as a section `tune:`.

    Raises:
        InputError: The file is missing, or not valid YAML.
    """
    if not path.is_file():
        siblings = [str(sibling) for sibling in path.parent.glob("*.y*ml")]
        raise InputError(f"there is no file '{path}' (--space).{suggest(str(path), siblings)}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    root = read_nodes(Source(str(path)), text)
    if isinstance(root, yaml.MappingNode) and [name.value for name, _ in root.value] == [SECTION]:
        return _with_keys_once(path, root.value[0][1], text)
    return _with_keys_once(path, root, f"{SECTION}:\n" + "\n".join(f"  {line}" for line in text.split("\n")))
