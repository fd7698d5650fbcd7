"""Docstrings and code: the arguments that they name exist, and the errors that a function raises are named."""

import ast
import builtins
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PATHS = sorted((ROOT / "swinft").rglob("*.py"))
HEADING = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
# Of Python's protocols, or said by the kind of function.
UNSAID = {"AttributeError", "NotImplementedError", "StopIteration", "SystemExit"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def ancestors() -> dict[str, set[str]]:
    """The bases of every class of the package, by name, those of Python included."""
    nodes = [node for path in PATHS for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    direct = {node.name: {name_of(base) for base in node.bases} for node in nodes}

    def all_of(name: str) -> set[str]:
        known = getattr(builtins, name, None)
        own = {each.__name__ for each in known.__mro__} if isinstance(known, type) else set()
        return {name, *own}.union(*(all_of(base) for base in direct.get(name, set()) if base != name))

    return {name: all_of(name) for name in [*direct, *dir(builtins)]}


def name_of(node: ast.AST | None) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def section(node: ast.AST, title: str) -> set[str]:
    """The names that a section of the docstring explains."""
    found, now = set(), ""
    for line in (ast.get_docstring(node) or "").splitlines():
        if heading := HEADING.match(line):
            now = heading[1]
        elif line and not line.startswith(" "):
            now = ""
        elif now == title and (entry := re.match(r" {4}([*\w., ]+?)(?: \([^)]*\))?:", line)):
            found |= {name.strip("* ") for name in entry[1].split(",")}
    return found


@dataclass
class Raising:
    """What a function raises itself, and which private functions it calls, with what is caught around them."""

    raised: set[str] = field(default_factory=set)
    called: set[tuple[str, frozenset[str]]] = field(default_factory=set)

    @classmethod
    def of(cls, function: ast.FunctionDef) -> "Raising":
        found = cls()
        for statement in function.body:
            found.visit(statement, frozenset())
        return found

    def visit(self, node: ast.AST, caught: frozenset[str]) -> None:
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            return
        inner = caught
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
                inner |= {name_of(each) or "BaseException" for each in types}
            for statement in node.body:
                self.visit(statement, inner)
            for other in [*node.handlers, *node.orelse, *node.finalbody]:
                self.visit(other, caught)
            return
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and name_of(node.exc)[:1].isupper():
            self.raised |= passed({name_of(node.exc)}, caught)
        if isinstance(node, ast.Call) and re.match("_[a-z]", name_of(node)):
            self.called.add((name_of(node), caught))
        for child in ast.iter_child_nodes(node):
            self.visit(child, caught)


def passed(raised: set[str], caught: set[str] | frozenset[str]) -> set[str]:
    """Those that no handler, or no section, of these names is for."""
    return {name for name in raised if not ancestors().get(name, {name}) & caught}


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    """All functions of a module with their class; not those within functions."""
    for owner in [tree_of(path), *(node for node in tree_of(path).body if isinstance(node, ast.ClassDef))]:
        for node in owner.body:
            if isinstance(node, ast.FunctionDef):
                yield f"{getattr(owner, 'name', path.stem)}.{node.name}", node


def unnamed_errors(path: Path) -> Iterator[str]:
    """Public functions with the errors that they raise, themselves or in private functions beside them, unnamed."""
    by_function = [(name, node, Raising.of(node)) for name, node in functions(path)]
    found: dict[str, Raising] = {}
    for _, node, own in by_function:  # methods of one name in one module count as one
        each = found.setdefault(node.name, Raising())
        each.raised |= own.raised
        each.called |= own.called

    def all_of(start: Raising, above: frozenset[str] = frozenset()) -> set[str]:
        below = [(name, caught) for name, caught in start.called if name in found and name not in above]
        return start.raised.union(*(passed(all_of(found[name], above | {name}), caught) for name, caught in below))

    for name, node, own in by_function:
        is_public = not re.search(r"(^|\.)_", name) and ast.get_docstring(node) is not None
        is_property = any(name_of(each) == "property" for each in node.decorator_list)
        lacking = passed(all_of(own), section(node, "Raises")) - UNSAID if is_public and not is_property else None
        if lacking:
            yield f"{path.relative_to(ROOT)}:{node.lineno} {name} raises {', '.join(sorted(lacking))}"


def test_public_functions_name_the_errors_that_they_raise():
    assert [line for path in PATHS for line in unnamed_errors(path)] == []


def test_arguments_that_docstrings_explain_are_there():
    wrong = []
    for path in PATHS:
        for name, node in functions(path):
            given = node.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            unknown = section(node, "Args") - {each.arg for each in every if each is not None}
            wrong += [f"{path.relative_to(ROOT)}:{node.lineno} {name}: {each}" for each in sorted(unknown)]
    assert wrong == []


def test_dataclasses_explain_all_their_fields():
    wrong = []
    for path in PATHS:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(each) for each in node.decorator_list):
                explained = section(node, "Args")
                fields = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and is_given(each)}
                if explained and (lacking := fields - explained):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {', '.join(sorted(lacking))}")
    assert wrong == []


