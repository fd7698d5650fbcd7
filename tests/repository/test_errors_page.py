"""docs/errors.md: errors as they are printed, each produced here, with the edit that fixes it, which is tried as well.

`python -m tests.repository.test_errors_page` writes the page.
"""

import contextlib
import io
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from swinft.cli import main
from tests.conftest import ROOT, make_competition, tiny_config, write_config

PAGE = ROOT / "docs" / "errors.md"
TOP = """# Errors and their fixes
Every error that a user can fix ends with exit code 2, before anything is trained, and names the file, the value, what is allowed and the
edit. All problems of a kind are listed together. This page shows what is printed, for a small competition with the table `data/train.csv` and
the config `c.yaml`. A test produces every error of the page, and another one tries its fix; `python -m
tests.repository.test_errors_page` writes the page.

Any other error comes with a traceback and exit code 1. If it is raised in code that `--allow-code` names, a last line says where; else it is
a fault of swinft, of a library or of the machine: please report it with the traceback.
"""
LEADS = {
    "Another backbone": "The swap is one word, `--model.backbone convnext_tiny`, and should not end in a stack trace. A test trains one config "
    "with 12 families. What can be wrong:\n"
}
FIT = ["fit", "--config", "c.yaml"]
CHECK = ["check", "--config", "c.yaml"]


