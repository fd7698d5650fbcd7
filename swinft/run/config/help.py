"""The `--help` of a config's parser: the most used keys; `--help all` prints every key."""

import argparse
import re
import shutil
import textwrap
import types
import typing
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from swinft.run.config.explain import WORDS

COLUMN = 34  # where the descriptions start
# Options of commands, which are no keys of a config.
OWN = (
    "config",
    "what",
    "steps",
    "gpus",
    "seconds",
    "fold",
    "resume",
    "accept",
    "overwrite",
    "devices_per_fold",
    "on",
    "copy_data",
    "allow_code",
)
# In the usual order of a config.
USUAL = (
    "name",
    "checkpoint",
    "data.root",
    "data.train",
    "data.test",
    "data.sample_submission",
    "data.id",
    "data.image",
    "data.target",
    "data.target_kind",
    "data.image_size",
    "data.augment",
    "data.batch_size",
    "data.folds.num",
    "data.folds.group",
    "data.loading.num_workers",
    "model.backbone",
    "model.pretrained",
    "model.head",
    "model.metrics",
    "model.optim.lr",
    "model.optim.layer_decay",
    "model.ema_decay",
    "trainer.max_epochs",
    "trainer.precision",
    "trainer.devices",
    "predict.views",
)


def short_help(parser: ArgumentParser, purpose: str) -> str:
    """The most used keys, each with the first sentence of its description.

    Args:
        parser: The parser of a config.
        purpose: What the command does.
    """
    actions = {action.dest: action for action in parser._actions}
    lines = [f"usage: {usage(parser)}", "", *_wrapped(purpose, 0), ""]
    lines += [line for key in OWN if key in actions for line in _entry(actions[key])]
    lines += ["", "The most used keys, as options or in the file (`--data.train` is `train:` below `data:`):"]
    lines += [line for key in USUAL if key in actions for line in _entry(actions[key])]
    command = parser.prog
    more = {
        f"{command} --help all": "every key",
        f"{command} --model.head.help CLASS": "the arguments of a class, such as swinft.RegressionHead",
        f"{command} --config FILE --print_config": "the whole config, resolved",
        "swinft metrics": "every metric, defined",
    }
    return "\n".join([*lines, "", "More:", *(f"  {words:<46} {text}" for words, text in more.items()), ""])


class DescriptiveHelpFormatter(DefaultHelpFormatter):
    """Describes values in words instead of Python types."""

    def _get_type_str(self, action: argparse.Action) -> str | None:
        hint = getattr(action, "_typehint", None) or action.type
        return describe_type(hint) or super()._get_type_str(action)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = super()._get_help_string(action).replace("type: %(type)s", "%(type)s")
        return text if action.default is not None else text.replace(", default: %(default)s", "")

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # `--views+` appends to a list: useful in a config, not on a command line. The name of the value is once behind
        # all options from Python 3.13 on, before that behind each.
        return re.sub(r"( \S+)?, --\S+\+", "", super()._format_action_invocation(action))


def describe_type(hint: Any) -> str:
    """Describes the values of a type: `a whole number`, `a, b or c`; empty if there is no such description."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if hint in (int, float, bool, str):
        return WORDS[hint.__name__]
    if origin is typing.Literal:
        return _either([str(member) for member in members])
    if origin in (typing.Union, types.UnionType):
        words = [describe_type(member) for member in members if member is not type(None)]
        either = [word for some in words for word in (some.split(" or ") if some == WORDS["bool"] else [some])]
        return _either(either) if all(words) else ""
    if origin is list and (word := describe_type(members[0])):
        return f"one or several, separated by commas: {word}"
    if origin is tuple and len(members) == 2 and (word := describe_type(members[0])):
        return f"two values, separated by a comma: each {word}"
    return WORDS["dict"] if origin is dict else ""


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def usage(parser: ArgumentParser) -> str:
    """A short usage line, without every option in brackets."""
    return f"{parser.prog} --config FILE [--KEY VALUE ...]"


def hide_sections(parser: ArgumentParser, sections: set[str]) -> None:
    """Hides options that are not supported: whole sections as options."""
    for action in parser._actions:
        if action.dest in sections or action.dest == "print_shtab":
            action.help = argparse.SUPPRESS


def _entry(action: argparse.Action) -> list[str]:
    """The lines of one key."""
    text = re.split(r"(?<=\.)\s", " ".join(str(action.help or "").split()))[0].rstrip(".")
    default = _default(action.default)
    option = f"  --{action.dest}"
    lines = _wrapped(f"{text}{f' (default: {default})' if default else ''}", COLUMN)
    if len(option) < COLUMN - 1:
        return [f"{option:<{COLUMN}}{lines[0].lstrip()}", *lines[1:]]
    return [option, *lines]


def _default(value: Any) -> str:
    if value is None or value is argparse.SUPPRESS or value == []:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _wrapped(text: str, indent: int) -> list[str]:
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    blanks = " " * indent
    return textwrap.wrap(text, max(40, width), initial_indent=blanks, subsequent_indent=blanks) or [blanks]
