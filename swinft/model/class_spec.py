"""Objects of a user's own classes, kept as plain values: the class's path and the arguments it was made with.

A checkpoint is made again from such a description. It comes from a file, so that it names only classes that are loaded
already, and nothing is imported for it.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from swinft.errors import InputError

T = TypeVar("T")
# A name, or a class: in YAML a mapping with `class_path` and `init_args`. In Python also the class itself, or a
# functools.partial of it, which the parser of the command line is not told of: no text stands for them.
if TYPE_CHECKING:
    Named = str | dict[str, Any] | Callable[..., Any]
else:
    Named = str | dict[str, Any]


class InitArgsMixin:
    """An object that keeps the arguments it was made with, for its description in a checkpoint."""

    NUM_SUPPLIED: ClassVar[int] = (
        0  # how many of the first arguments are given by swinft, and are no part of a description
    )
    arguments: dict[str, Any]  # the others

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keeps the arguments."""
        made = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        try:
            given = signature.bind_partial(made, *args, **kwargs).arguments
        except TypeError:  # __init__ says the same in better words
            given = {}
        first = 1 + cls.NUM_SUPPLIED  # self, and what is given
        own = dict(islice(((name, given[name]) for name in given), first, None))
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                own |= own.pop(name, {})
        object.__setattr__(made, "arguments", own)
        return made


def class_path_of(cls: type) -> str:
    """Where a class is defined, as a class path."""
    return f"{cls.__module__}.{cls.__qualname__}"


def to_spec(value: Any, defaults: bool = False) -> Any:
    """A `InitArgsMixin` object, and such objects among its arguments, as mappings with `class_path` and `init_args`.

    Args:
        value: Such an object; anything else is returned as it is.
        defaults: Name arguments that were not given, too, as a run's frozen config does.
    """
    if isinstance(value, InitArgsMixin):
        known = inspect.signature(type(value).__init__).parameters if defaults else {}
        given = {name: each.default for name, each in known.items() if each.default is not each.empty} | value.arguments
        arguments = {name: to_spec(each, defaults) for name, each in given.items()}
        return {"class_path": class_path_of(type(value)), "init_args": arguments}
    return value


def spec_name(description: Any) -> str:
    """A description in a few words: class path and arguments, `tilt.Tilt(degrees=5)`; a name as it is."""
    if not isinstance(description, Mapping):
        return str(description)
    arguments = ", ".join(f"{name}={spec_name(value)}" for name, value in (description.get("init_args") or {}).items())
    return f"{description['class_path']}({arguments})" if arguments else str(description["class_path"])


def load_class(path: str, base: type[T], what: str) -> type[T]:
    """A class by its path, of a module that is loaded already.

    Args:
        path: Module and name, `swinft.ClassificationHead`.
        base: What it must derive from.
        what: How to call it in messages: `the head`.

    Raises:
        InputError: There is no such class, or it is of another kind.
    """
    module, _, name = path.rpartition(".")
    # Not by getattr: packages that load their parts when they are asked for them would do so.
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    found = found if inspect.isclass(found) and issubclass(found, base) else _defined_inside(path, base)
    if found is None:
        raise InputError(
            f"{what} is a '{path}', which is not loaded: import its module first, or give the class. It must be "
            f"derived from {class_path_of(base)}."
        )
    return found


def _defined_inside(path: str, base: type) -> type | None:
    """A class that was defined inside a function or another class, which no name of a module leads to."""
    child: type
    for child in base.__subclasses__():
        found = child if class_path_of(child) == path else _defined_inside(path, child)
        if found is not None:
            return found
    return None


def from_spec(description: Any, base: type[T], what: str) -> Any:
    """Builds the object of a spec, and first the objects of specs among its arguments.

    Args:
        description: A mapping with `class_path` and perhaps `init_args`; anything else is returned as it is.
        base: What the class must derive from.
        what: As of `load_class`.

    Raises:
        InputError: The class is not loaded, or of another kind.
    """
    if not isinstance(description, Mapping) or "class_path" not in description:
        return description
    return load_class(str(description["class_path"]), base, what)(**init_args_of(description))


def init_args_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a spec, with objects built from the specs among them."""
    given = dict(description.get("init_args") or {})
    return {name: from_spec(each, InitArgsMixin, f"argument '{name}'") for name, each in given.items()}


def plain_spec(given: Named, key: str) -> str | dict[str, Any]:
    """A name, or a class with its arguments as a mapping of plain values, from anything that `Named` allows.

    Args:
        given: The setting.
        key: Its dotted key, for messages.

    Raises:
        InputError: It is something else, such as an object or a function, of which no checkpoint could keep anything.
    """
    if isinstance(given, str):
        return given
    cls, keywords = given, {}
    if isinstance(given, functools.partial) and not given.args:
        cls, keywords = given.func, given.keywords
    if inspect.isclass(cls):
        return {"class_path": class_path_of(cls), "init_args": dict(keywords)}
    if isinstance(given, Mapping) and isinstance(given.get("class_path"), str):
        unknown = sorted(set(given) - {"class_path", "init_args"})
        arguments = given.get("init_args") or {}
        if not unknown and isinstance(arguments, Mapping):
            return {"class_path": given["class_path"], "init_args": dict(arguments)}
    said = f"a {type(given).__name__}" if not isinstance(given, Mapping) else f"{dict(given)}"
    raise InputError(
        f"{key} is {said}; it must be a name, or a class: `class_path: MODULE.Class` with its arguments below "
        f"`init_args`, in Python also the class itself or functools.partial(Class, argument=value)."
    )
