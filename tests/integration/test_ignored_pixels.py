"""Pixels of mask files that count neither in the loss nor in a score: `ignore` of `swinft.Segmentation`."""

import json

import albumentations as A
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import swinft
from swinft.cli import main
from swinft.data.masks.overlay import GREY, VEIL, filled_masks
from swinft.inference.predictions import Predictions
from swinft.model.heads import SegmentationHead, SoftmaxSegmentationHead
from swinft.model.heads.mask_losses import MASK_LOSSES, SOFTMAX_LOSSES
from swinft.model.heads.segmentation import IGNORED
from tests.conftest import TINY_SWIN, fit_in_process, write_config
from tests.integration.test_segmentation import dice, salt_config
from tests.integration.test_tiles import segmentation, write_shapes

VALUES = {"ball": 1, "sea": 2}
FILES = {"files": "masks/{id}.png", "values": VALUES}


def masked(root, id):
    return np.asarray(Image.open(root / "masks" / f"{id}.png"))


@pytest.fixture(scope="module")
def void(tmp_path_factory):
    """Masks whose outer columns, and the rims of whose balls, are not labelled."""
    root = write_shapes(tmp_path_factory.mktemp("void") / "c", [(40, 52), (44, 36)])
    for path in (root / "masks").glob("*.png"):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[:, : pixels.shape[1] // 3] = 255
        pixels[pixels.shape[0] // 2, :] = 254
        Image.fromarray(pixels).save(path)
    return root


def entropy(shares):
    certain = np.clip(shares, 1e-12, 1 - 1e-12)
    return -(certain * np.log2(certain) + (1 - certain) * np.log2(1 - certain))


def config_of(root, runs, **changes):
    own = {
        "data.target": ["ball", "sea"],
        "data.target_kind": segmentation(**FILES, ignore=[255, 254]),
        "data.sample_submission": "sample.csv",
        "trainer.max_epochs": 6,
        "predict": {"views": ["identity"]},
        "model.metrics": ["dice", "iou"],
    }
    return salt_config(root, runs, **{**own, **changes})


def data_of(root, kind, **changes):
    given = {"target": ["ball", "sea"], "target_kind": kind, "train": "train.csv", "test": "test.csv"}
    given |= {"image": "images/{id}.png", "root": str(root), "image_size": 32, "batch_size": 3, "folds": {"num": 2}}
    return swinft.CSVDataModule(**{**given, "loading": {"num_workers": 0}, **changes})


def test_a_run_scores_only_pixels_that_count(void, tmp_path):
    config = write_config(tmp_path / "c.yaml", config_of(void, tmp_path / "runs"))
    fit_in_process(config)
    run = tmp_path / "runs" / "tiny"
    oof = Predictions.read(run / "oof.csv", 2)
    errors = pd.read_csv(run / "errors.csv").set_index("id")
    counted, every, moved = [], [], []
    for place, id in enumerate(oof.ids):
        pixels = masked(void, id)
        known = (pixels != 255) & (pixels != 254)
        for k, value in enumerate(VALUES.values()):
            found = oof.maps.full(place, k, "pad") >= 128
            counted.append(dice(found & known, pixels == value))
            every.append(dice(found, pixels == value))
            levels = oof.maps.full(place, k, "pad") / 255
            said = errors.loc[id, f"predicted {oof.outputs[k]}"]
            moved.append([abs(levels[known].mean() - value) for value in (said, oof.values[place, k])])
        bits = [entropy(oof.maps.full(place, k, "pad")[known] / 255).mean() for k in range(2)]
        assert errors.loc[id, "entropy"] == pytest.approx(max(bits), abs=0.05)
    near, far = np.mean(moved, axis=0)  # from errors.csv; from oof.csv, which is of all pixels and of the border
    assert near < far / 4
    scores = json.loads((run / "scores.json").read_text())
    assert scores["pooled"]["dice"] == pytest.approx(np.mean(counted))
    assert abs(np.mean(every) - np.mean(counted)) > 0.01
    shares = pd.read_csv(run / "errors.csv").set_index("id").filter(like="ball")
    pixels = masked(void, "r0")
    assert np.isclose(shares.loc["r0"], (pixels == 1).sum() / (pixels < 254).sum(), atol=1e-4).any()
    assert "Grey pixels are ignored." in (run / "report.html").read_text()


@pytest.mark.parametrize("kind", ["exclusive", "complete"])
def test_tiles_of_exclusive_classes_are_validated_on_pixels_that_count(void, tmp_path, kind):
    ignore = [255, 254] if kind == "exclusive" else [255, 254, 0]
    data = data_of(
        void,
        swinft.Segmentation(**FILES, classes=kind, ignore=ignore, tile={"masked": 1.0}),
        image_size=(16, 16),
    )
    torch.manual_seed(0)
    task = swinft.FineTuneTask(
        lambda d, k: SoftmaxSegmentationHead(d, k, decoder_args={"decoder_channels": [8, 8, 8]}, classes=kind),
        pretrained=False,
        backbone_args=dict(TINY_SWIN),
        metrics=["dice"],
    )
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    (scores,) = trainer.validate(task, data, verbose=False)
    found = []
    for batch in trainer.predict(task, data.val_dataloader()):
        probabilities = batch["prediction"][0].numpy()
        pixels = masked(void, data.train_table.ids[int(batch["row"][0])])
        known = ~np.isin(pixels, ignore)
        background = 1 - probabilities.sum(0) if kind == "exclusive" else np.zeros(pixels.shape)
        for k, value in enumerate(VALUES.values()):
            own = (probabilities[k] >= background) & (probabilities[k] > probabilities[1 - k])
            found.append(dice(own & known, pixels == value))
    assert scores["val_dice"] == pytest.approx(np.mean(found), abs=1e-6)
    dataset = data.make_dataset("train", np.arange(12))
    with_mask = [any((dataset[epoch, row]["target"] == 1).any((1, 2))) for epoch in range(4) for row in range(6)]
    assert all(with_mask)  # not a tile of ignored pixels alone


@pytest.mark.parametrize("name", [*MASK_LOSSES, "softmax_ce", *(f"softmax_{name}" for name in SOFTMAX_LOSSES)])
def test_a_loss_is_that_of_the_image_without_its_ignored_columns(name):
    is_softmax = name.startswith("softmax_")
    make = SoftmaxSegmentationHead if is_softmax else SegmentationHead
    head = make(8, 2, loss={name.removeprefix("softmax_"): 0.7})
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2 + is_softmax, 5, 6, generator=generator).requires_grad_()
    classes = torch.randint(3, (3, 5, 6), generator=generator)
    target = torch.stack([classes == 0, classes == 1], 1).to(torch.uint8)
    target[..., 4:] = IGNORED
    target[2] = IGNORED
    losses = head.loss(logits, head.encode(target))
    kept = head.loss(logits[:2, ..., :4], head.encode(target[:2, ..., :4]))
    torch.testing.assert_close(losses[:2], kept)
    assert losses[2] == 0
    losses.sum().backward()
    assert (logits.grad[..., 4:] == 0).all()
    assert (logits.grad[2] == 0).all()
    assert (logits.grad[:2, ..., :4] != 0).any()


def test_a_custom_loss_gets_numbers_where_pixels_are_ignored():
    class Squares(swinft.Loss):
        kinds = ("segmentation",)

        def forward(self, logits, target):
            return ((logits.sigmoid() - target) ** 2).flatten(1).sum(1)

    head = SegmentationHead(8, 1, loss=Squares())
    logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0, 1], [IGNORED, IGNORED]]]], dtype=torch.uint8)
    assert head.loss(logits, head.encode(target)).tolist() == [0.5]


