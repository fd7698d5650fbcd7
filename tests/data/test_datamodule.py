"""From CSVs and image files to batches, and everything that can be wrong on the way."""

import json
import re
from dataclasses import fields
from typing import ClassVar

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from swinft.data.columns import Columns
from swinft.data.datamodule import CSVDataModule
from swinft.data.fold_settings import FoldConfig
from swinft.data.images.rules import ImageRules
from swinft.data.schema import Schema
from swinft.data.settings import LoadingConfig
from swinft.data.summary import format_summary
from swinft.data.tables.table import DataError
from swinft.errors import InputError


def problems_of(module, stage="fit"):
    with pytest.raises(DataError) as caught:
        module.setup(stage)
    return caught.value.problems


def joined(loader):
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def test_batches_hold_what_the_seam_says(competition):
    dm = competition.ready(columns={"numeric_features": ["age"], "categorical_features": ["sex"]})
    batch = next(iter(dm.train_dataloader()))
    assert {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in batch.items()} == {
        "image": ((4, 3, 16, 20), torch.uint8),
        "target": ((4,), torch.int64),
        "row": ((4,), torch.int64),
        "features": ((4, 3), torch.float32),
    }
    for k, row in enumerate(batch["row"].tolist()):
        assert abs(float(batch["image"][k].float().mean()) - 7 * row - 2) < 1
        assert dm.schema.outputs[batch["target"][k]] == competition.train[row]["animal"]
        assert batch["features"][k].tolist() == [row % 7, row % 2, 1 - row % 2]
    assert dm.schema.num_features == 3


def test_train_and_validation_rows_are_all_rows_once(competition):
    dm = competition.ready(folds={"held_out": 2}, batch_size=100)
    held_out = joined(dm.val_dataloader())["row"].tolist()
    trained = joined(dm.train_dataloader())["row"].tolist()
    assert held_out == np.flatnonzero(dm.fold_of_row == 2).tolist()
    assert sorted(trained + held_out) == list(range(30))
    assert trained != sorted(trained)


@pytest.mark.parametrize(
    ("kind", "changes", "outputs", "second_row"),
    [
        ("regression", {"target": "weight"}, ["weight"], [1.5]),
        ("regression", {"target": ["weight", "age"]}, ["weight", "age"], [1.5, 1.0]),
        ("multilabel", {"target": ["has_fur", "is_long"]}, ["has_fur", "is_long"], [1, 0]),
        ("multilabel", {"target": "tags", "columns": {"label_delimiter": " "}}, ["cat", "dog", "eel"], [1, 0, 0]),
    ],
)
def test_every_kind_of_target(competition, kind, changes, outputs, second_row):
    dm = competition.ready(target_kind=kind, **changes)
    assert dm.schema.outputs == outputs
    assert (dm.targets.dtype, dm.targets.shape) == (np.float32, (30, len(outputs)))
    assert dm.targets[1].tolist() == second_row
    batch = joined(dm.val_dataloader())
    assert torch.equal(batch["target"], torch.from_numpy(dm.targets)[batch["row"]])
    assert "folds" in format_summary(dm.summary())
    assert dm.show_batch("val", n=2).axes[0].get_title()


def test_prediction_needs_the_schema_but_not_the_training_table(competition):
    schema = Schema.from_dict(json.loads(json.dumps(competition.ready().schema.to_dict())))
    (competition.root / "train.csv").unlink()
    dm = competition.module()
    dm.schema = schema
    dm.setup("predict")
    batch = joined(dm.predict_dataloader())
    assert set(batch) == {"image", "row"}
    assert dm.test_table.ids == ["t2", "t0", "t1"]
    assert batch["row"].tolist() == [0, 1, 2]
    assert batch["image"].float().mean((1, 2, 3)).sub(2).div(7).round().tolist() == [30, 31, 32]
    with pytest.raises(InputError, match=r'call setup\("fit"\)'):
        _ = dm.train_table


def test_the_sample_submission_names_the_rows_where_there_is_no_test_table(competition):
    dm = competition.module(test=None)
    dm.schema = competition.ready().schema
    dm.setup("predict")
    assert dm.test_table.ids == ["t2", "t0", "t1"]
    with pytest.raises(InputError, match=r"set data.test or data.sample_submission"):
        competition.module(test=None, sample_submission=None).setup("predict")


