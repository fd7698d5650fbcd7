"""The default space: families of backbones, and what is searched for each."""

import pytest

from swinft.model.training.defaults import Training
from swinft.tuning.defaults import CNN, CONVNEXT, SWIN, VIT, _rates, family_of


@pytest.mark.parametrize(
    ("name", "has_batch_norm", "family"),
    [
        ("swin_tiny_patch4_window7_224.ms_in1k", False, SWIN),
        ("swinv2_tiny_window8_256", False, SWIN),
        ("vit_small_patch16_224", False, VIT),
        ("eva02_tiny_patch14_224", False, VIT),
        ("deit3_small_patch16_224", False, VIT),
        ("convnext_tiny", False, CONVNEXT),
        ("convnextv2_atto", False, CONVNEXT),
        ("tf_efficientnet_b0", True, CNN),
        ("resnet18", True, CNN),
        ({"class_path": "my.Net"}, True, CNN),
        ({"class_path": "my.Net"}, False, VIT),
    ],
)
def test_the_family_is_that_of_timms_module(name, has_batch_norm, family):
    assert family_of(name, has_batch_norm) == family


def test_rates_are_around_the_defaults_and_only_what_is_trained_has_one():
    swin = _rates(Training(False, True), SWIN, is_frozen=False)
    assert swin["model.optim.lr"] == {"low": 2e-5, "high": 5e-4, "log": True}
    assert swin["model.optim.layer_decay"] == {"low": 0.7, "high": 1.0}
    assert "model.optim.head_lr" in swin
    cnn = _rates(Training(True, True), CNN, is_frozen=False)
    assert cnn["model.optim.lr"] == {"low": 4e-4, "high": 1e-2, "log": True}
    assert "model.optim.layer_decay" not in cnn
    assert "model.optim.layer_decay" not in _rates(Training(False, False), VIT, is_frozen=False)
    assert list(_rates(Training(False, True), VIT, is_frozen=True)) == [
        "model.optim.head_lr",
        "model.optim.weight_decay",
    ]
