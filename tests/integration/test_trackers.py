"""Records at trackers, read back by the trackers' own readers: folds, config, every epoch once, and the pooled score."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swinft.cli import main
from swinft.run.trackers import sender
from swinft.run.trackers.fold_records import FoldRecords
from swinft.run.trackers.tracker import Tracker
from tests.conftest import ROOT

HERE = "tests.integration.test_trackers"
# What trackio needs besides packages that the extras bring.
TRACKIO = ["trackio>=0.43", "brotli>=1", "gradio-client>=2,<3", "orjson>=3", "python-multipart>=0.0.9"]


def epochs_of(fold: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]


def pooled_of(run: Path) -> dict[str, float]:
    return json.loads((run / "scores.json").read_text())["pooled"]


@pytest.fixture
def killed_before_sending(monkeypatch):
    """The process dies once: epoch 2 of a fold is saved, and no tracker has it yet."""

    def die(records: FoldRecords, history: list[dict[str, float]], steps: object) -> None:
        if len(history) == 2:
            raise RuntimeError("the power is gone")
        send(records, history, steps)

    send = FoldRecords.send
    monkeypatch.setattr(FoldRecords, "send", die)
    return lambda: monkeypatch.setattr(FoldRecords, "send", send)


def fit_with_a_kill(config: Path, power_is_back, *options: str) -> None:
    with pytest.raises(RuntimeError, match="power"):
        main(["fit", "--config", str(config), "--fold", "0", *options])
    power_is_back()
    for rest in (["--fold", "0"], ["--fold", "1"], []):
        assert main(["fit", "--config", str(config), "--resume", *rest, *options]) == 0


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def tags(folder: Path, kind: str) -> list[str]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulator.EventAccumulator(str(folder)).Reload().Tags()[kind]


@pytest.mark.slow
def test_tensorboard_has_every_epoch_once_after_a_kill(tracked, tmp_path, killed_before_sending, tiny_run):
    monitor = {
        "class_path": "lightning.pytorch.callbacks.LearningRateMonitor",
        "init_args": {"logging_interval": "step"},
    }
    config = tracked("tensorboard", **{"trainer.callbacks": [monitor], "trainer.log_every_n_steps": 1})
    fit_with_a_kill(config, killed_before_sending)
    run = tmp_path / "runs" / "tiny"
    for fold in ("fold_0", "fold_1"):
        read, saved = scalars(run / "tensorboard" / fold), epochs_of(run / fold)
        assert [step for step, _ in read["epoch"]] == [1, 2]
        assert [value for _, value in read["global_step"]] == [2, 4]
        for name in ("train_loss", "val_loss", "val_accuracy", "lr"):
            assert read[name] == [(line["epoch"], pytest.approx(line[name])) for line in saved]
        assert read["oof_accuracy"] == [
            (0, pytest.approx(json.loads((run / fold / "result.json").read_text())["oof"]["accuracy"]))
        ]
        assert "augmented_batch" in tags(run / "tensorboard" / fold, "images")
        assert "config/text_summary" in tags(run / "tensorboard" / fold, "tensors")
    assert any(
        name.startswith("lr-") and len(steps) == 4 for name, steps in scalars(run / "tensorboard" / "fold_1").items()
    )
    pooled = scalars(run / "tensorboard" / "pooled")
    assert {name: pooled[f"oof_{name}"] for name in pooled_of(run)} == {
        n: [(0, pytest.approx(v))] for n, v in pooled_of(run).items()
    }
    assert "worst_rows/1" in tags(run / "tensorboard" / "pooled", "images")
    assert (run / "oof.csv").read_bytes() == (tiny_run / "oof.csv").read_bytes()  # trackers change no result


def wandb_entries(file: Path) -> list[tuple[str, dict[str, object]]]:
    """The entries of a file of the offline mode, by wandb's own messages; the file is a log of LevelDB."""
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, entry, found = file.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        entry += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole, or its last part
            message = messages.Record()
            message.ParseFromString(entry)
            found.append((message.WhichOneof("record_type"), message))
            entry = b""
    return found


def wandb_record(folder: Path) -> dict[str, object]:
    """Group, name, config, epochs, summary and artefacts of a folder of the offline mode."""
    (file,) = folder.glob("run-*.wandb")
    record: dict[str, object] = {"epochs": [], "summary": {}, "artifacts": []}
    for kind, message in wandb_entries(file):
        if kind == "run":
            config = {each.key: json.loads(each.value_json) for each in message.run.config.update}
            record |= {"group": message.run.run_group, "name": message.run.display_name, "config": config}
        elif kind == "history":
            line = {(each.key or each.nested_key[0]): json.loads(each.value_json) for each in message.history.item}
            record["epochs"] += [line] if "train_loss" in line else []
        elif kind == "summary":
            record["summary"] |= {each.key or each.nested_key[0]: each.value_json for each in message.summary.update}
        elif kind == "artifact":
            record["artifacts"].append(message.artifact.name)
    return record


