"""`swinft new` proposes, for the folder of each competition and for others, a config that `check` accepts."""

import contextlib
import io
import json
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml

import swinft
from swinft.cli import main
from swinft.propose import training
from swinft.propose.known import SPINE
from swinft.propose.targets import OWNERS, words_of
from tests.conftest import ROOT, write_image
from tests.integration.layouts import LAYOUTS
from tests.integration.layouts.layout import write
from tests.integration.layouts.some_numbers import TRAITS, WEIGHTS
from tests.integration.new_layouts import FACES, made, one_of_each
from tests.json_documents import document, documented

SMALL = ["--model.backbone", "test_convnext", "--model.pretrained", "false", "--data.image_size", "32"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
# Of each competition: kind, target, id, image, group of the folds; and more keys.
EXPECTED: dict[str, tuple[str, object, str, object, str | None, dict[str, object]]] = {
    "petfinder": ("regression", "Pawpularity", "Id", "train/{Id}.jpg", None, {"data.columns.test_image": "test/{Id}.jpg"}),
    "cassava": ("classification", "label", "image_id", "train_images/{image_id}", None, {"data.test": None}),
    "plant_2020": ("classification", 4, "image_id", "images/{image_id}.jpg", None, {"data.columns.test_image": None}),
    "plant_2021": ("multilabel", "labels", "image", "train_images/{image}", None, {"data.columns.label_delimiter": " "}),
    "aptos": ("regression", "diagnosis", "id_code", "train_images/{id_code}.png", None, {}),
    "ranzcr": ("multilabel", 11, "StudyInstanceUID", "train/{StudyInstanceUID}.jpg", "PatientID", {}),
    "paddy": ("classification", "label", "image_id", "train_images/{label}/{image_id}", None,
              {"data.columns.test_image": "test_images/{image_id}"}),
    "dog_breed": ("classification", "breed", "id", "train/{id}.jpg", None, {"data.train": "labels.csv", "data.folds.num": 2}),
    "dogs_vs_cats": ("classification", "label", "path", "{path}", None,
                     {"data.train": [{"files": "train/{label}.{number}.jpg"}], "submission.columns": {"label": "dog"},
                      "data.columns.test_id": "id", "data.columns.test_image": "test/{id}.jpg"}),
    "digit_recognizer": ("classification", "label", "ImageId", "pixel*", None,
                         {"data.loading.source": "column", "data.test": [{"csv": "test.csv"}, {"number": {"column": "ImageId", "start": 1}}]}),
    "siim": ("classification", "target", "image_name", "jpeg/train/{image_name}.jpg", "patient_id",
             {"data.columns.numeric_features": ["age_approx"], "data.columns.missing_features": "fill",
              "data.columns.categorical_features": ["sex", "anatom_site_general_challenge"]}),
    "grand_xray": ("multilabel", 14, "Image_name", "train1/{Image_name}", "Patient_ID", {"data.sample_submission": "sample_submission_1.csv"}),
    "ai_vs_human": ("classification", "label", "file_name", "{file_name}", None, {"data.columns.test_id": "id", "data.columns.test_image": "{id}"}),
    "imagenette": ("classification", "label", "path", "{path}", None, {"data.folds.column": "fold", "data.sample_submission": None}),
    "csiro": ("regression", 5, "image_id", "{image_path}", "Sampling_Date", {"data.columns.test_image": None}),
    "planttraits": ("regression", 6, "id", "train_images/{id}.jpeg", None,
                    {"data.columns.numeric_features": ["WORLDCLIM_*", "SOIL_*", "MODIS_*", "VOD_*"], "submission.columns": {name: f"{name}_mean" for name in TRAITS}}),
    "aerial_cactus": ("classification", "has_cactus", "id", "train.zip/train/{id}", None, {"data.loading.source": "zip"}),
    "histopathologic": ("classification", "label", "id", "train/{id}.tif", None, {"data.train": "train_labels.csv"}),
    "statoil": ("classification", "is_iceberg", "id", {"path": ["band_1", "band_2"], "channels": "grey"}, None,
                {"data.train": [{"json": "train.json"}], "data.test": [{"json": "test.json"}], "data.columns.numeric_features": ["inc_angle"]}),
    "isic_2024": ("classification", "target", "isic_id", "train-image/image/{isic_id}.jpg", "patient_id",
                  {"data.columns.test_image": "test-image.hdf5/{isic_id}", "data.loading.test_source": "hdf5"}),
    "fathomnet": ("classification", "category", "annotation_id", "train/rois/{image_id}_{annotation_id}.png", "image_id", {}),
    "hms": ("classification", 6, "label_id", "train_spectrograms/{spectrogram_id}.parquet", "patient_id", {"data.columns.test_id": "eeg_id"}),
    "happywhale": ("classification", "individual_id", "image", "train_images/{image}", None, {"data.folds.rare_classes": "train"}),
    "tgs_salt": ("segmentation", "rle_mask", "id", "train/images/{id}.png", None, {}),
    "rsna_2024": ("classification", "value", "row_id", {"path": "train_images/{study_id}/{series_id}/*.dcm", "max": 16}, "study_id", {}),
    "rsna_2025": ("multilabel", 14, "SeriesInstanceUID", {"path": "series/{SeriesInstanceUID}/*.dcm", "max": 16}, None, {}),
    "rsna_knee": ("multilabel", 12, "StudyInstanceUID", {"path": "train_series/{StudyInstanceUID}/{SeriesInstanceUID}/*.dcm", "max": 16}, None, {}),
}  # fmt: skip
# The first metric: the official one.
METRIC: dict[str, object] = {
    "petfinder": "rmse", "cassava": "accuracy", "plant_2020": "auc", "plant_2021": "samples_f1", "aptos": "quadratic_kappa",
    "ranzcr": "mean_column_auc", "paddy": "accuracy", "dog_breed": "kaggle_log_loss", "dogs_vs_cats": "kaggle_log_loss",
    "digit_recognizer": "accuracy", "siim": "auc", "grand_xray": "mean_column_auc", "ai_vs_human": "macro_f1",
    "imagenette": "accuracy", "csiro": {"weighted_r2": {"weights": WEIGHTS}}, "planttraits": "r2",
    "aerial_cactus": "auc", "histopathologic": "auc", "isic_2024": {"partial_auc": {"min_tpr": 0.8}},
    "fathomnet": {"hierarchical_distance": {"taxonomy": "taxa.csv"}}, "hms": "kl_divergence",
    "happywhale": {"map_at_k": {"k": 5, "new": "new_individual", "threshold": 0.5}}, "tgs_salt": "map_over_iou",
    "rsna_2024": {"grouped_log_loss": SPINE}, "rsna_2025": {"weighted_auc": {"weights": {"Aneurysm Present": 13}}},
    "rsna_knee": "mean_column_auc", "statoil": "kaggle_log_loss",
}  # fmt: skip
STAINS = ("red", "green", "blue", "yellow")
FAST = (
    "petfinder",
    "cassava",
    "plant_2021",
    "ranzcr",
    "paddy",
    "dogs_vs_cats",
    "siim",
    "imagenette",
    "csiro",
    "fathomnet",
)
CHECKED = ("siim", "dogs_vs_cats", "csiro")
ALL = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in EXPECTED]


