"""The surface: commands, help, unknown words."""

import io
import re
import subprocess
import sys

import pytest

from swinft.cli import COMMANDS, entry, main
from swinft.run.config.sections import COMMAND_KEYS

HEAVY = ("torch", "timm", "lightning", "cv2", "pandas", "numpy", "albumentations", "swinft.system.cluster.remote")


def test_the_commands_are_these():
    assert list(COMMANDS) == [
        "download",
        "new",
        "table",
        "check",
        "fit",
        "find",
        "tune",
        "plan",
        "predict",
        "submit",
        "submissions",
        "ensemble",
        "embed",
        "explain",
        "runs",
        "compare",
        "lab",
        "report",
        "export",
        "bundle",
        "inspect",
        "metrics",
        "cache",
    ]


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_help_names_every_command(words, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and command.help in out for name, command in COMMANDS.items())


def test_help_imports_nothing_heavy():
    code = f"import sys; from swinft.cli import main; main(['--help']); print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: swinft {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "fit", "find", "plan"])
def test_the_help_of_a_command_with_a_config_has_all_its_own_options(command, capsys):
    hidden = {"trial", "rounds"}  # internal; only in files
    shown = []
    for words in (["--help"], ["--help", "all"]):
        with pytest.raises(SystemExit):
            main([command, *words])
        shown.append(set(re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE)))
    assert (shown[1] & set(COMMAND_KEYS)) - hidden == shown[0] & set(COMMAND_KEYS)
    assert "config" in shown[0]


def test_no_command_is_wrong_use(capsys):
    assert main([]) == 2
    assert "usage: swinft" in capsys.readouterr().out


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert main(["pedict"]) == 2
    assert "unknown command 'pedict'. Did you mean 'predict'?" in capsys.readouterr().err


def test_an_unknown_run_suggests_the_nearest(tiny_run, capsys):
    assert main(["submit", str(tiny_run.with_name("tiny2"))]) == 2
    assert f"Did you mean '{tiny_run}'?" in capsys.readouterr().err


def test_an_unknown_option_suggests_the_nearest(tiny_run, capsys):
    assert main(["predict", str(tiny_run), "--veiws", "[hflip]"]) == 2
    assert "unknown option '--veiws'. Did you mean 'views'?" in capsys.readouterr().err


def test_a_character_that_the_terminal_does_not_have_ends_no_command(tmp_path, monkeypatch):
    folder = tmp_path / "Hündin"
    folder.mkdir()
    paper = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", paper)
    monkeypatch.setattr(sys, "argv", ["swinft", "cache", "--dir", str(folder)])
    with pytest.raises(SystemExit, match=r"^0$"):
        entry()
    assert rb"H\xfcndin: 0 caches" in paper.buffer.getvalue()
