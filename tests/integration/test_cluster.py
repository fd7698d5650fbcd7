"""Runs on several machines, as far as one machine can be several: options, a Ray cluster, torchrun, SLURM's variables."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.cluster import free_port, page_rows, processes
from swinft.cli import main
from tests.conftest import ROOT, fit_in_process, tiny_config, write_config

FILES = ("fold_0/oof.csv", "fold_0/weights.safetensors")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def config(competition, tmp_path):
    return str(write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "nowhere"], "--on is 'nowhere'. Allowed: local, ray"),
        (["--on", "127.0.0.1:9"], "there is no cluster, nothing answers there"),
        (["--on", "ray", "--fold", "0"], "a fold given by --fold run in this process. Remove --on."),
        (["--on", "ray", "--trainer.fast_dev_run", "true"], "a dry run and a fold"),
        (["--copy-data", "/scratch"], "give --on, too"),
        (["--trainer.num_nodes", "2"], "a launcher such as torchrun must start `swinft fit --fold K`"),
        (["--trainer.num_nodes", "2", "--fold", "0"], "a launcher such as torchrun"),
        (["--trainer.strategy", "fsdp"], "a fold's process saves the whole network"),
    ],
)
def test_what_cannot_run_there_is_refused_before_anything_is_trained(words, said, config, tmp_path, capsys):
    assert main(["fit", "--config", config, *words]) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/*"))


def test_a_prediction_elsewhere_is_refused_before_it_starts(tiny_run, tmp_path, capsys):
    assert main(["predict", str(tiny_run), "--on", "elsewhere"]) == 2
    assert main(["predict", str(tiny_run), "--part", "0/2", "--on", "ray", "--output", str(tmp_path / "o.csv")]) == 2
    words = ["--device", "cpu", "--on", "127.0.0.1:9", "--output", str(tmp_path / "o.csv")]
    assert main(["predict", str(tiny_run), *words]) == 2
    err = capsys.readouterr().err
    for said in ("--on is 'elsewhere'", "without --devices and --on", "nothing answers there"):
        assert said in err
    assert not [*tmp_path.glob("*"), *tmp_path.glob(".*")]


def test_a_rank_that_a_launcher_starts_waits_for_the_first(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setattr("swinft.run.fit.FIRST_RANK_SECONDS", 0.1)
    assert main(["fit", "--config", config, "--fold", "0", "--overwrite"]) == 2
    assert "delete" in capsys.readouterr().err
    assert main(["fit", "--config", config, "--fold", "0"]) == 1
    assert "rank 1: rank 0 has not written" in capsys.readouterr().err


def test_a_fold_on_a_node_without_the_cache_reads_its_images_itself(config, competition, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("swinft.run.fit.fit_fold", lambda *_: None)
    assert main(["fit", "--config", config, "--fold", "0"]) == 0
    monkeypatch.undo()
    monkeypatch.setenv("SWINFT_CHECKED_IMAGES", f"found:{tmp_path / 'not here.pixels'}")
    image = competition / "images" / "000.jpg"
    content = image.read_bytes()
    image.write_bytes((competition / "images" / "001.jpg").read_bytes())
    words = ["fit", "--config", config, "--fold", "0", "--resume"]
    try:
        monkeypatch.setenv("SWINFT_ON_CLUSTER", "1")
        assert main(words) == 2
        assert "id '000': the image is not that of the run's start" in capsys.readouterr().err
    finally:
        image.write_bytes(content)


def test_the_page_shows_what_was_measured_and_nothing_was_lost():
    found = json.loads((ROOT / "benchmarks" / "results" / "cluster.json").read_text())
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert all(row in page for row in page_rows(found))
    assert [name for name, case in found.items() if case["differing files"]] == []
    assert found["same"]["same predictions"]


def digests(run: Path, files=FILES) -> list[str]:
    return [hashlib.sha256((run / file).read_bytes()).hexdigest() for file in files]


def both(*commands: list[str], environments=({}, {})) -> None:
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, env={**ENVIRONMENT, **more}, stdout=pipe, stderr=pipe, text=True)
        for command, more in zip(commands, environments, strict=True)
    ]
    said = [each.communicate(timeout=240) for each in started]
    assert [each.returncode for each in started] == [0, 0], said


@pytest.mark.slow
def test_two_nodes_with_a_device_each_fit_as_one_node_with_two(config, tmp_path):
    """By torchrun, and by the variables that SLURM's srun sets."""
    fit = ["-m", "swinft", "fit", "--config", config, "--fold", "0"]
    one = [sys.executable, *fit, "--name", "one", "--trainer.devices", "2"]
    assert subprocess.run(one, env=ENVIRONMENT, capture_output=True).returncode == 0
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nnodes=2", "--nproc_per_node=1", "--rdzv_id=x"]
    torchrun += ["--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{free_port()}"]
    nodes = ["--trainer.num_nodes", "2", "--trainer.devices", "1"]
    both(*[[*torchrun, *fit, "--name", "two", *nodes]] * 2)
    assert digests(tmp_path / "runs" / "two") == digests(tmp_path / "runs" / "one")
    slurm = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "x", "SLURM_LOCALID": "0", "SLURM_NNODES": "2"}
    slurm |= {"SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    slurm |= {"SLURM_NTASKS_PER_NODE": "1"}
    ranks = [slurm | {"SLURM_PROCID": rank, "SLURM_NODEID": rank} for rank in "01"]
    both(*[[sys.executable, *fit, "--name", "three", *nodes]] * 2, environments=ranks)
    assert digests(tmp_path / "runs" / "three") == digests(tmp_path / "runs" / "one")


def of_ray() -> set[int]:
    """Processes of a Ray cluster on this machine."""
    ours = re.compile(r"ray::|raylet/raylet|gcs_server|swinft\.system\.cluster\.bridge")
    return {pid for pid, words in processes() if ours.search(words)}


@pytest.mark.slow
def test_a_fit_on_a_cluster_of_this_machine_is_the_local_one_and_leaves_nothing(config, tmp_path):
    """With a copy of the data, after a kill of the command."""
    fit_in_process(Path(config), "--name", "local")
    before, node = of_ray(), tmp_path / "node"
    command = [sys.executable, "-m", "swinft", "fit", "--config", config, "--name", "there", "--on", "ray"]
    command += ["--copy-data", str(node)]
    killed = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "runs" / "there" / "fold_0" / "metrics.jsonl"
    until = time.monotonic() + 200
    while not metrics.is_file() and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = subprocess.run([*command, "--resume"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = ["oof.csv", *(f"fold_{fold}/weights.safetensors" for fold in (0, 1))]
    assert digests(tmp_path / "runs" / "there", files) == digests(tmp_path / "runs" / "local", files)
    (copy,) = [path for path in node.iterdir() if path.is_dir()]
    assert (copy / "train.csv").is_file()
    until = time.monotonic() + 90
    while of_ray() - before and time.monotonic() < until:
        time.sleep(0.5)
    assert not of_ray() - before
