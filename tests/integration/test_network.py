"""The network and its training step where a row is unlike the others: rare, alone, mixed, or of the wrong shape."""

import copy

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from swinft import ClassificationHead, Head, ImageModel, MultilabelHead, RegressionHead
from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.metadata import MetadataNetwork
from swinft.model.task import FineTuneTask
from swinft.model.training.ema import AveragedWeights
from swinft.model.training.mixup import MixConfig, draw
from swinft.model.training.optim import OptimConfig, describe_rates, param_groups
from tests.conftest import TINY_SWIN, with_context

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
LR = 1e-3


class Blind(nn.Module):
    """A backbone that sees nothing: what is learnt comes from metadata."""

    num_features = 2

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(image), 2)


def make_task(**options) -> FineTuneTask:
    pl.seed_everything(0, verbose=False)
    defaults = {"head": ClassificationHead, "pretrained": False, "backbone_args": dict(TINY_SWIN), "num_outputs": 3}
    task = FineTuneTask(**with_context(**{**defaults, "image_size": 32, **options}))
    task.net.is_initialized = True  # in encoded units as they are
    return task


def batch_of(size: int, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    image = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return {"image": image, "row": torch.arange(size), "target": torch.arange(size) % 3, **more}


def loader_of(batch: dict[str, torch.Tensor], batch_size: int) -> DataLoader:
    rows = [{name: tensor[k] for name, tensor in batch.items()} for k in range(len(batch["row"]))]
    return DataLoader(rows, batch_size)


def step(task: FineTuneTask, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """One training step outside of a Trainer."""
    task.log = lambda *_, **__: None
    return task.training_step(batch, 0)


def validated(task: FineTuneTask, loader: DataLoader) -> dict[str, float]:
    trainer = pl.Trainer(accelerator="cpu", **QUIET)
    (scores,) = trainer.validate(task, loader, verbose=False)
    return scores


@pytest.fixture
def rare():
    """4,000 rows with a number, a common category and 20 rare ones of 4 rows each; the target depends on both."""
    rng = np.random.default_rng(0)
    category = np.zeros(4000, dtype=int)
    category[:80] = np.repeat(np.arange(1, 21), 4)
    number = rng.normal(1000, 100, 4000)
    effect = np.concatenate([[0], rng.normal(0, 2, 20)])
    target = (number - 1000) / 100 + effect[category] + rng.normal(0, 0.3, 4000)
    features = np.concatenate([number[:, None], np.eye(21)[category]], axis=1)
    return torch.tensor(features).float(), torch.tensor(target).float()[:, None], torch.tensor(category)


def test_f023_rare_category_is_predicted_like_the_others(rare):
    features, targets, category = rare
    torch.manual_seed(0)
    net = ImageModel(Blind(), RegressionHead, 1, 22, 32, [21])
    net.initialize(targets, features)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    images = torch.zeros(16, 0)
    for epoch in range(6):
        order = torch.randperm(4000, generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(16):
            loss = net.head.loss(net(images, features[rows]), net.head.encode(targets[rows])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        errors = (net.eval().predict(torch.zeros(4000, 0), features) - targets).square().flatten()
    rare_rmse, other_rmse = errors[category > 0].mean().sqrt(), errors[category == 0].mean().sqrt()
    assert other_rmse < 0.4
    assert rare_rmse < 1.5 * other_rmse


def test_f023_a_row_is_in_evaluation_what_it_was_in_training(rare):
    features, targets, _ = rare
    net = ImageModel(Blind(), RegressionHead, 1, 22, 32, [21])
    net.initialize(targets, features)
    whole = net.train().metadata.encode(features)
    assert torch.equal(whole, net.eval().metadata.encode(features))
    assert torch.equal(whole[:1], net.train().metadata.encode(features[:1]))
    assert whole[:, 1:].max() == 1  # and not 31, let alone 314


def test_f023_numbers_are_standardised_exactly_and_columns_that_never_change_are_silent():
    rng = np.random.default_rng(0)
    columns = np.stack([rng.normal(1000, 100, 997), rng.normal(1e-6, 1e-9, 997), np.full(997, 0.1)], axis=1)
    columns = columns.astype(np.float32)
    network = MetadataNetwork(3, [], 8)
    network.initialize(torch.from_numpy(columns))
    exact = columns.astype(np.float64)
    expected = (exact - exact.mean(0))[:, :2] / exact.std(0)[:2]
    found = network.encode(torch.from_numpy(columns)).double().numpy()
    np.testing.assert_allclose(found[:, :2], expected, atol=2e-4)
    assert not found[:, 2].any()
    other = torch.tensor([[1000.0, 1e-6, 5e9]])
    assert network.encode(other)[0, 2] == 0


def test_f023_gaps_and_unknown_categories_have_a_meaning():
    features = torch.tensor([[1.0, 1, 0, 0], [torch.nan, 0, 1, 0], [3.0, 1, 0, 0], [5.0, 0, 0, 1]])
    network = MetadataNetwork(4, [3], 8)
    network.initialize(features)
    assert network.encode(features)[:, 1].tolist() == [0, 1, 0, 0]  # a feature says where the gap is
    assert network.encode(features).isfinite().all()
    with torch.no_grad():
        nn.init.normal_(network.linear.weight)
        unknown = torch.tensor([[3.0, 0, 0, 0]])
        inner = network.linear(network.encode(unknown))
        each = torch.stack(
            [network.linear(network.encode(torch.tensor([[3.0, *row]]))) for row in torch.eye(3).tolist()]
        )
    torch.testing.assert_close(inner, (each * torch.tensor([0.5, 0.25, 0.25])[:, None, None]).sum(0))
    whole = MetadataNetwork(1, [], 8)
    whole.initialize(torch.tensor([[1.0], [2.0]]))
    missing = whole.encode(torch.tensor([[torch.nan]]))
    assert torch.equal(missing, whole.encode(torch.tensor([[1.5]])))  # no gap in training: no untrained weight speaks


def test_f023_a_training_batch_of_one_row_works():
    task = make_task(num_metadata=2).train()
    task.initialize(torch.arange(3), torch.randn(3, 2))
    assert step(task, batch_of(1, features=torch.randn(1, 2))).isfinite()


def test_f024_all_of_a_row_is_mixed():
    rng = np.random.default_rng(0)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8) * 10
    encoded, metadata, weight = (torch.arange(4.0)[:, None] * factor for factor in (1, 100, 7))
    changed = {}
    for config in [MixConfig(mixup_alpha=1), MixConfig(cutmix_alpha=1)] * 4:
        mixing = draw(config, images, rng)
        image, target, rest = mixing.rows(images, encoded, {"metadata": metadata, "weight": weight[:, 0]})
        more = list(rest.values())
        shown = image.mean((1, 2, 3)) / 10
        changed[config] = changed.get(config, False) or not torch.equal(shown, torch.arange(4.0))
        for mixed, factor in ((target, 1), (more[0], 100), (more[1], 7)):
            torch.testing.assert_close(mixed.flatten() / factor, shown, atol=1e-4, rtol=1e-4)
    assert all(changed.values())


def test_f024_the_training_step_mixes_metadata(monkeypatch):
    task = make_task(num_metadata=2, mix=MixConfig(mixup_alpha=1)).train()
    features = torch.tensor([[0.0, torch.nan], [100, 1], [200, 1], [250, 3]])
    task.initialize(torch.arange(4) % 3, features)
    seen = {}

    def logits(image, more):
        seen.update(i=image, m=more["metadata"])
        return torch.zeros(4, 3), {}

    monkeypatch.setattr(task.net, "all_logits", logits)
    batch = batch_of(4, features=features)
    batch["image"] = torch.arange(4).view(4, 1, 1, 1).expand(4, 3, 32, 32).to(torch.uint8) * 50
    step(task, batch)
    encoded = task.net.metadata.encode(features)
    # The rows' own part and the other's, found from the pixels, is that of the metadata.
    pixels = seen["i"].mean((1, 2, 3)) / 50
    for row in range(4):
        fits = [
            (abs(float(pixels[row]) - (lam * row + (1 - lam) * other)), lam, other)
            for other in range(4)
            for lam in np.linspace(0, 1, 1001)
        ]
        near = [(lam, other) for error, lam, other in fits if error < 2e-3]
        expected = [lam * encoded[row] + (1 - lam) * encoded[other] for lam, other in near]
        assert any(torch.allclose(seen["m"][row], each, atol=0.02) for each in expected)
    assert seen["m"].isfinite().all()


def test_f024_weights_count_in_the_training_loss():
    task = make_task().eval()
    batch = batch_of(2)
    both = step(task, batch_of(2, weight=torch.tensor([1.0, 0.0])))
    losses = task.net.head.loss(task.net(batch["image"]), task.net.head.encode(batch["target"]))
    torch.testing.assert_close(both, losses[0] / 2)


FAMILIES = {
    "vit_tiny_patch16_224": 224,
    "deit_tiny_patch16_224": 224,
    "beit_base_patch16_224": 224,
    "eva02_tiny_patch14_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "swinv2_tiny_window8_256": 256,
    "convnext_tiny": 64,
    "tf_efficientnetv2_s": 64,
    "resnet50": 64,
    "maxvit_tiny_tf_224": 224,
    "mixer_s32_224": 224,
    "densenet121": 64,
    "regnety_002": 64,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_f025_layer_wise_decay_is_timms(name):
    with torch.device("meta"):
        timms = timm.create_model(name, num_classes=3)
        bare = timm.create_model(name, num_classes=0)
    names = {id(p): n for n, p in timms.named_parameters()}
    skip = timms.no_weight_decay() if hasattr(timms, "no_weight_decay") else ()
    expected = {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(timms, 0.05, skip, layer_decay=0.7, min_scale=0.01)
        for p in group["params"]
    }
    backbone = nn.Module()
    backbone.model = bare
    head = nn.Linear(4, 3)
    config = OptimConfig(lr=LR, layer_decay=0.7, layer_decay_min_scale=0.01)
    groups = param_groups(backbone, [head], config)
    own = {id(p): n for n, p in bare.named_parameters()}
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted([*own, *(id(p) for p in head.parameters())])
    for group in groups:
        for p in group["params"]:
            if id(p) in own:
                assert (pytest.approx(group["lr"] / LR), group["weight_decay"]) == expected[own[id(p)]], own[id(p)]
            else:
                assert group["lr"] == LR
    layers = len({scale for scale, _ in expected.values()})
    first = f"learning rates from {min(group['lr'] for group in groups):.3g} (stem) to 0.001 (head) in "
    assert describe_rates(groups).startswith(first)
    assert int(describe_rates(groups).split()[-2]) >= layers


def test_f025_the_last_block_is_one_layer_below_the_head_and_a_line_says_so(capsys):
    task = make_task(optim=OptimConfig(lr=1e-2, layer_decay=0.5))
    pl.Trainer(accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, **QUIET).fit(task, loader_of(batch_of(6), 3))
    rates = {id(p): group["initial_lr"] for group in task.trainer.optimizers[0].param_groups for p in group["params"]}
    first, last = (layer.blocks[0].mlp.fc1.weight for layer in task.net.backbone.model.layers)
    found = [rates[id(p)] for p in (first, last, task.net.head.linear.weight)]
    assert found == pytest.approx([0.0025, 0.005, 0.01])
    # Tiny Swin: stem, two blocks, the last norm with the last block, head.
    assert "learning rates from 0.00125 (stem) to 0.01 (head) in 4 layers" in capsys.readouterr().out


def test_f025_a_frozen_stem_is_in_no_group():
    backbone = create_backbone("swin_tiny_patch4_window7_224", 32, False, backbone_args=dict(TINY_SWIN))
    backbone.model.patch_embed.requires_grad_(False)
    groups = param_groups(backbone, [], OptimConfig(lr=LR, layer_decay=0.5))
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in backbone.parameters())


def test_f026_val_loss_does_not_depend_on_the_batch_size():
    task = make_task(head=lambda d, k: ClassificationHead(d, k, class_weights=[1.0, 10.0, 0.1], label_smoothing=0.1))
    batch = batch_of(64)
    batch["target"] = torch.tensor([0] * 50 + [1] * 4 + [2] * 10)
    task.initialize(batch["target"])
    found = [validated(task, loader_of(batch, size))["val_loss"] for size in (1, 4, 16, 64)]
    assert found == pytest.approx([found[0]] * 4, rel=1e-5)
    logits = task.net.eval()(batch["image"]).detach()
    weight = torch.tensor([1.0, 10.0, 0.1])
    expected = functional.cross_entropy(logits, batch["target"], weight, label_smoothing=0.1)
    assert found[0] == pytest.approx(expected.item(), rel=1e-5)


def test_f026_a_rare_class_weighs_more_in_a_batch_of_its_own_too():
    head = ClassificationHead(8, 2, class_weights=[1.0, 9.0])
    head.initialize(torch.tensor([0] * 9 + [1]))
    logits = torch.zeros(1, 2)
    losses = [head.loss(logits, head.encode(torch.tensor([k]))) for k in (0, 1)]
    torch.testing.assert_close(losses[1], 9 * losses[0])
    again = ClassificationHead(8, 2, class_weights=[1.0, 9.0])
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again.weights, head.weights)  # a resumed training weighs as before


class TwoOutputs(RegressionHead):
    """A head that gives its outputs in a tuple."""

    def forward(self, features):
        return super().forward(features), features


class Flat(RegressionHead):
    """A head whose logits have lost their second dimension."""

    def forward(self, features):
        return super().forward(features)[:, 0]

    def loss(self, logits, encoded):
        return functional.mse_loss(logits, encoded, reduction="none").mean(1)


class OneLoss(RegressionHead):
    """A head that averages over the batch."""

    def loss(self, logits, encoded):
        return functional.mse_loss(logits, encoded)


class FlatAnswers(RegressionHead):
    """A head that decodes to one number per row, without its column."""

    def decode(self, logits):
        return super().decode(logits)[:, 0]


@pytest.mark.parametrize("run", ["training", "validation"])
@pytest.mark.parametrize(
    ("head", "outputs", "target", "message"),
    [
        (RegressionHead, 1, torch.zeros(4), r"`target` is torch.float32 \(4,\).* it must be numbers \(4, 1\)"),
        (RegressionHead, 4, torch.zeros(4), r"it must be numbers \(4, 4\)"),
        (RegressionHead, 2, torch.zeros(4, 1), r"it must be numbers \(4, 2\)"),
        (MultilabelHead, 3, torch.zeros(4, 1), r"it must be numbers \(4, 3\)"),
        (ClassificationHead, 3, torch.zeros(4, 1).long(), r"it must be class indices \(4,\)"),
        (ClassificationHead, 3, torch.zeros(4), r"it must be class indices \(4,\)"),
        (TwoOutputs, 1, torch.zeros(4, 1), r"TwoOutputs returns a tuple as logits; it must return one tensor"),
        (
            Flat,
            1,
            torch.zeros(4, 1),
            r"Flat returns logits \(4,\) for encoded targets \(4, 1\): they would be broadcast",
        ),
        (OneLoss, 1, torch.zeros(4, 1), r"OneLoss.loss returns a tensor \(\); it must return one loss per row, \(4,\)"),
    ],
)
def test_f027_shapes_are_checked_and_never_broadcast(run, head, outputs, target, message):
    task = make_task(head=head, num_outputs=outputs)
    batch = batch_of(4) | {"target": target}
    with pytest.raises(InputError, match=message):
        step(task, batch) if run == "training" else task.validation_step(batch, 0)


def test_f027_predictions_have_a_column_per_output():
    task = make_task(head=FlatAnswers, num_outputs=1).eval()
    with pytest.raises(
        InputError, match=r"FlatAnswers.decode returns a tensor \(4,\); it must return predictions \(4, 1\)"
    ):
        task.predict_step(batch_of(4), 0)


def test_f027_a_head_of_ones_own_with_logits_of_its_own_works():
    class Spread(Head):
        """Mean and deviation of a number."""

        kind, default_metrics = "regression", ["rmse"]

        def __init__(self, in_features, num_outputs):
            super().__init__(in_features, num_outputs)
            self.linear = nn.Linear(in_features, 2 * num_outputs)

        def forward(self, features):
            return self.linear(features)

        def encode(self, target):
            return target

        def loss(self, logits, encoded):
            mean, deviation = logits.chunk(2, 1)
            return functional.gaussian_nll_loss(mean, encoded, deviation.exp(), reduction="none").mean(1)

        def decode(self, logits):
            return logits.chunk(2, 1)[0]

    task = make_task(head=Spread, num_outputs=1)
    assert step(task, batch_of(4) | {"target": torch.zeros(4, 1)}).isfinite()
    assert task.eval().predict_step(batch_of(4), 0)["prediction"].shape == (4, 1)


def test_f098_buffers_that_change_their_shape_are_replaced():
    net = timm.create_model("convit_tiny", num_classes=2, img_size=32, depth=1, local_up_to_layer=1)
    averaged = AveragedWeights(net, 0.9)
    net(torch.zeros(1, 3, 32, 32))
    averaged.update(net)
    for own, followed in zip(averaged.module.buffers(), net.buffers(), strict=True):
        assert torch.equal(own, followed)
    for own, followed in zip(averaged.module.buffers(), net.buffers(), strict=True):
        assert own.data_ptr() != followed.data_ptr()
    averaged.module(torch.zeros(1, 3, 32, 32))


def test_f098_buffers_that_appear_and_go_are_followed():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("first", torch.zeros(1))
            self.register_buffer("later", None)

    net = Growing()
    averaged = AveragedWeights(net, 0.9)
    net.later, net.first = torch.ones(3), None
    averaged.update(net)
    assert averaged.module.first is None
    assert torch.equal(averaged.module.later, torch.ones(3))
    assert copy.deepcopy(averaged).module.later is not None
