"""Folds and predictions on a Ray cluster of two nodes: the same bytes as on one machine, also where nodes are lost.

`python -m benchmarks.cluster CASE…` starts two raylets on this machine, runs the cases and writes results/cluster.json:
`same` compares a fit of 5 folds and a prediction in shards with local ones, `client` a fit by Ray Client, `tune` a
search of 12 trials and an ensemble of four of them; `worker`, `raylet`, `head` and `driver` kill that process several
times during a fit, with SIGKILL, and compare what is left.
"""

import argparse
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import tiny_config, write_config, write_image

RESULTS = Path(__file__).parent / "results" / "cluster.json"
RAY = Path(sys.executable).with_name("ray")
FOLDS = 5
EPOCHS = 12
TRIALS, MEMBERS = 12, 4
FILES = ["oof.csv", *(f"fold_{fold}/weights.safetensors" for fold in range(FOLDS))]


class TwoNodes:
    """Two raylets on this machine, one of them with the cluster's head; each in a session of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.client_port = folder, free_port(), free_port()
        self.environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        self.environment |= {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        """Of the head."""
        return f"127.0.0.1:{self.port}"

    @property
    def client_address(self) -> str:
        """Of the head's Ray Client."""
        return f"ray://127.0.0.1:{self.client_port}"

    def start(self, name: str) -> None:
        """Starts `head` or `second`."""
        words = ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        words += [f"--ray-client-server-port={self.client_port}"]
        words = words if name == "head" else [f"--address={self.address}"]
        command = [str(RAY), "start", "--block", "--num-cpus=1", "--object-store-memory=80000000", *words]
        log = (self.folder / f"{name}.log").open("ab")
        self.nodes[name] = subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def listens(self) -> bool:
        """Whether the head does."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def raylet(self, name: str) -> int:
        """The id of a node's raylet."""
        return next(pid for pid, words in processes(self.nodes[name].pid) if "raylet/raylet" in words)

    def end(self, name: str) -> None:
        """Kills what is left of a node."""
        for pid, _ in processes(self.nodes[name].pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.nodes[name].pid, signal.SIGKILL)
        self.nodes[name].wait()


def processes(session: int | None = None) -> Iterator[tuple[int, str]]:
    """Ids and command lines of the processes of a session, or of all."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
            if fields[0] != "Z" and session in (None, int(fields[3])):
                yield int(path.name), (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def free_port() -> int:
    """A port that nothing listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def cluster() -> Iterator[TwoNodes]:
    """Two nodes, which end with the block."""
    folder = Path(tempfile.mkdtemp(prefix="two-", dir="/tmp"))
    nodes = TwoNodes(folder)
    try:
        nodes.start("head")
        wait_until(nodes.listens)
        nodes.start("second")
        yield nodes
    finally:
        for name in nodes.nodes:
            nodes.end(name)
        shutil.rmtree(folder, ignore_errors=True)


def competition(root: Path) -> Path:
    """90 training and 12 test images in three colours."""
    rng = np.random.default_rng(0)
    colors = {"red": (200, 40, 40), "green": (40, 190, 40), "blue": (40, 40, 200)}
    lines = ["id,color"]
    for number in range(90):
        name = list(colors)[number % 3]
        write_image(root / "images" / f"{number:03d}.jpg", colors[name], rng)
        lines.append(f"{number:03d},{name}")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    tests = [f"t{number}" for number in range(12)]
    for number, name in enumerate(tests):
        write_image(root / "images" / f"{name}.jpg", list(colors.values())[number % 3], rng)
    (root / "test.csv").write_text("\n".join(["id", *tests]) + "\n")
    (root / "sample_submission.csv").write_text("\n".join(["id,color", *(f"{name},red" for name in tests)]) + "\n")
    return root


