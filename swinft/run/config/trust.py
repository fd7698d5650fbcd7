"""What a config may name: classes of trusted packages, each of the kind that its key takes, and nothing else.

Naming a class imports its module, and building it calls it: a config or a run from elsewhere must not run what its
reader did not ask for. There are two checks. The parser imports nothing but `Parser.packages`, on whatever road a name
reaches it: a file, an option, the environment. `check_named` looks at what the parser understood, before anything is
built: every class has the base that its key allows, and every other value is plain data.
"""

import importlib
import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from enum import Enum
from pathlib import PurePath
from types import ModuleType
from typing import Any

from albumentations import BaseCompose, BasicTransform
from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from swinft.data.sampling import Sampler
from swinft.data.sources.source import Source
from swinft.data.target.kinds import KINDS
from swinft.errors import InputError, suggest
from swinft.inference.tta import View
from swinft.model.heads import Head
from swinft.model.metrics import Metric
from swinft.model.pooling import Pooling
from swinft.run.config.callbacks import refusal
from swinft.run.config.explain import untrusted
from swinft.run.submission.formats import SubmissionFormat
from swinft.system.processes import add_parent_import_paths

TRUSTED_PACKAGES = ("swinft", "albumentations", "lightning", "timm", "torch", "torchmetrics", "torchvision")
# The keys that take a class, with the bases that it may have.
BASES: dict[str, tuple[type, ...]] = {
    "data.augment": (BasicTransform, BaseCompose),
    "data.loading.preprocess": (BasicTransform, BaseCompose),
    "data.loading.sampler": (Sampler,),
    "data.loading.source": (Source,),
    "data.loading.test_source": (Source,),
    "data.target_kind": KINDS,
    "model.backbone": (nn.Module,),
    "model.head": (Head,),
    "model.metrics": (Metric,),
    "model.optim.name": (Optimizer,),
    "model.optim.schedule": (LRScheduler,),
    "model.pooling": (Pooling,),
    "predict.views": (View,),
    "submission.format": (SubmissionFormat,),
    "trainer.accelerator": (Accelerator,),
    "trainer.callbacks": (Callback,),
    "trainer.logger": (Logger,),
    "trainer.profiler": (Profiler,),
    "trainer.strategy": (Strategy,),
}
PLAIN = (type(None), bool, int, float, str, bytes, Enum, PurePath, timedelta)
LONGEST = 250  # characters of a class path
GIVEN_TO_HEADS = ("in_features", "num_outputs")  # by the backbone and by the target


def check_allowed(names: Sequence[str]) -> None:
    """Checks the names of `--allow-code`.

    Raises:
        InputError: One is no dotted name.
    """
    wrong = [name for name in names if not _is_dotted(name) or name.split(".")[0] == "jsonargparse"]
    if wrong:
        raise InputError(f"--allow-code takes names of packages or modules, as in `import {wrong[0]}`: not {wrong}.")


def check_named(config: Namespace, allow_code: Sequence[str]) -> None:
    """Checks everything that a parsed config names, before any of it is built.

    Raises:
        InputError: A class is not of the kind that its key takes, or a value is a function, a class or a module; all
            are listed.
    """
    problems = list(_named_problems(config, "", (), allow_code))
    if problems:
        raise InputError("\n  ".join(["the config is wrong:", *problems]))


