"""The live view: its width on any terminal, hostile names, many jobs, and the time left for everything."""

import re
import sys
from functools import partial

import pytest

from swinft.printing import width
from swinft.system import live, overview
from swinft.system.overview import Overview
from swinft.system.status import Status, read_status
from swinft.system.view import as_html, drawn
from tests.clock import Clock

WHOLE = Status(
    "fold 1_seed_7", "epoch 10/100", 1200, 4000, 12_345.6, 0.0123456, "quadratic_kappa", -0.000123456, 0.98765,
    "71.2/80 GB", 3000.0, 36_000.0, None, True,
)  # fmt: skip
STAGES = ("starting", "epoch 1/1", "validation", "out-of-fold predictions")


def text(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]


@pytest.mark.parametrize("columns", [200, 100, 99, 80, 60, 30, 5, 1])
def test_nothing_is_wider_than_the_terminal(columns):
    rows = [Status(**{**vars(WHOLE), "what": f"fold {number}", "stage": STAGES[number % 4]}) for number in range(9)]
    found = text(drawn(rows, "left for everything: about 1h; 1 of 9 folds done after 12m 3s", columns, 24))
    assert len(found) == 11
    assert max(map(width, found)) <= columns
    if columns >= 60:
        assert all(re.search(rf"fold {number} .* ~10h$", found[1 + number]) for number in range(9))
        assert all(name in found[0] for name in ("left", "quadratic_kappa"))
    if columns >= 100:
        assert all(name in found[0] for name in ("img/s", "loss", "best", "memory"))
        assert "71.2/80 GB" in found[1] or "memory" not in found[0]


@pytest.mark.parametrize(
    "name", ["\x1b[2J\x1b]0;title\x07", "a\nb\r\tc", "[red]markup[/red]", "猫" * 90, "é" * 300, "", "\udcff"]
)
def test_hostile_names_stay_on_their_line(name):
    rows = [Status(name, name, 1, 2, metric=name, score=1.0), Status("fold 2")]
    found = text(drawn(rows, name or "footer", 80, 24))
    assert len(found) == 4
    assert max(map(width, found)) <= 80
    assert not re.search(r"[\x00-\x1f]", "".join(found))
    assert "<b>" not in as_html(["<b>"])


def test_scores_of_nothing_and_undefined_ones_are_shown(clock):
    folds = Overview({0: "fold 0"}, 1, began=0.0)
    folds.started(0)
    for score, best, shown in ((0.0, 0.0, "0 +0"), (float("nan"), 0.0, "nan +0"), (0.25, 0.25, "0.25 +0.25")):
        told = Status("fold 0", "epoch 2/9", 1, 2, 5.5, float("nan"), "accuracy", score, best)
        folds.heard(0, read_status(told.message("word")[5:]))
        folds.heard(0, Status("fold 0", "validation", 1, 2, 5.5))
        assert re.search(rf"validation .* {shown}$", text(drawn(folds.rows(), "", 100, 24))[1])
    assert " nan" in text(drawn([told], "", 100, 24))[1]


@pytest.mark.parametrize("lines", [1, 2, 3, 8])
def test_more_jobs_than_lines_are_counted(lines):
    rows = [Status(f"fold {number}") for number in range(64)]
    found = text(drawn(rows, "footer", 80, lines))
    assert len(found) <= lines
    if lines == 8:
        assert found[-2:] == ["and 59 more", "footer"]


