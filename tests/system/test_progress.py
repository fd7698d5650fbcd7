"""What `fit` and `predict` say while they work: a table, times left, and live lines on terminals only."""

import math
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from swinft.cli import main
from swinft.inference.predictor import predict_rows
from swinft.model.task import FineTuneTask
from swinft.printing import format_brief, format_seconds
from swinft.run.compute.devices import FOLDS_AT_A_TIME
from swinft.run.folds import hours, progress, recorder
from swinft.run.folds.epoch_table import WIDTH, EpochTable
from swinft.system import live, orphans
from swinft.system import progress as passes
from swinft.system.import_paths import child_environment
from swinft.system.live import LineSplitter
from swinft.system.overview import makespan
from swinft.system.processes import Child, run_children
from swinft.system.shown import Following
from swinft.system.status import Status, read_status
from tests.clock import Clock
from tests.conftest import PYTHON_LINE, power_gone_after, tiny_config, write_config
from tests.terminals import plain

START_UP, STEP, WARM_UP, VALIDATION_STEP = 30.0, 10.0, 60.0, 5.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that only training and validation steps advance, the first training step by a minute more."""
    clock = Clock()
    for module in (progress, recorder, hours, passes, live):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(progress, "STARTED", -START_UP)
    steps = {name: getattr(FineTuneTask, name) for name in ("training_step", "validation_step")}

    def train(self, *given):
        clock.now += STEP + (WARM_UP if clock.now == 0 else 0)
        return steps["training_step"](self, *given)

    def validate(self, *given):
        clock.now += VALIDATION_STEP
        return steps["validation_step"](self, *given)

    monkeypatch.setattr(FineTuneTask, "training_step", train)
    monkeypatch.setattr(FineTuneTask, "validation_step", validate)
    return clock


def config_of(competition: Path, folder: Path, **changes: object) -> Path:
    return write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **changes))


def times(said: str) -> list[list[str]]:
    """The epochs' lines from the speed on."""
    return [re.split(r" {2,}", line)[-4:] for line in said.splitlines() if re.match(r"fold \d+  epoch \d+/", line)]


def test_times_left_are_rough_after_one_epoch_and_then_those_of_the_last_ones(
    clock, competition, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv(FOLDS_AT_A_TIME, "1")
    config = config_of(competition, tmp_path, **{"trainer.max_epochs": 3})
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    # An epoch is 2 steps and 2 of validation, 30 s, the first one a minute more; the other fold is still to start, and
    # needs 30 s, that minute, and 3 × 30 + 10.
    assert times(capsys.readouterr().out.replace(" *", "")) == [
        ["0.15", "1m 30s", "about 1m", "about 4m"],  # 2 × 30 + 10
        ["0.6", "30s", "40s", "3m 50s"],  # 30 + 10
        ["0.6", "30s", "10s", "3m 20s"],
    ]


def test_a_resume_counts_what_is_left_and_measures_again(clock, competition, tmp_path, capsys):
    config = config_of(competition, tmp_path, **{"trainer.max_epochs": 3})
    with power_gone_after(1):
        main(["fit", "--config", str(config), "--fold", "0"])
    clock.now = 0.0
    capsys.readouterr()
    assert main(["fit", "--config", str(config), "--fold", "0", "--resume"]) == 0
    said = capsys.readouterr().out.replace(" *", "")
    assert [row[-3:] for row in times(said)] == [["0.15", "1m 30s", "about 40s"], ["0.6", "30s", "10s"]]  # 30 + 10
    assert "run left" not in said  # nobody fits the other fold


def test_max_hours_ends_the_fold_and_each_waiting_fold_still_trains_an_epoch(
    clock, competition, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv(FOLDS_AT_A_TIME, "1")
    monkeypatch.setenv(hours.DEADLINE, "200/1")
    config = config_of(competition, tmp_path, **{"trainer.max_epochs": 3, "max_hours": 1})
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    # 100 s for each fold: after 90 s the first one ends; the other one starts, trains an epoch and predicts.
    assert times(capsys.readouterr().out.replace(" *", ""))[0][-2:] == ["about 10s", "about 2m"]


def test_folds_that_are_done_or_run_side_by_side():
    assert makespan([10, 40], 1) == 50
    assert makespan([10, 40], 2) == 40
    assert makespan([10, 40, 20], 2) == 40
    assert makespan([], 4) == 0


def test_early_stopping_makes_times_left_upper_limits(competition, tmp_path, capsys):
    stopping = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "val_loss", "min_delta": 9, "patience": 1},
    }
    config = config_of(competition, tmp_path, **{"trainer.max_epochs": 9, "trainer.callbacks": [stopping]})
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert "times left are upper limits, since EarlyStopping may end it sooner" in capsys.readouterr().out