def edited(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Replaces text of a file of the competition."""

    def edit(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return edit


def both(one: Callable[[Path], None], other: Callable[[Path], None]) -> Callable[[Path], None]:
    """Two edits."""
    return lambda root: (one(root), other(root))[1]


def removed(name: str) -> Callable[[Path], None]:
    """Deletes a file of the competition."""
    return lambda root: (root / name).unlink()


def cut(name: str) -> Callable[[Path], None]:
    """Cuts the end of a file of the competition, as a download that was interrupted."""
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-60])


@dataclass(frozen=True)
class Case:
    """An error and what fixes it.

    Args:
        title: What happened, in a user's words.
        fix: The edit in one line of Markdown.
        changes: What is wrong in the config: dotted keys.
        spoil: What is wrong in the files.
        fixed: What the fix changes in the config; None if a file is mended.
        words: The command; `c.yaml` is the config.
        before: A command that has run before.
    """

    title: str
    fix: str
    changes: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[Path], None] | None = None
    fixed: dict[str, Any] | None = None
    words: tuple[str, ...] = tuple(CHECK)
    before: tuple[str, ...] = ()


def with_masks(root: Path) -> None:
    """A column with run lengths."""
    first, *rows = (root / "train.csv").read_text().splitlines()
    (root / "train.csv").write_text("\n".join([f"{first},mask", *(f"{row},1 5" for row in rows)]) + "\n")


def copied(name: str, of: str) -> Callable[[Path], None]:
    """The same image under two ids."""
    return lambda root: (root / name).write_bytes((root / of).read_bytes())


MENDED: dict[str, Any] = {}  # the fix is in the files


GROUPS: dict[str, list[Case]] = {
    "Another backbone": [
        Case(
            "The name is mistyped",
            "Write the name that is proposed; `timm.list_models('*swin*')` lists all of them.",
            {"model.backbone": "swin_tiny_patch4_windw7_224"},
            fixed={"model.backbone": "swin_tiny_patch4_window7_224"},
        ),
        Case(
            "The config has arguments of the network before",
            "`--model.backbone_args null`, or the arguments of the new network.",
            {"model.backbone": "test_vit"},
            fixed={"model.backbone_args": None},
        ),
        Case(
            "The size does not suit the network's stages",
            "Another `--data.image_size`: most networks want a multiple of 32.",
            {"model.backbone": "maxvit_pico_rw_256", "model.backbone_args": None, "data.image_size": 70},
            fixed={"data.image_size": 64},
        ),
        Case(
            "The network has no class token",
            "`--model.pooling avg`, or another pooling of positions.",
            {"model.pooling": "cls"},
            fixed={"model.pooling": "avg"},
        ),
        Case(
            "The network has no low-rank adapters, because it has no linear layers",
            "`--model.optim.freeze.lora.rank 0`, or a transformer.",
            {"model.backbone": "test_resnet", "model.backbone_args": None, "model.optim.freeze": {"share": 1, "lora": {"rank": 2}}},
            fixed={"model.optim.freeze": {"share": 1}},
        ),
        Case(
            "The file with weights is not there",
            "A path that exists, `true` for timm's own weights, or `false`.",
            {"model.pretrained": "swin.safetensors"},
            fixed={"model.pretrained": False},
        ),
        Case(
            "There are no weights for this name",
            "A name with weights (`timm.list_pretrained()` lists them), or `--model.pretrained false`.",
            {"model.backbone": "test_vit4", "model.backbone_args": None, "model.pretrained": True},
            fixed={"model.pretrained": False},
        ),
        Case(
            "Masks need features of several sizes",
            "A hierarchical backbone: Swin, ConvNeXt, ResNet, EfficientNet, ….",
            {
                "model.backbone": "mixer_s32_224", "model.backbone_args": None, "data.image_size": 64,
                "data.target_kind": "segmentation", "data.target": "mask", "model.head": {"class_path": "swinft.SegmentationHead"},
            },
            spoil=with_masks,
            fixed={"model.backbone": "test_resnet"},
        ),
        Case(
            "The run exists, with the backbone before",
            "`--name NAME` for a new run: a run has one config.",
            {"model.backbone": "test_resnet", "model.backbone_args": None},
            fixed={"name": "other"},
            words=(*FIT, "--resume", "--fold", "0"),
            before=(*FIT, "--fold", "0"),
        ),
    ],
    "Tables": [
        Case("A column is mistyped", "`--data.target` with a name of the list.", {"data.target": "colour"}, fixed={"data.target": "color"}),
        Case(
            "The kind of the target does not suit its cells",
            "The kind of the cells, and its head: `--data.target_kind classification --model.head swinft.ClassificationHead`.",
            {"data.target_kind": "regression", "model.head": {"class_path": "swinft.RegressionHead"}},
            fixed={"data.target_kind": "classification", "model.head": {"class_path": "swinft.ClassificationHead"}},
        ),
        Case("A cell is empty", "Fill the cell, or `--data.columns.on_missing_target skip`.", spoil=edited("train.csv", "000,red", "000,"), fixed={"data.columns.on_missing_target": "skip"}),
        Case("One class has two spellings", "One spelling in the table, or, if these are two classes, `--data.columns.twins distinct`.", spoil=both(edited("train.csv", "000,red", "000,Red"), edited("train.csv", "003,red", "003,Red")), fixed=MENDED),
        Case("An id stands twice", "One row of an id.", spoil=edited("train.csv", "\n003,", "\n000,"), fixed=MENDED),
        Case("A line has too many fields", "Quote the cell that has a delimiter inside.", spoil=edited("train.csv", "\n003,red", "\n003,red,red"), fixed=MENDED),
        Case("A class is rarer than the folds", "`--data.folds.rare_classes train` or `spread`, fewer folds, or the class merged with another.", spoil=edited("train.csv", "000,red", "000,pink"), fixed={"data.folds.rare_classes": "train"}),
    ],
    "Images": [
        Case("Images are elsewhere", "`--data.image` with the columns of the table in braces, relative to `data.root`.", {"data.image": "image/{id}.jpg"}, fixed={"data.image": "images/{id}.jpg"}),
        Case("The template has no such column", "A column of the table in the braces.", {"data.image": "images/{Id}.jpg"}, fixed={"data.image": "images/{id}.jpg"}),
        Case("A file is missing", "Download the file again, or remove its row.", spoil=removed("images/003.jpg"), fixed=MENDED),
        Case("A download was interrupted", "Download the file again, or `--data.loading.on_bad_image skip`.", spoil=cut("images/003.jpg"), fixed={"data.loading.on_bad_image": "skip"}),
    ],
    "The config": [
        Case("A key is mistyped", "The key that is proposed.", words=(*CHECK, "--data.imagesize", "64"), fixed=MENDED),
        Case("A value is of another type", "A value of the type that the message names.", {"data.batch_size": "many"}, fixed={"data.batch_size": 8}),
        Case("A number is out of range", "A number of the range.", {"model.ema_decay": 1.5}, fixed={"model.ema_decay": 0.99}),
        Case("A metric is of another kind of target", "A metric of `swinft metrics --kind classification`.", {"model.metrics": ["rmse"]}, fixed={"model.metrics": ["accuracy"]}),
        Case("The head is of another kind of target", "The head of the kind: `--model.head swinft.ClassificationHead`.", {"model.head": {"class_path": "swinft.RegressionHead"}}, fixed={"model.head": {"class_path": "swinft.ClassificationHead"}}),
        Case("A class of your own may not run yet", "`--allow-code stars` beside the command.", {"model.head": {"class_path": "stars.StarsHead"}}, fixed=None),
        Case("The precision has another name", "`trainer.precision: auto`, the default.", {"trainer.precision": "fp16"}, fixed={"trainer.precision": "auto"}),
        Case("A GPU is asked for, and there is none", "`--trainer.accelerator auto`.", {"trainer.accelerator": "gpu"}, fixed={"trainer.accelerator": "auto"}),
    ],
    "Submissions": [
        Case("The sample has other columns", "The sample of this competition, or `submission.id` with the name of its ids.", spoil=edited("sample_submission.csv", "id,color", "name,color"), fixed=MENDED),
        Case("The sample has ids that the test table lacks", "The sample and the test table of the same competition.", spoil=edited("sample_submission.csv", "t3,", "t33,"), fixed=MENDED),
        Case("The run has no predictions yet", "`swinft predict RUN` first.", words=("submit", "runs/tiny"), before=(*FIT, "--trainer.max_epochs", "1"), fixed=None),
    ],
    "Runs": [
        Case("The run exists", "`--resume` to continue it, `--overwrite` to delete it, `--name NAME` for another.", words=(*FIT, "--fold", "0"), before=(*FIT, "--fold", "0"), fixed={"name": "other"}),
        Case("The folder is not a run", "The folder of a run: `swinft runs` lists them.", words=("predict", "runs/petfinder"), fixed=None),
        Case("The table has changed since the run began", "The table as it was, or a new run: `--name NAME`.", spoil=edited("train.csv", "000,red", "000,blue"), words=(*FIT, "--resume", "--fold", "1"), before=(*FIT, "--fold", "0"), fixed={"name": "other"}),
    ],
}  # fmt: skip


def config_of(case: Case, folder: Path, changes: dict[str, Any]) -> Path:
    """The config of a case."""
    return write_config(folder / "c.yaml", tiny_config(folder / "data", folder / "runs", **changes))


def printed(case: Case, config: Path, words: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and error of a command, without the folder of the test."""
    said, folder = io.StringIO(), config.parent
    run = folder / "runs" / "tiny"
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main([{"c.yaml": str(config), "runs/tiny": str(run)}.get(word, word) for word in words])
    text = re.sub(r"/\S+/swinft-problems-\w+", "swinft-problems-…", said.getvalue().replace(f"{folder}/", ""))
    lines = [line for line in text.splitlines() if "Warning: " not in line]
    return code, "\n".join(lines[next((k for k, line in enumerate(lines) if line.startswith("swinft ")), 0) :]).strip()


def spoiled(case: Case, folder: Path, source: Path) -> tuple[int, str]:
    """What is printed where everything of a case is wrong."""
    shutil.copytree(source, folder / "data")
    if case.before:
        assert printed(case, config_of(case, folder, {}), case.before)[0] == 0
    if case.spoil:
        case.spoil(folder / "data")
    return printed(case, config_of(case, folder, case.changes), case.words)


def section(case: Case, message: str) -> str:
    """A case on the page."""
    message = re.sub(r"(keyword argument '\w+')\. Did you mean '\w+'\?", r"\1", message)  # Python 3.13 adds it
    return f"### {case.title}\n```text\n{message}\n```\n**Fix:** {case.fix}\n"


def page(messages: dict[str, str]) -> str:
    """The whole page."""
    parts = [TOP]
    for group, cases in GROUPS.items():
        parts += [f"## {group}\n{LEADS.get(group, '')}", *(section(case, messages[case.title]) for case in cases)]
    return "\n".join(parts)


CASES = [
    pytest.param(case, id=case.title, marks=pytest.mark.slow if case.before else ())
    for cases in GROUPS.values()
    for case in cases
]


@pytest.mark.parametrize("case", CASES)
def test_the_error_is_printed_as_on_the_page(case, competition, tmp_path):
    code, message = spoiled(case, tmp_path, competition)
    assert code == 2
    assert section(case, message) in PAGE.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.values[0].fixed is not None])
