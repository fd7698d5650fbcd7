"""Secrets in a config, such as a logger's API key, are never written to the run folder.

A run's config.yaml has `***` instead. The processes of the folds get them in an environment variable, which only the
same user can read; a resumed run needs the original config again.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jsonargparse import Namespace

from swinft.errors import InputError
from swinft.run.config.yaml_text import read_own_yaml, yaml_text

MASK = "***"
VARIABLE = "SWINFT_SECRETS"
NAME = re.compile(r"(^|_)(api_?key|access_?key|auth|credentials?|passw(or)?d|secret|token)s?($|_)", re.IGNORECASE)
IN_URL = re.compile(r"(?<=://)[^/@\s]+:[^/@\s]+(?=@)")  # user:password


def mask(text: str) -> str:
    """A config's YAML with `***` for every secret; the text is unchanged without secrets."""
    config = read_own_yaml(text)
    found = dict(_secrets(config))
    if not found:
        return text
    _replace(config, lambda path, value: _masked(value) if path in found else value)
    return yaml_text(config)


def environment(text: str) -> dict[str, str]:
    """The environment variable with which a fold's process fills a masked config.

    Args:
        text: The config's YAML before masking.
    """
    found = dict(_secrets(read_own_yaml(text)))
    return {VARIABLE: json.dumps(found)} if found else {}


def fill(config: Namespace) -> None:
    """Replaces masked secrets by those in the environment.

    Raises:
        InputError: Secrets are missing; all of them are listed.
    """
    known: Mapping[str, str] = json.loads(os.environ.get(VARIABLE, "{}"))
    _replace(config, lambda path, value: known.get(path, value) if MASK in value else value)
    missing = [path for path, value in _strings(config, "") if MASK in value]
    if missing:
        fix = "A run's config.yaml has no secrets: give the config file that has them, with --resume."
        raise InputError("\n  ".join(["secrets are masked:", *missing, fix]))


def redact(message: str, texts: list[str]) -> str:
    """Masks the secrets of configs in a message.

    Args:
        message: The message.
        texts: The configs' YAML.
    """
    for text in texts:
        for _, secret in _secrets(read_own_yaml(text)):
            message = message.replace(secret, _masked(secret))
    return message


def _masked(value: str) -> str:
    return IN_URL.sub(MASK, value) if IN_URL.search(value) else MASK


def _secrets(config: Any) -> Iterator[tuple[str, str]]:
    """Dotted path and value of every string that is a secret by its key or contains a password in a URL."""
    for path, value in _strings(config, ""):
        if value and value != MASK and (NAME.search(path.rpartition(".")[2]) or IN_URL.search(value)):
            yield path, value


def _strings(node: Any, path: str) -> Iterator[tuple[str, str]]:
    for key, value in _items(node):
        here = f"{path}.{key}".lstrip(".")
        if isinstance(value, str):
            yield here, value
        else:
            yield from _strings(value, here)


def _replace(node: Any, change: Callable[[str, str], str], path: str = "") -> None:
    """Changes every string in place."""
    for key, value in list(_items(node)):
        here = f"{path}.{key}".lstrip(".")
        if not isinstance(value, str):
            _replace(value, change, here)
        elif isinstance(node, Namespace):
            setattr(node, key, change(here, value))
        else:
            node[key] = change(here, value)


def _items(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Namespace):
        yield from vars(node).items()
    elif isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list):
        yield from enumerate(node)
