"""`swinft lab landscape`: a quadratic that is known, the centre, directions whose filters have the network's norms."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

import swinft
from swinft.cli import main
from swinft.laboratory.hessian import NLL
from swinft.laboratory.landscape import Landscape, filter_normalised, nonconvex_share, surface
from swinft.laboratory.training_loss import TrainingLoss
from swinft.laboratory.training_options import LandscapeSettings
from tests.laboratory.test_command import files

QUICK = ["--device", "cpu", "--points", "5", "--training_rows", "12", "--mini_batch", "6"]


def table(folder) -> list[dict[str, float]]:
    path = folder / "lab" / "landscape" / "landscape.csv"
    return [{k: float(v) for k, v in line.items() if k != "subject"} for line in csv.DictReader(path.open())]


def test_the_centre_is_the_loss_and_the_weights_stay(run, without_figures):
    assert main(["lab", "landscape", str(run), *QUICK]) == 0
    lines = table(run)
    assert [(line["x"], line["y"]) for line in lines[:6]] == [
        (-1, -1),
        (-0.5, -1),
        (0, -1),
        (0.5, -1),
        (1, -1),
        (-1, -0.5),
    ]
    (centre,) = [line for line in lines if line["x"] == line["y"] == 0]
    assert (
        main(
            [
                "lab",
                "hessian",
                str(run),
                "--device",
                "cpu",
                "--mini_batch",
                "6",
                "--batches",
                "2",
                "--maxima",
                "1",
                "--lanczos_steps",
                "2",
            ]
        )
        == 0
    )
    hessian = csv.DictReader((run / "lab" / "hessian" / "hessian.csv").open())
    batches = {line["batch"]: float(line["nll"]) for line in hessian}
    assert centre["nll"] == pytest.approx(np.mean([*batches.values()]), rel=1e-6)
    net = swinft.open_run(run).network(0)
    decayed = sum(
        float(p.double().square().sum()) for n, p in net.named_parameters() if p.ndim > 1 and "bias_table" not in n
    )
    assert centre["nll_l2"] - centre["nll"] == pytest.approx(0.5 * 0.05 * decayed, rel=1e-6)
    summary = json.loads((run / "lab" / "landscape" / "landscape.json").read_text())["subjects"]["tiny"]
    assert summary[f"{NLL}: centre"] == pytest.approx(centre["nll"])
    assert summary[f"{NLL}: rise at 1"] > summary[f"{NLL}: rise at 0.5"] > 0


def test_the_landscape_of_a_quadratic_is_a_quadratic(run, monkeypatch, without_figures):
    """½ · ‖w − w₀‖² over directions d, e is ½ · (x² ‖d‖² + 2xy d·e + y² ‖e‖²)."""
    start: list[torch.Tensor] = []

    def quadratic(self, net, number):
        if not start:
            start.extend(p.detach().clone() for p in swinft.open_run(run).network(0).parameters())
        terms = [(p.double() - q.double()).square().sum() for p, q in zip(net.parameters(), start, strict=True)]
        return 0.5 * torch.stack(terms).sum()

    monkeypatch.setattr(TrainingLoss, "of", quadratic)
    assert main(["lab", "landscape", str(run), *QUICK, "--points", "3"]) == 0
    lines = table(run)
    (at_x,) = [line["nll"] for line in lines if (line["x"], line["y"]) == (1, 0)]
    (at_y,) = [line["nll"] for line in lines if (line["x"], line["y"]) == (0, 1)]
    (both,) = [line["nll"] for line in lines if (line["x"], line["y"]) == (1, 1)]
    moved = sum(float(p.double().square().sum()) for p in start if p.ndim > 1 and p.shape[0] != 49)
    tables = sum(float(p.double().square().sum()) for p in start if p.ndim > 1 and p.shape[0] == 49)
    assert tables > 0
    assert at_x == pytest.approx(0.5 * moved, rel=1e-4)  # each filter has moved by its own norm
    assert at_y == pytest.approx(0.5 * moved, rel=1e-4)
    cross = both - at_x - at_y
    for line in lines:
        x, y = line["x"], line["y"]
        assert line["nll"] == pytest.approx(x * x * at_x + y * y * at_y + x * y * cross, rel=1e-4, abs=1e-6)
    assert nonconvex_share(*surface(lines, "nll")) == 0


def test_the_share_that_is_not_convex():
    x = np.linspace(-1, 1, 21)
    bowl = x[:, None] ** 2 + x**2
    assert nonconvex_share(bowl, 0.1) == 0
    assert nonconvex_share(-bowl, 0.1) == 1
    assert nonconvex_share(x[:, None] * x, 0.1) == 1  # a saddle, whose own second differences are 0
    assert nonconvex_share(x[:, None] ** 2 + np.where(x < 0, 1, -1) * x**2, 0.1) == pytest.approx(0.5, abs=0.06)
    assert nonconvex_share(bowl[:2], 0.1) is None


def test_filters_have_the_norms_of_the_networks():
    torch.manual_seed(0)
    weight, direction = torch.randn(5, 3, 2, 2) * torch.arange(5.0).view(-1, 1, 1, 1), torch.randn(5, 3, 2, 2)
    found = filter_normalised(direction, weight)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
    torch.testing.assert_close(found[3] / found[3].norm(), direction[3] / direction[3].norm())


@pytest.mark.slow
def test_a_stopped_command_continues_with_the_same_bytes(run, tmp_path, monkeypatch, without_figures):
    other = shutil.copytree(run, tmp_path / "other" / "tiny")
    assert main(["lab", "landscape", str(run), *QUICK]) == 0
    measure, calls = Landscape.measure, []

    def killed(self, subject, step):
        calls.append(step)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(self, subject, step)

    monkeypatch.setattr(Landscape, "measure", killed)
    assert main(["lab", "landscape", str(other), *QUICK]) == 130
    assert main(["lab", "landscape", str(other), *QUICK]) == 0
    assert len(calls) == 6
    assert files(run / "lab") == files(other / "lab")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--points", "4"], "points is 4. Allowed: odd."),
        (["--span", "0"], "span is 0"),
        (["--training_rows", "8"], "training_rows is 8, less than the mini_batch of 32"),
    ],
)
def test_wrong_options_name_the_fix(words, message, tiny_run, capsys):
    assert main(["lab", "landscape", str(tiny_run), "--device", "cpu", *words]) == 2
    assert message in capsys.readouterr().err


def test_figures_also_of_a_grid_that_is_half_measured_and_a_loss_that_is_infinite():
    axis = [-1.0, 0.0, 1.0]
    lines = [{"x": x, "y": y, "nll": x * x + y * y, "nll_l2": x + 2 if x < 1 else None} for y in axis for x in axis]
    instrument = Landscape(LandscapeSettings(points=3))
    summary = instrument.summarize(lines)
    assert (summary["NLL: centre"], summary["NLL: rise at 1"]) == (0, pytest.approx(1.5))
    assert instrument.summarize(lines[:3])["NLL: centre"] is None
    assert instrument.notes(instrument.summarize(lines[:3])) == []
    assert len([drawing.svg() for drawing in instrument.figures({"one": lines, "half": lines[:6]})]) == 3
