"""Every competition that ships has a page and a config, and what the page says can be run."""

import re
import shlex

import pytest
import yaml

from swinft.cli import COMMANDS
from tests.conftest import ROOT

SHIPPED = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if "bluemarble" not in path.stem)
PAGES = sorted(path.name for path in (ROOT / "competitions").iterdir() if path.name != "bluemarble")
SECTIONS = ["Task", "Metric", "Layout", "From download to", "Folds", "Leaks and traps", "Expected score", "Links"]


def test_every_config_has_a_page_and_every_page_a_config():
    assert len(SHIPPED) > 10
    assert [name for name in SHIPPED if not (ROOT / "competitions" / name / "README.md").exists()] == []
    assert [name for name in PAGES if not (ROOT / "configs" / f"{name}.yaml").exists()] == []
    readme = (ROOT / "README.md").read_text()
    assert f"\n{len(SHIPPED)} competitions and data sets have a config" in readme
    assert [name for name in PAGES if f"[{name}](competitions/{name}/README.md)" not in readme] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_its_sections_and_commands_that_exist(name):
    page = (ROOT / "competitions" / name / "README.md").read_text()
    config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    titles = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert [next(word for word in SECTIONS if title.startswith(word)) for title in titles] == SECTIONS
    metric = config["model"]["metrics"][0]
    assert f"`{metric if isinstance(metric, str) else next(iter(metric))}`" in page
    folder = config["data"]["root"].removeprefix("data/")
    assert f"{folder}/" in page.partition("## Layout")[2].partition("## ")[0]
    (block,) = re.findall(r"^## From.*?```\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    in_text = re.findall(r"`swinft (\w+) ([^`]*)`", " ".join(page.split()))
    named = [words for words in lines if words[0] == "swinft"] + in_text
    for words in named:
        command, rest = (words[1], words[2:]) if words[0] == "swinft" else (words[0], words[1].split())
        assert command in COMMANDS, words
        assert command != "bundle" or not rest or "--owner" in rest, words
        paths = [word for word in rest if "/" in word and not word.startswith("/kaggle")]
        known = {f"configs/{name}.yaml", f"runs/{name}", f"data/{folder}", "data", folder}
        assert {path.rstrip(".,:") for path in paths} <= known, words
    assert {"check", "fit"} <= {words[1] for words in lines if words[0] == "swinft"}
    assert f"swinft download {folder}" in block or "curl" in block
    if "zip files inside the download" in page and "zip" not in str(config["data"].get("loading", {}).get("source")):
        assert "--inner-zips" in block
    for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        assert yaml.safe_load(block)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_speaks_of_the_fields_that_its_config_reads(name):
    page = (ROOT / "competitions" / name / "README.md").read_text()
    data = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["data"]
    names = [data["train"], data.get("test"), data.get("sample_submission")]
    files = [each for each in names if isinstance(each, str)]
    layout = re.search(r"## Layout.*?```\n(.*?)```", page, re.DOTALL)
    assert layout
    assert [file for file in files if file not in layout[1]] == []
    group = data.get("folds", {}).get("group")
    assert group is None or group in layout[1] or group in page
