"""The log of a fold: however it was started and however it ended."""

import os
import re
import signal

import pytest

from swinft.cli import main
from swinft.errors import InputError
from swinft.model.task import FineTuneTask
from swinft.run.folds import fold as folds
from swinft.run.layout import Run
from swinft.system.log import last_lines
from tests.conftest import tiny_config, write_config

TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")


def broken(*_):
    raise ZeroDivisionError("no\x1b[2J more")


def refused(*_):
    raise InputError("data.x is 1.\nAllowed: 2.")


def killed(*_):
    os.kill(os.getpid(), signal.SIGTERM)


def interrupted(*_):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_fold_that_its_own_command_fits_has_a_log_of_every_start(competition, tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 1}))
    words = ["fit", "--config", str(config), "--fold", "0"]
    log = Run(tmp_path / "runs" / "tiny").fold(0).log
    ends = [
        (FineTuneTask, "training_step", broken, ZeroDivisionError, 1, "ZeroDivisionError: no more"),
        (folds, "fold_data", refused, 2, 2, "swinft fit: data.x is 1.\nAllowed: 2."),
        (folds, "fold_data", interrupted, 130, 130, "swinft: interrupted"),
        (FineTuneTask, "training_step", killed, SystemExit, 143, "fold 0: 12 rows to train on"),
        (folds, "_finish", killed, SystemExit, 143, "--resume --fold 0"),
    ]
    for number, (where, name, does, raised, code, said) in enumerate(ends):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, does)
            if isinstance(raised, int):
                assert main([*words, *(["--resume"] if number else [])]) == raised
            else:
                with pytest.raises(raised):
                    main([*words, *(["--resume"] if number else [])])
        lines = log.read_text().splitlines()
        assert all(TIME.match(line) for line in lines)
        starts = [line[21:] for line in lines if "--- started" in line]
        assert len(starts) == number + 1
        assert starts[-1].startswith(f"--- started: swinft fit --config {tmp_path}/runs/tiny/config.yaml --fold 0")
        assert lines[-1][21:] == f"--- ended with exit code {code}"
        assert said in "\n".join(last_lines(log))
        assert ("Traceback" in "\n".join(last_lines(log))) == (code == 1)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    capsys.readouterr()
    assert main([*words, "--resume"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert last_lines(log) == [line for line in said if line.startswith("fold 0")]
    assert len(last_lines(log)) >= 1
    content = log.read_bytes()
    assert content.endswith(b"--- ended with exit code 0\n")
    assert main([*words, "--resume"]) == 0
    assert log.read_bytes() == content  # nothing was done
