"""Checks values of a config one by one, with file and line: the parser of the whole stops at the first wrong one."""

import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from swinft.errors import InputError
from swinft.run.config.parser import Parser, limit_imports
from swinft.run.config.trust import TRUSTED_PACKAGES
from swinft.run.config.yaml_checks import Allowed, Source, merge, parsed_file


def wrong_values(
    files: Sequence[Path], options: Sequence[tuple[str, str]], allowed: Allowed, named: Sequence[str] = ()
) -> list[str]:
    """All values that have the wrong type, each with its line or its option.

    Args:
        files: YAML files.
        options: Options of the command line, as dotted keys and their values.
        allowed: What they may contain.
        named: Problems that are known already: a place that they name is named once.
    """
    places = {problem.partition(": ")[0] for problem in named}
    found: list[str] = []
    for path in files:
        source, root = parsed_file(path)
        merge(root)
        found += _problems(source, root, "", allowed)
    for key, value in options:
        if allowed.types.get(key) is not None:
            words = [f"--{key}={value}"]
            problem = _refused(key, allowed, lambda parser, words=words: parser.parse_args(words))  # type: ignore[misc]
            found += [f"--{key}: {problem}"] if problem else []
    return [problem for problem in found if problem.partition(": ")[0] not in places]


def _problems(source: Source, node: yaml.Node, prefix: str, allowed: Allowed) -> Iterator[str]:
    for name, value in node.value if isinstance(node, yaml.MappingNode) else []:
        key = f"{prefix}{name.value}"
        if key in allowed.types and allowed.types[key] is None:
            yield from _problems(source, value, f"{key}.", allowed)
        elif key in allowed.types:
            text = yaml.serialize(_nested(key, value), Dumper=yaml.SafeDumper)
            problem = _refused(key, allowed, lambda parser, text=text: parser.parse_string(text))  # type: ignore[misc]
            if problem:
                yield f"{source.location(_inner(value, problem))}: {key}: {problem}"


def _refused(key: str, allowed: Allowed, parse: typing.Callable[[Parser], Any]) -> str:
    """Why a parser of this key alone refuses its value; empty if it does not."""
    parser = Parser()
    parser.add_argument(f"--{key}", type=allowed.types[key]).default = ...  # so that null is a value that was given
    parser.packages = (*TRUSTED_PACKAGES, *allowed.code)
    try:
        with limit_imports(parser.packages):
            parse(parser)
    except InputError as error:
        return str(error).removeprefix(f"{key}: ")
    return ""


def _nested(key: str, value: yaml.Node) -> yaml.Node:
    """The mapping in which the dotted key has this value."""
    for part in reversed(key.split(".")):
        name = yaml.ScalarNode("tag:yaml.org,2002:str", part)
        value = yaml.MappingNode("tag:yaml.org,2002:map", [(name, value)])
    return value


def _inner(node: yaml.Node, problem: str) -> yaml.Node:
    """The node that a problem names, such as an argument of a class: `label_smoothing: ...`."""
    name, colon, rest = problem.partition(": ")
    entries = {str(key.value): value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
    below = entries.get("init_args")
    if isinstance(below, yaml.MappingNode):
        entries |= {str(key.value): value for key, value in below.value}
    return _inner(entries[name], rest) if colon and name in entries else node
