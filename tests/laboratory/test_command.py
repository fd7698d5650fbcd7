"""`swinft lab`: what it takes, what it writes, and how it continues after it was stopped."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

import swinft
from swinft.cli import main
from swinft.errors import InputError
from swinft.laboratory.steps import Steps
from swinft.laboratory.table import INSTRUMENTS, instrument_class, settings_class
from swinft.store import commit, json_bytes
from tests.json_documents import document_of

QUICK = ["--device", "cpu", "--rows", "6"]


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of a folder's files but records."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".commits" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_table_names_classes_that_exist():
    for name in INSTRUMENTS:
        assert instrument_class(name).name == name
        assert settings_class(name)()


def test_lab_alone_lists_the_instruments(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["lab"])
    assert stop.value.code == 2
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and entry.help in out for name, entry in INSTRUMENTS.items())


def test_a_page_a_csv_and_numbers(run, capsys):
    printed = document_of(capsys, "lab", "variance", str(run), *QUICK)
    folder = run / "lab" / "variance"
    assert printed["files"]["html"] == str(folder / "variance.html")
    assert json.loads((folder / "variance.json").read_text()).items() <= printed.items()
    assert printed["complete"]
    assert printed["subjects"]["tiny"]["steps"] == 1
    lines = list(csv.DictReader((folder / "variance.csv").open()))
    assert [line["kind"] for line in lines] == ["image", "stem", "msa", "mlp", "downsample", "msa", "mlp"]
    page = (folder / "variance.html").read_text()
    assert "default-src 'none'" in page
    assert page.count("<script") == 1
    assert set(re.findall(r"https?://[^\s\"<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert page.count("<svg") == 3
    assert "var(--ink)" in page
    assert "#010203" not in page


def test_two_runs_on_one_page_and_names_are_text(run, tmp_path, monkeypatch, without_figures):
    other = Path(shutil.copytree(run, run.with_name("<b>$x_1$ & 'y'")))
    monkeypatch.chdir(tmp_path)
    result = swinft.lab("variance", run, other, rows=6, device="cpu")
    assert result.folder == Path("lab/variance")
    assert set(result.to_frame()["subject"]) == {"tiny", other.name}
    page = (tmp_path / result.page).read_text()
    assert "<b>$x" not in page
    assert "&lt;b&gt;$x_1$ &amp; " in page
    # Their steps lie in the runs: a page of one of them measures nothing again.
    before = files(run / "lab" / "variance" / "steps")
    assert before
    monkeypatch.setattr("swinft.laboratory.variance.Variance.measure", None)
    swinft.lab("variance", run, rows=6, device="cpu")
    assert files(run / "lab" / "variance" / "steps") == before


def test_other_rows_are_measured_beside_the_first(run, without_figures):
    assert main(["lab", "variance", str(run), *QUICK]) == 0
    assert main(["lab", "variance", str(run), "--device", "cpu", "--rows", "all"]) == 0
    assert len(list((run / "lab" / "variance" / "steps").glob("*/*.json"))) == 2


def test_a_damaged_step_is_measured_again(run, without_figures):
    assert main(["lab", "variance", str(run), *QUICK]) == 0
    (step,) = (run / "lab" / "variance" / "steps").glob("*/*.json")
    whole = files(run / "lab" / "variance")
    step.write_bytes(step.read_bytes()[:-9] + b"666666666")
    assert main(["lab", "variance", str(run), *QUICK]) == 0
    assert files(run / "lab" / "variance") == whole


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["varience", "RUN"], "there is no instrument 'varience'. Did you mean 'variance'?"),
        (["variance"], "name the folder of a run"),
        (["variance", "RUN", "RUN"], "name each once"),
        (["variance", "RUN", "--rows", "0"], "rows is 0. Allowed: a whole number from 1, or all."),
        (["variance", "RUN", "--seconds", "-1"], "seconds is -1"),
        (["variance", "RUN", "--fold", "7"], "--fold names [7], but the run has folds [0, 1]"),
        (["variance", "RUN", "--fold", "all"], "holds out none"),
        (["variance", "RUN", "--sede", "1"], "Did you mean 'seed'?"),
        (["variance", "resnet18"], "there is no run folder 'resnet18'"),
        (["variance", "RUN", "--output", "RUN/config.yaml"], "cannot be written"),
    ],
)
def test_wrong_use_names_the_fix(words, message, tiny_run, capsys):
    assert main(["lab", *(word.replace("RUN", str(tiny_run)) for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_an_unfinished_run_has_no_network(run, capsys):
    for fold in (0, 1):
        (run / f"fold_{fold}" / "result.json").unlink()
    assert main(["lab", "variance", str(run), *QUICK]) == 2
    assert "no fold of" in capsys.readouterr().err


def test_nothing_is_measured_before_every_subject_can_be(run, tmp_path, monkeypatch, without_figures, capsys):
    masks = Path(shutil.copytree(run, tmp_path / "masks"))
    schema = json.loads((masks / "schema.json").read_text())
    commit(masks / "schema.json", json_bytes({**schema, "kind": "segmentation"}), "swinft fit")
    words = [*QUICK, "--output", str(tmp_path / "out")]
    assert main(["lab", "variance", str(run), str(masks), *words]) == 2
    assert "masks predicts masks: the laboratory measures networks with one answer a row" in capsys.readouterr().err
    assert main(["lab", "scale", str(run), "vit_tiny_patch16_224", "--sides", "64,72", *words]) == 2
    assert "72 x 72 px is no multiple of the 16 px patches" in capsys.readouterr().err
    other = Path(shutil.copytree(run, tmp_path / "other"))

    def steps(self, subject):
        if subject.label == "other":
            raise InputError("it cannot be measured")
        return ["rows"]

    monkeypatch.setattr("swinft.laboratory.variance.Variance.steps", steps)
    assert main(["lab", "variance", str(run), str(other), *words]) == 2
    assert "it cannot be measured" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.json"))


def test_steps_of_other_settings_and_odd_names_lie_apart(tmp_path):
    first, second = Steps(tmp_path, {"seed": 1}, "swinft lab"), Steps(tmp_path, {"seed": 2}, "swinft lab")
    names = ["../a", "a", "A", "a b", "x" * 300, "日本", ""]
    for number, name in enumerate(names):
        assert first.write(name, [{"value": number / 3, "none": float("nan")}]) == [
            {"value": float(f"{number / 3:.8g}"), "none": None}
        ]
    assert [first.read(name)[0]["value"] for name in names] == [float(f"{n / 3:.8g}") for n in range(len(names))]
    assert second.read("a") is None
    assert {path.parent.parent for path in tmp_path.rglob("*.json") if ".commits" not in path.parts} == {tmp_path}