METRICS = ["mean_column_auc", "quadratic_kappa", "macro_f1", "log_loss", "a.class.of.my.own.with_a_very_long_name"]


@pytest.mark.parametrize("has_run", [True, False])
@pytest.mark.parametrize("first", range(len(METRICS)))
@pytest.mark.parametrize(("fold", "planned"), [(0, 1), (3, 100), (11, 1000)])
def test_lines_are_aligned_and_fit_100_characters(fold, planned, first, has_run):
    names = METRICS[first:] + METRICS[:first]
    table = EpochTable(fold, planned, names, has_run)
    values = {"epoch": 1, "train_loss": -1.23456e-5, "val_loss": 1.23456e-5, "lr": 1.23456e-5, "seconds": 3599.0}
    values |= {f"val_{name}": -0.000123456 for name in names}
    left = (35_940.0, False)
    lines = [table.header(), table.line(values, 12_345.6, left, left if has_run else None, True)]
    lines.append(table.line(values, 0.123, (5e5, True), (59.0, True) if has_run else None, False))
    assert max(map(len, lines)) <= WIDTH
    ends = [match.end() for match in re.finditer(r"\S+( \S+)*", lines[0])]
    assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for line in lines for end in ends)
    assert "-0.000123" in lines[1]
    assert "…" not in lines[1]
    shown = lines[0].split()
    assert set(table.hidden) == {*names[1:], "lr"} - set(shown)  # the first one's name may be cut


def test_metrics_without_a_column_are_named(competition, tmp_path, capsys):
    metrics = ["accuracy", "macro_f1", "log_loss", "quadratic_kappa"]
    changes = {"data.target": "is_red", "trainer.max_epochs": 1, "model.metrics": metrics}
    config = config_of(competition, tmp_path, **changes)
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    out = capsys.readouterr().out
    header = next(line for line in out.splitlines() if "train_loss" in line)
    hidden = [name for name in metrics if name not in header]
    assert "accuracy" in header
    assert hidden
    path = tmp_path / "runs" / "tiny" / "fold_0" / "metrics.jsonl"
    assert f"fold 0: {', '.join(hidden)} of every epoch: {path}\n" in out
    assert all(f'"val_{name}"' in path.read_text() for name in metrics)
    epochs = [line for line in out.splitlines() if "train_loss" in line or "  epoch 1/1" in line]
    assert max(map(len, epochs)) <= WIDTH


def test_a_terminal_shows_a_live_line_that_is_gone_at_the_end(terminal, tiny_run, competition, tmp_path):
    terminal.attach()
    config = config_of(competition, tmp_path, **{"data.batch_size": 2})
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert (
        main(["predict", str(tiny_run), "--batch-size", "2", "--device", "cpu", "--output", str(tmp_path / "p.csv")])
        == 0
    )
    written = plain(terminal.close())
    number, left = r"[\d.,]+", r"~\d+s"
    assert re.search(r" batch  img/s +loss +memory +left\x1b\[K", written)  # of the first epoch, without scores
    assert re.search(rf"fold 0  epoch 1/2 .* 5/6 +{number} +{number} +{number}/\d+ GB +{left}\x1b\[J", written)
    assert re.search(r" batch  img/s +loss +accuracy +best +memory +left\x1b\[K", written)
    assert re.search(rf"fold 0  epoch 2/2 .* 5/6( +{number}){{4}} +{number}/\d+ GB +[\d.]+s\x1b\[J", written)
    assert re.search(rf"fold 0  validation .* 5/6 .* {left}", written)
    assert re.search(rf"fold 0  out-of-fold predictions .* 5/6 .* {left}", written)
    assert re.search(rf"predict .* 3/3 .* {left}", written)
    screen = terminal.screen()
    assert not [line for line in screen if " 5/6 " in line or ("img/s" in line and "epoch" in line)]
    assert [line[:17] for line in screen if "  epoch " in line] == ["fold 0  epoch 1/2", "fold 0  epoch 2/2"]
    assert screen[-2].startswith("next: swinft submit")
    log = (tmp_path / "runs" / "tiny" / "fold_0" / "log.txt").read_text()
    assert "fold 0  epoch 2/2" in log
    assert not re.search(r"\x1b|\d/6|img/s +loss|validation  ", log)


