"""What a step does beside its arithmetic: order in memory, kernels per step, casts, graphs that are compiled."""

import copy

import lightning.pytorch as pl
import pytest
import timm
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from swinft import ClassificationHead, MixConfig
from swinft.cli import main
from swinft.model.layout import set_layout, uses_channels_last
from swinft.model.optim import OptimConfig, adamw
from swinft.model.task import FineTuneTask
from swinft.run.inference import predict_rows
from swinft.run.recorder import FoldRecorder
from swinft.run.tta import VIEWS
from tests.conftest import tiny_config, write_config

CPU = torch.device("cpu")
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
CONVNET = "resnet10t"


def make_task(backbone: str = CONVNET, **options) -> FineTuneTask:
    torch.manual_seed(0)
    given = {"num_outputs": 3, "image_size": 32, "optim": OptimConfig(lr=1e-3, warmup_epochs=0), **options}
    return FineTuneTask(ClassificationHead, backbone, False, **given)


def batches(count: int = 3, size: int = 4) -> list[dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=random),
            "target": torch.arange(size) % 3,
            "row": torch.arange(size) + size * index,
        }
        for index in range(count)
    ]


def loader(rows) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(rows, batch_size=None)


def is_channels_last(net: nn.Module) -> bool:
    return all(
        module.weight.is_contiguous(memory_format=torch.channels_last)
        for module in net.modules()
        if isinstance(module, nn.Conv2d) and module.in_channels > 3
    )


def image_strides(net: nn.Module) -> list[bool]:
    """Whether each image that reaches the backbone has its channels side by side; filled as the network is used."""
    seen: list[bool] = []
    net.backbone.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    return seen


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet10t", True),
        ("tf_efficientnet_lite0", True),
        ("convnext_atto", True),
        ("maxvit_rmlp_pico_rw_256", True),
        ("swin_tiny_patch4_window7_224", False),
        ("swinv2_tiny_window8_256", False),
        ("vit_tiny_patch16_224", False),
    ],
)
def test_s2_a_stem_alone_does_not_make_a_convolutional_network(name, expected):
    with torch.device("meta"):
        assert uses_channels_last(timm.create_model(name)) is expected


def test_s2_weights_averages_gradients_and_moments_lie_channels_last_under_plain_lightning():
    task = make_task(ema_decay=0.9)
    trained, validated = image_strides(task.net), image_strides(task.predictor)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, **QUIET)
    trainer.fit(task, loader(batches()), loader(batches(1)))
    assert (trained, validated) == ([True] * 3, [True])  # although the loader's images are plain
    assert is_channels_last(task.net)
    assert is_channels_last(task.averaged.module)
    convolutions = [module.weight for module in task.net.modules() if isinstance(module, nn.Conv2d)]
    for weight in convolutions:
        assert trainer.optimizers[0].state[weight]["exp_avg"].stride() == weight.stride()
        assert weight.grad is None or weight.grad.stride() == weight.stride()


def test_s2_views_of_a_prediction_and_mixed_images_reach_the_backbone_channels_last():
    task = make_task(mix=MixConfig(mixup_alpha=1.0, cutmix_alpha=1.0))
    seen = image_strides(task.net)
    predict_rows([task.net.eval()], loader(batches(1)), list(VIEWS), CPU, "32-true")
    assert seen == [True] * len(VIEWS)
    seen.clear()
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, **QUIET)
    trainer.fit(task, loader(batches(6)))
    assert seen == [True] * 6


def test_s2_a_step_channels_last_gives_the_numbers_of_a_plain_one():
    tasks = [make_task() for _ in range(2)]
    set_layout(tasks[1], "plain")
    assert not is_channels_last(tasks[1].net)
    losses = []
    for task in tasks:
        torch.manual_seed(1)
        optimizer = adamw(task.parameter_groups(), task.optim, CPU, scales_loss=False)
        for batch in batches():
            optimizer.zero_grad()
            loss = task.net.head.loss(task.net(batch["image"]), task.net.head.encode(batch["target"])).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-3)


def test_s2_moments_of_a_plain_checkpoint_are_brought_into_the_order_of_the_weights():
    """The fused kernel goes through memory: it would give every weight another one's moments."""
    tasks = [make_task() for _ in range(2)]
    set_layout(tasks[0], "plain")
    optimizers = [adamw(task.parameter_groups(), task.optim, CPU, scales_loss=False) for task in tasks]
    random = torch.Generator().manual_seed(0)
    gradients = [torch.randn(p.shape, generator=random) for p in tasks[0].net.parameters()]

    def step(task, optimizer) -> None:
        for parameter, gradient in zip(task.net.parameters(), gradients, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()

    step(tasks[0], optimizers[0])
    tasks[1].load_state_dict(tasks[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    gradients = [gradient.flip(0) for gradient in gradients]
    for task, optimizer in zip(tasks, optimizers, strict=True):
        step(task, optimizer)
    assert is_channels_last(tasks[1].net)
    for plain, other in zip(tasks[0].net.parameters(), tasks[1].net.parameters(), strict=True):
        assert torch.equal(plain, other)


def test_s2_ddp_finds_gradients_as_its_buckets_lie(recwarn, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        net = DistributedDataParallel(make_task("resnet26t").net)
        image = batches(1)[0]["image"]
        for _ in range(2):
            net(image).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert not [str(each.message) for each in recwarn if "bucket view strides" in str(each.message)]


def test_s2_a_resumed_fold_of_a_convolutional_network_ends_at_the_same_bytes(competition, tmp_path, monkeypatch):
    changes = {"model.backbone": CONVNET, "model.backbone_args": None, "trainer.max_epochs": 2}
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = ["fit", "--config", str(path), "--fold", "0"]
    assert main([*words, "--name", "whole"]) == 0
    save = FoldRecorder.on_train_epoch_end

    def stop(recorder, trainer, task):
        save(recorder, trainer, task)
        raise RuntimeError("the power is gone")

    monkeypatch.setattr(FoldRecorder, "on_train_epoch_end", stop)
    with pytest.raises(RuntimeError, match="power"):
        main([*words, "--name", "parts"])
    monkeypatch.setattr(FoldRecorder, "on_train_epoch_end", save)
    assert main([*words, "--name", "parts", "--resume"]) == 0
    whole, parts = (tmp_path / "runs" / name / "fold_0" / "weights.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
