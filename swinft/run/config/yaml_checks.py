"""Checks a config's YAML before the parser reads it: keys, sections and classes, with file and line.

YAML nodes have line numbers, and are checked before anything is imported or instantiated.
"""

import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from swinft.errors import InputError, suggest
from swinft.run.config.explain import unknown_key
from swinft.run.config.old_keys import current_key, migrated
from swinft.run.config.trust import BASES, TABLES, argument_bases, arguments_of, bases_of, class_problem, is_no_class
from swinft.run.layout import is_frozen

MOST_NODES = 100_000  # values of a config; nested aliases can expand a few lines to billions
# YAML's types of unquoted words, with the Python type and its description.
NOT_TEXT = {"bool": (bool, "true or false"), "int": (int, "a whole number"), "float": (float, "a number")}


class Source(NamedTuple):
    """The origin of YAML text, for messages.

    Args:
        name: A file, or an option of the command line.
        has_lines: Whether messages show the line.
    """

    name: str
    has_lines: bool = True

    def location(self, node: yaml.Node) -> str:
        """File and line of a node, or the option."""
        return f"{self.name}:{node.start_mark.line + 1}" if self.has_lines else self.name


class Allowed(NamedTuple):
    """What a config may contain.

    Args:
        types: Type of the value of every dotted key; None for a section.
        managed: Keys that swinft sets itself, with the reason.
        code: Packages or modules whose classes may be named, besides the trusted ones.
    """

    types: Mapping[str, Any]
    managed: Mapping[str, str]
    code: list[str]


def read_nodes(source: Source, text: str) -> yaml.Node:
    """Reads YAML as nodes, and checks that it contains plain values only; merge keys are not resolved yet.

    Raises:
        InputError: It is not valid YAML, or expands to too many values.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None or _size(root, {}) > MOST_NODES:
            what = "has no keys" if root is None else f"expands to more than {MOST_NODES:,} values through its aliases"
            raise InputError(f"{source.name} {what}{'' if root is None else '; write them out'}.")
        yaml.safe_load(text)  # refuses tags of Python objects
    except RecursionError:
        raise InputError(f"{source.name} is not valid: its values are nested too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError of a number with thousands of digits, or of a date
        raise InputError(f"{source.name} is not valid YAML: {error}") from error
    return root


def parsed_file(path: Path) -> tuple[Source, yaml.MappingNode]:
    """A file as nodes, with its name.

    Raises:
        InputError: The file is missing, or not valid YAML.
    """
    if not path.is_file():
        siblings = [str(sibling) for sibling in path.parent.glob("*.y*ml")]
        raise InputError(f"there is no config '{path}'.{suggest(str(path), siblings)}")
    source = Source(str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    root = read_nodes(source, text)
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path} has no keys.")
    if is_frozen(path) and (moved := migrated(text)) != text:
        root = typing.cast(yaml.MappingNode, read_nodes(source, moved))
    return source, root


def file_problems(path: Path, allowed: Allowed) -> list[str]:
    """All problems with the keys, sections and classes of one file.

    Raises:
        InputError: The file is missing, or not valid YAML.
    """
    source, root = parsed_file(path)
    duplicates = list(_duplicates(source, root, "", allowed))
    merge(root)
    return [*class_problems(source, root, "", (), allowed), *duplicates, *_key_problems(source, root, "", allowed)]


def option_problems(option: str, value: str, allowed: Allowed) -> list[str]:
    """Problems with the value of an option that is a section or names a class.

    Args:
        option: The dotted key, without dashes.
        value: Its value.
        allowed: What it may contain.
    """
    key = option.rstrip("+")
    is_section = key in allowed.types and allowed.types[key] is None
    named = next((base for base in BASES if key == base or key == f"{base}.class_path"), None)
    if not is_section and not named:
        return []
    source = Source(f"--{option}", has_lines=False)
    is_list = named and "," in value and not value.lstrip().startswith(("[", "{"))
    root = read_nodes(source, f"[{value}]" if is_list else value or "''")  # the parser reads `a,b` as a list too
    if is_section and not isinstance(root, yaml.MappingNode):
        return [_not_a_section(source, root, key)]
    if not isinstance(root, yaml.ScalarNode):
        merge(root)
    problems = list(class_problems(source, root, named or key, BASES.get(named or key, ()), allowed))
    problems += number_problems(source, root, key)
    return problems + (list(_key_problems(source, root, f"{key}.", allowed)) if is_section else [])


def class_problems(
    source: Source, node: yaml.Node, key: str, bases: tuple[type, ...], allowed: Allowed
) -> Iterator[str]:
    """Classes that are not allowed or do not exist, and wrong arguments of classes, anywhere below a node."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from class_problems(source, child, key, bases, allowed)
    elif isinstance(node, yaml.MappingNode):
        entries = {str(name.value): value for name, value in node.value}
        if "class_path" in entries:
            yield from _one_class(source, entries, key, bases, allowed)
            return
        for name, value in entries.items():
            here = f"{key}.{name}".lstrip(".")
            yield from class_problems(source, value, here, bases_of(here), allowed)
    elif (
        key in BASES and "." in str(node.value) and node.tag.endswith(":str") and not is_no_class(key, str(node.value))
    ):
        problem = class_problem(str(node.value), key, bases, allowed.code)
        if problem:
            yield f"{source.location(node)}: {problem}"


