"""Each instrument on networks whose answer is known without it."""

import json

import numpy as np
import pytest
import timm
import torch
from torch import nn

from swinft.cli import main
from swinft.laboratory.corruptions import CORRUPTIONS, band_noise, corrupted
from swinft.laboratory.frequency import FROM, Frequency
from swinft.laboratory.layers import Layers
from swinft.laboratory.lesion import Lesion
from swinft.laboratory.options import CORRUPTION_NAMES, LabOptions, LesionSettings, NoSettings
from swinft.laboratory.subjects import RunSubject
from swinft.laboratory.variance import Variance
from swinft.run.fold_files import Fold
from tests.json_documents import document_of

SIDE = 32
BOX = np.full((3, 3), 1 / 9)
SHARP = 2 * np.eye(9)[4].reshape(3, 3) - BOX


class Filter(nn.Module):
    """A block that is one circular filter of each channel."""

    drop_path = None

    def __init__(self, kernel: np.ndarray) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False, padding_mode="circular")
        self.conv.weight.data[:] = torch.from_numpy(kernel).float()

    def forward(self, x):
        return self.conv(x)


class Branch(nn.Module):
    """A residual block with a given branch."""

    def __init__(self, branch) -> None:
        super().__init__()
        self.branch, self.drop_path = branch, nn.Identity()

    def forward(self, x):
        return x + self.drop_path(self.branch(x))


class Network(nn.Module):
    """Blocks as a network of the laboratory: `predict` gives probabilities of three classes."""

    def __init__(self, blocks, read=lambda x: x.mean((2, 3))) -> None:
        super().__init__()
        self.model, self.read = nn.Sequential(*blocks), read

    @property
    def backbone(self):
        return self

    def forward(self, image, **_):
        return self.read(self.model(image.float()))

    def predict(self, image, **_):
        return self(image).softmax(1)


def subject_with(run, network, images=None) -> RunSubject:
    """A run with another network, and other images if they are given."""
    subject = RunSubject(str(run), LabOptions(rows=12, device="cpu"))
    subject.__dict__["net"] = network.eval()
    if images is not None:
        subject.__dict__["batches"] = [{"image": part, "row": torch.arange(len(part))} for part in images.split(5)]
    return subject


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(100, 20, (12, 3, SIDE, SIDE))).float()


