"""What a step does beside its arithmetic: order in memory, kernels per step, casts, graphs that are compiled."""

import copy
import json
import subprocess
import sys
import warnings
from functools import partial

import lightning.pytorch as pl
import pytest
import timm
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn.parallel import DistributedDataParallel

from swinft import ClassificationHead, MixConfig
from swinft.cli import main
from swinft.errors import InputError
from swinft.inference import compiled as compiled_module
from swinft.inference.casting import cast_weights
from swinft.inference.predictor import predict_rows
from swinft.inference.tta import VIEWS
from swinft.model import task as task_module
from swinft.model.attention.swin import set_attention
from swinft.model.backbones.memory_format import set_layout, uses_channels_last
from swinft.model.network import ImageModel
from swinft.model.settings import TaskContext
from swinft.model.task import FineTuneTask
from swinft.model.training.ema import AveragedWeights
from swinft.model.training.optim import OptimConfig, layer_groups
from swinft.model.training.optimizers import make_optimizer
from swinft.run.config.fit_options import fit_parser
from swinft.run.experiment import Experiment
from swinft.run.folds.recorder import FoldRecorder
from tests.conftest import ROOT, TINY_SWIN, power_gone_after, tiny_config, with_context, write_config

CPU = torch.device("cpu")
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
CONVNET = "resnet10t"


def make_task(backbone: str = CONVNET, **options) -> FineTuneTask:
    torch.manual_seed(0)
    given = {"num_outputs": 3, "image_size": 32, "optim": OptimConfig(lr=1e-3, warmup_epochs=0), **options}
    return FineTuneTask(ClassificationHead, backbone, False, **with_context(**given))


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
        optimizer = make_optimizer(task.parameter_groups(), task.optim, CPU, scales_loss=False)
        for batch in batches():
            optimizer.zero_grad()
            loss = task.net.head.loss(task.net(batch["image"]), task.net.head.encode(batch["target"])).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-3)


STEM = """
import copy
import torch
from swinft.model.backbones.memory_format import set_layout
torch.manual_seed(0)
for channels, stride in ((3, 2), (3, (1, 2)), (12, 4)):
    plain = torch.nn.Conv2d(channels, 48, 1, stride)
    ours = copy.deepcopy(plain)
    set_layout(ours, "channels_last")
    set_layout(copy.deepcopy(ours), "channels_last")
    for _ in range(8):
        x = torch.randn(2, channels, 224, 224)
        for net in (plain, ours):
            net.zero_grad()
            images = x if net is plain else x.contiguous(memory_format=torch.channels_last)
            net(images).square().mean().backward()
        for own, expected in zip(ours.parameters(), plain.parameters()):
            torch.testing.assert_close(own.grad, expected.grad, atol=1e-4, rtol=1e-4)
"""


def test_a_stem_whose_gradient_onednn_writes_outside_its_memory_is_convolved_in_the_plain_order():
    done = subprocess.run([sys.executable, "-c", STEM], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]


def test_s2_moments_of_a_plain_checkpoint_are_brought_into_the_order_of_the_weights():
    """The fused kernel goes through memory: it would give every weight another one's moments."""
    tasks = [make_task() for _ in range(2)]
    set_layout(tasks[0], "plain")
    optimizers = [make_optimizer(task.parameter_groups(), task.optim, CPU, scales_loss=False) for task in tasks]
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


@pytest.mark.parametrize("is_plain", [False, True])
def test_s2_ddp_finds_gradients_as_its_buckets_lie(is_plain, tmp_path):
    """In the order of the weights: torch copies, and warns of, gradients in any other; the control is of before."""
    net = make_task("resnet26t").net
    if is_plain:
        set_layout(net, "plain")
        net.image_format = torch.channels_last
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    torch.set_warn_always(True)
    try:
        wrapped = DistributedDataParallel(net)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            for batch in batches(2):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = wrapped(batch["image"]).float().sum()
                loss.backward()
    finally:
        torch.set_warn_always(False)
        torch.distributed.destroy_process_group()
    assert any("bucket view strides" in str(each.message) for each in found) is is_plain


