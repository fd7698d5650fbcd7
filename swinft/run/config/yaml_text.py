"""Reads and writes YAML as the parser of configs does: it reads `1e5` as a number, which PyYAML takes for text."""

import re
from typing import Any

import yaml

EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")  # PyYAML wants a dot and a sign in it


class _Dumper(yaml.SafeDumper):
    """A dumper of its own, so that the representer of text is not that of other programs."""


def _represent(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if EXPONENT.fullmatch(text) else None)


_Dumper.add_representer(str, _represent)


class _Loader(yaml.SafeLoader):
    """A loader of its own, so that the numbers of other programs stay as they are."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"^(?:{EXPONENT.pattern})$"), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """Plain values of YAML in which `1e-5` is a number.

    Raises:
        yaml.YAMLError: It is not valid YAML.
    """
    return yaml.load(text, Loader=_Loader)


# libyaml's parser is ten times as fast. Nesting without an end overflows its stack, and it words errors in its own way:
# a user's file is read by PyYAML's own first.
_Fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_own_yaml(text: str) -> Any:
    """Plain values of YAML that swinft wrote, such as a frozen config; fast.

    Raises:
        yaml.YAMLError: It is not valid YAML.
    """
    return yaml.load(text, Loader=_Fast)


def yaml_text(value: Any, flow: bool | None = False, width: float | None = None) -> str:
    """Plain values as YAML in which text like `1e5` has quotes; keys keep their order.

    Args:
        value: Text, numbers, lists and dictionaries.
        flow: Whether lists and dictionaries are written on one line; None for the innermost ones only.
        width: Longest line; None for PyYAML's.

    Raises:
        yaml.YAMLError: A value is not plain.
    """
    layout: dict[str, Any] = {"default_flow_style": flow} | ({} if width is None else {"width": width})
    return str(yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, **layout))
