"""A training, a validation and a prediction step of everything that a config can name, on a GPU that is not there.

In each precision: no operation works on tensors of two devices, is refused under `trainer.deterministic`, or makes a
step wait for the GPU; losses and predictions are finite, and near those of fp32. What has a list of names is taken from
it, so that a new loss, pooling, fusion or decoder is tried as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import swinft
from swinft import (
    ArcFaceHead,
    ClassificationHead,
    EMAConfig,
    FineTuneTask,
    LabelDistributionHead,
    MixConfig,
    MultilabelHead,
    OptimConfig,
    OrdinalHead,
    OrdinalRegressionHead,
    PoolingConfig,
    RegressionHead,
    SegmentationHead,
    SoftmaxSegmentationHead,
    Teacher,
)
from swinft.model import fusion, pooling
from swinft.model.decoders import NAMES as DECODERS
from swinft.model.evaluation import Evaluated
from swinft.model.heads import Head, Loss
from swinft.model.heads.class_losses import CLASS_LOSSES
from swinft.model.heads.label_losses import LABEL_LOSSES
from swinft.model.heads.mask_losses import MASK_LOSSES, SOFTMAX_LOSSES
from swinft.model.heads.number_losses import NUMBER_LOSSES
from swinft.model.settings import TaskContext
from swinft.system.precision import PRECISIONS, autocast
from tests.integration.gpu.pretended import GPU, Mixed, PretendedGPU, pretended_gpu

BATCH, SIDE, OUTPUTS, FEATURES, IMAGES = 4, 32, 3, 2, 2
# Of the largest value: that of rounding to 8 bits in a few layers.
NEAR = {"32-true": 1e-5, "bf16-mixed": 0.15, "16-mixed": 0.02}
MIXES = {
    "alone": MixConfig(),
    "mixup": MixConfig(mixup_alpha=1.0),
    "cutmix": MixConfig(cutmix_alpha=1.0),
    "features": MixConfig(mixup_alpha=1.0, mixup_at="features"),
}


class Small(nn.Module):
    """A backbone of few operations."""

    num_features = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).tanh().mean((2, 3))


SMALL = {"backbone": {"class_path": f"{__name__}.Small"}, "backbone_args": None}
VIT = {
    "backbone": "vit_small_patch16_224",
    "backbone_args": {"embed_dim": 12, "depth": 1, "num_heads": 2},
}
CNN = {"backbone": "resnet18", "backbone_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}}


@dataclass
class Case:
    """What is trained.

    Args:
        head: Class of the head.
        arguments: Its arguments.
        targets: How a batch's targets are made: `classes`, `soft`, `labels`, `numbers`, `grades` or `masks`.
        gaps: Whether rows lack targets.
        model: Further arguments of the task.
        context: Arguments of its context.
        largest: What numbers are multiplied by.
        mixes: How the rows of its steps are mixed.
        teachers: What each of two networks counts of which it learns, in further steps; None where they count alike.
        prior: Whether a sampler changes how often classes are seen.
        side: Of the images.
    """

    head: type[Head]
    arguments: dict[str, Any] = field(default_factory=dict)
    targets: str = "classes"
    gaps: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    largest: float = 1.0
    mixes: Sequence[str] = ("alone", "mixup")
    teachers: Sequence[list[float] | None] = ([0.25, 0.75],)
    prior: bool = False
    side: int = SIDE


def losses(head: type[Head], names: Any, targets: str) -> dict[str, Case]:
    """A case of each loss with a name."""
    more: Any = {"bce": {"low": 0, "high": 100}} if head is RegressionHead else {}
    return {f"{head.__name__} {name}": Case(head, {"loss": name, **more.get(name, {})}, targets) for name in names}


GRADES = {"grades": [0, 20, 50, 100]}
HEADS = {
    **losses(ClassificationHead, CLASS_LOSSES, "classes"),
    **losses(MultilabelHead, LABEL_LOSSES, "labels"),
    **losses(RegressionHead, NUMBER_LOSSES, "numbers"),
    "mixed": Case(ClassificationHead, mixes=list(MIXES), teachers=[None, [0.25, 0.75]], prior=True),
    "soft targets": Case(ClassificationHead, {"label_smoothing": 0.1, "dropout": 0.2, "dropout_samples": 3}, "soft"),
    "soft targets of grades": Case(OrdinalHead, {}, "soft"),
    "class weights": Case(ClassificationHead, {"class_weights": "balanced", "loss": "focal"}),
    "classes with gaps": Case(ClassificationHead, gaps=True),
    "labels with gaps": Case(MultilabelHead, {"pos_weight": [1.0, 2.0, 3.0]}, "labels", gaps=True),
    "numbers with gaps": Case(RegressionHead, {"target_weights": [1.0, 2.0, 3.0]}, "numbers", gaps=True),
    "soft targets with gaps": Case(ClassificationHead, {}, "soft", gaps=True),
    "angles": Case(ArcFaceHead, {"smallest_margin": 0.1, "sub_centres": 2, "embedding": 8, "label_smoothing": 0.1}),
    "angles of a large scale": Case(ArcFaceHead, {"scale": 64.0, "margin": 1.0}),
    "distribution": Case(LabelDistributionHead, {"low": 0, "high": 100}, "numbers"),
    "ordinal": Case(OrdinalHead),
    "coral": Case(OrdinalHead, {"form": "coral"}),
    "grades": Case(OrdinalRegressionHead, GRADES, "numbers"),
    "grades, coral": Case(OrdinalRegressionHead, {**GRADES, "form": "coral"}, "numbers"),
    **{f"transform {name}": Case(RegressionHead, {"transform": name}, "numbers") for name in ("log1p", "sqrt", "rank")},
    # More than fp16 has numbers for: only what is standardised may be rounded.
    "large numbers": Case(RegressionHead, {"loss": "huber"}, "numbers", largest=1e5),
    "large numbers of a distribution": Case(LabelDistributionHead, {"low": 0, "high": 1e7}, "numbers", largest=1e5),
}
AUXILIARY = [
    {"name": "colour", "kind": "classification", "num_outputs": 3, "weight": 0.5, "head": None},
    {"name": "size", "kind": "regression", "num_outputs": 1, "weight": 1.0, "head": None},
]
MODELS = {
    **{
        f"pooling {name}": Case(ClassificationHead, model={**VIT, "pooling": name}, mixes=["features"], teachers=[])
        for name in ("avg", *pooling.NAMED)
    },
    **{
        f"images {name}": Case(
            ClassificationHead, model={"pooling": PoolingConfig(images=name)}, context={"num_images": IMAGES}
        )
        for name in fusion.NAMED
    },
    "metadata": Case(
        RegressionHead,
        targets="numbers",
        model={"metadata_hidden": 4},
        context={"num_metadata": FEATURES + 3, "category_sizes": [3]},
    ),
    "auxiliary": Case(ClassificationHead, context={"auxiliary": AUXILIARY}),
    "average": Case(ClassificationHead, model={"ema_decay": EMAConfig(0.9, warmup="power", start_steps=1)}),
    "sam": Case(ClassificationHead, model={"optim": OptimConfig(name="sam")}),
    "lora": Case(
        ClassificationHead,
        model={**VIT, "optim": OptimConfig(freeze=swinft.FreezeConfig(share=1, lora=swinft.LoRAConfig(rank=2)))},
    ),
    "lion": Case(ClassificationHead, model={"optim": OptimConfig(name="lion")}),
}


def masks(head: type[Head], loss: Any, **arguments: Any) -> Case:
    """A case of masks, with a narrow U-Net."""
    given = {"loss": loss, "decoder_args": {"decoder_channels": [8, 8, 8, 8, 8]}, **arguments}
    return Case(head, given, "masks", model=CNN, context={"are_maps": True}, mixes=["alone"], teachers=[])


MASKS = {
    **{f"masks {name}": masks(SegmentationHead, name) for name in MASK_LOSSES},
    "masks several": masks(SegmentationHead, dict.fromkeys(MASK_LOSSES, 1.0), dropout=0.2),
    **{f"exclusive {name}": masks(SoftmaxSegmentationHead, name) for name in SOFTMAX_LOSSES},
    "complete": masks(SoftmaxSegmentationHead, dict.fromkeys(SOFTMAX_LOSSES, 1.0), classes="complete"),
}
CASES = HEADS | MODELS | MASKS
NARROW = {name: {"decoder_channels": [8, 8, 8, 8, 8]} for name in ("unet", "unetplusplus", "manet")}
NARROW["upernet"] = {"decoder_channels": 8}
REFUSED = ("pspnet", "upernet")  # adaptive pooling to more than one position


@pytest.fixture
def gpu(monkeypatch):
    with pretended_gpu(monkeypatch) as gpu:
        torch.use_deterministic_algorithms(True)
        yield gpu
    torch.use_deterministic_algorithms(False)


def targets_of(case: Case, random: torch.Generator) -> Tensor:
    """Targets of a batch: every class is there, and where there are gaps a row lacks its target."""
    classes = torch.arange(BATCH) % OUTPUTS
    labels = torch.randint(0, 2, (BATCH, OUTPUTS), generator=random).float()
    made = {
        "classes": classes,
        "soft": torch.rand(BATCH, OUTPUTS, generator=random).softmax(1),
        "labels": labels,
        "numbers": case.largest * 100 * torch.rand(BATCH, OUTPUTS, generator=random),
        "masks": (classes[:, None] == torch.arange(OUTPUTS))[:, :, None, None].expand(-1, -1, case.side, case.side).to(torch.uint8),
    }  # fmt: skip
    found = made[case.targets].clone()
    if case.targets == "masks":
        found[:, :, :3] = 255  # does not count
    if case.gaps:
        found[0] = torch.nan if found.is_floating_point() else -1
        if case.targets in ("labels", "numbers"):
            found[1, -1] = torch.nan
    return found


def made(case: Case) -> tuple[FineTuneTask, dict[str, Tensor]]:
    """A task that knows its training rows, and a batch of them; the same each time."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    model = {**SMALL, "optim": OptimConfig(lr=1e-5), **case.model}
    context = TaskContext(image_size=case.side, has_gaps=case.gaps, **case.context)
    task = FineTuneTask(
        lambda *sizes: case.head(*sizes, **case.arguments),
        pretrained=False, num_outputs=OUTPUTS, context=context, **model,
    )  # fmt: skip
    shape = (BATCH, *task.net.image_shape((case.side, case.side)))
    batch = {
        "image": torch.randint(0, 256, shape, dtype=torch.uint8, generator=random),
        "target": targets_of(case, random),
        "row": torch.arange(BATCH),
        "weight": torch.rand(BATCH, generator=random),
    }
    if context.num_images:
        batch["image_mask"] = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    if context.num_metadata:
        numbers = torch.randn(BATCH, FEATURES, generator=random)
        batch["features"] = torch.cat([numbers, torch.eye(3)[torch.arange(BATCH) % 3]], 1)
        batch["features"][0, 0] = torch.nan
    auxiliary = [torch.arange(BATCH) % 3, torch.rand(BATCH, 1, generator=random)] if context.auxiliary else []
    if auxiliary:
        auxiliary[0][1], auxiliary[1][2] = -1, torch.nan
    batch |= {f"auxiliary.{k}": each for k, each in enumerate(auxiliary)}
    task.initialize(batch["target"], batch.get("features"), *auxiliary)
    task.log = lambda *_, **__: None
    return task, batch


