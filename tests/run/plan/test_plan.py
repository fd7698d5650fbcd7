"""What `swinft plan` says: sums that can be done by hand, GPUs by name, and a plan beside the fit that it is of."""

import pytest

from swinft.errors import InputError
from swinft.run.plan.cost import Costs, Plan, Work, fold_seconds, limited
from swinft.run.plan.gpus import GPUS, parsed
from swinft.run.plan.stopwatch import of_batches
from tests.conftest import in_this_process, tiny_config, write_config
from tests.json_documents import document_of

COSTS = Costs(
    start_up=5, first=2, epoch=1, batch={"224x224": 0.5, "128x128": 0.2}, frozen=0.4, validation=(0.25, 1), saving=3,
    load=2, prediction=(0.75, 0.5), memory=10, of_memory=20,
)  # fmt: skip


def test_the_seconds_of_a_fold_are_those_of_its_parts():
    work = Work(batches=10, epochs=4, size="224x224", held_out=4)
    assert fold_seconds(COSTS, work) == {
        "start": 5, "training": 2 + 4 * (1 + 10 * 0.5), "validation": 4 * (4 * 0.25 + 1), "saving": 12,
        "out-of-fold predictions": 2 + 4 * 0.75 + 0.5,
    }  # fmt: skip
    small = Work(batches=10, epochs=3.5, sizes=["128x128"], size="224x224", frozen=1.5, held_out=4, passes=3)
    found = fold_seconds(COSTS, small)
    frozen_small, half_frozen, whole, half = 10 * 0.2 * 0.4, 10 * 0.5 * 0.7, 10 * 0.5, 10 * 0.5 / 2
    assert found["training"] == pytest.approx(2 + 4 * 1 + frozen_small + half_frozen + whole + half)
    assert found["out-of-fold predictions"] == 2 + 3 * 3.5
    on_all = fold_seconds(COSTS, Work(batches=10, epochs=4, size="224x224", validates=False))
    assert (on_all["validation"], on_all["out-of-fold predictions"]) == (0, 0)


def test_a_time_limit_ends_training_after_whole_epochs_and_leaves_one():
    parts = fold_seconds(COSTS, Work(batches=10, epochs=4, size="224x224", held_out=4))
    rest = parts["start"] + parts["out-of-fold predictions"]
    epoch = (sum(parts.values()) - rest) / 4
    for limit, done in ((None, 4), (rest + 2.5 * epoch, 2), (1.0, 1)):
        found, epochs = limited(parts, 4, limit)
        assert epochs == done
        assert sum(found.values()) == pytest.approx(rest + done * epoch)


@pytest.mark.parametrize(("trainings", "at_a_time", "rounds", "seconds"), [(5, 1, 5, 50), (5, 2, 3, 30), (5, 8, 1, 10)])
def test_trainings_at_a_time_share_the_rounds(trainings, at_a_time, rounds, seconds):
    folds = [{"start": 4.0, "training": 6.0}] * trainings
    plan = Plan("", "", folds, [1.0] * trainings, at_a_time, 2, 1.0, 2.0, 36.0, (30, 20), 0, [], False)
    assert (plan.rounds, plan.fit, plan.fits) == (rounds, 1 + seconds + 2, False)
    assert plan.device_hours == pytest.approx((2 * 10 * trainings + 36) / 3600)


def test_times_of_batches_tell_their_rate_and_what_was_before():
    assert of_batches([5.0, 6.0, 7.0, 8.0], 1.0, 1) == (1.0, 3.0)
    assert of_batches([5.0, 6.0, 6.5], 1.0, 1, 2.5) == (1.0, 3.0)  # half a batch at the end
    assert of_batches([5.0], 1.0, 1) == (4.0, 0.0)
    assert of_batches([5.0], 1.0, 1, 0.8) == (5.0, 0.0)


def test_gpus_are_given_by_number_and_name():
    assert [parsed(given) for given in ("8xA100", "2 × t4", "H100")] == [(8, "A100"), (2, "T4"), (1, "H100")]
    for given, words in (("8", "write a number and a name"), ("8xA10O", "Did you mean"), ("0xT4", "write a number")):
        with pytest.raises(InputError, match=words):
            parsed(given)
    assert all(gpu.half > gpu.single and gpu.memory > 2**33 for gpu in GPUS.values())


def plan_of(capsys, config, *words: str) -> dict:
    return document_of(capsys, "plan", "--config", str(config), *words)


def test_a_plan_for_gpus_that_are_not_here_spreads_the_folds_and_tells_whether_a_batch_fits(
    competition, tmp_path, capsys
):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", seeds=[1, 2]))
    several = plan_of(capsys, config, "--gpus", "8xA100")
    assert several["is_estimate"]
    assert (several["trainings"], several["at_a_time"], several["devices_per_fold"], several["rounds"]) == (4, 4, 2, 1)
    one = plan_of(capsys, config, "--gpus", "T4", "--trainer.precision", "auto")
    assert (one["at_a_time"], one["devices_per_fold"], one["rounds"], one["fits"]) == (1, 1, 4, True)
    assert "16-mixed" in one["notes"][0]
    assert not plan_of(capsys, config, "--gpus", "T4", "--data.batch_size", "50000000")["fits"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_plan_is_measured_in_a_process_of_its_own(competition, tmp_path, capsys):
    # How near it is to the time of the fit is measured on a quiet machine: benchmarks/plan.py.
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 6}))
    found = plan_of(capsys, config)
    assert (found["trainings"], found["at_a_time"], found["is_estimate"]) == (2, 1, False)
    assert found["fit_seconds"] > sum(parts["training"] for parts in found["folds"]) > 0


def test_sizes_and_frozen_epochs_are_measured_once_each(competition, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swinft.run.throw_away.run_children", in_this_process)
    keys = {"model.freeze_epochs": 2, "trainer.max_epochs": 6, "checkpoint": {"soup": "best", "epochs": 2}}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **keys))
    found = plan_of(capsys, config, "--seconds", "1")
    assert found["epochs"] == [6, 6]
    assert all(each >= 0 for parts in found["folds"] for each in parts.values())
    assert found["predict_seconds"] > 0
    assert found["fits"]
    assert not (tmp_path / "runs").exists()
