"""A competition's inference server asks row by row, and gets what `swinft predict` says of each row."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import swinft
from swinft.inference.predictions import Predictions
from swinft.kaggle.bundle.server import RERUN, load, rows_of, serve
from tests.kaggle.bundle.conftest import make

# A gateway as competitions have them: it calls what the server was given for each row, and writes the submission.
GATEWAY = """
import pandas as pd

calls = []

class FakeInferenceServer:
    def __init__(self, *listeners):
        self.predict = listeners[0]

    def serve(self):
        calls.append("serve")

    def run_local_gateway(self, data_paths=None):
        rows = pd.read_csv(f"{data_paths[0]}/test.csv", dtype=str)
        answers = [self.predict(rows.iloc[[k]], None) for k in range(len(rows))]
        calls.append(len(answers))
        pd.concat(answers).to_csv("submission.csv", index=False)
"""


@pytest.fixture
def data(competition, tmp_path, monkeypatch) -> Path:
    """The competition with its gateway."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in competition.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "kaggle_evaluation").mkdir()
    (folder / "kaggle_evaluation" / "__init__.py").write_text("")
    (folder / "kaggle_evaluation" / "fake_inference_server.py").write_text(GATEWAY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv(RERUN, raising=False)
    yield folder
    for name in [name for name in sys.modules if name.startswith("kaggle_evaluation")]:
        del sys.modules[name]


def serving_cells(bundle: Path) -> str:
    """What the notebook of a server does once everything is installed."""
    notebook = json.loads((bundle / "kernel" / "notebook.ipynb").read_text())
    return "".join(notebook["cells"][-1]["source"])


@pytest.mark.usefixtures("_not_loaded")
def test_the_notebook_answers_row_by_row(tiny_run, data, tmp_path, monkeypatch):
    server = ["--server", "fake_inference_server.FakeInferenceServer"]
    assert make(str(tiny_run), "--output", str(tmp_path / "out"), *server) == 0
    code = serving_cells(tmp_path / "out").replace('on_bad_image="skip"', 'on_bad_image="skip", device="cpu"')
    names = {"weights": tmp_path / "out" / "weights", "competition": data, "WORKING": tmp_path, "os": os}
    exec(compile(code, "cell", "exec"), names)
    whole = Predictions.read(tiny_run / "test_predictions.csv", 3).to_frame()
    found = pd.read_csv(tmp_path / "submission.csv", dtype={"id": str})
    assert (found["id"].tolist(), list(found)[:4]) == (whole["id"].tolist(), list(whole))
    assert np.allclose(found[["blue", "green", "red"]], whole[["blue", "green", "red"]], atol=1e-6)
    monkeypatch.setenv(RERUN, "1")
    serve(names["answer"], server[1], data)
    assert sys.modules["kaggle_evaluation.fake_inference_server"].calls == [6, "serve"]


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ("fake_server.FakeInferenceServer", "No module named.*there is: fake_inference_server"),
        ("fake_inference_server.Server", "has no attribute 'Server'.*Name module and class"),
    ],
)
def test_a_wrong_server_is_named_with_what_there_is(server, says, data):
    with pytest.raises(swinft.InputError, match=says):
        serve(print, server, data)


class Column(list):
    """What is used of a polars Series."""

    def __init__(self, name, cells):
        super().__init__(cells)
        self.name = name

    def to_list(self):
        return list(self)


class Frame(dict):
    """What is used of a polars DataFrame."""

    @property
    def columns(self):
        return list(self)


def test_rows_are_made_of_what_competitions_give(tmp_path):
    table = pd.DataFrame({"id": [7, 8], "age": [1.5, None], "note": ["a", None]})
    polars = Frame({name: Column(name, table[name].tolist()) for name in table})
    for given in (
        [table, "more"],
        [polars],
        [Column("id", [7, 8]), Column("age", [1.5, None]), Column("note", ["a", None])],
    ):
        rows, options = rows_of(*given)
        assert (rows.to_dict("list"), options) == ({"id": ["7", "8"], "age": ["1.5", ""], "note": ["a", ""]}, {})
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "2.png").write_bytes(b"2")
    (tmp_path / "s1" / "1.png").write_bytes(b"1")
    rows, options = rows_of(str(tmp_path / "s1"), id_column="series")
    assert (rows.to_dict("list"), options) == ({"series": ["s1"], "images": [[b"1", b"2"]]}, {"images": "images"})
    rows, _ = rows_of(tmp_path / "s1" / "2.png")
    assert rows.to_dict("list") == {"id": ["2"], "images": [b"2"]}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["/nowhere/x.png"], "there is no file or folder /nowhere/x.png"),
        ([3], "a int is no table and no path"),
        ([], "a NoneType is no table"),
        ([pd.DataFrame({"ID": ["1"]})], "has no column 'id'. Did you mean 'ID'"),
    ],
)
def test_other_things_are_refused(given, says):
    with pytest.raises(swinft.InputError, match=says):
        rows_of(*given)


def test_a_server_answers_with_one_run(tiny_bundle, tiny_run, tmp_path, capsys):
    other = shutil.copytree(tiny_run, tmp_path / "other")
    assert make(str(tiny_run), str(other), "--server", "a.B", "--output", str(tmp_path / "out")) == 2
    assert "a --server answers with one run" in capsys.readouterr().err
    weights = Path(shutil.copytree(tiny_bundle / "weights", tmp_path / "weights"))
    manifest = json.loads((weights / "bundle.json").read_text())
    (weights / "bundle.json").write_text(json.dumps(manifest | {"submits": ["tiny", "other"]}))
    with pytest.raises(swinft.InputError, match="make an ensemble"):
        load(weights)
