"""Rewrites jsonargparse's errors, which name Python types, into messages that say what to write."""

import ast
import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from swinft.errors import suggest
from swinft.run.config.old_keys import current_key

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "list": "a list in brackets",
    "tuple": "a list in brackets",
    "collections.abc.Iterable": "a list in brackets",
    "dict": "a mapping",
    "pair": "two values in brackets",
}
PAIR = ("a tuple with 2 elements", "a <class 'pair'>")  # types that jsonargparse names in other ways
CLASS = ("a dot import path string", "a <class 'dict'>")  # of a dataclass, which is written as a mapping
EXPECTED = re.compile(r"Expected (?:an? )?(?:<class '([\w.]+)'>|typing\.Literal(\[[^\]]*\]))")
NO_TEXT = re.compile(r"Expected a <class 'str'>\. Got value: (.+)")
FUNCTION = re.compile(r"Expected a dot import path string: (.+)")
GIVEN = re.compile(r"(?:Given value|Got value): (.*?)(?:\. Got value: .*)?$", re.MULTILINE)
REASONS = {  # reasons to refuse a class path or its arguments, the most specific first
    r"Option '(.+?)' is not accepted": "the class has no argument '{}'; add `.help` to the option to list them",
    r"the following arguments are required: (.+)": "the class needs a value for {}",
    r"Expected an instantiatable class, but (.+?) is": "{} is only a base for other classes",
    r"(?:No module named|cannot import name) (.+)": "there is no module or name {}",
    r"(Import path .+ does not correspond to .+)": "{}",
    r"Problem with given class_path '(.+)'": "the class {} cannot be instantiated",
}
OF_CLASSES = ("expects a function or a callable class", "a dot import path string")  # where a class is wanted
OF_UNIONS = ("Expected", "Does not validate")  # start of errors that only list the types of a union


def explain(message: str, known: Mapping[str, Any], managed: Mapping[str, str]) -> str:
    """Rewrites an error: adds the most similar key, the allowed values, or the reason why a class is refused.

    Args:
        message: An error of jsonargparse.
        known: All known dotted keys, with their types.
        managed: Keys that swinft sets itself, with the reason.
    """
    option = re.search(r"[Uu]nrecognized arguments: --([\w.+-]+)", message)
    if option:
        return unknown_key("option '--{}'", option[1].rstrip("+"), known, managed)
    denied = re.search(r"Importing '(.+?)' is not allowed", message)
    if denied:
        return f"{_keys(message)}{untrusted(denied[1])}"
    if "Parser key" not in message:
        return message
    innermost = _innermost(message)
    reason = next(
        (text.format(found[1]) for pattern, text in REASONS.items() if (found := re.search(pattern, innermost))), None
    )
    if reason:
        return f"{_keys(message)}{reason}."
    inside = NO_TEXT.search(innermost)
    if inside and GIVEN.findall(innermost)[-1].startswith(("[", "{")):
        quoted = f"`{inside[1]}` in it is not text. Put in quotes what YAML reads as another kind of value: 'yes', '1'."
        return f"{_keys(message)}{_value(innermost)}{quoted}"
    keys = keys_of(known.get(re.findall(r'Parser key "([^"]+)"', message)[0]))
    innermost = innermost.replace(*PAIR).replace(*CLASS if keys else PAIR)
    expected = EXPECTED.findall(innermost)
    if not expected:
        path = FUNCTION.search(innermost)
        refused = "is not allowed; a config names classes, and no functions."
        if path or not any(words in message for words in OF_CLASSES):
            return f"{_keys(message)}`{path[1]}` {refused}" if path else message
        given = "" if "Namespace(" in message else _value(innermost)  # of a class whose `init_args` are no mapping
        return f"{_keys(message)}{given}it must be a mapping of `class_path`, a class, and `init_args`, its arguments."
    return f"{_keys(message)}{_value(innermost)}it must be {_listed(expected)}.{_nearest(innermost, expected)}{keys}"


def keys_of(hint: Any) -> str:
    """The keys of a mapping that a type is, or may be, or is a list of; empty if it is none."""
    found = list(_classes(hint))
    whose = "Keys of each mapping in the list" if any(typing.get_origin(each) is list for each in found) else "Its keys"
    names = (", ".join(field.name for field in fields(each)) for each in found if is_dataclass(each))
    return "".join(f" {whose}: {each}." for each in names)


