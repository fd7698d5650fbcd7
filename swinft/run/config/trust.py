"""Which classes a config may name: classes of trusted packages that derive from the base class of their key.

Naming a class imports its module and calls it. A config or run from elsewhere must not execute code without the user's
consent. There are two checks. The parser imports only from `Parser.packages`, whether a name comes from a file, an
option or the environment. Before anything is instantiated, `check_named` checks the parsed config: every class has the
base class that its key requires, and every other value is plain data.
"""

import importlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from pathlib import PurePath
from types import ModuleType
from typing import Any

import timm
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

from swinft.class_spec import signature_of
from swinft.data.sampling import Sampler
from swinft.data.sources.source import Source
from swinft.data.tables.steps.step import TableStep
from swinft.data.target.kinds import KINDS
from swinft.errors import InputError, suggest
from swinft.inference.rules.rule import Rule
from swinft.inference.tta import View
from swinft.model.fusion import Fusion
from swinft.model.heads import Head
from swinft.model.metrics import Metric
from swinft.model.pooling import Pooling
from swinft.run.config.callbacks import refusal
from swinft.run.config.explain import untrusted
from swinft.run.submission.formats import SubmissionFormat
from swinft.system.import_paths import add_parent_import_paths

TRUSTED_PACKAGES = ("swinft", "albumentations", "lightning", "timm", "torch", "torchmetrics", "torchvision")
# The keys of tables: a path, which is never a class, or steps, which may also be inside of other steps.
TABLES = ("data.train", "data.test", "data.sample_submission", "data.folds.extra.table")
# The keys that accept a class, with its allowed base classes.
BASES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(TABLES, (TableStep,)),
    "data.augment": (BasicTransform, BaseCompose),
    "data.columns.auxiliary.head": (Head,),
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
    "model.pooling.images": (Fusion,),
    "model.pooling.positions": (Pooling,),
    "predict.views": (View,),
    "submission.format": (SubmissionFormat,),
    "submission.rules": (Rule,),
    "trainer.accelerator": (Accelerator,),
    "trainer.callbacks": (Callback,),
    "trainer.logger": (Logger,),
    "trainer.profiler": (Profiler,),
    "trainer.strategy": (Strategy,),
}
USABLE_BASES = ("data.target_kind", "trainer.callbacks")  # keys whose base classes do something themselves, or nothing
PLAIN = (type(None), bool, int, float, str, bytes, Enum, PurePath, timedelta)
LONGEST = 250  # characters of a class path
GIVEN_TO_HEADS = ("in_features", "num_outputs")  # set from the backbone and the target


def check_allowed(names: Sequence[str]) -> None:
    """Checks the names of `--allow-code`.

    Raises:
        InputError: One is not a dotted name.
    """
    wrong = [name for name in names if not _is_dotted(name) or name.split(".")[0] == "jsonargparse"]
    if wrong:
        raise InputError(f"--allow-code takes names of packages or modules, as in `import {wrong[0]}`: not {wrong}.")


def is_no_class(key: str, name: str) -> bool:
    """Whether a dotted text is no class path but a file, or a model of timm with a tag, as `resnet50.a1_in1k`."""
    return key in TABLES or (key == "model.backbone" and bool(timm.is_model(name.partition(".")[0])))


def bases_of(key: str) -> tuple[type, ...]:
    """The base classes that a key allows; none if it accepts no class."""
    table = next((table for table in TABLES if key.startswith(f"{table}.")), key)
    return BASES.get(key, BASES.get(table, ()) if table != key else ())


def check_named(config: Namespace, allow_code: Sequence[str]) -> None:
    """Checks every class and value of a parsed config, before anything is instantiated.

    Raises:
        InputError: A class lacks the base class of its key, or a value is a function, a class or a module; all are
            listed.
    """
    problems = list(_named_problems(config, "", (), allow_code))
    if problems:
        raise InputError("\n  ".join(["the config is wrong:", *problems]), problems)


