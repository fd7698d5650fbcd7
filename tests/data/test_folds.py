"""Folds against scikit-learn where it has the kind, and against counts where it has not."""

import numpy as np
import pytest
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import StratifiedKFold

from swinft.data.fold_checks import check_folds, count_per_fold, split_groups
from swinft.data.folds import folds_csv, make_folds, read_folds
from swinft.data.strata import target_bins
from swinft.data.tables.table import DataError, read_table
from swinft.errors import InputError

RNG = np.random.default_rng(0)
CLASSES = RNG.choice(3, 200, p=[0.6, 0.3, 0.1])
NUMBERS = RNG.gamma(2.0, 15.0, (200, 1)).astype(np.float32)
LABELS = (RNG.random((200, 4)) < [0.5, 0.3, 0.1, 0.05]).astype(np.float32)
GROUPS = [f"patient {k}" for k in RNG.choice(40, 200)]
NAMES = ["a", "b", "c", "d"]


def test_multi_label_folds_are_those_of_iterative_stratification():
    rng = np.random.default_rng(0)
    for seed in range(30):
        labels = (rng.random((int(rng.integers(6, 60)), int(rng.integers(2, 9)))) < rng.random()).astype(np.float32)
        expected = np.empty(len(labels), dtype=np.int64)
        splitter = MultilabelStratifiedKFold(n_splits=3, shuffle=True, random_state=seed)
        for fold, (_, held_out) in enumerate(splitter.split(labels, labels.astype(np.int8))):
            expected[held_out] = fold
        assert make_folds("multilabel", 3, seed, labels).tolist() == expected.tolist()


def test_groups_of_many_classes_are_spread_as_evenly_as_by_scikit_learn(monkeypatch):
    rng, ratios = np.random.default_rng(0), []
    for seed in range(8):
        classes, groups = rng.integers(0, 12, 400), [f"g{k}" for k in rng.integers(0, 120, 400)]

        def uneven(classes=classes, groups=groups, seed=seed):
            folds = make_folds("stratified_group", 4, seed, classes, groups)
            assert all(len(set(folds[np.array(groups) == group])) == 1 for group in set(groups))
            counts = np.stack([np.bincount(classes[folds == fold], minlength=12) for fold in range(4)])
            return counts.std(0).mean(), np.ptp(np.bincount(folds))

        expected = uneven()
        with monkeypatch.context() as patch:
            patch.setattr("swinft.data.grouped.MOST_CELLS", 0)
            found = uneven()
        ratios.append(found[0] / expected[0])
        assert found[1] <= expected[1] + 12
    assert np.mean(ratios) < 1.15


def test_one_label_is_split_like_several():
    folds = make_folds("multilabel", 4, 0, LABELS[:, :1])
    assert np.ptp([LABELS[folds == fold, 0].sum() for fold in range(4)]) <= 1


def number_split(folds):
    return sum(len(set(folds[np.array(GROUPS) == group])) > 1 for group in set(GROUPS))


@pytest.mark.parametrize(
    "kind", ["auto", "kfold", "stratified", "multilabel", "group", "stratified_group", "multilabel_group"]
)
@pytest.mark.parametrize("targets", [CLASSES, NUMBERS, LABELS], ids=["classes", "numbers", "labels"])
def test_every_kind_covers_every_row_with_folds_of_like_size(kind, targets):
    if "stratified" in kind and targets is LABELS:
        with pytest.raises(InputError, match="use 'multilabel'"):
            make_folds(kind, 5, 1, targets, GROUPS if "group" in kind else None)
        return
    groups = GROUPS if "group" in kind else None
    folds = make_folds(kind, 5, 1, targets, groups)
    assert folds.dtype == np.int64
    sizes = np.bincount(folds, minlength=5)
    assert sizes.sum() == 200
    assert (abs(sizes - 40) <= (10 if groups else 5)).all(), sizes  # by scikit-learn 1.6; newer ones are closer
    assert number_split(folds) == 0 if groups else number_split(folds) > 0
    assert np.array_equal(folds, make_folds(kind, 5, 1, targets, groups))
    if kind != "group":
        assert not np.array_equal(folds, make_folds(kind, 5, 2, targets, groups))
    check_folds(folds, targets, NAMES, split_groups(folds, groups, np.ones(200, dtype=bool)))


def test_auto_is_scikit_learns_stratified_split():
    expected = np.empty(200, dtype=np.int64)
    splitter = StratifiedKFold(5, shuffle=True, random_state=7)
    for fold, (_, rows) in enumerate(splitter.split(CLASSES, CLASSES)):
        expected[rows] = fold
    assert np.array_equal(make_folds("auto", 5, 7, CLASSES), expected)
    assert np.array_equal(
        make_folds("auto", 5, 7, CLASSES, GROUPS), make_folds("stratified_group", 5, 7, CLASSES, GROUPS)
    )