def class_problem(name: str, key: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> str | None:
    """What is wrong with a class path, as a sentence; None for a class that the key may name.

    Nothing is imported that may not be named.

    Args:
        name: The dotted path, or the bare name of a class that is known.
        key: Where it stands.
        bases: The classes that it may derive from.
        allow_code: Packages or modules whose classes may be named, besides the trusted ones.
    """
    if len(name) > LONGEST:
        return f"'{name[:80]}…' is no class path."
    found = _find(name, bases, allow_code)
    if isinstance(found, str):
        return found
    wanted = " or ".join(f"{base.__module__.split('.')[0]}'s {base.__name__}" for base in bases)
    if not bases:
        return f"{key} takes no class: write a plain value instead of '{name}'."
    if not inspect.isclass(found):
        return f"'{name}' is {_kind(found)}, not a class: {key} takes a class derived from {wanted}."
    if not issubclass(found, bases):
        return (
            f"'{name}' is no {' or '.join(base.__name__ for base in bases)}: {key} takes a class derived from {wanted}."
        )
    refused = refusal(found)
    if refused:
        return f"{name} is refused: {refused}"
    if not _may_name(found, allow_code):
        return f"'{name}' is defined in '{found.__module__}'. If you trust it, add --allow-code {found.__module__}."
    return None


def named_class(name: str, key: str, allow_code: Sequence[str]) -> Any:
    """The class at a path, of the kind that a key takes.

    Args:
        name: The dotted path.
        key: One of `BASES`.
        allow_code: As in `class_problem`.

    Raises:
        InputError: The key may not name it.
    """
    check_allowed(allow_code)
    if allow_code:
        add_parent_import_paths()
    if problem := class_problem(name, key, BASES[key], allow_code):
        raise InputError(f"{key}: {problem}")
    return _find(name, BASES[key], allow_code)


def built_by_name(name: str, key: str, option: str, allow_code: Sequence[str]) -> Any:
    """An object of a class that an option of a command names, where there is no room for arguments.

    Args:
        name: As in `named_class`.
        key: As in `named_class`.
        option: The option.
        allow_code: As in `class_problem`.

    Raises:
        InputError: The key may not name it, or it needs arguments.
    """
    cls = named_class(name, key, allow_code)
    try:
        return cls()
    except TypeError as error:
        raise InputError(f"{option} {name}: {error}. Name it in {key} of the config, with init_args.") from error


def argument_bases(name: str, argument: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> tuple[type, ...]:
    """The classes that an argument of a class takes by its annotation; empty where it takes none, or anything.

    Args:
        name: A class path without a problem.
        argument: One of the class's arguments.
        bases: As in `class_problem`.
        allow_code: As in `class_problem`.
    """
    cls = _find(name, bases, allow_code)
    for owner in inspect.getmro(cls) if inspect.isclass(cls) else ():
        init = vars(owner).get("__init__")
        if init is not None and argument in inspect.signature(init).parameters:
            try:
                hint = typing.get_type_hints(init).get(argument)
            except (NameError, TypeError):  # annotations that exist for type checkers only
                return ()
            return tuple({found: None for found in _classes_in(hint) if _may_name(found, allow_code)})
    return ()


def arguments_of(name: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> list[str]:
    """What a class takes by keyword in YAML; empty where it takes anything. Arguments as in `argument_bases`."""
    cls = _find(name, bases, allow_code)
    parameters = inspect.signature(cls).parameters.values() if inspect.isclass(cls) else []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return []
    return [parameter.name for parameter in parameters if parameter.name not in GIVEN_TO_HEADS]


def _named_problems(value: Any, key: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> Iterator[str]:
    """Problems of one value and everything in it."""
    items = value.__dict__ if isinstance(value, Namespace) else value
    if isinstance(items, dict) and "class_path" in items:
        name = str(items["class_path"])
        problem = class_problem(name, key, bases, allow_code)
        if problem:
            yield f"{key}: {problem}"
            return
        for part in ("init_args", "dict_kwargs"):
            given = items.get(part) or {}
            for argument, inner in (given.__dict__ if isinstance(given, Namespace) else given).items():
                yield from _named_problems(
                    inner, f"{key}.{part}.{argument}", argument_bases(name, argument, bases, allow_code), allow_code
                )
    elif isinstance(items, dict):
        for name, inner in items.items():
            here = f"{key}.{name}".lstrip(".")
            yield from _named_problems(inner, here, BASES.get(here, bases), allow_code)
    elif isinstance(items, list | tuple | set):
        for inner in items:
            yield from _named_problems(inner, key, bases, allow_code)
    elif not isinstance(items, PLAIN):
        yield f"{key} is {_kind(items)}: a config holds plain values and classes of the kind that the key takes."


def _find(name: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> Any:
    """The object at a path, or a sentence that says why there is none."""
    if "." not in name:
        known = {cls.__name__: cls for base in bases for cls in _subclasses(base) if _may_name(cls, allow_code)}
        return known.get(name, f"'{name}' is no known class; write its whole path.{suggest(name, known)}")
    module, _, attribute = name.rpartition(".")
    if not _is_trusted(name, allow_code):
        return untrusted(name)
    if not _is_dotted(name) or any(part.startswith("_") for part in name.split(".")):
        return f"'{name}' is no public name."
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        return f"class_path '{name}' cannot be imported: {error}."
    if not hasattr(found, attribute):
        return f"'{module}' has no '{attribute}'.{suggest(attribute, _offered(found, bases))}"
    return getattr(found, attribute)


def _offered(module: ModuleType, bases: tuple[type, ...]) -> list[str]:
    """The public classes of a module that a key may name; also those that are imported when they are first used."""
    named = {name: getattr(module, name, None) for name in dir(module) if not name.startswith("_")}
    return [name for name, value in named.items() if inspect.isclass(value) and issubclass(value, bases)]


def _classes_in(hint: Any) -> Iterator[type]:
    """The classes that a value of an annotation may be built from; functions and classes themselves are none."""
    origin = typing.get_origin(hint)
    if origin in (Callable, type):
        return
    for argument in typing.get_args(hint):
        yield from _classes_in(argument)
    if origin is None and inspect.isclass(hint):
        yield hint


def _subclasses(base: type) -> Iterator[type]:
    cls: type
    for cls in base.__subclasses__():
        yield cls
        yield from _subclasses(cls)


def _may_name(cls: type, allow_code: Sequence[str]) -> bool:
    """Whether the class is defined where it may be named: packages re-export what they import."""
    return _is_trusted(f"{cls.__module__}.{cls.__qualname__}", allow_code)


def _is_trusted(name: str, allow_code: Sequence[str]) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in (*TRUSTED_PACKAGES, *allow_code))


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _kind(value: Any) -> str:
    if inspect.ismodule(value):
        return "a module"
    if inspect.isclass(value):
        return "another kind of class"
    return "a function" if callable(value) else f"a {type(value).__name__}"
