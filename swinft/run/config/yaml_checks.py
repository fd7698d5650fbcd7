"""What a config's YAML says, checked before the parser reads it: keys, sections, classes, each by file and line.

YAML's nodes know their lines, and hold names that nothing has been made of yet.
"""

import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from swinft.errors import InputError, suggest
from swinft.run.config.explain import unknown_key
from swinft.run.config.old_keys import migrated, today
from swinft.run.config.trust import BASES, argument_bases, arguments_of, class_problem
from swinft.run.layout import is_frozen

MOST_NODES = 100_000  # values of a config; aliases of aliases make billions of a few lines
# What YAML makes of a word that is not in quotes, by the type of the value, with the words for it.
NOT_TEXT = {"bool": (bool, "true or false"), "int": (int, "a whole number"), "float": (float, "a number")}


class Source(NamedTuple):
    """Where YAML comes from, for messages.

    Args:
        name: A file, or an option of the command line.
        has_lines: Whether the line says something.
    """

    name: str
    has_lines: bool = True

    def place(self, node: yaml.Node) -> str:
        """File and line of a node, or the option."""
        return f"{self.name}:{node.start_mark.line + 1}" if self.has_lines else self.name


class Allowed(NamedTuple):
    """What a config may say.

    Args:
        types: Type of the value of every dotted key; None for a section that holds others.
        own: Keys that swinft decides itself, with the reason.
        code: Packages or modules whose classes may be named, besides the trusted ones.
    """

    types: Mapping[str, Any]
    own: Mapping[str, str]
    code: list[str]


def read_nodes(source: Source, text: str) -> yaml.Node:
    """YAML's nodes, once the text is known to hold plain values only; merge keys are not followed yet.

    Raises:
        InputError: It is no YAML, or expands to too much.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None or _size(root, {}) > MOST_NODES:
            what = (
                "holds no keys" if root is None else f"expands to more than {MOST_NODES:,} values through its aliases"
            )
            raise InputError(f"{source.name} {what}{'' if root is None else '; write them out'}.")
        yaml.safe_load(text)  # tags that stand for Python objects
    except RecursionError:
        raise InputError(f"{source.name} is not valid: its values are nested too deeply.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{source.name} is not valid YAML: {error}") from error
    return root


def file_problems(path: Path, allowed: Allowed) -> list[str]:
    """Everything that is wrong with the keys, sections and classes of one file.

    Raises:
        InputError: The file is missing, or no YAML.
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
        raise InputError(f"{path} holds no keys.")
    if is_frozen(path) and (moved := migrated(text)) != text:
        root = read_nodes(source, moved)
    doubled = list(_doubled(source, root, "", allowed))
    _merge(root)
    return [*class_problems(source, root, "", (), allowed), *doubled, *_key_problems(source, root, "", allowed)]


def option_problems(option: str, value: str, allowed: Allowed) -> list[str]:
    """What is wrong with the value of an option, where it is a section or names a class.

    Args:
        option: Dotted key, without dashes.
        value: What stands behind it.
        allowed: What it may say.
    """
    key = option.rstrip("+")
    is_section = key in allowed.types and allowed.types[key] is None
    named = next((base for base in BASES if key == base or key == f"{base}.class_path"), None)
    if not is_section and not named:
        return []
    source = Source(f"--{option}", has_lines=False)
    is_row = named and "," in value and not value.lstrip().startswith(("[", "{"))
    root = read_nodes(source, f"[{value}]" if is_row else value or "''")  # `a,b`, as the parser spells it out
    if is_section and not isinstance(root, yaml.MappingNode):
        return [_no_section(source, root, key)]
    if not isinstance(root, yaml.ScalarNode):
        _merge(root)
    problems = list(class_problems(source, root, named or key, BASES.get(named or key, ()), allowed))
    return problems + (list(_key_problems(source, root, f"{key}.", allowed)) if is_section else [])


