"""Mixup and cutmix against loops."""

import numpy as np
import pytest
import torch

from swinft import ClassificationHead, FineTuneTask, MultilabelHead
from swinft.cli import main
from swinft.errors import InputError
from swinft.model.settings import ComputeConfig
from swinft.model.training.mixup import (
    FEATURES,
    PIXELS,
    MixConfig,
    Mixing,
    cutmix,
    draw,
    draw_box,
    mixed_logits,
    mixing_places,
    mixup,
)
from tests.conftest import TINY_SWIN, power_gone_after, tiny_config, with_context, write_config

IMAGES = torch.randint(0, 256, (4, 3, 6, 8), dtype=torch.uint8)
TARGETS = torch.rand(4, 5)
ORDER = torch.tensor([2, 0, 3, 1])


def test_mixup_equals_a_loop_over_rows():
    images, targets = mixup(IMAGES, TARGETS, 0.3, ORDER)
    for row in range(4):
        other = int(ORDER[row])
        torch.testing.assert_close(images[row], 0.3 * IMAGES[row].float() + 0.7 * IMAGES[other].float())
        torch.testing.assert_close(targets[row], 0.3 * TARGETS[row] + 0.7 * TARGETS[other])


def test_cutmix_equals_a_loop_over_pixels():
    top, bottom, left, right = box = (1, 4, 2, 7)
    images, targets = cutmix(IMAGES, TARGETS, box, ORDER)
    pasted = 0
    for row in range(4):
        for y in range(6):
            for x in range(8):
                inside = top <= y < bottom and left <= x < right
                source = int(ORDER[row]) if inside else row
                assert torch.equal(images[row, :, y, x], IMAGES[source, :, y, x])
                pasted += inside
    share = pasted / (4 * 6 * 8)
    torch.testing.assert_close(targets, (1 - share) * TARGETS + share * TARGETS[ORDER])


def test_a_share_of_one_changes_nothing():
    images, targets = mixup(IMAGES, TARGETS, 1.0, ORDER)
    assert torch.equal(images, IMAGES.float())
    assert torch.equal(targets, TARGETS)


def test_boxes_stay_inside_and_have_about_the_right_area():
    rng = np.random.default_rng(0)
    boxes = [draw_box(64, 48, 0.75, rng) for _ in range(500)]
    assert all(0 <= t < b <= 64 and 0 <= left < r <= 48 for t, b, left, r in boxes)
    areas = [(b - t) * (r - left) / (64 * 48) for t, b, left, r in boxes]
    assert max(areas) == pytest.approx(0.25, abs=0.01)


def test_the_draw_follows_the_config():
    rng = np.random.default_rng(0)
    config = MixConfig(mixup_alpha=1, cutmix_alpha=1, probability=0.5)
    drawn = [draw(config, IMAGES, rng) for _ in range(400)]
    untouched = sum(mixing is None for mixing in drawn)
    blended = sum(mixing is not None and mixing.box is None for mixing in drawn)
    assert 150 < untouched < 250
    assert 60 < blended < 140
    assert draw(MixConfig(), IMAGES, rng) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"mixup_alpha": -1},
        {"cutmix_alpha": -0.1},
        {"probability": 1.5},
        {"labels": "max"},
        {"mixup_at": "features", "cutmix_alpha": 1.0},
        {"mixup_alpha": 1.0, "labels": "union"},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=r"model\.mix"):
        MixConfig(**wrong)


def task_of(head=ClassificationHead, backbone="swin_tiny_patch4_window7_224", **options):
    torch.manual_seed(0)
    given = {"backbone_args": dict(TINY_SWIN)} if backbone.startswith("swin") else {}
    return FineTuneTask(
        **with_context(
            head=head, backbone=backbone, pretrained=False, num_outputs=3, **{"image_size": 32, **given, **options}
        )
    )


