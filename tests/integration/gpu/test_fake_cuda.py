"""Every step on CUDA tensors that hold nothing: no GPU is needed to see which device an operation works on.

What makes the CPU wait for the GPU, and what reads tensors of two devices, is an error here. Autograd's backward pass asks
for a real GPU: gradients are made, not computed.
"""

import contextlib
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from swinft import ClassificationHead, FineTuneTask, MixConfig, MultilabelHead, RegressionHead
from swinft.data.augment.warp import adjust_colour, warp
from swinft.data.loading.device_loader import DeviceImages
from swinft.inference.compiled import CompiledNet
from swinft.inference.predictor import _predict_batch
from swinft.model.attention.swin import accelerate
from swinft.model.settings import TaskContext
from swinft.model.training.epoch_losses import EpochLosses
from swinft.model.training.optimizers import make_optimizer
from tests.conftest import TINY_SWIN
from tests.integration.gpu.pretended import WAITS

GPU = torch.device("cuda", 0)
BATCH, SIDE, OUTPUTS, FEATURES = 4, 32, 3, 2
BACKBONES = {
    "swin_tiny_patch4_window7_224": TINY_SWIN | {"depths": [2], "num_heads": [1]},  # a plain block and a shifted one
    "swinv2_tiny_window8_256": TINY_SWIN | {"depths": [2], "num_heads": [1]},
    "resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "test_efficientnet": {},
    "convnext_tiny": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
    "vit_small_patch16_224": {"embed_dim": 12, "depth": 1, "num_heads": 2},
}
HEADS = [ClassificationHead, RegressionHead, MultilabelHead]
MIXES = {"none": MixConfig(), "mixup": MixConfig(mixup_alpha=1.0), "cutmix": MixConfig(cutmix_alpha=1.0)}

COPIES = {"_to_copy", "copy_"}


class Watch(TorchDispatchMode):
    """Raises where the CPU would wait for the GPU and where devices mix; counts copies to the GPU and operations there.

    Inside `FakeTensorMode`. What the CPU computes for itself is computed: loaders and draws ask for values there.
    """

    def __init__(self):
        super().__init__()
        self.copies, self.operations = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        goes_to = torch.device(kwargs.get("device") or "cpu").type
        if goes_to == "cpu" and not any(isinstance(x, FakeTensor) for x in tensors):
            with unset_fake_temporarily():
                return function(*args, **kwargs)
        if torch.is_inference_mode_enabled() and function.namespace == "aten":
            with self:  # operations come whole then: what they are made of is watched
                found = function.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        devices = {goes_to, *(x.device.type for x in tensors)}
        if name in COPIES:
            to = torch.device(kwargs.get("device") or tensors[0].device).type
            if {to, tensors[-1].device.type} == {"cpu", "cuda"}:
                waits = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,)))
                assert to == "cuda", f"{name} brings a tensor back from the GPU, and waits for it"
                assert not waits or tensors[-1].ndim == 0, f"{name} to the GPU waits for it"
                self.copies += 1
        elif "cuda" in devices:
            self.operations += 1
            assert name not in WAITS, f"{name} waits for the GPU"
            beside = [tuple(x.shape) for x in tensors if x.device.type == "cpu" and x.ndim]
            assert not beside, f"{name} works on CUDA tensors and on CPU tensors {beside}"
            if name.startswith("index"):  # a mask is an index whose length is not known
                assert all(x.dtype != torch.bool for x in tensors[1:]), f"{name} by a mask waits for the GPU"
        return function(*args, **kwargs)


@pytest.fixture
def watched(monkeypatch):
    """Makes CUDA tensors that hold nothing, with autocast to bf16, under a `Watch`."""
    # Autocast asks the machine, which has no GPU, and would do nothing.
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)

    @contextlib.contextmanager
    def begin():
        with FakeTensorMode(allow_non_fake_inputs=True), torch.autocast("cuda", torch.bfloat16), Watch() as watch:
            yield watch
        assert watch.operations

    return begin


