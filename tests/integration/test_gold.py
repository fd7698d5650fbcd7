"""Every config of configs/gold goes from check to a submission, in its competition's layout and with a small backbone."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from swinft.cli import main
from tests.conftest import ROOT, TINY_SWIN, in_this_process, write_config
from tests.integration.layouts.gold import GOLD_LAYOUTS

GOLD = sorted((ROOT / "configs" / "gold").rglob("*.yaml"))
VIT = {"embed_dim": 48, "depth": 4, "num_heads": 3}
DINO = {"embed_dim": 64, "depth": 5, "num_heads": 2}
# Side in pixels, and what makes the config's backbone small; a name where timm takes no such arguments.
SMALL: dict[str, tuple[int, dict[str, object] | str]] = {
    "cassava2020_1st": (32, VIT),
    "csiro2025_4th": (32, DINO),
    "csiro2025_8th": (32, DINO),
    "fathomnet2025_2nd": (32, "mobilenetv3_small_050"),
    "hms2024_4th": (32, "edgenext_xx_small"),
    "isic2024_1st": (28, {"embed_dim": 48, "depth": 2, "num_heads": 2}),
    "isic2024_2nd": (32, {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}),
    "isic2024_3rd": (32, VIT),
    "petfinder2021_1st": (32, TINY_SWIN),
    "planttraits2024_1st": (28, VIT),
    "rsna2024_2nd": (32, "mobilenetv3_small_050"),
    "rsna2024_6th": (32, {"depths": [1, 1, 1, 1], "embed_dim": [32, 64, 64, 64]}),
}
# What a small config may change; the recipe's other keys are those of the file.
CHANGED = {
    "runs",
    "data.root",
    "data.image_size",
    "data.batch_size",
    "data.augment",
    "data.folds.num",
    "data.loading.num_workers",
    "model.backbone",
    "model.pretrained",
    "model.optim.warmup_epochs",
    "trainer.max_epochs",
    "trainer.accelerator",
    "trainer.precision",
    "trainer.accumulate_grad_batches",
}


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config by dotted keys, three sections deep."""
    found = {}
    for key, value in section.items():
        is_section = isinstance(value, dict) and prefix.count(".") < 2 and "class_path" not in value
        found |= flat(value, f"{prefix}{key}.") if is_section else {prefix + key: value}
    return found


def resized(transforms: Any, old: int, new: int) -> Any:
    """A pipeline that ends at another size."""
    if isinstance(transforms, list):
        return [resized(each, old, new) for each in transforms]
    if isinstance(transforms, dict):
        return {key: resized(value, old, new) for key, value in transforms.items()}
    return new if transforms == old and isinstance(transforms, int) else transforms


