"""What the columns of a table mean: missing words, spellings, labels, shares, metadata with gaps, groups and folds."""

import json
import time
import tracemalloc

import numpy as np
import pytest
import torch

from swinft.data.features import encode_features
from swinft.data.folds import make_folds, scored_folds
from swinft.data.schema import Schema, make_schema, with_prior
from swinft.data.strata import target_bins
from swinft.data.summary import format_summary
from swinft.data.tables.table import DataError, Table
from swinft.data.target.base import TargetCells
from swinft.errors import InputError
from tests.conftest import merged
from tests.data.conftest import Competition


@pytest.fixture
def competition(tmp_path):
    return Competition(tmp_path)


def change(competition, column, cells):
    """Gives the first training rows these cells, and the others one that is there already."""
    for row, cell in zip(competition.train, cells, strict=False):
        row[column] = cell
    competition.write()


def messages(competition, **changes):
    """The problems with a competition, each as it is printed."""
    with pytest.raises(DataError) as caught:
        competition.ready(**changes)
    return [str(problem) for problem in caught.value.problems]


# F55: missing words


def test_f055_a_word_for_missing_is_no_class_under_either_setting(competition):
    change(competition, "animal", ["NaN", "NA", "NaN"])
    found = messages(competition)
    assert len(found) == 3
    assert "value 'NaN': the class is 'NaN', a word for a missing value" in found[0]
    assert "set data.columns.on_missing_target to skip, or, if the word is a class" in found[0]
    dm = competition.ready(columns={"on_missing_target": "skip"})
    assert dm.schema.outputs == ["cat", "dog", "eel"]
    assert any("3 cells are read as missing: 'NaN' 2, 'NA' 1" in note for note in dm.notes)
    assert format_summary(dm.summary()).count("no target: 3") == 1


@pytest.mark.parametrize("setting", ["error", "skip"])
def test_f055_none_can_be_a_class(competition, setting):
    change(competition, "animal", ["None"] * 9 + [""] * (setting == "skip"))
    dm = competition.ready(columns={"on_missing_target": setting, "missing_words": ["nan"]})
    assert dm.schema.outputs == ["None", "cat", "dog", "eel"]
    assert dm.splits.status.count("no target") == (setting == "skip")


def test_f055_missing_words_hold_for_numbers_labels_and_groups_alike(competition):
    words = {"columns": {"missing_words": ["?"]}}
    change(competition, "weight", ["?", "2"])
    change(competition, "owner", ["None", "None", "?"])
    change(competition, "tags", ["?", "cat None"])
    dm = competition.ready(
        target="weight", target_kind="regression", **merged(words, {"columns": {"on_missing_target": "skip"}})
    )
    assert dm.splits.status[0] == "no target"
    assert "the group is '?', a word for a missing value" in messages(competition, folds={"group": "owner"}, **words)[0]
    labels = {"target": "tags", "target_kind": "multilabel", "columns": {"label_delimiter": " "}}
    dm = competition.ready(**merged(labels, words))
    assert dm.schema.outputs == ["None", "cat", "dog", "eel"]
    assert dm.targets[0].sum() == 0
    assert any("1 row has no label: '?' 1" in note for note in dm.notes)
    assert "a word for a missing value is among the labels" in messages(competition, **labels)[0]


# F56, F57: spellings


def test_f056_blanks_make_no_second_group(competition):
    change(competition, "owner", ["owner 0", "owner 0 ", "owner\u00a00\u200b".replace("\u00a0", " ")])
    dm = competition.ready(folds={"group": "owner"})
    assert len(set(dm.fold_of_row[:3])) == 1
    assert any("'owner' 2" in note for note in dm.notes)


@pytest.mark.parametrize("other", ["Owner 0", "owner\u00a00", "ｏwner 0"])
def test_f056_two_spellings_of_a_group_are_an_error(competition, other):
    change(competition, "owner", ["owner 0", "owner 0", other])
    (found,) = messages(competition, folds={"group": "owner"})
    assert "column 'owner'" in found
    assert "differ only by case, blanks" in found
    assert "data.columns.twins to distinct" in found
    competition.ready(folds={"group": "owner"}, columns={"twins": "distinct"})


def test_f057_accents_in_two_forms_are_one_class(competition):
    change(competition, "animal", ["caf\u00e9"] * 6 + ["cafe\u0301"] * 6)
    assert competition.ready().schema.outputs == ["caf\u00e9", "cat", "dog", "eel"]