def test_stratifying_numbers_brings_the_folds_means_together():
    def spread(kind, targets, column):
        means = [
            [targets[make_folds(kind, 5, seed, targets) == fold, column].mean() for fold in range(5)]
            for seed in range(5)
        ]
        return np.mean(np.ptp(means, axis=1))

    assert spread("auto", NUMBERS, 0) < 0.5 * spread("kfold", NUMBERS, 0)
    two = np.column_stack([NUMBERS[:, 0], RNG.normal(size=200)]).astype(np.float32)
    assert spread("auto", two, 0) < 0.6 * spread("kfold", two, 0)
    assert spread("auto", two, 1) < 0.6 * spread("kfold", two, 1)


def test_labels_are_shared_out_evenly_with_and_without_groups():
    for groups in (None, GROUPS):
        counts = count_per_fold(make_folds("auto", 5, 1, LABELS, groups), LABELS, 4)
        assert (np.ptp(counts, axis=0) <= [4, 4, 4, 4]).all(), counts
    assert number_split(make_folds("auto", 5, 1, LABELS, GROUPS)) == 0


def test_a_large_group_is_placed_before_the_small_ones_fill_the_folds():
    groups = ["large"] * 50 + [f"small {k // 10}" for k in range(50)]
    for seed in range(5):
        folds = make_folds("multilabel_group", 2, seed, np.tile(LABELS[:50], (2, 1)), groups)
        assert np.bincount(folds).tolist() == [50, 50]


def test_target_bins():
    values = np.concatenate([np.arange(16.0), [100.0]])  # 1 + log2 17 = 5 bins, 20 wide
    even_sized = target_bins(values, 1)  # 16 of 17 rows would be in the first: bins of equal sizes
    assert np.bincount(even_sized).tolist() == [4, 3, 3, 3, 4]
    values = np.concatenate([np.arange(8.0), np.arange(90.0, 98.0)])
    assert target_bins(values, 1).tolist() == [0] * 8 + [1] * 8
    assert target_bins(np.append(values, 50.0), 2).tolist() == [0] * 8 + [1] * 9  # one row is no bin
    even = target_bins(np.arange(9912.0), 10)
    assert len(np.unique(even)) == 14
    assert np.ptp(np.bincount(even)) <= 1
    assert np.bincount(target_bins(NUMBERS[:, 0], 10)).min() >= 10


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("auto", 1, 0, CLASSES), "at least 2"),
        (("auto", 500, 0, CLASSES), "there are 200 rows only"),
        (("group", 5, 0, CLASSES), "needs data.folds.group"),
        (("stratified", 5, 0, CLASSES, GROUPS), "would split the groups"),
        (("auto", 41, 0, CLASSES, GROUPS), "only 40 groups"),
    ],
)
def test_wrong_use(arguments, expected):
    with pytest.raises(InputError, match=expected):
        make_folds(*arguments)


def test_folds_that_do_not_hold_are_refused_with_all_reasons():
    targets = np.array([0, 0, 1, 1, 0, 0])
    folds = np.array([0, 0, 2, 2, 0, 2])
    split = split_groups(folds, ["p", "p", "q", "q", "p", "p"], np.ones(6, dtype=bool))
    with pytest.raises(InputError) as caught:
        check_folds(folds, targets, ["cat", "dog"], split)
    message = str(caught.value)
    assert "fold 1 has no row" in message
    assert "group 'p' is in more than one fold" in message
    assert "fold 2 trains on no row of dog" in message
    with pytest.raises(InputError, match="only one fold"):
        check_folds(np.zeros(6, dtype=np.int64), targets, ["cat", "dog"])


def test_what_is_worth_knowing_is_noted():
    folds = np.array([0, 0, 1, 1])
    assert check_folds(folds, np.array([0, 1, 0, 1]), ["cat", "dog"]) == []
    labels = np.array([[1, 1], [0, 0], [1, 0], [0, 0]], dtype=np.float32)
    assert check_folds(folds, labels, ["cat", "dog"]) == [
        "fold 0 trains on no positive row of dog.",
        "fold 1 holds out no row of dog.",
    ]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('id,y\n007,1\n"a,b",2\nNA,3\n')
    return read_table(path, "id", {}, [])


def test_a_folds_file_reads_back_in_any_order(table, tmp_path):
    folds = np.array([2, 0, 1])
    text = folds_csv(table.ids, folds)
    assert text == 'id,fold\n007,2\n"a,b",0\nNA,1\n'
    head, *rows = text.splitlines()
    path = tmp_path / "folds.csv"
    path.write_text("\n".join([head, *rows[::-1]]) + "\n")
    assert read_folds(path, table).tolist() == [2, 0, 1]


def test_folds_of_another_table_are_refused(table, tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text('id,fold\n007,2\n"a,b",x\n7,1\n')
    with pytest.raises(DataError) as caught:
        read_folds(path, table)
    assert [(problem.id, problem.value) for problem in caught.value.problems] == [
        ("a,b", "x"),
        ("7", None),
        ("NA", None),
    ]
    path.write_text("id,fold\n007,2\n007,1\n")
    with pytest.raises(DataError, match="the id is duplicated"):
        read_folds(path, table)
