"""`model.pooling`: one layout for every backbone, and what a backbone has behind its own pooling stays."""

import pytest
import torch
from torch import nn

from swinft import ClassificationHead, FineTuneTask, Pooling
from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.pooling import ClassTokenPooling, GatedAttentionPooling, StagesPooling
from tests.conftest import TINY_SWIN, with_context

RNG = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=RNG)
# Maps of channels first and last, tokens with a class token; a norm, a convolution or nothing behind the pooling.
FAMILIES = {
    "swin_tiny_patch4_window7_224": TINY_SWIN,
    "resnet10t": {},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 12]},
    "vit_tiny_patch16_224": {"embed_dim": 12, "depth": 1, "num_heads": 1, "global_pool": "avg"},
    "mobilenetv3_small_050": {},
}


class Mean(Pooling):
    """What most backbones do themselves."""

    def forward(self, tokens, grid):
        assert tokens.shape[1] == grid[0] * grid[1]
        assert grid[0] < grid[1]  # as the images
        return tokens.mean(1)


class TwoMeans(Pooling):
    """Means of the upper and the lower half, side by side."""

    def __init__(self, in_features, extra=0):
        super().__init__(in_features)
        self.num_features = 2 * in_features + extra
        self.extra = extra

    def forward(self, tokens, grid):
        rows = tokens.unflatten(1, grid)
        half = grid[0] // 2
        halves = [rows[:, :half].mean((1, 2)), rows[:, half:].mean((1, 2)), tokens[:, 0, : self.extra]]
        return torch.cat(halves, 1)


class Plain(nn.Module):
    """A backbone of one's own with nothing but a map of features."""

    num_features = 3

    def forward_features(self, image):
        return image

    def forward(self, image):
        return image.mean((2, 3))


def task_of(**options):
    defaults = {"pretrained": False, "backbone_args": dict(TINY_SWIN), "num_outputs": 3, "image_size": 32}
    return FineTuneTask(ClassificationHead, **with_context(**{**defaults, **options}))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mean_of_ones_own_is_the_backbones_own_pooling(name):
    torch.manual_seed(0)
    backbone = create_backbone(name, (64, 96), pretrained=False, backbone_args=FAMILIES[name]).eval()
    for parameter in backbone.parameters():  # a norm that does nothing would not be missed
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        own = backbone(IMAGES)
        again = backbone(IMAGES, Mean(backbone.model.num_features))
        both = backbone(IMAGES, TwoMeans(backbone.model.num_features))
    assert own.std() > 1e-3
    torch.testing.assert_close(again, own, rtol=1e-4, atol=1e-5)
    assert both.shape == (2, 2 * own.shape[1])