def to_gpu(module: nn.Module) -> nn.Module:
    """Puts tensors that hold nothing in the place of all of a module's."""
    made: dict[int, Tensor] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in module.modules():
            for store in (part._parameters, part._buffers):
                for name, tensor in store.items():
                    if tensor is not None and id(tensor) not in made:
                        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=GPU)
                        is_parameter = isinstance(tensor, nn.Parameter)
                        made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                    store[name] = None if tensor is None else made[id(tensor)]
    return module


def make_task(name: str, head=ClassificationHead, **changes) -> FineTuneTask:
    """A task on the GPU, with metadata for one of the heads, and averaged weights that were updated before."""
    has_features = head is RegressionHead
    task = FineTuneTask(
        head, name, False, BACKBONES[name], num_outputs=OUTPUTS,
        context=TaskContext(image_size=SIDE, num_metadata=FEATURES * has_features),
        ema_decay=0.9, **changes,
    )  # fmt: skip
    task.net.is_initialized = True
    task.averaged.update(task.net)  # the first asks the buffer how many there were: once, also on a GPU
    for net in (task.net, task.averaged.module):
        accelerate(net)
    task._device = GPU
    task.log = lambda *_, **__: None
    return to_gpu(task)


def make_batch(task: FineTuneTask, device: torch.device = GPU, weighted: bool = False) -> dict[str, Tensor]:
    """A batch as the loader gives it."""
    kind = task.net.head.kind
    target = torch.randint(0, 2, (BATCH,) if kind == "classification" else (BATCH, OUTPUTS), device=device)
    batch = {
        "image": torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, device=device),
        "target": target if kind == "classification" else target.float(),
        "row": torch.zeros(BATCH, dtype=torch.int64, device=device),
    }
    if task.net.metadata is not None:
        batch["features"] = torch.randn(BATCH, FEATURES, device=device)
    return batch | ({"weight": torch.rand(BATCH, device=device)} if weighted else {})


def forward(task: FineTuneTask, batch: dict[str, Tensor]) -> None:
    """What Lightning does with a training batch up to its loss."""
    task.on_train_batch_start(batch, 0)
    loss = task.training_step(batch, 0)
    assert (loss.device, loss.shape) == (GPU, ())


def update(task: FineTuneTask) -> None:
    """What follows the backward pass: clips, optimises, and averages where weights are averaged."""
    optimizer = make_optimizer(task.parameter_groups(), task.optim, GPU, scales_loss=False)
    for parameter in task.net.parameters():
        parameter.grad = torch.empty_like(parameter)
    task.configure_gradient_clipping(optimizer, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if task.averaged is not None:
        task.averaged.update(task.net)


def evaluate(task: FineTuneTask, batch: dict[str, Tensor]) -> None:
    """Validates a batch, which predicts it."""
    task._evaluated.clear()
    task.eval()
    with torch.inference_mode():
        task.validation_step(batch, 0)
        assert {tensor.device for tensor in task._evaluated[0] if tensor is not None} == {GPU}
    task.train()


@pytest.mark.parametrize(
    ("name", "head"),
    [
        pytest.param(name, RegressionHead, marks=pytest.mark.slow if name in ("resnet18", "convnext_tiny") else ())
        for name in BACKBONES
    ]
    + [("vit_small_patch16_224", head) for head in HEADS[::2]],
)
def test_s4_no_step_waits_for_the_gpu_or_mixes_devices(name, head, watched):
    task = make_task(name, head)
    averaged = task.averaged
    with watched() as watch:
        batch = make_batch(task)
        for task.averaged in (averaged, None):
            for mix, task.mix in MIXES.items():
                before = watch.copies
                forward(task, make_batch(task, weighted=True) if mix == "cutmix" else batch)
                assert watch.copies - before == (mix != "none")  # the permutation, which the CPU draws
            before = watch.copies
            update(task)
            evaluate(task, batch)
            assert watch.copies == before


@pytest.mark.parametrize("is_compiled", [False, True])
def test_s10_prediction_of_folds_and_views_copies_a_batch_once_and_waits_for_nothing(is_compiled, watched, monkeypatch):
    tasks = [make_task("swin_tiny_patch4_window7_224", RegressionHead) for _ in range(2)]
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: None)  # what wraps the network is what is watched
    nets = [CompiledNet(task.predictor, BATCH + 1) if is_compiled else task.predictor for task in tasks]
    with watched() as watch, torch.inference_mode():
        batch = make_batch(tasks[0], torch.device("cpu"))
        predictions = _predict_batch(nets, batch, ["identity", "hflip", "rot90", "scale"], GPU)
        assert (predictions.shape, predictions.device) == ((BATCH, OUTPUTS), GPU)
        assert watch.copies == 2  # images and metadata


