"""Tables of pages that list names and defaults of the code: losses, poolings, rules, methods, models, keys."""

import dataclasses
import inspect
import re
from typing import get_args

import pytest

import swinft
from swinft.cli import COMMANDS
from swinft.data.augment.pipelines import Preset
from swinft.data.masks.tiles import TileConfig
from swinft.inference.rules.named import BUILTIN, FITTED
from swinft.inference.tta import VIEWS
from swinft.laboratory.options import CORRUPTION_NAMES
from swinft.laboratory.table import INSTRUMENTS
from swinft.model.backbones.activations import NAMES as ACTIVATIONS
from swinft.model.decoders import DecoderName
from swinft.model.heads.classification import ClassLossName
from swinft.model.heads.multilabel import LabelLossName
from swinft.model.heads.regression import NumberLossName
from swinft.model.pooling import PoolingName
from swinft.model.training.schedules import NAMES as SCHEDULES
from swinft.run.config.trust import TRUSTED_PACKAGES
from swinft.run.embed.methods import MODELS
from swinft.run.ensemble.recipe import MethodName
from swinft.run.rounds.settings import KEYS
from swinft.run.submission.plan import FormatName
from tests.conftest import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def section(text: str, title: str) -> str:
    """From a title to the next one."""
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """The words in the first column of tables, such as `hill` of "| `hill`, `nnls` | … |"."""
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([\w+-]+)", cell)]


def test_heads_have_the_losses_and_defaults_of_their_page():
    rows = re.findall(r"^\| (.*?)\| (.*?) \| (.*?)\|", section(page("heads"), "Losses"), re.MULTILINE)
    named: dict[str, set[str]] = {}
    head = ""
    for first, losses, call in rows:
        head = first.strip() or head
        named.setdefault(head, set()).update(re.findall(r"`(\w+)`", losses))
        if given := re.search(r"`(\w+)\((.*)\)`", call):
            shown = dict(pair.split("=") for pair in given[2].split(", ") if pair)
            known = inspect.signature(getattr(swinft, given[1]).__init__).parameters.items()
            defaults = {name: each.default for name, each in known if each.kind == each.POSITIONAL_OR_KEYWORD}
            defaults.pop("self")
            found = {name: None if value == "null" else float(value) for name, value in shown.items()}
            assert found == defaults, given[1]
    assert named["classes"] == set(get_args(ClassLossName))
    assert named["labels"] == set(get_args(LabelLossName))
    assert named["numbers"] == set(get_args(NumberLossName))


def test_poolings_are_those_of_their_page():
    assert set(first_cells(section(page("heads"), "Poolings"))) - {"model"} == set(get_args(PoolingName))


def test_rules_are_those_of_their_page():
    table = section(page("submissions"), "Rules")
    assert set(first_cells(table)) >= {rule.name for rule in BUILTIN}
    fitted = section(page("submissions"), "Fitted rules").partition("\n\n- ")[0]
    assert set(re.findall(r"^\| `(\w+)", fitted, re.MULTILINE)) == {rule.name for rule in FITTED}
    for rule in FITTED:  # each argument with its default
        cell = re.search(rf"^\| `{rule.name}(?:: {{(.*?)}})?` \|", fitted, re.MULTILINE)
        shown = dict(pair.split(": ") for pair in (cell[1] or "").split(", ") if pair)
        known = {name: each.default for name, each in inspect.signature(rule).parameters.items()}
        words = {None: "null", True: "true", False: "false"}
        assert shown == {name: words.get(value, str(value)) for name, value in known.items()}, rule.name


def test_methods_of_ensembles_are_those_of_their_page():
    assert set(first_cells(section(page("ensembles"), "Methods"))) - {"method"} == set(get_args(MethodName))


def test_models_of_embeddings_have_the_defaults_of_their_page():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section(page("embeddings"), "Models"), re.MULTILINE)
    assert {name for name, _ in rows} == set(MODELS)
    for name, arguments in rows:
        shown = dict(re.findall(r"`(\w+)` ([\w.]+)", arguments))
        known = {field.name: field.default for field in dataclasses.fields(MODELS[name])}
        for argument, value in shown.items():
            default = "null" if known[argument] is None else f"{known[argument]}".removesuffix(".0")
            assert value == default, (name, argument)
        assert set(known) - set(shown) <= {"normalize", "standardize", "pca"}, name


def test_keys_of_rounds_and_tiles_and_decoders_are_those_of_their_pages():
    assert set(first_cells(section(page("rounds"), "Keys of a round"))) == set(KEYS)
    text = page("segmentation")
    tiles = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", section(text, "Tiles of large images"), re.MULTILINE))
    known = {field.name: field.default for field in dataclasses.fields(TileConfig)}
    assert {name: float(value) for name, value in tiles.items()} == known
    named = re.search(r"^- `decoder`: (.*?);", text, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", named[1])) == set(get_args(DecoderName))


LISTS = {
    "packages": ("docs/extending.md", r"may name classes of (.*?) without it", TRUSTED_PACKAGES),
    "packages, again": ("SECURITY.md", r"names only classes of (.*?), each of the kind", TRUSTED_PACKAGES),
    "schedules": ("docs/extending.md", r"`model.optim.schedule` is (.*?), with `model.optim.schedule_args`", SCHEDULES),
    "schedules, again": ("docs/configs.md", r"schedule: (warmup_cosine .*?)\n", SCHEDULES),
    "views": ("docs/extending.md", r"`predict.views` takes names \((.*?)\)", VIEWS),
    "formats": ("docs/extending.md", r"`submission.format` takes names \((.*?)\)", get_args(FormatName)),
    "presets": ("docs/configs.md", r"augment: light +# (.*?), or a list", get_args(Preset)),
    "presets, again": ("README.md", r"augment: light +# (.*?), or a list", get_args(Preset)),
    "activations": ("docs/lab.md", r"weights load\. Allowed are (.*?)\.", ACTIVATIONS),
}
WORDS = {"and", "or", "one", "of", "timm", "s"}  # between the names


@pytest.mark.parametrize("what", LISTS)
def test_a_list_in_a_sentence_has_every_name(what):
    path, pattern, names = LISTS[what]
    (found,) = re.findall(pattern, (ROOT / path).read_text(), re.DOTALL)
    words = set(re.findall(r"\w+", found))
    assert set(names) <= words <= set(names) | WORDS


def test_instruments_and_corruptions_are_those_of_their_page():
    text = page("lab")
    assert set(re.findall(r"^\| \[`(\w+)`\]", text, re.MULTILINE)) == set(INSTRUMENTS)
    assert set(first_cells(section(text, "robust"))) == set(CORRUPTION_NAMES)


def test_commands_that_are_functions_are_those_of_their_page():
    functions, methods = re.search(
        r"The commands (.*?) are\s+functions of `swinft`; (.*?) are", page("python"), re.DOTALL
    ).groups()
    assert set(re.findall(r"`(\w+)`", functions)) == set(COMMANDS) & set(swinft.__all__)
    assert set(re.findall(r"`(\w+)`", methods)) == {name for name in COMMANDS if hasattr(swinft.Run, name)}