def test_s2_a_resumed_fold_of_a_convolutional_network_ends_at_the_same_bytes(competition, tmp_path):
    changes = {"model.backbone": CONVNET, "model.backbone_args": None, "trainer.max_epochs": 2}
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = ["fit", "--config", str(path), "--fold", "0"]
    assert main([*words, "--name", "whole"]) == 0
    with power_gone_after(1):
        main([*words, "--name", "parts"])
    assert main([*words, "--name", "parts", "--resume"]) == 0
    whole, parts = (tmp_path / "runs" / name / "fold_0" / "weights.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_s4_one_group_per_rate_and_decay_and_one_launch_for_each(monkeypatch):
    task = FineTuneTask(
        ClassificationHead,
        backbone="swin_tiny_patch4_window7_224",
        pretrained=False,
        backbone_args=dict(TINY_SWIN, depths=[2, 2]),
        num_outputs=3,
        context=TaskContext(image_size=32),
    )
    groups = task.parameter_groups()
    assert len(groups) == 2  # with decay and without, of a network from scratch
    assert len({(group["lr"], group["weight_decay"]) for group in groups}) == 2
    by_layer = layer_groups(task.net.backbone, [task.net.head], task.optim)
    assert len(by_layer) > 4
    assert groups[0]["layers"] == sorted({group["layer"] for group in by_layer})
    launches: list[int] = []
    fused = torch._fused_adamw_
    monkeypatch.setattr(
        torch,
        "_fused_adamw_",
        lambda weights, *more, **options: [launches.append(len(weights)), fused(weights, *more, **options)],
    )
    optimizer = make_optimizer(groups, task.optim, CPU, scales_loss=False)
    for parameter in task.net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert launches == [len(group["params"]) for group in groups]


@pytest.mark.parametrize("optim", [{"layer_decay": 1.0}, {"layer_decay": 0.5, "layer_decay_min_scale": 0.4}])
def test_s4_a_run_saved_with_a_group_per_layer_goes_on_as_if_it_had_always_had_these(
    optim, competition, tmp_path, monkeypatch
):
    changes = {
        "model.freeze_epochs": 1,  # parameters without a state, too
        "trainer.max_epochs": 3,
        "trainer.gradient_clip_val": None,  # a norm over groups adds in their order
        **{f"model.optim.{name}": value for name, value in optim.items()},
    }
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = ["fit", "--config", str(path), "--fold", "0"]
    assert main([*words, "--name", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(FineTuneTask, "parameter_groups", lambda t: layer_groups(t.net.backbone, t._others, t.optim))
        patch.setattr(task_module.rates, "describe_rates", lambda groups: f"{len(groups)} groups")
        with power_gone_after(2):
            main([*words, "--name", "old"])
    assert main([*words, "--name", "old", "--resume"]) == 0
    whole, old = (tmp_path / "runs" / name / "fold_0" for name in ("whole", "old"))
    assert (whole / "weights.safetensors").read_bytes() == (old / "weights.safetensors").read_bytes()
    rates = [
        [json.loads(line)["lr"] for line in (fold / "metrics.jsonl").read_text().splitlines()] for fold in (whole, old)
    ]
    assert rates[0] == rates[1]


def test_s4_a_checkpoint_of_other_groups_is_refused():
    task = make_task()
    by_layer = layer_groups(task.net.backbone, [task.net.head], task.optim)
    saved = make_optimizer(by_layer[1:], task.optim, CPU, scales_loss=False).state_dict()
    with pytest.raises(InputError, match=r"saved with another model\.backbone or model\.optim"):
        task.on_load_checkpoint({"optimizer_states": [saved], "lr_schedulers": []})


def test_s5_buffers_follow_in_one_kernel_for_each_type_whoever_changes_them(monkeypatch):
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(2), persistent=False)
            self.register_buffer("made_later", None)
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.data.add_(1)  # counts up no version
            self.made_later = torch.full((len(x),), 3.0)
            return self.norm(x)

    net = nn.Sequential(*(Counts() for _ in range(3)))
    averaged = AveragedWeights(net, 0.9)
    launches: list[int] = []
    copy_all = torch._foreach_copy_
    monkeypatch.setattr(torch, "_foreach_copy_", lambda a, b: [launches.append(len(a)), copy_all(a, b)])
    for rows in (4, 4, 6):  # a buffer that is made in the first step, and one of another shape in the last
        net(torch.randn(rows, 2))
        launches.clear()
        averaged.update(net)
        for (name, own), (_, followed) in zip(averaged.module.named_buffers(), net.named_buffers(), strict=True):
            assert torch.equal(own, followed), name
            assert own.data_ptr() != followed.data_ptr()
        assert len(launches) == 2  # float32 and int64
    assert not averaged.module[0].made_later.requires_grad


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], True), (["--trainer.deterministic", "true"], False)],
)
def test_s3_cudnn_looks_for_the_quickest_convolutions_unless_told_otherwise(
    options, expected, competition, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    seen = []
    save = FoldRecorder.on_train_epoch_end
    monkeypatch.setattr(
        FoldRecorder,
        "on_train_epoch_end",
        lambda *given: [seen.append(torch.backends.cudnn.benchmark), save(*given)],
    )
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    try:
        assert main(["fit", "--config", str(path), "--fold", "0", "--trainer.max_epochs", "1", *options]) == 0
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [expected]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("images/{id}.jpg", True),
        ({"path": ["images/{id}_l.png", "images/{id}_r.png"]}, True),
        ({"path": ["images/{id}_l.png", "images/{id}_r.png"], "missing": "mask"}, False),
        ({"path": "images/{id}/*.png", "max": 4}, False),
    ],
)
def test_s3_cudnn_does_not_search_for_every_number_of_images_that_a_batch_may_have(
    image, expected, competition, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"data.image": image}))
    for words, wanted in (([], expected), (["--trainer.benchmark", "true"], True)):
        torch.backends.cudnn.benchmark = not wanted
        experiment = Experiment.from_argv(fit_parser(), ["--config", str(path), *words])
        experiment.trainer(tmp_path, "32-true", Checkpoint())
        assert torch.backends.cudnn.benchmark is wanted


