"""Segmentation: losses and metrics against independent answers, and networks with maps of every form."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score
from torch.nn import functional

from swinft.errors import InputError
from swinft.inference.maps import Maps, levels_of
from swinft.model.backbones.feature_maps import padded_size
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.heads import (
    DiceLoss,
    LovaszLoss,
    SegmentationHead,
    SoftmaxDiceLoss,
    SoftmaxLovaszLoss,
    SoftmaxSegmentationHead,
)
from swinft.model.heads.mask_losses import SoftmaxFocalMaskLoss, SoftmaxPixelLoss
from swinft.model.metrics.pixel_counts import (
    dice,
    dice_of_present,
    iou,
    level_counts,
    level_of,
    map_over_iou,
    pooled_dice,
)
from swinft.model.network import ImageModel
from swinft.model.training.mixup import MixConfig
from swinft.model.training.optim import OptimConfig
from tests.conftest import TINY_SWIN
from tests.model.test_task import Rows, fit, make_task

SWIN = "swin_tiny_patch4_window7_224"
RNG = np.random.default_rng(0)
FOUND, TRUE = RNG.random((2, 5, 2, 6, 7)) < [[[[[0.4]]]], [[[[0.5]]]]]
LOGITS, MASKS = (
    torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0)),
    torch.from_numpy(TRUE[:3, :, :5, :4]),
)


def counts(found, true):
    both = [(found & true).sum((2, 3)), found.sum((2, 3))]
    return np.stack(both, axis=2).astype(float), true.sum((2, 3)).astype(float)


def network(size=(32, 32), backbone=SWIN, args=TINY_SWIN, outputs=2, **options):
    torch.manual_seed(0)
    found = create_backbone(backbone, padded_size(size), False, backbone_args=dict(args))
    return ImageModel(found, partial(SegmentationHead, **options), outputs, 0, 8, image_size=size)


def test_metrics_are_scikit_learns_on_pixels():
    given = counts(FOUND, TRUE)
    flat = [(FOUND[i, k].ravel(), TRUE[i, k].ravel()) for i in range(5) for k in range(2)]
    assert dice(*given) == pytest.approx(np.mean([f1_score(true, found) for found, true in flat]))
    ious = [jaccard_score(true, found) for found, true in flat]
    assert iou(*given) == pytest.approx(np.mean(ious))
    expected = [np.mean([iou > t for t in np.arange(0.5, 1, 0.05)]) for iou in ious]
    assert map_over_iou(*given) == pytest.approx(np.mean(expected))
    pooled = [f1_score(TRUE[:, k].ravel(), FOUND[:, k].ravel()) for k in range(2)]
    assert pooled_dice(*given) == pytest.approx(np.mean(pooled))
    weights = np.array([0.0, 0, 1, 0, 0])
    assert dice(*given, weights) == pytest.approx(dice(given[0][2:3], given[1][2:3]))
    assert pooled_dice(*given, weights) == pytest.approx(dice(given[0][2:3], given[1][2:3]))


@pytest.mark.parametrize(
    ("both", "union", "score"), [(50, 100, 0), (55, 100, 0.1), (62, 100, 0.3), (85, 100, 0.7), (9, 9, 1)]
)
def test_map_over_iou_has_strict_thresholds(both, union, score):
    assert map_over_iou(np.array([[[both, both]]]), np.array([[union]])) == pytest.approx(score)


@pytest.mark.parametrize("metric", [dice, iou, map_over_iou])
def test_an_empty_mask_counts_1_where_it_is_predicted_empty_and_else_0(metric):
    assert metric(np.zeros((1, 1, 2)), np.zeros((1, 1))) == 1
    assert metric(np.array([[[0.0, 7]]]), np.zeros((1, 1))) == 0
    assert metric(np.zeros((1, 1, 2)), np.array([[69.0]])) == 0
    three = np.array([[[0.0, 0]], [[0, 5]], [[4, 4]]]), np.array([[0.0], [5], [4]])
    assert dice_of_present(*three) == 0.5  # the first one does not count


def test_the_competitions_worked_example():
    upper, lower = np.zeros((2, 4, 4), bool)
    upper[:2], lower[1:3] = True, True
    given = counts(upper[None, None], lower[None, None])
    assert (dice(*given), iou(*given)) == (0.5, pytest.approx(1 / 3))


def test_counts_of_every_level_are_those_of_a_threshold():
    levels = RNG.integers(0, 256, (6, 7)).astype(np.uint8)
    found = level_counts(levels, TRUE[0, 0])
    for level in (0, 1, 100, 255):
        assert found[level].tolist() == [((levels >= level) & TRUE[0, 0]).sum(), (levels >= level).sum()]
    assert [level_of(t) for t in (0, 0.5, 1, 100 / 255)] == [0, 128, 255, 100]


def test_dice_loss_of_certain_logits_is_one_minus_dice_and_of_an_empty_pair_0():
    certain = torch.from_numpy(FOUND).float() * 200 - 100
    found = DiceLoss(smooth=1e-9)(certain, torch.from_numpy(TRUE).float())
    expected = 1 - np.array(
        [np.mean([f1_score(TRUE[i, k].ravel(), FOUND[i, k].ravel()) for k in range(2)]) for i in range(5)]
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert DiceLoss()(torch.full((1, 1, 4, 4), -50.0), torch.zeros(1, 1, 4, 4)).item() == pytest.approx(0, abs=1e-6)


def test_lovasz_loss_with_logits_of_one_is_twice_one_minus_iou():
    # Errors are 0 or 2: the extension is linear between them.
    logits = torch.from_numpy(FOUND).float() * 2 - 1
    found = LovaszLoss()(logits, torch.from_numpy(TRUE).float())
    expected = [
        np.mean([2 * (1 - jaccard_score(TRUE[i, k].ravel(), FOUND[i, k].ravel())) for k in range(2)]) for i in range(5)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_sum_of_losses_by_name_is_their_weighted_sum_and_bce_is_torchs():
    def loss(given):
        head = SegmentationHead(8, 2, loss=given)
        return head.loss(LOGITS, head.encode(MASKS))

    bce = functional.binary_cross_entropy_with_logits(LOGITS, MASKS.float(), reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(loss("bce"), bce)
    torch.testing.assert_close(loss({"bce": 0.5, "dice": 2}), 0.5 * bce + 2 * loss("dice"))
    for name in ("focal", "lovasz"):
        alone = [SegmentationHead(8, 2, loss=name).loss(LOGITS[[i]], MASKS[[i]].float()) for i in range(3)]
        torch.testing.assert_close(loss(name), torch.cat(alone), msg=f"{name}: an image's loss depends on others")
    with pytest.raises(InputError, match=r"dise.*mean 'dice'"):
        SegmentationHead(8, 2, loss={"bce": 1, "dise": 1})
    with pytest.raises(InputError, match="SegmentationHead: loss"):
        SegmentationHead(8, 2, loss="mse")


@pytest.mark.parametrize("decoder", ["unet", "upernet", "linknet"])
def test_sizes_that_are_no_multiple_of_32_are_padded_and_cut_off(decoder):
    net = network((37, 21), decoder=decoder)
    assert net(torch.zeros(2, 3, 37, 21, dtype=torch.uint8)).shape == (2, 2, 37, 21)
    assert net.eval().predict(torch.zeros(1, 3, 37, 21)).shape == (1, 2, 37, 21)


def test_convolutional_backbones_with_a_map_of_stride_2_and_every_weight_learns():
    net = network((32, 32), "resnet18", {}, decoder="fpn")
    net(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).mean().backward()
    assert net.maps.channels == [3, 64, 64, 128, 256, 512]
    assert not [name for name, each in net.named_parameters() if each.grad is None]


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(InputError, match="hierarchical"):
        network(backbone="vit_tiny_patch16_224", args={"depth": 2, "embed_dim": 24, "num_heads": 2})
    with pytest.raises(InputError, match=r"decoder is 'unett'.*unet"):
        network(decoder="unett")
    with pytest.raises(InputError, match=r"decoder_args has 'channels'.*decoder_channels"):
        network(decoder_args={"channels": [8]})
    with pytest.raises(InputError, match=r"decoder 'fpn'.*cannot be built"):
        network(decoder="fpn")
    with pytest.raises(InputError, match=r"model\.mix\.cutmix_alpha"):
        make_task(head=SegmentationHead, num_outputs=1, mix=MixConfig(cutmix_alpha=1.0))


class MaskRows(Rows):
    """Images with a bright rectangle, which is the mask."""

    def __init__(self, num_rows):
        super().__init__(num_rows)
        self.targets = torch.zeros(num_rows, 1, 32, 32, dtype=torch.uint8)
        for i in range(num_rows):
            self.targets[i, 0, 4 + i % 5 : 20, 3 : 12 + i % 7] = 1
        self.images = (self.images // 4 + 150 * self.targets).to(torch.uint8)


def test_a_network_in_a_plain_trainer_learns_masks_and_logs_their_metrics():
    head = partial(SegmentationHead, loss={"bce": 1, "dice": 1}, decoder_args={"decoder_channels": [16, 16, 8]})
    task = make_task(head=head, num_outputs=1, metrics=["dice", "map_over_iou"], optim=OptimConfig(lr=1e-2))
    trainer = fit(task, MaskRows(12), max_epochs=12)
    assert trainer.logged_metrics["val_dice"] > 0.9
    batch = trainer.predict(task, torch.utils.data.DataLoader(MaskRows(12), batch_size=5))[0]
    assert batch["prediction"].shape == (5, 1, 32, 32)


def test_softmax_losses_are_those_of_torch_of_another_library_and_of_plain_loops():
    import segmentation_models_pytorch as smp

    generator = torch.Generator().manual_seed(1)
    logits, index = torch.randn(4, 3, 6, 5, generator=generator), torch.randint(0, 3, (4, 6, 5), generator=generator)
    index[0] = index[0].clamp(max=1)  # the last class is missing
    target = functional.one_hot(index, 3).permute(0, 3, 1, 2).float()
    expected = functional.cross_entropy(logits, index, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(SoftmaxPixelLoss()(logits, target), expected)
    torch.testing.assert_close(SoftmaxFocalMaskLoss(gamma=0)(logits, target), expected)
    likely = logits.softmax(1).gather(1, index[:, None])
    focal = -((1 - likely) ** 2 * likely.log()).flatten(1).mean(1)
    torch.testing.assert_close(SoftmaxFocalMaskLoss()(logits, target), focal)
    lovasz = smp.losses.LovaszLoss("multiclass")
    alone = torch.stack([lovasz(logits[[i]], index[[i]]) for i in range(4)])
    torch.testing.assert_close(SoftmaxLovaszLoss()(logits, target), alone)
    for i, value in enumerate(SoftmaxDiceLoss()(logits, target).tolist()):
        shares = [
            (2 * (p * (index[i] == k)).sum() + 1) / (p.sum() + (index[i] == k).sum() + 1)
            for k, p in enumerate(logits[i].softmax(0))
        ]
        assert value == pytest.approx(1 - float(sum(shares)) / 3, abs=1e-6)


def test_pixels_in_no_class_do_not_count_where_every_pixel_of_an_image_is_in_one():
    head = SoftmaxSegmentationHead(8, 3, classes="complete")
    generator = torch.Generator().manual_seed(1)
    logits, index = torch.randn(2, 3, 6, 5, generator=generator), torch.randint(0, 3, (2, 6, 5), generator=generator)
    target = functional.one_hot(index, 3).permute(0, 3, 1, 2)
    around = [functional.pad(each, (2, 2, 1, 1)) for each in (logits, target)]
    around[0][..., :2] = torch.randn(2, 3, 8, 2, generator=generator)
    for one, other in zip(head.counted(head.decode(around[0]), around[1]), head.evaluated(logits, target), strict=True):
        assert torch.equal(one, other)
    for loss in (SoftmaxDiceLoss(), SoftmaxLovaszLoss()):
        torch.testing.assert_close(loss(around[0], around[1].float()), loss(logits, target.float()))


@pytest.mark.parametrize("classes", ["exclusive", "complete"])
def test_a_pixel_is_decided_for_one_class_alike_in_network_and_stored_maps(classes):
    head = SoftmaxSegmentationHead(8, 3, classes=classes)
    logits = 2 * torch.randn(2, head.num_logits, 9, 8, generator=torch.Generator().manual_seed(0))
    probabilities = head.decode(logits)
    found, index = head.decided(probabilities), logits.argmax(1)
    assert found.sum(1).max() == 1
    assert (found.sum(1) == 0).any() == (classes == "exclusive")
    for k in range(3):
        assert torch.equal(found[:, k], index == k)
    maps = Maps(levels_of(probabilities).numpy(), np.array([[9, 8], [9, 8]]))
    stored = np.stack([maps.decided(row, "squash", classes) for row in range(2)])
    assert set(np.unique(stored).tolist()) == {0, 255}
    assert ((stored > 0) != found.numpy()).sum() <= 2  # 8 bits have ties
    target = found.to(torch.uint8)
    encoded = head.encode(target)
    assert encoded.shape == logits.shape
    assert torch.equal(encoded.sum(1), torch.ones(2, 9, 8))
    counts, true = head.evaluated(logits, target)
    assert torch.equal(counts[..., 0], true)


def test_a_loss_for_the_other_kind_of_classes_is_refused():
    with pytest.raises(InputError, match="SoftmaxDiceLoss is for the other kind"):
        SegmentationHead(8, 2, loss=SoftmaxDiceLoss())
    with pytest.raises(InputError, match="DiceLoss is for the other kind"):
        SoftmaxSegmentationHead(8, 2, loss=DiceLoss())
    with pytest.raises(InputError, match="ce, dice, focal, lovasz"):
        SoftmaxSegmentationHead(8, 2, loss={"bce": 1})
    with pytest.raises(InputError, match="exclusive, complete"):
        SoftmaxSegmentationHead(8, 2, classes="independent")
