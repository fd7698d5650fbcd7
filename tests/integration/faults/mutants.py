"""Takes one protection away at a time and asks the suite whether it notices.

    python -m tests.integration.faults.mutants            # all of them, a quarter of an hour on 2 cores
    python -m tests.integration.faults.mutants fsync lock # those whose names hold a word

Each mutant is a copy of the working tree with one text replaced; the tests that guard the place run in it. A mutant that
they let live is printed as such, and the exit code is 1. What the tests say about the tree as it is, is asked first.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Mutant:
    """One protection removed.

    Args:
        name: What is gone.
        file: Where.
        old: The text that goes.
        new: The text in its place.
        tests: What must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


STATES, CORRUPTION = "tests/integration/faults/test_crash_states.py", "tests/integration/faults/test_corruption.py"
STORE, RESUMED = (
    "tests/test_store.py",
    "tests/integration/test_end_to_end.py::test_a_resumed_fold_ends_with_the_weights_of_an_uninterrupted_one",
)
FAULTS, SECURITY, RANKS = (
    "tests/integration/faults/test_store_faults.py",
    "tests/integration/faults/test_security.py",
    "tests/integration/faults/test_ranks.py",
)

MUTANTS = [
    Mutant(
        "no commit record",
        "swinft/store.py",
        "    put(_record(path), write_beside(_record(path), text.encode())[0])\n",
        "",
        (STORE,),
    ),
    Mutant("no fsync of the file", "swinft/whole_files.py", "            os.fsync(file.fileno())\n", "", (STATES,)),
    Mutant(
        "temporary in the system's folder",
        "swinft/whole_files.py",
        'path.with_name(f".{path.name}.{own_suffix()}")',
        'Path("/tmp") / f".{path.name}.{own_suffix()}"',
        (STORE,),
    ),
    Mutant(
        "the old record stays while the file changes",
        "swinft/store.py",
        "                _write_record(path, {**before, NEXT: record})\n",
        "                pass\n",
        (STATES,),
    ),
    Mutant("a record's deletion not flushed", "swinft/store.py", "        flush(record.parent)\n", "", (STATES,)),
    Mutant(
        "new folders not flushed", "swinft/whole_files.py", "        flush(each.parent)\n", "        pass\n", (STATES,)
    ),
    Mutant(
        "children do not watch their parent",
        "swinft/system/orphans.py",
        '        threading.Thread(target=_exit_at_end_of_input, name="end-with-parent", daemon=True).start()\n',
        "",
        ("tests/integration/test_processes.py", "-k", "f047"),
    ),
    Mutant(
        "devices follow the folds that wait",
        "swinft/run/compute/devices.py",
        "    count = max(1, min(len(names) // per_fold, num_waiting))\n",
        "    per_fold = max(1, len(names) // num_waiting)\n    count = 1\n",
        ("tests/integration/test_processes.py", "-k", "f039"),
    ),
    Mutant("SHA-256 not compared", "swinft/store.py", ' or sha256_of(path) != current["sha256"]', "", (CORRUPTION,)),
    Mutant(
        "records not checked",
        "swinft/store.py",
        "return record if check == _check(record) else None",
        "return record",
        (CORRUPTION,),
    ),
    Mutant(
        "only one checkpoint kept",
        "swinft/run/folds/recorder.py",
        "KEPT_CHECKPOINTS = 2",
        "KEPT_CHECKPOINTS = 1",
        (FAULTS,),
    ),
    Mutant(
        "damaged checkpoints not set aside",
        "swinft/store.py",
        "            return verify(path)\n        except",
        "            return path\n        except",
        (FAULTS,),
    ),
    Mutant(
        "pickle allowed in checkpoints",
        "swinft/run/trainer.py",
        "weights_only=True)",
        "weights_only=False)",
        (SECURITY,),
    ),
    Mutant(
        "buffers averaged through float",
        "swinft/model/training/ema.py",
        "        torch._foreach_copy_(befores, buffers)\n",
        "        for before, buffer in zip(befores, buffers, strict=True):\n"
        "            before.copy_((decay * before.float() + (1 - decay) * buffer.float()).to(before.dtype))\n",
        ("tests/model/training/test_ema.py",),
    ),
    Mutant(
        "the recorder is shared by folds",
        "swinft/run/folds/recorder.py",
        "        self.history: list[dict[str, float]] = []\n",
        "        self.history = FoldRecorder.__dict__.get('shared') or setattr(FoldRecorder, 'shared', []) or FoldRecorder.shared\n",
        ("tests/integration/faults/test_kills.py", "-k", "written"),
    ),
    Mutant(
        "evaluation padded with real rows",
        "swinft/data/loading/dataset.py",
        "        padded[: len(rows)] = np.sort(rows)\n",
        "        padded[:] = np.resize(np.sort(rows), len(padded))\n",
        (RANKS,),
    ),
    Mutant(
        "pooled rows with padding",
        "swinft/model/evaluation.py",
        "order = order[pooled.rows[order] >= 0]",
        "pass",
        (RANKS,),
    ),
    Mutant(
        "current_epoch for processed",
        "swinft/data/loading/loader_state.py",
        "return max(self.resumed_epoch, int(progress.processed) if progress else 0)",
        "return trainer.current_epoch if trainer else 0",
        (RESUMED,),
    ),
    Mutant(
        "augmentation on the device not seeded per row",
        "swinft/data/augment/geometry.py",
        "        set_seed(self.pipeline, seed, epoch, row)\n",
        "",
        (RESUMED,),
    ),
    Mutant(
        "dropout not seeded per step",
        "swinft/model/task.py",
        '        seed_generators(self.device, int(self._rng("dropout", batch_idx).integers(2**63)))\n',
        "        pass\n",
        (RESUMED,),
    ),
    Mutant(
        "every epoch in the same order",
        "swinft/data/loading/dataset.py",
        "default_rng([self.seed, visit])",
        "default_rng([self.seed])",
        ("tests/data/test_sampling.py",),
    ),
    Mutant(
        "augmentation drawn from global state",
        "swinft/data/augment/pipelines.py",
        "    pipeline.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))\n",
        "",
        ("tests/data/augment/test_pipelines.py", RESUMED),
    ),
    Mutant(
        "the average forgets its steps at resume",
        "swinft/model/training/ema.py",
        "            self._num_updates = int(self.updates)\n",
        "            self._num_updates = 0\n",
        (RESUMED,),
    ),
    Mutant("no lock", "swinft/run/lock.py", "        lock.acquire(timeout=patience)\n", "        pass\n", (FAULTS,)),
    Mutant(
        "--overwrite asks for no fold's lock",
        "swinft/run/freeze.py",
        "for lock in {run.lock, *run.fold_locks()} - {held}:",
        "for lock in set():",
        (FAULTS,),
    ),
    Mutant(
        "signals left to Lightning",
        "swinft/run/folds/fold.py",
        "        exit_on_signals(),\n",
        "",
        ("tests/integration/test_end_to_end.py::test_an_interrupted_fold_goes_on_from_its_last_epoch[a-fold]",),
    ),
    Mutant(
        "changed images not noticed",
        "swinft/run/folds/fold.py",
        "    data.check_unchanged(verify(run.images))\n",
        "",
        ("tests/integration/faults/test_bad_input.py", "-k", "i5"),
    ),
    Mutant(
        "changed CSVs not noticed",
        "swinft/run/resume.py",
        "    check_inputs(run, config)\n",
        "",
        (FAULTS,),
    ),
    Mutant(
        "secrets written down",
        "swinft/run/config/sections.py",
        "return mask(str(parser.dump(without_command_keys(config), skip_unset=False)))",
        "return str(parser.dump(without_command_keys(config), skip_unset=False))",
        (SECURITY,),
    ),
    Mutant(
        "any class path allowed",
        "swinft/run/config/trust.py",
        "    if not _is_trusted(name, allow_code):\n",
        "    if False:\n",
        (SECURITY,),
    ),
    Mutant(
        "a NaN loss goes on",
        "swinft/run/folds/recorder.py",
        "        self._check_finite(trainer, pl_module)\n",
        "",
        (FAULTS,),
    ),
    Mutant(
        "temporary files left",
        "swinft/run/folds/fold.py",
        "        sweep(fold.root)\n",
        "        pass\n",
        ("tests/integration/faults/test_kills.py", "-k", "torn"),
    ),
    Mutant(
        "a death before the first fold is a dead end",
        "swinft/run/freeze.py",
        "    if run.is_unstarted():\n",
        "    if False:\n",
        ("tests/integration/faults/test_kills.py", "-k", "config or folds"),
    ),
]


def copy_of(tree: Path) -> None:
    """The working tree without what git ignores."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


def tests_pass(tree: Path, tests: tuple[str, ...]) -> bool:
    """Whether tests pass in a tree; -x, since one failure is enough."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=tree, capture_output=True).returncode == 0


def main(words: list[str]) -> int:
    """Runs the mutants whose names hold one of the words, all without any; returns the exit code."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_of(tree)
        for tests in {mutant.tests for mutant in chosen}:
            if not tests_pass(tree, tests):
                print(f"{' '.join(tests)} fails without any mutant: nothing can be learnt from it", flush=True)
                return 1
        for mutant in chosen:
            path, started = tree / mutant.file, time.monotonic()
            whole = path.read_text()
            path.write_text(whole.replace(mutant.old, mutant.new, 1))
            lives = tests_pass(tree, mutant.tests)
            path.write_text(whole)
            survivors += [mutant.name] * lives
            print(
                f"{'SURVIVES' if lives else 'caught':<9} {mutant.name} ({time.monotonic() - started:.0f} s)", flush=True
            )
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
