"""Specs: an object of a custom class as plain values, its `class_path` and `init_args`, and built again from them.

Checkpoints store specs. A spec comes from a file, so it may only name classes that are already loaded; nothing is
imported for it.
"""

import contextlib
import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from swinft.errors import InputError, suggest

T = TypeVar("T")
# A name, or a class: in YAML a mapping with `class_path` and `init_args`. In Python also the class itself or a
# functools.partial of it. The command line's parser does not know these two, which cannot be written as text.
if TYPE_CHECKING:
    Named = str | dict[str, Any] | Callable[..., Any]
    AsWritten = Any
else:
    Named = str | dict[str, Any]

    class AsWritten:
        """A value that the parser of configs takes as YAML reads it: of `Any` it would read the text '007' as 7."""


@functools.lru_cache(maxsize=256)  # a search on a metric copies it thousands of times
def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function, kept."""
    return inspect.signature(function)


class InitArgsMixin:
    """Base of objects that store the arguments they were created with, for their spec in a checkpoint."""

    NUM_SUPPLIED: ClassVar[int] = 0  # leading arguments that swinft supplies: not part of the spec
    arguments: dict[str, Any]  # all other arguments

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Stores the arguments."""
        made = super().__new__(cls)
        signature = _signature_of(cls.__init__)
        try:
            given = signature.bind_partial(made, *args, **kwargs).arguments
        except TypeError:  # __init__ raises a clearer error
            given = {}
        first = 1 + cls.NUM_SUPPLIED  # self, and what swinft supplies
        own = dict(islice(((name, given[name]) for name in given), first, None))
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                own |= own.pop(name, {})
        object.__setattr__(made, "arguments", own)
        return made


def signature_of(cls: type) -> inspect.Signature:
    """The arguments with which an object of a class is made.

    Where a class inherits its constructor, `inspect.signature` of Python 3.11.2 takes those of `InitArgsMixin.__new__`.
    """
    if not issubclass(cls, InitArgsMixin):
        return inspect.signature(cls)
    signature = _signature_of(cls.__init__)
    return signature.replace(parameters=[*signature.parameters.values()][1:])


def class_path_of(cls: type) -> str:
    """The class path of a class: its module and name."""
    return f"{cls.__module__}.{cls.__qualname__}"


@contextlib.contextmanager
def errors_of(what: str) -> Iterator[None]:
    """Turns what custom code raises inside the block into an error of the user's.

    Args:
        what: What fails, the start of the message: `model.head cannot be built`.

    Raises:
        InputError: It raised something.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # custom code may raise anything
        if type(error).__name__ == "OutOfMemoryError":  # of a GPU: it is reported elsewhere
            raise
        raise InputError(f"{what}: {type(error).__name__}: {error}") from error


def check_initialized(made: Any, what: str, attribute: str = "_modules") -> None:
    """Checks that the constructor of a custom class has called that of its base class.

    Args:
        made: The object.
        what: Its name in the message.
        attribute: One that the base class sets; by default that of torch's modules.

    Raises:
        InputError: It has not.
    """
    if attribute not in vars(made):
        raise InputError(f"{what}: {type(made).__name__}.__init__ does not call super().__init__().")


def line_of(error: BaseException, modules: Sequence[str]) -> str:
    """The innermost line of some modules, or of modules in these packages, in a traceback: `focal.py:12 (forward)`."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        name = str(frame.f_globals.get("__name__"))
        if any(name == module or name.startswith(f"{module}.") for module in modules):
            code = frame.f_code
            return f"{Path(code.co_filename).name}:{frame.f_lineno} ({code.co_name})"
    return ""


def to_spec(value: Any, defaults: bool = False) -> Any:
    """The spec of an object, and of the objects among its arguments: mappings with `class_path` and `init_args`.

    Args:
        value: An `InitArgsMixin` object; anything else is returned unchanged.
        defaults: Also include arguments at their defaults, as a run's frozen config does.
    """
    if isinstance(value, InitArgsMixin):
        known = inspect.signature(type(value).__init__).parameters if defaults else {}
        given = {name: each.default for name, each in known.items() if each.default is not each.empty} | value.arguments
        arguments = {name: to_spec(each, defaults) for name, each in given.items()}
        return {"class_path": class_path_of(type(value)), "init_args": arguments}
    return value


