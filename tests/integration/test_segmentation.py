"""Segmentation from the command line: masks are trained, scored at their own size, and submitted as run lengths."""

import copy
import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import swinft
from swinft.cli import main
from swinft.data.masks.rle import decode, encode, parse, text_of
from swinft.inference.predictions import Predictions
from swinft.kaggle.bundle.kernel import main as kernel
from swinft.model.metrics.masks import dice_of
from tests.conftest import ROOT, fit_in_process, in_this_process, power_gone_after, tiny_config, write_config
from tests.data.masks.salt import SIZE, disc, write_salt
from tests.integration.faults.test_ranks import fitted
from tests.integration.layouts import LAYOUTS
from tests.integration.test_competitions import shrunk

HEAD = {
    "class_path": "swinft.SegmentationHead",
    "init_args": {"decoder_args": {"decoder_channels": [32, 16, 16]}, "loss": {"bce": 1.0, "dice": 1.0}},
}


@pytest.fixture(scope="module")
def salt(tmp_path_factory):
    return write_salt(tmp_path_factory.mktemp("salt"), 24)


def salt_config(salt, runs, **changes):
    own = {
        "data.target": "rle_mask",
        "data.target_kind": "segmentation",
        "data.test": None,
        "data.sample_submission": "sample_submission.csv",
        "data.image": "images/{id}.png",
        "data.loading": {"resize": "pad"},
        "model.head": copy.deepcopy(HEAD),
        "model.metrics": ["map_over_iou", "dice"],
        "model.optim": {"lr": 5e-3, "warmup_epochs": 0.5},
        "model.ema_decay": None,
        "data.batch_size": 4,
        "trainer.max_epochs": 8,
        "predict": {"views": ["identity", "hflip", "rot90"]},
    }
    return tiny_config(salt, runs, **{**own, **changes})


