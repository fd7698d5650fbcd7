"""`trainer.deterministic: true`: no operation of a fit is one that torch refuses on CUDA then."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from swinft.cli import main
from tests.conftest import TINY_SWIN, tiny_config, write_config
from tests.integration.gpu.pretended import RAISES


class Operators(TorchDispatchMode):
    """Names of all operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _as_before():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("backbone", "arguments", "backward"),
    [
        ("swin_tiny_patch4_window7_224", dict(TINY_SWIN), "native_layer_norm_backward"),
        ("swinv2_tiny_window8_256", dict(TINY_SWIN), "native_layer_norm_backward"),
        ("test_resnet", None, "convolution_backward"),
    ],
    ids=["v1", "v2", "cnn"],
)
def test_w4_nothing_that_a_fit_does_is_refused(backbone, arguments, backward, competition, tmp_path):
    changes = {
        "trainer.deterministic": True,
        "trainer.max_epochs": 1,
        "model.backbone": backbone,
        "model.backbone_args": arguments,
        "model.mix.mixup_alpha": 0.5,
        "model.mix.cutmix_alpha": 0.5,
        "data.augment": "medium",
        "data.loading.augment_on": "device",
        "data.loading.cache_dir": str(tmp_path / "cache"),
        "data.image_size": 64,
        "predict.views": ["identity", "hflip", "scale"],
    }
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    with Operators() as ran:
        assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
        assert torch.are_deterministic_algorithms_enabled()
        run = str(tmp_path / "runs" / "tiny")
        assert main(["predict", run, "--device", "cpu", "--folds", "0"]) == 0
    assert any(backward in name for name in ran.names)  # the backward pass is seen
    assert "grid_sampler_2d" in ran.names  # and so is the augmentation
    assert "_foreach_lerp_" in ran.names  # and the average
    assert ran.names.isdisjoint(RAISES)


def test_w4_an_operator_that_is_refused_would_be_seen():
    image = torch.ones(1, 3, 8, 8, requires_grad=True)
    with Operators() as ran:
        torch.nn.functional.adaptive_avg_pool2d(image, 2).sum().backward()
    assert ran.names & RAISES == {"_adaptive_avg_pool2d_backward"}
