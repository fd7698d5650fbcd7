"""Every notebook runs from top to bottom, and is committed without outputs."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SLOW = {"api", "datamodule", "plain_lightning"}  # other tests call what they call, without a kernel to start
# Kinds of output that are there to be seen, and what is printed or shown.
SHOWN = {
    "api": ({"text/html"}, ["pooled", "fold 1  epoch 1/1", "written to", "'report.html'"]),
    "datamodule": ({"image/png", "text/html"}, ["the image file is missing"]),
    "plain_lightning": ({"text/html"}, ["Predictions of 102 rows", "t02_36"]),
}


def test_each_notebook_has_something_to_show():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in SLOW else (), id=path.stem) for path in NOTEBOOKS],
)
def test_it_runs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code), "clear the outputs before committing"
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    kinds, words = SHOWN[path.stem]
    assert kinds <= {kind for output in outputs for kind in output.get("data", {})}
    said = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
    said += [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert [word for word in words if word not in "\n".join(said)] == []
