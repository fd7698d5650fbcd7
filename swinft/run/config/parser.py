"""Command-line parsers from signatures: types are checked, docstrings become help, errors suggest similar names."""

import copy
import functools
import json
import sys
import traceback
import warnings
from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

from jsonargparse import ArgumentParser, Namespace, set_dumper, set_parsing_settings
from jsonargparse._common import (
    lenient_check,
    parsing_settings,  # process-wide, so they are restored for the host program
)
from jsonargparse._util import import_object
from jsonargparse.typing import register_type

from swinft import json_output
from swinft.class_spec import AsWritten
from swinft.errors import InputError, suggest
from swinft.run.config.explain import explain
from swinft.run.config.help import OWN, DescriptiveHelpFormatter, hide_sections, short_help, usage
from swinft.run.config.old_keys import migrated
from swinft.run.config.yaml_text import yaml_text
from swinft.run.layout import is_frozen

# Options of commands that are no keys of a file.
ONLY_OPTIONS = (*OWN, "run", "trial")

T = TypeVar("T")

TOO_LARGE = f"a whole number of {sys.float_info.max_10_exp + 1} or more digits is too large."  # no float has them
FORMAT = "swinft"  # of dumps, beside those of jsonargparse
set_dumper(FORMAT, yaml_text)
register_type(AsWritten, serializer=lambda value: value, type_check=lambda value, kind: True)

_is_limited: ContextVar[bool] = ContextVar("is_limited", default=False)


@contextmanager
def limit_imports(packages: Sequence[str]) -> Iterator[None]:
    """Limits jsonargparse's imports to these packages or modules, wherever a name comes from.

    Raises:
        InputError: A module that is allowed cannot be imported.
    """
    if _is_limited.get():  # a parser of one class's arguments, inside the parser of the config
        yield
        return
    token, before = _is_limited.set(True), dict(parsing_settings)
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=list(packages), instantiate_subclass_spec_in_any=False
    )
    try:
        yield
    except OverflowError:  # a whole number for a key of any number
        raise InputError(TOO_LARGE) from None
    except Exception as error:
        if name := _not_imported(error):
            raise InputError(f"class_path '{name}' cannot be imported: {type(error).__name__}: {error}.") from error
        raise
    finally:
        parsing_settings.clear()
        parsing_settings.update(before)
        _is_limited.reset(token)


def _not_imported(error: Exception) -> str:
    """The class whose module raised an error while it was imported for a config; empty for other errors."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((str(frame.f_locals["name"]) for frame in frames if frame.f_code is import_object.__code__), "")


NO_PATH = "Unable to serialize instance "  # what jsonargparse writes before text that does not name a function


class Parser(ArgumentParser):
    """A parser whose errors are `InputError`s that suggest the most similar key.

    Classes are imported only from `packages`; by default from nowhere.

    Args:
        flags: Options of type bool that need no value: `--resume`.
        lists: Options that accept `a,b` for `[a,b]`.
        managed: Options of Lightning's Trainer that swinft sets itself, with the reason.
        purpose: What the command does; if given, `--help` is short and `--help all` prints every key.
    """

    def __init__(
        self,
        *args: Any,
        flags: Iterable[str] = (),
        lists: Iterable[str] = (),
        managed: Mapping[str, str] | None = None,
        purpose: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": DescriptiveHelpFormatter, **kwargs})
        self.flags, self.lists, self.managed = set(flags), set(lists), dict(managed or {})
        self.packages: Sequence[str] = ()
        self.purpose, self.shows_all = purpose, False

    def parse_args(  # type: ignore[override]  # argparse's overloads lack jsonargparse's options
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None, **kwargs: Any
    ) -> Namespace:
        """Parses arguments with shorthands: `--dry-run` for `--dry_run=true`, `--views a,b` for `--views=[a,b]`."""
        words = self._spelled(sys.argv[1:] if args is None else args)
        with limit_imports(self.packages):
            parsed: Namespace = super().parse_args(words, namespace, **kwargs)
        return parsed

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Parses a file; the keys of a frozen config are migrated first."""
        file = Path(str(path))
        with limit_imports(self.packages):
            if is_frozen(file):
                text = migrated(file.read_text(encoding="utf-8"))
                parsed: Namespace = self.parse_string(text, str(file), *args, **kwargs)
            else:
                parsed = super().parse_path(path, *args, **kwargs)
        return parsed

    def validate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        """Checks every value; null, too, where the default is another value: jsonargparse takes null for not given."""
        super().validate(namespace, *args, **kwargs)
        for action in [] if lenient_check.get() else self._actions:
            if action.default not in (None, SUPPRESS) and namespace.get(action.dest, ...) is None:
                self._check_value_key(action, None, action.dest, namespace)

    def instantiate(self, *args: Any, **kwargs: Any) -> Namespace:
        """Instantiates the classes of a parsed config."""
        with limit_imports(self.packages):
            built: Namespace = super().instantiate(*args, **kwargs)
        return built

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """A parsed config as YAML; tuples among a class's defaults become lists, without a warning.

        Text for an argument that also accepts functions, such as ModelPruning's, stays unchanged: jsonargparse finds no
        import path for it and would write an error message instead, with which the config could not be read again.
        """
        if hasattr(self, "print_config"):  # `--print_config`: what it prints can be read again
            args = (self._of_file(args[0]), *args[1:])
        with limit_imports(self.packages), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\s*Dump of a value that does not round-trip: a tuple")
            warnings.filterwarnings("ignore", rf"\s*{NO_PATH}")
            return str(super().dump(*args, **{"format": FORMAT, **kwargs})).replace(NO_PATH, "")

    @staticmethod
    def _of_file(config: Namespace) -> Namespace:
        """A config without the options of commands, which files may not have, and without a list that is not given."""
        kept: Namespace = config.clone()
        for key in [*ONLY_OPTIONS, *(["rounds"] if config.get("rounds") is None else [])]:
            kept.pop(key, None)
        return kept

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The most used keys, or every key."""
        if self.purpose and not self.shows_all:
            text = short_help(self, self.purpose)
        else:
            if self.purpose:
                self.usage = usage(self)
                hide_sections(self, {key for key, hint in key_types(self).items() if hint is None})
            text = str(super().format_help(*args, **kwargs))
        is_command = str(self.prog).startswith("swinft ") and not getattr(self, "_inner_parser", False)
        return f"{text}\nOf every command:\n  {json_output.FLAG:<20}  {json_output.HELP}\n" if is_command else text

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the parser's error as an `InputError`, without the long usage text.

        Raises:
            InputError: Always, with the problem and the nearest right key.
        """
        if getattr(self, "_inner_parser", False):  # the parser of a class: the config's parser explains its error
            super().error(message, ex)
        raise InputError(explain(message, key_types(self), self.managed)) from ex

    def _spelled(self, args: Sequence[str]) -> list[str]:
        """Arguments of a command line, with shorthands written out for jsonargparse."""
        words: list[str] = []
        for word in args:
            if self.purpose and (word in ("--help-all", "--help_all") or (word == "all" and words[-1:] == ["--help"])):
                self.shows_all = True
                words += ["--help"] * (not words or words[-1] != "--help")
                continue
            name, equals, value = word.partition("=")
            option = name[2:].replace("-", "_") if name.startswith("--") else ""
            before = words[-1] if words else ""
            if before.removeprefix("--") in self.lists and not word.startswith(("[", "--", "null")):
                words.append(f"[{word}]")
            elif equals and option in self.lists and not value.startswith(("[", "null")):
                words.append(f"--{option}=[{value}]")
            elif before.endswith("=true") and before[2:-5] in self.flags and word.lower() in ("true", "false", "null"):
                words[-1] = f"{before[:-5]}={word.lower()}"  # `--overwrite true`
            elif option in self.flags and not equals:
                words.append(f"--{option}=true")
            elif "_" in option and f"--{option}" in self._option_string_actions:
                words.append(f"--{option}{equals}{value}")
            else:
                words.append(word)
        return words


