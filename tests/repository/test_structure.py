"""What keeps the package readable: imports point one way, the public names exist, and the page of modules is right.

`python -m tests.repository.test_structure` writes docs/code.md again.
"""

import ast
import re
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest

import swinft
from tests.conftest import ROOT

# A package or module may import those of the lines before its own, and its own.
ORDER = [
    ["errors", "seeding", "versions"],
    ["ranges", "printing", "class_spec", "extras", "json_output"],
    ["whole_files"],
    ["store", "system", "pages"],
    ["whole_folders"],
    ["data", "model"],
    ["inference"],
    ["attribution"],
    ["run"],
    ["kaggle", "propose", "tuning", "laboratory", "architecture"],
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


def test_nothing_but_the_kinds_of_target_asks_which_kind_it_is():
    own = {"swinft.data.target", "swinft.model.heads"}
    asks = re.compile(r"""(==|!=|\bin)\s*[\[({]?\s*["'](classification|regression)["']""")
    others = [path for path in (ROOT / "swinft").rglob("*.py") if module_name(path).rpartition(".")[0] not in own]
    assert len(others) > 100
    assert [path for path in others if asks.search(path.read_text())] == []


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
This page is written by `python -m tests.repository.test_structure`, and a test compares it with the code.

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
            lines.append(f"\n## {package}\n" if lines else f"## {package}\n")
            lines.append(about(ROOT / package.replace(".", "/") / "__init__.py") + "\n")
            shown = package
        first = about(paths[name])
        assert first.endswith("."), f"{name}: the first line of a module's docstring is a sentence"
        lines.append(f"- `{name.rpartition('.')[2]}`: {first}")
    return INTRODUCTION + tree() + "\n" + "\n".join(lines) + "\n"


def test_f114_the_page_of_modules_is_that_of_the_code():
    assert PAGE.read_text() == reading_list()


def about(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def tree() -> str:
    """Packages and the modules beside them, in the order in which they may import each other."""
    top = [path for path in (ROOT / "swinft").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    top = [path for path in top if path.stem != "__init__"]
    lines = ["swinft/"]
    for path in sorted(top, key=lambda path: (level(f"swinft.{path.stem}"), path.stem)):
        lines += [f"  {name(each, 1)} {about(each)}" for each in ([path] if path.suffix else [path / "__init__.py"])]
        inside = sorted(path.glob("*/__init__.py")) if path.is_dir() else []
        lines += [f"    {name(each, 2)} {about(each)}" for each in inside]
    return "```\n" + "\n".join(lines) + "\n```\n"


def name(path: Path, depth: int) -> str:
    """A package with a slash, a module without its suffix, as wide as the others at any depth."""
    return (f"{path.parent.name}/" if path.stem == "__init__" else path.stem).ljust(18 - 2 * depth)


MOST = {"lines of a file": 350, "lines of a function": 50, "parameters of a constructor": 15}
KERNELS = ROOT / "swinft" / "model" / "attention"


def sizes(path: Path) -> dict[tuple[str, str], int]:
    """Lines of a file; of each function without its docstring and blank lines; parameters of each constructor."""
    text, own = path.read_text(), module_name(path)
    lines = text.split("\n")
    found = {("lines of a file", own): len(text.splitlines())}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_doc = ast.get_docstring(node) is not None
            documentation = range(first.lineno, (first.end_lineno or 0) + 1) if is_doc else range(0)
            code = [n for n in range(node.lineno, (node.end_lineno or 0) + 1) if n not in documentation]
            place = ("lines of a function", f"{own}.{node.name}")
            found[place] = max(found.get(place, 0), sum(1 for n in code if lines[n - 1].strip()))
            given = node.args
            if node.name == "__init__":
                place = ("parameters of a constructor", own)
                found[place] = max(found.get(place, 0), len(given.posonlyargs + given.args + given.kwonlyargs) - 1)
        elif isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(each) for each in node.decorator_list):
            place = ("parameters of a constructor", own)
            fields = sum(isinstance(each, ast.AnnAssign) for each in node.body)
            found[place] = max(found.get(place, 0), fields)
    return found


def test_files_functions_and_constructors_stay_small():
    modules = [path for path in sorted((ROOT / "swinft").rglob("*.py")) if KERNELS not in path.parents]
    measured = {place: size for path in modules for place, size in sizes(path).items()}
    assert len(measured) > 1000
    assert {place: size for place, size in measured.items() if size > MOST[place[0]]} == {}


def test_tests_mirror_the_package_or_are_integration_tests():
    """`tests/data/test_folds.py` tests `swinft/data/folds.py`; what crosses modules is in `tests/integration/`."""
    others = {ROOT / "tests" / name for name in ("integration", "repository", "fixtures")}
    mirrors = [path for path in (ROOT / "tests").rglob("test_*.py") if not others & set(path.parents)]
    assert len(mirrors) > 30
    modules = [(ROOT / "swinft" / path.relative_to(ROOT / "tests")) for path in mirrors]
    assert [path for path in modules if not path.with_name(path.name.removeprefix("test_")).is_file()] == []


if __name__ == "__main__":
    PAGE.write_text(reading_list())
