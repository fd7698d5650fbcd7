"""Every shipped config goes from the folder of its download to a submission, and again with the rows of the scored run.

The networks are tiny and trained for an epoch: what is tested is the way, not the score.
"""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import yaml

from swinft.cli import main
from tests.conftest import ROOT, TINY_SWIN, in_this_process
from tests.integration.layouts import LAYOUTS, Layout

FAST = ("plant_2020",)  # the others in the slow tests
FAST_NEW = ("paddy",)
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if "bluemarble" not in path.stem)
# Probabilities may be in columns whose cells are 0 in the sample.
ALSO = {"whole numbers": ("whole numbers", "numbers"), "numbers": ("whole numbers", "numbers"), "words": ("words",)}
DECIDED = ("accuracy", "macro_f1", "quadratic_kappa")  # metrics of answers in the truth's own words
TEXT = {"dtype": str, "keep_default_na": False}


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """Options that make a config's network, images and plan small; the recipe's other keys are its own."""
    options: dict[str, Any] = {
        "data.image_size": 32,
        "data.batch_size": 8,
        "data.loading.num_workers": 0,
        "data.loading.cache": "false",
        "model.backbone": "swin_tiny_patch4_window7_224",
        "model.backbone_args": json.dumps(TINY_SWIN),
        "model.pretrained": "false",
        "model.optim.warmup_epochs": 0,
        "trainer.max_epochs": 1,
        "trainer.accumulate_grad_batches": 1,
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
    }
    if config["data"]["target_kind"] == "segmentation":  # a network with five stages
        options |= {"model.backbone": "mobilenetv3_small_050", "model.backbone_args": "null"}
    if config["data"].get("folds", {}).get("num"):
        options["data.folds.num"] = 2
    sampler = config["data"].get("loading", {}).get("sampler") or {}
    if "negatives" in sampler.get("init_args", {}):
        options["data.loading.sampler.init_args.negatives"] = 2  # there are few rows
    if config["model"].get("freeze_epochs"):
        options["model.freeze_epochs"] = 0
    if isinstance(config["data"].get("augment"), list):
        options["data.augment"] = "light"
    return options


def images_of(data: dict[str, Any]) -> tuple[Any, Any]:
    """Where a config's images are, and those of the rows to predict."""
    image = data["image"]["path"] if isinstance(data["image"], dict) else data["image"]
    return image, data.get("columns", {}).get("test_image", image)


