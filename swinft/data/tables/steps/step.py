"""The interface of all steps, and how built-in ones check their arguments."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd

from swinft.class_spec import InitArgsMixin, class_path_of, signature_of
from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.text import strip
from swinft.errors import InputError, listed, suggest

# Whether a step reads a table (`first`), changes the one so far (`later`), or can do either.
Position = Literal["first", "later", "any"]


class TableStep(InitArgsMixin, ABC):
    """A custom step, which makes a table or changes one. It derives from this class and implements `apply`."""

    @abstractmethod
    def apply(self, frame: pd.DataFrame, root: Path) -> pd.DataFrame:
        """The table after the step.

        Rows that keep their index keep their file and line in error messages.

        Args:
            frame: The table so far: every cell is text, and empty where it is missing; without rows and columns if
                this is the first step.
            root: Folder of the data; another one where rows are predicted with `--root`.

        Returns:
            Rows whose cells are text, NaN or None, with the same result for the same files.
        """


class BuiltinStep(ABC):
    """A step with a word. Its arguments are those of the constructor; the first one can be given alone."""

    word: ClassVar[str]
    """Its key in a list of steps."""

    position: ClassVar[Position] = "later"
    """Where in a list it can be."""

    takes_mapping: ClassVar[bool] = False
    """Whether its first argument is a mapping of any keys."""

    @abstractmethod
    def run(self, frame: Frame, context: Context) -> Frame:
        """The table after the step; what is wrong is appended to the context's problems.

        Args:
            frame: The table so far; without rows and columns for a step that reads one.
            context: Where files are, and where to report.
        """

    def nest(self, key: str, make: Callable[[str, Any], Any]) -> None:
        """Converts the tables among the arguments to steps.

        Args:
            key: The step, as in messages.
            make: Makes the steps of a table, from its key and its value in the config.

        Raises:
            InputError: A nested step is wrong.
        """
        del key, make  # most steps have none

    @classmethod
    def parameters(cls) -> dict[str, inspect.Parameter]:
        """Its arguments by their names in a config; `is_` in Python is `is` there."""
        return {name.rstrip("_"): each for name, each in signature_of(cls).parameters.items()}


class CustomStep(BuiltinStep):
    """Runs a `TableStep`, and checks what it returns.

    Args:
        step: The step.
    """

    position = "any"

    def __init__(self, step: TableStep) -> None:
        self.step = step
        self.word = class_path_of(type(step))  # type: ignore[misc]  # of the object, not of the class

    def run(self, frame: Frame, context: Context) -> Frame:
        """The step's result; rows with a new index come from the step itself.

        Raises:
            InputError: `apply` fails, or returns no usable table, or another one each time.
        """
        found, again = self._applied(frame, context), self._applied(frame, context)
        if not found.equals(again):
            raise InputError(f"{context.where}: `apply` returns another table when it is called again.")
        names = list(found.columns)
        if odd := [name for name in names if not isinstance(name, str) or not name or names.count(name) > 1]:
            raise InputError(f"{context.where}: the column {odd[0]!r} has no unique name that is text.")
        cells = {name: self._cells(name, found[name], context) for name in names}
        known, places = set(frame.places), found.index.tolist()
        made = context.places(self.word, range(1, len(places) + 1))
        return Frame(cells, [old if old in known else new for old, new in zip(places, made, strict=True)])

    def _applied(self, frame: Frame, context: Context) -> pd.DataFrame:
        """What the step returns.

        Raises:
            InputError: It fails, or returns no DataFrame.
        """
        columns = {name: list(cells) for name, cells in frame.columns.items()}
        try:
            given = pd.DataFrame(columns, index=pd.Index(frame.places, dtype="int64"), dtype=object)
            found: Any = self.step.apply(given, context.root)
        except InputError:
            raise
        except Exception as error:  # custom code may raise anything
            raise InputError(f"{context.where}: it fails with {type(error).__name__}: {error}") from error
        if not isinstance(found, pd.DataFrame):
            raise InputError(f"{context.where}: `apply` returns a {type(found).__name__}, and must return a DataFrame.")
        return found

    def _cells(self, name: str, cells: "pd.Series[Any]", context: Context) -> list[str]:
        """A column as text; a missing value is an empty cell.

        Raises:
            InputError: A cell is no text.
        """
        found = []
        for cell in cells.tolist():
            if not isinstance(cell, str) and (not pd.api.types.is_scalar(cell) or not pd.isna(cell)):
                raise InputError(
                    f"{context.where}: column '{name}' contains {type(cell).__name__}, such as {cell!r}, and must be "
                    f"text: '007' is not 7. Read tables with dtype=str, and write numbers with str()."
                )
            found.append(strip(cell) if isinstance(cell, str) else "")
        return found


def built(step: type[BuiltinStep], given: Any) -> BuiltinStep:
    """A built-in step from its arguments.

    Args:
        step: Its class.
        given: The value of its word: a mapping of arguments, or the first argument.

    Raises:
        InputError: An argument is unknown, missing or wrong.
    """
    parameters = step.parameters()
    first, shown = next(iter(parameters)), f"its arguments are {', '.join(parameters)}"
    is_named = isinstance(given, Mapping) and not step.takes_mapping
    arguments = {_name(name): each for name, each in given.items()} if is_named else {first: given}
    if unknown := [name for name in arguments if name not in parameters]:
        raise InputError(f"it has no '{unknown[0]}'.{suggest(str(unknown[0]), parameters)}")
    needed = [name for name, each in parameters.items() if each.default is each.empty and name not in arguments]
    if needed:
        raise InputError(f"it needs {listed(needed)}; {shown}.")
    return step(**{parameters[name].name: each for name, each in arguments.items()})


def _name(key: Any) -> Any:
    return "on" if key is True or key == "true" else key  # YAML reads the key `on` as true, and JSON writes it so


def text(key: str, given: Any) -> str:
    """An argument that is text; a number in a config is the text of its digits.

    Raises:
        InputError: It is not.
    """
    if isinstance(given, int | float) and not isinstance(given, bool):
        return repr(given)
    if not isinstance(given, str):
        quoted = " Put in quotes what YAML reads as another kind of value: 'yes', '2020-01-01'."
        raise InputError(f"{key} is {given!r}; write a text.{'' if isinstance(given, list | Mapping) else quoted}")
    return given


def name(key: str, given: Any) -> str:
    """An argument that is text with at least one character.

    Raises:
        InputError: The text is empty.
    """
    found = text(key, given)
    if not found.strip():
        raise InputError(f"{key} is empty; write a text.")
    return found


def texts(key: str, given: Any) -> list[str]:
    """An argument that is a text, or a list of several.

    Raises:
        InputError: It is neither a text nor a list of different texts.
    """
    if isinstance(given, Mapping) or (isinstance(given, Sequence) and not isinstance(given, str) and not given):
        raise InputError(f"{key} is {given!r}; write a text, or a list of texts.")
    found = [
        text(key, each) for each in ([given] if isinstance(given, str) or not isinstance(given, Sequence) else given)
    ]
    if doubled := sorted({each for each in found if found.count(each) > 1}):
        raise InputError(f"{key} contains '{doubled[0]}' twice.")
    return found


def pairs(key: str, given: Any, example: str) -> dict[str, str]:
    """An argument that maps texts to texts.

    Raises:
        InputError: It is no mapping of texts.
    """
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{key} is {given!r}; write a mapping: {example}.")
    return {text(f"a key of {key}", each): text(f"{key}: '{each}'", value) for each, value in given.items()}


def word(key: str, given: Any, allowed: Sequence[str]) -> str:
    """An argument that is one of several words.

    Raises:
        InputError: It is not one of the allowed words.
    """
    if not isinstance(given, str) or given not in allowed:
        raise InputError(f"{key} is {given!r}.{suggest(str(given), allowed)}")
    return given
