"""Every notebook runs from top to bottom. Those for newcomers are committed with what their cells show."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FAST: set[str] = set()  # others start processes, or take more than ten seconds
# Kinds of output that are there to be seen, and what is printed or shown.
SHOWN = {
    "data_and_folds": ({"image/png", "text/html"}, ["touch a tile of another fold", "the image file is missing"]),
    "error_analysis": ({"image/png", "text/html"}, ["with 95 % confidence", "wrong labels are among the 40"]),
    "first_submission": ({"image/png", "text/html"}, ["pooled", "fold 1  epoch 6/6", "'report.html'"]),
    "kaggle_offline": ({"text/html"}, ["60 rows, first hidden_", "of the hidden rows are right"]),
    "swin_explained": ({"image/png", "image/gif"}, ["13.81×", "opposite edges attend to each other"]),
    "plain_lightning": ({"text/html"}, ["Predictions of 102 rows", "t02_36"]),
}
WITHOUT_OUTPUTS = {"plain_lightning"}
LARGEST = 500_000  # bytes of a notebook with its figures
PATH_OF_A_MACHINE = re.compile(r"/(work|root|home|Users)/")


def test_each_notebook_has_something_to_show():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


def texts_of(cells: list) -> str:
    outputs = [output for cell in cells for output in cell.outputs]
    said = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(
        [*said, *(output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {}))]
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_is_what_a_reader_should_see(path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    if path.stem in WITHOUT_OUTPUTS:
        assert [cell.outputs for cell in code] == [[]] * len(code), "clear the outputs before committing"
        return
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it from top to bottom"
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    kinds, words = SHOWN[path.stem]
    assert kinds <= {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert [word for word in words if word not in texts_of(code)] == []
    assert not PATH_OF_A_MACHINE.search(texts_of(code))
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem in FAST else pytest.mark.slow, id=path.stem) for path in NOTEBOOKS],
)
def test_it_runs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs = []
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    kinds, words = SHOWN[path.stem]
    assert kinds <= {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert [word for word in words if word not in texts_of(code)] == []
