"""Two processes score and predict what one does: every row once, with no padding counted."""

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from swinft.cli import main
from swinft.data.loading.dataset import OrderedSampler
from swinft.errors import RunError
from swinft.inference.predictor import predict_rows
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.prediction.complete import complete
from tests.conftest import ROOT, tiny_config, write_config
from tests.integration.faults import ranks


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def test_the_pooled_rows_and_scores_of_two_ranks_are_those_of_one_process(competition, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(competition, root)
    ranks.write_folds(root)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "tests.integration.faults.ranks", str(root), str(tmp_path / "two.json")]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, **place, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"})
        for rank in range(2)
    ]
    ranks.main(root, tmp_path / "one.json", 1, 0)
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    for held_out, alone, together in zip(ranks.TABLES, one, two, strict=True):
        assert together["rows"] == alone["rows"] == list(range(held_out))
        np.testing.assert_allclose(together["values"], alone["values"], rtol=1e-5)
        assert together["scores"] == pytest.approx(alone["scores"], rel=1e-5)


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_ranks_share_out_every_row_once_whatever_their_number(num_ranks):
    for num_rows in range(1, 18):
        rows = [row for rank in range(num_ranks) for _, row in OrderedSampler(np.arange(num_rows), rank, num_ranks)]
        assert sorted(row for row in rows if row >= 0) == list(range(num_rows))
        assert len({len(OrderedSampler(np.arange(num_rows), rank, num_ranks)) for rank in range(num_ranks)}) == 1


def test_parts_of_1_to_17_rows_join_to_what_one_process_predicts(tiny_run, tmp_path):
    run = Run.open(tiny_run)
    experiment = Experiment.of_run(run, "predict", None)
    cpu = torch.device("cpu")
    for num_rows in range(1, 18):
        table = tmp_path / f"{num_rows}.csv"
        table.write_text("id\n" + "".join(f"{row:03d}\n" for row in range(num_rows)))
        data = experiment.datamodule(test=str(table))
        data.setup("predict")
        net = experiment.network(data.schema, run.fold(0).weights, cpu)
        everything = predict_rows([net], data.predict_dataloader(), ["identity"], cpu, "32-true")
        parts = [
            predict_rows([net], data.predict_dataloader((part, 2)), ["identity"], cpu, "32-true")
            for part in range(min(2, num_rows))
        ]
        rows, values = (np.concatenate(each) for each in zip(*parts, strict=True))
        alone, joined = (complete(*each, data, range(num_rows)) for each in (everything, (rows, values)))
        assert joined.ids == [f"{row:03d}" for row in range(num_rows)]
        np.testing.assert_allclose(joined.values, alone.values, rtol=1e-5)


@pytest.mark.parametrize("part", ["2/2", "x", "1", "1/x"])
def test_a_part_that_is_none_is_refused(part, tiny_run, tmp_path, capsys):
    assert main(["predict", str(tiny_run), "--part", part, "--output", str(tmp_path / "o.csv")]) == 2
    assert "write 0/4 to 3/4 for four parts" in capsys.readouterr().err


def test_a_prediction_too_many_or_too_few_is_refused(tiny_run, tmp_path):
    data = Experiment.of_run(Run.open(tiny_run), "predict", None).datamodule()
    data.setup("predict")
    values = np.ones((6, 3), dtype=np.float32)
    for rows in ([0, 1, 2, 3, 4, 4], [0, 1, 2, 3, 4]):
        with pytest.raises(RunError, match="what was predicted does not contain every id exactly once"):
            complete(np.array(rows), values[: len(rows)], data, range(6))


def fitted(competition, tmp_path, name, **changes):
    """The weights of the first fold of a run, fitted by a process of its own, which starts those of further ranks."""
    given = {"model.drop_path_rate": 0.0, "trainer.max_epochs": 3, **changes}  # what ranks drop is their own
    config = write_config(tmp_path / f"{name}.yaml", tiny_config(competition, tmp_path / "runs", name=name, **given))
    command = [sys.executable, "-m", "swinft", "fit", "--config", str(config), "--fold", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return load_file(tmp_path / "runs" / name / "fold_0" / "weights.safetensors")


def check_equal(competition, tmp_path, strategy, least, **changes):
    """Two ranks move every weight to where one process moves it with the batches of both together."""
    alone = fitted(competition, tmp_path, "alone", **{**changes, "data.batch_size": 6})
    ranks = {"trainer.devices": 2, "trainer.strategy": strategy}
    together = fitted(competition, tmp_path, "together", **{**changes, "data.batch_size": 3, **ranks})
    optim = {**changes.get("model.optim", {}), "lr": 1e-12}
    start = fitted(competition, tmp_path, "start", **{**changes, "data.batch_size": 6, "model.optim": optim})
    moved = [name for name in alone if alone[name].is_floating_point() and not torch.equal(alone[name], start[name])]
    assert len(moved) > least
    for name in moved:
        assert (together[name] - alone[name]).norm() < 0.05 * (alone[name] - start[name]).norm(), name


@pytest.mark.slow
def test_two_ranks_unfreeze_average_and_step_as_one_process_with_their_batches_together(competition, tmp_path):
    changes = {
        "model.optim": {"lr": 1e-3, "name": "sam", "freeze": {"share": 1.0, "epochs": 2, "gradual": True}},
        "model.ema_decay": {"decay": 0.9, "warmup": "power", "start_steps": 1},
        "checkpoint": {"soup": "last", "epochs": 2},
    }
    check_equal(competition, tmp_path, "ddp_find_unused_parameters_true", 20, **changes)


def sampler(name, **given):
    return {"data.loading.sampler": {"class_path": f"swinft.{name}", "init_args": given}}


AUXILIARY = [
    {"target": "brightness", "target_kind": "regression", "weight": 0.5},
    {"target": ["is_red", "is_green"], "target_kind": "multilabel", "name": "colours"},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"data.columns": {"auxiliary": AUXILIARY, "on_missing_target": "mask"}},
        sampler("BalancedSampler", power=0.5),
        sampler("RatioSampler", negatives=2, positive="red"),
        sampler("WeightedSampler", column="brightness", correct_prior=True),
        {"data.columns.weight": "brightness"},
    ],
    ids=["auxiliary", "balanced", "ratio", "weighted", "row weights"],
)
def test_two_ranks_train_on_the_rows_and_targets_of_one_process(changes, competition, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(competition, root)
    if "data.columns" in changes:
        lines = (root / "train.csv").read_text().splitlines()
        for number in (2, 3, 5, 8, 13, 14):  # some rows lack an auxiliary target, and two the main one
            id, color, brightness, *rest = lines[number].split(",")
            lines[number] = ",".join([id, *(["", brightness] if number in (5, 14) else [color, ""]), *rest])
        (root / "train.csv").write_text("\n".join(lines) + "\n")
    optim = {"lr": 1e-3, "warmup_epochs": 0.5}
    check_equal(root, tmp_path, "ddp", 20, **{"model.optim": optim, "data.augment": "light", **changes})