def test_s8_a_fold_compiles_one_graph_to_train_and_one_to_evaluate_and_says_both(
    competition, tmp_path, monkeypatch, capsys
):
    """With mixed and unmixed batches, averaged weights, recomputed activations, and a last batch that is not full."""
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    torch._dynamo.reset()
    changes = {
        "model.compute.compile": True,
        "model.mix": {"mixup_alpha": 0.5, "probability": 0.5},
        "model.compute.grad_checkpointing": True,
        "data.batch_size": 5,
        "trainer.max_epochs": 3,
    }
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(path), "--fold", "0"]) == 0
    assert counter.frame_count == 2
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("compiled, and the first ")]
    assert [line.split(" done, in ")[0] for line in said] == [
        "compiled, and the first step",
        "compiled, and the first evaluation batch",
    ]


NETWORKS = [
    ("swin_tiny_patch4_window7_224", TINY_SWIN, 32),
    ("swinv2_tiny_window8_256", TINY_SWIN, 32),
    ("convnext_atto", None, 32),
    ("tf_efficientnet_lite0", None, 32),
    ("vit_tiny_patch16_224", {"depth": 2}, 32),
    (CONVNET, None, 32),
]


@pytest.mark.parametrize(("name", "arguments", "size"), NETWORKS, ids=[name for name, _, _ in NETWORKS])
def test_s10_weights_that_are_cast_once_predict_the_same_bits(name, arguments, size):
    nets = [make_task(name, backbone_args=arguments, image_size=size).net.eval() for _ in range(2)]
    for net in nets:
        set_attention(net, CPU, fast_attention=True)
        for parameter in net.parameters():  # none is 0 or 1, as scales and biases are at the start
            parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    image = batches(1)[0]["image"]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = nets[0].predict(image)
    assert cast_weights(nets, (size, size), CPU, torch.bfloat16) > 0
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for net in nets:
            assert torch.equal(net.predict(image), expected)
    for module in nets[1].modules():
        if type(module) in (nn.Linear, nn.Conv2d):
            seen.append((module.weight.dtype, torch.bfloat16))
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            seen.append((module.weight.dtype, torch.float32))
    assert seen
    assert all(found == wanted for found, wanted in seen)


def test_s10_a_weight_that_is_used_in_any_other_way_stays_and_a_prediction_that_changes_takes_all_back():
    class Standardised(ClassificationHead):
        """Reads its weight in fp32, too."""

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return super().forward(features) + self.linear.weight.std()

    class Branches(ClassificationHead):
        """Computes otherwise with 16-bit weights, which no operation on the weight shows."""

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return super().forward(features) + (self.linear.weight.dtype == torch.float32)

    for head, count in ((Standardised, None), (Branches, 0)):
        task = FineTuneTask(head, CONVNET, False, num_outputs=3, context=TaskContext(image_size=32))
        net = task.net.eval()
        found = cast_weights([net], (32, 32), CPU, torch.bfloat16)
        assert net.head.linear.weight.dtype == torch.float32
        assert (found == 0) is (count == 0)
        is_cast = net.backbone.model.conv1[0].weight.dtype == torch.bfloat16
        assert is_cast is (count is None)


def test_s10_swinft_predict_casts_in_16_bit_and_gives_the_predictions_of_autocast(tiny_run, tmp_path, monkeypatch):
    words = ["predict", str(tiny_run), "--device", "cpu", "--precision", "bf16-mixed"]
    files = []
    for name in ("autocast", "once"):
        with monkeypatch.context() as patch:
            if name == "autocast":
                patch.setattr(compiled_module, "cast_weights", lambda *_: 0)
            casts: list[torch.dtype] = []
            real = ImageModel.predict

            def predict(net, *given, of=casts, real=real, **named):
                of.append(net.head.linear.weight.dtype)
                return real(net, *given, **named)

            patch.setattr(ImageModel, "predict", predict)
            file = tmp_path / f"{name}.csv"
            assert main([*words, "--output", str(file)]) == 0
        assert casts[-1] == (torch.float32 if name == "autocast" else torch.bfloat16)
        files.append(file.read_bytes())
    assert files[0] == files[1]
