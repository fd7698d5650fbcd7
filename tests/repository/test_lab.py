"""`benchmarks/lab.py`: its verdicts follow the numbers, and the whole of it runs, continues, and writes a page."""

import json
import subprocess
import sys

import pytest

from benchmarks.lab import DIRECTIONS, judged, page
from tests.conftest import ROOT


def summaries(of: dict[tuple[str, str, str], float]) -> dict:
    found: dict = {}
    for (instrument, network, key), value in of.items():
        found.setdefault(instrument, {"subjects": {}})["subjects"].setdefault(network, {})[key] = value
    return found


def test_a_direction_is_reproduced_by_numbers_that_say_so_and_by_no_others():
    keys = {place for each in DIRECTIONS for place in each.numbers.values()}
    for sign in (1, -1):
        # For a ResNet and its convolutions the larger number, or the smaller one.
        of = {key: sign * (0.9 if key[1] == "resnet" else 0.3) for key in keys}
        verdicts = [each["reproduced"] for each in judged(summaries(of))]
        assert None not in verdicts
        assert True in verdicts
        assert False in verdicts
        if sign == 1:
            first = verdicts
    assert first != verdicts
    assert {each["reproduced"] for each in judged({})} == {None}
    one = {("scale", "swin", "exponent of MACs of attention"): 1.001}
    assert [each["reproduced"] for each in judged(summaries(one))].count(None) == len(DIRECTIONS) - 1


def test_the_page_has_every_direction_with_its_numbers():
    results = {
        "machine": {"processor": "x", "torch threads": 1, "torch": "2"},
        "epochs": 2,
        "rows": {"trained": 280, "held out": 120},
        "networks": {"swin": {"parameters": 1234567, "accuracy": 0.5}},
        "instruments": {"variance": {"subjects": {"swin": {"about": "a", "steps": 1, "variance ratio of MSA": 0.75}}}},
    }
    results["directions"] = judged(results["instruments"])
    text = page(results, {"variance": [("Variance by depth.", "lab/variance-0.svg")]})
    assert all(each.claim in text for each in DIRECTIONS)
    assert "| variance ratio of MSA | 0.75 |" in text
    assert "![Variance by depth.](lab/variance-0.svg)" in text
    assert "| swin | 1,234,567 | 0.500 |" in text


@pytest.mark.slow
def test_the_small_benchmark_runs_and_continues(tmp_path):
    words = [sys.executable, "benchmarks/lab.py", "--small", "--folder", str(tmp_path)]
    for _ in range(2):
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
    assert "measured already" in done.stdout
    found = json.loads((tmp_path / "lab.json").read_text())
    assert set(found["networks"]) == {"swin", "vit", "resnet"}
    assert all(each["complete"] for each in found["instruments"].values())
    assert (tmp_path / "lab-results.md").read_text().count("![") >= 5
    assert all(path.stat().st_size < 150_000 for path in (tmp_path / "figures").iterdir())