ROTATED = [A.Affine(rotate=(45, 45), p=1), A.Resize(32, 32)]


@pytest.mark.parametrize(("ignore", "expected"), [(255, IGNORED), (None, 0)])
def test_what_a_transform_adds_around_an_image_is_ignored_if_anything_is(void, ignore, expected):
    kind = swinft.Segmentation(**FILES, ignore=ignore)
    data = data_of(void, kind, augment=ROTATED, loading={"num_workers": 0, "resize": "pad"})
    data.setup("fit")
    turned = data.make_dataset("train", np.arange(12))[0, 0]["target"]
    assert (turned[:, 0, 0] == expected).all()
    padded = data.make_dataset("val", np.arange(12))[0]["target"]  # 40 × 52 pixels at 32 × 32
    assert (padded[:, :3] == expected).all()
    assert (padded[:, 4:28] != expected).any()


def test_files_of_each_class_ignore_for_themselves_or_for_all(void, tmp_path):
    root = write_shapes(tmp_path / "c", [(40, 52)])
    for id in (path.stem for path in list((root / "masks").glob("*.png"))):
        pixels = masked(root, id)
        for name, value in VALUES.items():
            own = (pixels == value).astype(np.uint8)
            own[: 5 if name == "ball" else 3] = 255
            (root / name).mkdir(exist_ok=True)
            Image.fromarray(own).save(root / name / f"{id}.png")
    files = {name: f"{name}/{{id}}.png" for name in VALUES}
    planes, digests = {}, set()
    for classes in ("independent", "exclusive"):
        data = data_of(root, swinft.Segmentation(files=files, classes=classes, ignore=255))
        data.setup("fit")
        planes[classes] = data.splits.train.masks.planes(3)
        digests.add(data.splits.train.masks.digest())
        assert "of the pixels of masks are ignored, in 12 of 12 rows" in "\n".join(data.notes)
    assert [(planes["independent"][..., k] == 255).sum() / 52 for k in range(2)] == [5, 3]
    assert [(planes["exclusive"][..., k] == 255).sum() / 52 for k in range(2)] == [5, 5]
    assert len(digests) == 2  # a resumed run sees that other pixels are ignored