def _one_class(
    source: Source,
    entries: dict[str, yaml.Node],
    key: str,
    bases: tuple[type, ...],
    allowed: Allowed,
) -> Iterator[str]:
    """Problems of a mapping with a `class_path`."""
    node = entries["class_path"]
    name = str(node.value)
    problem = class_problem(name, key, bases, allowed.code)
    if problem:
        yield f"{source.location(node)}: {problem}"
        return
    known = arguments_of(name, bases, allowed.code)
    for part in ("init_args", "dict_kwargs"):
        given = entries.get(part)
        for argument, value in given.value if isinstance(given, yaml.MappingNode) else []:
            if known and argument.value not in known:
                hint = suggest(str(argument.value), known)
                yield f"{source.location(argument)}: '{name}' has no argument '{argument.value}'.{hint}"
            inner = argument_bases(name, str(argument.value), bases, allowed.code)
            yield from class_problems(source, value, f"{key}.{part}.{argument.value}", inner, allowed)


def _key_problems(source: Source, node: yaml.Node, prefix: str, allowed: Allowed) -> Iterator[str]:
    """Unknown keys, sections that are not mappings, and words that YAML does not read as text."""
    for key_node, value in node.value:
        key = f"{prefix}{key_node.value}"
        if key not in allowed.types:
            refusal = unknown_key("key '{}'", key, allowed.types, allowed.managed)
            yield f"{source.location(key_node)}: {refusal}"
        elif allowed.types[key] is not None:
            yield from _text_problems(source, value, key, allowed.types[key])
            yield from number_problems(source, value, key)
        elif isinstance(value, yaml.MappingNode):
            yield from _key_problems(source, value, f"{key}.", allowed)
        else:
            yield _not_a_section(source, value, key)


def _not_a_section(source: Source, node: yaml.Node, key: str) -> str:
    given = f"'{node.value[:80]}'" if isinstance(node, yaml.ScalarNode) else "a list"
    problem = f"{source.location(node)}: {key} is a section: write its keys below it, not {given}."
    if new := current_key(key):  # a section now, and a value in earlier versions
        return f"{problem} The value has moved to {new}."
    return f"{problem} Other files are not read; give several with --config, later ones override earlier ones."


def _text_problems(source: Source, node: yaml.Node, key: str, hint: Any) -> Iterator[str]:
    """Words that should be text but have another type in YAML, such as `on`."""
    types, words_of_key = list(_flat(hint)), list(_words(hint))
    for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        kind, words = NOT_TEXT.get(each.tag.rpartition(":")[2], (str, ""))
        is_number = kind is int and float in types  # a key that accepts any number, or `auto`
        is_text = isinstance(each, yaml.ScalarNode) and (each.value in words_of_key or str in words_of_key)
        if str in types and is_text and kind not in types and not is_number:
            text = f"YAML reads `{each.value}` as {words}: write '{each.value}' in quotes."
            yield f"{source.location(each)}: {key}: {text}"


def number_problems(source: Source, node: yaml.Node, key: str, is_inside: bool = False) -> Iterator[str]:
    """Numbers in the steps of a table that lose their digits: `007`, `1e5`, `0.10`; cells are compared as text."""
    is_inside |= key in TABLES
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from number_problems(source, child, key, is_inside)
    elif isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from number_problems(source, name, "", is_inside)
            yield from number_problems(source, value, f"{key}.{name.value}", is_inside)
    elif is_inside and isinstance(node, yaml.ScalarNode) and node.style is None and _changes(node):
        yield f"{source.location(node)}: YAML reads `{node.value}` as another number: write '{node.value}' in quotes."


def _changes(node: yaml.ScalarNode) -> bool:
    """Whether a word is read as a number that is written differently."""
    try:
        value = float(node.value)
    except ValueError:
        return node.tag.endswith((":int", ":float"))
    return node.value not in (repr(value), str(int(value)) if value.is_integer() else "")


def _flat(hint: Any) -> Iterator[Any]:
    """The types in an annotation."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        yield from map(type, arguments)
    elif typing.get_origin(hint) is dict:  # its values are not values of the key
        yield dict
    elif arguments:
        for argument in arguments:
            yield from _flat(argument)
    else:
        yield hint


def _words(hint: Any) -> Iterator[Any]:
    """The words of the literals in an annotation, and the type of text where it accepts any."""
    if hint is str or typing.get_origin(hint) is typing.Literal:
        yield from typing.get_args(hint) or [hint]
    elif typing.get_origin(hint) is not dict:
        for argument in typing.get_args(hint):
            yield from _words(argument)


def _duplicates(source: Source, node: yaml.Node, prefix: str, allowed: Allowed) -> Iterator[str]:
    """Keys that are given twice in one mapping; keys of a merged mapping may be given again."""
    seen = set()
    for key_node, value in node.value:
        key = f"{prefix}{key_node.value}"
        if key in seen:
            yield f"{source.location(key_node)}: key '{key}' is given twice. Keep one of them."
        seen.add(key)
        if isinstance(value, yaml.MappingNode) and allowed.types.get(key, ...) is None:
            yield from _duplicates(source, value, f"{key}.", allowed)


def repeated_keys(node: yaml.Node) -> Iterator[yaml.Node]:
    """Keys that are given twice in a mapping, anywhere below a node."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from repeated_keys(child)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen and key.value != "<<":
                yield key
            seen.add(key.value)
            yield from repeated_keys(value)


def merge(root: yaml.Node) -> None:
    """Resolves merge keys (`<<: *base`) everywhere, in place: a mapping's own keys override the merged ones."""
    loader, waiting, seen = yaml.SafeLoader(""), [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            loader.flatten_mapping(node)
            own = {name.value: (name, value) for name, value in node.value if isinstance(name.value, str)}
            node.value = list(own.values())
            waiting += [value for _, value in node.value]
        else:
            waiting += node.value


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values in a YAML node with its aliases expanded; aliases share a node."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # a node that contains itself would not end
        children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_size(child, known) for child in children if isinstance(child, yaml.Node))
    return known[id(node)]
