"""`swinft runs` through the front door: order, what is unfinished or damaged, notes, submissions."""

import shutil
from pathlib import Path

import pytest

import swinft
from swinft.cli import main
from swinft.kaggle.record import COMPLETE, Sent, write_sent
from swinft.run.compare.ledger_table import WIDTH
from swinft.run.layout import Run
from swinft.store import commit, json_bytes, verify
from tests.json_documents import document_of


@pytest.fixture
def folder(tiny_run, tmp_path) -> Path:
    """Copies of the tiny run with other scores: `b` is better than `a` by accuracy, `c` is scored by log loss."""
    for name, key, value in (("a", "accuracy", 0.5), ("b", "accuracy", 0.75), ("c", "log_loss", 0.9)):
        run = Run(Path(shutil.copytree(tiny_run, tmp_path / "runs" / name)))
        scores = run.read_scores()
        pooled = {key: value} | {other: each for other, each in scores["pooled"].items() if other != key}
        commit(run.scores, json_bytes(scores | {"pooled": pooled}), "swinft fit")
    return tmp_path / "runs"


def listed(folder: Path, capsys, *words: str) -> dict[str, dict]:
    return {each["name"]: each for each in document_of(capsys, "runs", str(folder), *words)["runs"]}


def test_runs_are_ranked_by_the_direction_of_their_metric_and_apart_by_metric(folder, capsys):
    found = listed(folder, capsys)
    assert list(found) == ["b", "a", "c"]
    assert [found[name]["score"] for name in "bac"] == [0.75, 0.5, 0.9]
    assert [found[name]["higher_is_better"] for name in "bac"] == [True, True, False]
    net = swinft.open_run(folder / "a").network(0)
    assert found["a"]["parameters"] == sum(each.numel() for each in net.parameters()) > 10_000
    assert {key: found["a"][key] for key in ("folds_done", "folds", "rows", "image_size", "lacks")} == {
        "folds_done": 2, "folds": 2, "rows": 24, "image_size": 32, "lacks": "",
    }  # fmt: skip
    assert list(listed(folder, capsys, "--sort", "name")) == ["a", "b", "c"]
    by_loss = swinft.runs(folder, metric="log_loss")
    assert by_loss["name"].tolist()[-1] == "c"
    assert by_loss["score"].is_monotonic_increasing
    assert list(listed(folder, capsys, "--filter", "name=[bc]", "metric=accuracy")) == ["b"]
    assert main(["runs", str(folder), "--filter", "nmae=a"]) == 2
    assert "Did you mean 'name'" in capsys.readouterr().err
    assert main(["runs", str(folder), "--metric", "rmse"]) == 2
    assert "no run in" in capsys.readouterr().err


def test_unfinished_damaged_and_newer_runs_are_listed_with_what_they_lack(folder, capsys):
    shutil.rmtree(folder / "a" / "fold_1")
    for name in ("scores.json", "oof.csv"):
        (folder / "a" / name).unlink()
    (folder / "b" / "scores.json").write_text("{}")
    commit((folder / "c" / "scores.json"), b'{"best": 1}', "a newer swinft")
    damaged = folder / "line\x1b[31m"
    damaged.mkdir()
    (folder / "several").mkdir()
    (folder / "several" / "rounds.json").write_text("{}")
    (damaged / "config.yaml").write_text("a: [")
    (folder / "unrelated").mkdir()
    (folder / "dangling").symlink_to(folder / "nowhere")
    found = listed(folder, capsys)
    assert found["a"]["lacks"].startswith("unfinished: 1 of 2 folds")
    assert "has changed since it was written" in found["b"]["lacks"]
    assert "there is no key 'pooled'" in found["c"]["lacks"]
    assert "config.yaml" in found["line\x1b[31m"]["lacks"]
    assert all(each["score"] is None for each in found.values())
    assert main(["runs", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "not runs: several (rounds: name this folder), unrelated" in said
    assert main(["runs", str(folder / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_table_fits_a_terminal_whatever_names_are(folder, capsys):
    (folder / "a").rename(folder / ("long" * 40))
    (folder / "b").rename(folder / ("宽" * 60))
    assert main(["runs", "--note", str(folder / "c"), "x" * 300]) == 0
    write_sent(Run(folder / "c"), [Sent("c", "m", "n", ref=1, status=COMPLETE, public_score="0.123456789")])
    capsys.readouterr()
    assert main(["runs", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert any(line.startswith("longlong") and "…" in line for line in lines)
    assert any("--json has everything" in line for line in lines)


def test_a_note_is_kept_replaced_and_deleted(folder, capsys):
    run = folder / "a"
    assert main(["runs", "--note", str(run), "first\x1b try"]) == 0
    assert main(["runs", "--note", str(run), "second: lr 3e-3"]) == 0
    assert verify(run / "note.txt").read_text() == "second: lr 3e-3\n"
    assert listed(folder, capsys, "--filter", "note=lr")["a"]["note"] == "second: lr 3e-3"
    assert main(["runs", str(folder)]) == 0
    assert "note on a: second: lr 3e-3" in capsys.readouterr().out
    assert main(["runs", "--note", str(run), ""]) == 0
    assert not (run / "note.txt").exists()
    assert main(["runs", "--note", str(folder / "x"), "text"]) == 2
    assert "there is no run folder" in capsys.readouterr().err


def test_scores_at_kaggle_are_those_of_the_newest_submission(folder, capsys):
    first = Sent("c", "m", "n", sent="2026-01-01", ref=1, status=COMPLETE, public_score="0.7", private_score="0.6")
    second = Sent("c", "m", "n", sent="2026-01-02", ref=2, status=COMPLETE, public_score="0.8")
    write_sent(Run(folder / "a"), [second, first, Sent("c", "m", "n", status="not sent")])
    write_sent(Run(folder / "b"), [first])
    found = listed(folder, capsys, "--sort", "public")
    assert list(found)[:2] == ["a", "b"]
    assert (found["a"]["public_score"], found["a"]["private_score"], found["a"]["submissions"]) == (0.8, None, 2)
    assert (found["b"]["public_score"], found["b"]["private_score"]) == (0.7, 0.6)


def test_the_direction_of_a_custom_metric_is_that_of_its_best_epochs(folder, capsys):
    run = Run(folder / "a")
    folds = [{"best_epoch": {"val_mine": 3.0}, "last_epoch": {"val_mine": 2.0}}]
    commit(run.scores, json_bytes({"pooled": {"mine": 3.5}, "folds": folds}), "swinft fit")
    run = Run(folder / "b")
    folds[0]["last_epoch"]["val_mine"] = 3.0
    commit(run.scores, json_bytes({"pooled": {"mine": 3.5}, "folds": folds}), "swinft fit")
    found = listed(folder, capsys)
    assert [found[name]["higher_is_better"] for name in "ab"] == [True, None]