def test_an_error_leaves_no_live_line(terminal, competition, tmp_path, monkeypatch):
    terminal.attach()
    step = FineTuneTask.training_step

    def fail_in_the_fifth(self, batch, index):
        if index == 4:
            raise RuntimeError("no more")
        return step(self, batch, index)

    monkeypatch.setattr(FineTuneTask, "training_step", fail_in_the_fifth)
    config = config_of(competition, tmp_path, **{"data.batch_size": 2})
    with pytest.raises(RuntimeError, match="no more"):
        main(["fit", "--config", str(config), "--fold", "0"])
    assert re.search(r"fold 0  epoch 1/2 .* 4/6 ", plain(terminal.close()))
    assert not [line for line in terminal.screen() if "4/6" in line]


@pytest.mark.parametrize(("name", "value"), [("JPY_PARENT_PID", "1"), ("TERM", "dumb")])
def test_a_notebook_and_a_dumb_terminal_get_no_live_line(name, value, terminal, tiny_run, tmp_path, monkeypatch):
    terminal.attach()
    monkeypatch.setenv(name, value)
    assert (
        main(["predict", str(tiny_run), "--batch-size", "1", "--device", "cpu", "--output", str(tmp_path / "p.csv")])
        == 0
    )
    assert not re.search(r"\x1b|\r(?!\n)|batch \d", terminal.close())


def test_a_pipe_gets_no_live_line(competition, tiny_run, tmp_path, capfd):
    assert (
        main(["predict", str(tiny_run), "--batch-size", "1", "--device", "cpu", "--output", str(tmp_path / "p.csv")])
        == 0
    )
    config = config_of(competition, tmp_path, **{"trainer.max_epochs": 1})
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert not re.search(r"[\x1b\r]|batch \d", "".join(capfd.readouterr()))


def test_without_a_terminal_a_prediction_says_now_and_then_how_far_it_is(clock, capsys):
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 2000

        def __getitem__(self, row):
            return {"image": torch.zeros(3, 2, 2, dtype=torch.uint8), "row": row}

    class Net:
        def predict(self, image, features=None):
            clock.now += 100.0 if clock.now == 0 else len(image)
            return torch.zeros(len(image), 1)

    given = [Net()], DataLoader(Rows(), batch_size=10), ["identity"], torch.device("cpu"), "32-true"
    predict_rows(*given, None, "predict")
    lines = capsys.readouterr().out.splitlines()
    # The first batch is not timed; the second one is over after 15 s and more.
    assert lines[:2] == [
        "predict  batch 2/200  1.0 img/s  left: about 33m",
        "predict  batch 32/200  1.0 img/s  left: about 28m",
    ]
    assert len(lines) == 7
    predict_rows(*given)
    assert capsys.readouterr().out == ""


# A child as folds are: it writes a live line where its parent shows it, colours, a bar of another library, and no line end.
WRITER = f"""{PYTHON_LINE}
import os, sys, time
from swinft.system.live import LiveLine
from swinft.system.orphans import end_with_parent
from swinft.system.status import Status
end_with_parent()
line = LiveLine()
print("begins in", "\\x1b[31mred\\x1b[0m")
for batch in range(3):
    line.show(Status(f"fold {{sys.argv[3]}}", f"epoch {{batch}}", left=10.0 * (3 - batch), whole=60.0))
    time.sleep(0.6)
line.clear()
print("between")
sys.stdout.write("within")
line.show(Status("last", "\\x1b[31m\\n"))
print(" a line")
time.sleep(0.6)
print("\\r 10%\\r 50%\\r100%", file=sys.stderr)
line.clear()
sys.stdout.write("ends\\x07 without a line feed")
"""


