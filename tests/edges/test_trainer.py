"""What a config asks of training: found wrong at `check` and before a run is frozen, or done as it says."""

import pytest

from swinft.cli import main
from tests.conftest import tiny_config, write_config


def ask(command, competition, tmp_path, *options, **changes) -> int:
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    return main([command, "--config", str(path), *options])


def left_behind(tmp_path) -> list[str]:
    return [path.name for path in (tmp_path / "runs").glob("*") if path.name != ".locks"]


WRONG = {
    "metric": (["--model.metrics", "[acuracy]"], "Did you mean 'accuracy'?"),
    "backbone": (["--model.backbone", "swin_tiny_patch4_windw7_224"], "swin_tiny_patch4_window7_224"),
    "weights": (["--model.pretrained", "nowhere.pth"], "no file 'nowhere.pth'"),
    "head": (["--model.head", "swinft.RegressionHead"], "data.target_kind is 'classification'"),
    "views": (["--predict.views", "[rot90]", "--data.image_size", "[32,64]"], "swap height and width"),
    "clipping": (["--trainer.gradient_clip_algorithm", "foo"], "foo"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=list(WRONG))
def test_f118_check_refuses_what_fit_refuses_with_the_same_words(options, message, competition, tmp_path, capsys):
    said = {}
    for command in ("check", "fit"):
        assert ask(command, competition, tmp_path, *options) == 2
        said[command] = capsys.readouterr().err.removeprefix(f"swinft {command}: ")
    assert message in said["check"]
    assert said["check"] == said["fit"]
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("option", [["--model.metrics", "[acuracy]"], ["--model.backbone", "nonsense"]])
def test_f082_a_wrong_network_is_found_before_an_image_is_opened(option, competition, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swinft.data.pictures.scan", lambda *_, **__: pytest.fail("an image was opened"))
    assert ask("check", competition, tmp_path, *option) == 2
    assert ask("fit", competition, tmp_path, *option) == 2
