"""Lines of a proposed config: keys with their values and reasons, and the YAML that they make."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from swinft.run.config.yaml_text import yaml_text

WIDTH = 110
ONE_LINE = 10**9


@dataclass(frozen=True)
class Line:
    """A key of a config.

    Args:
        key: Its dotted name.
        value: Its value.
        why: Why it is proposed, as a sentence without a full stop.
        others: What was weighed besides, one comment line each.
        is_open: It could not be decided, and `why` says what is missing.
        is_comment: It is written as a comment.
    """

    key: str
    value: Any
    why: str = ""
    others: tuple[str, ...] = ()
    is_open: bool = False
    is_comment: bool = False


def to_yaml(title: Sequence[str], lines: Sequence[Line]) -> str:
    """The text of a config: comments at the top, then the keys by section, each below its reason."""
    text = [comment for line in title for comment in _comment(line, "")]
    opened: list[str] = []
    for line in _by_section(lines):
        *sections, name = line.key.split(".")
        for depth, section in enumerate(sections):
            if opened[: depth + 1] != sections[: depth + 1]:
                text.append(f"{'  ' * depth}{section}:")
                opened = sections[: depth + 1]
        opened = sections
        indent = "  " * len(sections)
        for comment in (line.why, *line.others):
            text += _comment(comment, indent) if comment else []
        written = _entry(name, line.value, indent)
        text += [f"{indent}# {each[len(indent) :]}" for each in written] if line.is_comment else written
    return "\n".join(text) + "\n"


def _by_section(lines: Sequence[Line]) -> list[Line]:
    """The lines with those of each section together, in the order in which sections first occur."""
    order: dict[str, int] = {}
    for line in lines:
        parts = line.key.split(".")
        for depth in range(1, len(parts)):
            order.setdefault(".".join(parts[:depth]), len(order))

    def place(line: Line) -> tuple[int, ...]:
        parts = line.key.split(".")[:-1]
        # A section's own keys come before those of its sections.
        return tuple(order[".".join(parts[:depth])] for depth in range(1, len(parts) + 1)) or (-1,)

    return sorted(lines, key=place)


def _comment(text: str, indent: str) -> Iterable[str]:
    """A text as comment lines; blanks at its start stay."""
    start = f"{indent}# {' ' * (len(text) - len(text.lstrip()))}"
    words = " ".join(text.split())
    if not words:
        return [f"{indent}#"]
    return textwrap.wrap(words, WIDTH, initial_indent=start, subsequent_indent=f"{start}  ",
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _entry(name: str, value: Any, indent: str) -> list[str]:
    """A key with its value; lists of mappings as a block of one line each."""
    flow = _flow(value)
    are_steps = isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
    is_long = len(flow) + len(indent) + len(name) > WIDTH and isinstance(value, list)
    if are_steps or (is_long and any(isinstance(each, dict) for each in value)):
        return [f"{indent}{_flow(name)}:", *(line for each in value for line in _item(each, indent))]
    if isinstance(value, dict) and value and name in ("head", "target_kind"):
        block = yaml_text({name: value}, width=ONE_LINE)
        return [indent + line for line in block.splitlines()]
    if is_long:
        return _wrapped(f"{indent}{_flow(name)}: ", value)
    return [f"{indent}{_flow(name)}: {flow}"]


def _item(value: Any, indent: str) -> list[str]:
    """An item of a list, on one line where it fits."""
    flow = f"{indent}- {_flow(value)}"
    if len(flow) <= WIDTH:
        return [flow]
    block = yaml_text([value], flow=None, width=ONE_LINE)
    return [indent + line for line in block.splitlines()]


def _wrapped(start: str, values: list[Any]) -> list[str]:
    """A long list on several lines."""
    lines, line = [], start + "["
    for place, value in enumerate(values):
        word = _flow(value) + ("]" if place == len(values) - 1 else ",")
        if len(line) + len(word) > WIDTH and line.strip() != start.strip() + "[":
            lines.append(line.rstrip())
            line = " " * (len(start) + 1)
        line += word + " "
    return [*lines, line.rstrip()]


def _flow(value: Any) -> str:
    """A value as one line of YAML."""
    if value is None:
        return "null"
    text = yaml_text(value, flow=True, width=ONE_LINE)
    return text.strip().removesuffix("\n...").strip()
