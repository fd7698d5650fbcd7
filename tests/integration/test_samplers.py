"""Samplers of a config: the order is theirs, shared out among processes, known to the schedule, and checked."""

from collections import Counter

import numpy as np
import pytest

from swinft import BalancedSampler, CSVDataModule, Sampler
from swinft.cli import main
from swinft.data.loading.dataset import REPEAT_OFFSET, ShuffledSampler
from swinft.data.settings import FoldConfig, LoadingConfig
from tests.conftest import power_gone_after, tiny_config, write_config


class Halves(Sampler):
    """Twice each even row."""

    def order(self, rows, epoch, numbers):
        return numbers.permutation(np.repeat(np.arange(0, len(rows), 2), 2))

    def length(self, rows):
        return 2 * -(-len(rows) // 2)


def module(root, sampler, **loading):
    data = CSVDataModule(
        "color",
        "classification",
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


def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(uneven, tmp_path):
    changes = {"data.loading.sampler": {"class_path": "swinft.BalancedSampler"}, "data.loading.virtual_epochs": 2}
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
