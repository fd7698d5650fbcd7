"""Runs on images of more than 8 bits whose levels are kept: what they learn, resume, the cache, predictions, exports."""

import io
import re

import albumentations as A
import numpy as np
import pytest

import swinft
from swinft import CSVDataModule
from swinft.cli import main
from swinft.data.cache.folder import cache_files
from swinft.inference.predictions import Predictions
from tests.conftest import fit_in_process, power_gone_after, tiny_config, write_config
from tests.integration.test_images import png, tiff

COLORS = {"red": (200, 40, 40), "green": (40, 190, 40), "blue": (40, 40, 200)}
UPPER = 64 << 8
RANGE = {"keep": "uint16", "range": [UPPER, UPPER + 255]}
FLOATS = {"keep": "float32", "range": [0.25, 0.25 + 255 / 65535]}


def competition(root, write, suffix="png"):
    """24 rows and 6 to predict, whose images differ in the lower 8 of their 16 bits alone; each also in two parts."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    ids = {"train": [f"{row:03d}" for row in range(24)], "test": [f"t{row}" for row in range(6)]}
    for name, known in ids.items():
        lines = ["id,color" if name == "train" else "id"]
        for row, id in enumerate(known):
            color = list(COLORS)[row % 3]
            lower = np.clip(rng.normal(COLORS[color], 12, (40, 36, 3)), 0, 255).astype(np.uint16)
            (root / "images" / f"{id}.{suffix}").write_bytes(write(UPPER + lower))
            lines.append(f"{id},{color}" if name == "train" else id)
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (root / "sample_submission.csv").write_text("id,color\n" + "".join(f"{id},red\n" for id in ids["test"]))
    return root


def npy(samples):
    file = io.BytesIO()
    np.save(file, samples / 65535 - UPPER / 65535 + 0.25)
    return file.getvalue()


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return competition(tmp_path_factory.mktemp("deep") / "data", png)


def config(folder, root, rules, suffix="png", **changes):
    base = {"data.image": f"images/{{id}}.{suffix}", "data.loading": {"image_rules": rules}}
    return write_config(folder / "c.yaml", tiny_config(root, folder / "runs", **{**base, **changes}))


def oof(folder):
    return Predictions.read(folder / "runs" / "tiny" / "fold_0" / "oof.csv", 3)


def right(predictions):
    """Share of rows whose class is predicted; ids tell their class."""
    places = [predictions.outputs.index(list(COLORS)[int(id) % 3]) for id in predictions.ids]
    return (predictions.values.argmax(1) == places).mean()


def test_what_is_in_the_lower_bits_is_learnt_with_the_rule_alone(deep, tmp_path):
    found = {}
    for name, rules, epochs in (("kept", RANGE, 3), ("bytes", {}, 1)):  # of which all images are the same
        (tmp_path / name).mkdir()
        path = config(tmp_path / name, deep, rules, **{"trainer.max_epochs": epochs})
        assert main(["fit", "--config", str(path), "--fold", "0"]) == 0
        found[name] = oof(tmp_path / name)
    assert right(found["kept"]) == 1
    assert np.ptp(found["bytes"].values, axis=0).max() < 1e-6


def colors(deep, **options) -> CSVDataModule:
    """The datamodule of the images and their colours."""
    return CSVDataModule("color", "classification", "train.csv", "images/{id}.png", root=str(deep), **options)


def test_batches_are_floats_in_the_units_of_bytes(deep, tmp_path):
    loading = {"image_rules": RANGE, "cache_dir": str(tmp_path), "resize": "crop"}
    data = colors(deep, image_size=(40, 36), augment="none", loading=loading, folds={"num": 2})
    data.setup("fit")
    image = next(iter(data.val_dataloader()))["image"]
    assert str(image.dtype) == "torch.float32"
    assert 230 < image.max() <= 255
    assert np.abs(image.numpy() - image.round().numpy()).max() < 1e-3  # the samples themselves
    assert data.show_batch("val", 3).axes[0].images[0].get_array().dtype == np.uint8
    (cached,) = cache_files(tmp_path)
    assert cached.purpose.endswith("in uint16")


def test_check_says_what_is_cut_and_which_files_are_others(deep, tmp_path, capsys):
    narrow = {"keep": "uint16", "range": [UPPER, UPPER + 100]}
    assert main(["check", "--config", str(config(tmp_path, deep, narrow))]) == 0
    assert re.search(r"30 of 30 images: up to 1 of their samples lie outside of data\.loading", capsys.readouterr().out)
    root = competition(tmp_path / "mixed", png)
    (root / "images" / "004.png").write_bytes(png(np.full((40, 36), 90, np.uint8)))
    (root / "images" / "t1.png").write_bytes(png(np.full((40, 36), 90, np.uint8)))
    assert main(["check", "--config", str(config(tmp_path, root, {"keep": "uint16"}))]) == 2
    said = capsys.readouterr().err
    assert "004.png" in said
    assert "t1.png" in said
    assert "005.png" not in said
    assert "of 8 bits" in said


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ("augment: [A.Resize(32, 32), A.Posterize()]", "data.augment: Posterize computes on 8 bits"),
        ("augment: [A.Resize(32, 32), A.Normalize()]", "data.augment ends in values from"),
        ("augment: [A.FromFloat('uint8'), A.Resize(32, 32)]", "data.augment: FromFloat computes on 8 bits"),
        ("preprocess: [A.CLAHE(p=1)]", "data.loading.preprocess: CLAHE computes on 8 bits"),
        ("augment: [A.Resize(32, 32), A.RandomGamma(), A.GaussNoise(), A.Rotate()]", ""),
    ],
)
def test_transforms_that_lose_levels_are_named_before_the_run(transforms, message, deep, tmp_path):
    key, _, words = transforms.partition(": ")
    made = eval(words, {"A": A})
    given = {"augment": made} if key == "augment" else {"loading": {"preprocess": made}}
    loading = {"image_rules": RANGE, "cache": False, **given.pop("loading", {})}
    data = colors(deep, image_size=32, loading=loading, **given)
    if not message:
        data.setup("fit")
        return
    with pytest.raises(swinft.InputError, match=message):
        data.setup("fit")


def test_a_device_does_not_augment_them(deep, tmp_path, capsys):
    path = config(tmp_path, deep, {}, **{"data.loading": {"image_rules": RANGE, "augment_on": "device"}})
    assert main(["check", "--config", str(path)]) == 2
    assert "holds images of 8 bits, and data.loading.image_rules.keep is uint16" in capsys.readouterr().err


FORMS = [
    (png, "png", RANGE, {}),
    (lambda samples: tiff(samples, order=">"), "tif", RANGE, {"data.augment": "heavy"}),
    (npy, "npy", FLOATS, {"data.augment": "randaugment"}),
    (png, "png", RANGE, {"data.image": {"path": ["images/{id}.png"] * 2, "channels": "grey"}}),
    (png, "png", RANGE, {"data.image": {"path": "images/{id}.png", "grid": [1, 2]}, "data.augment": "crop"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("write", "suffix", "rules", "changes"), FORMS)
def test_a_run_on_them_is_like_any_other(write, suffix, rules, changes, tmp_path, capsys):
    """Cached and uncached, interrupted and not, predicted and out of fold, by torch and OpenVINO."""
    root = competition(tmp_path / "data", write, suffix)
    mixed = {"model.mix": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}, "predict.views": ["identity", "scale"]}
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    made = {**mixed, **changes, "trainer.max_epochs": 2}
    one = config(tmp_path / "one", root, rules, suffix, **made)
    assert main(["check", "--config", str(one)]) == 0
    fit_in_process(one)
    loading = {"image_rules": rules, "cache": False}
    other = config(tmp_path / "other", root, rules, suffix, **{**made, "data.loading": loading})
    with power_gone_after(1):
        main(["fit", "--config", str(other), "--fold", "0"])
    assert main(["fit", "--config", str(other), "--fold", "0", "--resume"]) == 0
    for file in ("weights.safetensors", "oof.csv"):
        both = [(tmp_path / name / "runs" / "tiny" / "fold_0" / file).read_bytes() for name in ("one", "other")]
        assert both[0] == both[1]
    run = tmp_path / "one" / "runs" / "tiny"
    found = {}
    for backend in ("torch", "openvino"):
        words = [
            "predict",
            str(run),
            "--device",
            "cpu",
            "--folds",
            "0",
            "--test",
            str(root / "train.csv"),
            "--backend",
            backend,
        ]
        assert main([*words, "--output", str(tmp_path / f"{backend}.csv")]) == 0
        known = Predictions.read(tmp_path / f"{backend}.csv", 3)
        held = oof(tmp_path / "one")
        found[backend] = known.values[[known.ids.index(id) for id in held.ids]]
        np.testing.assert_allclose(found[backend], held.values, atol=1e-6 if backend == "torch" else 1e-3)
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    assert main(["fit", "--resume", str(run)]) == 0
    assert main(["export", str(run), "--fold", "0", "--to", "torchscript"]) == 0
    assert "data:image/jpeg" in (run / "report.html").read_text()