def test_test_images_may_lie_elsewhere(competition):
    (competition.root / "unseen").mkdir()
    for row in competition.test:
        (competition.root / "images" / f"{row['id']}.png").rename(competition.root / "unseen" / f"{row['id']}.png")
    assert {problem.id for problem in problems_of(competition.module())} == {"t0", "t1", "t2"}
    competition.ready(columns={"test_image": "unseen/{id}.png"})


def test_the_same_images_with_any_number_of_workers(competition):
    here = joined(competition.ready(augment="heavy").train_dataloader())
    there = joined(competition.ready(augment="heavy", loading={"num_workers": 2}).train_dataloader())
    assert all(torch.equal(here[key], there[key]) for key in here)


def test_loading_leaves_torchs_generator_alone(competition):
    dm = competition.ready()
    before = torch.get_rng_state()
    joined(dm.train_dataloader())
    assert torch.equal(before, torch.get_rng_state())


def test_folds_of_another_run(competition, tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text("id,fold\n" + "".join(f"{row['id']},{(k // 3) % 2}\n" for k, row in enumerate(competition.train)))
    dm = competition.ready(folds={"file": str(path)})
    assert dm.fold_of_row.tolist() == [(k // 3) % 2 for k in range(30)]
    with pytest.raises(InputError, match="the folds are 0 to 1"):
        competition.ready(folds={"file": str(path), "held_out": 2})
    path.write_text("id,fold\n" + "".join(f"{row['id']},{k % 3}\n" for k, row in enumerate(competition.train)))
    with pytest.raises(InputError, match="fold 0 trains on no row of dog"):
        competition.ready(folds={"file": str(path)})


def test_groups_stay_together(competition):
    dm = competition.ready(folds={"group": "owner"})
    assert (dm.fold_of_row[::2] == dm.fold_of_row[1::2]).all()
    assert (competition.ready().fold_of_row[::2] != competition.ready().fold_of_row[1::2]).any()


def test_everything_wrong_in_both_tables_is_listed_at_once(competition):
    competition.train[3] |= {"age": "old", "owner": ""}
    competition.train[5] |= {"id": "../../passwd"}
    competition.train[7] |= {"animal": ""}
    competition.train[8] |= {"animal": "emu"}
    competition.test[1] |= {"sex": "x"}
    competition.write()
    (competition.root / "images" / "009.png").unlink()
    (competition.root / "images" / "t1.png").unlink()
    competition.test[2] |= {"id": "t1"}
    module = competition.module(
        columns={"numeric_features": ["age"], "categorical_features": ["sex"], "unknown_categories": "error"},
        folds={"group": "owner"},
        loading={"download": "kaggle competitions download x"},
    )
    found = problems_of(module)
    places = {(problem.file.rsplit("/")[-1], problem.line, problem.column) for problem in found}
    assert places == {
        ("train.csv", 5, "age"),
        ("train.csv", 5, "owner"),
        ("train.csv", 7, None),  # leaves the folder
        ("train.csv", 9, "animal"),
        ("train.csv", None, "animal"),  # one emu for five folds
        ("train.csv", 11, None),  # no image
        ("test.csv", 3, "sex"),
        ("test.csv", 4, None),  # no image
    }
    with pytest.raises(DataError, match="kaggle competitions download x"):
        module.setup("fit")


def test_missing_data_says_how_to_get_it(competition):
    module = competition.module(
        root=str(competition.root / "nowhere"), loading={"download": "kaggle competitions download x"}
    )
    assert [problem.file.rsplit("/")[-1] for problem in problems_of(module)] == [
        "train.csv",
        "test.csv",
        "sample_submission.csv",
    ]
    with pytest.raises(DataError, match=r"(?s)no such file.*To get the data:\nkaggle competitions download x"):
        module.setup("fit")


def test_a_template_and_targets_that_name_no_column(competition):
    found = problems_of(competition.module(image="images/{ids}.png", target="animals"))
    fixes = {(problem.file.rsplit("/")[-1], problem.column): problem.fix for problem in found}
    assert fixes[("train.csv", "ids")] == "Change data.image. Did you mean 'id'?"
    assert fixes[("train.csv", "animals")] == "Change data.target. Did you mean 'animal'?"
    assert ("test.csv", "ids") in fixes


def test_test_and_sample_must_have_the_same_ids(competition):
    text = (competition.root / "sample_submission.csv").read_text()
    (competition.root / "sample_submission.csv").write_text(text.replace("t0", "t9"))
    assert [(problem.id, problem.line) for problem in problems_of(competition.module())] == [("t9", 3), ("t0", 3)]


def test_a_labelled_test_table_has_known_classes_but_placeholders_are_none(competition):
    for row in competition.test:
        row["animal"] = "emu"
    competition.write()
    assert len(problems_of(competition.module())) == 3
    (competition.root / "sample_submission.csv").write_text("id,animal\nt0,0\nt1,0\nt2,0\n")
    competition.ready(test=None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"folds": {"num": 1}}, "data.folds.num is 1. Allowed: a whole number from 2"),
        ({"batch_size": 0}, "data.batch_size"),
        ({"image_size": 0}, "data.image_size"),
        ({"target_kind": "clasification"}, "data.target_kind is 'clasification'. Did you mean 'classification'?"),
        ({"loading": {"resize": "stretch"}}, "data.loading.resize is 'stretch'. Allowed: squash, crop, pad."),
        ({"augment": "hevy"}, "data.augment is 'hevy'. Did you mean 'heavy'?"),
        ({"folds": {"kind": "groups"}}, "data.folds.kind is 'groups'. Did you mean 'group'?"),
        ({"image": "images/id.png"}, "names no column"),
        ({"columns": {"numeric_features": ["animal"]}}, "would see the target"),
        ({"columns": {"numeric_features": ["age"], "categorical_features": ["age"]}}, "'age' is named twice"),
    ],
)
def test_settings_that_contradict_each_other(competition, changes, expected):
    with pytest.raises(InputError, match=re.escape(expected)):
        competition.module(**changes)