def flat(section: dict[str, object], prefix: str = "") -> dict[str, object]:
    """A config by dotted keys; sections are those of a run."""
    found: dict[str, object] = {}
    for key, value in section.items():
        is_section = isinstance(value, dict) and f"{prefix}{key}" in (
            "data", "data.columns", "data.folds", "data.loading", "model", "submission"
        )  # fmt: skip
        found |= flat(value, f"{prefix}{key}.") if is_section else {prefix + key: value}
    return found


def proposed(slug: str, root: Path, folder: Path) -> dict[str, object]:
    """The keys of the config that `swinft new` writes."""
    made = swinft.new(slug, root, folder / f"{slug}.yaml")
    return flat(yaml.safe_load(made.path.read_text()))


@pytest.mark.parametrize("name", ALL)
def test_a_competition_gets_the_right_config(name, tmp_path, capsys):
    layout = LAYOUTS[name](tmp_path, 3)
    config = proposed(layout.slug, layout.root, tmp_path)
    kind, target, id, image, group, more = EXPECTED[name]
    if isinstance(target, int):
        assert len(config["data.target"]) == target
    else:
        assert config["data.target"] == target
    keys = ("data.target_kind", "data.id", "data.image", "data.folds.group")
    assert [config.get(key) for key in keys] == [kind, id, image, group]
    assert {key: config.get(key) for key in more} == more
    assert config["model.metrics"][0] == METRIC[name]
    if name in CHECKED or name not in FAST:
        assert main(["check", "--config", str(tmp_path / f"{layout.slug}.yaml"), *SMALL]) == 0, capsys.readouterr()