@pytest.mark.parametrize("is_black", [False, True])
@pytest.mark.parametrize("is_filled", [False, True])
def test_images_are_warped_without_waiting(is_filled, is_black, watched):
    with watched() as watch:
        random = partial(torch.rand, device=GPU)
        shapes = None if is_filled else torch.full((BATCH, 2), 20, device=GPU)
        images = warp(random(BATCH, 3, 24, 30), shapes, random(BATCH, 2, 3), (SIDE, SIDE), (2, 2), is_black)
        assert adjust_colour(images, random(BATCH, 2)).shape == (BATCH, 3, SIDE, SIDE)
        assert watch.copies == 0


@pytest.mark.parametrize("sides", [[(24, 30)] * 6, [(24, 30), (30, 24), (20, 20)] * 2], ids=["one shape", "shapes"])
def test_images_of_the_device_are_sampled_without_waiting(sides, watched):
    shapes = torch.tensor(sides)
    ends = shapes.prod(1).cumsum(0)
    batch = {
        "row": torch.tensor([4, 1, 3, 0]),
        "matrix": torch.rand(BATCH, 2, 3),
        "colour": torch.rand(BATCH, 2),
        "samples": torch.tensor([[1, 1], [2, 1], [1, 1], [2, 1]]),
        "target": torch.zeros(BATCH),
    }
    with watched() as watch:
        pixels = torch.zeros((int(ends[-1]), 3), dtype=torch.uint8, device=GPU)
        stored = DeviceImages(pixels, ends - shapes.prod(1), shapes, (SIDE, SIDE), False, "")
        sampled = stored.sample(batch)
        assert watch.copies > 4
    assert (sampled["image"].shape, sampled["image"].device) == ((BATCH, 3, SIDE, SIDE), GPU)
    assert {tensor.device for tensor in sampled.values()} == {GPU}


CONTROLS = {
    "item": (lambda loss: loss.item(), "_local_scalar_dense waits"),
    "if": (lambda loss: bool(loss > 0), "_local_scalar_dense waits"),
    "cpu": (lambda loss: loss.cpu(), "brings a tensor back"),
    "mask": (lambda loss: loss.view(1)[loss.view(1) > 0], "waits"),
    "nonzero": (lambda loss: (loss > 0).nonzero(), "nonzero waits"),
    "blocking copy": (lambda loss: torch.ones(2).to(GPU), "waits"),
    "made there from numpy": (lambda loss: torch.as_tensor(np.ones(2), device=GPU), "waits"),
    "mixed": (lambda loss: loss.expand(2) + torch.ones(2), "CPU tensors"),
    "indexed from the CPU": (lambda loss: loss.expand(2)[torch.tensor([1, 0])], "CPU tensors"),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_step_that_waits_or_mixes_devices_is_found(name, watched, monkeypatch):
    slip, said = CONTROLS[name]
    task = make_task("vit_small_patch16_224")
    monkeypatch.setattr(EpochLosses, "add", lambda self, number, loss, rows: slip(loss))
    with watched():
        batch = make_batch(task)
        with pytest.raises(AssertionError, match=said):
            task.training_step(batch, 0)
