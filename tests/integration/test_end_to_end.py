"""From a CSV to a submission through the front door, for every kind of target."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from swinft.cli import main
from swinft.data.schema import Schema
from swinft.inference.predictions import Predictions
from swinft.inference.predictor import predict_rows
from swinft.run.experiment import Experiment
from swinft.run.folds.fold import exit_on_signals
from swinft.run.layout import Run
from swinft.store import verify
from tests.conftest import ROOT, TINY_SWIN, fit_in_process, power_gone_after, tiny_config, write_config
from tests.integration.layouts.some_numbers import petfinder

CPU = torch.device("cpu")


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_oof_holds_every_train_id_exactly_once_in_its_own_fold(tiny_run, competition):
    oof, train = read_rows(tiny_run / "oof.csv"), read_rows(competition / "train.csv")
    assert [row["id"] for row in oof] == [row["id"] for row in train]
    fold_of = {row["id"]: row["fold"] for row in read_rows(tiny_run / "folds.csv")}
    assert all(row["fold"] == fold_of[row["id"]] for row in oof)
    assert list(oof[0]) == ["id", "blue", "green", "red", "fold"]
    assert all(sum(float(row[c]) for c in ("blue", "green", "red")) == pytest.approx(1, abs=1e-5) for row in oof)


@pytest.mark.parametrize("fold", [0, 1])
def test_saved_weights_predict_a_folds_own_rows_as_its_oof_says(tiny_run, fold):
    run = Run.open(tiny_run)
    experiment = Experiment.of_run(run, "predict", None)
    schema = Schema.from_dict(run.read_schema())
    net = experiment.network(schema, run.fold(fold).weights, CPU)
    data = experiment.datamodule(run, folds={"held_out": fold})
    data.setup("fit")
    rows, values = predict_rows([net], data.val_dataloader(), experiment.config.predict.views, CPU, "32-true")
    oof = Predictions.read(run.fold(fold).oof, len(schema.outputs))
    assert [data.train_table.ids[row] for row in rows] == oof.ids
    assert np.array_equal(values, oof.values)


def test_the_pooled_score_is_the_share_of_right_oof_rows(tiny_run, competition):
    truth = {row["id"]: row["color"] for row in read_rows(competition / "train.csv")}
    oof = read_rows(tiny_run / "oof.csv")
    right = [max(("blue", "green", "red"), key=lambda c: float(row[c])) == truth[row["id"]] for row in oof]
    scores = json.loads((tiny_run / "scores.json").read_text())
    assert scores["pooled"]["accuracy"] == pytest.approx(np.mean(right))
    assert [fold["rows"] for fold in scores["folds"]] == [12, 12]


def test_test_predictions_are_the_mean_over_folds(tiny_run, tmp_path):
    parts = []
    for fold in ("0", "1"):
        output = tmp_path / f"{fold}.csv"
        assert main(["predict", str(tiny_run), "--folds", fold, "--device", "cpu", "--output", str(output)]) == 0
        parts.append(Predictions.read(output, 3).values)
    merged = Predictions.read(tiny_run / "test_predictions.csv", 3).values
    np.testing.assert_allclose(merged, np.mean(parts, axis=0), atol=1e-6)
    assert not np.array_equal(parts[0], parts[1])


def test_prediction_says_what_it_consists_of_first(tiny_run, tmp_path, capsys):
    output = str(tmp_path / "p.csv")
    assert (
        main(["predict", str(tiny_run), "--views", "identity,hflip,scale", "--device", "cpu", "--output", output]) == 0
    )
    assert "6 images × 2 folds × 3 views = 36 forwards on cpu in 32-true\n" in capsys.readouterr().out


def test_prediction_needs_the_run_and_the_test_rows_only(tiny_run, competition, tmp_path):
    """As in a scoring notebook: the data lies elsewhere, and the training rows are not there."""
    shutil.copytree(tiny_run, tmp_path / "run")
    root = tmp_path / "input"
    shutil.copytree(competition / "images", root / "images")
    for name in ("test.csv", "sample_submission.csv"):
        shutil.copy(competition / name, root / name)
    options = [str(tmp_path / "run"), "--root", str(root)]
    assert main(["predict", *options, "--device", "cpu"]) == 0
    assert main(["submit", *options]) == 0
    for name in ("test_predictions.csv", "submission.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tiny_run / name).read_bytes()


def test_other_rows_can_be_predicted(tiny_run, competition, tmp_path):
    (tmp_path / "two.csv").write_text("id\n005\n007\n")
    output = tmp_path / "two_predictions.csv"
    words = ["--test", str(tmp_path / "two.csv"), "--output", str(output), "--device", "cpu"]
    assert main(["predict", str(tiny_run), *words]) == 0
    assert [row["id"] for row in read_rows(output)] == ["005", "007"]


def test_a_finished_fold_leaves_weights_and_no_checkpoints(tiny_run):
    names = {path.name for path in (tiny_run / "fold_0").iterdir()}
    assert names == {".commits", "weights.safetensors", "metrics.jsonl", "oof.csv", "result.json", "log.txt"}


def test_the_report_shows_the_run_and_reaches_for_nothing_outside(tiny_run):
    page = (tiny_run / "report.html").read_text()
    assert "Rows with the largest error" in page
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) >= 12
    assert all(source.startswith(("data:image/", "#")) for source in sources)


KINDS = {
    "regression": {
        "data.target": "brightness",
        "data.target_kind": "regression",
        "model.head": {"class_path": "swinft.RegressionHead", "init_args": {"loss": "bce", "low": 20, "high": 100}},
        "model.mix": {"mixup_alpha": 0.5},
        "sample": "id,brightness",
    },
    "multilabel-columns": {
        "data.target": ["is_red", "is_green"],
        "data.target_kind": "multilabel",
        "model.head": {"class_path": "swinft.MultilabelHead"},
        "model.mix": {"cutmix_alpha": 1.0},
        "sample": "id,is_green,is_red",
    },
    "multilabel-string": {
        "data.target": "tags",
        "data.target_kind": "multilabel",
        "data.columns.label_delimiter": " ",
        "model.head": {"class_path": "swinft.MultilabelHead"},
        "model.metrics": ["samples_f1", "mean_column_auc"],
        "sample": "id,tags",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_target_runs_to_a_submission(kind, competition, tmp_path, capsys):
    changes = dict(KINDS[kind])
    header = changes.pop("sample")
    ids = [row["id"] for row in read_rows(competition / "sample_submission.csv")]
    blank = "," * header.count(",")
    sample = competition / f"sample_{kind}.csv"
    sample.write_text(f"{header}\n" + "".join(f"{id}{blank}\n" for id in ids))
    changes |= {"data.sample_submission": sample.name, "predict.views": ["identity", "hflip"]}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    fit_in_process(config)
    run = str(tmp_path / "runs" / "tiny")
    check_single_views(Run.open(run))
    assert main(["predict", run, "--device", "cpu"]) == 0
    assert main(["submit", run]) == 0
    rows = read_rows(tmp_path / "runs" / "tiny" / "submission.csv")
    assert ",".join(rows[0]) == header
    assert [row["id"] for row in rows] == ids
    if kind == "regression":
        assert all(20 <= float(row["brightness"]) <= 100 for row in rows)
    if kind == "multilabel-string":
        assert all(set(row["tags"].split(" ")) <= {"warm", "cool", "plant"} for row in rows)
        check_another_threshold(run, competition, capsys)


def check_single_views(run: Run) -> None:
    """Each fold keeps what each view predicts alone: their mean is its out-of-fold predictions."""
    experiment = Experiment.of_run(run, "predict", None)
    schema, fold = Schema.from_dict(run.read_schema()), run.fold(1)
    by_view = np.load(verify(fold.oof_by_view))
    np.testing.assert_allclose(by_view.mean(0), Predictions.read(fold.oof, len(schema.outputs)).values, rtol=1e-5)
    data = experiment.datamodule(run, folds={"held_out": 1})
    data.setup("fit")
    net = experiment.network(schema, fold.weights, CPU)
    alone = [predict_rows([net], data.val_dataloader(), [view], CPU, "32-true")[1] for view in ("identity", "hflip")]
    np.testing.assert_array_equal(by_view, alone)
    assert (by_view[0] != by_view[1]).any()


def check_another_threshold(run: str, competition: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`submit --threshold` prints the out-of-fold score with it."""
    oof, labels = read_rows(Path(run) / "oof.csv"), ["cool", "plant", "warm"]
    values = np.array([[float(row[name]) for name in labels] for row in oof])
    threshold = float(np.median(values))
    tags = {row["id"]: row["tags"].split() for row in read_rows(competition / "train.csv")}
    true = np.array([[name in tags[row["id"]] for name in labels] for row in oof])
    chosen = (values >= threshold) | (
        (values < threshold).all(1, keepdims=True) & (values == values.max(1, keepdims=True))
    )
    known = Run.open(run).read_scores()["pooled"]["samples_f1"]
    wanted = f1_score(true, chosen, average="samples", zero_division=0)
    assert f"{wanted:.4f}" != f"{known:.4f}"
    capsys.readouterr()
    assert main(["submit", run, f"--threshold={threshold!r}"]) == 0
    out = capsys.readouterr().out
    assert f"samples_f1 {known:.4f} as scored before, {wanted:.4f} with threshold" in out
    assert main(["submit", run, "--threshold=0.5"]) == 0
    assert "with threshold" not in capsys.readouterr().out


