"""Reports where a run is not where and not what it was: moved, without its images, or of an earlier version."""

import re
import shutil
from pathlib import Path

import pytest

from swinft import open_run
from swinft.cli import main
from tests.browser import chromium, opened
from tests.conftest import ROOT, fit_in_process, tiny_config, write_config


def test_a_run_without_its_images_has_its_report_and_says_which_option_shows_them(
    competition, tiny_run, tmp_path, capsys
):
    run = Path(shutil.copytree(tiny_run, tmp_path / "runs" / "laptop"))
    assert main(["report", str(run)]) == 0
    whole, errors = (run / "report.html").read_text(), (run / "errors.csv").read_text()
    assert "--root" not in whole + capsys.readouterr().err
    data = tmp_path / "data"
    data.mkdir()
    assert main(["report", str(run), "--root", str(data)]) == 2
    told = f"tables that are not there: {data / 'train.csv'}. Copy them there, or name the data's folder"
    assert told in capsys.readouterr().err
    shutil.copy(competition / "train.csv", data)
    assert main(["report", str(run), "--root", str(data)]) == 0
    told = f"swinft report {run} --root FOLDER"
    assert told in capsys.readouterr().err
    page = (run / "report.html").read_text()
    assert told in page
    assert "could not be made" not in page
    parts = re.findall(r'<section id="([\w-]+)"', whole)
    assert re.findall(r'<section id="([\w-]+)"', page) == [part for part in parts if part not in ("augmented", "drift")]
    assert "data:image" not in page
    assert (run / "errors.csv").read_text() == errors
    assert open_run(run).report(root=competition) == run / "report.html"
    assert (run / "report.html").read_text() == whole


@pytest.fixture(scope="module")
def finished(competition, tmp_path_factory) -> Path:
    """A folder with data of its own, and a finished run in `runs/tiny`."""
    folder = tmp_path_factory.mktemp("attacks")
    shutil.copytree(competition, folder / "data")
    changes = {"trainer.max_epochs": 1, "predict": {"views": ["identity", "hflip"]}}
    fit_in_process(write_config(folder / "c.yaml", tiny_config(folder / "data", folder / "runs", **changes)))
    assert main(["predict", str(folder / "runs" / "tiny"), "--device", "cpu"]) == 0
    return folder


def sections(report: Path) -> list[str]:
    with chromium() as browser, opened(browser, report, 360) as watched:
        watched.check()
        return watched.page.evaluate("[...document.querySelectorAll('main section')].map((each) => each.id)")


@pytest.mark.slow
def test_a_run_that_was_moved_has_its_report(finished, tmp_path, capsys):
    assert main(["report", str(finished / "runs" / "tiny")]) == 0
    before = sections(finished / "runs" / "tiny" / "report.html")
    run = Path(shutil.copytree(finished / "runs" / "tiny", tmp_path / "else where" / "renamed"))
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "<title>renamed</title>" in page
    assert 'alt="Grad-CAM"' in page
    assert sections(run / "report.html") == before


@pytest.mark.slow
def test_what_needs_no_pixels_needs_no_images(finished, tmp_path, capsys):
    run = finished / "runs" / "tiny"
    assert main(["report", str(run)]) == 0
    errors = (run / "errors.csv").read_text()
    copy = Path(shutil.copytree(run, finished / "runs" / "copy"))
    gone = [finished / "data" / name for name in ("images", "test.csv", "sample_submission.csv")]
    hidden = [path.rename(path.with_name(f"hidden_{path.name}")) for path in gone]
    try:
        assert main(["compare", str(run), str(copy), "--resamples", "200"]) == 0
        words = ["--runs", str(tmp_path), "--name", "E", "--method", "mean", "--bootstrap", "20"]
        assert main(["ensemble", str(run), str(copy), *words]) == 0
        for each in (run, copy, tmp_path / "E"):
            assert main(["report", str(each)]) == 0
    finally:
        for path, here in zip(gone, hidden, strict=True):
            here.rename(path)
    assert "--root FOLDER" in capsys.readouterr().err
    shown = sections(copy / "report.html")
    assert {"scores", "training", "worst", "confusion", "folds", "images", "settings"} <= set(shown)
    assert "augmented" not in shown
    assert (copy / "errors.csv").read_text() == errors
    assert {"scores", "members", "worst"} <= set(sections(tmp_path / "E" / "report.html"))


@pytest.mark.slow
def test_a_run_of_an_earlier_version_has_a_report(competition, tmp_path, monkeypatch):
    shutil.copytree(competition, tmp_path / "competition")
    run = Path(shutil.copytree(ROOT / "tests" / "fixtures" / "run_before_rebuild", tmp_path / "runs" / "old"))
    ids = (competition / "test.csv").read_text().split()[1:]
    lines = [f"{id},{30 + row}\n" for row, id in enumerate(ids)]
    (tmp_path / "competition" / "test.csv").write_text("id,brightness\n" + "".join(lines))
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run)]) == 0
    found = sections(run / "report.html")
    assert {"scores", "training", "outputs", "confusion", "worst", "folds", "images", "settings"} <= set(found)
