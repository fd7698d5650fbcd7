"""Several images of a row become one vector: what is masked has no influence, and order only where it should."""

import pytest
import torch

from swinft import ClassificationHead, FineTuneTask, Fusion, PoolingConfig, TaskContext
from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import Channels, create_backbone
from swinft.model.fusion import NAMED
from swinft.model.training.mixup import FEATURES, MixConfig, Mixing, cutmix, mixup
from tests.conftest import TINY_SWIN

SIDE, V = 32, 3
RNG = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (4, V, 3, SIDE, SIDE), dtype=torch.uint8, generator=RNG)
MASK = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0]]).bool()


def task_of(images="mean", backbone="swin_tiny_patch4_window7_224", arguments=TINY_SWIN, **options):
    torch.manual_seed(0)
    task = FineTuneTask(
        ClassificationHead,
        backbone,
        pretrained=False,
        backbone_args=dict(arguments),
        pooling=PoolingConfig(images=images),
        num_outputs=3,
        context=TaskContext(image_size=SIDE, num_images=V),
        **options,
    )
    for parameter in task.net.fusion.parameters():  # attention begins as a mean
        torch.nn.init.normal_(parameter, std=0.5)
    return task


def spoiled(images, mask):
    """The same with other pixels where no image is, NaN among them."""
    other = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)) * 1e4
    other[..., 0, 0] = torch.nan
    return torch.where(mask[:, :, None, None, None], images.float(), other)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("backbone", ["swin", "batch_norm"])
def test_what_is_masked_has_no_influence_in_training_and_evaluation(name, backbone):
    net = (task_of(name) if backbone == "swin" else task_of(name, "resnet10t", {})).net
    for is_training in (True, False):
        found = []
        for images in (IMAGES.float(), spoiled(IMAGES, MASK)):
            net.train(is_training).zero_grad()
            torch.manual_seed(0)
            logits = net(images, image_mask=MASK)
            logits.sum().backward()
            found.append([logits.detach(), *(each.grad.clone() for each in net.parameters() if each.grad is not None)])
        assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
        assert found[0][0].isfinite().all()


@pytest.mark.parametrize("name", NAMED)
def test_order_matters_for_gru_and_concatenation_alone(name):
    net = task_of(name).net.eval()
    one, other = net(IMAGES, image_mask=MASK), net(IMAGES.flip(1), image_mask=MASK.flip(1))
    assert torch.allclose(one, other, atol=1e-5) == (name not in ("gru", "concat"))
    alone = net(IMAGES[2:3], image_mask=MASK[2:3])
    torch.testing.assert_close(alone, one[2:3], rtol=1e-4, atol=1e-5)


def test_mean_and_max_are_those_of_the_images_that_are_there():
    features = torch.randn(4, V, 5)
    for name, pooled in (("mean", lambda each: each.mean(0)), ("max", lambda each: each.amax(0))):
        expected = torch.stack([pooled(row[there]) for row, there in zip(features, MASK, strict=True)])
        torch.testing.assert_close(NAMED[name](5, V)(features, MASK), expected)


def test_gru_leaves_gaps_out_of_the_order():
    gru = NAMED["gru"](6, V)
    features = torch.randn(1, V, 6)
    gap, packed = torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]])
    torch.testing.assert_close(gru(features, gap), gru(features[:, [0, 2, 1]], packed))
    whole = torch.cat([gru.onwards(features)[0][:, -1], gru.backwards(features.flip(1))[0][:, -1]], 1)
    torch.testing.assert_close(gru(features, torch.ones(1, V).bool()), whole)


