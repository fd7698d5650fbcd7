"""Segmentation in tiles and of exclusive classes: from tables to submissions, and in a plain Trainer."""

import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

import swinft
from swinft.cli import main
from swinft.data.images.resize import resized
from swinft.data.masks.rle import decode, encode, parse, text_of
from swinft.inference.predictions import Predictions
from swinft.inference.predictor import predict_rows
from swinft.inference.tta import VIEWS
from tests.conftest import TINY_SWIN, fit_in_process, power_gone_after, write_config
from tests.data.masks.salt import disc
from tests.integration.test_segmentation import dice, rows_of, salt_config

SHAPES = [(40, 52), (61, 33), (20, 70), (1, 40)]


def segmentation(**arguments):
    return {"class_path": "swinft.Segmentation", "init_args": arguments}


def write_shapes(root, shapes=SHAPES):
    """Images of different sizes, with masks of two classes in files of class numbers, and as run lengths."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    lines = {"train": ["id,ball,sea"], "test": ["id,ball,sea"]}
    for table, count in (("train", 12), ("test", 4)):
        for i in range(count):
            shape, id = shapes[i % len(shapes)], f"{table[1]}{i}"
            ball = disc(i, shape)
            sea = np.arange(shape[0])[:, None] >= np.arange(shape[1]) * 0.4 + shape[0] * 0.4
            index = np.where(ball, 1, 2 * sea).astype(np.uint8)
            pixels = rng.normal(60, 12, (*shape, 3)) + 120 * (index == 1)[..., None]
            pixels[..., 2] += 90 * (index == 2)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{id}.png")
            Image.fromarray(index).save(root / "masks" / f"{id}.png")
            lines[table].append(f"{id},{text_of(encode(index == 1))},{text_of(encode(index == 2))}")
    for table, each in lines.items():
        (root / f"{table}.csv").write_text("\n".join(each) + "\n")
    (root / "sample.csv").write_text("id,ball,sea\n" + "".join(f"e{i},,\n" for i in range(4)))
    return root


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("shapes"))


def data_of(root, **tile):
    return swinft.CSVDataModule(
        target=["ball", "sea"],
        target_kind=swinft.Segmentation(classes="exclusive", tile={"overlap": 0.5, "masked": 0.5, **tile}),
        train="train.csv",
        test="test.csv",
        image="images/{id}.png",
        root=str(root),
        image_size=32,
        batch_size=3,
        folds={"num": 2},
        loading={"num_workers": 0, "image_rules": {"min_side": 1}},
    )


def test_a_plain_trainer_trains_on_tiles_and_scores_and_predicts_whole_images(shapes):
    data = data_of(shapes)
    torch.manual_seed(0)
    task = swinft.FineTuneTask(
        lambda d, k: swinft.SoftmaxSegmentationHead(d, k, decoder_args={"decoder_channels": [16, 16, 8]}),
        pretrained=False,
        backbone_args=dict(TINY_SWIN),
        metrics=["dice", "iou"],
    )
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(task, data)
    (scores,) = trainer.validate(task, data, verbose=False)
    rows, maps = predict_rows(
        [task.predictor.eval()], data.val_dataloader(), [VIEWS["identity"]], torch.device("cpu"), "32-true"
    )
    found = []
    for place, (row, batch) in enumerate(zip(rows, trainer.predict(task, data.val_dataloader()), strict=True)):
        planes, probabilities = data.splits.train.masks.planes(row), batch["prediction"][0].numpy()
        assert batch["row"].tolist() == [row]
        assert np.abs(maps.levels[place] - 255 * probabilities).max() <= 0.51
        background = 1 - probabilities.sum(0)
        decided = [(probabilities[k] >= background) & (probabilities[k] > probabilities[1 - k]) for k in range(2)]
        found.append([dice(decided[k], planes[..., k] > 0) for k in range(2)])
    assert scores["val_dice"] == pytest.approx(np.mean(found), abs=1e-6)
    batches = trainer.predict(task, data.predict_dataloader())
    assert [tuple(batch["prediction"].shape[-2:]) for batch in batches] == SHAPES
    (tested,) = trainer.test(task, data, verbose=False)
    assert 0 <= tested["test_dice"] <= 1
    assert set(next(iter(data.train_dataloader()))) == {"image", "size", "target", "row"}


def test_images_are_scaled_before_tiles_are_cut_and_maps_have_the_size_of_the_file_again(shapes):
    data = data_of(shapes, scale=0.5)
    data.setup("fit")

    class Colours:
        def predict(self, image, **_):
            return image[:, :2].float() / 255

    rows, maps = predict_rows([Colours()], data.val_dataloader(), [VIEWS["vflip"]], torch.device("cpu"), "32-true")
    for place, row in enumerate(rows.tolist()):
        height, width = SHAPES[row % 4]
        assert maps.levels[place].shape == (2, max(1, round(height / 2)), width // 2)
        small = resized(np.asarray(Image.open(shapes / "images" / f"r{row}.png")), *maps.levels[place].shape[1:])
        assert np.abs(maps.levels[place].astype(int) - small[..., :2].transpose(2, 0, 1)).max() <= 1
        assert maps.full(place, 0, "squash").shape == (height, width)


def test_several_tiles_of_an_image_in_an_epoch_are_different_ones(shapes):
    data = data_of(shapes)
    data.setup("fit")
    several = data_of(shapes, per_image=3)
    several.setup("fit")
    once, thrice = (list(each.train_dataloader().sampler) for each in (data, several))
    assert len(thrice) == 3 * len(once) == several.splits.num_training_rows(0)
    assert len(set(thrice)) == len(thrice)
    assert {row for _, row in thrice} == {row for _, row in once}
    assert {epoch for epoch, _ in once} == {0}


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ({"tile": {"overlap": 0.9}}, {}, "overlap is 0.9. Allowed: a number from 0 to 0.75"),
        ({"tile": {"size": 3}}, {}, "size"),
        ({"tile": {}}, {"data.loading": {"resize": "pad"}}, "data.loading.resize is pad, and tiles are cut"),
        ({"tile": {}}, {"data.loading": {"shrink": True}}, "data.loading.shrink is true, and tiles are cut"),
        ({"tile": {}}, {"data.loading": {"cache": True}}, "data.loading.cache is true, and tiles are cut"),
        ({"classes": "exclusive"}, {}, "Set model.head to swinft.SoftmaxSegmentationHead"),
        ({"classes": "complete"}, {}, "every pixel would be in it"),
    ],
)
def test_settings_that_do_not_go_together_are_named(shapes, tmp_path, capsys, kind, changes, said):
    own = {"data.loading": {}, "data.target": "ball", "data.target_kind": segmentation(**kind), **changes}
    own |= {"data.sample_submission": None, "data.test": None}
    config = write_config(tmp_path / "c.yaml", salt_config(shapes, tmp_path, **own))
    assert main(["check", "--config", str(config)]) == 2
    assert said in capsys.readouterr().err


def index_config(shapes, runs, **changes):
    files = segmentation(files="masks/{id}.png", values={"ball": 1, "sea": 2}, **changes.pop("kind", {}))
    own = {
        "data.target": ["ball", "sea"],
        "data.target_kind": files,
        "data.test": "test.csv",
        "data.sample_submission": "sample.csv",
        "data.loading": {"image_rules": {"min_side": 1}},
        "model.head": {
            "class_path": "swinft.SoftmaxSegmentationHead",
            "init_args": {"decoder_args": {"decoder_channels": [32, 16, 16]}, "loss": {"ce": 1.0, "dice": 1.0}},
        },
        "model.metrics": ["dice", "iou"],
        "trainer.max_epochs": 12,
    }
    return salt_config(shapes, runs, **{**own, **changes})


@pytest.mark.slow
def test_exclusive_classes_in_tiles_go_from_index_files_to_a_submission_and_resume_byte_for_byte(shapes, tmp_path):
    kind = {"classes": "exclusive", "tile": {"overlap": 0.5, "masked": 0.5, "per_image": 4}}
    config = write_config(tmp_path / "c.yaml", index_config(shapes, tmp_path / "runs", kind=kind))
    fit_in_process(config)
    run = tmp_path / "runs" / "tiny"
    scores = json.loads((run / "scores.json").read_text())
    assert scores["pooled"]["dice"] > 0.75
    assert list(scores["masks"]["of_classes"]) == ["ball", "sea"]
    assert "threshold" not in scores["masks"]
    of_classes = [each["dice"] for each in scores["masks"]["of_classes"].values()]
    assert np.mean(of_classes) == pytest.approx(scores["masks"]["cross_fitted"]["dice"])
    with (run / "oof.maps.npy").open("rb") as file:
        table, levels = np.load(file), np.load(file)
    assert table["map_height"].tolist() == table["height"].tolist() == [SHAPES[i % 4][0] for i in range(12)]
    assert levels.shape == (sum(2 * h * w for h, w in SHAPES) * 3,)
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    found = []
    for row, shape in zip(rows_of(run / "submission.csv"), SHAPES, strict=True):
        index = np.asarray(Image.open(shapes / "masks" / f"{row['id']}.png"))
        masks = [decode(parse(row[name]), shape) for name in ("ball", "sea")]
        assert not (masks[0] & masks[1]).any()
        found += [dice(mask, index == k + 1) for k, mask in enumerate(masks)]
    assert np.mean(found) > 0.7, found
    assert main(["submit", str(run), "--threshold", "0.4"]) == 2
    other = write_config(tmp_path / "o.yaml", index_config(shapes, tmp_path / "other", kind=kind))
    with power_gone_after(2):
        main(["fit", "--config", str(other), "--fold", "0"])
    assert main(["fit", "--config", str(other), "--fold", "0", "--resume"]) == 0
    for name in ("weights.safetensors", "oof.maps.npy", "oof.csv"):
        one = tmp_path / "other" / "tiny" / "fold_0" / name
        assert one.read_bytes() == (run / "fold_0" / name).read_bytes(), name
    parts = tmp_path / "two.csv"
    assert main(["predict", str(run), "--device", "cpu", "--devices", "2", "--output", str(parts)]) == 0
    found, known = (Predictions.read(path, 2) for path in (parts, run / "test_predictions.csv"))
    for one, other in zip(found.maps.levels, known.maps.levels, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_a_class_number_outside_the_list_and_pixels_in_two_classes_or_in_none_are_named(shapes, tmp_path, capsys):
    root = write_shapes(tmp_path / "c", [(40, 52)])
    index = np.asarray(Image.open(root / "masks" / "r1.png")).copy()
    index[0, :3] = [7, 9, 7]
    Image.fromarray(index).save(root / "masks" / "r1.png")
    config = write_config(tmp_path / "c.yaml", index_config(root, tmp_path, kind={"classes": "exclusive"}))
    assert main(["check", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert "id 'r1'" in said
    assert "masks/r1.png has the values 7, 9 (first 7 in row 0, column 0), which `values` of data.target_kind" in said
    lines = (root / "train.csv").read_text().splitlines()
    lines[3] = "r2,1 5,4 2"
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    for classes, words in (("exclusive", "in several classes, the first is number 4"), ("complete", "in no class")):
        changes = {"data.target_kind": segmentation(classes=classes)}
        changes["model.head.init_args.classes"] = classes
        config = write_config(tmp_path / "c.yaml", index_config(root, tmp_path, **changes))
        assert main(["check", "--config", str(config)]) == 2
        said = capsys.readouterr().err
        assert "id 'r2'" in said
        assert words in said
