"""The base of the built-in rules: checks of their arguments."""

from collections.abc import Sequence
from typing import Any, get_args

from swinft.errors import InputError, suggest
from swinft.inference.rules.rule import Rule
from swinft.ranges import Range, check_ranges


class BuiltinRule(Rule):
    """A rule with a short name, whose constructor checks its arguments; it refuses outputs that do not exist."""

    _named: tuple[str, ...] = ()  # all outputs that its arguments name

    def refusal(self) -> str:
        """Unknown outputs."""
        unknown = [name for name in dict.fromkeys(self._named) if name not in self.outputs]
        return " ".join(f"there is no output '{name}'.{suggest(name, self.outputs)}" for name in unknown)

    def _texts(self, key: str, given: Any) -> list[str]:
        """An argument that is a list of names, each once.

        Raises:
            InputError: It is not.
        """
        names = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
        if odd := [each for each in names if not isinstance(each, str)]:
            raise InputError(f"{self.name}: {key} contains {odd[0]!r}, which is not text. Put it in quotes.")
        if not names or len(set(names)) < len(names):
            raise InputError(f"{self.name}: {key} is {given!r}. Give a list of names, each once.")
        return names

    def _outputs(self, key: str, given: Any) -> list[str]:
        """An argument that is a list of outputs."""
        names = self._texts(key, given)
        self._named += tuple(names)
        return names

    def _output(self, key: str, given: Any) -> str:
        """An argument that is one output."""
        return self._outputs(key, [given])[0]

    def _number(self, key: str, given: Any, allowed: Range) -> None:
        """Checks an argument that is a number, or None."""
        if given is not None and (isinstance(given, bool) or not isinstance(given, int | float)):
            raise InputError(f"{self.name}: {key} is {given!r}. Give a number.")
        check_ranges(self.name, {key: given}, {key: allowed})

    def _word(self, key: str, given: Any, words: Any) -> None:
        """Checks an argument that is one of several words."""
        if given not in get_args(words):
            raise InputError(f"{self.name}: {key} is {given!r}.{suggest(str(given), get_args(words))}")

    def _flag(self, key: str, given: Any) -> None:
        """Checks an argument that is true or false."""
        if not isinstance(given, bool):
            raise InputError(f"{self.name}: {key} is {given!r}. Give true or false.")

    def _chosen(self, names: Sequence[str] | None) -> list[int]:
        """Positions of some outputs; of all for None."""
        return list(range(len(self.outputs))) if names is None else [self.outputs.index(name) for name in names]
