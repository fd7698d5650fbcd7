"""Every example of docs/tables.md makes the table that it shows, and every step has one."""

import re
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

import swinft
from swinft.data.tables.steps.named import STEPS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "tables.md").read_text()
TOP, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
EXAMPLES = {part.partition("\n")[0]: re.findall(r"```(?:yaml|csv)\n(.*?)```", part, re.DOTALL) for part in SECTIONS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page shows and names."""
    root = tmp_path_factory.mktemp("tables")
    for name, text in re.findall(r"^`(\S+)`\n```\w+\n(.*?)```", TOP, re.DOTALL | re.MULTILINE):
        (root / name).write_text(text)
    (root / "train").mkdir()
    for name in re.findall(r"`(train/\S+?)`", TOP.rpartition("and the files")[2]):
        (root / name).write_bytes(b"")
    seen = pa.array([True, None], type=pa.bool_())
    score = pa.array(np.array([1, 0.1], np.float32))
    parquet.write_table(pa.table({"id": ["007", "1e5"], "score": score, "seen": seen}), root / "scores.parquet")
    with h5py.File(root / "images.hdf5", "w") as file:
        for name in ("10", "2"):
            file[name] = np.zeros(3, np.uint8)
    return root


@pytest.mark.parametrize("name", [name for name, blocks in EXAMPLES.items() if len(blocks) == 2])
def test_the_example_makes_the_table_that_it_shows(name, folder):
    steps, shown = EXAMPLES[name]
    assert f"- {name.partition(',')[0]}: " in steps or name == "concat"
    assert swinft.read_table(yaml.safe_load(steps), folder).to_csv(index=False) == shown


def test_every_step_has_an_example():
    assert {word for name in EXAMPLES for word in name.split(", ")} == set(STEPS)
    assert [name for name, blocks in EXAMPLES.items() if len(blocks) != 2] == []