def test_several_wrong_settings_are_one_error(competition):
    with pytest.raises(InputError, match=r"(?s)data.loading.resize is 'stretch'.*data.batch_size is 0"):
        competition.module(batch_size=0, loading={"resize": "stretch"})


def test_a_pipeline_that_cannot_work_is_found_at_setup(competition):
    with pytest.raises(InputError, match=r"remove A\.Normalize"):
        competition.ready(augment=[A.Resize(16, 20), A.Normalize()])


def test_a_loader_before_setup_says_what_to_call(competition):
    for loader in (competition.module().train_dataloader, competition.module().val_dataloader):
        with pytest.raises(InputError, match=r'call setup\("fit"\) first'):
            loader()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_breaks_while_training_is_named_with_its_row(competition, num_workers):
    dm = competition.ready(loading={"num_workers": num_workers})
    (competition.root / "images" / "004.png").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"train.csv:6: id '004'.*is a web page"):
        [batch for loader in (dm.train_dataloader(), dm.val_dataloader()) for batch in loader]


def test_check_decodes_every_image(competition):
    for name in ("004", "t1"):
        path = competition.root / "images" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:-60])
    dm = competition.module()
    dm.setup("fit")  # the files are there
    with pytest.raises(DataError) as caught:
        dm.check()
    assert [(problem.line, problem.id) for problem in caught.value.problems] == [(6, "004"), (4, "t1")]


def test_the_summary_counts(competition):
    Image.new("L", (5, 9)).save(competition.root / "images" / "000.png")
    dm = competition.ready()
    dm.check()
    summary = dm.summary()
    assert (summary["rows"], summary["test rows"]) == (30, 3)
    assert summary["outputs"] == {"cat": 10, "dog": 10, "eel": 10}
    assert summary["folds"][0] == {"fold": 0, "rows": 6, "cat": 2, "dog": 2, "eel": 2}
    assert summary["images"]["modes"] == {"RGB": 29, "L": 1}
    assert summary["images"]["smallest"] == "5×9"
    text = format_summary(summary)
    assert "  fold  rows  cat  dog  eel\n     0     6    2    2    2" in text
    assert "cat: 10" in text


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_show_batch_draws_images_under_their_labels(competition, split):
    dm = competition.ready()
    figure = dm.show_batch(split, n=3)
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert len(titles) == 3
    assert titles == ["t2", "t0", "t1"] if split == "test" else set(titles) <= {"cat", "dog", "eel"}
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (16, 20, 3)


# Settings in sections


def test_sections_may_be_objects_or_plain_values(competition):
    objects = {"folds": FoldConfig(num=3, held_out=1), "columns": Columns(numeric_features=["age"])}
    plain = {"folds": {"num": 3, "held_out": 1}, "columns": {"numeric_features": ["age"]}}
    rules = {"loading": {"image_rules": {"bits": 12}}}
    one, other = (competition.ready(**sections, **rules) for sections in (objects, plain))
    assert one.settings == other.settings
    assert one.fold == 1
    assert next(iter(one.val_dataloader()))["row"].tolist() == np.flatnonzero(one.fold_of_row == 1)[:4].tolist()
    assert one.settings.loading == LoadingConfig(image_rules=ImageRules(bits=12))