UNLISTED = {
    "plant_seedlings": {
        "data.train": [{"files": "train/{label}/{name}.png"}],
        "data.columns.test_image": "test/{file}",
        "data.columns.test_id": "file",
        "data.target_kind": "classification",
        "model.metrics": ["accuracy", "macro_f1"],
    },
    "flowers": {
        "data.train": [
            {
                "concat": [
                    [{"files": "flowers/train/{label}/{name}.jpg"}, {"format": {"fold": "-1"}}],
                    [{"files": "flowers/val/{label}/{name}.jpg"}, {"format": {"fold": "0"}}],
                ]
            }
        ],
        "data.id": "path",
        "data.target": "label",
        "data.folds.column": "fold",
        "model.metrics": ["accuracy", "macro_f1"],
    },
    "oxford_pets": {
        "data.train": [{"files": "images/{label:.+?}_{number:[0-9]+}.jpg"}],
        "data.target": "label",
        "data.target_kind": "classification",
    },
    "birds": {"data.train": [{"files": "images/{label}/{name}.jpg"}], "data.target_kind": "classification"},
    "celeba": {
        "data.image": "img_align_celeba/img_align_celeba/{image_id}",
        "data.target": FACES,
        "data.target_kind": "multilabel",
        "model.metrics": ["mean_column_auc"],
    },
    "chest_xrays": {
        "data.id": "Image Index",
        "data.image": "{path}",
        "data.target": "Finding Labels",
        "data.target_kind": "multilabel",
        "data.columns.label_delimiter": "|",
        "data.folds.group": "Patient ID",
        "model.metrics": ["mean_column_auc"],
    },
    "protein_atlas": {  # pretrained layers see red, green and blue in their order
        "data.image": {"path": [f"train/{{Id}}_{stain}.png" for stain in STAINS], "channels": "grey"},
        "data.columns.test_image": [f"test/{{Id}}_{stain}.png" for stain in STAINS],
        "data.target_kind": "multilabel",
    },
    "amazon": {"data.target": "tags", "data.target_kind": "multilabel", "data.columns.label_delimiter": " "},
    "hemorrhages": {
        "data.train": [
            {"csv": "stage_2_train.csv"},
            {"extract": {"column": "ID", "pattern": "^(?P<image>.+)_(?P<name>any|epidural|subdural)$"}},
            {"pivot": {"index": ["image"], "columns": "name", "values": "Label"}},
        ],
        "data.image": "stage_2_train/{image}.png",
        "data.columns.test_image": "stage_2_test/{image}.png",
        "data.target": ["epidural", "subdural", "any"],
        "data.target_kind": "multilabel",
        "submission.id": "ID",
    },
    "retinas": {
        "data.train": [
            {"csv": "trainLabels.csv"},
            {"extract": {"column": "image", "pattern": "^(?P<group>.+)_(?P<part>left|right)$"}},
        ],
        "data.folds.group": "group",
        "data.columns.test_image": "test/{image}.jpeg",
    },
    "nerves": {
        "data.train": [{"csv": "train_masks.csv"}, {"format": {"id": "{subject}_{img}"}}],
        "data.id": "id",
        "data.columns.test_id": "img",
        "data.image": "train/{subject}_{img}.tif",
        "data.columns.test_image": "test/{img}.tif",
        "data.folds.group": "subject",
        "data.target_kind": "segmentation",
    },
    "invasive_plants": {
        "data.sample_submission": "all_zeros_benchmark.csv",
        "data.image": "train/{name}.jpg",
        "data.columns.test_image": "test/{name}.jpg",
    },
    "drivers": {
        "data.target": "classname",
        "data.folds.group": "subject",
        "model.metrics": ["log_loss", "accuracy"],
    },
    "keypoints": {
        "data.train": [{"csv": "training.csv"}, {"number": {"column": "ImageId", "start": 1}}],
        "data.image": "Image",
        "data.target": ["eye_x", "eye_y", "nose_x"],
        "data.columns.on_missing_target": "mask",
    },
    "signs": {"data.train": "Train.csv", "data.target": "ClassId", "data.image": "{Path}", "data.test": "Test.csv"},
    "moles": {
        "data.train": "ISIC_Training_GroundTruth.csv",
        "data.target": ["MEL", "NV", "BCC", "AK"],
        "data.target_kind": "classification",
    },
    "landmarks": {
        "data.test": [
            {"csv": "sample_submission.csv"},
            {
                "join": {
                    "table": [{"files": "test/{folder_1}/{folder_2}/{name}.jpg"}],
                    "on": {"id": "name"},
                    "columns": ["path"],
                }
            },
        ],
        "data.image": "{path}",
    },
    "studies": {"data.train": "small/train.csv", "data.target": None},
    "steel": {"data.id": None, "data.target": None, "data.target_kind": None},
}