def taught(task: FineTuneTask, case: Case, shares: list[float] | None) -> Teacher:
    """Two networks that the task learns from."""
    nets = [made(case)[0].net for _ in range(2)]
    has_softmax = isinstance(task.net.head, ClassificationHead | ArcFaceHead)
    is_softened = has_softmax and task.net.head.decode_rule()["rule"] == "softmax"
    teacher = Teacher(nets, None, 0.5, 2.0 if is_softened else 1.0, shares)
    teacher.to(GPU, say=lambda _: None)
    return teacher


def trained(task: FineTuneTask, batch: dict[str, Tensor], precision: Any, gpu: PretendedGPU) -> float:
    """Takes a step as Lightning does; the loss before it."""
    # Gradients in fp16 as they are: what overflows without a scale has no scale that helps.
    scaler = torch.amp.GradScaler("cuda", init_scale=1.0, enabled=precision == "16-mixed")
    optimizer = task._optimizer = task.make_optimizer(GPU, scaler.is_enabled())
    values: list[Tensor] = []

    def closure() -> Tensor:
        gpu.is_step = True
        with torch.enable_grad(), autocast(precision, GPU):
            loss = task.training_step(batch, 0)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        gpu.is_step = False
        values.append(loss.detach())
        return loss

    task.train()
    task.on_train_batch_start(batch, 0)
    if task.optim.name == "sam":
        optimizer.step(closure)
    else:
        closure()
        scaler.unscale_(optimizer)
        task.configure_gradient_clipping(optimizer, 1.0)
        scaler.step(optimizer)
    gradients = {name: each.grad for name, each in task.net.named_parameters() if each.grad is not None}
    assert not [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    gpu.is_step = True
    if task.averaged is not None:
        task.averaged.update(task.net)
    gpu.is_step = False
    return float(values[0])


def evaluated(task: FineTuneTask, batch: dict[str, Tensor], precision: Any, gpu: PretendedGPU) -> tuple[Tensor, Tensor]:
    """Predictions and losses of a batch, on the CPU."""
    task.eval()
    with torch.inference_mode(), autocast(precision, GPU):
        gpu.is_step = True
        task.validation_step(batch, 0)
        gpu.is_step = False
        found = Evaluated.joined(task._evaluated)
        task._evaluated.clear()
        given = {name: each for name, each in batch.items() if name != "target"}
        predictions = task.predict_step(given, 0)["prediction"].cpu()
    assert predictions.dtype == found.losses.dtype == torch.float32  # of bf16 there is no array
    assert predictions.shape[:2] == (BATCH, OUTPUTS)
    assert found.predictions.isfinite().all()
    return predictions, found.losses


def steps(case: Case, precision: Any, gpu: PretendedGPU) -> dict[str, Tensor]:
    """Losses and predictions of a task, alone, mixed and taught."""
    task, batch = made(case)
    if task.averaged is not None:
        task.averaged.update(task.net)  # the first asks the buffer how many there were: once
    task.to(GPU)
    task._device = GPU
    batch = {name: each.to(GPU) for name, each in batch.items()}
    predictions, val_losses = evaluated(task, batch, precision, gpu)
    found = {"predictions": predictions, "validated": val_losses}
    for name in case.mixes:
        task.mix, task._places = MIXES[name], ["head" if name == "features" else ""]
        found[name] = torch.tensor(trained(task, batch, precision, gpu))
    if case.prior:
        task._prior_shift = torch.tensor([0.5, -1.0, 0.0]).to(GPU)
    for shares in case.teachers:
        task.mix, task.teacher = MIXES["mixup"], taught(task, case, shares)
        found[f"taught {shares}"] = torch.tensor(trained(task, batch, precision, gpu))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_step_in_every_precision_waits_for_nothing_and_mixes_no_devices(name, gpu):
    case, of_fp32 = CASES[name], dict[str, Tensor]()
    # How many of a batch's images are there is known to the GPU alone: it is asked once.
    asked = {"model/network.py nonzero"} if "num_images" in case.context else set()
    for precision in PRECISIONS:
        if name == "sam" and precision == "16-mixed":  # refused: its gradients are computed twice
            continue
        gpu.waits.clear()
        found = steps(case, precision, gpu)
        waited = {f"{place.partition(':')[0]} {place.partition(' ')[2]}" for place in gpu.waits}
        assert waited <= asked, (precision, dict(gpu.waits))
        of_fp32 = of_fp32 or found
        for key, values in found.items():
            limit = NEAR[precision] * max(1.0, float(of_fp32[key].abs().max()))
            torch.testing.assert_close(values, of_fp32[key], atol=limit, rtol=0, msg=f"{precision}, {key}: {values}")


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_is_deterministic_or_refused_by_torch(decoder, gpu):
    """What is refused is said by the trial step on the device, before the run: see test_pretended."""
    case = masks(SegmentationHead, "dice")
    case.arguments |= {"decoder": decoder, "decoder_args": NARROW.get(decoder)}
    case.side = 256 if decoder == "pan" else SIDE  # which pools the coarsest map three times
    if decoder not in REFUSED:
        steps(case, "16-mixed", gpu)
        return
    with pytest.raises(Mixed, match="_adaptive_avg_pool2d_backward does not have a deterministic implementation"):
        steps(case, "16-mixed", gpu)


def test_every_class_of_swinft_is_tried():
    """Those that a config can name: heads, losses, poolings, fusions."""
    seen = set()
    for case in CASES.values():
        seen |= {type(each) for each in made(case)[0].modules()}
    bases = (Head, Loss, pooling.Pooling, fusion.Fusion)
    named = {getattr(swinft, name) for name in swinft.__all__}
    known = {each for each in named if isinstance(each, type) and issubclass(each, bases)}
    assert known - seen == {Head, Loss, pooling.Pooling, fusion.Fusion}
