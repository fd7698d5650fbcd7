"""What the command line prints and takes: counts, help, flags, pairs."""

import re

import pytest
import yaml

from swinft.cli import main
from swinft.errors import number_of
from swinft.model.task import FineTuneTask
from tests.conftest import tiny_config, write_config

TYPES = r"Union|Optional|Literal|list\[|dict\[| \| |NoneType|\bint\b|\bstr\b|\bfloat\b"


def test_a_count_has_the_right_noun():
    assert number_of(1, "image") == "1 image"
    assert number_of(0, "image") == "0 images"
    assert number_of(1024, "batch", "batches") == "1,024 batches"
    assert number_of(1, "GPU", verb="is") == "is 1 GPU"
    assert number_of(2, "GPU", verb="is") == "are 2 GPUs"


@pytest.mark.parametrize("command", ["predict", "submit", "report", "cache", "metrics"])
def test_help_speaks_of_what_is_typed(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert not re.search(TYPES, out)
    assert "default: null" not in out


def test_help_names_choices(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "Test-time augmentations: identity, hflip, " in out
    assert "(one or several, separated by commas: text)" in out
    assert "(a whole number or auto)" in out
    assert "(true, false or auto)" in out
    assert "--views VIEWS Test-time" in out  # and no --views+


@pytest.mark.parametrize("words", [["--dry-run"], ["--dry-run", "true"], ["--dry-run=true"]])
def test_dry_run_is_a_flag(words, tiny_run, tmp_path):
    assert main(["submit", str(tiny_run), *words, "--output", str(tmp_path / "s.csv")]) == 0
    assert not (tmp_path / "s.csv").exists()


def test_dry_run_can_be_switched_off(tiny_run, tmp_path):
    assert main(["submit", str(tiny_run), "--dry-run", "false", "--output", str(tmp_path / "s.csv")]) == 0
    assert (tmp_path / "s.csv").exists()


def printed(competition, tmp_path, capsys, *words: str) -> dict:
    """The resolved config of `check` with options."""
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    with pytest.raises(SystemExit):
        main(["check", "--config", str(config), *words, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    "words", [["--model.optim.betas", "0,0.5"], ["--model.optim.betas=0,0.5"], ["--model.optim.betas", "[0,0.5]"]]
)
def test_a_pair_is_written_with_and_without_brackets(words, competition, tmp_path, capsys):
    assert printed(competition, tmp_path, capsys, *words)["model"]["optim"]["betas"] == [0, 0.5]


def test_a_pair_the_wrong_way_round_is_refused(competition, tmp_path, capsys):
    changes = {"data.target": "brightness", "data.target_kind": "regression"}
    sample = tmp_path / "sample.csv"
    sample.write_text("id,brightness\n" + "".join(f"t{i},0.5\n" for i in range(1, 7)))
    settings = tiny_config(competition, tmp_path / "runs", **changes)
    settings["data"]["sample_submission"] = str(sample)
    settings["model"]["head"] = {"class_path": "swinft.RegressionHead"}
    config = write_config(tmp_path / "c.yaml", settings)
    assert main(["check", "--config", str(config), "--submission.rules", "{clip: {min: 1, max: 0}}"]) == 2
    assert re.search(r"clip.*(smallest|lower|below|above)", capsys.readouterr().err)


def test_a_cache_folder_that_is_a_file_is_refused(competition, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["check", "--config", str(config), "--data.loading.cache_dir", str(tmp_path / "file")]) == 2
    assert f"data.loading.cache_dir is {tmp_path / 'file'}, which is a file" in capsys.readouterr().err


@pytest.mark.parametrize("fold", ["99", "-1"])
def test_a_fold_that_is_not_there_is_refused_before_images_are_looked_at(
    fold, competition, tmp_path, capsys, monkeypatch
):
    looks = []
    monkeypatch.setattr("swinft.data.datamodule.CSVDataModule.check", lambda *_: looks.append(1))
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["fit", "--config", str(config), f"--fold={fold}"]) == 2
    assert f"--fold {fold}: the folds are 0 to 1." in capsys.readouterr().err
    folds = tmp_path / "folds.csv"
    folds.write_text("id,fold\n" + "".join(f"{i:03d},{i // 3 % 3}\n" for i in range(24)))
    words = ["--data.folds.file", str(folds), "--data.folds.num", "null"]
    assert main(["fit", "--config", str(config), f"--fold={fold}", *words]) == 2
    assert f"--fold {fold}: the folds are 0 to 2." in capsys.readouterr().err
    assert not looks
    assert not (tmp_path / "runs" / ".locks").exists()


def test_an_interrupt_inside_a_step_ends_with_130(competition, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(FineTuneTask, "training_step", interrupted)
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 130
    assert "swinft: interrupted" in capsys.readouterr().err


def test_metadata_of_too_many_categories_is_refused(competition, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swinft.data.features.MAX_BYTES", 24 * 24 * 4 - 1)
    settings = tiny_config(competition, tmp_path / "runs", **{"data.columns.categorical_features": ["brightness"]})
    config = write_config(tmp_path / "c.yaml", settings)
    assert main(["check", "--config", str(config)]) == 2
    err = capsys.readouterr().err
    assert "the column has 24 categories" in err
    assert "leave the column out of data.columns.categorical_features" in err