@pytest.mark.parametrize("with_metadata", [False, True], ids=["images", "images-and-metadata"])
def test_the_petfinder_config_runs_to_a_submission(with_metadata, tmp_path):
    root = petfinder(tmp_path, 1, 24).root
    options = [
        "--config",
        str(ROOT / "configs" / "petfinder.yaml"),
        f"--runs={tmp_path / 'runs'}",
        f"--data.root={root}",
    ]
    # The recipe is the real one; only the network, the images and the plan are small.
    options += ["--data.folds.num=2", "--data.image_size=32", "--data.loading.num_workers=0", "--trainer.max_epochs=1"]
    options += ["--model.backbone=swin_tiny_patch4_window7_224", "--model.pretrained=false"]
    options += [f"--model.backbone_args={json.dumps(TINY_SWIN)}"]
    options += ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
    if with_metadata:
        options += ["--data.columns.numeric_features=[Subject Focus, Eyes, Blur]"]
    assert main(["fit", *options, "--fold", "0"]) == 0
    assert main(["fit", *options, "--fold", "1", "--resume"]) == 0
    assert main(["fit", *options, "--resume"]) == 0
    run = tmp_path / "runs" / "petfinder"
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    rows, sample = read_rows(run / "submission.csv"), read_rows(root / "sample_submission.csv")
    assert list(rows[0]) == ["Id", "Pawpularity"]
    assert [row["Id"] for row in rows] == [row["Id"] for row in sample]
    assert all(1 <= float(row["Pawpularity"]) <= 100 for row in rows)


