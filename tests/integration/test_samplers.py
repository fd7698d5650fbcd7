"""Samplers of a config: the order is theirs, shared out among processes, known to the schedule, and checked."""

from collections import Counter

import numpy as np
import pytest

from swinft import BalancedSampler, CSVDataModule, RatioSampler, Sampler, WeightedSampler
from swinft.cli import main
from swinft.data.fold_settings import FoldConfig
from swinft.data.loading.dataset import REPEAT_OFFSET, ShuffledSampler
from swinft.data.settings import LoadingConfig
from swinft.errors import InputError
from tests.conftest import power_gone_after, tiny_config, write_config


class Halves(Sampler):
    """Twice each even row."""

    def order(self, rows, epoch, numbers):
        return numbers.permutation(np.repeat(np.arange(0, len(rows), 2), 2))

    def length(self, rows):
        return 2 * -(-len(rows) // 2)


def module(root, sampler, target="color", kind="classification", **loading):
    data = CSVDataModule(
        target,
        kind,
        "train.csv",
        "images/{id}.jpg",
        root=str(root),
        image_size=16,
        augment="medium",
        batch_size=4,
        folds=FoldConfig(num=2),
        loading=LoadingConfig(sampler=sampler, cache=False, num_workers=0, **loading),
    )
    data.setup("fit")
    return data


def visits(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return [row for batch in loader for row in batch["row"].tolist()]


@pytest.fixture(scope="module")
def uneven(competition, tmp_path_factory):
    """Of 24 rows 16 are blue, 6 red and 2 green."""
    root = tmp_path_factory.mktemp("uneven")
    (root / "images").symlink_to(competition / "images")
    colors = ["blue"] * 16 + ["red"] * 6 + ["green"] * 2
    (root / "train.csv").write_text("id,color\n" + "".join(f"{row:03d},{name}\n" for row, name in enumerate(colors)))
    return root


def test_classes_come_equally_often_and_rows_of_a_class_too(uneven):
    data = module(uneven, BalancedSampler())
    loader = data.train_dataloader()
    trained = set(np.flatnonzero(data.fold_of_row != 0).tolist())
    for epoch in range(3):
        rows = visits(loader, epoch)
        assert {*rows} <= trained
        assert Counter(data.targets[rows].tolist()) == {0: 4, 1: 4, 2: 4}
        for target in range(3):
            times = Counter(row for row in rows if data.targets[row] == target)
            available = sum(data.targets[row] == target for row in trained)
            assert len(times) == min(4, available)
            assert max(times.values()) - min(times.values()) <= 1
    assert visits(loader, 0) != visits(loader, 1)
    assert visits(loader, 0) == visits(module(uneven, BalancedSampler()).train_dataloader(), 0)


def counts(data, rows):
    return np.bincount(data.targets[rows], minlength=3).tolist()


@pytest.mark.parametrize(("power", "expected"), [(0, [8, 1, 3]), (0.5, [6, 2, 4]), (1, [4, 4, 4])])
def test_a_power_leads_from_the_classes_own_shares_to_equal_ones(uneven, power, expected):
    data = module(uneven, BalancedSampler(power))
    assert counts(data, visits(data.train_dataloader(), 0)) == expected


def test_balanced_by_its_word_draws_what_the_class_has_always_drawn(uneven):
    data = module(uneven, "balanced")
    rows = data.splits.trained_on(0)
    targets, numbers = data.targets[rows], np.random.default_rng([data.splits.sampled_order(0).seed, 0])
    parts = []
    for name in numbers.permutation(3):
        found = np.flatnonzero(targets == name)
        parts.append(np.concatenate([numbers.permutation(found) for _ in range(-(-4 // len(found)))])[:4])
    assert data.splits.sampled_order(0).visit(0).tolist() == rows[numbers.permutation(np.concatenate(parts))].tolist()


@pytest.mark.parametrize(("target", "kind"), [(["is_red", "is_green"], "multilabel"), ("brightness", "regression")])
def test_labels_and_bins_of_a_number_are_balanced(competition, tmp_path, target, kind):
    (tmp_path / "images").symlink_to(competition / "images")
    lines = [f"{k:03d},{int(k < 2)},{int(k % 6 == 2)},{k if k < 22 else 300 + k}" for k in range(24)]
    (tmp_path / "train.csv").write_text("\n".join(["id,is_red,is_green,brightness", *lines, ""]))
    data = module(tmp_path, "balanced", target, kind)
    rows = visits(data.train_dataloader(), 0)
    plain = data.targets[data.splits.trained_on(0)]
    if kind == "multilabel":
        assert plain.sum(0).tolist() == [1, 2]
        assert data.targets[rows].sum(0).tolist() == [4, 4]
    else:
        assert (data.targets[rows] > 300).sum() > (plain > 300).sum() == 1


def test_every_positive_row_comes_once_with_other_negative_ones_each_epoch(uneven):
    sampler = RatioSampler(2, ["green", "red"])
    data = module(uneven, RatioSampler(1.5, ["green", "red"]))
    loader, seen = data.train_dataloader(), []
    positive = {row for row in data.splits.trained_on(0).tolist() if data.targets[row] > 0}
    assert len(loader.sampler) == 10
    for epoch in range(3):
        _, rows = zip(*loader.sampler, strict=True) if epoch == 0 else (0, visits(loader, epoch))
        assert len(rows) == len({*rows}) or epoch  # batches of 4 leave the last two out
        assert epoch or {row for row in rows if data.targets[row] > 0} == positive
        seen.append({row for row in data.splits.sampled_order(0).visit(epoch).tolist() if data.targets[row] == 0})
        assert len(seen[-1]) == 6
    assert seen[0] != seen[1] != seen[2]
    assert module(uneven, sampler).splits.sampled_order(0).length == 12


WEIGHTS = [0, 0, *[1] * 20, 4, 0.5]


def weighted(competition, root, weights, target="color"):
    (root / "images").symlink_to(competition / "images")
    lines = [f"{k:03d},{'red' if k % 3 else 'blue'},{weight}" for k, weight in enumerate(weights)]
    (root / "train.csv").write_text("\n".join(["id,color,votes", *lines, ""]))


def test_rows_come_as_often_as_their_weights_say(competition, tmp_path):
    weighted(competition, tmp_path, WEIGHTS)
    drawn = module(tmp_path, WeightedSampler("votes")).splits.sampled_order(0)
    rows = drawn.rows.rows
    share = len(rows) * np.array(WEIGHTS)[rows] / np.array(WEIGHTS)[rows].sum()
    for epoch in range(20):
        times = np.bincount(drawn.visit(epoch), minlength=24)[rows]
        assert ((times == np.floor(share)) | (times == np.ceil(share))).all()
    (tmp_path / "equal").mkdir()
    weighted(competition, tmp_path / "equal", [3] * 24)
    drawn = module(tmp_path / "equal", WeightedSampler("votes")).splits.sampled_order(0)
    assert all(sorted(drawn.visit(epoch)) == drawn.rows.rows.tolist() for epoch in range(20))


REFUSED = {
    "ratio": ("RatioSampler: there are 3 classes. Set `positive` to some of them.", "ratio"),
    "unknown": ("positive names grey. Did you mean 'green'?", {"positive": "grey"}),
    "many": (
        "9 negative rows for each of 4 positive rows are 36, and there are 8. Set negatives to 2 or",
        {"negatives": 9, "positive": "red"},
    ),
    "word": ("data.loading.sampler", "balance"),
    "range": ("data: RatioSampler.negatives is 0.0. Allowed: a number above 0.", {"negatives": 0}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_ratio_that_cannot_be_is_refused(competition, tmp_path, capsys, case):
    said, given = REFUSED[case]
    sampler = {"class_path": "swinft.RatioSampler", "init_args": given} if isinstance(given, dict) else given
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **{"data.loading.sampler": sampler}))
    assert main(["check", "--config", str(config)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("weights", [[-1, *[1] * 23], ["x", "", *[1] * 22], [0] * 24])
def test_weights_that_are_none_are_named_by_their_lines(competition, tmp_path, capsys, weights):
    weighted(competition, tmp_path, weights)
    sampler = {"class_path": "swinft.WeightedSampler", "init_args": {"column": "votes"}}
    changes = {"data.loading.sampler": sampler, "data.test": None, "data.folds.num": 2}
    settings = tiny_config(tmp_path, tmp_path, **changes)
    settings["data"]["sample_submission"] = None
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", settings))]) == 2
    error = capsys.readouterr().err
    assert "all weights are 0" in error if weights[1] == 0 else "train.csv:2: id '000', column 'votes'" in error


def test_probabilities_are_of_the_tables_shares_where_the_prior_is_corrected(competition, tmp_path, capsys):
    """Images that say nothing: what is left to learn is the share of a class."""
    (tmp_path / "images").mkdir()
    for k in range(24):
        (tmp_path / "images" / f"{k:03d}.jpg").symlink_to(competition / "images" / "000.jpg")
    lines = [f"{k:03d},{'rare' if k % 12 == 0 else 'common'}" for k in range(24)]
    (tmp_path / "train.csv").write_text("\n".join(["id,color", *lines, ""]))
    means = {}
    for corrects in (False, True):
        sampler = {"class_path": "swinft.RatioSampler", "init_args": {"correct_prior": corrects}}
        changes = {"data.loading.sampler": sampler, "data.test": None, "trainer.max_epochs": 20, "data.batch_size": 2}
        changes |= {"model.freeze_epochs": 20, "data.augment": "none", "model.ema_decay": None}
        changes |= {"data.loading.cache": False, "data.loading.follow_links": True}
        changes |= {"model.optim": {"lr": 0.02, "head_lr": 0.02, "warmup_epochs": 0}}
        changes |= {"data.columns.class_order": ["common", "rare"], "data.folds.num": 2}
        settings = tiny_config(tmp_path, tmp_path, **changes) | {"name": f"corrected {corrects}"}
        settings["data"]["sample_submission"] = None
        config = write_config(tmp_path / "c.yaml", settings)
        assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
        said = capsys.readouterr().out
        assert "'rare' is 8.33% of the training rows and 50.00% of an epoch" in said
        assert ("the loss corrects for this (correct_prior)" in said) is corrects
        table = (tmp_path / settings["name"] / "fold_0" / "oof.csv").read_text().splitlines()
        means[corrects] = np.mean([float(line.split(",")[2]) for line in table[1:]])
    assert means[False] == pytest.approx(1 / 2, abs=0.05)
    assert means[True] == pytest.approx(1 / 12, abs=0.05)


def test_a_prior_that_cannot_be_corrected_is_refused(uneven):
    sampler = RatioSampler(0.1, ["blue"], correct_prior=True)
    data = module(uneven, sampler)
    with pytest.raises(InputError, match="correct_prior needs rows of every class in an epoch"):
        data.splits.num_training_rows(0)


def test_a_row_that_comes_again_is_augmented_in_another_way(uneven):
    loader = module(uneven, Halves()).train_dataloader()
    seen = {}
    for batch in loader:
        for row, image in zip(batch["row"].tolist(), batch["image"], strict=True):
            seen.setdefault(row, []).append(image.tolist())
    assert all(len(values) == 2 and values[0] != values[1] for values in seen.values())


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("num_ranks", [1, 2, 5])
def test_processes_share_what_the_sampler_gives(uneven, parts, num_ranks):
    data = module(uneven, Halves())
    drawn, rows = data.splits.sampled_order(0), data.splits.trained_on(0)
    for epoch in range(3 * parts):
        every = [
            list(ShuffledSampler(rows, 7, rank, num_ranks, lambda epoch=epoch: epoch, parts, None, drawn))
            for rank in range(num_ranks)
        ]
        assert len({*map(len, every)}) == 1
        whole = [key for keys in zip(*every, strict=True) for key in keys]
        assert len({*whole}) == len(whole)  # a key for every time
        assert {key % REPEAT_OFFSET for key, _ in whole} == {epoch}
        length = drawn.length // parts
        part = drawn.visit(epoch // parts)[epoch % parts * length :][:length]
        assert [row for _, row in whole[:length]] == part.tolist()


class Once(Sampler):
    """The first four rows."""

    def order(self, rows, epoch, numbers):
        return numbers.permutation(4)

    def length(self, rows):
        return 4


class Wrong(Sampler):
    """A sampler that is wrong in one way."""

    def __init__(self, way: str) -> None:
        self.way = way

    def order(self, rows, epoch, numbers):
        everything = np.arange(len(rows))
        return {
            "outside": everything + 1,
            "negative": everything - 1,
            "short": everything[:-1],
            "text": everything.astype(str),
            "its own numbers": np.random.permutation(everything),  # noqa: NPY002
            "no length": everything,
            "a column": everything[[bool(cell) for cell in rows.column("colour")]] if self.way == "a column" else 0,
        }[self.way]

    def length(self, rows):
        return 0 if self.way == "no length" else len(rows)


WRONG = {
    "outside": "order returned positions from 1 to 12; there are 12 training rows, 0 to 11.",
    "negative": "order returned positions from -1 to 10",
    "short": "order returned int64 of shape (11,); it must return 12 whole numbers",
    "text": "order returned <U21 of shape (12,)",
    "its own numbers": "returned two different orders for one epoch",
    "no length": "length returned 0; it must return a whole number from 1",
    "a column": "train.csv has no column 'colour'. Did you mean 'color'?",
}


@pytest.mark.parametrize("way", WRONG)
def test_a_wrong_sampler_is_refused_before_training(competition, tmp_path, capsys, way):
    sampler = {"class_path": "tests.integration.test_samplers.Wrong", "init_args": {"way": way}}
    changes = {"data.loading.sampler": sampler, "data.loading.cache": False}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **changes))
    assert main(["check", "--config", str(config), "--allow-code", "tests.integration.test_samplers"]) == 2
    assert WRONG[way] in capsys.readouterr().err


def test_the_schedule_knows_how_many_rows_a_sampler_gives(competition, tmp_path):
    sampler = {"class_path": "tests.integration.test_samplers.Once"}
    changes = {"data.loading.sampler": sampler, "data.batch_size": 4, "trainer.max_epochs": 2}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **changes))
    words = ["--config", str(config), "--allow-code", "tests.integration.test_samplers"]
    assert main(["fit", *words, "--fold", "0", "--trainer.max_steps", "3"]) == 2  # 12 rows would make 6 steps
    assert main(["fit", *words, "--fold", "0"]) == 0
    assert len((tmp_path / "tiny" / "fold_0" / "metrics.jsonl").read_text().splitlines()) == 2


RATIO = {"class_path": "swinft.RatioSampler", "init_args": {"positive": ["red", "green"], "correct_prior": True}}


@pytest.mark.parametrize("sampler", ["balanced", RATIO], ids=["balanced", "ratio"])
def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(uneven, tmp_path, sampler):
    changes = {"data.loading.sampler": sampler, "data.loading.virtual_epochs": 2, "data.columns.weight": "id"}
    changes |= {"data.image_size": 16, "trainer.max_epochs": 3, "data.test": None, "data.batch_size": 2}
    settings = {**tiny_config(uneven, tmp_path, **changes), "name": "whole"}
    settings["data"]["sample_submission"] = None
    config = write_config(tmp_path / "c.yaml", settings)
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    words = ["fit", "--config", str(config), "--fold", "0", "--name", "cut"]
    with power_gone_after(1):
        main(words)
    assert main([*words, "--resume"]) == 0
    whole, cut = ((tmp_path / name / "fold_0" / "oof.csv").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_a_class_of_another_kind_is_no_sampler(competition, tmp_path, capsys):
    changes = {"data.loading.sampler": {"class_path": "swinft.ZipSource"}}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert "data.loading.sampler needs a class derived from swinft's Sampler" in capsys.readouterr().err