@pytest.fixture(scope="module")
def run(salt, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    config = write_config(folder / "config.yaml", salt_config(salt, folder / "runs"))
    fit_in_process(config)
    run = folder / "runs" / "tiny"
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    return run


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def dice(found, true):
    total = found.sum() + true.sum()
    return 2 * (found & true).sum() / total if total else 1.0


def test_masks_are_submitted_at_the_size_of_each_image_and_show_its_disc(run):
    rows = rows_of(run / "submission.csv")
    assert [row["id"] for row in rows] == ["t3", "t2", "t1", "t0"]
    scores = [dice(decode(parse(row["rle_mask"]), (44, 36)), disc(2 + i, (44, 36))) for i, row in enumerate(rows)]
    assert np.mean(scores) > 0.6, scores


def test_the_pooled_score_is_that_of_the_stored_maps_at_full_size(run, salt):
    oof = Predictions.read(run / "oof.csv", 1)
    assert oof.maps.levels.shape == (24, 1, 32, 32)
    assert oof.maps.sizes.tolist() == [list(SIZE)] * 24
    found = [dice(oof.maps.full(i, 0, "pad") >= 128, disc(int(id))) for i, id in enumerate(oof.ids)]
    scores = json.loads((run / "scores.json").read_text())
    assert scores["pooled"]["dice"] == pytest.approx(np.mean(found))
    assert np.mean(found) > 0.6
    np.testing.assert_allclose(oof.values[:, 0], oof.maps.levels.mean((1, 2, 3)) / 255, rtol=1e-4)
    assert sorted(scores["masks"]["cross_fitted"]) == ["dice", "map_over_iou"]
    assert (run / "report.html").is_file()
    assert len(rows_of(run / "errors.csv")) == 24


def test_the_report_draws_the_worst_the_best_and_random_masks_with_their_scores(run):
    page = (run / "report.html").read_text()
    groups = re.split("<h3>Masks: ", page.partition('<section id="masks"')[2].partition("</section>")[0])[1:]
    assert [each.partition(",")[0] for each in groups] == ["worst", "best", "random"]
    assert [each.count("<img") for each in groups] == [8, 4, 4]
    assert "Rows with the largest error" not in page
    worst, best = ([float(x) for x in re.findall(r"<br><bdi>([0-9.]+), fold", each)] for each in groups[:2])
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert worst[0] < best[0] == 1


class OwnDice(swinft.Metric):
    kinds, higher_is_better = ("segmentation",), True

    def compute(self, predictions, targets, rows):
        return float(dice_of(np.dstack([predictions, targets])).mean())


def test_rows_of_the_report_are_ordered_by_a_custom_metric(salt, tmp_path):
    own = {"class_path": f"{__name__}.OwnDice", "init_args": {}}
    changes = {"model.metrics": [own, "dice"], "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", salt_config(salt, tmp_path / "runs", **changes))
    fit_in_process(config, "--allow-code", "tests")
    run = tmp_path / "runs" / "tiny"
    pooled, page = json.loads((run / "scores.json").read_text())["pooled"], (run / "report.html").read_text()
    assert pooled["OwnDice"] == pytest.approx(pooled["dice"])
    assert "Masks: worst, by OwnDice" in page
    assert main(["report", str(run), "--allow-code", "tests"]) == 0
    assert (run / "report.html").read_text() == page


def test_plain_numpy_reads_the_maps(run):
    with (run / "test_predictions.maps.npy").open("rb") as file:
        table, levels = np.load(file), np.load(file)
    assert table["id"].tolist() == ["t3", "t2", "t1", "t0"]
    assert (levels.dtype, levels.shape) == (np.uint8, (4, 1, 32, 32))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.loading": {"resize": "crop"}}, "resize is crop"),
        ({"predict": {"views": ["identity", "scale"]}}, "view 'scale'"),
        ({"model.mix": {"mixup_alpha": 0.2}}, "mixup_alpha changes images"),
        ({"model.pooling": "gem"}, "model.pooling is for one vector"),
        ({"model.head": {"class_path": "swinft.MultilabelHead"}}, "does not score multilabel"),
        ({"model.metrics": ["accuracy"]}, "does not score segmentation"),
        ({"submission": {"rules": ["normalize"]}}, "not for segmentation"),
        ({"submission": {"format": "label"}}, "can write rle"),
        (
            {"data.target_kind": {"class_path": "swinft.Segmentation", "init_args": {"files": "masks/all.png"}}},
            "names no column",
        ),
        (
            {"data.target_kind": {"class_path": "swinft.Segmentation", "init_args": {"order": "column"}}},
            "order",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(salt, tmp_path, capsys, changes, said):
    config = write_config(tmp_path / "c.yaml", salt_config(salt, tmp_path, **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert said in capsys.readouterr().err


def test_commands_that_combine_or_convert_numbers_refuse_masks(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "other")
    assert main(["ensemble", str(run), str(tmp_path / "other"), "--name", "e", "--runs", str(tmp_path)]) == 2
    assert "masks" in capsys.readouterr().err
    assert main(["export", str(run), "--fold", "0", "--to", "onnx"]) == 2
    assert "cannot be exported" in capsys.readouterr().err


def test_another_order_of_rows_gives_the_same_masks_by_id(run, salt, tmp_path):
    (tmp_path / "other.csv").write_text("id\nt0\nt2\nt3\nt1\n")
    output = tmp_path / "other_predictions.csv"
    words = ["predict", str(run), "--device", "cpu", "--test", str(tmp_path / "other.csv"), "--output", str(output)]
    assert main(words) == 0
    found, known = Predictions.read(output, 1), Predictions.read(run / "test_predictions.csv", 1)
    again = found.join(known.ids, "other")
    assert found.ids == ["t0", "t2", "t3", "t1"]
    assert np.abs(again.maps.levels.astype(int) - known.maps.levels).max() <= 1
    assert main(["submit", str(run), "--predictions", str(output), "--output", str(tmp_path / "s.csv")]) == 0
    for one, other in zip(rows_of(tmp_path / "s.csv"), rows_of(run / "submission.csv"), strict=True):
        assert one["id"] == other["id"]
        assert dice(decode(parse(one["rle_mask"]), (44, 36)), decode(parse(other["rle_mask"]), (44, 36))) > 0.97


def test_maps_of_other_predictions_are_not_taken_for_those_of_a_table(run, tmp_path, capsys):
    for name in ("test_predictions.csv", "test_predictions.made_from.json"):
        shutil.copy(run / name, tmp_path / name.replace("test_", ""))
    shutil.copy(run / "oof.maps.npy", tmp_path / "predictions.maps.npy")
    assert main(["submit", str(run), "--predictions", str(tmp_path / "predictions.csv"), "--dry-run"]) != 0
    assert "does not hold the maps of predictions.csv" in capsys.readouterr().err
    (tmp_path / "predictions.maps.npy").unlink()
    assert main(["submit", str(run), "--predictions", str(tmp_path / "predictions.csv"), "--dry-run"]) == 2
    assert "have no maps" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fold_that_was_interrupted_after_its_first_epoch_ends_with_the_same_bytes(run, salt, tmp_path):
    config = write_config(tmp_path / "config.yaml", salt_config(salt, tmp_path / "runs"))
    with power_gone_after(1):
        main(["fit", "--config", str(config), "--fold", "0"])
    assert main(["fit", "--config", str(config), "--fold", "0", "--resume"]) == 0
    for name in ("weights.safetensors", "oof.maps.npy", "oof.csv"):
        assert (tmp_path / "runs" / "tiny" / "fold_0" / name).read_bytes() == (run / "fold_0" / name).read_bytes(), name


@pytest.mark.slow
def test_two_processes_predict_as_one(run, tmp_path):
    output = tmp_path / "two.csv"
    words = ["predict", str(run), "--device", "cpu", "--devices", "2", "--output", str(output)]
    assert main(words) == 0
    found, known = Predictions.read(output, 1), Predictions.read(run / "test_predictions.csv", 1)
    assert found.ids == known.ids
    assert np.abs(found.maps.levels.astype(int) - known.maps.levels).max() <= 1
    assert found.maps.sizes.tolist() == known.maps.sizes.tolist()


@pytest.mark.slow
def test_the_config_of_tgs_salt_goes_to_a_submission_that_the_host_scores_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    layout, path = LAYOUTS["tgs_salt"](tmp_path / "data", 0), ROOT / "configs" / "tgs_salt.yaml"
    options = {**shrunk(yaml.safe_load(path.read_text())), "trainer.max_epochs": 4, "data.root": layout.root}
    options |= {"data.image_size": 64, "model.optim.lr": 5e-3, "model.optim.head_lr": "null", "runs": tmp_path / "runs"}
    words = ["--config", str(path), *(f"--{key}={value}" for key, value in options.items())]
    assert main(["check", *words]) == 0
    assert main(["fit", *words]) == 0
    run = tmp_path / "runs" / "tgs_salt"
    oof = Predictions.read(run / "oof.csv", 1)
    cells = [text_of(encode(oof.maps.full(row, 0, "squash") >= 128)) for row in range(len(oof))]
    answers = pd.DataFrame({"rle_mask": cells}, index=oof.ids)
    pooled = json.loads((run / "scores.json").read_text())["pooled"]["map_over_iou"]
    assert pooled == pytest.approx(layout.metric.score(layout.train.loc[oof.ids], answers), abs=1e-9)
    for root, hidden, options in (
        (layout.root, layout.hidden, []),
        (layout.rerun, layout.hidden_rerun, ["--root", str(layout.rerun)]),
    ):
        assert main(["predict", str(run), "--device", "cpu", *options]) == 0
        assert main(["submit", str(run), *options]) == 0
        written = pd.read_csv(run / "submission.csv", dtype=str, keep_default_na=False)
        sample = pd.read_csv(root / layout.sample, dtype=str)
        assert (written["id"].tolist(), list(written)) == (sample["id"].tolist(), list(sample))
        score = layout.metric.score(hidden, written.set_index("id"))
        assert score > layout.metric.score(hidden, sample.set_index("id"))


@pytest.mark.slow
def test_land_and_ocean_of_real_tiles_are_told_apart(tmp_path):
    """Satellite tiles of the demo; the mask is what is not the blue of the sea."""
    tiles = ROOT / "competitions" / "bluemarble"
    names = [row["image"] for row in rows_of(tiles / "train.csv")][:240]
    (tmp_path / "masks").mkdir()
    shares = []
    for name in names:
        pixels = np.asarray(Image.open(tiles / "images" / name).convert("RGB")).astype(int)
        land = pixels[..., 2] < 1.25 * pixels[..., :2].max(2) + 8
        shares.append(land.mean())
        Image.fromarray(land.astype(np.uint8) * 255).save(tmp_path / "masks" / f"{Path(name).stem}.png")
    assert 0.1 < np.mean(shares) < 0.95
    assert np.mean([0.02 < share < 0.98 for share in shares]) > 0.1  # coasts
    (tmp_path / "images").symlink_to(tiles / "images")
    (tmp_path / "train.csv").write_text("image,stem\n" + "".join(f"{name},{Path(name).stem}\n" for name in names))
    changes = {
        "data.id": "image",
        "data.image": "images/{image}",
        "data.target": "land",
        "data.target_kind": {"class_path": "swinft.Segmentation", "init_args": {"files": "masks/{stem}.png"}},
        "data.sample_submission": None,
        "data.image_size": 64,
        "data.batch_size": 16,
        "data.loading": {"follow_links": True},
        "model.metrics": ["dice", "iou"],
        "model.head.init_args.decoder_args": {"decoder_channels": [32, 32, 16, 16]},
        "model.backbone_args": {"embed_dim": 24, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4},
        "trainer.max_epochs": 6,
    }
    config = write_config(tmp_path / "c.yaml", salt_config(tmp_path, tmp_path / "runs", **changes))
    fit_in_process(config)
    scores = json.loads((tmp_path / "runs" / "tiny" / "scores.json").read_text())
    assert scores["pooled"]["dice"] >= 0.9, scores["pooled"]


@pytest.mark.slow  # every network is loaded three times
def test_a_predictor_and_a_bundle_give_the_same_masks(run, salt, tmp_path, capsys):
    given = pd.read_csv(salt / "sample_submission.csv", dtype=str)[["id"]]
    found = swinft.open_run(run).predictor(device="cpu").predict(given)
    stored = Predictions.read(run / "test_predictions.csv", 1)
    assert found.maps is not None
    for id in given["id"]:
        place, other = found.ids.index(id), stored.ids.index(id)
        assert np.array_equal(found.maps.levels[place], stored.maps.levels[other])
    words = ["--owner", "me", "--competition", "salt", "--wheels", "skip", "--output", str(tmp_path / "out")]
    assert main(["bundle", str(run), *words]) == 0
    needed = json.loads((tmp_path / "out" / "wheels" / "needed.json").read_text())
    assert "segmentation-models-pytorch" in needed
    output = tmp_path / "submission.csv"
    assert (
        kernel([str(tmp_path / "out" / "weights"), "--root", str(salt), "--output", str(output), "--device", "cpu"])
        == 0
    )
    assert output.read_bytes() == (run / "submission.csv").read_bytes()
    other = shutil.copytree(run, tmp_path / "other")
    assert main(["bundle", str(run), str(other), *words]) == 2
    assert "masks of several runs have no mean" in capsys.readouterr().err


@pytest.mark.slow
def test_two_ranks_train_a_decoder_of_maps_that_a_backbone_lacks_in_part(salt, tmp_path):
    """A Swin has no map of stride 2: every parameter of the decoder must have a gradient, or the ranks would wait."""
    changes = salt_config(salt, tmp_path)
    given = {"data.batch_size": 2, "trainer.max_epochs": 2, "trainer.devices": 2, "trainer.strategy": "ddp"}
    flat = {f"{section}.{key}": value for section in ("data", "model") for key, value in changes[section].items()}
    flat = {key: value for key, value in flat.items() if key != "data.root"}
    weights = fitted(salt, tmp_path, "masks", **{**flat, "predict": changes["predict"], **given})
    assert any(name.startswith("head.decoder.") for name in weights)
    assert all(tensor.isfinite().all() for tensor in weights.values())
