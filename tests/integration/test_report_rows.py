"""The report's sections about rows, of runs that were fitted here, and the new columns of errors.csv."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import log_loss

import swinft.model.task
from swinft.cli import main
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.report.contents import ReportInput
from swinft.run.report.rows.neighbours import Embeddings, nearest
from swinft.run.report.sections import augmented, drift, mislabelled, uncertain, views, worst
from swinft.run.scoring import training_rows
from swinft.store import commit
from tests.conftest import fit_in_process, tiny_config, write_config


@pytest.fixture(scope="module")
def planted(competition, tmp_path_factory) -> Path:
    """A run with two views and cutmix, whose test images are brighter and of which two training images are alike."""
    folder = tmp_path_factory.mktemp("planted")
    data = Path(shutil.copytree(competition, folder / "data"))
    shutil.copy(data / "images" / "000.jpg", data / "images" / "001.jpg")  # red and green
    lines = ["id,brightness"]  # metadata that is called like a statistic of images
    for number in range(12):
        pixels = np.asarray(Image.open(data / "images" / f"{number + 3:03d}.jpg"))
        Image.fromarray(np.clip(pixels * 0.7 + 80, 0, 255).astype(np.uint8)).save(data / "images" / f"b{number}.jpg")
        lines.append(f"b{number},{number}")
    (data / "test.csv").write_text("\n".join([*lines, ""]))
    changes = {
        "data.sample_submission": None,
        "data.columns": {"numeric_features": ["brightness"]},
        "predict": {"views": ["identity", "hflip"]},
        "model.mix": {"cutmix_alpha": 1.0},
        "trainer.max_epochs": 1,
    }
    config = write_config(folder / "c.yaml", tiny_config(data, folder / "runs", **changes))
    seen = []
    original = swinft.model.task.mixed_logits

    def spy(net, images, targets, more, mixing, taught=None):
        if net.training and mixing is not None:
            seen.append(mixing.rows(images, targets, dict(more))[0].clone())
        return original(net, images, targets, more, mixing, taught)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swinft.model.task, "mixed_logits", spy)
        fit_in_process(config)
    np.save(folder / "first.npy", seen[0].numpy())
    return folder


def opened(run: Path, has_networks: bool = False) -> ReportInput:
    found = Run.open(run)
    experiment = Experiment.of_run(found, "report", None)
    metrics = experiment.section("model")["metrics"] or ()
    return ReportInput.of(found, training_rows(found, experiment), metrics, None, experiment if has_networks else None)


def test_the_report_of_a_fit_has_the_sections_and_no_networks_are_loaded(planted):
    page = (planted / "runs" / "tiny" / "report.html").read_text()
    for title in (worst, uncertain, mislabelled, augmented, views, drift):
        name = title.__name__.rpartition(".")[2]
        assert f'id="{name}"' in page, name
    assert "could not be made" not in page
    assert "Drift is seen by files and metadata" in page
    assert "1 group of equal or similar images" in page
    assert "swinft embed" in page
    assert 'alt="Grad-CAM"' not in page


def test_errors_csv_has_uncertainty_label_quality_and_near_duplicates(planted):
    run = planted / "runs" / "tiny"
    with (run / "errors.csv").open(newline="") as file:
        errors = {row["id"]: row for row in csv.DictReader(file)}
    with (run / "oof.csv").open(newline="") as file:
        oof = list(csv.DictReader(file))
    assert (errors["000"]["near_duplicate"], errors["001"]["near_duplicate"]) == ("001", "000")
    assert all(not row["near_duplicate"] for id, row in errors.items() if id not in ("000", "001"))
    for row in oof:
        shares = np.array([float(row[name]) for name in ("blue", "green", "red")])
        found = errors[row["id"]]
        assert float(found["entropy"]) == pytest.approx(-(shares * np.log(shares)).sum() / np.log(3), rel=1e-3)
        assert float(found["label_quality"]) == pytest.approx(float(row[found["true"]]), rel=1e-3)
        assert found["is_suspicious"] in ("True", "False")


def test_scores_of_views_are_those_of_scikit_learn(planted, competition):
    report = opened(planted / "runs" / "tiny")
    by_view = report.facts.by_view
    names = np.array(["blue", "green", "red"])
    truth = [names[target] for target in report.targets]
    rows = re.findall(r"<tr>(.*?)</tr>", views.section(report).body, re.S)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows[1:]]
    metric = report.metrics[0]
    assert [row[0] for row in cells] == ["identity", "hflip"]
    for k, row in enumerate(cells):
        wanted = [
            log_loss(truth, values, labels=names)
            if metric.name == "log_loss"
            else (values.argmax(1) == report.targets).mean()
            for values in (by_view[k].astype(np.float64), by_view[: k + 1].mean(0).astype(np.float64))
        ]
        assert [float(row[1]), float(row[2])] == pytest.approx(wanted, abs=1e-4)


def test_a_run_of_an_earlier_version_says_what_it_lacks(planted, tmp_path):
    run = Path(shutil.copytree(planted / "runs" / "tiny", tmp_path / "tiny"))
    (run / "fold_1" / "oof_by_view.npy").unlink()
    (run / "fold_1" / ".commits" / "oof_by_view.npy.json").unlink()
    table = pd.read_csv(run / "images.csv", dtype=str, keep_default_na=False)
    old = table.drop(
        columns=[name for name in table if name.startswith(("mean_", "spread_", "sharp", "width", "height"))]
    )
    commit(run / "images.csv", old.to_csv(index=False).encode(), "swinft fit")
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Fold 1 has no predictions of single views" in page
    assert "by a version that did not record the statistics of images" in page
    assert 'alt="Grad-CAM"' in page


def test_the_images_of_the_first_batch_are_those_that_were_trained_on(planted):
    report = opened(planted / "runs" / "tiny")
    batch, rows = augmented.first_batch(report, is_whole=True)
    config = augmented.MixConfig(cutmix_alpha=1.0)
    mixing = augmented._mixing(report, config, batch)
    images = mixing.rows(batch["image"], batch["image"][:, :1, 0, 0].float(), {})[0]
    np.testing.assert_array_equal(images.numpy(), np.load(planted / "first.npy"))
    assert len(rows) == report.data.batch_size


def test_neighbours_are_in_the_space_of_the_network_that_held_the_row_out(planted, tmp_path):
    run = Path(shutil.copytree(planted / "runs" / "tiny", tmp_path / "tiny"))
    assert Embeddings.of(Run.open(run)) == ""
    assert main(["embed", str(run), "--device", "cpu"]) == 0
    report = opened(run)
    embeddings = report.facts.embeddings
    assert isinstance(embeddings, Embeddings)
    (row,) = [place for place, id in enumerate(report.ids) if id == "000"]
    fold = int(report.folds[row])
    found = nearest(embeddings, report.ids, np.array([row]), np.array([fold]), 3)[row]
    assert report.ids[found[0].row] == "001"  # the same image
    assert found[0].similarity == pytest.approx(1, abs=1e-3)
    table = embeddings.table(f"fold_{fold}", "train")
    own = table.values[table.ids.index("000")]
    cosines = {
        id: float(values @ own / np.linalg.norm(values) / np.linalg.norm(own))
        for id, values in zip(table.ids, table.values, strict=True)
        if id != "000"
    }
    assert [report.ids[each.row] for each in found] == sorted(cosines, key=cosines.__getitem__, reverse=True)[:3]
    page = drift.section(report).body
    assert "embeddings" in page
    commit(run / "fold_0" / "weights.safetensors", b"other", "test")
    assert "out of date" in str(Embeddings.of(Run.open(run)))