class Case:
    """Local results to compare with, and runs on a cluster.

    Args:
        folder: Where runs are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root = folder / "data" if (folder / "data").is_dir() else competition(folder / "data")
        changes = {"data.folds.num": FOLDS, "trainer.max_epochs": EPOCHS, "data.batch_size": 4}
        self.config = write_config(folder / "c.yaml", tiny_config(root, folder / "runs", **changes))
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}

    def swinft(self, *words: str) -> "subprocess.Popen[bytes]":
        """Starts a command; its output is in a file."""
        log = (self.folder / "output.txt").open("ab")
        command = [sys.executable, "-m", "swinft", *words]
        return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder)

    def fit(self, name: str, *words: str) -> "subprocess.Popen[bytes]":
        """Starts a fit."""
        return self.swinft("fit", "--config", str(self.config), "--name", name, *words)

    def wait(self, process: "subprocess.Popen[bytes]", seconds: float = 400) -> None:
        """Waits for a command that must succeed."""
        if process.wait(seconds):
            raise SystemExit(f"exit code {process.returncode}\n{self.output()[-6000:]}")

    def output(self) -> str:
        """What the commands have printed."""
        return (self.folder / "output.txt").read_text(errors="replace")

    def digests(self, name: str) -> dict[str, str]:
        """SHA-256 of a run's results."""
        root = self.folder / "runs" / name
        return {file: hashlib.sha256((root / file).read_bytes()).hexdigest() for file in FILES}

    def epochs(self, name: str) -> dict[int, int]:
        """How many epochs each fold of a run has recorded."""
        files = {fold: self.folder / "runs" / name / f"fold_{fold}" / "metrics.jsonl" for fold in range(FOLDS)}
        return {fold: len(path.read_text().splitlines()) if path.is_file() else 0 for fold, path in files.items()}