def spec_name(spec: Any) -> str:
    """A spec in one line: class path and arguments, `tilt.Tilt(degrees=5)`; names and other values as text."""
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        return str(spec)
    arguments = ", ".join(f"{name}={spec_name(value)}" for name, value in (spec.get("init_args") or {}).items())
    return f"{spec['class_path']}({arguments})" if arguments else str(spec["class_path"])


def load_class(path: str, base: type[T], what: str) -> type[T]:
    """A class by its path, from a module that is already loaded.

    Args:
        path: Module and name, `swinft.ClassificationHead`.
        base: Its required base class.
        what: Its name in messages, such as `the head`.

    Raises:
        InputError: There is no such class, or it does not derive from `base`.
    """
    module, _, name = path.rpartition(".")
    # Not getattr: it would import the submodules of packages that import lazily. Those of swinft itself may be.
    loaded = sys.modules.get(module)
    found = getattr(loaded, name, None) if module == "swinft" else vars(loaded).get(name) if loaded else None
    found = found if inspect.isclass(found) and issubclass(found, base) else _defined_inside(path, base)
    if found is None:
        raise InputError(
            f"{what} is a '{path}', which is not loaded: import its module first, or give the class. It must be "
            f"derived from {class_path_of(base)}."
        )
    return found


def _defined_inside(path: str, base: type) -> type | None:
    """A class defined inside a function or another class, which is not an attribute of its module."""
    child: type
    for child in base.__subclasses__():
        found = child if class_path_of(child) == path else _defined_inside(path, child)
        if found is not None:
            return found
    return None


def from_spec(spec: Any, base: type[T], what: str) -> Any:
    """Builds the object of a spec, and first the objects of specs among its arguments.

    Args:
        spec: A mapping with `class_path` and perhaps `init_args`; anything else is returned unchanged.
        base: The required base class.
        what: As for `load_class`.

    Raises:
        InputError: The class is not loaded, or does not derive from `base`.
    """
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        return spec
    cls, arguments = load_class(str(spec["class_path"]), base, what), init_args_of(spec)
    with errors_of(f"{what} is a {spec['class_path']}, which cannot be built with {arguments or 'no arguments'}"):
        return cls(**arguments)


def init_args_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a spec, with objects built from the specs among them."""
    given = dict(spec.get("init_args") or {})
    return {name: from_spec(each, InitArgsMixin, f"argument '{name}'") for name, each in given.items()}


def from_word(given: Any, known: Mapping[str, type[T]], what: str) -> T:
    """Builds an object from its name, or from a mapping of the name to its arguments: `{"clip": {"min": 0}}`.

    Args:
        given: The name, or the mapping.
        known: Classes by name.
        what: What they are, for messages: `rule`.

    Raises:
        InputError: There is no such name, or the arguments are wrong.
    """
    if isinstance(given, Mapping) and len(given) != 1:
        raise InputError(
            f"it has the names {', '.join(map(str, given)) or f'of no {what}'}: write one {what} per entry."
        )
    name, arguments = next(iter(given.items())) if isinstance(given, Mapping) else (given, {})
    if not isinstance(name, str) or name not in known:
        raise InputError(f"'{name}' is not a {what}.{suggest(str(name), known)}")
    parameters = parameters_of(known[name])
    shown = f"its arguments are {', '.join(parameters)}" if parameters else "it has no arguments"
    if not isinstance(arguments or {}, Mapping):
        raise InputError(f"{name} is given {arguments!r}; {shown}.")
    given_names = list(map(str, arguments or {}))
    if unknown := [each for each in given_names if each not in parameters]:
        raise InputError(f"{name} has no '{unknown[0]}'.{suggest(unknown[0], parameters)}")
    needed = [each for each, one in parameters.items() if one.default is one.empty and each not in given_names]
    if needed:
        raise InputError(f"{name} needs {' and '.join(needed)}; {shown}.")
    return known[name](**(arguments or {}))


def parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class by name; a class without a constructor of its own has none."""
    found = signature_of(cls).parameters
    return {name: each for name, each in found.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}


def plain_spec(given: Named, key: str) -> str | dict[str, Any]:
    """A name unchanged, or the spec of a class, from any form of `Named`.

    Args:
        given: The value of the setting.
        key: Its dotted key, for messages.

    Raises:
        InputError: It is anything else, such as an object or a function, which a checkpoint could not store.
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
