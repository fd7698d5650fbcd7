"""Which rounds have scores that may be too good."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from swinft.run.rounds.plan import Plan
from swinft.run.rounds.settings import DropNoisy, Round


@pytest.mark.parametrize("is_marked", [True, False])
def test_what_learns_from_a_marked_round_of_other_rounds_is_marked(is_marked, tiny_run, tmp_path):
    other = Path(shutil.copytree(tiny_run, tmp_path / "earlier" / "clean"))
    table = {"rounds": [{"name": "clean", "is_optimistic": is_marked}]}
    (other.parent / "rounds.json").write_text(json.dumps({"rounds": {}, "last": "clean", "table": table}))
    rounds = [
        Round("base", ""),
        Round("student", "", sources=[str(other.parent)]),
        Round("small", "", sources=["base", "student"]),
        Round("loud", "", sources=["base"], drop_noisy=DropNoisy(nested=False)),
    ]
    base = SimpleNamespace(config=SimpleNamespace(runs=str(tmp_path), name="now"))
    plan = Plan(None, [], base, rounds, tmp_path)
    assert [plan.is_optimistic(each) for each in rounds] == [False, is_marked, is_marked, True]
