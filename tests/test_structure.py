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

# A package or module may import those of the lines before its own, and its own.
ORDER = [
    ["errors", "seeding"],
    ["ranges", "printing"],
    ["store", "system"],
    ["data", "model"],
    ["inference"],
    ["run"],
    ["commands"],
    ["cli"],
]
PACKAGES = [path.parent for path in sorted((ROOT / "swinft").rglob("__init__.py"))]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def level(name: str) -> int:
    """Place of a module in the order; the last for `__init__` and `__main__`, which import what they show."""
    part = name.split(".")[1]
    return next((place for place, parts in enumerate(ORDER) if part in parts), len(ORDER))


def test_imports_point_one_way():
    modules = sorted((ROOT / "swinft").rglob("*.py"))
    assert len(modules) > 100
    wrong = []
    for path in modules:
        own = module_name(path)
        for name in (name for name in imported(path) if name.startswith("swinft.")):
            beside = level(name) == level(own) < len(ORDER) and name.split(".")[1] != own.split(".")[1]
            if level(name) > level(own) or beside:
                wrong.append(f"{own} imports {name}")
    assert not wrong


def test_no_module_is_empty_and_every_package_says_what_it_holds():
    assert len(PACKAGES) > 10
    for package in PACKAGES:
        text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
        assert text.partition("\n")[0].endswith("."), package


def test_every_public_name_can_be_imported():
    assert all(getattr(swinft, name).__name__ == name for name in swinft.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Tak'"):
        _ = swinft.Tak


def test_f115_what_a_script_of_a_training_needs_is_public():
    assert {
        "OptimConfig",
        "MixConfig",
        "create_backbone",
        "FineTuneTask",
        "CSVDataModule",
        "fit",
        "open_run",
        "Run",
    } <= set(swinft.__all__)
    assert swinft.__version__ == version("swinft")


PAGE = ROOT / "docs" / "code.md"
INTRODUCTION = """# Reading the code
Packages in the order in which they may import each other, and in a package every module after those that it imports. `data`
and `model` know nothing of each other, and `inference` knows no run's folder.
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

    def place(name: str) -> tuple[int, str]:
        return level(name), name.rpartition(".")[0]

    lines, shown = [], None
    for name in sorted(order, key=place):
        package = name.rpartition(".")[0]
        if package != shown:
            about = ast.get_docstring(ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())) or ""
            lines.append(f"\n## {package}\n" if lines else f"## {package}\n")
            lines.append(about.partition("\n")[0] + "\n")
            shown = package
        first = (ast.get_docstring(ast.parse(paths[name].read_text())) or "").partition("\n")[0]
        assert first.endswith("."), f"{name}: the first line of a module's docstring is a sentence"
        lines.append(f"- `{name.rpartition('.')[2]}`: {first}")
    return INTRODUCTION + "\n".join(lines) + "\n"


def test_f114_the_page_of_modules_is_that_of_the_code():
    assert PAGE.read_text() == reading_list()


if __name__ == "__main__":
    PAGE.write_text(reading_list())
