"""Predictions say what they were made with, overwrite nothing of others, and are refused when they are out of date."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from swinft.cli import main
from swinft.errors import InputError
from swinft.run.layout import Run
from swinft.run.lock import hold


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    """A copy of a finished run, to be changed."""
    return Path(shutil.copytree(tiny_run, tmp_path / "runs" / "tiny"))


def predict(run: Path, *options: str) -> int:
    return main(["predict", str(run), "--device", "cpu", *options])


def no_forwards(monkeypatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a network was computed with")

    monkeypatch.setattr("swinft.run.prediction.predict.predict_rows", forbidden)
    monkeypatch.setattr("swinft.run.experiment.Experiment.network", forbidden)


def provenance(path: Path) -> dict[str, object]:
    return json.loads(path.with_name(f"{path.stem}.made_from.json").read_text())["provenance"]


def test_f042_predictions_carry_what_they_were_made_with(run, capsys):
    made_with = provenance(run / "test_predictions.csv")
    assert made_with["folds"] == made_with["planned"] == [0, 1]
    assert made_with["views"] == ["identity"]
    assert set(made_with["weights"]) == {"fold_0", "fold_1"}
    for command in ("submit", "report"):
        assert main([command, str(run)]) == 0
        assert "2 folds, views identity, by torch in 32-true" in capsys.readouterr().out
    assert json.loads((run / "submission.made_from.json").read_text())["provenance"] == made_with


def test_f042_some_of_the_folds_and_other_views_are_said(run, capsys):
    assert predict(run, "--folds", "1", "--views", "identity,hflip") == 0
    said = capsys.readouterr().out
    assert main(["submit", str(run)]) == 0
    for out in (said, capsys.readouterr().out):
        assert "only 1 fold of 2 (1), views identity, hflip" in out
        assert "the out-of-fold score was made with the views identity" in out  # F121


@pytest.mark.parametrize("folds", ["0,0", "[]", "2"])
def test_f042_folds_are_named_once_each(folds, run, capsys, monkeypatch):
    no_forwards(monkeypatch)
    assert predict(run, "--folds", folds) == 2
    assert "--folds" in capsys.readouterr().err


def retrain(run: Path) -> None:
    """Another network takes the place of fold 0's, as `fit --resume` makes it after the fold's deletion."""
    for name in ("weights.safetensors", "oof.csv", "result.json"):
        shutil.copy(run / "fold_1" / name, run / "fold_0" / name)
        shutil.copy(run / "fold_1" / ".commits" / f"{name}.json", run / "fold_0" / ".commits" / f"{name}.json")


def test_f042_predictions_of_other_weights_are_refused(run, capsys, tmp_path):
    assert predict(run, "--output", str(tmp_path / "p.csv")) == 0
    before = (run / "submission.csv").read_bytes()
    retrain(run)
    for words in (["submit"], ["report"], ["submit", "--predictions", str(tmp_path / "p.csv")]):
        assert main([words[0], str(run), *words[1:]]) == 2
        assert "other weights than" in capsys.readouterr().err
    assert (run / "submission.csv").read_bytes() == before
    assert predict(run) == 0
    assert main(["submit", str(run)]) == 0
    shutil.rmtree(run / "fold_0")
    assert main(["submit", str(run)]) == 2
    assert "fold_0" in capsys.readouterr().err


def test_f042_predictions_that_an_interrupted_predict_left_are_refused(run, capsys):
    path = run / "test_predictions.made_from.json"
    made_from = json.loads(path.read_text())
    path.write_text(json.dumps(made_from | {"sha256": "0" * 64}))  # of the predictions before
    assert main(["submit", str(run)]) == 2
    assert "does not say what it was made with" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "submit", "report"])
def test_f042_nobody_works_on_a_run_that_another_process_changes(command, run, capsys, monkeypatch):
    no_forwards(monkeypatch)
    with hold(Run(run).lock):
        assert main([command, str(run)]) == 2
    assert "is in use by process" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "submit", "report"])
def test_f042_a_run_cannot_be_overwritten_while_it_is_read(command, run, monkeypatch, capsys, tmp_path):
    """`fit --overwrite` starts in the middle of the command."""
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"runs": str(run.parent)}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(config))
    codes = []
    opened = Run.read_schema if command != "report" else Run.read_config

    def start_fit(self: Run) -> object:
        codes.append(main(["fit", "--config", str(tmp_path / "again.yaml"), "--overwrite"]))
        return opened(self)

    monkeypatch.setattr(Run, opened.__name__, start_fit)
    options = ["--device", "cpu"] if command == "predict" else []
    assert main([command, str(run), *options]) == 0
    assert set(codes) == {2}
    assert "is in use by process" in capsys.readouterr().err


def make_foreign(run: Path, tmp_path: Path, command: str) -> dict[str, Path]:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    return {
        "weights": run / "fold_0" / "weights.safetensors",
        "config": run / "config.yaml",
        "out-of-fold": run / "oof.csv",
        "the other command's": run / ("submission.csv" if command == "predict" else "test_predictions.csv"),
        "a file": tmp_path / "notes.txt",
        "a folder": tmp_path / "folder",
        "below a file": tmp_path / "notes.txt" / "p.csv",
        "no such disk": Path("/proc/nowhere/p.csv"),
    }


FOREIGN = [
    "weights",
    "config",
    "out-of-fold",
    "the other command's",
    "a file",
    "a folder",
    "below a file",
    "no such disk",
]


@pytest.mark.parametrize("where", FOREIGN)
@pytest.mark.parametrize("command", ["predict", "submit"])
def test_f052_an_output_that_is_somebody_elses_is_refused_before_the_first_forward(
    command, where, run, tmp_path, capsys, monkeypatch
):
    no_forwards(monkeypatch)
    path = make_foreign(run, tmp_path, command)[where]
    before = path.read_bytes() if path.is_file() else None
    assert main([command, str(run), "--output", str(path)]) == 2
    assert str(path) in capsys.readouterr().err or where in ("below a file", "no such disk")
    assert (path.read_bytes() if path.is_file() else None) == before


def test_f052_an_output_may_be_made_again_and_leaves_no_hidden_folder(run, tmp_path, capsys):
    output = tmp_path / "out" / "p.csv"
    for _ in range(2):
        assert predict(run, "--output", str(output)) == 0
    assert {path.name for path in output.parent.iterdir()} == {"p.csv", "p.made_from.json"}
    output.write_text("edited")
    assert predict(run, "--output", str(output)) == 2
    assert "not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "submit"])
def test_an_output_is_named_as_a_table_so_that_its_record_is_its_own(command, run, tmp_path, capsys):
    """The records of p.csv and p.txt would be one file, and each would be taken for the other's."""
    assert main([command, str(run), "--output", str(tmp_path / "p.txt")]) == 2
    assert f"--output {tmp_path / 'p.txt'}: `swinft {command}` writes a table. Name it {tmp_path / 'p.csv'}." in (
        capsys.readouterr().err
    )
    assert not list(tmp_path.glob("p*"))