@pytest.mark.slow
def test_offline_wandb_has_one_file_of_a_fold_with_every_epoch_once(
    tracked, tmp_path, killed_before_sending, monkeypatch
):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    fit_with_a_kill(tracked("wandb"), killed_before_sending)
    run = tmp_path / "runs" / "tiny"
    records = [wandb_record(folder) for folder in run.glob("wandb/offline-run-*")]
    found = {record["name"]: record for record in records}
    assert (len(records), sorted(found)) == (3, ["fold_0", "fold_1", "pooled"])
    for fold in ("fold_0", "fold_1"):
        saved = epochs_of(run / fold)
        assert found[fold]["group"] == "tiny"
        assert found[fold]["config"]["data"]["target"] == "color"
        names = ("epoch", "train_loss", "val_loss", "val_accuracy", "lr")
        assert [[line[name] for name in names] for line in found[fold]["epochs"]] == [
            [pytest.approx(line[name]) for name in names] for line in saved
        ]
    summary = {name: json.loads(value) for name, value in found["pooled"]["summary"].items() if name.startswith("oof_")}
    assert {name: summary[f"oof_{name}"] for name in pooled_of(run)} == pytest.approx(pooled_of(run))
    assert any(name.startswith("report-") for name in found["pooled"]["artifacts"])


def test_a_service_that_cannot_be_used_is_found_before_anything_is_trained(tracked, tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert main(["fit", "--config", str(tracked("wandb"))]) == 2
    assert "wandb is not logged in to http://127.0.0.1:9. Run `wandb login`" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    assert main(["fit", "--config", str(tracked("wandb"))]) == 2
    err = capsys.readouterr().err
    assert "http://127.0.0.1:9 cannot be reached" in err
    assert "Set WANDB_MODE=offline" in err
    assert "0123456789" not in err
    assert not list((tmp_path / "runs").glob("[!.]*"))


@pytest.mark.parametrize(
    ("logger", "words"),
    [
        (["csv", "csv"], "csv more than once"),
        (["wandb", {"class_path": "swinft.WandbTracker"}], "wandb more than once"),
        ("wanbd", "trainer.logger"),
        ({"class_path": "swinft.TensorBoardTracker", "init_args": {"images": -1}}, "images"),
    ],
)
def test_what_a_logger_cannot_be_is_an_error(logger, words, tracked, capsys):
    assert main(["check", "--config", str(tracked(logger))]) == 2
    assert words in capsys.readouterr().err


def test_a_package_that_is_missing_is_named_with_its_extra(tracked, tmp_path, monkeypatch, capsys):
    for word, package in (("wandb", "wandb"), ("mlflow", "mlflow"), ("trackio", "trackio")):
        monkeypatch.setitem(sys.modules, package, None)
        assert main(["fit", "--config", str(tracked(word))]) == 2
        assert ("docs/trackers.md" if word == "trackio" else f"pip install 'swinft[{word}]'") in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("[!.]*"))


class Unsteady(Tracker):
    """A service in a list, which fails at its first epochs and at nothing else."""

    word = "unsteady"
    failures = 0
    sent: list[object] = []  # noqa: RUF012

    def check(self):
        pass

    def start(self, record):
        self.sent.append((record.name, record.is_known))

    def last_epoch(self):
        return max([each for each in self.sent if isinstance(each, int)], default=0)

    def write(self, epoch):
        if type(self).failures:
            type(self).failures -= 1
            raise ConnectionError("no route to 10.0.0.7")
        self.sent.append(epoch.epoch)

    def write_images(self, name, images, epoch):
        self.sent.append((name, len(images)))

    def write_result(self, values):
        self.sent.append(sorted(values))

    def write_file(self, path):
        self.sent.append(path.name)

    def finish(self):
        self.sent.append("end")

    def close(self):
        pass


