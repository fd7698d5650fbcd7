"""Command-line arguments from signatures: types check, docstrings explain, errors suggest the nearest word."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from swinft.errors import InputError, suggest


class Parser(ArgumentParser):
    """A parser whose errors are `InputError`s that suggest the nearest known key.

    Args:
        flags: Options of type bool that may stand without a value: `--resume`.
        lists: Options that take `a,b` for `[a,b]`.
    """

    def __init__(self, *args: Any, flags: Iterable[str] = (), lists: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.flags, self.lists = set(flags), set(lists)

    def parse_args(  # type: ignore[override]  # argparse's overloads know nothing of jsonargparse's options
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None, **kwargs: Any
    ) -> Namespace:
        """Parses words as people type them: `--dry-run` for `--dry_run=true`, `--views a,b` for `--views=[a,b]`."""
        words: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            name, equals, value = word.partition("=")
            option = name[2:].replace("-", "_") if name.startswith("--") else ""
            if words and words[-1].removeprefix("--") in self.lists and not word.startswith(("[", "--")):
                words.append(f"[{word}]")
            elif option in self.flags and not equals:
                words.append(f"--{option}=true")
            elif "_" in option and f"--{option}" in self._option_string_actions:
                words.append(f"--{option}{equals}{value}")
            else:
                words.append(word)
        return super().parse_args(words, namespace, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the parser's complaint without the page of usage that would push it off the screen."""
        raise InputError(_explain(message, known_keys(self))) from ex


def call(function: Callable[..., None], command: str, argv: list[str]) -> int:
    """Runs a function whose signature is a command's interface.

    Args:
        function: Typed, with a Google docstring; parameters without a default are positional.
        command: Its name on the command line.
        argv: The words after the name.

    Returns:
        Exit code 0; everything else is an exception.
    """
    hints = get_type_hints(function)
    flags = [name for name, hint in hints.items() if hint is bool]
    lists = [name for name, hint in hints.items() if "list[" in str(hint)]
    parser = Parser(prog=f"swinft {command}", flags=flags, lists=lists)
    parser.add_function_arguments(function, as_positional=True)
    function(**parser.parse_args(argv).as_dict())
    return 0


def known_keys(parser: ArgumentParser) -> set[str]:
    """Every dotted key of the parser, with the sections that hold them."""
    keys = {action.dest for action in parser._actions if action.dest.split(".")[-1] not in ("help", "print_config")}
    return keys | {key.rsplit(".", depth)[0] for key in keys for depth in range(1, key.count(".") + 1)}


def _explain(message: str, known: Iterable[str]) -> str:
    """Adds the nearest known key to jsonargparse's complaint about an unknown one."""
    option = re.search(r"[Uu]nrecognized arguments: --([\w.-]+)", message)
    if option:
        return f"unknown option '--{option[1]}'.{suggest(option[1], sorted(known))}"
    return message