def test_the_fix_ends_the_error(case, competition, tmp_path):
    assert spoiled(case, tmp_path, competition)[0] == 2
    words = case.words
    if case.fixed is MENDED:
        shutil.copytree(competition, tmp_path / "data", dirs_exist_ok=True)
        words = tuple(CHECK)
    config = config_of(case, tmp_path, {**case.changes, **(case.fixed or {})})
    code, message = printed(case, config, tuple(word for word in words if word != "--resume"))
    assert code == 0, message


OPTIONS = [
    pytest.param(case, words.split(), id=f"{case.title}: {words}")
    for cases in GROUPS.values()
    for case in cases
    for words in re.findall(r"`(--[^`]+)`", case.fix)
    if " " in words or words in ("--resume", "--overwrite")  # a value is given, or none is taken
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "options"), OPTIONS)
def test_an_option_that_a_fix_names_ends_the_error(case, options, competition, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stars.py").write_text("from swinft import ClassificationHead as StarsHead\n")
    assert spoiled(case, tmp_path, competition)[0] == 2
    words = [word for word in case.words if word != "--resume" or "--name" not in options]
    code, message = printed(case, tmp_path / "c.yaml", (*words, *options))
    assert code == 0, message


def test_the_page_has_no_other_errors():
    titles = [case.title for cases in GROUPS.values() for case in cases]
    assert re.findall(r"^### (.+)$", PAGE.read_text(), re.MULTILINE) == titles


def write_page() -> None:
    """Produces every error, and writes the page."""
    messages = {}
    for cases in GROUPS.values():
        for case in cases:
            with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as data:
                make_competition(Path(data))
                code, messages[case.title] = spoiled(case, Path(folder), Path(data))
                assert code == 2, (case.title, code)
    PAGE.write_text(page(messages))


if __name__ == "__main__":
    write_page()