@pytest.mark.parametrize(
    ("pooling", "width", "formula"),
    [
        ("max", 24, lambda x: x.amax(1)),
        ("gem", 24, lambda x: x.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)),
        ("avgmax", 24, lambda x: (x.mean(1) + x.amax(1)) / 2),
        ("avg+max", 48, lambda x: torch.cat([x.mean(1), x.amax(1)], 1)),
        ("attention", 24, lambda x: x.mean(1)),  # at the start all positions weigh the same
        ("gated_attention", 24, lambda x: x.mean(1)),
        ("stages", 36, None),
        (lambda d: TwoMeans(d), 48, None),
    ],
)
def test_a_pooling_is_its_formula_and_learns_with_the_head(pooling, width, formula):
    task = task_of(pooling=pooling, freeze_epochs=1).eval()
    assert task.net.head.in_features == width
    images = IMAGES[:, :, :32, :32]
    if formula is not None:
        tokens = task.net.backbone.model.forward_features((images - task.net.backbone.mean) / task.net.backbone.std)
        expected = task.net.head(formula(tokens.flatten(1, 2)))
        torch.testing.assert_close(task.net(images), expected, rtol=1e-4, atol=1e-5)
    rates = {id(p): group["lr"] for group in task.parameter_groups() for p in group["params"]}
    own = list(task.net.pooling.parameters())
    assert {rates[id(each)] for each in own} <= {rates[id(task.net.head.linear.weight)]}
    assert not {id(each) for each in own} & {id(each) for each in task.net.backbone.parameters()}
    task.net(images).sum().backward()
    assert all(each.grad is not None for each in task.net.parameters())  # DDP waits for every one
    made = {name: task.hparams[name] for name in ("pooling", "head")}
    again = task_of(pooling=made["pooling"]).eval()
    again.net.load_state_dict(task.net.state_dict())
    torch.testing.assert_close(again.net(images), task.net(images))


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_are_the_backbones_own_features_and_those_of_earlier_stages(name):
    torch.manual_seed(0)
    backbone = create_backbone(name, (64, 96), pretrained=False, backbone_args=FAMILIES[name]).eval()
    model, images = backbone.model, (IMAGES - backbone.mean) / backbone.std
    count, width = len(model.feature_info), backbone.num_features
    with torch.no_grad():
        own, maps = backbone(IMAGES), model.forward_intermediates(images, intermediates_only=True)
        last = backbone(IMAGES, StagesPooling(model.num_features, [-1]))
        torch.testing.assert_close(last[:, :width], own, rtol=1e-4, atol=1e-5)
        assert last.shape[1] == width + maps[-1].shape[1]
        if count > 1:
            found = backbone(IMAGES, StagesPooling(model.num_features, 2, "max"))
            before = maps[-2].amax((2, 3))
            expected = (before - before.mean(1, keepdim=True)) / (
                before.var(1, correction=0, keepdim=True) + 1e-5
            ).sqrt()
            torch.testing.assert_close(found[:, width:], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(
        InputError, match=f"stages is \\[{count}\\], and {type(model).__name__} has {count} stages, 0 to"
    ):
        backbone(IMAGES, StagesPooling(model.num_features, [count]))


VIT = {"embed_dim": 12, "depth": 2, "num_heads": 1}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", VIT),
        ("deit_tiny_distilled_patch16_224", VIT),
        ("beit_base_patch16_224", VIT),
        ("vit_small_patch16_dinov3_qkvb", {**VIT, "num_heads": 3}),  # register tokens behind the class token
        ("cait_xxs24_224", {**VIT, "num_heads": 2, "depth_token_only": 1}),
    ],
)
def test_the_class_token_is_the_first_token_whatever_the_backbones_own_pooling(name, arguments):
    torch.manual_seed(0)
    backbone = create_backbone(name, 224, pretrained=False, backbone_args=arguments).eval()
    model, images = backbone.model, IMAGES[:, :, :, :64].repeat(1, 1, 4, 4)[:, :, :224, :224]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        found = backbone(images, ClassTokenPooling(model.num_features))
        tokens = model.forward_features((images - backbone.mean) / backbone.std)
    behind = model.fc_norm if hasattr(model, "fc_norm") else nn.Identity()
    torch.testing.assert_close(found, behind(tokens[:, 0]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, behind(tokens[:, 1]), atol=1e-3)


def test_gated_attention_looks_where_it_has_learnt_to():
    pool, tokens = GatedAttentionPooling(4, hidden=3), torch.randn(2, 6, 4, generator=RNG)
    nn.init.normal_(pool.score.weight)
    hidden = torch.tanh(pool.value(tokens)) * torch.sigmoid(pool.gate(tokens))
    weights = (hidden @ pool.score.weight[0]).softmax(1)
    torch.testing.assert_close(pool(tokens, (2, 3)), torch.einsum("bn,bnc->bc", weights, tokens))


def test_avg_is_the_network_of_before():
    torch.manual_seed(0)
    net = task_of().net
    assert net.pooling is None
    assert not any("pooling" in name for name in net.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pooling": "mean"},
            r"model.pooling is 'mean'; it must be avg, max, gem, avgmax, avg\+max, .*stages, or a class",
        ),
        ({"pooling": "cls"}, "SwinTransformer has no class token: set model.pooling to avg"),
        (
            {"pooling": "stages", "backbone": Plain, "backbone_args": None},
            "Plain does not return the features of its stages",
        ),
        ({"pooling": lambda d: StagesPooling(d, 1)}, "StagesPooling: stages is 1. Allowed: a whole number from 2"),
        ({"pooling": lambda d: StagesPooling(d, 9)}, "stages is 9, and SwinTransformer has 2 stages, 0 to 1"),
        ({"pooling": lambda d: StagesPooling(d, pool="min")}, "pool is 'min'; it must be avg or max"),
        ({"pooling": lambda d: GatedAttentionPooling(d, 0)}, "hidden is 0. Allowed: a whole number from 1"),
        ({"pooling": lambda d: TwoMeans(d, 1)}, r"TwoMeans returns 49 features for 24 channels \(model.pooling\)"),
        ({"pooling": lambda d: nn.Identity()}, r"model.pooling makes Identity with num_features None; it must be"),
        ({"pooling": {"class_path": "os.system"}}, "the pooling is a 'os.system', which is not loaded"),
        (
            {"pooling": "gem", "backbone": "crossvit_9_240", "backbone_args": None, "image_size": 240},
            "CrossVit.forward_features returns a list for .* which is not a feature map: set model.pooling to avg",
        ),
    ],
)
def test_what_cannot_be_pooled_is_refused_with_what_to_do(options, message):
    with pytest.raises(InputError, match=message):
        task_of(**options)
