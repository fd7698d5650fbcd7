"""The order of rows: the same for the same seed and epoch, resumed or not, and shared out over ranks without loss."""

import json
import pickle

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from swinft import RatioSampler
from swinft.data.loading.dataset import OrderedSampler, ShuffledSampler

ROWS = np.arange(100, 110)


def rows_of(sampler):
    return [row for _, row in sampler]


def test_order_is_a_function_of_seed_and_epoch():
    sampler = ShuffledSampler(ROWS, seed=1)
    first, again = list(sampler), list(sampler)
    assert first == again
    assert sorted(row for _, row in first) == ROWS.tolist()
    sampler.set_epoch(3)
    assert rows_of(sampler) != [row for _, row in first]
    assert {epoch for epoch, _ in sampler} == {3}
    same, other = ShuffledSampler(ROWS, seed=1), ShuffledSampler(ROWS, seed=2)
    same.set_epoch(3)
    other.set_epoch(3)
    assert list(sampler) == list(same)
    assert rows_of(sampler) != rows_of(other)


@pytest.mark.parametrize(("parts", "num_ranks"), [(1, 1), (3, 1), (4, 2)])
def test_virtual_epochs_visit_every_row_once_between_them(parts, num_ranks):
    rows = np.arange(100, 126)
    visits = []
    for visit in range(2):
        seen = []
        for part in range(parts):
            for rank in range(num_ranks):
                sampler = ShuffledSampler(rows, 1, rank, num_ranks, parts=parts)
                sampler.set_epoch(visit * parts + part)
                assert len(list(sampler)) == len(sampler) == len(rows) // parts // num_ranks
                assert {epoch for epoch, _ in sampler} == {visit * parts + part}
                seen += [row for _, row in sampler]
        assert len(set(seen)) == len(seen) == len(rows) // parts // num_ranks * num_ranks * parts
        visits.append(seen)
    assert visits[0] != visits[1]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 16])
def test_ranks_share_the_training_rows_equally(num_ranks):
    shares = [rows_of(ShuffledSampler(ROWS, 1, rank, num_ranks)) for rank in range(num_ranks)]
    sampler = ShuffledSampler(ROWS, 1, 0, num_ranks)
    assert {len(share) for share in shares} == {len(sampler)}
    together = [row for rank_rows in zip(*shares, strict=True) for row in rank_rows]
    assert set(together) == set(ROWS.tolist())
    assert together[:10] == rows_of(ShuffledSampler(ROWS, 1))  # the same order on any number of devices
    assert together[10:] == (together * 2)[: len(together) - 10]  # then from the start again


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 16])
def test_ranks_share_the_evaluated_rows_once_with_padding(num_ranks):
    shares = [rows_of(OrderedSampler(ROWS[::-1], rank, num_ranks)) for rank in range(num_ranks)]
    assert len({len(share) for share in shares}) == 1
    together = [row for rank_rows in zip(*shares, strict=True) for row in rank_rows]
    assert together[:10] == ROWS.tolist()
    assert set(together[10:]) <= {-1}


def test_padding_is_a_batch_entry_of_no_row(competition):
    dataset = competition.ready(columns={"numeric_features": ["age"]}).val_dataloader().dataset
    item = dataset[0, -1]
    assert item["row"] == -1
    assert item["image"].shape == (16, 20, 3)
    assert not item["image"].any()
    assert set(item) == set(dataset[0, 0])


def test_the_dataset_can_be_sent_to_a_worker_that_is_not_forked(competition):
    dataset = competition.ready(augment="heavy").train_dataloader().dataset
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy[1, 2]["image"], dataset[1, 2]["image"])


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4] * 6), (7, [7] * 3), (24, [24]), (100, [24])])
def test_an_incomplete_last_batch_is_dropped_in_training_only(competition, batch_size, sizes):
    dm = competition.ready(batch_size=batch_size)
    assert [len(batch["row"]) for batch in dm.train_dataloader()] == sizes
    assert sum(len(batch["row"]) for batch in dm.val_dataloader()) == 6


