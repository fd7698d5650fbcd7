"""Several images per row from the CSV to the submission: runs, resume, ranks, TTA, cache, other forms of the network."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from swinft import CSVDataModule
from swinft.cli import main
from swinft.inference.predictions import Predictions
from tests.conftest import ROOT, fit_in_process, power_gone_after, tiny_config, write_config, write_image
from tests.integration.faults import ranks
from tests.integration.faults.test_ranks import free_port

COLORS = {"red": (200, 40, 40), "green": (40, 190, 40), "blue": (40, 40, 200)}
TWO = {"path": ["images/{id}_l.png", "images/{id}_r.png"], "missing": "mask"}
SEVERAL = {
    "data.image": {**TWO, "augment": "independent"},
    "data.augment": "medium",
    "model.pooling": {"images": "attention"},
    "model.mix": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0},
    "predict.views": ["identity", "hflip"],
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """24 rows and 6 to predict, each of two images; three rows have no second one."""
    root, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    ids = {"train": [f"{row:03d}" for row in range(24)], "test": [f"t{row}" for row in range(6)]}
    for name, known in ids.items():
        header = "id,color,brightness" if name == "train" else "id"
        lines = [header]
        for row, id in enumerate(known):
            color = list(COLORS)[row % 3]
            for side in "lr"[: 1 if row in (3, 4, 5) else 2]:
                write_image(root / "images" / f"{id}_{side}.png", COLORS[color], rng)
            lines.append(f"{id},{color},{20 + 3 * row}" if name == "train" else id)
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (root / "sample_submission.csv").write_text("id,color\n" + "".join(f"{id},red\n" for id in ids["test"]))
    return root


def config(folder, pairs, **changes):
    return write_config(folder / "c.yaml", tiny_config(pairs, folder / "runs", **{**SEVERAL, **changes}))


@pytest.fixture(scope="module")
def whole(pairs, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("several")
    fit_in_process(config(folder, pairs))
    return folder / "runs" / "tiny"


def contents(run, fold=0):
    return [(run / f"fold_{fold}" / name).read_bytes() for name in ("weights.safetensors", "oof.csv")]


def test_every_row_is_predicted_once_and_submitted(whole, pairs, capsys):
    oof = Predictions.read(whole / "oof.csv", 3)
    assert sorted(oof.ids) == [f"{row:03d}" for row in range(24)]
    assert main(["predict", str(whole), "--device", "cpu"]) == 0
    assert main(["submit", str(whole)]) == 0
    lines = (whole / "submission.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == [f"t{row}" for row in range(6)]
    out = capsys.readouterr().out
    assert "2 folds, views identity, hflip" in out
    assert "6 rows × 2 folds × 2 views" in out
    assert (whole / "report.html").stat().st_size > 10_000


def test_a_run_goes_on_byte_for_byte_and_the_cache_changes_nothing(whole, pairs, tmp_path):
    again = config(tmp_path, pairs, **{"data.loading": {"cache": False}})
    with power_gone_after(1):
        main(["fit", "--config", str(again), "--fold", "0"])
    assert main(["fit", "--config", str(again), "--fold", "0", "--resume"]) == 0
    assert contents(tmp_path / "runs" / "tiny") == contents(whole)


@pytest.mark.parametrize("written", ["list", "mapping"])
def test_one_image_in_a_list_is_a_plain_template_byte_for_byte(written, tiny_run, competition, tmp_path):
    image = ["images/{id}.jpg"] if written == "list" else {"path": "images/{id}.jpg"}
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"data.image": image}))
    assert main(["fit", "--config", str(path), "--fold", "0"]) == 0
    assert contents(tmp_path / "runs" / "tiny") == contents(tiny_run)


def test_a_views_mean_is_that_of_all_images_seen_alike(whole, tmp_path):
    found = {}
    for views in ("identity", "hflip", "identity,hflip"):
        words = ["predict", str(whole), "--device", "cpu", "--views", views, "--output", str(tmp_path / f"{views}.csv")]
        assert main(words) == 0
        found[views] = Predictions.read(tmp_path / f"{views}.csv", 3).values
    assert np.abs(found["identity"] - found["hflip"]).max() > 0
    np.testing.assert_allclose(found["identity,hflip"], (found["identity"] + found["hflip"]) / 2, atol=1e-6)


def test_an_export_takes_the_mask_and_openvino_predicts_the_same(whole, tmp_path, capsys):
    onnx = pytest.importorskip("onnxruntime")
    assert main(["export", str(whole), "--fold", "0", "--to", "onnx"]) == 0
    file = whole / "exports" / "fold_0" / "onnx" / "model.onnx"
    session = onnx.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["image", "image_mask"]
    about = json.loads(file.with_name("model.onnx.json").read_text())
    assert about["input"]["shape"] == ["batch", 2, 3, 32, 32]
    assert about["input"]["of_a_row"]["path"] == TWO["path"]
    images = np.random.default_rng(0).uniform(0, 255, (2, 2, 3, 32, 32)).astype(np.float32)
    mask = np.array([[True, False], [True, True]])
    first = session.run(None, {"image": images, "image_mask": mask})[0]
    images[0, 1] = np.nan
    np.testing.assert_array_equal(session.run(None, {"image": images, "image_mask": mask})[0], first)
    assert main(["export", str(whole), "--fold", "0", "--to", "timm"]) == 0
    assert "AttentionFusion" in capsys.readouterr().out
    pytest.importorskip("openvino")
    for backend in ("torch", "openvino"):
        words = ["predict", str(whole), "--device", "cpu", "--backend", backend]
        assert main([*words, "--output", str(tmp_path / f"{backend}.csv")]) == 0
    one, other = (Predictions.read(tmp_path / f"{backend}.csv", 3).values for backend in ("torch", "openvino"))
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("image", "pooling", "views"),
    [
        ({**TWO, "channels": "grey"}, "gem", ["identity", "scale"]),
        pytest.param(
            {"path": "images/{id}_*.png", "grid": [1, 2], "max": 2, "channels": "rgb"},
            "avg",
            ["identity"],
            marks=pytest.mark.slow,
        ),
        ({"path": "images/{id}_l.png", "tile": 16, "overlap": 4, "max": 5}, {"images": "gru"}, ["rot90", "scale"]),
    ],
)
def test_channels_and_parts_go_from_check_to_submission(image, pooling, views, pairs, tmp_path):
    changes = {"data.image": image, "model.pooling": pooling, "predict.views": views, "data.augment": "light"}
    path = config(tmp_path, pairs, **changes, **{"trainer.max_epochs": 1})
    assert main(["check", "--config", str(path)]) == 0
    fit_in_process(path)
    run = tmp_path / "runs" / "tiny"
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    assert main(["fit", "--resume", str(run)]) == 0  # the frozen config is read as it was written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.image": "images/{id}_l.png", "model.pooling": {"images": "gru"}}, "model.pooling.images is 'gru'"),
        ({"data.image": {"path": ["{id}a", "{id}b"], "chanels": "grey"}}, "data.image has no 'chanels'"),
        ({"model.pooling": {"images": "grue"}}, "grue"),
        ({"model.pooling": {"images": {"class_path": "swinft.Pooling"}}}, "model.pooling.images"),
        ({"data.loading": {"augment_on": "device"}}, "knows one image per row"),
    ],
)
def test_what_cannot_act_is_found_before_anything_is_trained(changes, message, pairs, tmp_path, capsys):
    path = config(tmp_path, pairs, **{"data.augment": "light", **changes})
    assert main(["check", "--config", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_figures_show_the_images_of_a_row_side_by_side(pairs):
    for image, width in ((TWO, {32, 64}), ({**TWO, "channels": "rgb"}, {64}), ({**TWO, "channels": "grey"}, {64})):
        data = CSVDataModule(
            "color", "classification", "train.csv", image, root=str(pairs), image_size=32, folds={"num": 2}
        )
        data.setup("fit")
        figure = data.show_batch("val" if data.fold_of_row[3] == 0 else "train", 12)
        assert {axes.images[0].get_array().shape[1] for axes in figure.axes if axes.images} == width


@pytest.mark.slow
def test_two_ranks_pool_what_one_process_does(pairs, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(pairs, root)
    ranks.write_folds(root)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "tests.integration.faults.ranks", str(root), str(tmp_path / "two.json"), "several"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, **place, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"})
        for rank in range(2)
    ]
    ranks.main(root, tmp_path / "one.json", 1, 0, "several")
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    for alone, together in zip(one, two, strict=True):
        assert together["rows"] == alone["rows"]
        np.testing.assert_allclose(together["values"], alone["values"], rtol=1e-5)
        assert together["scores"] == pytest.approx(alone["scores"], rel=1e-5)


def test_rows_to_predict_without_images_are_skipped_and_said(whole, pairs, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(pairs, root)
    changes = {"data.image": "images/{id}_*.png", "data.loading": {"on_bad_image": "skip"}, "data.augment": "none"}
    path = config(tmp_path, root, **{**changes, "trainer.max_epochs": 1, "model.pooling": "avg"})
    for name in ("t0_l", "t0_r", "007_l", "007_r"):
        (root / "images" / f"{name}.png").unlink()
    (root / "images" / "t1_l.png").write_bytes(b"nothing")
    fit_in_process(path)
    run = tmp_path / "runs" / "tiny"
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    err = capsys.readouterr().err
    assert "id 't0' has no image" in err
    assert "t1_l.png" in err
    oof, test = (Predictions.read(run / name, 3) for name in ("oof.csv", "test_predictions.csv"))
    assert [id for id, status in zip(oof.ids, oof.status, strict=True) if status == "bad image"] == ["007"]
    assert [id for id, status in zip(test.ids, test.status, strict=True) if status == "bad image"] == ["t0", "t1"]


@pytest.mark.parametrize("cache", [True, False])
def test_a_run_does_not_go_on_with_files_that_a_wildcard_matches_since(cache, pairs, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(pairs, root)
    loading = {"cache": cache, "cache_dir": str(tmp_path / "cache")}
    path = config(tmp_path, root, **{"data.image": "images/{id}_*.png", "data.loading": loading})
    with power_gone_after(1):
        main(["fit", "--config", str(path), "--fold", "0"])
    write_image(root / "images" / "003_new.png", (1, 2, 3), np.random.default_rng(0))
    assert main(["fit", "--config", str(path), "--resume", "--fold", "0"]) == 2
    assert "003_new.png appeared or disappeared" in capsys.readouterr().err