def test_mixtures_show_an_image_where_either_row_has_one():
    order, targets = torch.tensor([1, 2, 3, 0]), torch.eye(4)
    images, _, mask = mixup(IMAGES, targets, 0.25, order, MASK.float())
    torch.testing.assert_close(images[0], 0.25 * IMAGES[0].float() + 0.75 * IMAGES[1].float())
    assert torch.equal(mask > 0, MASK | MASK[order])
    pasted, _, mask = cutmix(IMAGES, targets, (2, 9, 3, 30), order, MASK.float())
    assert torch.equal(pasted[..., 2:9, 3:30], IMAGES[order][..., 2:9, 3:30])
    assert torch.equal(pasted[..., 9:, :], IMAGES[..., 9:, :])
    assert torch.equal(mask > 0, MASK | MASK[order])
    for mixing in (Mixing(0.25, order), Mixing(0.25, order, (2, 9, 3, 30)), Mixing(0.25, order, place=FEATURES)):
        images, _, more = mixing.rows(IMAGES, targets, {"image_mask": MASK})
        is_mixed = not torch.equal(images, IMAGES)
        assert torch.equal(more["image_mask"] > 0, MASK | MASK[order] if is_mixed else MASK)
        assert is_mixed == (mixing.place != FEATURES)
    with pytest.raises(InputError, match="a row has several images"):
        task_of("attention", mix=MixConfig(mixup_alpha=0.4, mixup_at="random"))


def test_one_image_has_no_fusion_and_refuses_one():
    options = {"pretrained": False, "backbone_args": dict(TINY_SWIN), "num_outputs": 3}
    plain = FineTuneTask(ClassificationHead, **options, context=TaskContext(image_size=SIDE))
    assert not [name for name in plain.net.state_dict() if "fusion" in name]
    with pytest.raises(InputError, match=r"model\.pooling\.images is 'gru', and a row has one image"):
        FineTuneTask(ClassificationHead, **options, pooling={"images": "gru"}, context=TaskContext(image_size=SIDE))
    with pytest.raises(InputError, match="made for 3 images of a row"):
        task_of().net(IMAGES[:, 0])
    with pytest.raises(InputError, match="Did you mean 'attention'"):
        task_of("atention")
    with pytest.raises(InputError, match="must be a name, or a class"):
        task_of(lambda width, number: torch.nn.Identity())


class First(Fusion):
    """The first image."""

    def __init__(self, in_features, num_images, times=1.0):
        super().__init__(in_features, num_images)
        self.times = times

    def forward(self, features, mask):
        return self.times * features[:, 0]


def test_a_fusion_of_ones_own_is_kept_by_a_checkpoint():
    task = task_of(lambda width, number: First(width, number, times=2.0))
    spec = task.hparams["pooling"]
    assert spec["images"]["init_args"] == {"times": 2.0}
    again = FineTuneTask(**{**task.hparams, "head": ClassificationHead})
    assert again.net.fusion.times == 2.0
    again.net.load_state_dict(task.net.state_dict())
    images = IMAGES.clone()
    before = again.net.eval()(images)
    images[:, 1:] = 0
    assert torch.equal(again.net(images), before)


@pytest.mark.parametrize(("count", "are_grey"), [(1, True), (5, True), (6, False)])
def test_other_channels_get_pretrained_weights_as_timm_adapts_them(count, are_grey, tmp_path):
    torch.manual_seed(0)
    rgb = create_backbone("resnet10t", 64, pretrained=False).eval()
    torch.save(rgb.model.state_dict(), tmp_path / "rgb.pth")
    made = create_backbone("resnet10t", 64, str(tmp_path / "rgb.pth"), channels=Channels(count, are_grey)).eval()
    assert made.num_channels == count
    same = torch.randint(0, 256, (2, 1, 64, 64), generator=RNG).float()
    # Of a grey image the first layer sees what it saw of the same in RGB, but for the colours' means.
    made.mean.fill_(120.0), made.std.fill_(60.0), rgb.mean.fill_(120.0), rgb.std.fill_(60.0)
    one, other = made(same.expand(-1, count, -1, -1)), rgb(same.expand(-1, 3, -1, -1))
    if count in (1, 6):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    torch.save(made.model.state_dict(), tmp_path / "own.pth")
    again = create_backbone("resnet10t", 64, str(tmp_path / "own.pth"), channels=Channels(count, are_grey))
    assert torch.equal(again.model.conv1[0].weight, made.model.conv1[0].weight)
