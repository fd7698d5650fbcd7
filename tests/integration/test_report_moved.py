"""Reports where a run is not where and not what it was: moved, without its images, or of an earlier version."""

import shutil
from pathlib import Path

import pytest

from swinft.cli import main
from tests.browser import chromium, opened
from tests.conftest import ROOT, fit_in_process, tiny_config, write_config


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
def test_a_run_that_was_moved_has_its_report_and_images_that_are_gone_are_named(finished, tmp_path, capsys):
    assert main(["report", str(finished / "runs" / "tiny")]) == 0
    before = sections(finished / "runs" / "tiny" / "report.html")
    run = Path(shutil.copytree(finished / "runs" / "tiny", tmp_path / "else where" / "renamed"))
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "<title>renamed</title>" in page
    assert 'alt="Grad-CAM"' in page
    assert sections(run / "report.html") == before
    images = finished / "data" / "images"
    hidden = images.rename(images.with_name("hidden"))
    try:
        assert main(["report", str(run)]) == 2
    finally:
        hidden.rename(images)
    assert "the folder of 24 images is missing" in capsys.readouterr().err
    assert (run / "report.html").read_text() == page


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