def test_what_is_wrong_in_any_section_is_listed_together(competition):
    changes = {"folds": {"num": 1.5}, "columns": {"twins": "eror", "encoding": "utf-9"}, "loading": {"chache": True}}
    with pytest.raises(InputError) as caught:
        competition.module(**changes, batch_size=True, image_size=0, target_kind="clas")
    said = str(caught.value)
    for words in (
        "data.columns.twins is 'eror'. Did you mean 'error'?",
        "data.columns.encoding 'utf-9' is unknown",
        "data.folds.num is 1.5. Allowed: a whole number from 2.",
        "data.loading has no 'chache'. Did you mean 'cache'?",
        "data.image_size is 0",
        "data.batch_size is True. Allowed: a whole number from 1.",
        "data.target_kind is 'clas'",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FoldConfig(file="f.csv", kind="group"), "data.folds.kind cannot act"),
        (lambda: FoldConfig(held_out=-1), "data.folds.held_out is -1"),
        (lambda: FoldConfig(num="3"), "data.folds.num is '3'"),
        (lambda: Columns(numeric_features="age"), "write a list of texts"),
        (lambda: LoadingConfig(shrink="yes"), "data.loading.shrink is 'yes'. Allowed: true, false, auto."),
        (lambda: LoadingConfig(virtual_epochs=0), "data.loading.virtual_epochs is 0"),
        (lambda: LoadingConfig(num_workers=True), "data.loading.num_workers is 'True'"),
        (lambda: LoadingConfig(image_rules={"bit": 1}), "data.loading.image_rules has no 'bit'. Did you mean 'bits'?"),
        (lambda: LoadingConfig(augment_on="device", cache=False), "data.loading.cache is false"),
    ],
)
def test_a_section_checks_itself(make, said):
    with pytest.raises(InputError, match=re.escape(said)):
        make()


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": None},
        {"augment": ["flip"]},
        {"image": None},
        {"root": None},
        {"target": None},
        {"target": [1, 2]},
        {"batch_size": "8"},
        {"image_size": "32"},
        {"columns": {"test_id": 5}},
        {"columns": {"encoding": None}},
        {"folds": {"file": 5}},
        {"folds": {1: 2}},
        {"loading": {"preprocess": "flip"}},
        {"loading": {"cache_dir": 5}},
        {"loading": {"image_rules": {"background": None}}},
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_it(competition, changes):
    (key,) = changes
    with pytest.raises(InputError, match=rf"data\.{key}"):
        competition.module(**changes)


@pytest.mark.parametrize("folds", ["folds.csv", None, 5])
def test_a_section_that_is_none_is_refused(competition, folds):
    with pytest.raises(InputError, match=r"data\.folds is .*give a FoldConfig, or a dictionary of its fields"):
        competition.module(folds=folds)


def test_a_fold_that_is_set_later_is_checked(competition):
    dm = competition.ready(folds={"num": 3})
    dm.fold = 3
    with pytest.raises(InputError, match=r"fold is 3; the folds are 0 to 2"):
        dm.setup("fit")


class Inverted(Dataset):
    """A dataset around another one."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, key):
        item = self.inner[key]
        return {**item, "image": 255 - item["image"]}


class InvertedModule(CSVDataModule):
    """The example of a subclass: it makes datasets of its own."""

    asked: ClassVar[list[str]] = []

    def make_dataset(self, split, rows, makes_cache=False):
        self.asked.append(split)
        return Inverted(super().make_dataset(split, rows, makes_cache))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_subclass_makes_datasets_of_its_own(competition, num_workers):
    plain = competition.ready(loading={"num_workers": num_workers})
    names = [field.name for field in fields(plain.settings)]
    settings = {name: getattr(plain.settings, name) for name in names}
    own = InvertedModule(**settings)
    own.setup("fit")
    for name in ("train_dataloader", "val_dataloader", "predict_dataloader"):
        one, other = (joined(getattr(dm, name)()) for dm in (plain, own))
        assert torch.equal(one["row"], other["row"])
        assert torch.equal(one["image"], 255 - other["image"])
    assert {"train", "val", "predict"} <= set(own.asked)
    assert own.show_batch("train", n=2).axes[0].get_title()
    on_device = InvertedModule(**settings | {"loading": {"augment_on": "device"}})
    on_device.setup("fit")
    with pytest.raises(InputError, match=r"make_dataset returned a Inverted\. Set it to cpu"):
        on_device.train_dataloader()