def _classes(hint: Any) -> Iterator[Any]:
    yield hint
    for argument in typing.get_args(hint):
        yield from _classes(argument)


def unknown_key(what: str, key: str, known: Iterable[str], managed: Mapping[str, str]) -> str:
    """Why a key is refused, with the most similar one of the same section.

    Args:
        what: What the message calls it, with braces for the key.
        key: The dotted key.
        known: All known dotted keys.
        managed: Keys that swinft sets itself, with the reason.
    """
    if key.partition(".")[0] == "tune":
        advice = "only `swinft tune` reads the section `tune`: keep it in a file of its own, for its option --space."
        return f"{what.format(key)}: {advice}"
    if key in managed:
        return f"{what.format(key)}: swinft sets this itself: {managed[key]}"
    if new := current_key(key):
        return f"{what.format(key)} has moved: it is now {new}."
    section, dot, last = key.rpartition(".")
    known = sorted(known)
    same_name = [name for name in known if name.rpartition(".")[2] == last]
    siblings = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == section]
    hint = suggest(key, same_name) if same_name and not siblings.count(last) else suggest(last, siblings, section + dot)
    if "Did you mean" not in hint:  # it may belong to a subsection
        below = {name.rpartition(".")[2]: name for name in known if name.startswith(section + dot)}
        near = difflib.get_close_matches(last, below, n=1)
        hint = f" Did you mean '{below[near[0]]}'?" if near else hint
    return f"unknown {what.format(key)}.{hint}"


def untrusted(name: str) -> str:
    """Why a name is not imported, and how to allow it."""
    module = name.rpartition(".")[0] or name
    problem = f"'{name}' is not in a trusted package, and would run its own code."
    return f"{problem} If you trust it, add --allow-code {module}."


def literals(text: str) -> list[str]:
    """The choices in the text of a Literal, `['a', 'b']`."""
    try:
        return [str(choice) for choice in ast.literal_eval(text)]
    except (SyntaxError, ValueError):
        return [text]


def _innermost(message: str) -> str:
    """The part of an error that follows the last key."""
    lines = message.splitlines()
    start = max(number for number, line in enumerate(lines) if 'Parser key "' in line)
    depth = [len(line) - len(line.lstrip(" -")) for line in lines]
    below = [number for number in range(start + 1, len(lines)) if depth[number] <= depth[start]]
    return "\n".join(lines[start + 1 : below[0] if below else None])


def _keys(message: str) -> str:
    keys = re.findall(r'Parser key "([^"]+)"', message)
    return f"{': '.join(dict.fromkeys(keys))}: " if keys else ""


def _value(text: str) -> str:
    """The user's value, if it is short."""
    given = GIVEN.findall(text)
    if not given or len(given[-1]) > 80:
        return ""
    return f"`{'null' if given[-1] == 'None' else given[-1]}` is not allowed; "


def _listed(expected: list[tuple[str, str]]) -> str:
    words = [word for cls, choices in expected for word in (literals(choices) if choices else [WORDS.get(cls, cls)])]
    unique = list(dict.fromkeys(words))
    return unique[0] if len(unique) == 1 else f"{', '.join(unique[:-1])} or {unique[-1]}"


def _nearest(text: str, expected: list[tuple[str, str]]) -> str:
    given = GIVEN.findall(text)
    choices = [choice for _, choices in expected if choices for choice in literals(choices)]
    hint = suggest(given[-1].strip("[]'\""), choices) if given and choices else ""
    return hint if "Did you mean" in hint else ""


def reason(message: str) -> str:
    """An error of Lightning or jsonargparse in one line; for a union of types, only the error of the named class."""
    line = " ".join(message.split())
    named = re.search(r"Problem with given class_path '(.+?)': (.+?)(?= - Expected| Given value type|$)", line)
    if named:
        return f"{named[1]}: {named[2]}"
    errors = re.search(r"Errors: - (.+?)(?= Given value type|$)", line)
    causes = [each for each in errors[1].split(" - ") if not each.startswith(OF_UNIONS)] if errors else []
    return causes[0] if causes else line