def test_ignored_pixels_are_grey(void):
    planes = np.zeros((4, 4, 2), np.uint8)
    planes[0] = IGNORED
    drawn = filled_masks(np.full((4, 4, 3), 10, np.uint8), planes)
    assert (drawn[0] == round(10 * (1 - VEIL) + VEIL * GREY)).all()
    assert (drawn[1:] == 10).all()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            {**FILES, "classes": "exclusive", "ignore": 255},
            ["r0.png", "254", "(first 254 in row 20, column 0)", "as `ignore`"],
        ),
        ({"files": "masks/{id}.png", "ignore": 255}, ["r0.png", "values 1, 2, 254 besides 0", "ignore: VALUE"]),
        ({**FILES, "ignore": [0, 2]}, ["ignore has 2, which is the value of the class 'sea'"]),
        ({"files": "masks/{id}.png", "ignore": 0}, ["ignore has 0, and without values"]),
        ({"ignore": 255}, ["ignore is a value of mask files", "run-length encoding has no values"]),
        ({**FILES, "ignore": -1}, ["ignore is -1. Allowed: 0 to 65535"]),
        ({**FILES, "ignore": []}, ["ignore is []. Allowed: 0 to 65535"]),
        ({**FILES, "classes": "complete", "ignore": [255, 254]}, ["pixels in no class"]),
        ({"files": "masks/{id}.png", "values": {"ball": 1, "sea": 3}, "ignore": [255, 254, 2, 0]}, ["ignored"]),
    ],
)
def test_what_is_wrong_with_ignored_values_is_named(void, tmp_path, capsys, kind, said):
    target = ["ball", "sea"] if "values" in kind or "files" not in kind else "ball"
    if kind.get("ignore") == [255, 254, 2, 0]:
        (tmp_path / "m").mkdir()
        for path in (void / "masks").glob("*.png"):
            Image.fromarray(np.full_like(np.asarray(Image.open(path)), 2)).save(tmp_path / "m" / path.name)
        kind = {**kind, "files": str(tmp_path / "m" / "{id}.png")}
    changes = {"data.target": target, "data.target_kind": segmentation(**kind)}
    changes |= {} if len(target) == 2 else {"data.sample_submission": None}
    if kind.get("classes") in ("exclusive", "complete"):
        changes["model.head"] = {
            "class_path": "swinft.SoftmaxSegmentationHead",
            "init_args": {"classes": kind["classes"], "decoder_args": {"decoder_channels": [8, 8, 8]}},
        }
    config = write_config(tmp_path / "c.yaml", config_of(void, tmp_path, **changes))
    assert main(["check", "--config", str(config)]) == 2
    error = capsys.readouterr().err
    for words in said:
        assert words in error
