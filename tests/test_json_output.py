"""`--json`: one document on standard output, with documented keys, whatever the command says besides."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from swinft.cli import COMMANDS, main
from swinft.json_output import plain_values
from swinft.run.layout import Run
from swinft.system.import_paths import child_environment
from tests.conftest import tiny_config, write_config
from tests.json_documents import document_of, documented


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A run that may be changed."""
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("json") / "tiny"))


def test_every_command_is_documented():
    assert list(set(documented()) - {"Errors"} ^ set(COMMANDS)) == []
    assert all(always for always, _ in documented().values())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_wrong_use_with_a_document(command, capsys):
    found = document_of(capsys, command, "--no-such-option=1", code=2)
    assert found["exit_code"] == 2
    assert found["error"]
    assert [each["message"] for each in found["problems"]] == [found["error"]]


@pytest.mark.parametrize("command", ["fit", "runs", "tune"])
def test_help_names_the_option_and_is_no_document(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help", "--json"])
    out = capsys.readouterr().out
    assert out.startswith(f"usage: swinft {command}")
    assert "--json" in out


def test_fit_of_a_finished_run_has_its_scores_and_folds(run, capsys):
    found = document_of(capsys, "fit", "--resume", str(run))
    assert (found["run"], found["next"]) == (str(run), f"swinft predict {run}")
    scores = Run(run).read_scores()
    assert found["scores"]["pooled"] == pytest.approx(scores["pooled"])
    assert [each["fold"] for each in found["folds"]] == [0, 1]
    assert [each["oof"] for each in found["folds"]] == [each["oof"] for each in scores["folds"]]
    assert all(Path(path).is_file() for path in found["files"].values())


def test_a_dry_run_has_no_run(competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    capsys.readouterr()
    assert main(["fit", "--config", str(config), "--trainer.fast_dev_run", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"run": None}
    assert "fast_dev_run: the first fold was trained" in err


def test_predictions_and_submissions(run, capsys):
    found = document_of(capsys, "predict", str(run), "--device", "cpu")
    assert (found["rows"], found["outputs"]) == (6, ["blue", "green", "red"])
    assert found["predictions"] == str(run / "test_predictions.csv")
    assert found["provenance"]["folds"] == [0, 1]
    found = document_of(capsys, "submit", str(run))
    assert (found["submission"], found["rows"], found["sent"]) == (str(run / "submission.csv"), 6, None)
    assert document_of(capsys, "submit", str(run), "--dry-run")["submission"] is None
    assert document_of(capsys, "submissions", str(run)) == {"run": str(run), "submissions": []}


def test_files_that_are_made_of_a_run(run, capsys):
    found = document_of(capsys, "report", str(run))
    assert Path(found["report"]).read_text().lower().startswith("<!doctype html>")
    found = document_of(capsys, "export", str(run), "--fold", "0", "--to", "safetensors")
    assert [Path(path).is_file() for path in found["files"]] == [True] * 2
    assert found["difference"] == 0


def test_a_ledger_and_a_note(run, capsys):
    found = document_of(capsys, "runs", str(run.parent))
    assert [each["name"] for each in found["runs"]] == ["tiny"]
    capsys.readouterr()
    assert main(["runs", "--note", str(run), "a \x1b[31m\nnote", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": str(run), "note": "a \x1b[31m\nnote"}


def test_a_check_lists_its_problems_one_by_one(competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path / "runs")
    path = write_config(tmp_path / "c.yaml", config)
    found = document_of(capsys, "check", "--config", str(path))
    assert (found["problems"], found["precision"]) == ([], "32-true")
    assert [each["rows"] for each in found["summary"]["folds"]] == [12, 12]
    config["data"] |= {"root": str(tmp_path)}
    config["trainer"] |= {"max_steps": 0, "strategy": "deepspeed"}
    rows = "".join(f"{number},{number % 3}\n" for number in range(9))
    (tmp_path / "train.csv").write_text(f"id,color\n{rows}3,1\n")
    config["data"] |= {"test": None, "sample_submission": None}
    found = document_of(capsys, "check", "--config", str(write_config(tmp_path / "c.yaml", config)), code=2)
    messages = [each["message"] for each in found["problems"]]
    assert len(messages) == len(set(messages)) >= 3
    assert any("trainer.max_steps is 0" in each for each in messages)
    duplicate = next(each for each in found["problems"] if each.get("id") == "3")
    assert duplicate["file"] == str(tmp_path / "train.csv")
    assert duplicate["line"] == 11


def test_a_plan_of_other_gpus_and_a_table(competition, tmp_path, capsys):
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert document_of(capsys, "plan", "--config", str(path), "--gpus", "2xT4")["trainings"] == 2
    found = document_of(capsys, "table", str(path), "--which", "test")
    assert found["cells"] == {"id": [f"t{number}" for number in range(1, 7)]}
    found = document_of(capsys, "table", str(path), "--output", str(tmp_path / "out.csv"))
    assert "cells" not in found
    assert (found["rows"], found["output"]) == (24, str(tmp_path / "out.csv"))


def test_lists_of_metrics_and_caches(tmp_path, capsys):
    found = document_of(capsys, "metrics", "--kind", "regression")
    assert all("regression" in each["kinds"] for each in found["metrics"])
    assert document_of(capsys, "cache", "--dir", str(tmp_path)) == {"folder": str(tmp_path), "caches": []}
    assert document_of(capsys, "cache", "--dir", str(tmp_path), "--prune", "0")["deleted"] == []


def test_what_other_libraries_and_processes_print_does_not_reach_the_document(tmp_path):
    code = (
        "import os, subprocess, sys, swinft.cli as cli\n"
        "def loud(argv):\n"
        "    print('printed'); os.write(1, b'written'); subprocess.run(['echo', 'echoed'])\n"
        "    return {'path': os.fsencode('\\udcff').decode('utf-8', 'surrogateescape'), 'not a number': float('nan')}\n"
        "cli._command = lambda name: loud\n"
        "sys.exit(cli.main(['runs', '--json']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=child_environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"path": "\udcff", "not a number": None}
    assert all(word in done.stderr for word in (b"printed", b"written", b"echoed"))


def test_a_bug_is_a_document_too_and_keeps_its_traceback(monkeypatch, capsys):
    def fails(argv):
        raise RuntimeError("no more")

    monkeypatch.setattr("swinft.cli._command", lambda name: fails)
    with pytest.raises(RuntimeError, match="no more"):
        main(["runs", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["error"], found["exit_code"]) == ("RuntimeError: no more", 1)


def test_an_interrupt_and_unknown_words_are_documents(monkeypatch, capsys):
    assert document_of(capsys, "frobnicate", code=2)["error"].startswith("unknown command 'frobnicate'.")
    found = document_of(capsys, "fit", "--print_config", code=2)
    assert found["error"] == "--print_config prints YAML: remove it, or --json."

    def stops(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("swinft.cli._command", lambda name: stops)
    assert document_of(capsys, "runs", code=130)["error"] == "interrupted"


def test_a_closed_pipe_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    code = "import swinft.cli as cli; cli._command = lambda name: lambda argv: {}; cli.entry.__globals__['sys'].argv"
    code += "[1:] = ['runs', '--json']; cli.entry()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=child_environment(),
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert b"BrokenPipe" not in done.stderr


def test_values_of_other_kinds():
    given = {"a": np.float32(0.5), 1: (np.arange(2), float("inf")), "path": Path("x"), "set": {"b", "a"}}
    assert plain_values(given) == {"a": 0.5, "1": [[0, 1], None], "path": "x", "set": ["a", "b"]}
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        plain_values({"x": object()})
