"""Configs with a section `tune:`: no other line of them moves."""

from pathlib import Path

import pytest

from swinft.errors import InputError
from swinft.tuning.source import read_space, without_section


def split(path):
    with without_section(["--config", str(path), "--seed", "1"]) as found:
        return Path(found.words[1]).read_text(), found.space


def test_the_section_is_cut_out_line_for_line(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: a\ntune:  # searched\n  x.lr: {low: 1e-5,\n    high: 1}\n  # more\n  y: [1, null]\nseed: 1\n"
    )
    text, space = split(path)
    assert text.split("\n") == ["name: a", "", "", "", "", "", "seed: 1", ""]
    assert space == {"x.lr": {"low": 1e-5, "high": 1}, "y": [1, None]}
    path.write_text("name: tune\nx:\n  tune: 1\n")  # no section of this name
    assert split(path) == (path.read_text(), None)
    path.write_text("name: a\n'tune': {x: [1]}")
    assert split(path) == ("name: a\n", {"x": [1]})


def test_errors_name_the_users_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("tune: {x: [1]}\nname: a\n")
    with pytest.raises(InputError, match=r"c\.yaml:2: wrong") as error, without_section([f"--config={path}"]) as found:
        raise InputError(f"{found.words[1]}:2: wrong")
    assert str(path) in str(error.value)
    path.write_text("tune:\n  x: [1]\n  x: [2]\n")
    with pytest.raises(InputError, match="x is given twice"):
        split(path)
    path.write_text("tune:\n  x:\n    lr: [1]\n    lr: [2]\n")
    with pytest.raises(InputError, match="lr is given twice"):
        split(path)
    path.write_text("{name: a, tune: {x: [1]}}")
    with pytest.raises(InputError, match="on lines of its own"):
        split(path)


def test_a_space_may_be_a_file_alone_or_a_section_in_it(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("# a space\nx.lr: [1e-3]\ny:\n  z: {low: 1, high: 2}\n")
    assert read_space(path) == {"x.lr": [1e-3], "y": {"z": {"low": 1, "high": 2}}}
    path.write_text("tune:\n  x.lr: [1e-3]\n")
    assert read_space(path) == {"x.lr": [1e-3]}
    path.write_text("x: [1]\nx: [2]\n")
    with pytest.raises(InputError, match="x is given twice"):
        read_space(path)
    with pytest.raises(InputError, match=r"there is no file .*spaec\.yaml.* Did you mean .*space\.yaml"):
        read_space(tmp_path / "spaec.yaml")
