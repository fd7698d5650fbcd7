"""The harness sees what is wrong: the plain pattern, killed in the same way, ends with other weights."""

import os
import signal

import lightning.pytorch as pl
import pytest
import torch

from tests.integration.faults import plain_lightning
from tests.integration.faults.harness import Point, arm, config_of, in_child, outcome, whole_run


class KillAtEpochStart(pl.Callback):
    """Dies at the start of an epoch, when the one before is saved."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            os.killpg(os.getpid(), signal.SIGKILL)


def plain_survives(epoch: int, expected: dict[str, torch.Tensor], tmp_path) -> bool:
    """Whether the plain pattern ends with the same weights after a kill between two epochs."""
    folder = tmp_path / f"plain-{epoch}"
    folder.mkdir()
    killer = KillAtEpochStart(epoch)
    assert in_child(lambda: plain_lightning.fit(folder, killer) or 0, folder / "log").code == 137
    assert (folder / "last.ckpt").is_file()
    child = in_child(lambda: plain_lightning.fit(folder) or 0, folder / "log")
    assert child.code == 0, child.text
    found = torch.load(folder / "final.pt", weights_only=True)
    return all(torch.equal(found[name], expected[name]) for name in expected)


def swinft_survives(point: Point, expected: dict[str, bytes], competition, tmp_path) -> bool:
    """Whether a run ends with the same files after a kill right after an epoch is saved."""
    config = config_of(competition, tmp_path / str(point))

    def work() -> int:
        arm(point, config.parent / "runs" / "tiny")
        return whole_run(config)

    assert in_child(work, config.parent / "log").code == 137
    child = in_child(lambda: whole_run(config), config.parent / "log")
    assert child.code == 0, child.text
    return outcome(config) == expected


@pytest.mark.slow
def test_the_plain_pattern_fails_where_swinft_does_not(competition, tmp_path, capsys):
    (tmp_path / "plain").mkdir()
    plain_lightning.fit(tmp_path / "plain")
    again = tmp_path / "again"
    again.mkdir()
    plain_lightning.fit(again)
    weights, same = (torch.load(folder / "final.pt", weights_only=True) for folder in (tmp_path / "plain", again))
    assert all(torch.equal(weights[name], same[name]) for name in weights)  # without a kill it repeats itself
    plain = [plain_survives(epoch, weights, tmp_path) for epoch in range(1, plain_lightning.EPOCHS)]
    whole = config_of(competition, tmp_path / "whole")
    assert whole_run(whole) == 0
    points = [Point("recorded", f"fold_{fold}/epoch-000{epoch}.ckpt") for fold, epoch in ((0, 1), (0, 2), (1, 1))]
    ours = [swinft_survives(point, outcome(whole), competition, tmp_path) for point in points]
    with capsys.disabled():
        print(
            f"\nkilled between epochs and resumed, identical in the end: plain Lightning {sum(plain)} of {len(plain)}, swinft {sum(ours)} of {len(ours)}"
        )
    assert sum(plain) == 0
    assert sum(ours) == len(ours)