def wait_until(happened: Callable[[], Any], seconds: float = 120) -> Any:
    """Waits for something to be true, and returns it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(StopIteration, OSError):
            if found := happened():
                return found
        time.sleep(0.02)
    raise SystemExit("nothing has happened")


def trained_more(case: Case, name: str, before: dict[int, int], process: "subprocess.Popen[bytes]") -> bool:
    """Whether a fold has trained another epoch and is not finished, or the fit has ended."""
    now = case.epochs(name)
    return process.poll() is not None or any(before[fold] < now[fold] < EPOCHS - 1 for fold in now)


def kills(case: Case, nodes: TwoNodes, what: str, count: int) -> dict[str, Any]:
    """Fits with kills in the middle of an epoch, and compares with the local run."""
    name, done = what, 0
    said = case.output().count("lost, because")
    process = case.fit(name, "--on", nodes.address)
    while done < count:
        wait_until(partial(trained_more, case, name, case.epochs(name), process), 200)
        if process.poll() is not None:
            break
        if what == "driver":
            process.kill()
            process.wait()
            process = case.fit(name, "--on", nodes.address, "--resume")
        else:
            kill(what, nodes)
        done += 1
    case.wait(process)
    lost = case.output().count("lost, because") - said
    return {"kills": done, "started again": lost, "files": len(FILES), "differing files": differing(case, name)}


def kill(what: str, nodes: TwoNodes) -> None:
    """Kills a process of the cluster; a node that is gone is started again."""
    if what == "worker":

        def worker() -> int:
            """The id of one that has a fold."""
            return next(
                pid for node in nodes.nodes.values() for pid, words in processes(node.pid) if "ray::Runner" in words
            )

        os.kill(wait_until(worker), signal.SIGKILL)
        return
    name = "head" if what == "head" else "second"
    os.kill(wait_until(partial(nodes.raylet, name)), signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        nodes.nodes[name].wait(20)
    nodes.end(name)
    if name == "head":
        nodes.end("second")
        nodes.start("head")
        wait_until(nodes.listens)
    nodes.start("second")


def differing(case: Case, name: str) -> list[str]:
    """Files of a run that are not those of the local one."""
    expected, found = case.digests("local"), case.digests(name)
    return [file for file in FILES if expected[file] != found[file]]


def same(case: Case, nodes: TwoNodes) -> dict[str, Any]:
    """A fit and a prediction without kills."""
    started = time.monotonic()
    case.wait(case.fit("cluster", "--on", nodes.address))
    took = time.monotonic() - started
    for name, words in (("local", []), ("cluster", ["--on", nodes.address])):
        case.wait(case.swinft("predict", str(case.folder / "runs" / name), "--device", "cpu", "--devices", "3", *words))
    predicted = [(case.folder / "runs" / name / "test_predictions.csv").read_bytes() for name in ("local", "cluster")]
    return {
        "files": len(FILES),
        "differing files": differing(case, "cluster"),
        "same predictions": predicted[0] == predicted[1],
        "seconds": round(took, 1),
    }


def tune(case: Case, nodes: TwoNodes) -> dict[str, Any]:
    """A search whose folds are trained on the nodes, and an ensemble of its first trials, beside local ones."""
    space = case.folder / "space.yaml"
    space.write_text("model.optim.lr: {low: 1.0e-3, high: 1.0e-1, log: true}\ndata.augment: [light, medium]\n")
    words = [
        "--config",
        str(case.config),
        "--space",
        str(space),
        "--trials",
        str(TRIALS),
        "--keep",
        str(TRIALS),
        "--pruner",
        "none",
    ]
    words += ["--data.folds.num", "2", "--trainer.max_epochs", "2"]
    runs, results = case.folder / "runs", []
    for place, on in (("local", "local"), ("cluster", nodes.address)):
        case.wait(case.swinft("tune", *words, "--name", f"tune-{place}", "--on", on), 900)
        members = [str(runs / f"tune-{place}" / "trials" / f"{number:04d}") for number in range(MEMBERS)]
        case.wait(case.swinft("ensemble", *members, "--name", f"ensemble-{place}", "--runs", str(runs)))
        files = [*sorted(runs.glob(f"tune-{place}/trials/*/oof.csv")), runs / f"ensemble-{place}" / "oof.csv"]
        results.append({str(path.relative_to(runs)).replace(place, ""): path.read_bytes() for path in files})
    local, there = results
    if len(local) != TRIALS + 1:
        raise SystemExit(f"{len(local)} predictions of the local search and ensemble, not {TRIALS + 1}")
    different = [name for name in local.keys() | there.keys() if local.get(name) != there.get(name)]
    return {"trials": TRIALS, "files": len(local), "differing files": different}


def page_rows(found: dict[str, Any]) -> list[str]:
    """The rows of the table in docs/cluster.md."""
    names = {
        "same": "nothing (and a prediction in 3 shards)",
        "client": "nothing, by Ray Client",
        "tune": f"nothing: `oof.csv` of a search of {TRIALS} trials and of an ensemble of {MEMBERS} of them",
        "worker": "a Ray worker with a fold",
        "raylet": "the raylet of the second node, which comes back",
        "head": "the raylet of the head, whose node ends and comes back",
        "driver": "the command, started again with `--resume`",
    }
    return [
        f"| {names[name]} | {case.get('kills', 0)} | {len(case['differing files'])} of {case['files']} |"
        for name, case in found.items()
    ]


def main() -> None:
    """Runs the cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+", choices=["same", "client", "tune", "worker", "raylet", "head", "driver"])
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="of the runs, which is kept: the local run is not made again")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="swinft-cluster-"))
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    try:
        case = Case(folder)
        if not (folder / "runs" / "local" / "oof.csv").is_file():
            case.wait(case.fit("local"))
        with cluster() as nodes:
            case.environment |= {name: nodes.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
            for name in given.cases:
                started = time.monotonic()
                if name == "client":
                    case.wait(case.fit(name, "--on", nodes.client_address))
                    result = {"files": len(FILES), "differing files": differing(case, name)}
                else:
                    compared = {"same": same, "tune": tune}.get(name)
                    result = compared(case, nodes) if compared else kills(case, nodes, name, given.kills)
                found[name] = result
                print(name, json.dumps(result), f"{time.monotonic() - started:.0f} s", flush=True)
                RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    finally:
        if not given.folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
