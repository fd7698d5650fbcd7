"""Masks of real satellite tiles by a known rule: sea, land and ice by their colours."""

import json

import numpy as np
import pytest
from PIL import Image

from swinft.cli import main
from swinft.inference.predictions import Predictions
from tests.conftest import ROOT, fit_in_process, power_gone_after, write_config
from tests.integration.test_segmentation import dice, rows_of, salt_config
from tests.integration.test_tiles import segmentation

TILES = ROOT / "competitions" / "bluemarble"
NET = {"embed_dim": 24, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4}


def classes_of(pixels):
    """0 for sea, 1 for land and 2 for ice: sea is blue, what is bright is snow or ice."""
    pixels = pixels.astype(int)
    is_land = pixels[..., 2] < 1.25 * pixels[..., :2].max(2) + 8
    is_ice = is_land & (pixels.max(2) > 200)
    return is_land.astype(np.uint8) + is_ice


def write_mosaics(root, down, across, count):
    """Images of `down` × `across` neighbouring rows of the demo's table, and files of class numbers."""
    names = [row["image"] for row in rows_of(TILES / "train.csv")]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    step, shares = down * across, []
    for i in range(count):
        each = [np.asarray(Image.open(TILES / "images" / name).convert("RGB")) for name in names[step * i :][:step]]
        pixels = np.concatenate([np.concatenate(each[across * k :][:across], axis=1) for k in range(down)])
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        Image.fromarray(classes_of(pixels)).save(root / "masks" / f"{i}.png")
        shares.append(np.bincount(classes_of(pixels).ravel(), minlength=3) / pixels[..., 0].size)
    (root / "train.csv").write_text("id\n" + "".join(f"{i}\n" for i in range(count)))
    return np.mean(shares, axis=0)


def satellite_config(root, runs, kind, **changes):
    own = {
        "data.target": ["ice", "land", "sea"],
        "data.target_kind": segmentation(
            files="masks/{id}.png", values={"ice": 2, "land": 1, "sea": 0}, classes="complete", **kind
        ),
        "data.sample_submission": None,
        "data.image_size": 64,
        "data.batch_size": 16,
        "data.loading": {},
        "model.metrics": ["pooled_dice", "dice"],
        "model.head": {
            "class_path": "swinft.SoftmaxSegmentationHead",
            "init_args": {
                "decoder_args": {"decoder_channels": [32, 32, 16, 16]},
                "loss": {"ce": 1.0, "dice": 1.0},
                "classes": "complete",
            },
        },
        "model.backbone_args": NET,
        "trainer.max_epochs": 20,
    }
    return salt_config(root, runs, **{**own, **changes})


def check_resume_and_scores(config, resumed, least):
    """Fits, and fits fold 0 again with an interruption: the same bytes. Every class reaches a score."""
    fit_in_process(config)
    runs = config.parent / "runs" / "tiny"
    scores = json.loads((runs / "scores.json").read_text())
    of_classes = {name: each["pooled_dice"] for name, each in scores["masks"]["of_classes"].items()}
    assert min(of_classes.values()) >= least, of_classes
    with power_gone_after(2):
        main(["fit", "--config", str(resumed), "--fold", "0"])
    assert main(["fit", "--config", str(resumed), "--fold", "0", "--resume"]) == 0
    for name in ("weights.safetensors", "oof.maps.npy", "oof.csv"):
        one = config.parent / "resumed" / "tiny" / "fold_0" / name
        assert one.read_bytes() == (runs / "fold_0" / name).read_bytes(), name
    return runs, scores


@pytest.mark.slow
def test_sea_land_and_ice_are_told_apart_as_classes_of_one_softmax(tmp_path):
    shares = write_mosaics(tmp_path, 1, 1, 240)
    assert shares.min() > 0.04, shares
    configs = [
        write_config(tmp_path / f"{name}.yaml", satellite_config(tmp_path, tmp_path / name, {}))
        for name in ("runs", "resumed")
    ]
    _, scores = check_resume_and_scores(*configs, 0.85)
    assert scores["pooled"]["pooled_dice"] >= 0.9


@pytest.mark.slow
def test_mosaics_of_satellite_tiles_are_predicted_in_tiles_at_full_resolution(tmp_path):
    write_mosaics(tmp_path, 3, 4, 32)
    kind = {"tile": {"overlap": 0.5, "masked": 0.5, "per_image": 8}}
    configs = [
        write_config(tmp_path / f"{name}.yaml", satellite_config(tmp_path, tmp_path / name, kind))
        for name in ("runs", "resumed")
    ]
    run, scores = check_resume_and_scores(*configs, 0.85)
    assert scores["pooled"]["pooled_dice"] >= 0.9
    maps = Predictions.read(run / "oof.csv", 3).maps
    assert {each.shape for each in maps.levels} == {(3, 180, 240)}
    found = []
    for row in range(len(maps)):
        index = np.asarray(Image.open(tmp_path / "masks" / f"{row}.png"))
        decided = maps.decided(row, "squash", "complete") > 0
        assert (decided.sum(0) == 1).all()
        found.append([dice(decided[k], index == 2 - k) for k in range(3)])
    assert scores["pooled"]["dice"] == pytest.approx(np.mean(found))
