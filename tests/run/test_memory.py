"""Freed memory stays with a process that fits on a CPU."""

import platform
import subprocess
import sys

import pytest
import torch

from swinft.run.memory import keep_freed_memory
from tests.conftest import tiny_config, write_config

# 80 MB, freed and allocated again five times: 100,000 pages if the system takes them back each time.
FAULTS = """
import resource, sys, torch
from swinft.cli import main
assert main(sys.argv[1:]) == 0
faults = []
for _ in range(7):
    torch.ones(20_000_000)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's setting")
def test_a_fold_on_the_cpu_keeps_its_memory(competition, tmp_path):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **{"trainer.max_epochs": 1}))
    command = [sys.executable, "-c", FAULTS, "fit", "--config", str(config), "--fold", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 1000


def test_other_devices_keep_theirs_by_themselves():
    assert not keep_freed_memory(torch.device("cuda"))
