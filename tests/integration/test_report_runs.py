"""Reports of runs that were not simply trained: on embeddings, in rounds, by a teacher, in parts, of few folds."""

import re
import shutil
from pathlib import Path

import pytest

from swinft.cli import main
from tests.browser import chromium, opened
from tests.conftest import in_this_process, power_gone_after, tiny_config, write_config
from tests.integration.test_rounds import ROUNDS

pytestmark = pytest.mark.slow
# Whether sentences of the section can be read without scrolling it.
WHOLE = "(box => box.scrollWidth <= box.clientWidth)(document.querySelector('#members pre'))"
TRAINED = {"scores", "training", "outputs", "confusion", "worst", "folds", "images", "time", "settings"}


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)


def config(competition, folder: Path, name: str, **changes: object) -> list[str]:
    given = {"name": name, "trainer.max_epochs": 2, **changes}
    return [
        "fit",
        "--config",
        str(write_config(folder / f"{name}.yaml", tiny_config(competition, folder / "runs", **given))),
    ]


def looked_at(run: Path, expected: set[str], absent: set[str] = frozenset()) -> str:
    """The text of the page, which is the same in light and dark, on a phone and a desktop."""
    assert main(["report", str(run)]) == 0
    with chromium() as browser:
        for width, scheme in ((360, "light"), (1200, "dark"), (2000, "light")):
            with opened(browser, run / "report.html", width, color_scheme=scheme) as watched:
                watched.check()
                found = set(watched.page.evaluate("[...document.querySelectorAll('main section')].map((s) => s.id)"))
                text = watched.page.inner_text("body")
    assert expected <= found
    assert not absent & found
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b(?! of)", text)
    return text


def test_models_on_embeddings(competition, tmp_path):
    assert main(config(competition, tmp_path, "base")) == 0
    words = ["--device", "cpu", "--fit", "ridge", "--name", "ridge"]
    assert main(["embed", str(tmp_path / "runs" / "base"), *words]) == 0
    text = looked_at(tmp_path / "runs" / "ridge", {"scores", "members", "outputs", "worst"}, {"training", "time"})
    assert "is scored on rows that neither has seen" in text
    with chromium() as browser, opened(browser, tmp_path / "runs" / "ridge" / "report.html", 360) as watched:
        assert watched.page.evaluate(WHOLE)
    assert "Grad-CAM would be of the network's own head" in text


def test_rounds_and_a_student_of_several(competition, tmp_path):
    assert (
        main(config(competition, tmp_path, "all", **{"rounds": ROUNDS, "data.folds.num": 3, "trainer.max_epochs": 1}))
        == 0
    )
    for each in ROUNDS:
        text = looked_at(tmp_path / "runs" / "all" / each["name"], TRAINED)
    assert "distill" in text


def test_a_teacher(competition, tmp_path):
    assert main(config(competition, tmp_path, "teacher")) == 0
    changes = {"distill": {"run": str(tmp_path / "runs" / "teacher"), "weight": 0.5}}
    assert main(config(competition, tmp_path, "student", **changes)) == 0
    assert "distill.run" in looked_at(tmp_path / "runs" / "student", TRAINED)


def test_a_resumed_run_one_fold_and_failed_folds(competition, tmp_path, capsys):
    words = config(competition, tmp_path, "resumed", **{"trainer.max_epochs": 3})
    with power_gone_after(2, "1"):
        main(words)
    run = tmp_path / "runs" / "resumed"
    assert main(["report", str(run)]) == 2
    assert "--resume` first" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    whole = looked_at(run, TRAINED)
    assert "2 folds" in whole
    shutil.rmtree(run / "fold_1")
    assert main(["report", str(run)]) == 2
    assert "folds [1]" in capsys.readouterr().err


def test_one_fold_that_is_held_out(competition, tmp_path):
    lines = (competition / "train.csv").read_text().splitlines()
    folds = "\n".join(
        [
            "id,fold",
            *(f"{line.split(',')[0]},{0 if k % 4 == 0 else -1}" for k, line in enumerate(lines[1:])),
        ]
    )
    (tmp_path / "folds.csv").write_text(folds + "\n")
    changes = {"data.folds": {"file": str(tmp_path / "folds.csv")}}
    assert main(config(competition, tmp_path, "one", **changes)) == 0
    assert "1 fold" in looked_at(tmp_path / "runs" / "one", TRAINED)