def command(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Runs a command that must succeed; what it printed."""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 0, said.err or said.out
    return said.out


def table(path: Path) -> pd.DataFrame:
    """A table of predictions: ids as index, numbers, without the columns that are no outputs."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    frame = pd.DataFrame([row[1:] for row in rows], columns=header[1:], index=pd.Index([row[0] for row in rows]))
    if "fold" in frame:
        frame = frame[frame["fold"] != "-1"]  # rows that are trained on and never scored
    return frame.drop(columns=[name for name in ("fold", "status") if name in frame]).astype(float)


def kind_of(cells: "pd.Series[str]") -> str:
    """What a column of a submission holds."""
    patterns = {"whole numbers": r"-?\d+", "numbers": r"-?\d+(\.\d+)?(e-?\d+)?"}
    found = [kind for kind, pattern in patterns.items() if cells.str.fullmatch(pattern).all()]
    return found[0] if found else "words"


def check_file(path: Path, sample: Path, has_empty: bool = False) -> pd.DataFrame:
    """A submission has the header, ids, order, rows and kinds of cells of the sample; its cells by id."""
    with path.open(newline="") as file, sample.open(newline="") as other:
        assert next(csv.reader(file)) == next(csv.reader(other))
    written, wanted = pd.read_csv(path, **TEXT), pd.read_csv(sample, **TEXT)
    assert written.iloc[:, 0].tolist() == wanted.iloc[:, 0].tolist()
    for name in wanted.columns[1:]:
        assert has_empty or (written[name] != "").all(), name
        if (wanted[name] != "").all() and not has_empty:
            assert kind_of(written[name]) in ALSO[kind_of(wanted[name])], name
    return written.set_index(written.columns[0])


def from_check_to_submissions(layout: Layout, words: list[str], run: Path, capsys: Any) -> None:
    """All commands; the scores are those of functions that do not use swinft."""
    metric = layout.metric
    said = command(capsys, "check", *words)
    assert layout.sample is None or "submission: writes" in said
    said = command(capsys, "fit", *words)
    scores = json.loads((run / "scores.json").read_text())["pooled"]
    found = next(value for name, value in scores.items() if re.match(rf"{metric.name}\b", name))
    has_masks = (run / "oof.maps.npy").exists()
    if not has_masks:  # masks are decided by what is fitted on them
        known = layout.answer(table(run / "oof.csv"))
        assert found == pytest.approx(metric.score(layout.train.loc[known.index], known), abs=1e-6)
    assert metric.name in said
    if layout.sample is None:
        return
    twice = [(layout.root, layout.hidden, []), (layout.rerun, layout.hidden_rerun, ["--root", layout.rerun])]
    for root, hidden, options in twice:
        command(capsys, "predict", run, "--device", "cpu", *options)
        if has_masks:
            command(capsys, "submit", run, *options)
            assert 0 <= metric.score(hidden, check_file(run / "submission.csv", root / layout.sample, True)) <= 1
            continue
        command(capsys, "submit", run, "--rules", "[]", *options)
        predicted = layout.answer(table(run / "test_predictions.csv"))
        written = check_file(run / "submission.csv", root / layout.sample)
        if len(hidden) > 2:  # fewer rows may have one class
            wanted = metric.score(hidden, predicted)
            assert metric.score(hidden, written) == pytest.approx(wanted, abs=1e-6, nan_ok=True)
        if metric.word in DECIDED:
            assert kind_of(written.iloc[:, 0]) == kind_of(hidden.iloc[:, 0].astype(str))
        command(capsys, "submit", run, *options)
        check_file(run / "submission.csv", root / layout.sample)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in NAMES if name in LAYOUTS]
)
def test_a_shipped_config_goes_to_a_submission_that_the_host_scores_alike(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    layout, path = LAYOUTS[name](tmp_path / "data", 0), ROOT / "configs" / f"{name}.yaml"
    options = {"runs": tmp_path / "runs", "data.root": layout.root, **shrunk(yaml.safe_load(path.read_text()))}
    words = ["--config", str(path), *(f"--{key}={value}" for key, value in options.items())]
    from_check_to_submissions(layout, words, tmp_path / "runs" / name, capsys)
    shutil.rmtree(tmp_path)


def test_every_config_has_a_layout_and_says_what_is_needed():
    assert len(NAMES) >= 10
    for name in NAMES:
        text = (ROOT / "configs" / f"{name}.yaml").read_text()
        config, header = yaml.safe_load(text), re.match(r"(?:#.*\n)+", text)
        assert name in LAYOUTS
        assert config["name"] == name
        assert config["data"]["root"].startswith("data/")
        assert header
        assert all(word in header[0] for word in ("# Data ", "# Hardware ", "# Score "))
        assert f"swinft fit --config configs/{name}.yaml" in header[0]
        assert timm.models.is_model_pretrained(config["model"]["backbone"]), name


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST_NEW else [pytest.mark.slow]) for name in LAYOUTS],
)
def test_a_config_that_swinft_new_proposes_goes_to_a_submission_without_an_edit(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    layout, path = LAYOUTS[name](tmp_path / "data", 0), tmp_path / "new.yaml"
    command(capsys, "new", layout.slug, "--data", layout.root, "--output", path, "--no-check")
    config = yaml.safe_load(path.read_text())
    known, new = (str(each).replace("train", "test").partition("/")[0] for each in images_of(config["data"]))
    assert known == new or "{" in known + new or new.endswith(".hdf5")
    options = {"runs": tmp_path / "runs", **shrunk(config)}
    words = ["--config", str(path), *(f"--{key}={value}" for key, value in options.items())]
    from_check_to_submissions(layout, words, tmp_path / "runs" / layout.slug, capsys)
    shutil.rmtree(tmp_path)
