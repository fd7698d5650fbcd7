"""The scripts that need a machine of their own still run, at toy size, and their page says what they wrote."""

import importlib
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def test_the_gpu_benchmark_runs_at_toy_size():
    results = ROOT / "benchmarks" / "results"
    before = {path: path.read_bytes() for path in results.iterdir()}
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--toy"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "fast attention: " in done.stdout
    assert "triton: left out" in done.stdout
    assert "cache training img/s" in done.stdout
    assert "device training img/s" in done.stdout
    assert "swinft's loop, × the time of one by hand" in done.stdout
    assert "Error" not in done.stdout
    assert {path: path.read_bytes() for path in results.iterdir()} == before


@pytest.mark.slow
def test_what_a_cpu_can_do_of_the_smoke_test_works():
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_smoke.py", "--dry"], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok ") == 9


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("measure")


def test_the_page_says_what_the_results_say(measure):
    assert (ROOT / "benchmarks" / "README.md").read_text() == measure.page(measure.read_results())


def test_the_page_shows_every_result_and_calls_a_missed_goal_missed(measure):
    results = measure.read_results()
    page = measure.page(results)
    for path in measure.RESULTS.iterdir():
        assert f"(results/{path.name})" in page
    assert "too short to judge" not in page
    results["folds"] |= {"ratio": 5.2, "met": False, "long_enough": False}
    assert "too short to judge" in measure.page(results)
    assert "5.2 (" in measure.page(results)
    assert measure.page(results).count("missed") == page.count("missed") + 1


def test_the_page_has_room_for_a_gpu(measure):
    row = {"train img/s": 1500.0, "train share of peak": 0.4, "predict img/s": 5000.0, "predict share of peak": 0.44}
    variants = {"timm": row | {"peak memory GB": 12.0, "first step s": 1.5}, "triton": {"error": "RuntimeError: no"}}
    device = {"device": "NVIDIA H200", "product TFLOP/s": 700.0, "peak TFLOP/s": 989, "peak from": "data sheet"}
    goals = [{"what": "Swin-T trained", "value": 1.25, "bound": "least", "limit": 1.3, "met": False}]
    gpu = device | {
        "models": {"swin_tiny 224": {"variants": variants}},
        "supply": {"JPEG img/s": 9000.0},
        "done": [],
        "goals": goals,
    }
    page = measure.page(measure.read_results() | {"gpu": gpu})
    assert "| swin_tiny 224, timm | 1,500 | 0.40 | 5,000 | 0.44 | 12.0 | 1.5 |" in page
    assert "| swin_tiny 224, triton | RuntimeError: no |" in page
    assert "Swin-T trained: 1.25, at least 1.3 was the goal: missed." in page