@pytest.mark.parametrize("name", UNLISTED)
def test_a_dataset_that_it_does_not_know_gets_the_right_config(name, tmp_path):
    config = proposed(name, made(name, tmp_path / "data"), tmp_path)
    assert {key: config.get(key) for key in UNLISTED[name]} == UNLISTED[name]


def test_minus_one_and_one_become_zero_and_one_in_the_steps(tmp_path):
    steps = proposed("celeba", made("celeba", tmp_path / "data"), tmp_path)["data.train"]
    assert [next(iter(step)) for step in steps] == ["csv", "melt", "map", "pivot"]
    assert steps[2]["map"] == {"column": "value", "values": {"-1": "0"}, "default": "keep"}


def test_the_encoding_of_a_table_is_that_of_what_steps_make_of_it(tmp_path):
    layout = LAYOUTS["csiro"](tmp_path, 3)
    table = layout.root / "train.csv"
    first, row, *rest = table.read_text().splitlines()
    lines = [f"{first},Place", f"{row},Kärnten", *(f"{each},Graz" for each in rest)]
    table.write_text("\n".join(lines) + "\n", encoding="cp1252")
    assert proposed(layout.slug, layout.root, tmp_path)["data.columns.encoding"] == "cp1252"


def test_a_column_with_braces_in_its_name_names_no_image(tmp_path):
    root = made("amazon", tmp_path / "data")
    table = root / "train_v2.csv"
    table.write_text(table.read_text().replace("image_name,", "{a},", 1))
    assert proposed("amazon", root, tmp_path).get("data.image") is None


def new(folder: Path, *words: str) -> int:
    return main(["new", "mine", "--data", str(folder), "--output", str(folder.parent / "mine.yaml"), *words])


def test_a_folder_that_is_not_there_or_is_a_file_is_wrong_use(tmp_path, capsys):
    assert new(tmp_path / "none") == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "data.zip").write_bytes(b"PK")
    assert new(tmp_path / "data.zip") == 2
    assert "is a file: unpack it" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["empty", "tables", "images"])
def test_a_folder_without_tables_or_images_says_what_is_missing(what, tmp_path, capsys):
    root = tmp_path / "data"
    root.mkdir()
    if what == "tables":
        write(root / "train.csv", {"id": range(9), "label": [0, 1, 2] * 3})
    if what == "images":
        one_of_each([f"{number}.png" for number in range(9)], root, np.random.default_rng(0))
    assert new(root, "--json") == 2
    out, err = capsys.readouterr()
    assert "data.train could not be decided" in err
    assert "data.train" in [each["key"] for each in document(out, "Errors")["problems"]]
    text = (tmp_path / "mine.yaml").read_text()
    assert "# train: train.csv" in text
    missing = "neither folders nor the names of files hold a class" if what == "images" else "no images were found"
    assert missing in text