def built_once(build: Callable[..., Parser]) -> Callable[..., Parser]:
    """Builds a parser once per process and arguments, as building takes longer than parsing.

    Each call returns a copy, whose `packages` are of one command only.
    """
    once = functools.cache(build)

    @functools.wraps(build)
    def copied(*words: str) -> Parser:
        return copy.copy(once(*words))

    return copied


def call(function: Callable[..., T], command: str, argv: list[str], *options: type) -> T:
    """Runs a function whose signature is a command's interface.

    Args:
        function: A typed function with a Google docstring; parameters without a default are positional.
        command: Name of the command.
        argv: The arguments after the name.
        options: Dataclasses whose fields are options; the function gets an instance of each, as its parameter of this
            type.

    Returns:
        What the function returns: the output of the command. Failures are exceptions.
    """
    hints = get_type_hints(function)
    places = {name: hint for name, hint in hints.items() if hint in options}
    for each in options:
        hints |= get_type_hints(each)
    flags = [name for name, hint in hints.items() if hint in (bool, bool | None)]
    lists = [name for name, hint in hints.items() if "list[" in str(hint)]
    parser = Parser(prog=f"swinft {command}", flags=flags, lists=lists)
    parser.add_function_arguments(function, as_positional=True, skip=set(places) or None)
    for each in options:
        parser.add_class_arguments(each)
    given = parser.parse_args(argv).as_dict()
    built = {name: kind(**{each.name: given.pop(each.name) for each in fields(kind)}) for name, kind in places.items()}
    return function(**given, **built)


def options_from(kind: type[T], given: Mapping[str, Any]) -> T:
    """Options of a Python caller, checked like those of a command line.

    Args:
        kind: A dataclass.
        given: Values of its fields; others have their defaults.

    Raises:
        InputError: A name is unknown, or a value has the wrong type or is out of its range.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    if unknown := [name for name in given if name not in names]:
        raise InputError(" ".join(f"'{name}' is not an option.{suggest(name, names)}" for name in unknown))
    parser = Parser(prog=kind.__name__)
    parser.add_class_arguments(kind)
    return kind(**parser.parse_object(dict(given)).as_dict())


def option_words(options: Any, names: Iterable[str]) -> list[str]:
    """Options as words of a command line, without those that have their default; the inverse of `options_from`.

    Args:
        options: A dataclass.
        names: Its fields to take.
    """
    defaults = {field.name: field.default for field in fields(options)}
    words: list[str] = []
    for name in names:
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is True and defaults[name] is False:
            words.append(option)
        elif value != defaults[name]:
            words += [option, _word(value)]
    return words


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def plain(value: Any) -> Any:
    """A value of a parsed config with dictionaries in place of namespaces, also in lists."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    items = vars(value) if isinstance(value, Namespace) else value
    return {name: plain(each) for name, each in items.items()} if isinstance(items, dict) else value


def key_types(parser: ArgumentParser) -> dict[str, Any]:
    """Every dotted key of the parser with the type of its value; None for a section."""
    types: dict[str, Any] = {}
    for action in parser._actions:
        if action.dest.split(".")[-1] not in ("help", "print_config", "print_shtab"):
            types[action.dest] = getattr(action, "_typehint", None) or action.type or Any
    sections = {key.rsplit(".", depth)[0] for key in types for depth in range(1, key.count(".") + 1)}
    return types | dict.fromkeys(sections)