REFUSED = {
    "predict": ["--test", "nowhere.csv", "--output", "NEW/p.csv"],
    "submit": ["--predictions", "nowhere.csv", "--output", "NEW/s.csv"],
    "explain": ["--ids", "nobody", "--folder", "NEW"],
    "embed": ["--root", "nowhere"],
    "export": ["--fold", "0", "--to", "onnx", "--output", "NEW/model.onnx"],
}


@pytest.mark.parametrize("command", REFUSED)
def test_a_command_that_refuses_leaves_no_folder(command, run, tmp_path, capsys, monkeypatch):
    def cannot(*given):
        raise InputError("this network cannot be exported")

    monkeypatch.setattr("swinft.run.export.export_net", cannot)
    (run.parent / ".locks").mkdir(exist_ok=True)
    before = {path for path in tmp_path.rglob("*") if path.is_dir()}
    words = [word.replace("NEW", str(tmp_path / "new" / "deep")) for word in REFUSED[command]]
    assert main([command, str(run), *words]) in (1, 2)
    assert capsys.readouterr().err
    assert {path for path in tmp_path.rglob("*") if path.is_dir()} == before


def test_f120_the_next_step_submits_what_was_predicted(run, tmp_path, capsys):
    output = tmp_path / "p.csv"
    assert predict(run, "--views", "hflip", "--output", str(output)) == 0
    words = capsys.readouterr().out.rpartition("next: swinft ")[2].split()
    assert words == ["submit", str(run), "--predictions", str(output)]
    assert main([*words, "--output", str(tmp_path / "s.csv")]) == 0
    assert "views hflip" in capsys.readouterr().out


def read_only(monkeypatch, folder: Path) -> None:
    """Makes every write below a folder fail, as on a disk that is mounted for reading; a superuser's chmod would not."""
    import errno
    import os

    real_open, real_mkdir = Path.open, Path.mkdir

    def refuse(path: Path) -> None:
        if Path(os.path.abspath(path)).is_relative_to(folder):
            raise OSError(errno.EROFS, "Read-only file system", str(path))

    def opened(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        if set(mode) & set("wxa+"):
            refuse(self)
        return real_open(self, mode, *args, **kwargs)

    def mkdir(self: Path, *args: object, **kwargs: object) -> None:
        if not self.is_dir():
            refuse(self)
        real_mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(Path, "mkdir", mkdir)


def test_f043_a_run_on_a_read_only_disk_is_predicted_and_submitted_elsewhere(run, tmp_path, capsys, monkeypatch):
    predictions, submission = tmp_path / "p.csv", tmp_path / "s.csv"
    with monkeypatch.context() as patch:
        read_only(patch, run.parent)
        no_forwards(patch)
        for command in ("predict", "submit"):
            assert main([command, str(run)]) == 2
            assert "Choose another path with --output" in capsys.readouterr().err
        assert main(["report", str(run)]) == 2
    read_only(monkeypatch, run.parent)
    assert predict(run, "--output", str(predictions)) == 0
    assert main(["submit", str(run), "--predictions", str(predictions), "--output", str(submission)]) == 0
    assert submission.read_bytes() == (run / "submission.csv").read_bytes()


def test_f043_the_advice_is_that_of_the_command_that_failed(tmp_path):
    from swinft.errors import StoreError
    from swinft.store import commit

    (tmp_path / "file").write_text("")
    for producer, advice in (("swinft fit", "--resume"), ("swinft predict", "run `swinft predict` again")):
        with pytest.raises(StoreError, match=advice):
            commit(tmp_path / "file" / "p.csv", b"", producer)


def test_f042_no_views_are_not_the_configs_views(run, capsys, monkeypatch):
    no_forwards(monkeypatch)
    assert predict(run, "--views", "[]") == 2
    assert "name at least one view" in capsys.readouterr().err
