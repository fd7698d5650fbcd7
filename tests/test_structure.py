"""What keeps the package readable: imports point one way, and the public names exist."""

import ast
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
    modules = sorted((ROOT / "swinft" / package).glob("*.py"))
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