def class_problems(
    source: Source, node: yaml.Node, key: str, bases: tuple[type, ...], allowed: Allowed
) -> Iterator[str]:
    """Classes that may not be named or do not exist, and wrong arguments of classes, anywhere below a node."""
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
            yield from class_problems(source, value, here, BASES.get(here, ()), allowed)
    elif key in BASES and "." in str(node.value) and node.tag.endswith(":str"):
        problem = class_problem(str(node.value), key, bases, allowed.code)
        if problem:
            yield f"{source.place(node)}: {problem}"


def _one_class(
    source: Source,
    entries: dict[str, yaml.Node],
    key: str,
    bases: tuple[type, ...],
    allowed: Allowed,
) -> Iterator[str]:
    """What is wrong with a mapping that names a class, and with what it holds."""
    node = entries["class_path"]
    name = str(node.value)
    problem = class_problem(name, key, bases, allowed.code)
    if problem:
        yield f"{source.place(node)}: {problem}"
        return
    known = arguments_of(name, bases, allowed.code)
    for part in ("init_args", "dict_kwargs"):
        given = entries.get(part)
        for argument, value in given.value if isinstance(given, yaml.MappingNode) else []:
            if known and argument.value not in known:
                hint = suggest(str(argument.value), known)
                yield f"{source.place(argument)}: '{name}' has no argument '{argument.value}'.{hint}"
            inner = argument_bases(name, str(argument.value), bases, allowed.code)
            yield from class_problems(source, value, f"{key}.{part}.{argument.value}", inner, allowed)


def _key_problems(source: Source, node: yaml.Node, prefix: str, allowed: Allowed) -> Iterator[str]:
    """Unknown keys, sections that are no mappings, and words that YAML does not take for text."""
    for key_node, value in node.value:
        key, place = f"{prefix}{key_node.value}", source.place(key_node)
        if key not in allowed.types:
            refusal = unknown_key("key '{}'", key, allowed.types, allowed.own)
            yield f"{place}: {refusal}"
        elif allowed.types[key] is not None:
            yield from _text_problems(source, value, key, allowed.types[key])
        elif isinstance(value, yaml.MappingNode):
            yield from _key_problems(source, value, f"{key}.", allowed)
        else:
            yield _no_section(source, value, key)


def _no_section(source: Source, node: yaml.Node, key: str) -> str:
    given = f"'{node.value[:80]}'" if isinstance(node, yaml.ScalarNode) else "a list"
    said = f"{source.place(node)}: {key} is a section: write its keys below it, not {given}."
    if new := today(key):  # a section today, and a value before
        return f"{said} What stood here has moved to {new}."
    return f"{said} Other files are not read; give several with --config, the later one wins."


def _text_problems(source: Source, node: yaml.Node, key: str, hint: Any) -> Iterator[str]:
    """Words that should be text and are something else to YAML, such as `on`."""
    types = list(_flat(hint))
    for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        kind, words = NOT_TEXT.get(each.tag.rpartition(":")[2], (str, ""))
        is_number = kind is int and float in types  # a whole number is one for a key that takes any, or `auto`
        if str in types and kind not in types and not is_number and isinstance(each, yaml.ScalarNode):
            yield f"{source.place(each)}: {key}: YAML reads `{each.value}` as {words}: write '{each.value}' in quotes."


def _flat(hint: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        yield from map(type, arguments)
    elif arguments:
        for argument in arguments:
            yield from _flat(argument)
    else:
        yield hint


def _doubled(source: Source, node: yaml.Node, prefix: str, allowed: Allowed) -> Iterator[str]:
    """Keys that one mapping gives twice; what a merge key brings may be given again."""
    seen = set()
    for key_node, value in node.value:
        key = f"{prefix}{key_node.value}"
        if key in seen:
            yield f"{source.place(key_node)}: key '{key}' is given twice. Keep one of them."
        seen.add(key)
        if isinstance(value, yaml.MappingNode) and allowed.types.get(key, ...) is None:
            yield from _doubled(source, value, f"{key}.", allowed)


def _merge(root: yaml.Node) -> None:
    """Follows merge keys (`<<: *base`) everywhere, in place: the mapping's own keys stand behind the merged ones."""
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
    """How many values a YAML node stands for once its aliases are followed; aliases share a node."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # one that holds itself never ends
        children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_size(child, known) for child in children if isinstance(child, yaml.Node))
    return known[id(node)]
