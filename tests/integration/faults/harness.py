"""Kills, limits and damage for real processes: a whole run in a child, stopped where a test wants it."""

import contextlib
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from swinft import store
from swinft.cli import main
from swinft.run.layout import Run
from tests.conftest import tiny_config, write_config

TIMEOUT = 240  # seconds; a child that hangs is killed and fails its test
FOLDS, EPOCHS = 2, 2
# Everything that draws random numbers while training.
RECIPE = {
    "data.folds.num": FOLDS,
    "trainer.max_epochs": EPOCHS,
    "trainer.accumulate_grad_batches": 2,
    "model.head": {"class_path": "swinft.ClassificationHead", "init_args": {"dropout": 0.3}},
    "model.drop_path_rate": 0.3,
    "model.mix": {"mixup_alpha": 0.5},
    "data.augment": "heavy",
}


def config_of(competition: Path, folder: Path, **changes: object) -> Path:
    """The config of a run in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **{**RECIPE, **changes}))


def whole_run(config: Path) -> int:
    """What a user types from fit to submit, each step where the one before ended well, with --resume where it applies."""
    run = Run(config.parent / "runs" / "tiny")
    words = ["fit", "--config", str(config)]
    steps = [[*words, "--fold", str(fold)] for fold in range(FOLDS)] + [words]
    for step in steps:
        resume = ["--resume"] if run.root.exists() and any(run.root.iterdir()) else []
        if code := main([*step, *resume]):
            return code
    return main(["predict", str(run.root), "--device", "cpu"]) or main(["submit", str(run.root)])


@dataclass
class Child:
    """What became of a child process."""

    code: int
    text: str


def in_child(work: Callable[[], int], log: Path, kill_after: float | None = None, group: bool = True) -> Child:
    """Runs something in a forked process: the imports, seconds in a fresh one, are there already.

    Args:
        work: Returns the exit code.
        log: Where its output goes.
        kill_after: Seconds after which it is killed; None for never.
        group: Kill its loader processes with it, or leave them behind.

    Returns:
        The exit code, 128 + signal where one ended it, and the output.
    """
    pid = os.fork()
    if pid == 0:
        _be_child(work, log)
    started, limit = time.monotonic(), kill_after if kill_after is not None else TIMEOUT
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - started > limit:
            if group:
                with contextlib.suppress(ProcessLookupError):  # killed before it had a group of its own
                    os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            limit = TIMEOUT
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # loader processes that outlived it
    code = os.waitstatus_to_exitcode(status)
    return Child(128 - code if code < 0 else code, log.read_text() if log.is_file() else "")


def _be_child(work: Callable[[], int], log: Path) -> None:
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    code = 99
    try:
        code = work()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


@dataclass(frozen=True)
class Point:
    """A place in the life of an artefact where the process dies.

    Args:
        stage: `before` anything of it is written; `torn`, in the middle of the temporary file; `written`, before the
            rename; `renamed`, before its record; `recorded`, right after.
        name: Pattern of the artefact's path inside the run.
        nth: How many such artefacts are let through first.
    """

    stage: str
    name: str
    nth: int = 0

    def __str__(self) -> str:
        return f"{self.stage}-{self.name.replace('*', '').replace('/', '_')}-{self.nth}"


def arm(point: Point, root: Path, die: Callable[[], None] = lambda: os.killpg(os.getpid(), signal.SIGKILL)) -> None:
    """Lets this process die at a point."""
    write, put = store.write_beside, store.put
    left = [point.nth]
    is_record = point.stage in ("renamed", "recorded")

    def hit(path: Path) -> bool:
        name = str(path.relative_to(root)) if path.is_relative_to(root) else ""
        wanted = fnmatch(name.replace(f"{store.RECORDS}/", ""), point.name + ".json" * is_record)
        if not wanted or (is_record != (store.RECORDS in name)):
            return False
        left[0] -= 1
        return left[0] == -1

    def dying_write(path: Path, content: object) -> object:
        at_once = point.stage in ("before", "torn", "renamed") and hit(path)
        if at_once and point.stage == "torn":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(b"half of it")
        if at_once:
            die()
        result = write(path, content)
        if point.stage == "written" and hit(path):
            die()
        return result

    def dying_put(path: Path, temporary: Path) -> None:
        put(path, temporary)
        if point.stage == "recorded" and hit(path):
            die()

    store.write_beside, store.put = dying_write, dying_put


def limit_file_size(most: int) -> None:
    """From here on, a file of this process that grows beyond `most` bytes is an error of the disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


FINAL = ("oof.csv", "submission.csv", "folds.csv", "test_predictions.csv")
FINAL_OF_FOLD = ("weights.safetensors", "oof.csv")


def outcome(config: Path) -> dict[str, bytes]:
    """The bytes of everything that must not depend on interruptions."""
    run = Run(config.parent / "runs" / "tiny")
    paths = [run.root / name for name in FINAL]
    paths += [run.fold(fold).root / name for fold in range(FOLDS) for name in FINAL_OF_FOLD]
    return {str(path.relative_to(run.root)): store.verify(path).read_bytes() for path in paths}


def epochs_trained(texts: list[str]) -> int:
    """How many epochs some attempts trained in all, from the lines they print."""
    return sum(len(re.findall(r"^fold \d  epoch \d", text, re.MULTILINE)) for text in texts)


def litter(root: Path) -> list[Path]:
    """Temporary files that were left."""
    return [path for path in root.rglob(".*") if store.is_temporary(path.name)]


def reset(folder: Path) -> None:
    shutil.rmtree(folder / "runs", ignore_errors=True)
