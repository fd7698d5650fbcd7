"""What keeps the package readable: imports point one way, the public names exist, and the page of modules is right.

`python -m tests.test_structure` writes docs/code.md again.
"""

import ast
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest

import swinft
from tests.conftest import ROOT

# Each package may import those before it.
ORDER = ["data", "model", "run"]
FORBIDDEN = {"data": ("model", "run", "cli"), "model": ("data", "run", "cli"), "run": ("cli",)}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_one_way(package):
    modules = sorted((ROOT / "swinft" / package).rglob("*.py"))
    assert len(modules) > 3
    for module in modules:
        wrong = {
            name
            for name in imported(module)
            for other in FORBIDDEN[package]
            if f"{name}.".startswith(f"swinft.{other}.")
        }
        assert not wrong, f"{module.name} imports {wrong}"


def test_every_public_name_can_be_imported():
    assert all(getattr(swinft, name).__name__ == name for name in swinft.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Tak'"):
        _ = swinft.Tak


def test_f115_what_a_script_of_a_training_needs_is_public():
    assert {"OptimConfig", "MixConfig", "create_backbone", "FineTuneTask", "CSVDataModule", "load"} <= set(
        swinft.__all__
    )
    assert swinft.__version__ == version("swinft")


PAGE = ROOT / "docs" / "code.md"
INTRODUCTION = """# Reading the code
Every module after those that it imports; `data` and `model` know nothing of each other or of `run`, and nothing imports `cli`.
This page is written by `python -m tests.test_structure`, and a test compares it with the code.

"""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def at_import(path: Path) -> set[str]:
    """What a module imports when it is imported itself, not only for types or when it is called."""
    tree = ast.parse(path.read_text())
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return names | {node.module for node in nodes}


def reading_list() -> str:
    """The page: packages in their order, modules so that each comes after what it imports."""
    paths = {module_name(path): path for path in sorted((ROOT / "swinft").rglob("*.py")) if path.stem != "__init__"}
    graph = {name: sorted(at_import(path) & set(paths)) for name, path in paths.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises where modules import each other
    rank = {package: index for index, package in enumerate(["", *ORDER, "cli", "__main__"])}

    def place(name: str) -> int:
        parts = name.split(".")[1:]
        return rank.get(parts[0], rank[""])

    lines, shown = [], None
    for name in sorted(order, key=place):
        package = name.rpartition(".")[0]
        if package != shown:
            lines.append(f"\n## {package}\n" if lines else f"## {package}\n")
            shown = package
        first = (ast.get_docstring(ast.parse(paths[name].read_text())) or "").partition("\n")[0]
        assert first.endswith("."), f"{name}: the first line of a module's docstring is a sentence"
        lines.append(f"- `{name.rpartition('.')[2]}`: {first}")
    return INTRODUCTION + "\n".join(lines) + "\n"


def test_f114_the_page_of_modules_is_that_of_the_code():
    assert PAGE.read_text() == reading_list()


if __name__ == "__main__":
    PAGE.write_text(reading_list())
