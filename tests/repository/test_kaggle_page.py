"""The commands in docs/kaggle.md: each is one, and has the options that are shown."""

import re

import pytest

from swinft.cli import main
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "kaggle.md").read_text()


def test_the_commands_on_the_page_have_the_options_that_it_shows(capsys):
    lines = re.findall(r"^swinft (\w+) ([^#\n]*)", PAGE, re.MULTILINE)
    assert len(lines) > 10
    for name in sorted({name for name, _ in lines}):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        known = set(re.findall(r"--([a-z_]+)", capsys.readouterr().out))
        shown = {word for each, rest in lines if each == name for word in re.findall(r"--([a-z-]+)", rest)}
        assert {word.replace("-", "_") for word in shown} <= known, name