def class_problem(name: str, key: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> str | None:
    """The problem of a class path, as a sentence; None for an allowed class.

    Only allowed modules are imported.

    Args:
        name: The dotted path, or the short name of a known class.
        key: The key of the config.
        bases: The allowed base classes.
        allow_code: Packages or modules whose classes may be named, besides the trusted ones.
    """
    if len(name) > LONGEST:
        return f"'{name[:80]}…' is not a class path."
    found = _find(name, bases, allow_code)
    if isinstance(found, str):
        return found
    wanted = " or ".join(f"{base.__module__.split('.')[0]}'s {base.__name__}" for base in bases)
    if not bases:
        return f"{key} does not accept a class: write a plain value instead of '{name}'."
    if not inspect.isclass(found):
        return f"'{name}' is {_kind(found)}, not a class: {key} needs a class derived from {wanted}."
    if not issubclass(found, bases):
        return f"'{name}' has the wrong type: {key} needs a class derived from {wanted}."
    if lacking := sorted(getattr(found, "__abstractmethods__", ())):
        return f"'{name}' is only a base for other classes: it does not define {', '.join(lacking)}."
    is_base = found in BASES.get(key, ()) and key not in USABLE_BASES  # an argument's base may do something itself
    if is_base or (issubclass(found, Head) and not hasattr(found, "kind")):
        return f"'{name}' is only a base for other classes: name one that derives from it."
    refused = refusal(found)
    if refused:
        return f"{name} is refused: {refused}"
    if not _may_name(found, allow_code):
        return f"'{name}' is defined in '{found.__module__}'. If you trust it, add --allow-code {found.__module__}."
    return None


def named_class(name: str, key: str, allow_code: Sequence[str]) -> Any:
    """The class at a path, checked for a key.

    Args:
        name: The dotted path.
        key: One of `BASES`.
        allow_code: As in `class_problem`.

    Raises:
        InputError: The class is not allowed for this key.
    """
    check_allowed(allow_code)
    if allow_code:
        add_parent_import_paths()
    if problem := class_problem(name, key, BASES[key], allow_code):
        raise InputError(f"{key}: {problem}")
    return _find(name, BASES[key], allow_code)


def import_steps(data: Mapping[str, Any], keys: Sequence[str], allow_code: Sequence[str]) -> None:
    """Imports the custom steps of tables, for a command that reads a frozen config without building its objects.

    Args:
        data: The section `data`.
        keys: Its keys, such as `sample_submission`.
        allow_code: As in `class_problem`.

    Raises:
        InputError: A class is not allowed.
    """
    for key in keys:
        for name in _class_paths(data[key]):
            named_class(name, f"data.{key}", allow_code)


def _class_paths(given: Any) -> Iterator[str]:
    """The class paths anywhere in the value of a config's key."""
    if isinstance(given, Mapping):
        if "class_path" in given:
            yield str(given["class_path"])
            return
        given = list(given.values())
    for each in given if isinstance(given, list) else ():
        yield from _class_paths(each)


def built_by_name(name: str, key: str, option: str, allow_code: Sequence[str]) -> Any:
    """Instantiates a class named by an option of a command, without arguments.

    Args:
        name: As in `named_class`.
        key: As in `named_class`.
        option: The option.
        allow_code: As in `class_problem`.

    Raises:
        InputError: The class is not allowed for this key, or needs arguments.
    """
    cls = named_class(name, key, allow_code)
    try:
        return cls()
    except TypeError as error:
        raise InputError(f"{option} {name}: {error}. Name it in {key} of the config, with init_args.") from error


def argument_bases(name: str, argument: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> tuple[type, ...]:
    """The classes in the annotation of a class's argument; empty if it has none, or accepts anything.

    Args:
        name: An allowed class path.
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
            except (NameError, TypeError):  # annotations that only exist for type checkers
                return ()
            return tuple({found: None for found in _classes_in(hint) if _may_name(found, allow_code)})
    return ()


def arguments_of(name: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> list[str]:
    """Names of a class's arguments in YAML; empty if it accepts any. Parameters as in `argument_bases`."""
    cls = _find(name, bases, allow_code)
    parameters = signature_of(cls).parameters.values() if inspect.isclass(cls) else []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return []
    return [parameter.name for parameter in parameters if parameter.name not in GIVEN_TO_HEADS]


def _named_problems(value: Any, key: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> Iterator[str]:
    """Problems of a value and everything inside it."""
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
        yield f"{key} is {_kind(items)}. Allowed in a config: plain values, and classes where the key accepts them."


def _find(name: str, bases: tuple[type, ...], allow_code: Sequence[str]) -> Any:
    """The object at a path, or the reason why it is not found, as a sentence."""
    if "." not in name:
        known = {cls.__name__: cls for base in bases for cls in _subclasses(base) if _may_name(cls, allow_code)}
        return known.get(name, f"'{name}' is not a known class; write its full path.{suggest(name, known)}")
    module, _, attribute = name.rpartition(".")
    if not _is_trusted(name, allow_code):
        return untrusted(name)
    if module == "__main__":
        return f"'{name}' cannot be imported by other processes: save it in a module, such as mine.{attribute}."
    if not _is_dotted(name) or any(part.startswith("_") for part in name.split(".")):
        return f"'{name}' is not a public name."
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        return f"class_path '{name}' cannot be imported: {error}."
    except Exception as error:  # a user's module may raise anything
        return f"class_path '{name}' cannot be imported: {type(error).__name__}: {error}."
    if not hasattr(found, attribute):
        return f"'{module}' has no '{attribute}'.{suggest(attribute, _public_classes(found, bases))}"
    return getattr(found, attribute)


def _public_classes(module: ModuleType, bases: tuple[type, ...]) -> list[str]:
    """The public classes of a module that are allowed for a key; also those that the module imports lazily."""
    named = {name: getattr(module, name, None) for name in dir(module) if not name.startswith("_")}
    return [name for name, value in named.items() if inspect.isclass(value) and issubclass(value, bases)]


def _classes_in(hint: Any) -> Iterator[type]:
    """The classes in an annotation, except those of `Callable` and `type`."""
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
    """Whether the class is defined in an allowed module: packages re-export classes of others."""
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
