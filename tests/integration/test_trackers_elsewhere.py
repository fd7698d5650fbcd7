"""Records at trackers where several processes fit a fold, on a Ray cluster, and at services that fail half-way."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from swinft.cli import main
from swinft.run.trackers.fold_records import FoldRecords
from tests.conftest import ROOT
from tests.integration.test_trackers import epochs_of, pooled_of, runs_of_mlflow, scalars, wandb_record

ALL = ["tensorboard", "wandb", "mlflow"]


@pytest.fixture
def environment(tmp_path):
    """That of a process with no tracker's settings, and W&B offline."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "WANDB_"))}
    folders = {name: str(tmp_path) for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")}
    return own | folders | {"WANDB_MODE": "offline", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def check_records(run: Path) -> None:
    """Each of three trackers has one record of each fold with every epoch once, and one of the run."""
    folds = ("fold_0", "fold_1")
    wandb = [wandb_record(folder) for folder in run.glob("wandb/offline-run-*")]
    assert Counter(each["name"] for each in wandb) == Counter((*folds, "pooled"))
    assert {each["group"] for each in wandb} == {"tiny"}
    assert sorted(path.name for path in (run / "tensorboard").iterdir()) == [*folds, "pooled"]
    mlflow = runs_of_mlflow(f"sqlite:///{run.parent / 'mlflow.db'}")
    assert sorted(mlflow) == [*folds, "tiny"]
    parent = mlflow["tiny"][1]
    for fold in folds:
        saved = [(line["epoch"], pytest.approx(line["train_loss"])) for line in epochs_of(run / fold)]
        (own,) = [each for each in wandb if each["name"] == fold]
        assert own["config"]["data"]["target"] == "color"
        assert [(line["epoch"], line["train_loss"]) for line in own["epochs"]] == saved
        assert len(list((run / "tensorboard" / fold).glob("events.*"))) == 1
        assert scalars(run / "tensorboard" / fold)["train_loss"] == saved
        client, record = mlflow[fold]
        assert record.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (record.info.status, record.data.params["data.target"]) == ("FINISHED", "color")
        history = client.get_metric_history(record.info.run_id, "train_loss")
        assert sorted((each.step, each.value) for each in history) == saved
    pooled = pooled_of(run)
    assert {name: parent.data.metrics[f"oof_{name}"] for name in pooled} == pytest.approx(pooled)
    (whole,) = [each for each in wandb if each["name"] == "pooled"]
    assert {name: json.loads(whole["summary"][f"oof_{name}"]) for name in pooled} == pytest.approx(pooled)


@pytest.mark.slow  # two folds of two processes each
def test_of_two_processes_that_fit_a_fold_one_keeps_a_record(tracked, tmp_path, environment):
    config = tracked(ALL, **{"trainer.devices": 2})
    command = [sys.executable, "-m", "swinft", "fit", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tiny"
    assert json.loads((run / "devices.json").read_text())["devices_per_fold"] == 2
    check_records(run)
    assert done.stdout.count("wandb has 3 records of group tiny") == 1


@pytest.mark.slow  # starts a Ray cluster
def test_folds_on_a_cluster_have_their_records_in_the_group_of_the_run(tracked, tmp_path, environment):
    command = [sys.executable, "-m", "swinft", "fit", "--config", str(tracked(ALL)), "--on", "ray"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    check_records(tmp_path / "runs" / "tiny")
    assert done.stdout.count("wandb has 3 records of group tiny") == 1


class Server(HTTPServer):
    """Answers a number of requests, and then none: a service that is there when a run starts, and gone soon after."""

    def __init__(self, content: object, answers: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.left, self.asked = json.dumps(content).encode(), answers, 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.left -= 1
        self.send_response(200 if self.server.left >= 0 else 503)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(self.server.content if self.server.left >= 0 else b"{}")

    do_POST = do_GET  # as http.server names them

    def log_message(self, *given: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def service():
    """Starts a server in a thread."""
    started = []

    def start(content: object, answers: int) -> Server:
        server = Server(content, answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def test_an_mlflow_server_that_does_not_answer_is_found_before_anything_is_trained(
    tracked, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    assert main(["fit", "--config", str(tracked("mlflow"))]) == 2
    err = capsys.readouterr().err
    assert "mlflow: http://***@127.0.0.1:9 does not answer" in err
    assert "set MLFLOW_TRACKING_URI to another one, or remove it" in err
    assert "secret" not in err
    assert not list((tmp_path / "runs").glob("[!.]*"))


@pytest.mark.slow  # clients try several times
@pytest.mark.parametrize("word", ["mlflow", "wandb"])
def test_a_service_that_is_gone_after_the_start_loses_no_fold(word, tracked, tmp_path, service, environment, tiny_run):
    content = {"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}, "data": {"viewer": {"id": "me"}}}
    server = service(content, 1)
    del environment["WANDB_MODE"]
    own = {"MLFLOW_TRACKING_URI": server.address, "WANDB_BASE_URL": server.address, "WANDB_API_KEY": "0123456789" * 4}
    command = [sys.executable, "-m", "swinft", "fit", "--config", str(tracked(word))]
    done = subprocess.run(command, cwd=ROOT, env=environment | own, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert server.asked > 1
    run = tmp_path / "runs" / "tiny"
    said = done.stderr + done.stdout
    assert f"fold 0: {word}: it could not be started" in said
    assert "The training goes on" in said
    assert f"{word} lacks" in said
    assert "swinft fit --resume" in said
    assert "0123456789" not in said
    assert (run / "oof.csv").read_bytes() == (tiny_run / "oof.csv").read_bytes()
    assert (run / "report.html").is_file()


def own_children(word: str) -> list[int]:
    """Processes that this one has started, whose command has a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, parent = (
                (folder / "cmdline").read_bytes(),
                (folder / "stat").read_text().rpartition(")")[2].split()[1],
            )
        except OSError:
            continue
        found += [int(folder.name)] if word.encode() in words and int(parent) == os.getpid() else []
    return found


@pytest.mark.slow  # the process of W&B starts twice
def test_a_process_of_wandb_that_is_killed_loses_no_fold(tracked, tmp_path, monkeypatch, capfd, tiny_run):
    pytest.importorskip("wandb")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    send, killed = FoldRecords.send, []

    def kill_and_send(records: FoldRecords, history: list[dict[str, float]], steps: object) -> None:
        if not killed:
            killed.extend(own_children("wandb-core"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        send(records, history, steps)

    monkeypatch.setattr(FoldRecords, "send", kill_and_send)
    config = str(tracked("wandb"))
    assert main(["fit", "--config", config, "--fold", "0"]) == 0
    assert killed
    assert "The training goes on" in capfd.readouterr().err
    monkeypatch.setattr(FoldRecords, "send", send)
    run = tmp_path / "runs" / "tiny"
    assert (run / "fold_0" / "oof.csv").read_bytes() == (tiny_run / "fold_0" / "oof.csv").read_bytes()