def written_by_children(folder: Path, monkeypatch) -> list[str]:
    """The logs of two children that run side by side."""
    stub = folder / "stub"
    stub.write_text(WRITER)
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    logs = [folder / f"{number}.txt" for number in range(2)]
    children = {number: Child([str(number)], {}, log, f"fold {number}") for number, log in enumerate(logs)}
    assert run_children(children, [{}, {}], following=Following(more=1)) == {0: 0, 1: 0}
    texts = [log.read_text() for log in logs]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for text in texts for line in text.splitlines())
    assert [[line[21:] for line in text.splitlines()][::1000] for text in texts] == [
        [f"--- started: swinft {number}"] for number in range(2)
    ]
    assert all(text.endswith("  --- ended with exit code 0\n") for text in texts)
    return ["".join(f"{line[21:]}\n" for line in text.splitlines()[1:-1]) for text in texts]


def test_a_parent_on_a_terminal_shows_the_live_lines_of_its_children(terminal, tmp_path, monkeypatch):
    terminal.attach()
    logs = written_by_children(tmp_path, monkeypatch)
    assert [sorted(log.splitlines()) for log in logs] == [
        ["100%", "begins in red", "between", "ends without a line feed", "within a line"]
    ] * 2
    written = plain(terminal.close())
    both = (
        r"fold 0  epoch \d +\d+s\x1b\[K\r?\nfold 1  epoch \d +\d+s\x1b\[K\r?\n"  # one above the other, and all of them
    )
    assert re.search(
        rf"left\x1b\[K\r?\n{both}left for everything: [\w ]+; 0 of 3 folds done after [\d.]+s\x1b\[J", written
    )
    assert all(f"fold {number}  epoch 2" in written for number in range(2))
    screen = terminal.screen()
    assert not [line for line in screen if "epoch" in line or "last" in line or "everything" in line]
    assert sorted(screen) == sorted(
        ["begins in red", "between", "ends without a line feed", "within a line"] * 2 + [""]
    )


def test_a_parent_without_a_terminal_gets_whole_lines_only(tmp_path, monkeypatch, capfd):
    logs = written_by_children(tmp_path, monkeypatch)
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == sorted(
        ["begins in red", "between", "ends without a line feed", "within a line"] * 2
    )
    assert err == "100%\n" * 2
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", out + err + "".join(logs))


def test_a_child_of_a_child_does_not_believe_the_first_parent(monkeypatch, capfd):
    monkeypatch.setenv(live.LIVE, "word")  # inherited, and this process's own output is a pipe of somebody else's
    assert not orphans.is_child()
    live.LiveLine().show(Status("text"))
    assert capfd.readouterr().out == ""
    assert child_environment()[live.LIVE] == "word"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_are_the_same_wherever_a_pipe_cuts_them(size):
    status = Status("fold 0", "epoch 1/2", 3, 4, left=1.5, is_rough=True)
    text = (
        f"a\r\nb\rc\n\n\x1b[2Kd\r\n{status.message('word')}\x1b[0m\ne{status.message('word')}f{status.message('other')}"
    )
    splitter, found = LineSplitter("word"), []
    for start in range(0, len(text), size):
        found += splitter.split(text[start : start + size])
    found += splitter.split("", is_end=True)
    assert [line for line, kind in found if kind == "line"][:5] == [
        "a",
        "c",
        "",
        "d",
        "ef" + status.message("other")[1:-1],
    ]
    assert [read_status(line) for line, kind in found if kind == "message"] == [status] * 2


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"what": 1}', '{"what": "a", "done": 1.5}', "{}", "[" * 10_000])
def test_what_is_no_status_is_not_read(text):
    assert read_status(text) is None


def test_numbers_that_are_not_finite_and_unknown_keys_are_left_out_of_a_status():
    assert read_status('{"what": "a", "rate": NaN, "left": Infinity, "loss": 1, "new": []}') == Status("a", loss=1)
    assert read_status('{"what": "a", "score": -Infinity}') == Status("a", score=-math.inf)
    assert len(read_status(Status("a" * 10_000).message("")[1:]).what) == 200


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "under 1 s"), (44.6, "45 s"), (95, "2 min"), (12_000, "3 h 20 min")]
)
def test_durations_in_words(seconds, words):
    assert format_seconds(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words", "rough"),
    [
        (0, "0.0s", "1s"),
        (9.96, "10s", "10s"),
        (59.6, "1m 0s", "1m"),
        (725, "12m 5s", "12m"),
        (3599.6, "1h 0m", "1h"),
        (12_000, "3h 20m", "3h"),
        (359_000, "99h 43m", "4d"),
    ],
)
def test_durations_of_a_table(seconds, words, rough):
    assert format_brief(seconds) == words
    assert format_brief(seconds, is_rough=True) == rough
