"""Pages, comments of configs, notebooks, and messages and docstrings of the code: what they name exists.

That is commands with their options, keys, public names, extras and pages.
"""

import ast
import json
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest

import swinft
from swinft.cli import COMMANDS, main
from swinft.model.metrics import METRICS
from swinft.run.config.fit_options import fit_parser
from swinft.tuning.base import key_types
from tests.conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "competitions").glob("*/README.md")),
]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CODE = sorted((ROOT / "swinft").rglob("*.py"))
EVERYWHERE = [*PAGES, *CONFIGS, *NOTEBOOKS, *CODE]
WITH_CONFIG = ("check", "fit", "find", "plan", "tune")  # their options are keys, too
SECTION = "data|model|trainer|predict|submission|distill"
# Keys of mappings and of objects, which no parser lists; keys of earlier versions; keys of other programs; files.
OPEN = (
    "checkpoint",
    "data.image",
    "data.columns.auxiliary",
    "data.columns.weight",
    "data.folds.extra",
    "data.target_kind",
    "model.backbone_args",
    "model.ema_decay",
    "model.pooling",
    "submission.group",
)
OLD = {"data.num_folds", "data.fold_kind", "submission.normalize", "submission.clip", "model.loads_weights"}
OLD |= {"model.fast_attention"}
OTHER = {"data.mixup", "data.zip", "model.onnx", "model.safetensors", "submission.csv", "submission.path"}
OTHER |= {"trainer.current_epoch", "trainer.fit", "trainer.predict"} | OLD
OF_TIMM = ("timm", "data.mixup.", "model.timm_image.", "model.onnx.")


@cache
def text_of(path: Path) -> str:
    """A page; of a config its comments; of a notebook what is not code; of a module its strings, with … for values."""
    text = path.read_text()
    if path.suffix == ".yaml":
        return "\n".join(re.findall(r"#(.*)", text))
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return "\n".join(strings_of(ast.parse(text))) if path.suffix == ".py" else text


def strings_of(tree: ast.AST) -> list[str]:
    nodes = list(ast.walk(tree))
    formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in formatted for part in node.values}
    whole = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in parts]
    joined = [
        "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values) for node in formatted
    ]
    return [text for text in whole if isinstance(text, str)] + joined


def shown_commands() -> dict[str, set[str]]:
    """The options that pages show, by command."""
    found: dict[str, set[str]] = {}
    for path in EVERYWHERE:
        for name, rest in re.findall(
            r"(?:^|[`!]|# +)swinft (\w+)((?: (?:[^`#\n\\]|\\\n)*)?)", text_of(path), re.MULTILINE
        ):
            if name in COMMANDS:
                options = re.findall(r"(?<!\S)--([\w.-]+)", rest)
                found.setdefault(name, set()).update(word.replace("-", "_") for word in options)
    return found


def test_pages_show_commands_that_exist():
    assert set(shown_commands()) == set(COMMANDS)
    for path in PAGES:
        lines = re.findall(r"^```(?:bash)?\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
        words = [
            shlex.split(line, comments=True) for block in lines for line in block.splitlines() if line[:7] == "swinft "
        ]
        assert [line for line in words if line[1] not in COMMANDS and line[1] not in ("COMMAND", "--help")] == [], path


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_have_the_options_that_pages_show(name, capsys):
    words = [[name, "--help", *(["all"] if name in WITH_CONFIG else [])]]
    if name == "lab":
        words += [["lab", instrument, "--help"] for instrument in ("scale", "act", "robust", "hessian", "frequency")]
    for each in words:
        with pytest.raises(SystemExit):
            main(each)
    known = set(re.findall(r"--([\w.]+)", capsys.readouterr().out)) | {"json", "help", "print_config"}
    keys = set(key_types(fit_parser())) if name in WITH_CONFIG else set()
    assert shown_commands()[name] - known - keys == set()


def test_keys_that_pages_name_exist():
    known = {*key_types(fit_parser())}
    sections = {key[: dot.start()] for key in known for dot in re.finditer(r"\.", key)}
    pattern = re.compile(rf"(?<![\w./…-])(?:{SECTION}|checkpoint)\.[a-z_]+(?:\.[a-z_]+)*(?![\w/(…-])")
    unknown: dict[str, str] = {}
    for path in EVERYWHERE:
        for key in pattern.findall(text_of(path)):
            is_open = key.startswith((*(f"{each}." for each in OPEN), *OF_TIMM))
            if key not in known | sections | OTHER and not is_open:
                unknown[key] = str(path.relative_to(ROOT))
    assert unknown == {}


def test_names_of_swinft_on_pages_are_public_or_modules():
    for path in PAGES:
        names = set(re.findall(r"\bswinft\.([A-Za-z_]\w*)", path.read_text()))
        modules = {each.stem for each in (ROOT / "swinft").iterdir()}
        assert names - set(swinft.__all__) - modules == set(), path


def test_extras_that_pages_name_exist():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in EVERYWHERE:
        for names in re.findall(r"(?:swinft|\.)\[([a-z0-9,]+)\]", text_of(path)):
            assert set(names.split(",")) <= set(known), path


def test_pages_that_the_code_names_exist():
    named = {name for path in [*CODE, *CONFIGS, *NOTEBOOKS] for name in re.findall(r"docs/[\w/-]+\.md", text_of(path))}
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_page_of_ensembles_names_every_metric_that_compares_the_order_of_rows():
    row = re.search(r"^\| `rank` \|.*$", (ROOT / "docs" / "ensembles.md").read_text(), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", row[0])) - {"rank"}
    assert named == {name for name, metric in METRICS.items() if metric.compares_order}
