"""The demo's configs reach the scores that the README names. Minutes: run with `pytest -m slow`."""

import json

import pytest
import yaml

from tests.conftest import ROOT
from tests.integration.test_end_to_end import read_rows, swinft

FLOORS = {
    "bluemarble": ("accuracy", 0.45),
    "bluemarble_latitude": ("r2", 0.4),
    "bluemarble_labels": ("mean_column_auc", 0.8),
}
OWN = {"name", "data.target", "data.target_kind", "data.sample_submission", "model.head", "model.metrics"}


def flat(config: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Dotted keys of a config, heads as one."""
    items = {}
    for key, value in config.items():
        is_section = isinstance(value, dict) and key != "head"
        items |= flat(value, f"{prefix}{key}.") if is_section else {f"{prefix}{key}": value}
    return items


def test_the_three_configs_differ_only_in_head_target_and_metrics():
    configs = [flat(yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())) for name in FLOORS]
    for config in configs[1:]:
        assert {key for key in {**config, **configs[0]} if config.get(key) != configs[0].get(key)} == OWN


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOORS)
def test_the_scores_hold(name, tmp_path):
    for words in (["fit", "--config", f"configs/{name}.yaml", "--runs", str(tmp_path)], ["predict"], ["submit"]):
        done = swinft(*words, *([] if words[0] == "fit" else [str(tmp_path / name)]))
        assert done.returncode == 0, done.stderr
    metric, floor = FLOORS[name]
    assert json.loads((tmp_path / name / "scores.json").read_text())["pooled"][metric] >= floor
    sample = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())["data"]["sample_submission"]
    wanted = read_rows(ROOT / "competitions" / "bluemarble" / sample)
    rows = read_rows(tmp_path / name / "submission.csv")
    assert [row["id"] for row in rows] == [row["id"] for row in wanted]
    assert len(rows) == 102
