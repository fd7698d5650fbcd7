"""What surrounds the package: versions agree, workflows parse and run what there is, the marker for GPUs skips."""

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, version

import pytest
import torch
import yaml
from jsonargparse import Namespace

import swinft
from swinft.cli import main
from swinft.run.environment import describe_environment
from swinft.versions import VERSION
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_the_same_everywhere():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert {cited, swinft.__version__, version("swinft")} == {VERSION}
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(.+?)\]", changelog, flags=re.M) == ["Unreleased"]  # nothing has been released
    assert f"the first one will be {VERSION}." in changelog


def test_workflows_and_hooks_run_what_there_is():
    files = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]
    assert len(files) > 4
    read = {path.name: yaml.safe_load(path.read_text()) for path in files}
    steps = [step for name in ("lint.yml", "tests.yml") for job in read[name]["jobs"].values() for step in job["steps"]]
    targets = {match for step in steps for match in re.findall(r"\bmake (\w+)", step.get("run", ""))}
    assert targets == {"install", "lint", "test"}
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in targets)
    floor = next(line for line in PROJECT["dependencies"] if line.startswith("torch>="))
    assert f"torch=={floor.removeprefix('torch>=')}.*" in (ROOT / ".github" / "workflows" / "tests.yml").read_text()


def test_links_of_the_pages_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
            assert "://" in target or (ROOT / target).exists(), f"{page}: {target}"


@pytest.mark.gpu
def test_a_network_on_a_gpu_predicts_what_it_predicts_on_the_cpu(tiny_run):
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        run = swinft.open_run(tiny_run)
        found = run.network(0, device="cuda").predict(images.cuda()).cpu()
        torch.testing.assert_close(found, run.network(0).predict(images), atol=1e-3, rtol=0)


def test_swinft_runs_from_a_folder_where_it_is_not_installed(monkeypatch, capsys):
    """Such as a copy on Kaggle that a notebook adds to `sys.path`; a fit records the versions."""

    def from_name(name: str) -> Distribution:
        if name == "swinft":
            raise PackageNotFoundError(name)
        return found(name)

    found = Distribution.from_name
    monkeypatch.setattr(Distribution, "from_name", from_name)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{VERSION}\n"
    config = Namespace(trainer=Namespace(accelerator="cpu", devices="auto", precision="32-true"))
    assert describe_environment(config)["versions"]["swinft"] == VERSION
