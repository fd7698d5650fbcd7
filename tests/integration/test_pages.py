"""Pages of explain, inspect and lab in a browser: hostile names of a run, its rows and classes; light, dark, a phone."""

import csv

import swinft
from swinft.cli import main
from tests.browser import chromium, opened
from tests.conftest import in_this_process, tiny_config, write_config

NAME = "<i>x_1$ $y & {{7*7}} 🎉"
CLASSES = ["<b>red & {{7*7}}</b>", "../green", "a/b\\c"]
IDS = ["../../x", "/a/b", "<img src=x onerror=alert(1)>", "{{7*7}}", "$x_1$", "ev\u202eil", "..", "-5", "x" * 190]
IDS += ["%s", "é", "C:\\x"]


def hostile_run(competition, tmp_path, monkeypatch):
    """A run of one epoch whose rows and classes have such names."""
    with (tmp_path / "train.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[id, f"{number:03d}.jpg", CLASSES[number % 3]] for number, id in enumerate(IDS)]
        csv.writer(file).writerows([["id", "file", "color"], *rows])
    changes = {"data.train": str(tmp_path / "train.csv"), "data.image": "images/{file}", "data.test": None}
    changes |= {"name": NAME, "trainer.max_epochs": 1, "data.sample_submission": None}
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    monkeypatch.setattr("swinft.run.scores.write_report", lambda *_, **__: None)
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config)]) == 0
    return tmp_path / "runs" / NAME


def test_names_stay_text_and_files_stay_in_their_folder(competition, tmp_path, monkeypatch):
    run = hostile_run(competition, tmp_path, monkeypatch)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    explained = swinft.explain(run, IDS, device="cpu")
    assert [row.id for row in explained.rows] == IDS
    own = [path for row in explained.rows for paths in row.files.values() for path in paths]
    assert len({path.name.casefold() for path in own}) == 2 * len(IDS)
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.parent for path in made if ".commits" not in path.parts} == {run / "explain"}
    measured = swinft.lab("variance", run, rows=4, device="cpu")
    swinft.inspect(run, output=str(tmp_path / "inspect.html"), receptive_field="off")
    texts = {
        explained.page: [NAME, IDS[2], IDS[3], "../green"],
        measured.page: [NAME],
        tmp_path / "inspect.html": [NAME],
    }
    with chromium() as browser:
        for path, expected in texts.items():
            for width, scheme in ((1200, "light"), (360, "dark")):
                with opened(browser, path, width, color_scheme=scheme) as watched:
                    watched.check()
                    body = watched.page.inner_text("body")
                    assert all(text in body for text in expected)
                    assert watched.page.locator("i:not([hidden]), img[src=x]").count() == 0
