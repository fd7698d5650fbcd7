"""The pages of the site: how they are rendered, the tutorial's commands, and the configs by kind of target."""

import importlib.util
import re
import shlex
from pathlib import Path

import markdown
import pytest
import yaml
from mkdocs.config import load_config

from swinft.cli import main
from tests.conftest import ROOT, tiny_config, write_config

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
ERRORS = (ROOT / "docs" / "errors.md").read_text()
KINDS = (ROOT / "docs" / "kinds.md").read_text()
SECTIONS = dict(part.split("\n", 1) for part in re.split(r"^## ", KINDS, flags=re.MULTILINE)[1:])
SHORT = ["--trainer.max_epochs", "1", "--model.optim.warmup_epochs", "0.5"]


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    """The HTML of every page that is a file of the repository, by its path, as the site makes it, without its theme."""
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    config = load_config(str(ROOT / "mkdocs.yml"), plugins=[], hooks=[])
    engine = markdown.Markdown(extensions=config.markdown_extensions, extension_configs=config.mdx_configs)
    paths = [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in hooks.ELSEWHERE if name.endswith(".md"))]
    return {
        str(path.relative_to(ROOT)): engine.reset().convert(hooks.apart(path.read_text())) for path in sorted(paths)
    }


def test_lists_and_tables_are_lists_and_tables(rendered):
    assert len(rendered) > 60
    start = re.compile(r"^\s*([-*+] |\d+\. |\|)", re.MULTILINE)
    for path, html in rendered.items():
        text = re.sub(r"<(pre|code).*?</\1>", "", html, flags=re.DOTALL)
        found = [part for part in re.findall(r"<(?:p|li)\b.*?</(?:p|li)>", text, re.DOTALL) if start.search(part)]
        assert found == [], path


def test_the_style_applies_to_what_the_site_makes(rendered):
    style = (ROOT / "docs" / "site.css").read_text()
    assert "\n.language-text pre code" in style
    assert rendered["docs/errors.md"].count('<div class="language-text highlight">') == ERRORS.count("```text")


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run_in_their_order(tmp_path, monkeypatch, capsys):
    for name in ("configs", "competitions"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^swinft (.+)$", TUTORIAL, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        words = shlex.split(command)
        assert main([*words, *(SHORT if words[0] == "fit" else [])]) == 0, command
    for file in re.findall(r"^runs/(\S+)", TUTORIAL, re.MULTILINE):
        assert (tmp_path / "runs" / file).exists(), file
    assert (tmp_path / "runs" / "both" / "submission.csv").is_file()
    rows = [
        len((ROOT / "competitions" / "bluemarble" / name).read_text().splitlines()) - 1
        for name in ("train.csv", "test.csv")
    ]
    assert re.findall(r": (\d+) rows", TUTORIAL) == [str(count) for count in rows]


@pytest.mark.parametrize("title", SECTIONS)
def test_the_config_of_a_kind_of_target_is_accepted(title, competition, tmp_path, monkeypatch, capsys):
    (text,) = re.findall(r"```yaml\n(.*?)```", SECTIONS[title], re.DOTALL)
    given = yaml.safe_load(text)
    root = made_for(given, competition, tmp_path)
    config = tiny_config(root, tmp_path / "runs")
    for section, keys in given.items():
        config.setdefault(section, {}).update(keys)
    config["data"] |= {
        "image_size": 64 if given["data"]["target_kind"] == "segmentation" else 32,
        "sample_submission": None,
        "test": None,
    }
    if given["data"]["target_kind"] == "segmentation":
        config["model"] |= {"backbone": "test_resnet", "backbone_args": None}
    path = write_config(tmp_path / "c.yaml", config)
    assert main(["check", "--config", str(path)]) == 0, capsys.readouterr().err


def made_for(given: dict, competition: Path, folder: Path) -> Path:
    """The tiny competition with the columns and images that a config names."""
    root = folder / "data"
    root.mkdir()
    (root / "images").symlink_to(competition / "images")
    first, *rows = (competition / "train.csv").read_text().splitlines()
    lines = [f"{first},grade,mask,left,right"]
    for number, row in enumerate(rows):
        id = row.split(",")[0]
        lines.append(f"{row},{number % 4},1 5 40 3,{id}.jpg,{rows[number - 1].split(',')[0]}.jpg")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    return root
