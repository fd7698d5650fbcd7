"""The report of an ensemble shows the networks and the embeddings of its members."""

import shutil

import numpy as np
import pytest

from swinft.attribution.gradcam import gradcam
from swinft.cli import main
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.report.contents import ReportInput
from swinft.run.report.rows.members import explaining, runs_behind
from swinft.run.scoring import training_rows
from swinft.store import commit
from tests.run.ensemble.conftest import runs, three_runs

__all__ = ["runs", "three_runs"]  # fixtures


def combined(runs, *names, name="E"):
    words = ["--runs", str(runs), "--name", name, "--method", "mean", "--bootstrap", "10"]
    assert main(["ensemble", *(str(runs / each) for each in names), *words]) == 0
    return runs / name


def opened(folder):
    run = Run.open(folder)
    experiment = Experiment.of_run(run, "report", None)
    return ReportInput.of(run, training_rows(run, experiment), (), None, experiment)


def page_of(folder):
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "could not be made" not in page
    return page


def test_the_strongest_member_explains_what_the_ensemble_predicts(runs, monkeypatch):
    made = combined(runs, "c", "a", "b")
    assert "adds Grad-CAMs: networks are not loaded while an ensemble is made" in (made / "report.html").read_text()
    asked = []

    def spy(net, images, outputs, *more):
        asked.append(list(outputs))
        return gradcam(net, images, outputs, *more)

    monkeypatch.setattr("swinft.run.report.rows.gradcams.gradcam", spy)
    page = page_of(made)
    assert 'alt="Grad-CAM"' in page
    assert "by the networks of the member a, the strongest that has some" in page
    report = opened(made)
    worst = np.argsort(-report.row_errors, kind="stable")[:12]
    said = report.values[worst].argmax(1)
    shown = [output for batch in asked for output in batch]
    assert sorted(shown[:12]) == sorted(said.tolist())
    assert "Drift between training and test" in page
    assert "embed" in page
    assert "runs/a" not in page.partition("Rows with the largest error")[0]


@pytest.mark.slow
def test_neighbours_and_drift_are_of_the_strongest_member_with_embeddings(runs):
    made = combined(runs, "a", "b")
    assert main(["embed", str(runs / "b"), "--device", "cpu"]) == 0
    page = page_of(made)
    assert "(pooled-identity) of the network of the member b that was not trained on the row" in page
    assert '<div class="near">' in page
    assert main(["embed", str(runs / "a"), "--device", "cpu"]) == 0
    assert "of the network of the member a that" in page_of(made)


@pytest.mark.slow
def test_members_that_are_gone_or_have_changed_are_named(runs):
    made = combined(runs, "a", "b")
    (made / "test_predictions.csv").unlink()  # out of date, which is an error of its own
    oof = runs / "a" / "oof.csv"
    commit(oof, oof.read_bytes().replace(b"0.", b"0.0", 1), "swinft fit")
    page = page_of(made)
    assert "by the networks of the member b" in page
    shutil.rmtree(runs / "b")
    page = page_of(made)
    assert 'alt="Grad-CAM"' not in page
    assert "a has changed, or lost files, since E was made." in page
    assert f"The run of b is not at {runs / 'b'}." in page


@pytest.mark.slow
def test_an_ensemble_of_an_ensemble_is_followed_to_its_runs(runs):
    combined(runs, "a", "b", name="inner")
    outer = combined(runs, "inner", "c", name="outer")
    notes = []
    assert {each.run.root.name for each in runs_behind(Run.open(outer), notes)} == {"a", "b", "c"}
    assert notes == []
    assert explaining(Run.open(outer), None).name in ("inner", "c")