@pytest.mark.parametrize("pair", [("1", "01"), ("1", "1.0"), ("a", "Ａ"), ("x", "'x'")])
def test_f057_two_spellings_of_a_class_are_an_error_that_counts_both(competition, pair):
    change(competition, "animal", [pair[0]] * 6 + [pair[1]] * 9)
    found = messages(competition)
    assert len(found) == 1
    assert "differ only by" in found[0]
    assert "6" in found[0].split("(")[-1]
    assert "9" in found[0].split("(")[-1]
    assert set(pair) <= set(competition.ready(columns={"twins": "distinct"}).schema.outputs)


def test_f057_labels_and_categories_are_compared_by_the_same_rule(competition):
    change(competition, "tags", ["cat dog", "Cat dog"])
    change(competition, "sex", ["F", "m"])
    labels = {"target": "tags", "target_kind": "multilabel", "columns": {"label_delimiter": " "}}
    columns = {
        found.split("'")[1]
        for found in messages(competition, **merged(labels, {"columns": {"categorical_features": ["sex"]}}))
    }
    assert columns == {"tags", "sex"}


# F58: printed lists and delimiters

LABELS = {"target": "tags", "target_kind": "multilabel"}


@pytest.mark.parametrize("cell", ["['cat', 'dog']", '["cat", "dog"]', "[cat, dog]", "[0 1 0]", "[]", "('cat', 'dog')"])
def test_f058_printed_lists_are_refused(competition, cell):
    change(competition, "tags", ["cat", cell])
    found = messages(competition, **LABELS, columns={"label_delimiter": ","})
    assert any("the cell is a printed list" in problem and "train.csv:3" in problem for problem in found)
    assert "'|'.join" in found[0] or "'|'.join" in found[-1]


def test_f058_a_class_may_be_an_interval_and_no_list(competition):
    change(competition, "animal", ["[0, 5]"] * 6 + ["(5, 10]"] * 6)
    assert "[0, 5]" in competition.ready().schema.outputs
    change(competition, "animal", ["['cat']"] * 6)
    assert "the class is a printed list" in messages(competition)[0]


@pytest.mark.parametrize(("given", "written"), [(",", "|"), ("|", ";"), ("|", " "), (", ", ","), (" ", "/")])
def test_f058_another_delimiter_than_the_table_has_is_named(competition, given, written):
    change(competition, "tags", [f"cat{written}dog"] * 30)
    (found,) = messages(competition, **LABELS, columns={"label_delimiter": given})
    assert f"no cell contains data.columns.label_delimiter {given!r}, and 30 of 30 contain {written!r}" in found


def test_f058_labels_that_keep_a_delimiter_are_named(competition):
    change(competition, "tags", ["cat, dog"])
    assert "a label ends in ','" in messages(competition, **LABELS, columns={"label_delimiter": " "})[0]


def test_f058_an_empty_delimiter_is_refused(competition):
    with pytest.raises(InputError, match=r"data.columns.label_delimiter is empty"):
        competition.module(**LABELS, columns={"label_delimiter": ""})


# F60: metadata

METADATA = {"columns": {"numeric_features": ["age"], "categorical_features": ["sex"]}}


def test_f060_gaps_and_new_words_in_the_test_table_are_filled_and_counted(competition):
    for row, (age, sex) in zip(competition.test, [("", "unknown"), ("old", ""), ("1,5", "F")], strict=True):
        row |= {"age": age, "sex": sex}
    competition.write()
    dm = competition.ready(**METADATA)
    features = torch.cat([batch["features"] for batch in dm.predict_dataloader()]).numpy()
    assert np.isnan(features[:, 0]).all()
    assert features[:, 1:].tolist() == [[0, 0], [0, 0], [1, 0]]  # f, m; F is a spelling of f
    notes = "\n".join(dm.notes)
    assert "column 'age': 3 cells without a number are filled" in notes
    assert "'unknown' 1" in notes
    assert "read as the training table's spelling: 'F' 1" in notes


def test_f060_the_test_table_can_be_held_to_the_training_tables_words(competition):
    competition.test[0] |= {"age": "", "sex": "unknown"}
    competition.write()
    found = messages(
        competition, **merged(METADATA, {"columns": {"missing_features": "error", "unknown_categories": "error"}})
    )
    assert ["test.csv:2" in problem for problem in found] == [True, True]
    assert "set data.columns.unknown_categories to other" in found[1]


