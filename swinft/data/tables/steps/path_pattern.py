"""Patterns of paths with columns in braces, such as `train/{label}/{name}.jpg`, as regular expressions."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from swinft.errors import InputError

WILD = {"*": ".*?", "?": "."}


class Part(NamedTuple):
    """One part of a path, between two slashes.

    Args:
        expression: Fits its whole name; group `c0` is the first of `columns`, and so on.
        columns: The columns that its braces name, each once.
        fits_hidden: Whether it fits names that start with a dot.
    """

    expression: re.Pattern[str]
    columns: list[str]
    fits_hidden: bool


def parsed(pattern: str) -> tuple[str, list[Part], list[str]]:
    """A pattern as its folder without braces and wildcards, the parts below it, and all columns.

    Raises:
        InputError: A brace is not closed, or its regular expression is wrong; or there are no braces.
    """
    texts = _split(pattern)
    is_open = [any(mark in text for mark in "{}*?") for text in texts]
    if "{" not in pattern:
        raise InputError(f"'{pattern}' names no column; write one in braces: 'train/{{label}}/{{name}}.jpg'.")
    first = is_open.index(True)
    parts = [_part(text, pattern) for text in texts[first:]]
    return "/".join(texts[:first]), parts, list(dict.fromkeys(name for part in parts for name in part.columns))


def _split(pattern: str) -> list[str]:
    """The parts of a pattern between slashes, which braces may not contain."""
    texts, depth = [""], 0
    for mark in pattern:
        depth += (mark == "{") - (mark == "}")
        if mark == "/" and depth:
            raise InputError(f"'{pattern}' has a slash inside of braces, whose text is a part of one name.")
        if mark == "/":
            texts.append("")
        else:
            texts[-1] += mark
    if depth:
        raise InputError(f"'{pattern}' has a brace without its other one.")
    if not all(texts[1:]) or ".." in texts[1:]:
        raise InputError(f"'{pattern}' has an empty part, or '..' behind its first part.")
    return texts


def _part(text: str, pattern: str) -> Part:
    """One part of a pattern as a regular expression."""
    columns: list[str] = []
    written = ""
    for literal, inside in _pieces(text):
        written += "".join(WILD.get(mark, re.escape(mark)) for mark in literal)
        if inside is not None:
            column, colon, own = inside.partition(":")
            if not column.strip():
                raise InputError(f"'{pattern}' has braces without the name of a column.")
            if column in columns:
                written += f"(?P=c{columns.index(column)})"
                continue
            columns.append(column)
            written += f"(?P<c{len(columns) - 1}>{own if colon else '.+?'})"
    try:
        expression = re.compile(written, re.DOTALL)
    except re.error as error:
        raise InputError(f"'{pattern}': '{text}' has a wrong regular expression: {error}.") from error
    return Part(expression, columns, text.startswith("."))


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """Text before each pair of braces with what the braces contain; the rest with None."""
    start, depth, opened = 0, 0, 0
    for position, mark in enumerate(text):
        if mark == "{":
            opened = position if not depth else opened
            depth += 1
        elif mark == "}":
            depth -= 1
            if not depth:
                yield text[start:opened], text[opened + 1 : position]
                start = position + 1
    yield text[start:], None