def test_a_run_folder_is_never_silently_reused(tiny_run, capsys):
    config = tiny_run.parent.parent / "config.yaml"
    before = (tiny_run / "oof.csv").stat().st_mtime_ns
    assert main(["fit", "--config", str(config)]) == 2
    assert "--resume continues it, --overwrite deletes it" in capsys.readouterr().err
    assert (tiny_run / "oof.csv").stat().st_mtime_ns == before


def test_resuming_with_another_config_is_refused_with_the_difference(tiny_run, capsys):
    config = tiny_run.parent.parent / "config.yaml"
    assert main(["fit", "--config", str(config), "--resume", "--model.optim.lr", "0.5"]) == 2
    err = capsys.readouterr().err
    assert "model.optim.lr: was 0.003, is 0.5" in err


def test_overwrite_does_not_delete_a_folder_that_is_no_run(competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    treasure = tmp_path / "runs" / "tiny" / "thesis.txt"
    treasure.parent.mkdir(parents=True)
    treasure.write_text("years of work")
    assert main(["fit", "--config", str(config), "--overwrite"]) == 2
    assert "is not a run" in capsys.readouterr().err
    assert treasure.read_text() == "years of work"


def test_prediction_with_an_unfinished_fold_is_refused(competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 1}))
    assert main(["fit", "--config", str(config), "--fold", "1"]) == 0
    assert main(["predict", str(tmp_path / "runs" / "tiny")]) == 2
    assert "folds [0]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, ["--fold", "0"])],
    ids=["a-command-and-its-folds", "a-fold"],
)
def test_an_interrupted_fold_goes_on_from_its_last_epoch(number, code, words, competition, tmp_path):
    """SIGKILL is sent by tests/faults; at SIGTERM Lightning by itself would end a fold as if it were done."""
    changes = {"trainer.max_epochs": 300, "data.folds.num": 2}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    process = start("fit", "--config", str(config), *words)
    fold = Run(tmp_path / "runs" / "tiny").fold(0)
    deadline = time.monotonic() + 60
    while len(fold.checkpoints) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # the whole group, as a terminal or a batch system does
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    epochs = len(read_jsonl(fold.metrics))
    assert epochs >= 2
    # A shorter run would be another config; what goes on here is one fold, stopped again after a moment.
    process = start("fit", "--config", str(config), "--fold", "0", "--resume")
    while len(read_jsonl(fold.metrics)) < epochs + 2 and time.monotonic() < deadline + 60:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert f"resumed from epoch-{epochs:04d}.ckpt" in out or f"resumed from epoch-{epochs - 1:04d}.ckpt" in out
    lines = read_jsonl(fold.metrics)
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize(
    ("stop_after", "workers", "virtual_epochs", "augment_on"),
    [(1, 2, 1, "cpu"), (3, 0, 1, "cpu"), (1, 0, 2, "cpu"), (1, 0, 2, "device")],
    ids=["workers", "last-epoch", "virtual-epochs", "device"],
)
def test_a_resumed_fold_ends_with_the_weights_of_an_uninterrupted_one(
    stop_after, workers, virtual_epochs, augment_on, competition, tmp_path
):
    changes = {
        "data.loading.num_workers": workers,
        "data.loading.virtual_epochs": virtual_epochs,
        "trainer.accumulate_grad_batches": 2,
        "model.head": {"class_path": "swinft.ClassificationHead", "init_args": {"dropout": 0.3}},
        "trainer.max_epochs": 3,
        "model.drop_path_rate": 0.3,
        "model.mix": {"mixup_alpha": 0.5},
        "data.augment": "heavy" if augment_on == "cpu" else "medium",
        "data.loading.augment_on": augment_on,
    }
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = ["fit", "--config", str(config), "--fold", "0"]
    assert main([*words, "--name", "whole"]) == 0
    with power_gone_after(stop_after):
        main([*words, "--name", "parts"])
    assert main([*words, "--name", "parts", "--resume"]) == 0
    for name in ("weights.safetensors", "oof.csv"):
        whole, parts = (tmp_path / "runs" / run / "fold_0" / name for run in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes(), name
    lines = read_jsonl(tmp_path / "runs" / "parts" / "fold_0" / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2, 3]


def test_resume_finishes_what_is_missing_and_skips_what_is_done(competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 1}))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    stamp = (tmp_path / "runs" / "tiny" / "fold_0" / "weights.safetensors").stat().st_mtime_ns
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 0
    capsys.readouterr()
    assert main(["fit", "--config", str(config), "--resume"]) == 0
    assert "fold 0: done, skipped" in capsys.readouterr().out
    assert (tmp_path / "runs" / "tiny" / "fold_0" / "weights.safetensors").stat().st_mtime_ns == stamp