def test_f060_gaps_in_the_training_table_are_an_error_until_they_are_filled(competition):
    change(competition, "age", ["", "NaN"])
    change(competition, "sex", ["", "NA", "null"])
    found = messages(competition, **METADATA)
    assert len(found) == 5
    dm = competition.ready(**merged(METADATA, {"columns": {"missing_features": "fill"}}))
    assert dm.schema.categories == {"sex": ["f", "m", ""]}
    assert (dm.schema.num_features, dm.schema.category_sizes) == (4, [3])
    batch = dm.splits.train.features
    assert np.isnan(batch[:2, 0]).all()
    assert np.isfinite(batch[2:]).all()
    assert batch[:3, 1:].tolist() == [[0, 0, 1]] * 3
    assert any("'NA' 1" in note for note in dm.notes)
    change(competition, "age", ["old"])
    assert (
        "the cell is not a finite number"
        in messages(competition, **merged(METADATA, {"columns": {"missing_features": "fill"}}))[0]
    )


def test_f060_a_rerun_on_a_hidden_table_needs_nothing_but_the_schema(competition):
    schema = Schema.from_dict(json.loads(json.dumps(competition.ready(**METADATA).schema.to_dict())))
    for row in competition.test:
        row |= {"age": "", "sex": "new", "animal": "emu"}
    competition.write()
    (competition.root / "train.csv").unlink()
    dm = competition.module(**METADATA)
    dm.schema = schema
    dm.setup("predict")
    assert any("the training table lacks some classes: 'emu' 3" in note for note in dm.notes)
    assert any("'new' 3" in note for note in dm.notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"columns": {"missing_features": "fill"}},
        {"columns": {"unknown_categories": "error", "numeric_features": ["age"]}},
    ],
)
def test_f060_settings_that_cannot_act_are_refused(competition, changes):
    with pytest.raises(InputError, match="does nothing without"):
        competition.module(**changes)


# F61, F92: rare classes


def test_f061_a_class_of_one_group_is_named_and_can_be_trained_on(competition):
    change(competition, "animal", ["emu"] * 10)
    change(competition, "owner", ["one"] * 10)
    (found,) = messages(competition, folds={"group": "owner", "num": 2})
    assert "value 'emu': all rows of the class are of one group" in found
    assert "It is 'one'" in found
    dm = competition.ready(folds={"group": "owner", "num": 2, "rare_classes": "train"})
    assert (dm.fold_of_row[:10] == -1).all()
    assert (dm.fold_of_row[10:] >= 0).all()


def test_f061_rows_that_share_a_group_with_a_rare_class_are_not_scored_by_a_fold_that_all_train_on():
    classes = np.array([2] + [0, 1] * 20)
    groups = ["a"] * 5 + [f"g{k // 4}" for k in range(36)]
    folds = scored_folds("auto", 2, 0, classes, groups)
    assert (folds[:5] == -1).all()  # the rare class's group as a whole
    assert (folds[5:] >= 0).all()


def test_f061_groups_that_share_a_fold_leave_no_fold_without_a_class():
    rng = np.random.default_rng(0)
    groups = [f"g{k}" for k in range(12) for _ in range(5)]
    for seed in range(10):
        classes = rng.integers(0, 2, 60)
        classes[10:20] = 2  # two groups
        folds = scored_folds("group", 4, seed, classes, groups)
        for fold in range(folds.max() + 1):
            assert set(classes[folds != fold]) == {0, 1, 2}


def test_f061_no_row_left_to_score_is_an_error():
    with pytest.raises(InputError, match="no row is left to score"):
        scored_folds("auto", 2, 0, np.array([0, 0, 1, 1]), ["a", "a", "b", "b"])


def test_f092_the_last_class_by_name_may_be_a_rare_one(competition):
    change(competition, "animal", ["zebra"])
    dm = competition.ready(folds={"rare_classes": "train", "num": 2})
    text = format_summary(dm.summary())
    assert "zebra: 1" in text
    assert dm.summary()["folds"][0]["zebra"] == 0


def test_classes_of_one_row_may_be_spread_over_the_folds_and_are_unseen_there(competition):
    change(competition, "animal", [*["zebra", "yak", "ox"], *["cow"] * 2])
    data = competition.ready(folds={"rare_classes": "spread", "num": 3})
    assert data.is_scored.all()
    animals = [row["animal"] for row in competition.train]
    rows = range(len(animals))
    seen = [{animals[other] for other in rows if data.fold_of_row[other] != data.fold_of_row[row]} for row in rows]
    unseen = [animals[row] not in seen[row] for row in rows]
    assert data.splits.unseen.tolist() == unseen
    assert sum(unseen) >= 3
    assert any("trains on no row of" in note for note in data.notes)
    only_rare = competition.ready(folds={"rare_classes": "spread", "num": 20})  # no class has so many rows
    assert set(only_rare.fold_of_row.tolist()) == set(range(20))
    path = folds_file(competition, lambda k: k % 3)
    with pytest.raises(InputError, match="trains on no row"):
        competition.ready(folds={"file": path})
    assert competition.ready(folds={"file": path, "rare_classes": "spread"}).splits.unseen.any()