def test_a_service_that_fails_stops_nothing_and_gets_what_it_missed(tracked, monkeypatch, capsys):
    monkeypatch.setattr(sender, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(Unsteady, "failures", 2)
    monkeypatch.setattr(Unsteady, "sent", [])
    config = tracked({"class_path": f"{HERE}.Unsteady", "init_args": {"images": 0}})
    assert main(["fit", "--config", str(config), "--fold", "0", "--allow-code", HERE]) == 0
    err = capsys.readouterr()
    assert err.err.count("unsteady: epoch 1 could not be sent (ConnectionError: no route to 10.0.0.7)") == 1
    assert "swinft fit --resume" in err.err
    assert "fold 0: unsteady answers again" in err.out
    starts = [("fold_0", False), ("fold_0", True), ("fold_0", True)]
    result = ["best_epoch", "oof_accuracy", "oof_log_loss", "oof_macro_f1", "seconds_of_training"]
    assert Unsteady.sent == [*starts, 1, 2, result, "end"]


def test_a_service_that_is_added_later_gets_finished_folds_too(tiny_run, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    monkeypatch.setattr(Unsteady, "sent", [])
    monkeypatch.setattr(Unsteady, "failures", 1)
    resume = ["fit", "--resume", str(run), "--trainer.logger", f"{HERE}.Unsteady", "--allow-code", HERE]
    assert main(resume) == 0
    assert "unsteady lacks fold_0, fold_1, pooled: `swinft fit --resume" in capsys.readouterr().err
    assert "Unsteady" in (run / "config.yaml").read_text()
    Unsteady.sent.clear()
    assert main(resume) == 0
    assert Unsteady.sent[:3] == [("fold_0", True), 1, 2]
    others = [("fold_1", False), ("pooled", False), ("worst_rows", 8), "report.html"]
    assert [each for each in others if each not in Unsteady.sent] == []
    assert "unsteady has 3 records of group tiny" in capsys.readouterr().out


def runs_of_mlflow(uri: str) -> dict[str, object]:
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("swinft")
    return {each.info.run_name: (client, each) for each in client.search_runs([experiment.experiment_id])}


@pytest.mark.slow  # three processes, and the tables of a new database
def test_mlflow_has_every_epoch_once_after_kill_9_and_with_two_processes_at_a_time(tracked, tmp_path):
    config = tracked("mlflow", **{"trainer.max_epochs": 6})
    run = tmp_path / "runs" / "tiny"
    words = [sys.executable, "-m", "swinft", "fit", "--config", str(config)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    first = subprocess.Popen([*words, "--fold", "0"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    metrics = run / "fold_0" / "metrics.jsonl"
    until = time.monotonic() + 240
    while not (metrics.is_file() and len(metrics.read_bytes().splitlines()) >= 2):
        assert first.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    rest = [subprocess.Popen([*words, "--fold", fold, "--resume"], cwd=ROOT, env=environment) for fold in ("0", "1")]
    assert [each.wait(240) for each in rest] == [0, 0]
    assert main(["fit", "--config", str(config), "--resume"]) == 0
    assert main(["fit", "--config", str(config), "--resume"]) == 0  # nothing is sent twice
    found = runs_of_mlflow(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    assert sorted(found) == ["fold_0", "fold_1", "tiny"]
    parent = found["tiny"][1]
    for fold in ("fold_0", "fold_1"):
        client, record = found[fold]
        assert record.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert record.info.status == "FINISHED"
        assert record.data.params["data.target"] == "color"
        for name in ("epoch", "train_loss", "val_loss", "lr"):
            history = client.get_metric_history(record.info.run_id, name)
            values = sorted((each.step, each.value) for each in history)
            assert values == [(line["epoch"], pytest.approx(line[name])) for line in epochs_of(run / fold)]
    pooled = {name: parent.data.metrics[f"oof_{name}"] for name in pooled_of(run)}
    assert pooled == pytest.approx(pooled_of(run))
    assert {"report.html", "worst_rows"} <= {each.path for each in client.list_artifacts(parent.info.run_id)}


@pytest.mark.slow  # packages in a folder of their own: trackio asks for a Pillow before 13
def test_trackio_has_folds_epochs_and_pooled_score(tracked, tmp_path):
    target = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), *TRACKIO]
    if subprocess.run(install, check=False).returncode:
        pytest.skip("its packages cannot be downloaded here")
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": str(target)}
    words = [sys.executable, "-m", "swinft", "fit", "--config", str(tracked("trackio"))]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "trackio has 3 records of group tiny" in done.stdout
    code = (
        "import json, trackio\nruns = trackio.Api().runs('swinft')\n"
        "from trackio.sqlite_storage import SQLiteStorage as S\n"
        "print(json.dumps({r.name: S.get_logs('swinft', r.name) for r in runs}, default=str))"
    )
    read = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    logs = json.loads(read.stdout.splitlines()[-1])
    assert sorted(logs) == ["tiny/fold_0", "tiny/fold_1", "tiny/pooled"]
    for fold in ("fold_0", "fold_1"):
        lines = [line for line in logs[f"tiny/{fold}"] if "train_loss" in line]
        saved = epochs_of(tmp_path / "runs" / "tiny" / fold)
        assert [(line["step"], line["train_loss"]) for line in lines] == [
            (line["epoch"], pytest.approx(line["train_loss"])) for line in saved
        ]
    pooled = next(line for line in logs["tiny/pooled"] if "oof_accuracy" in line)
    names = pooled_of(tmp_path / "runs" / "tiny")
    assert {name: pooled[f"oof_{name}"] for name in names} == pytest.approx(names)