def test_an_existing_config_is_kept(tmp_path, capsys):
    root = made("flowers", tmp_path / "data")
    (tmp_path / "mine.yaml").write_text("mine")
    assert new(root, "--no-check") == 2
    assert "mine.yaml exists" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert new(root, "--no-check", "--overwrite") == 0
    assert "name: mine" in (tmp_path / "mine.yaml").read_text()


def test_semicolons_cp1252_blanks_and_unicode_names(tmp_path):
    """Ids have blanks and letters of any kind; the table is from a spreadsheet."""
    root = tmp_path / "data"
    names = [f"Hündin Nr {row} é" for row in range(30)]
    one_of_each([f"Bilder für alle/{name}.png" for name in names], root, np.random.default_rng(0))
    lines = ["Name;Größe;Fell"] + [
        f"{name};{row / 7:.3f};{('kurz', 'lang')[row % 2]}" for row, name in enumerate(names)
    ]
    (root / "Tiere train.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    config = proposed("tiere", root, tmp_path)
    assert config["data.train"] == "Tiere train.csv"
    assert config["data.image"] == "Bilder für alle/{Name}.png"
    assert config["data.columns.encoding"] == "cp1252"
    assert "data.target" not in config


def test_the_command_ends_with_the_check_and_names_what_comes_next(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "BACKBONE", "test_convnext")
    layout = LAYOUTS["cassava"](tmp_path, 3)
    config = tmp_path / "cassava.yaml"
    assert main(["new", layout.slug, "--data", str(layout.root), "--output", str(config), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "submission: writes the most probable class in label" in err
    assert err.rstrip().endswith(f"swinft submit runs/{layout.slug}")
    found = document(out, "new")
    assert found["next"][-1] == f"swinft submit runs/{layout.slug}"
    assert set(found["check"]) == documented()["check"][0]


def records(side: int, low: float, high: float, num: int = 30) -> list[dict[str, object]]:
    """Rows with two lists of side × side numbers, and without a unique id."""
    numbers = np.random.default_rng(0).uniform(low, high, (num, 2, side * side)).round(3).tolist()
    return [{"band_1": a, "band_2": b, "angle": row % 7 / 2, "label": row % 2} for row, (a, b) in enumerate(numbers)]


def test_lists_of_numbers_in_json_are_channels_of_an_image(tmp_path, capsys):
    root = tmp_path / "data"
    root.mkdir()
    (root / "train.json").write_text(json.dumps(records(9, -40, 10)))
    (root / "labels.json").write_text('["a", "b"]')
    assert new(root, "--no-check") == 0
    config = yaml.safe_load((tmp_path / "mine.yaml").read_text())["data"]
    assert config["train"] == [{"json": "train.json"}, {"number": {"column": "row", "start": 1}}]
    assert config["image"] == {"path": ["band_1", "band_2"], "channels": "grey"}
    assert config["loading"]["source"]["init_args"] == {"values": "numbers"}
    low, high = config["loading"]["image_rules"]["range"]
    assert (low, high) == (pytest.approx(-39.5, abs=0.5), pytest.approx(9.5, abs=0.5))
    assert "labels.json: it is no list of records" in capsys.readouterr().out


def test_a_cell_of_grey_levels_is_an_image_unless_a_file_is(tmp_path):
    root, ids = tmp_path / "data", [f"a{row}" for row in range(40)]
    levels = [" ".join(map(str, each)) for each in np.random.default_rng(0).integers(0, 256, (40, 64)).tolist()]
    write(root / "train.csv", {"id": ids, "pixels": levels, "label": ["r", "g"] * 20})
    assert new(root, "--no-check") == 0
    config = yaml.safe_load((tmp_path / "mine.yaml").read_text())["data"]
    assert (config["image"], config["loading"]["source"]) == ("pixels", "column")
    one_of_each([f"images/{id}.png" for id in ids], root, np.random.default_rng(0))
    (tmp_path / "mine.yaml").unlink()
    assert new(root, "--no-check") == 0
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text())["data"]["image"] == "images/{id}.png"


def test_two_candidates_for_everything_are_named_and_not_guessed(tmp_path, capsys):
    root = tmp_path / "data"
    ids = [f"a{row}" for row in range(40)]
    one_of_each([f"{folder}/{id}.png" for folder in ("small", "large") for id in ids], root, np.random.default_rng(0))
    for name in ("train_a", "train_b"):
        write(root / f"{name}.csv", {"id": ids, "colour": ["r", "g"] * 20, "shape": ["x", "y", "z", "x"] * 10})
    assert new(root) == 2
    text = (tmp_path / "mine.yaml").read_text()
    assert "also possible: train_b.csv" in text
    assert "# also possible: small/{id}.png" in text or "# also possible: large/{id}.png" in text
    assert "# target: [colour, shape]" in text
    assert "data.target could not be decided" in capsys.readouterr().err


def test_hundreds_of_thousands_of_files_take_seconds(tmp_path):
    """No timed test: the number of folders that are opened is bounded, and so is what is kept of each."""
    root = tmp_path / "data"
    for number in range(1200):
        folder = root / "train" / f"class{number:04d}"
        folder.mkdir(parents=True)
        (folder / f"{number}_1.jpg").touch()
    made_ = swinft.new("many", root, tmp_path / "many.yaml")
    (group,) = made_.facts.listing.groups
    assert (group.count, group.is_exact, len(group.folders)) == (1200, False, 1200)
    assert made_.facts.listing.num_files == 400
    assert len(group.names) <= 240


@pytest.mark.parametrize(
    ("name", "is_group"),
    [
        ("Patient ID", True), ("PatientID", True), ("StudyInstanceUID", True), ("Sampling_Date", True), ("site", True),
        ("Patient Age", False), ("image_width", False), ("plant_height", False), ("date_quality", False), ("category", False),
    ],
)  # fmt: skip
def test_a_column_of_groups_is_named_by_what_rows_belong_to_and_not_by_what_is_measured(name, is_group):
    assert bool(OWNERS.search(words_of(name))) == is_group


def test_rows_of_one_image_are_the_groups_where_no_column_holds_them_together(tmp_path):
    """Two rows per image; `camera` repeats, but the rows of an image have two of its values; `site` is the class."""
    root = tmp_path / "data"
    images = [f"a{row // 2}" for row in range(60)]
    one_of_each([f"images/{name}.png" for name in set(images)], root, np.random.default_rng(0))
    cells = {"row": range(60), "file": images, "camera": [f"c{row % 7}" for row in range(60)]}
    labels = [row % 6 for row in range(60)]
    write(root / "train.csv", {**cells, "site": [f"s{k}" for k in labels], "label": labels})
    config = proposed("mine", root, tmp_path)
    assert [config["data.folds.group"], config["data.id"], config["data.target"]] == ["file", "row", "label"]


@pytest.mark.parametrize("named", ["file", "label"])
def test_thousands_of_rows_of_each_image_name_it_and_classes_do_not(named, tmp_path):
    """The rows to predict have 3 of 120 images. An image named as each class is no image of the rows."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    shown = [f"scan_{k:02d}" for k in range(15)] if named == "file" else ["cat", "dog"]
    names = [f"images/{name}.png" for name in [*shown, *(f"other_{k:03d}" for k in range(105 * (named == "label")))]]
    one_of_each(names, root, rng)
    labels = [("cat", "dog")[row % 3 == 0] for row in range(12_000)]
    write(root / "train.csv", {"id": range(12_000), "file": [shown[row % 12 % len(shown)] for row in range(12_000)],
                               "label": labels})  # fmt: skip
    write(root / "test.csv", {"id": range(12_000, 15_000), "file": [shown[-1 - row // 1500] for row in range(3_000)]})
    write(root / "sample_submission.csv", {"id": range(12_000, 15_000), "label": ["cat"] * 3_000})
    if named == "label":
        for table in ("train.csv", "test.csv"):
            (root / table).write_text((root / table).read_text().replace("file", "camera"))
    config = proposed("mine", root, tmp_path)
    if named == "file":
        assert [config["data.image"], config["data.id"], config["data.target"]] == ["images/{file}.png", "id", "label"]
        assert config["data.folds.group"] == "file"
        assert "no images here" not in (tmp_path / "mine.yaml").read_text()
    else:
        assert "data.image" not in config


def test_text_that_hardly_repeats_is_no_class(tmp_path, capsys):
    root = tmp_path / "data"
    ids = [f"a{row}" for row in range(30)]
    one_of_each([f"images/{id}.png" for id in ids], root, np.random.default_rng(0))
    write(root / "train.csv", {"id": ids, "label": [f"a dog, number {row}" for row in range(30)]})
    assert new(root) == 2
    assert "data.target could not be decided" in capsys.readouterr().err


PAGE = ROOT / "docs" / "new.md"
FENCES = (("```\n", "\n```\nThe config:"), ("```yaml\n", "```\n\n## What it looks at"))


def session(folder: Path) -> tuple[str, str]:
    """What the page shows: a command with what it prints, and the config that it writes."""
    layout = LAYOUTS["siim"](folder, 3)
    (folder / "data").mkdir()
    layout.root.rename(folder / "data" / layout.slug)
    words = ["new", layout.slug, "--data", f"data/{layout.slug}", "--no-check"]
    out, before = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out):
            assert main(words) == 0
    finally:
        os.chdir(before)
    config = (folder / "configs" / f"{layout.slug}.yaml").read_text()
    return f"swinft {' '.join(words)}\n\n{out.getvalue()}", config


def page(folder: Path) -> str:
    """The page with the session of now."""
    text = PAGE.read_text()
    for shown, (start, end) in zip(session(folder), FENCES, strict=True):
        place = text.index(end)
        begin = text.rindex(start, 0, place) + len(start)
        text = text[:begin] + shown.rstrip() + ("\n" if start != "```\n" else "") + text[place:]
    return text


def test_the_page_shows_what_the_command_prints(tmp_path):
    assert PAGE.read_text() == page(tmp_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        PAGE.write_text(page(Path(temporary)))


def table_of(draw, rows):
    """Columns of a table whose target is known, and columns that look like one by their name alone."""
    letters = draw.sample("abcdefgh", 3)
    classes = [draw.randrange(4) for _ in range(rows)]
    one_hot = {
        name: [int(each == k) for each in classes] for k, name in enumerate([*letters, draw.choice(["y", "class"])])
    }
    flags = {name: [draw.randrange(2) for _ in range(rows)] for name in [*letters, "y"]}
    numbers = {"weight": [round(draw.uniform(0, 9), 3) for _ in range(rows)]}
    words = {draw.choice(["species", "disease"]): [draw.choice(["oak", "elm", "fir"]) for _ in range(rows)]}
    target = draw.choice([one_hot, flags, numbers, words])
    others = {
        "label": ["one"] * rows,
        "target": [0] * rows,
        "grade": [""] * rows,
        "fold": [k % 5 for k in range(rows)],
        "split": [draw.choice(["train", "val"]) for _ in range(rows)],
        "id": [k // 2 for k in range(rows)],
        "image": [f"/home/me/{k}.tif" for k in range(rows)],
    }
    place = {name: [round(draw.uniform(0, 99), 1) for _ in range(rows)] for name in "xy"}
    chosen = {name: others[name] for name in draw.sample(sorted(others), draw.randrange(len(others)))}
    return target, (chosen | place if draw.random() < 0.3 and "y" not in target else chosen)


@pytest.mark.parametrize("seed", range(12))
def test_a_name_alone_does_not_make_a_target_or_an_id(seed, tmp_path):
    draw = random.Random(seed)
    target, others = table_of(draw, 40)
    if len(target) == 1 and {"image", "id"} & {*others}:
        others = {name: each for name, each in others.items() if name not in ("image", "id")}  # they may be one
    columns = [*target.items(), *others.items()]
    draw.shuffle(columns)
    for k in range(40):
        write_image(tmp_path / "img" / f"f{k:03d}.png", (k, k, k), np.random.default_rng(k))
    lines = [",".join(["key", *(name for name, _ in columns)])]
    lines += [",".join([f"f{k:03d}", *(str(cells[k]) for _, cells in columns)]) for k in range(40)]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    made = swinft.new("slug", tmp_path, tmp_path / "c.yaml").proposal
    assert made.target is not None
    assert sorted(made.target.columns) == sorted(target)
    assert made.values["data.id"] == "key"
    assert made.values["data.image"] == "img/{key}.png"