@pytest.mark.parametrize(("kernel", "is_low"), [(BOX, True), (SHARP, False)])
def test_the_spectrum_of_a_filter_is_that_of_its_kernel(kernel, is_low, tiny_run, noise):
    subject = subject_with(tiny_run, Network([Filter(kernel), Filter(kernel)]), noise)
    lines = Frequency(NoSettings()).measure(subject, "rows")
    change = next(line["change"] for line in lines if line["number"] == 2)
    padded = np.zeros((SIDE, SIDE))
    padded[:3, :3] = kernel
    response = np.log(np.abs(np.fft.fft2(padded)))
    places = [k for k in range(SIDE // 2 + 1) if 2 * k / SIDE >= FROM]
    assert change == pytest.approx(np.mean([response[k, k] for k in places]) - response[0, 0], abs=0.01)
    assert (change < 0) == is_low
    of_filter = [line for line in lines if line["number"] == 1]
    assert [line["frequency"] for line in of_filter] == pytest.approx([2 * k / SIDE for k in range(SIDE // 2 + 1)])
    summary = Frequency(NoSettings()).summarize(lines)
    assert (
        Frequency(NoSettings())
        .notes(summary)[0]
        .startswith(f"convolution layers are {'low' if is_low else 'high'}-pass")
    )


def test_the_mean_of_n_positions_has_an_nth_of_the_variance(tiny_run, noise):
    subject = subject_with(tiny_run, Network([Filter(BOX), Filter(np.eye(9)[0].reshape(3, 3))]), noise)
    image, mean, moved = Variance(NoSettings()).measure(subject, "rows")
    assert image["positions"] == pytest.approx(noise.numpy().var((2, 3)).mean(), rel=1e-6)
    assert image["rows"] == pytest.approx(noise.numpy().var(0).mean(), rel=1e-5)
    assert mean["ratio"] == pytest.approx(1 / 9, rel=0.05)
    assert moved["ratio"] == pytest.approx(1, rel=1e-5)  # positions moved as a whole vary as before


def test_a_block_that_adds_nothing_costs_nothing_and_one_that_carries_everything_all(tiny_run):
    """The stem is zero in the channels that are read; the second block copies the colours there."""

    def read(x):
        return x[:, 3:].mean((2, 3)) / 20

    class Stem(nn.Module):
        def forward(self, x):
            return torch.cat([x, torch.zeros_like(x)], 1)

    class Copy(nn.Module):
        def forward(self, x):
            return torch.cat([torch.zeros_like(x[:, :3]), x[:, :3].flip(1)], 1)

    class Nothing(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    blocks = [Stem(), Branch(Nothing()), Branch(Copy()), Branch(Nothing())]
    subject = subject_with(tiny_run, Network(blocks, read))
    lesion = Lesion(LesionSettings())
    steps = lesion.steps(subject)
    assert steps[0] == "intact"
    lines = {step: lesion.measure(subject, step)[0] for step in steps}
    worth = {step: line["loss"] for step, line in lines.items()}
    targets = subject.data.targets[subject.rows]
    constant = np.bincount(targets, minlength=3)[0] / len(targets)  # equal probabilities: the first class
    base = lines["intact"]["accuracy"]
    assert base != constant
    assert lines["remove 2"]["accuracy"] == constant
    assert worth["remove 2"] == pytest.approx(base - constant)
    for step in ("remove 1", "remove 3", "shuffle 1", "shuffle 3"):
        assert (worth[step], lines[step]["changed"]) == (0, 0)
    assert lines["shuffle 2"]["changed"] == pytest.approx(0, abs=1e-6)  # the mean has no order


SMALL = {
    "swin_tiny_patch4_window7_224": {"embed_dim": 12, "depths": [2, 1], "num_heads": [1, 2], "window_size": 4},
    "swinv2_tiny_window8_256": {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    "vit_tiny_patch16_224": {"embed_dim": 12, "depth": 2, "num_heads": 2, "patch_size": 8},
    "resnet18": {"channels": [4, 4, 8, 8], "layers": [2, 1, 1, 1]},
    "mixer_s16_224": {},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [4, 4, 8, 8]},
}
KINDS = {
    "swin_tiny_patch4_window7_224": "image stem msa mlp msa mlp downsample msa mlp",
    "swinv2_tiny_window8_256": "image stem msa mlp downsample msa mlp",
    "vit_tiny_patch16_224": "image stem msa mlp msa mlp",
    "resnet18": "image stem conv conv conv conv conv",
    "mixer_s16_224": "image stem" + 8 * " mixer mlp",
    "convnext_atto": "image stem conv downsample conv downsample conv downsample conv",
}


@pytest.mark.parametrize("name", SMALL)
def test_the_layers_of_a_network_are_its_feature_maps(name):
    is_resizable = name.startswith(("swin", "vit", "mixer"))
    model = timm.create_model(name, num_classes=0, **SMALL[name], **({"img_size": 32} if is_resizable else {})).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        whole = model(image)
        layers = Layers(model, lambda: model(image))
        assert " ".join(layer.kind for layer in layers.layers) == KINDS[name]
        maps = {}
        with layers.watched(lambda layer, features: maps.__setitem__(layer.number, features.clone())):
            assert torch.equal(model(image), whole)
        assert {k: tuple(each.shape[1:]) for k, each in maps.items()} == {
            layer.number: (layer.channels, layer.height, layer.width) for layer in layers.layers
        }
        # The last layer is what timm returns as its last features, before the norm.
        last = model.forward_intermediates(image, indices=1, norm=False, intermediates_only=True)[-1]
        assert torch.allclose(maps[layers.layers[-1].number], last, atol=1e-5)
        for layer in layers.layers:
            before = layers.layers[layer.number - 1]
            if layer.branch is None or (layer.channels, layer.height) != (before.channels, before.height):
                continue
            seen = {}
            with (
                layers.changed(layer, torch.zeros_like),
                layers.watched(lambda each, features, seen=seen: seen.__setitem__(each.number, features.clone())),
            ):
                model(image)
            # Without its branch, a layer is the one before; a ResNet cuts off what is below 0.
            expected = maps[before.number].relu() if name == "resnet18" else maps[before.number]
            assert torch.allclose(seen[layer.number], expected, atol=1e-6), layer
        assert torch.equal(model(image), whole)


@pytest.mark.parametrize("name", CORRUPTION_NAMES)
@pytest.mark.parametrize("shape", [(40, 33, 3), (9, 21, 1), (8, 8, 6)])
def test_corruptions_keep_the_shape_and_grow_with_the_severity(name, shape):
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(0, 1, shape), 0), 1)
    pixels = (127 + 100 * smooth / np.abs(smooth).max()).astype(np.float32)
    found = [corrupted(pixels, name, severity, np.random.default_rng(1)) for severity in range(6)]
    assert all(each.shape == shape and each.dtype == np.float32 and np.isfinite(each).all() for each in found)
    assert all(each.min() >= 0 and each.max() <= 255 for each in found)
    assert np.array_equal(found[0], pixels)
    assert np.array_equal(found[3], corrupted(pixels, name, 3, np.random.default_rng(1)))
    if min(shape) > 8 and shape[2] == 3:
        changes = [float(np.abs(each - pixels).mean()) for each in found]
        assert changes[5] > changes[1] > 0
        if name not in ("shift", "rotation", "elastic"):
            assert changes == sorted(changes)


def test_the_names_of_corruptions_are_those_that_there_are():
    assert tuple(CORRUPTIONS) == CORRUPTION_NAMES
    assert all(len(each.levels) == 5 for each in CORRUPTIONS.values())


def test_band_noise_has_its_frequencies_only_and_the_same_deviation():
    rng = np.random.default_rng(0)
    radius = 2 * np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(24)[None])
    for low in (0.0, 0.4, 0.9):
        noise = band_noise((32, 24, 3), low, low + 0.1, 25.5, rng)
        power = (np.abs(np.fft.fft2(noise, axes=(0, 1))) ** 2).sum(2)
        inside = (radius >= low) & ((radius < low + 0.1) | (low + 0.1 >= 1))
        assert power[inside].sum() / power.sum() > 0.999999
        assert np.sqrt((noise**2).mean()) == pytest.approx(25.5, rel=1e-5)


def test_severity_zero_is_the_out_of_fold_score(run, without_figures, capsys):
    words = ["--rows", "all", "--corruptions", "jpeg,occlusion", "--severities", "5", "--bands", "1", "--device", "cpu"]
    found = document_of(capsys, "lab", "robust", str(run), *words, "--fold", "1")["subjects"]["tiny"]
    scores = Fold(run / "fold_1", 1).read_result()["oof"]
    assert {name: found[f"{name}, clean"] for name in scores} == pytest.approx(scores, rel=1e-6)
    assert found["largest difference from oof.csv"] < 1e-6
    assert found["steps"] == 4


def test_a_killed_measurement_continues_with_the_same_bytes(run, tmp_path, without_figures, monkeypatch):
    words = [str(run), "--corruptions", "gaussian_noise,jpeg", "--severities", "2", "--bands", "0", "--device", "cpu"]
    assert main(["lab", "robust", *words, "--output", str(tmp_path / "whole")]) == 0
    assert main(["lab", "robust", *words, "--output", str(tmp_path / "parts"), "--seconds", "0.0000001"]) == 0
    assert not json.loads((tmp_path / "parts" / "robust.json").read_text())["complete"]
    from swinft.laboratory.robust import Robust

    measure, left = Robust.measure, [2]

    def dying(self, subject, step):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return measure(self, subject, step)

    with monkeypatch.context() as patch:
        patch.setattr(Robust, "measure", dying)
        assert main(["lab", "robust", *words, "--output", str(tmp_path / "parts")]) == 130
    left[0] = 1  # one step is left
    monkeypatch.setattr(Robust, "measure", dying)
    assert main(["lab", "robust", *words, "--output", str(tmp_path / "parts")]) == 0

    def content(folder):
        paths = [path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_attention_of_windows_is_linear_and_global_attention_quadratic(run, without_figures, capsys):
    words = ["--sides", "32,64,128", "--repeats", "1", "--device", "cpu"]
    found = document_of(capsys, "lab", "scale", str(run), "vit_tiny_patch16_224", *words, "--output", str(run / "x"))
    swin, vit = found["subjects"]["tiny"], found["subjects"]["vit_tiny_patch16_224"]
    assert swin["exponent of MACs of attention"] == pytest.approx(1, abs=1e-6)
    assert swin["exponent of MACs"] == pytest.approx(1, abs=1e-3)
    lines = (run / "x" / "scale.csv").read_text().splitlines()[1:]
    attention = {(line.split(",")[0], int(line.split(",")[1])): int(line.split(",")[4]) for line in lines}
    # 2 M² h w C for each block of windows of 4; 2 N² C for each of 12 blocks with N patches and the class token.
    for side in (32, 64, 128):
        grid = side // 4
        assert attention["tiny", side] == 2 * 16 * grid**2 * 12 + 2 * 16 * (grid // 2) ** 2 * 24
        assert attention["vit_tiny_patch16_224", side] == 12 * 2 * ((side // 16) ** 2 + 1) ** 2 * 192
    assert vit["exponent of MACs of attention"] > 1.8
