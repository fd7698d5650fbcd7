"""`trainer.deterministic: true`: no operation of a fit is one that torch refuses on CUDA then."""

import re

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


# What torch's documentation says raises an error: the operators, by its words.
DOCUMENTED = {
    "torch.nn.AvgPool3d": {"avg_pool3d_backward"},
    "torch.nn.AdaptiveAvgPool2d": {"_adaptive_avg_pool2d_backward"},
    "torch.nn.AdaptiveAvgPool3d": {"_adaptive_avg_pool3d_backward"},
    "torch.nn.AdaptiveMaxPool2d": {"adaptive_max_pool2d_backward"},
    "torch.nn.FractionalMaxPool2d": {"fractional_max_pool2d_backward"},
    "torch.nn.FractionalMaxPool3d": {"fractional_max_pool3d_backward"},
    "torch.nn.MaxPool3d": {"max_pool3d_with_indices_backward"},
    "torch.nn.MaxUnpool1d": {"max_unpool2d"},
    "torch.nn.MaxUnpool2d": {"max_unpool2d"},
    "torch.nn.MaxUnpool3d": {"max_unpool3d"},
    "torch.nn.functional.interpolate": {
        "upsample_linear1d_backward",
        "upsample_bilinear2d_backward",
        "upsample_bicubic2d_backward",
        "upsample_trilinear3d_backward",
    },
    **{
        f"torch.nn.{kind}Pad{sides}d": {f"{kind.lower()}_pad{sides}d_backward"}
        for kind in ("Reflection", "Replication")
        for sides in (1, 2, 3)
    },
    "torch.nn.NLLLoss": {"nll_loss2d_forward"},
    "torch.nn.CTCLoss": {"_ctc_loss_backward"},
    "torch.nn.EmbeddingBag": set(),  # with the largest of each bag: neither swinft nor timm has any
    "torch.Tensor.put_": {"put_"},
    "torch.histc": {"histc"},
    "torch.bincount": set(),  # with weights alone
    "torch.kthvalue": {"kthvalue"},
    "torch.median": {"median"},
    "torch.nn.functional.grid_sample": {"grid_sampler_2d_backward", "grid_sampler_3d_backward"},
    "torch.cumsum": set(),  # of numbers that are not whole
    "torch.Tensor.scatter_reduce": {"scatter_reduce"},
    "torch.Tensor.resize_": set(),  # of quantised tensors
}


def test_w4_all_that_torch_says_it_refuses_is_known():
    said = torch.use_deterministic_algorithms.__doc__.partition("nondeterministic operations will throw a")[
        2
    ].partition("In addition")[0]
    named = set(re.findall(r"\* :(?:class|func|attr|meth):`([\w.]+)`", said))
    assert len(named) > 15
    assert named <= set(DOCUMENTED)
    assert set().union(*DOCUMENTED.values()) <= RAISES
