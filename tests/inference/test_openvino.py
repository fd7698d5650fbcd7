"""Networks that OpenVINO has compiled predict what torch predicts."""

import os
import sys

import numpy as np
import openvino  # no importorskip: the `dev` extra brings it, and a skipped test would hide that it does not
import openvino_telemetry
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import swinft
from swinft.cli import main
from swinft.errors import InputError
from swinft.inference.openvino import TOLERANCES, compile_net
from swinft.inference.predictions import Predictions
from swinft.inference.predictor import predict_rows
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.network import ImageModel
from tests.conftest import TINY_SWIN

SIDE = 32
V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}


def make_net(name=V1, arguments=TINY_SWIN, head=swinft.ClassificationHead, num_metadata=0, **options):
    """A network with lively predictions: fresh heads answer nearly the same to every image."""
    torch.manual_seed(0)
    backbone = create_backbone(name, SIDE, pretrained=False, backbone_args=arguments, **options)
    net = ImageModel(backbone, head, num_outputs=3, num_metadata=num_metadata, metadata_hidden=8)
    nn.init.normal_(net.head.linear.weight, std=0.3)
    return net.eval()


def draw(num_images, num_metadata=0):
    images = torch.randint(0, 256, (num_images, 3, SIDE, SIDE), dtype=torch.uint8)
    return images, torch.randn(num_images, num_metadata) if num_metadata else None


def assert_same(net, compiled, images, features=None):
    with torch.inference_mode():
        torch.testing.assert_close(compiled.predict(images, features), net.predict(images, features))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (V1, TINY_SWIN),
        pytest.param(V2, TINY_SWIN, marks=pytest.mark.slow),
        ("convnext_atto", CONVNEXT),
        pytest.param("vit_tiny_patch16_224", VIT, marks=pytest.mark.slow),
        ("tinynet_e", None),  # the smallest EfficientNet
    ],
)
def test_families_predict_the_same_at_any_batch_size(name, arguments):
    net = make_net(name, arguments)
    compiled = compile_net(net, (SIDE, SIDE))
    assert compiled.deviation <= TOLERANCES["f32"]
    for num_images in (1, 2, 3, 7, 13):
        assert_same(net, compiled, *draw(num_images))


@pytest.mark.parametrize("head", [swinft.ClassificationHead, swinft.RegressionHead, swinft.MultilabelHead])
@pytest.mark.parametrize("num_metadata", [0, 2])
def test_heads_predict_in_the_competitions_units_with_and_without_metadata(head, num_metadata):
    net = make_net(head=head, num_metadata=num_metadata)
    if head is swinft.RegressionHead:
        net.head.initialize(torch.tensor([[10.0, 1000, 1], [20, 3000, 1], [60, 2000, 2]]))
    compiled = compile_net(net, (SIDE, SIDE))
    images, features = draw(5, num_metadata)
    assert_same(net, compiled, images, features)
    if features is not None:
        assert not torch.equal(compiled.predict(images, features), compiled.predict(images, features.flip(0)))


def test_pixels_may_be_fractions_turned_and_none():
    net = make_net()
    compiled = compile_net(net, (SIDE, SIDE))
    images, _ = draw(5)
    assert_same(net, compiled, images.float() * 0.937)
    assert_same(net, compiled, images.transpose(-2, -1))
    assert compiled.predict(images[:0]).shape == (0, 3)


def test_a_network_that_recomputes_its_activations_is_converted():
    compile_net(make_net(grad_checkpointing=True), (SIDE, SIDE))


def test_it_takes_a_networks_place_under_every_view_and_in_mixed_precision():
    net = make_net()
    compiled = compile_net(net, (SIDE, SIDE))
    images, _ = draw(7)
    rows = [{"image": image, "row": row if row < 6 else -1} for row, image in enumerate(images)]
    loader = DataLoader(rows, batch_size=4)
    views = ["identity", "hflip", "rot90", "scale"]
    expected_rows, expected = predict_rows([net, net], loader, views, torch.device("cpu"), "32-true")
    for precision in ("32-true", "bf16-mixed"):
        found_rows, found = predict_rows([compiled, net], loader, views, torch.device("cpu"), precision)
        assert found_rows.tolist() == expected_rows.tolist() == list(range(6))
        torch.testing.assert_close(found, expected, atol=1e-5 if precision == "32-true" else 1e-2, rtol=0)


def test_bf16_is_held_to_its_own_tolerance():
    net = make_net()
    compiled = compile_net(net, (SIDE, SIDE), precision="bf16", num_threads=1)
    assert compiled.deviation <= TOLERANCES["bf16"]
    assert compiled.predict(draw(2)[0]).dtype == torch.float32


class BakedIn(swinft.ClassificationHead):
    """Decides by the number of images, which tracing turns into a constant."""

    def decode(self, logits):
        return super().decode(logits if len(logits) == 2 else 1.01 * logits)


class NotFinite(swinft.ClassificationHead):
    def decode(self, logits):
        return super().decode(logits * float("nan"))


class Unknown(swinft.ClassificationHead):
    def decode(self, logits):
        return torch.linalg.eigvals(logits.mT @ logits).real.expand(len(logits), -1)


@pytest.mark.parametrize("head", [BakedIn, NotFinite])
def test_a_conversion_that_predicts_something_else_is_refused(head):
    with pytest.raises(InputError, match=r"differ from torch's by .* of their range; 1e-04 .* `--backend torch`"):
        compile_net(make_net(head=head), (SIDE, SIDE))


def test_wrong_weights_are_refused(monkeypatch):
    net, other = make_net(), make_net()
    with torch.no_grad():
        other.head.linear.bias[0] += 0.01
    convert = openvino.convert_model
    monkeypatch.setattr(openvino, "convert_model", lambda module, **given: convert(type(module)(other), **given))
    with pytest.raises(InputError, match="differ from torch's"):
        compile_net(net, (SIDE, SIDE))


def test_a_network_that_cannot_be_converted_is_refused():
    with pytest.raises(InputError, match=r"OpenVINO cannot convert this network: .* `--backend torch`"):
        compile_net(make_net(head=Unknown), (SIDE, SIDE))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'swinft\[openvino\]'"):
        compile_net(make_net(), (SIDE, SIDE))


def test_nothing_is_reported_to_openvinos_makers(monkeypatch, tmp_path):
    compile_net(make_net(), (SIDE, SIDE))
    reporter = openvino_telemetry.Telemetry()
    reporter.backend.app_name = "not asked yet"  # or the answer of the first conversion would be kept
    reports = []
    monkeypatch.setattr(type(reporter.sender), "send", lambda _, *report: reports.append(report))
    monkeypatch.setenv("HOME", str(tmp_path))  # where it keeps the consent that it takes for granted
    monkeypatch.delenv("CI", raising=False)
    compile_net(make_net(), (SIDE, SIDE))
    assert reports == []
    assert list(tmp_path.iterdir()) == []
    assert "CI" not in os.environ


def test_a_run_predicts_with_openvino_what_it_predicts_with_torch(tiny_run, tmp_path, capsys):
    output = tmp_path / "p.csv"
    words = ["predict", str(tiny_run), "--backend", "openvino", "--output", str(output)]
    assert main(words) == 0
    assert "compiled by OpenVINO; largest difference from torch: " in capsys.readouterr().out
    ours, theirs = (Predictions.read(path, 3).values for path in (tiny_run / "test_predictions.csv", output))
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert main([*words, "--device", "mps"]) == 2