def test_a_terminal_without_unicode_gets_what_it_can_show(monkeypatch, tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        screen = live.Screen()
        screen.is_live = True
        screen.show(partial(drawn, [Status("Hündin", "epoch 1/2", 1, 2)], ""))
        screen.clear()
    assert "H?ndin" in (tmp_path / "out").read_text(encoding="ascii")


def test_a_notebook_has_one_display_that_is_empty_at_the_end(monkeypatch, capsys):
    class ZMQInteractiveShell:  # by this name rich knows a notebook
        kernel = object()

    class Display:
        def update(self, page):
            pages.append(page.data)

    def display(page, display_id):
        assert not pages
        pages.append(page.data)
        return Display()

    pages: list[str] = []
    monkeypatch.setattr("builtins.get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setattr("IPython.get_ipython", ZMQInteractiveShell)
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(live, "NOTEBOOK_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    line = live.LiveLine()
    for batch in range(3):
        line.show(Status("fold <b>0</b>", "epoch 1/2", batch + 1, 3, 5.5))
    line.clear()
    assert len(pages) == 4
    texts = [re.sub(r"</?(pre|span)[^>]*>", "", page) for page in pages[:3]]
    assert all("fold &lt;b&gt;0&lt;/b&gt;  epoch 1/2" in page and "img/s" in page for page in texts)
    parts = [re.findall(r'<span style="([^"]*)">[━╺╸]+</span>', page) for page in pages[:2]]
    assert all(len(set(styles)) == 2 and all(styles) for styles in parts)  # what is done, and what is not
    assert pages[3] == ""
    assert capsys.readouterr().out == ""
    screen = live.Screen()
    pages.clear()
    screen.show(partial(drawn, [Status("fold 0")], ""))
    screen.write(sys.stdout, "a line, of the thread of a child\n")
    assert len(pages) == 1
    assert capsys.readouterr().out == "a line, of the thread of a child\n"


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(overview, "time", clock)
    return clock


def test_time_left_for_everything_on_one_device(clock):
    folds = Overview({0: "fold 0", 1: "fold 1", 2: "fold 2"}, 1, more=1, began=0.0)
    folds.started(0)
    assert folds.left() == (None, True)
    assert "left for everything: not yet known; 0 of 4 folds done" in folds.footer()
    clock.now = 20.0
    folds.heard(0, Status("fold 0", "epoch 1/10", left=80.0, is_rough=True))
    assert folds.left() == (80 + 3 * 100, True)  # each takes 100 s, as the first one expects of itself
    clock.now = 60.0
    folds.heard(0, Status("fold 0", "epoch 5/10", left=60.0, whole=130.0))
    clock.now = 70.0
    assert folds.left() == (50 + 3 * 130, False)
    assert folds.rows()[0].left == 50
    clock.now = 110.0
    folds.heard(0, Status("fold 0", "out-of-fold predictions", stage_left=7.0, is_rough=True))
    assert folds.left() == (10 + 3 * 130, True)  # as it said before: at 120
    clock.now = 120.0
    folds.ended(0)
    folds.started(1)
    assert folds.left() == (120 + 2 * 120, False)  # as long as the fold that is done has taken
    clock.now = 150.0
    folds.heard(1, Status("fold 1", "epoch 1/10", left=10.0, is_rough=True))
    assert folds.left() == (50 + 2 * 120, False)  # between its own guess, 10 s, and that of the other fold, 90 s
    assert folds.footer() == "left for everything: 4m 50s; 1 of 4 folds done after 2m 30s"


def test_what_follows_the_last_batch_is_learnt_from_the_folds_that_are_done(clock):
    folds = Overview({number: f"fold {number}" for number in range(3)}, 1, began=0.0)
    folds.started(0)
    clock.now = 100.0
    folds.heard(0, Status("fold 0", "epoch 9/9", left=2.0))
    clock.now = 101.0
    folds.heard(0, Status("fold 0", "out-of-fold predictions", stage_left=0.5))
    assert folds.rows()[0].left == 1.0
    clock.now = 112.0  # 10 s later than it had said
    folds.ended(0)
    folds.started(1)
    clock.now = 150.0
    folds.heard(1, Status("fold 1", "epoch 3/9", left=64.0))  # and 10 s later; it takes 38 s + 74 s as the first one
    assert folds.left() == (pytest.approx(64 + 10 + 112), False)


def test_a_resumed_fold_says_nothing_of_how_long_another_takes(clock):
    folds = Overview({number: f"fold {number}" for number in range(2)}, 1, parts={0: 0.2}, began=0.0)
    folds.started(0)
    folds.heard(0, Status("fold 0", "epoch 9/10", left=10.0, whole=100.0))
    folds.heard(0, Status("fold 0", "out-of-fold predictions", stage_left=1.0))
    clock.now = 10.0
    folds.ended(0)
    assert folds.left() == (100.0, False)


def test_folds_that_wait_take_as_long_as_earlier_ones_and_as_the_one_that_runs(clock):
    folds = Overview({number: f"fold {number}" for number in range(3)}, 1, began=0.0)
    folds.started(0)
    clock.now = 100.0
    folds.ended(0)
    folds.started(1)
    clock.now = 300.0
    folds.heard(1, Status("fold 1", "epoch 2/3", left=100.0, whole=300.0))  # at a third of the speed
    assert folds.left() == (pytest.approx(100 + 200), False)  # 100 s and 300 s, whose mean is reached
    folds.ended(1, has_failed=True)
    assert folds.left() == (0.0, False)
    assert folds.footer().startswith(
        "left for folds that run: 0.0s; fold 1 failed, so no other is started; 1 of 3 folds"
    )


def test_a_resumed_fold_that_waits_takes_what_is_left_of_it_and_scores_follow(clock):
    folds = Overview({0: "fold 0", 1: "fold 1"}, 1, after=7.0, parts={1: 0.25}, began=0.0)
    folds.started(0)
    clock.now = 50.0
    folds.heard(0, Status("fold 0", "epoch 5/10", left=50.0, whole=100.0))
    assert folds.left() == (50 + 25 + 7, False)


def test_an_early_stop_makes_times_upper_limits_until_a_fold_is_done(clock):
    folds = Overview({0: "fold 0", 1: "fold 1"}, 1, began=0.0)
    folds.started(0)
    clock.now = 50.0
    folds.heard(0, Status("fold 0", "epoch 5/10", left=50.0, whole=100.0, is_most=True))
    assert folds.footer().startswith("left for everything: at most 2m 30s; 0 of 2 folds")
    assert re.search("fold 0 .* <50s$", "\n".join(text(drawn(folds.rows(), "", 80, 24))))
    clock.now = 60.0
    folds.ended(0)
    folds.started(1)
    clock.now = 70.0
    folds.heard(1, Status("fold 1", "epoch 2/10", left=90.0, whole=100.0, is_most=True))
    assert folds.footer().startswith("left for everything: 1m 30s; 1 of 2 folds")


def test_time_left_of_folds_side_by_side(clock):
    folds = Overview({number: f"fold {number}" for number in range(5)}, 2, began=0.0)
    folds.started(0), folds.started(1)
    clock.now = 10.0
    folds.heard(0, Status("fold 0", left=90.0, whole=100.0))
    folds.heard(1, Status("fold 1", left=190.0, whole=200.0))
    # 0 ends at 90 and 2 at 240 after now, 1 at 190 and 3 at 340, 4 at 390.
    assert folds.left() == (390, False)
    assert [row.what for row in folds.rows()] == ["fold 0", "fold 1"]


def test_a_job_that_fails_or_says_nothing_leaves_an_honest_view(clock):
    parts = Overview({0: "part 0/2", 1: "part 1/2"}, 2, began=0.0)
    parts.started(0), parts.started(1)
    parts.said(0, "model.safetensors: 10%")
    assert [row.stage for row in parts.rows()] == ["model.safetensors: 10%", "starting"]
    clock.now = 5.0
    parts.ended(0), parts.ended(1)
    assert parts.left() == (0.0, False)
    assert parts.rows() == []
    assert parts.footer() == "left for everything: 0.0s; 2 of 2 parts done after 5.0s"