def is_given(each: ast.AnnAssign) -> bool:
    """Whether a field is an argument of the constructor."""
    return not re.search(r"ClassVar|init=False", ast.unparse(each)) and not each.target.id.startswith("_")


@pytest.mark.parametrize(
    ("code", "lacking"),
    [
        ('def f():\n    """X."""\n    raise ValueError("a")', "ValueError"),
        ('def f():\n    """X.\n\n    Raises:\n        ValueError: A.\n    """\n    raise ValueError("a")', ""),
        ('def f():\n    """X."""\n    _g()\ndef _g():\n    raise KeyError("a")', "KeyError"),
        ('def f():\n    """X."""\n    try:\n        _g()\n    except LookupError:\n        pass\ndef _g():\n    raise KeyError("a")', ""),
    ],
)  # fmt: skip
def test_the_comparison_sees_what_is_raised(code, lacking, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.repository.test_docstrings.ROOT", tmp_path)
    (tmp_path / "m.py").write_text(code)
    assert [line.rpartition("raises ")[2] for line in unnamed_errors(tmp_path / "m.py")] == [lacking] * bool(lacking)


# Arguments of settings whose docstring says each value that they take, where `--help` prints it.
VALUES = {
    "swinft.data.fold_settings.FoldConfig": ["kind", "rare_classes", "duplicates"],
    "swinft.data.settings.LoadingConfig": ["resize", "augment_on", "on_bad_image"],
    "swinft.data.datamodule.CSVDataModule": ["augment", "target_kind"],
    "swinft.model.task.FineTuneTask": ["pooling"],
    "swinft.run.embed.options.EmbedOptions": ["rows"],
    "swinft.run.submission.plan.SubmissionConfig": ["format"],
    "swinft.tuning.options.TuneOptions": ["objective", "sampler", "pruner"],
}


@pytest.mark.parametrize("name", VALUES)
def test_help_says_every_value_of_a_word(name):
    module, _, name_of_class = name.rpartition(".")
    owner = getattr(importlib.import_module(module), name_of_class)
    hints = typing.get_type_hints(owner.__init__)
    for argument in VALUES[name]:
        text = re.search(
            rf"^ {{4,8}}{argument}:(.*?)(?=^ {{4,8}}\w+:|\Z)", inspect.cleandoc(owner.__doc__), re.S | re.M
        )[1]
        words = words_of(hints[argument])
        assert words, argument
        assert [word for word in words if f"`{word}`" not in text] == [], argument


def words_of(hint: object) -> list[str]:
    if typing.get_origin(hint) is typing.Literal:
        return [word for word in typing.get_args(hint) if isinstance(word, str)]
    return [word for part in typing.get_args(hint) for word in words_of(part)]