def small(path: Path, root: Path, folder: Path) -> Path:
    """Writes the config with a small backbone, small images and one epoch."""
    config = yaml.safe_load(path.read_text())
    size, shrunk = SMALL[path.stem]
    data, model, trainer = config["data"], config["model"], config["trainer"]
    config["runs"] = str(folder / "runs")
    data["augment"] = resized(data["augment"], data["image_size"], size)
    data |= {"root": str(root), "image_size": size, "batch_size": 8}
    if "num" in data["folds"]:
        data["folds"]["num"] = 2
    data["loading"]["num_workers"] = 0
    model["pretrained"] = False
    model |= {"backbone": shrunk} if isinstance(shrunk, str) else {"backbone_args": dict(shrunk)}
    model["optim"]["warmup_epochs"] = 0
    soup = config.get("checkpoint", {})
    epochs = soup["epochs"] if isinstance(soup, dict) and soup else 1
    trainer |= {"max_epochs": epochs, "accelerator": "cpu", "precision": "32-true", "accumulate_grad_batches": 1}
    before, after = flat(yaml.safe_load(path.read_text())), flat(config)
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert {key for key in changed if not key.startswith("model.backbone_args.")} <= CHANGED
    return write_config(folder / f"{path.stem}.yaml", config)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The folder of each competition, made when it is first asked for."""
    made: dict[str, Path] = {}

    def of(path: Path) -> Path:
        name = path.stem.rpartition("_")[0]
        if name not in made:
            made[name] = GOLD_LAYOUTS[name](tmp_path_factory.mktemp(name), 0)
        return made[name]

    return of


def test_there_are_recipes_and_each_says_where_it_is_from():
    assert len(GOLD) >= 10
    readme = (ROOT / "README.md").read_text()
    for path in GOLD:
        header = re.match(r"(?:#.*\n)+", path.read_text()).group()
        words = ("Competition  https://", "Source ", "Published ", "Expressed ", "Ours ", "Not ", "Files ")
        assert [word for word in words if f"# {word}" not in header] == [], path.name
        assert header.count("https://") >= 2, path.name
        assert f"configs/gold/{path.name}" in readme


@pytest.mark.parametrize("name", ["csiro2025_8th", "hms2024_4th", "isic2024_2nd"])  # the others in the slow test
def test_check_passes_in_the_layout_of_the_competition(name, layouts, tmp_path, capsys):
    path = ROOT / "configs" / "gold" / f"{name}.yaml"
    assert main(["check", "--config", str(small(path, layouts(path), tmp_path))]) == 0, capsys.readouterr().err
    assert "submission: writes" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("path", GOLD, ids=lambda path: path.stem)
def test_a_recipe_goes_from_check_to_a_submission(path, layouts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    root, config = layouts(path), small(path, layouts(path), tmp_path)
    assert main(["check", "--config", str(config)]) == 0
    assert main(["fit", "--config", str(config)]) == 0, capsys.readouterr().err
    run = tmp_path / "runs" / path.stem
    assert main(["predict", str(run), "--device", "cpu"]) == 0, capsys.readouterr().err
    assert main(["submit", str(run)]) == 0, capsys.readouterr().err
    settings = yaml.safe_load(path.read_text())
    read = {"dtype": str, "keep_default_na": False}
    sample = pd.read_csv(root / settings["data"]["sample_submission"], **read)
    written = pd.read_csv(run / "submission.csv", **read)
    assert list(written.columns) == list(sample.columns)
    assert written.iloc[:, 0].tolist() == sample.iloc[:, 0].tolist()
    predicted = pd.read_csv(run / "test_predictions.csv", dtype={0: str}, index_col=0).loc[written.iloc[:, 0]]
    check_cells(written.iloc[:, 1:], predicted, settings)
    shutil.rmtree(tmp_path)


def check_cells(cells: pd.DataFrame, predicted: pd.DataFrame, settings: dict[str, Any]) -> None:
    """The cells of a submission are what the predictions say, and what the target allows."""
    sample_is_named = set(cells.columns) <= set(predicted.columns)
    if settings["name"] in ("cassava2020_1st", "fathomnet2025_2nd"):  # the most probable class
        assert cells.iloc[:, 0].tolist() == predicted.drop(columns="status", errors="ignore").idxmax(axis=1).tolist()
        return
    names = settings.get("submission", {}).get("columns", {})
    wanted = (
        predicted["1"].to_frame() if not sample_is_named and not names else predicted[[names.get(n, n) for n in cells]]
    )
    if settings["name"] == "csiro2025_8th":  # its rules
        wanted = wanted.assign(GDM_g=wanted["Dry_Green_g"] + wanted["Dry_Clover_g"])
        wanted = wanted.assign(Dry_Total_g=wanted["GDM_g"] + wanted["Dry_Dead_g"])
    found = cells.astype(float).to_numpy()
    np.testing.assert_allclose(found, wanted.to_numpy(), atol=1e-6)
    assert np.isfinite(found).all()
    if settings["data"]["target_kind"] == "classification":
        assert ((found >= 0) & (found <= 1)).all()
        assert cells.shape[1] == 1 or np.allclose(found.sum(1), 1, atol=1e-6)
    elif "csiro" in settings["name"]:
        assert (found >= 0).all()
    elif "petfinder" in settings["name"]:
        assert ((found >= 1) & (found <= 100)).all()
