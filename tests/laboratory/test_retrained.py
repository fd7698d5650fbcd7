"""`swinft lab act` and `swinft lab mixer`: a swap changes what it says, and a training alike is compared on the same rows."""

import csv
import shutil

import pytest

import swinft
from swinft.cli import main
from tests.conftest import in_this_process
from tests.laboratory.test_command import files


def lines_of(folder, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "lab" / name / f"{name}.csv").open()))


def test_an_equal_activation_changes_nothing_and_is_not_trained_again(run, without_figures):
    assert main(["lab", "act", str(run), "--device", "cpu", "--rows", "all", "--activations", "[gelu]"]) == 0
    (line,) = lines_of(run, "act")
    assert (line["activation"], line["how"], line["replaced"]) == ("gelu", "swapped", "2")
    assert float(line["gain"]) == 0
    assert line["score"] == line["base"]


@pytest.mark.slow
def test_an_activation_is_trained_alike_and_compared(run, monkeypatch, without_figures):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    words = ["lab", "act", str(run), "--device", "cpu", "--activations", "[relu]"]
    assert main(words) == 0
    swapped, trained = lines_of(run, "act")
    assert (swapped["how"], trained["how"]) == ("swapped", "trained")
    (made,) = (run / "lab" / "act" / "runs").glob("relu-*")
    other = swinft.open_run(made)
    assert other.config["model"]["backbone_args"]["act_layer"] == "relu"
    table = swinft.compare([run, made]).table["runs"]
    assert float(trained["score"]) == pytest.approx(table[1]["score"])
    assert float(trained["gain"]) == pytest.approx(table[1]["gain"])
    assert (run / "folds.csv").read_bytes() == (made / "folds.csv").read_bytes()
    # Nothing is trained again, also if the measured steps are lost.
    before = files(run / "lab" / "act")
    shutil.rmtree(run / "lab" / "act" / "steps")
    monkeypatch.setattr("swinft.laboratory.retrained.fit", None)
    assert main(words) == 0
    assert files(run / "lab" / "act") == before


@pytest.mark.slow
def test_a_mixer_is_trained_alike_and_compared(run, monkeypatch, without_figures):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    assert main(["lab", "mixer", str(run), "--device", "cpu"]) == 0
    swin, mixer = lines_of(run, "mixer")
    (made,) = (run / "lab" / "mixer" / "runs").glob("mixer-*")
    net = swinft.open_run(made).network(0)
    assert sum(p.numel() for p in net.backbone.parameters()) == int(mixer["parameters"])
    assert type(net.backbone.model).__name__ == "SwinMLP"
    own = swinft.open_run(run).network(0).backbone.model
    pairs = zip(own.layers, net.backbone.model.layers, strict=True)
    assert all(a.blocks[0].window_size == b.blocks[0].window_size for a, b in pairs)
    assert float(mixer["base"]) == float(swin["score"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["act", "--activations", "[rellu]"], "must be one of relu"),
        (["act", "--activations", "[relu,relu]"], "name at least one, each once"),
        (["mixer", "--head_channels", "5"], "head_channels is 5; it must divide the channels of every stage, [12, 24]"),
    ],
)
def test_wrong_options_name_the_fix(words, message, tiny_run, capsys):
    assert main(["lab", words[0], str(tiny_run), "--device", "cpu", *words[1:]]) == 2
    assert message in capsys.readouterr().err


def test_half_a_run_is_refused(run, capsys):
    (run / "fold_1" / "result.json").unlink()
    assert main(["lab", "act", str(run), "--device", "cpu"]) == 2
    assert "is not finished: run `" in capsys.readouterr().err
