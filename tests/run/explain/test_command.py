"""`swinft explain` on finished runs: the right network, the right output, files, page, and what is refused."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import swinft
from swinft.attribution.gradcam import gradcam_maps
from swinft.cli import main
from swinft.errors import InputError
from swinft.run.explain.command import file_name
from tests.conftest import in_this_process, tiny_config, write_config
from tests.json_documents import document


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(tiny_run, tmp_path / "tiny"))


def error_of(words, capsys, code=2):
    assert main(words) == code
    return capsys.readouterr().err


def batch_of(run, competition, id):
    """The pixels of a training row, as the datamodule makes them."""
    data = swinft.CSVDataModule(
        root=str(competition), train="train.csv", image="images/{id}.jpg", target="color", target_kind="classification",
        image_size=32, batch_size=1, folds={"file": str(run / "folds.csv")}, loading={"num_workers": 0},
    )  # fmt: skip
    data.setup("fit")
    row = data.train_table.ids.index(id)
    return next(iter(data.ordered_loader("val", np.array([row]))))["image"]


def test_training_rows_are_explained_by_the_network_that_did_not_train_on_them(run, competition, capsys):
    assert main(["explain", str(run), "--ids", "003", "001", "--npy", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    oof = swinft.open_run(run).oof.set_index("id")
    for id in ("003", "001"):
        fold = int(oof.loc[id, "fold"])
        predicted = oof.loc[id, ["blue", "green", "red"]].astype(float).idxmax()
        assert f"{id}: {predicted} {oof.loc[id, predicted]:.4f} by fold_{fold}; gradcam, layer layers.1" in out
        net = swinft.open_run(run).network(fold)
        expected = gradcam_maps(net, batch_of(run, competition, id), sorted(["blue", "green", "red"]).index(predicted))[
            0
        ]
        found = np.load(run / "explain" / f"{id}.gradcam.{predicted}.npy")
        assert found.dtype == np.float32
        assert np.allclose(found, expected[0].numpy(), atol=1e-5)
        with Image.open(run / "explain" / f"{id}.gradcam.{predicted}.png") as picture:
            assert picture.size == (256, 256)
    page = (run / "explain" / "explain.html").read_text()
    assert "default-src 'none'; img-src data:" in page
    assert page.count("<script") == 1
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.index("<bdi>003</bdi>") < page.index("<bdi>001</bdi>")  # in the order asked for


def test_rows_to_predict_are_explained_by_the_mean_of_all_folds_or_by_one(run, capsys):
    found = swinft.explain(run, ["t1"], device="cpu")
    each = [
        swinft.explain(run, ["t1"], fold=fold, output=found.rows[0].output, device="cpu").rows[0] for fold in (0, 1)
    ]
    assert found.rows[0].networks == ["fold_0", "fold_1"]
    assert [one.networks for one in each] == [["fold_0"], ["fold_1"]]
    assert np.allclose(found.rows[0].maps, (each[0].maps + each[1].maps) / 2, atol=1e-6)
    assert found.rows[0].difference < 1e-5  # compared with test_predictions.csv
    assert each[0].difference is None
    assert "no current test predictions of these networks" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["rollout", "windows", "integrated-gradients", "occlusion"])
def test_every_method_writes_a_page_and_one_document(run, method, capsys):
    words = ["explain", str(run), "--ids=001", "--method", method, "--output", "red", "--device", "cpu", "--json"]
    assert main(words) == 0
    printed = document(capsys.readouterr().out, "explain")
    (row,) = printed["rows"]
    assert (row["id"], row["output"], printed["method"]) == ("001", "red", method)
    assert all(Path(path).is_file() for paths in row["files"].values() for path in paths)
    if method == "integrated-gradients":
        assert row["facts"]["completeness_error"] < 0.02
        assert row["facts"]["baseline"] == "mean"


def test_what_cannot_be_explained_is_refused(run, capsys):
    words = ["explain", str(run), "--device", "cpu"]
    assert "name the rows to explain: --ids" in error_of(words, capsys)
    assert "there is no row 'x1', '../t1'. Allowed: t1, t2" in error_of([*words, "--ids", "x1", "../t1"], capsys)
    assert "there is no row 't1'" in error_of([*words, "--ids", "t1", "--rows", "train"], capsys)
    assert "001 are in the training table, and t1 are not" in error_of([*words, "--ids", "001", "t1"], capsys)
    twice = [*words, "--ids", "001", "002", "001", "002"]
    assert "names '001', '002' more than once" in error_of(twice, capsys)
    assert "--output is 'rde'. Did you mean 'red'?" in error_of([*words, "--ids", "001", "--output", "rde"], capsys)
    assert "--steps is an option of the method integrated-gradients" in error_of(
        [*words, "--ids", "001", "--steps", "3"], capsys
    )
    assert "--fold names [7]" in error_of([*words, "--ids", "t1", "--fold", "7"], capsys)
    assert "no layer 'layer.1'. Did you mean" in error_of([*words, "--ids", "001", "--layer", "layer.1"], capsys)
    assert "stage is 5" in error_of([*words, "--ids", "001", "--method", "windows", "--stage", "5"], capsys)
    assert "--query is [3]" in error_of([*words, "--ids", "001", "--method", "windows", "--query", "3"], capsys)
    assert "patch is 99: an image of 32 x 32 px takes" in error_of(
        [*words, "--ids", "001", "--method", "occlusion", "--patch", "99"], capsys
    )
    (run / "fold_0" / "result.json").unlink()
    held_out = next(
        id for id, fold in zip(*swinft.open_run(run).oof[["id", "fold"]].T.to_numpy(), strict=True) if not fold
    )
    assert f"row '{held_out}' is held out by fold 0, which is not finished: run `swinft fit" in error_of(
        [*words, "--ids", str(held_out)], capsys
    )
    assert not (run / "explain" / "explain.html").exists()


def test_another_prediction_than_the_committed_one_is_not_explained(run, capsys, monkeypatch):
    monkeypatch.setattr("swinft.run.explain.rows.verify", lambda path: path)
    monkeypatch.setattr("swinft.inference.predictions.verify", lambda path: path)
    for fold in (0, 1):
        path = run / f"fold_{fold}" / "oof.csv"
        table = pd.read_csv(path, dtype=str)
        table["red"] = (table["red"].astype(float) + 0.02).astype(str)
        table.to_csv(path, index=False)
    monkeypatch.setattr("swinft.run.fold_files.is_committed", lambda path: True)
    assert "row '001': the network predicts something else than the run has committed (difference 0.02" in error_of(
        ["explain", str(run), "--ids", "001", "--device", "cpu"], capsys, 1
    )


def test_names_of_files_are_safe_and_distinct():
    assert file_name("0042_a-b") == "0042_a-b"
    hostile = ["../../etc/passwd", "a/b", "a b", "", ".", "<script>", "é", "x" * 500, "a\0b", "a:b"]
    found = [file_name(name) for name in hostile]
    assert len(set(found)) == len(hostile)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name) for name in found)


KINDS = {
    "regression": ({"data.target": "brightness", "data.target_kind": "regression", "model.head": {"class_path": "swinft.RegressionHead"}}, ["brightness"]),
    "labels": ({"data.target": ["is_red", "is_green"], "data.target_kind": "multilabel", "model.head": {"class_path": "swinft.MultilabelHead"}}, None),
    "several images": ({"data.image": ["images/{id}.jpg", "images/{id}.jpg"], "model.pooling": {"images": "mean"}}, None),
    "metadata, views, bf16": ({"data.columns": {"numeric_features": ["brightness"]}, "data.test": None, "data.sample_submission": None, "predict.views": ["identity", "hflip"], "trainer.precision": "bf16-mixed"}, None),
    "seeds, on the device": ({"seeds": [1, 2], "data.loading": {"augment_on": "device"}, "data.augment": "light"}, None),
    "vit": ({"model.backbone": "vit_tiny_patch16_224", "model.backbone_args": {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}}, None),
    "cnn": ({"model.backbone": "resnet10t", "model.backbone_args": None, "data.image_size": 64}, None),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_is_explained(kind, competition, tmp_path, monkeypatch, capsys):
    changes, outputs = KINDS[kind]
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    monkeypatch.setattr("swinft.run.scores.write_report", lambda *_: None)
    config = write_config(
        tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 1, **changes})
    )
    assert main(["fit", "--config", str(config)]) == 0
    run = tmp_path / "runs" / "tiny"
    for method in ("gradcam", "rollout", "windows", "integrated-gradients", "occlusion"):
        if kind == "cnn" and method in ("rollout", "windows"):
            assert "has no attention" in error_of(["explain", str(run), "--ids", "001", "--method", method], capsys)
            continue
        found = swinft.explain(run, ["001", "002"], method, device="cpu")
        assert {row.id for row in found.rows} == {"001", "002"}
        assert outputs is None or [row.output for row in found.rows] == outputs * 2
        for row in found.rows:
            assert row.difference is not None
            assert row.maps.shape == (
                (2, 32, 32) if kind == "several images" else (1, *[64 if kind == "cnn" else 32] * 2)
            )
            assert np.isfinite(row.maps).all()
            assert len(row.networks) == (2 if kind.startswith("seeds") else 1)
            assert len(row.files["overlay"]) == len(row.maps)


@pytest.mark.slow
def test_a_model_without_networks_names_its_member(tiny_run, tmp_path, capsys):
    run = Path(shutil.copytree(tiny_run, tmp_path / "tiny"))
    assert main(["embed", str(run), "--fit", "knn", "--name", "knn", "--device", "cpu", "--bootstrap", "20"]) == 0
    assert "has no networks: name the run of a member: tiny" in error_of(
        ["explain", str(tmp_path / "knn"), "--ids", "001"], capsys
    )
    with pytest.raises(InputError, match="has no networks"):
        swinft.explain(tmp_path / "knn", ["001"])