def test_max_labels_are_those_of_both_rows_in_mixup_and_cutmix():
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]])
    for config in (MixConfig(mixup_alpha=1, labels="max"), MixConfig(cutmix_alpha=1, labels="max")):
        mixing = draw(config, IMAGES, np.random.default_rng(1))
        images, both, more = mixing.rows(IMAGES, targets, {"weight": torch.arange(4.0)})
        assert torch.equal(both, ((targets + targets[mixing.order]) > 0).float())
        assert not torch.equal(images.float(), IMAGES.float())
        assert not torch.equal(more["weight"], torch.arange(4.0))
    with pytest.raises(InputError, match="labels is max, and the head is for classification"):
        task_of(mix=MixConfig(mixup_alpha=1, labels="max"))
    task_of(MultilabelHead, mix=MixConfig(mixup_alpha=1, labels="max"))


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "test_resnet", "test_vit"])
def test_rows_are_blended_where_the_network_stands_at_every_place(backbone):
    size = 160 if backbone == "test_vit" else 32
    task = task_of(backbone=backbone, mix=MixConfig(mixup_alpha=1, mixup_at="random"), image_size=size)
    net = task.net.eval()
    images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    places = mixing_places(task.mix, net, False, False)
    assert places[0] == PIXELS
    assert places[-1] == FEATURES
    assert len(places) > 3
    found = {}
    with torch.no_grad():
        plain = net.logits(images, None)
        for place in places:
            logits, targets, _ = mixed_logits(net, images, TARGETS, {}, Mixing(0.5, ORDER, place=place))
            torch.testing.assert_close(targets, (TARGETS + TARGETS[ORDER]) / 2)
            found[place] = logits
        # Behind the blended features nothing is left but a linear layer.
        torch.testing.assert_close(found[FEATURES], (plain + plain[ORDER]) / 2)
        for place in places[:-1]:
            assert not torch.allclose(found[place], plain)
        assert torch.equal(net.logits(images, None), plain)  # nothing is left behind


def test_metadata_is_blended_once_wherever_rows_are():
    mixing = Mixing(0.25, ORDER, place=FEATURES)
    values = torch.arange(4.0)[:, None]
    _, _, more = mixing.rows(IMAGES, TARGETS, {"metadata": values, "weight": values[:, 0]})
    assert more["metadata"] is values
    torch.testing.assert_close(more["weight"], 0.25 * values[:, 0] + 0.75 * values[ORDER, 0])
    _, _, more = Mixing(0.25, ORDER, place="layers.0").rows(IMAGES, TARGETS, {"metadata": values})
    torch.testing.assert_close(more["metadata"], 0.25 * values + 0.75 * values[ORDER])


def test_a_place_that_is_not_computed_once_is_refused():
    net = task_of().net
    unused = torch.nn.Identity()
    net.backbone.model.add_module("unused", unused)
    with pytest.raises(InputError, match="'unused' of the network is computed 0 times"):
        mixed_logits(net, torch.zeros(4, 3, 32, 32), TARGETS, {}, Mixing(0.5, ORDER, place="unused"))
    for compute in (ComputeConfig(grad_checkpointing=True), ComputeConfig(compile="auto")):
        with pytest.raises(InputError, match=r"mixup_at is random, which changes"):
            task_of(mix=MixConfig(mixup_alpha=1, mixup_at="random"), compute=compute)


def test_runs_that_mix_inside_the_network_and_unite_labels_resume_to_the_same_bytes(competition, tmp_path):
    def fitted(name, *options, **changes):
        config = tiny_config(
            competition, tmp_path / "runs", name=name,
            **{"data.target": ["is_red", "is_green"], "data.target_kind": "multilabel", "trainer.max_epochs": 2},
            **{"model.head": {"class_path": "swinft.MultilabelHead"}}, **changes,
        )  # fmt: skip
        words = ["fit", "--config", str(write_config(tmp_path / f"{name}.yaml", config)), "--fold", "0", *options]
        assert main(words) == 0
        return (tmp_path / "runs" / name / "fold_0" / "weights.safetensors").read_bytes()

    mix = {"model.mix": {"mixup_alpha": 1.0, "mixup_at": "random", "labels": "max"}}
    whole = fitted("whole", **mix)
    with power_gone_after(1):
        fitted("again", **mix)
    assert fitted("again", "--resume", **mix) == whole
    others = [{"mixup_alpha": 1.0, "mixup_at": "random"}, {"mixup_alpha": 1.0, "labels": "max"}]
    assert len({whole, *(fitted(f"n{number}", **{"model.mix": given}) for number, given in enumerate(others))}) == 3