# F62, F63, F64: folds


def folds_file(competition, fold):
    path = competition.root / "folds.csv"
    path.write_text("id,fold\n" + "".join(f"{row['id']},{fold(k)}\n" for k, row in enumerate(competition.train)))
    return str(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"duplicates": "group"},
        {"kind": "group"},
        {"rare_classes": "train"},
        {"num": 7},
    ],
)
def test_f062_settings_beside_a_folds_file_are_refused(competition, changes):
    path = folds_file(competition, lambda k: k // 3 % 2)
    with pytest.raises(InputError, match=next(iter(changes))):
        competition.ready(folds={"file": path, **changes})
    assert competition.ready(folds={"file": path, "num": 2}).fold_of_row.max() == 1


@pytest.mark.parametrize("kind", ["kfold", "stratified", "multilabel"])
def test_f062_duplicates_in_groups_and_a_kind_that_splits_them_contradict_each_other(competition, kind):
    with pytest.raises(InputError, match=r"data.folds.duplicates 'group' .* data.folds.kind"):
        competition.module(folds={"duplicates": "group", "kind": kind})


def test_f062_groups_of_duplicates_are_not_said_to_be_data_group():
    with pytest.raises(InputError, match=r"data.folds.duplicates: group has only 1 group"):
        make_folds("auto", 2, 0, np.array([0, 1, 0, 1]), ["a"] * 4, "data.folds.duplicates: group")


def test_f063_rows_without_a_fold_have_a_status(competition):
    dm = competition.ready(folds={"file": folds_file(competition, lambda k: -1 if k < 3 else k // 3 % 2)})
    assert dm.may_skip
    assert dm.splits.status[:4] == ["in no fold"] * 3 + ["ok"]
    assert not competition.ready(folds={"file": folds_file(competition, lambda k: k // 3 % 2)}).may_skip


def test_f064_a_long_tail_does_not_end_stratification():
    values = np.random.default_rng(0).lognormal(0, 2, (1000, 1)).astype(np.float32)
    bins = target_bins(values[:, 0], 5)
    assert np.bincount(bins).max() < 0.2 * len(values)

    def spread(kind):
        folds = [make_folds(kind, 5, seed, values) for seed in range(5)]
        return np.mean([np.ptp([np.median(values[fold == k]) for k in range(5)]) for fold in folds])

    assert spread("auto") < 0.6 * spread("kfold")


def test_f064_one_outlier_and_many_equal_numbers():
    values = np.arange(1000.0)
    assert np.array_equal(target_bins(values, 5)[:990], target_bins(np.append(values, 1e9), 5)[:990]) is False
    assert np.bincount(target_bins(np.append(values, 1e9), 5)).max() < 150
    mostly_zero = np.concatenate([np.zeros(800), np.arange(1, 201)])
    bins = target_bins(mostly_zero, 5)
    assert set(bins[:800]) == {0}
    assert bins[800:].min() > 0


# F65, F84


@pytest.mark.parametrize("words", [("True", "False"), ("yes", "NO"), ("T", "f"), ("1", "False")])
def test_f065_true_and_false_are_labels(competition, words):
    change(competition, "has_fur", [words[k % 2] for k in range(30)])
    dm = competition.ready(target=["has_fur", "is_long"], target_kind="multilabel")
    assert dm.targets[:4, 0].tolist() == [1, 0, 1, 0]
    assert any("are read as 1 and 0" in note for note in dm.notes)


def test_f065_true_and_false_of_the_test_table_are_read_as_those_of_the_training_table(competition):
    for k, row in enumerate(competition.train):
        row["is_old"] = str(k % 2 == 0)
    for row, cell in zip(competition.test, ("true", "maybe", "0"), strict=True):
        row["is_old"], row["age"] = cell, "no"
    competition.write()
    dm = competition.ready(columns={"numeric_features": ["is_old", "age"]})
    features = torch.cat([batch["features"] for batch in dm.predict_dataloader()]).numpy()
    assert features[:, 0].tolist()[::2] == [1, 0]
    assert np.isnan(features[1]).all()
    assert np.isnan(features[:, 1]).all()  # no is no age


def test_f055_a_table_without_any_target_is_refused(competition):
    change(competition, "weight", ["NA"] * 30)
    found = messages(competition, target="weight", target_kind="regression", columns={"on_missing_target": "skip"})
    assert "no row has a target" in found[0]


@pytest.mark.parametrize("words", ["NA", [None], [1]])
def test_f055_missing_words_are_a_list_of_texts(competition, words):
    with pytest.raises(InputError, match=r"data.columns.missing_words is"):
        competition.module(columns={"missing_words": words})


@pytest.mark.parametrize("encoding", ["base64", "undefined", "utf-99"])
def test_an_encoding_that_is_none_of_text_is_refused(competition, encoding):
    with pytest.raises(InputError, match=r"data.columns.encoding"):
        competition.module(columns={"encoding": encoding})


def test_classes_that_are_decimals_are_in_the_numbers_order(competition):
    change(competition, "animal", [f"{k % 3 * 5}.5" for k in range(30)])
    assert competition.ready().schema.outputs == ["0.5", "5.5", "10.5"]


@pytest.mark.parametrize("grades", [["-1", "0", "+1"], ["1.", "9.", "10."], ["9", "2e1", "1e2"]])
def test_classes_that_are_numbers_in_any_form_are_in_the_numbers_order(competition, grades):
    change(competition, "animal", [grades[k % 3] for k in range(30)])
    schema = competition.ready().schema
    assert schema.outputs == grades
    assert (np.diff(schema.grades) > 0).all()  # a head of grades takes its thresholds between neighbours


def test_f065_true_among_numbers_is_no_number(competition):
    change(competition, "weight", ["True", "2.5"])
    found = messages(competition, target="weight", target_kind="regression")
    assert len(found) == 1
    assert "value 'True': the cell is not a finite number" in found[0]


@pytest.mark.parametrize("cell", ["1,5", "1.234,5", "1 234", "1.234.567", "1'234.5"])
def test_decimal_commas_and_thousands_are_named(competition, cell):
    change(competition, "weight", [cell])
    found = messages(competition, target="weight", target_kind="regression")
    assert "the number contains a decimal comma or thousands separators" in found[0]


def test_f065_shares_one_hot_columns_and_several_rows_per_id_are_named(competition):
    columns = ["has_fur", "is_long"]
    change(competition, "has_fur", ["0.7"] * 30)
    (found,) = messages(competition, target=columns, target_kind="multilabel")
    assert "30 labels are fractions between 0 and 1" in found
    assert "loss: bce" in found
    assert "target_kind to classification" in found
    assert any("the sums of 30 rows go from 0.7 to 1.7" in note for note in competition.ready(target=columns).notes)
    competition.test[1]["id"] = competition.test[0]["id"]
    competition.write()
    found = messages(competition)
    assert any("Rows of one id are not averaged" in problem for problem in found)


def table_of(**columns):
    num_rows = len(next(iter(columns.values())))
    ids = [str(row) for row in range(num_rows)]
    return Table("t.csv", {"id": ids, **columns}, np.arange(num_rows) + 2, "id")


def test_f084_classes_and_categories_take_memory_by_their_rows():
    classes = np.arange(200_000) % 2000
    schema = Schema("classification", [str(k) for k in range(2000)])
    tracemalloc.start()
    assert with_prior(schema, classes).prior == [0.0005] * 2000
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.reset_peak()
    table = table_of(site=[f"s{k % 500}" for k in range(20_000)], y=["1", "2"] * 10_000)
    schema = make_schema(table, "regression", "y", None, [], ["site"])
    features = encode_features(table, schema, [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        features.argmax(1) == np.array([schema.categories["site"].index(cell) for cell in table.column("site")])
    ).all()
    assert peak < 1.6 * features.nbytes + 10e6


def test_f084_200_000_rows_take_seconds():
    columns = {
        "y": [str(k % 2000) for k in range(200_000)],
        "age": ["1.5", ""] * 100_000,
        "tags": ["a b", "c"] * 100_000,
    }
    table = table_of(**columns)
    started = time.process_time()
    schema = make_schema(table, "classification", "y", None, ["age"], [])
    problems = []
    schema.target.encode(TargetCells(table, ["y"]), schema.outputs, problems)
    encode_features(table, schema, problems, is_test=True, notes=[])
    labels = make_schema(table, "multilabel", "tags", " ", [], [])
    labels.target.encode(TargetCells(table, ["tags"], " "), labels.outputs, problems)
    assert problems == []
    assert time.process_time() - started < 8
