"""Keys of a config: every one acts or errors."""

import re

import pytest
import yaml

from swinft.cli import main
from swinft.run.config.sections import MANAGED_TRAINER_KEYS
from tests.conftest import ROOT, tiny_config, write_config

CONFIGS = sorted(ROOT.glob("configs/**/*.yaml"))


def test_there_are_configs():
    assert len(CONFIGS) >= 14


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_parses_and_its_header_shows_its_command(path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(path), "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == path.stem
    assert f"#   swinft fit --config {path.relative_to(ROOT)}\n" in path.read_text()


@pytest.mark.parametrize("flags", ["", "=skip_default", "=skip_unset"])
def test_a_printed_config_can_be_read_again_and_is_the_same(flags, competition, tmp_path, capsys):
    path, printed = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path)), tmp_path / "printed.yaml"
    texts = []
    for file in (path, printed):
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", str(file), f"--print_config{flags}"])
        assert stop.value.code == 0
        texts.append(capsys.readouterr().out)
        printed.write_text(texts[-1])
    assert texts[0] == texts[1]
    assert main(["check", "--config", str(printed)]) == 0


def test_all_wrong_keys_are_listed_with_file_line_and_the_nearest_key(competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path, **{"data.imge_size": 32, "model.optim.rl": 1, "trainr": 1})
    path = write_config(tmp_path / "c.yaml", config)
    assert main(["fit", "--config", str(path)]) == 2
    err = capsys.readouterr().err
    for key, near in [
        ("data.imge_size", "data.image_size"),
        ("model.optim.rl", "model.optim.lr"),
        ("trainr", "trainer"),
    ]:
        line = next(
            i for i, text in enumerate(path.read_text().splitlines(), 1) if text.strip().startswith(key.split(".")[-1])
        )
        assert f"{path}:{line}: unknown key '{key}'. Did you mean '{near}'?" in err
    assert not (tmp_path / "tiny").exists()


def test_a_doubled_key_is_an_error(competition, tmp_path, capsys):
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path))
    path.write_text(path.read_text() + "seed: 1\nseed: 2\n")
    assert main(["fit", "--config", str(path)]) == 2
    assert "key 'seed' is given twice" in capsys.readouterr().err


@pytest.mark.parametrize("key", sorted(MANAGED_TRAINER_KEYS))
def test_f107_a_trainer_key_that_swinft_decides_itself_is_named_as_such(key, competition, tmp_path, capsys):
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **{f"trainer.{key}": 1}))
    assert main(["fit", "--config", str(path)]) == 2
    assert f"key 'trainer.{key}': swinft sets this itself: {MANAGED_TRAINER_KEYS[key]}" in capsys.readouterr().err
    assert main(["fit", "--config", str(path), f"--trainer.{key}", "1"]) == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--model.bakbone", "resnet50"], "unknown option '--model.bakbone'. Did you mean 'model.backbone'?"),
        (["--model.head.smoothing", "0.1"], "the class has no argument 'smoothing'"),
        (["--trainer.max_epochs", "many"], "trainer.max_epochs"),
        (["--model.backbone", "swin_tiny_patch4_windw7_224"], "swin_tiny_patch4_window7_224"),
        (["--model.backbone", "torch.nn.Linear"], "no model 'torch.nn.Linear'"),
        (["--model.backbone", "os.path"], "'os.path' is not in a trusted package"),
        (["--model.backbone", "swin_tiny_patch4_window7_224.ms_in22", "--model.pretrained", "true"], "ms_in22k"),
        (["--model.metrics", "[acuracy]"], "Did you mean 'accuracy'?"),
        (["--model.head", "swinft.RegressionHead"], "data.target_kind is 'classification'"),
        (["--predict.views", "[hflop]"], "hflip"),
        (["--predict.views", "[rot90]", "--data.image_size", "[32,64]"], "swap height and width"),
        (["--fold", "7"], "the folds are 0 to 1"),
        (["--model.pretrained", "true"], "Download model.safetensors of 'timm/swin_tiny_patch4_window7_224.ms_in1k'"),
        (["--model.pretrained", "nowhere.pth"], "no file 'nowhere.pth'"),
        (["--model.ema_decay", "1"], "ema_decay is 1.0"),
    ],
    ids=lambda value: value[0].removeprefix("--") + value[1] if isinstance(value, list) else "",
)
def test_a_wrong_option_is_refused_before_a_run_folder_exists(option, message, competition, tmp_path, capsys):
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["fit", "--config", str(path), *option]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs" / "tiny").exists()


def test_a_wrong_argument_of_a_head_suggests_the_nearest(competition, tmp_path, capsys):
    head = {"class_path": "swinft.ClassificationHead", "init_args": {"smoothing": 0.1}}
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"model.head": head}))
    assert main(["fit", "--config", str(path)]) == 2
    assert "has no argument 'smoothing'. Did you mean 'label_smoothing'?" in capsys.readouterr().err


def test_a_missing_config_suggests_the_nearest(capsys):
    assert main(["fit", "--config", str(ROOT / "configs" / "petfnder.yaml")]) == 2
    assert re.search(r"Did you mean '.*petfinder.yaml'\?", capsys.readouterr().err)


def test_missing_competition_data_says_which_command_gets_it_and_where_it_goes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(ROOT / "configs" / "petfinder.yaml")]) == 2
    err = capsys.readouterr().err
    assert "swinft download petfinder-pawpularity-score" in err
    assert "data/petfinder-pawpularity-score/train.csv" in err