def test_folds_of_another_run_are_reused(tiny_run, competition, tmp_path):
    changes = {"data.folds.file": str(tiny_run / "folds.csv"), "trainer.max_epochs": 1, "seed": 7}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert (tmp_path / "runs" / "tiny" / "folds.csv").read_bytes() == (tiny_run / "folds.csv").read_bytes()


def test_the_best_epoch_can_be_kept_and_is_then_the_oof(competition, tmp_path):
    changes = {"checkpoint": "best", "trainer.max_epochs": 3}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    result = json.loads((tmp_path / "runs" / "tiny" / "fold_0" / "result.json").read_text())
    assert result["oof"]["accuracy"] == pytest.approx(result["best_epoch"]["val_accuracy"])


@pytest.mark.slow
def test_two_ranks_train_one_fold_and_its_oof_holds_every_row_once(competition, tmp_path):
    changes = {"trainer.max_epochs": 1, "trainer.devices": 2, "trainer.strategy": "ddp"}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    done = swinft("fit", "--config", str(config), "--fold", "0")
    assert done.returncode == 0, done.stderr
    oof = read_rows(tmp_path / "runs" / "tiny" / "fold_0" / "oof.csv")
    held_out = [row["id"] for row in read_rows(tmp_path / "runs" / "tiny" / "folds.csv") if row["fold"] == "0"]
    assert [row["id"] for row in oof] == held_out
    (line,) = read_jsonl(tmp_path / "runs" / "tiny" / "fold_0" / "metrics.jsonl")
    result = json.loads((tmp_path / "runs" / "tiny" / "fold_0" / "result.json").read_text())
    assert line["val_accuracy"] == pytest.approx(result["oof"]["accuracy"])


def test_a_second_signal_ends_a_fold_that_hangs_in_its_end():
    """The first one unwinds, which may wait for loader processes; the second one does not wait."""
    child = os.fork()
    if not child:
        try:
            with exit_on_signals():
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(60)
                finally:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(60)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def read_jsonl(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def start(*words: str) -> subprocess.Popen[str]:
    """`swinft` in a process group of its own."""
    command = [sys.executable, "-m", "swinft", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def swinft(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swinft", *words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