class Recorder(pl.LightningModule):
    """Trains one number and writes down which rows it saw."""

    def __init__(self, folder):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.folder = folder

    def note(self, kind, batch):
        sums = batch["image"].double().sum((1, 2, 3)).round(decimals=1).tolist()
        entry = {"epoch": self.current_epoch, "rows": batch["row"].tolist(), "pixels": sums}
        if "weight" in batch:
            entry["weights"] = batch["weight"].tolist()
        with (self.folder / f"{kind}_{self.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def training_step(self, batch, batch_idx):
        self.note("train", batch)
        return self.weight * batch["image"].float().mean()

    def validation_step(self, batch, batch_idx):
        self.note("val", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(dm, folder, epochs, ckpt_path=None, **options):
    folder.mkdir(exist_ok=True)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    own = {"use_distributed_sampler": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", **{**quiet, **own, **options})
    trainer.fit(Recorder(folder), datamodule=dm, ckpt_path=ckpt_path)
    return trainer


def notes(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def pixels_of_rows(entries):
    """The sum of the pixels that each row had."""
    return {row: sum_ for entry in entries for row, sum_ in zip(entry["rows"], entry["pixels"], strict=True)}


def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(competition, tmp_path):
    fit(competition.module(augment="medium"), tmp_path / "whole", 4)
    first = fit(competition.module(augment="medium"), tmp_path / "parts", 2)
    first.save_checkpoint(tmp_path / "last.ckpt")
    fit(competition.module(augment="medium"), tmp_path / "parts", 4, ckpt_path=tmp_path / "last.ckpt")
    whole = notes(tmp_path / "whole", "train_0")
    assert notes(tmp_path / "parts", "train_0") == whole
    assert [entry["epoch"] for entry in whole] == [epoch for epoch in range(4) for _ in range(6)]
    assert len({tuple(entry["rows"]) for entry in whole}) == 24


@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_two_processes_share_the_rows(augment_on, competition, tmp_path):
    options = {
        "folds": {"num": 2},
        "augment": "medium",
        "loading": {"augment_on": augment_on, "cache_dir": str(tmp_path / "cache")},
    }
    dm = competition.ready(**options)
    fit(dm, tmp_path / "ddp", 1, devices=2, strategy="ddp_fork")
    fit(competition.ready(**options, batch_size=1), tmp_path / "alone", 1)  # drops no row
    alone = pixels_of_rows(notes(tmp_path / "alone", "train_0"))
    for rank in (0, 1):
        for row, pixels in pixels_of_rows(notes(tmp_path / "ddp", f"train_{rank}")).items():
            assert pixels == pytest.approx(alone[row], rel=1e-6)
    for kind, expected in (
        ("val", np.flatnonzero(dm.fold_of_row == 0)),
        ("train", np.flatnonzero(dm.fold_of_row == 1)),
    ):
        ranks = [
            [row for entry in notes(tmp_path / "ddp", f"{kind}_{rank}") for row in entry["rows"]] for rank in (0, 1)
        ]
        seen = [row for row in ranks[0] + ranks[1] if row >= 0]
        assert len(ranks[0]) == len(ranks[1])
        if kind == "val":
            assert sorted(seen) == expected.tolist()
            assert ranks[1].count(-1) == 1  # 15 rows on two processes
        else:
            assert len(seen) == 16
            assert set(seen) == set(expected.tolist())


def test_two_processes_share_what_a_sampler_draws_with_its_weights(competition, tmp_path):
    sampler = RatioSampler(0.5, ["dog"], correct_prior=True)
    options = {"folds": {"num": 2}, "columns": {"weight": "weight"}, "loading": {"sampler": sampler}, "batch_size": 2}
    dm = competition.ready(**options)
    fit(dm, tmp_path / "ddp", 2, devices=2, strategy="ddp_fork")
    ranks = [notes(tmp_path / "ddp", f"train_{rank}") for rank in (0, 1)]
    weights = dm.splits.loss_weights(0)
    for epoch in range(2):
        drawn = dm.splits.sampled_order(0).visit(epoch).tolist()
        assert len(drawn) == 7  # 5 dogs, and half as many others
        of_ranks = [[row for entry in each if entry["epoch"] == epoch for row in entry["rows"]] for each in ranks]
        assert [row for pair in zip(*of_ranks, strict=True) for row in pair] == [*drawn, drawn[0]]
        for entry in (*ranks[0], *ranks[1]):
            assert entry["weights"] == pytest.approx(weights[entry["rows"]].tolist())


def test_a_loader_holds_every_row_when_no_trainer_runs(competition):
    dm = competition.ready(folds={"num": 2})
    dm.trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, enable_checkpointing=False)
    assert len([row for batch in dm.val_dataloader() for row in batch["row"]]) == 15


def test_lightning_may_not_share_out_the_rows_a_second_time(competition, tmp_path):
    with pytest.raises(Exception, match="use_distributed_sampler=False"):
        fit(competition.ready(), tmp_path, 1, devices=2, strategy="ddp_fork", use_distributed_sampler=True)
