"""Freed memory stays with a process that fits on a CPU."""

import platform
import subprocess
import sys

import pytest
import torch

from swinft.system.allocator import keep_freed_memory
from tests.conftest import tiny_config, write_config

# 80 MB, freed and allocated again ten times: 200,000 pages if the system takes them back each time. Before that as often
# as it takes until all of what the process keeps has been written to once.
FAULTS = """
import resource, sys, torch
from swinft.cli import main
assert main(sys.argv[1:]) == 0
faults = []
for _ in range(30):
    torch.ones(20_000_000)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-11])
"""

# 400 MB that the parent has freed and kept when the loader's process is forked from it.
RESIDENT = """
import multiprocessing, os, re, sys, torch
from pathlib import Path
from swinft import CSVDataModule
from swinft.system.allocator import keep_freed_memory
assert keep_freed_memory(torch.device("cpu"))
root, cache = sys.argv[1:]
data = CSVDataModule(root=root, train="train.csv", image="images/{id}.jpg", target="color",
                     target_kind="classification", folds={"num": 2}, image_size=32, batch_size=6,
                     loading={"cache_dir": cache, "num_workers": 1})
data.setup("fit")
torch.ones(100_000_000)
batches = iter(data.train_dataloader())
next(batches)
worker, = multiprocessing.active_children()
status = [Path(f"/proc/{pid}/status").read_text() for pid in (os.getpid(), worker.pid)]
ours, its = (int(re.search("RssAnon:(.*) kB", text)[1]) / 1000 for text in status)
print(ours - its)
"""
glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's setting")


@pytest.mark.slow
@glibc_only
def test_a_fold_on_the_cpu_keeps_its_memory(competition, tmp_path):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **{"trainer.max_epochs": 1}))
    command = [sys.executable, "-c", FAULTS, "fit", "--config", str(config), "--fold", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 1000


@pytest.mark.slow
@glibc_only
def test_loader_processes_do_not_hold_what_their_parent_keeps(competition, tmp_path):
    command = [sys.executable, "-c", RESIDENT, str(competition), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout.splitlines()[-1]) > 350


def test_other_devices_keep_theirs_by_themselves():
    assert not keep_freed_memory(torch.device("cuda"))
