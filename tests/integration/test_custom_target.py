"""Runs of a custom kind of target: every command finds the class again, and none goes on with one that has changed."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest

import swinft
from swinft import Classification
from swinft.cli import main
from tests.conftest import fit_in_process, tiny_config, write_config

MODULE = '''
"""Grades in words."""

import numpy as np

from swinft import Regression


class Grades(Regression):
    """Words from the lowest grade to the highest, as the numbers 0, 1, 2, ….

    Args:
        words: The words in their order.
    """

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def encode(self, cells, outputs, problems, notes=None):
        names = cells.table.names(cells.columns[0])
        for row, name in enumerate(names):
            if name not in self.words:
                problems.append(cells.table.problem(row, "no grade", f"Write one of {self.words}.", cells.columns[0]))
        places = [self.words.index(name) if name in self.words else np.nan for name in names]
        return np.array(places, dtype=np.float64)[:, None]

    def captions(self, targets, outputs):
        return [self.words[int(grade)] for grade in targets[:, 0]]

    def prediction_text(self, prediction, outputs):
        return f"{prediction[0]:.1f}: {self.words[int(np.rint(prediction[0]).clip(0, len(self.words) - 1))]}"
'''


ALLOW = ["--allow-code", "grades"]


@pytest.fixture(scope="module")
def graded(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A finished run of the module above: `run`, `config`, the folder `place` of the module, the module itself."""
    folder = tmp_path_factory.mktemp("graded")
    (folder / "grades.py").write_text(MODULE)
    (folder / "sample.csv").write_text("id,color\n" + "".join(f"t{k},0\n" for k in range(1, 7)))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        changes = {
            "data.target_kind": {"class_path": "grades.Grades", "init_args": {"words": ["red", "green", "blue"]}},
            "data.sample_submission": str(folder / "sample.csv"),
            "model.head": {"class_path": "swinft.RegressionHead"},
            "model.metrics": ["quadratic_kappa", "rmse"],
            "trainer.max_epochs": 1,
        }
        config = write_config(folder / "grades.yaml", tiny_config(competition, folder / "runs", **changes))
        fit_in_process(config, *ALLOW)
        module: ModuleType = sys.modules["grades"]
        yield SimpleNamespace(run=folder / "runs" / "tiny", config=config, place=folder, module=module)
    sys.modules.pop("grades", None)


def test_oof_errors_report_and_schema_follow_the_kind(graded, competition):
    schema = json.loads((graded.run / "schema.json").read_text())
    assert (schema["kind"], schema["kind_class"], schema["ranges"]) == ("regression", "grades.Grades", [[0, 2]])
    errors = pd.read_csv(graded.run / "errors.csv", dtype={"id": str}).set_index("id")
    colors = pd.read_csv(competition / "train.csv", dtype=str).set_index("id")["color"]
    assert (errors["true color"] == colors.map({"red": 0, "green": 1, "blue": 2})[errors.index]).all()
    assert ": blue" in (graded.run / "report.html").read_text()


def test_every_command_finds_the_class_again(graded, monkeypatch, capsys):
    predict = ["predict", str(graded.run), "--device", "cpu"]
    assert main(predict) == 2
    assert "'grades.Grades' is not in a trusted package" in capsys.readouterr().err
    assert main([*predict, *ALLOW]) == 0
    with monkeypatch.context() as gone:  # what `submit` must know of a kind stands in the run
        gone.delitem(sys.modules, "grades")
        gone.setattr(sys, "path", [place for place in sys.path if place not in ("", str(graded.place))])
        assert main(["submit", str(graded.run)]) == 0
    assert set(pd.read_csv(graded.run / "submission.csv")["color"]) <= {0, 1, 2}
    exported = swinft.open_run(graded.run, allow_code="grades").export(0, "safetensors")
    assert json.loads(exported.description.read_text())["output"]["target_class"] == "grades.Grades"


def test_a_run_does_not_go_on_with_code_that_makes_other_targets(graded, tmp_path, monkeypatch, capsys):
    words = ["fit", "--config", str(graded.config), "--runs", str(tmp_path), *ALLOW, "--fold", "1", "--resume"]
    run = Path(shutil.copytree(graded.run, tmp_path / "tiny"))
    shutil.rmtree(run / "fold_1")
    encode = graded.module.Grades.encode

    def two_swapped(*args):
        targets = encode(*args)
        targets[[4, 5]] = targets[[5, 4]]  # the same means and ranges
        return targets

    with monkeypatch.context() as edit:
        edit.setattr(graded.module.Grades, "encode", two_swapped)
        assert main(words) == 2
        assert (
            "grades.Grades, a regression, encodes other targets than when the run was started"
            in capsys.readouterr().err
        )
        assert main(["report", str(graded.run), *ALLOW]) == 2
        assert "encodes other targets than when the run was started" in capsys.readouterr().err
    other = {"__module__": "grades", "__init__": graded.module.Grades.__init__}
    with monkeypatch.context() as edit:
        edit.setattr(graded.module, "Grades", type("Grades", (Classification,), other))
        assert main(["predict", str(graded.run), "--device", "cpu", *ALLOW]) == 2
        assert "is of grades.Grades, a regression" in capsys.readouterr().err
    assert main([*words, "--data.target_kind.init_args.words", "[blue, green, red]"]) == 2
    assert "data.target_kind.init_args.words: was" in capsys.readouterr().err
    assert main(words) == 0
    assert (run / "fold_1" / "oof.csv").read_bytes() == (graded.run / "fold_1" / "oof.csv").read_bytes()
