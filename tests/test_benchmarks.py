"""The scripts that need a machine of their own still run, at toy size."""

import subprocess
import sys

from tests.conftest import ROOT


def test_the_gpu_benchmark_runs_at_toy_size():
    results = ROOT / "benchmarks" / "results"
    before = {path: path.read_bytes() for path in results.iterdir()}
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--toy"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "fast attention: " in done.stdout
    assert "triton: " in done.stdout
    assert "cache training img/s" in done.stdout
    assert "device training img/s" in done.stdout
    assert "Error" not in done.stdout
    assert {path: path.read_bytes() for path in results.iterdir()} == before
