"""The loader keeps a GPU busy: how many processes feed it, how far they work ahead, and what waiting for them costs."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from torch.utils.data import Dataset

from swinft.cli import main
from swinft.data.datamodule import CSVDataModule
from swinft.data.loading import dataset as batches
from swinft.data.loading import loaders
from swinft.data.loading import workers as loading
from swinft.data.loading.device_loader import DeviceImages
from swinft.data.loading.workers import Destination, LoaderPlan, WaitTime, plan_loader
from swinft.errors import InputError
from swinft.model.task import FineTuneTask
from swinft.run import fit
from swinft.run.compute import devices
from swinft.run.folds import recorder
from tests.clock import Clock
from tests.conftest import merged, tiny_config, write_config

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
MEGABYTE = 1_000_000


def plan(
    cores=16,
    device="cuda",
    wanted="auto",
    batch_bytes=MEGABYTE,
    num_batches=1000,
    work="train",
    shared=10_000 * MEGABYTE,
    **sharing,
):
    """The plan on a machine with so many cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "available_cores", lambda: cores)
        patch.setattr(loading, "available_memory", lambda: 1000 * MEGABYTE)
        patch.setattr(loading, "_free_shared_memory", lambda: shared)
        return plan_loader(wanted, Destination(torch.device(device), **sharing), batch_bytes, num_batches, work)


def module(competition, **changes) -> CSVDataModule:
    """A datamodule with its tables read."""
    settings = {
        "train": "train.csv",
        "image": "images/{id}.jpg",
        "target": "color",
        "folds": {"num": 2},
        "image_size": 32,
    }
    settings |= {"root": str(competition), "target_kind": "classification", "batch_size": 6}
    data = CSVDataModule(**merged(settings, changes))
    data.setup("fit")
    return data


def fit_fold(competition, folder: Path, *options: str, **changes) -> int:
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **changes))
    return main(["fit", "--config", str(config), "--fold", "0", *options])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"cores": 16}, 8),  # at most
        ({"cores": 4}, 3),  # one launches kernels
        ({"cores": 4, "folds": 2}, 1),  # Kaggle's two T4
        ({"cores": 4, "devices": 2}, 1),
        ({"cores": 16, "folds": 2, "devices": 2}, 3),
        ({"cores": 1}, 0),
        ({"cores": 4, "folds": 8}, 0),
        ({"cores": 16, "device": "mps"}, 8),
        ({"cores": 16, "device": "cpu"}, 0),  # they would take cores from the training
        ({"cores": 16, "num_batches": 3}, 3),  # more would have nothing to do
        ({"cores": 16, "work": "draw"}, 2),  # the device samples and augments
        ({"cores": 16, "work": "validate"}, 4),  # those that train keep their memory meanwhile
        ({"cores": 2, "work": "validate"}, 1),
        ({"cores": 16, "work": "predict"}, 8),
        ({"cores": 2, "wanted": 5}, 5),  # as it is
        ({"cores": 16, "device": "cpu", "wanted": 5}, 5),
    ],
)
def test_s1_the_number_of_loader_processes_follows_from_the_cores(given, expected):
    assert plan(**given).num_workers == expected


def test_s1_a_fold_says_how_many_processes_feed_it_and_why(competition, tmp_path, capsys, monkeypatch, recwarn):
    once = {"trainer.max_epochs": 1}
    assert fit_fold(competition, tmp_path, **once) == 0
    said = capsys.readouterr()
    assert (
        "fold 0: batches are made without loader processes (data.loading.num_workers auto: on a CPU they would take cores"
        in said.out
    )
    assert "WARNING" not in said.err
    assert "num_workers: auto" in (tmp_path / "runs" / "tiny" / "config.yaml").read_text()
    monkeypatch.setattr(loading, "available_cores", lambda: 1)
    assert fit_fold(competition, tmp_path, "--overwrite", "--data.loading.num_workers", "3", **once) == 0
    said = capsys.readouterr()
    assert "fold 0: batches come from 3 loader processes (data.loading.num_workers 3)" in said.out
    assert said.err.count("WARNING: data.loading.num_workers is 3, and there is 1 core") == 1
    assert not [str(each.message) for each in recwarn if "DataLoader" in str(each.message)]  # torch says it again


def test_s1_folds_that_run_side_by_side_know_of_each_other(competition, tmp_path, monkeypatch):
    told = {}

    def children(processes, slots, on, following):
        told.update(processes[0].environment)
        return {0: 1}

    monkeypatch.setattr(fit, "slots_for", lambda *_: [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}])
    monkeypatch.setattr(fit, "run_children", children)
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["fit", "--config", str(config)]) == 1
    assert devices.folds_at_a_time() == 1
    monkeypatch.setenv(devices.FOLDS_AT_A_TIME, told[devices.FOLDS_AT_A_TIME])
    assert devices.folds_at_a_time() == 2
    asked = []
    monkeypatch.setattr(loaders, "plan_loader", lambda *given: asked.append(given) or LoaderPlan(0, 0, False, "no"))
    assert fit_fold(competition, tmp_path, "--resume", **{"trainer.max_epochs": 2}) == 0
    assert {to for _, to, *_ in asked} == {Destination(CPU, 2, 1, is_command=True)}


def test_s1_predict_shares_the_cores_among_its_devices(tiny_run, tmp_path, capsys, monkeypatch):
    words = ["predict", str(tiny_run), "--device", "cpu", "--part", "1/2", "--output"]
    asked = []
    real = plan_loader
    monkeypatch.setattr(loaders, "plan_loader", lambda *given: asked.append(given) or real(*given))
    assert main([*words, str(tmp_path / "a.csv")]) == 0
    assert asked[-1][:2] == ("auto", Destination(CPU, 1, 2, is_command=True))
    assert "without loader processes (data.loading.num_workers auto: on a CPU" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "b.csv"), "--num-workers", "1"]) == 0
    assert "batches come from 1 loader process (data.loading.num_workers 1)" in capsys.readouterr().out


def test_s1_a_script_that_loader_processes_would_import_gets_none(competition, monkeypatch):
    data = module(competition)
    data.destination = Destination(CUDA)
    monkeypatch.setattr(loading, "available_cores", lambda: 4)
    assert data.train_dataloader().num_workers == 2  # batches
    monkeypatch.setattr(loading, "start_method", lambda: "spawn")
    monkeypatch.setattr(loading.sys, "modules", {"__main__": SimpleNamespace(__file__="script.py")})
    loader = data.train_dataloader()
    assert loader.num_workers == 0
    assert "import the script" in str(loader.plan)
    data.destination = Destination(CUDA, is_command=True)
    assert data.train_dataloader().num_workers == 2
    monkeypatch.setattr(loading.sys, "modules", {"__main__": SimpleNamespace()})  # a notebook
    data.destination = Destination(CUDA)
    assert data.train_dataloader().num_workers == 2


@pytest.mark.parametrize("value", [-1, 2.5, True, "atuo", None])
def test_s1_a_number_that_is_none_is_refused(value, competition):
    with pytest.raises(InputError, match=r"data\.loading\.num_workers is "):
        module(competition, loading={"num_workers": value})


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_loader_processes_that_are_not_forked_make_the_same_batches(method, competition, tmp_path):
    settings = {"augment": "medium", "loading": {"cache_dir": str(tmp_path)}}
    here = next(iter(module(competition, **settings).train_dataloader()))
    loader = module(competition, **merged(settings, {"loading": {"num_workers": 1}})).train_dataloader()
    loader.multiprocessing_context = method
    there = next(iter(loader))
    assert torch.equal(here["image"], there["image"])
    assert torch.equal(here["row"], there["row"])


def test_batches_that_wait_stay_within_a_share_of_memory():
    assert plan().prefetch_factor == 4  # of 100 MB for those that wait
    assert plan(batch_bytes=5 * MEGABYTE, wanted=8).prefetch_factor == 2  # 18 wait
    assert plan(batch_bytes=90 * MEGABYTE, wanted=4).prefetch_factor == 1  # as few as can be
    few = plan(batch_bytes=20 * MEGABYTE)
    assert (few.num_workers, few.prefetch_factor) == (3, 1)
    assert "20.00 MB a batch, 0.10 GB for those that wait" in str(few)
    assert plan(batch_bytes=20 * MEGABYTE, folds=2).num_workers == 0


def test_shared_memory_that_is_too_small_is_said_with_its_cure(competition, tmp_path, capsys, monkeypatch):
    docker = {"shared": 64 * MEGABYTE, "batch_bytes": 10 * MEGABYTE}
    assert plan(**docker).num_workers == 4
    assert "--shm-size" in str(plan(**docker))
    assert plan(**docker, wanted=4).prefetch_factor == 1
    with pytest.raises(InputError, match="bus error"):
        plan(**docker, wanted=5)
    monkeypatch.setattr(loading, "_free_shared_memory", lambda: 40_000)  # two batches of 18 kB
    assert fit_fold(competition, tmp_path, "--data.loading.num_workers", "1") == 2
    err = capsys.readouterr().err
    assert "data.loading.num_workers is 1, and /dev/shm has 0.04 MB for batches of 0.02 MB" in err
    assert "docker run --shm-size" in err
    assert fit_fold(competition, tmp_path, "--resume", "--data.loading.num_workers", "0") == 0


def test_a_bus_error_names_its_cure():
    said = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"
    kept = pytest.raises(loading.RunError, match=r"Kept\. Add --x 0, or give the container more of /dev/shm")
    with kept, loading.explain_worker_crash("fold 0: ", "Kept. ", "--x 0"):
        raise RuntimeError(said)


def test_only_a_cuda_device_gets_pinned_batches(competition, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a machine with a GPU that computes on its CPU
    data = module(competition)
    for device, pins in ((CPU, False), (torch.device("mps"), False), (CUDA, True)):
        data.destination = Destination(device)
        loader = data.train_dataloader()
        assert loader.pin_memory == pins


class Threads(Dataset):
    """What a loader process computes with."""

    def __len__(self):
        return 1

    def __getitem__(self, key):
        return {"row": torch.tensor([torch.get_num_threads(), cv2.getNumThreads(), os.getpid()])}


def test_a_loader_process_has_one_thread():
    order = batches.OrderedSampler(torch.zeros(1, dtype=torch.int64).numpy())
    (batch,) = batches.make_loader(Threads(), order, 1, LoaderPlan(1, 1, False, ""), 0)
    threads, pool, process = batch["row"][0].tolist()
    assert threads == 1
    assert pool <= 1
    assert process != os.getpid()


def test_waiting_is_counted_from_the_first_batch_to_the_last():
    waits = WaitTime()
    assert waits.share is None
    waits.add(0, 100)  # processes start
    assert waits.share is None
    waits.add(103, 104)
    waits.add(108, 108)
    assert waits.share == 1 / 8


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Reading an image takes 1 s, a training step 2 s."""
    clock = Clock()
    monkeypatch.setattr(loading, "time", clock)
    image, step = batches.ImageDataset.image, FineTuneTask.training_step

    def slow_image(self, *given):
        clock.now += 1
        return image(self, *given)

    def slow_step(self, *given):
        clock.now += 2
        return step(self, *given)

    monkeypatch.setattr(batches.ImageDataset, "image", slow_image)
    monkeypatch.setattr(FineTuneTask, "training_step", slow_step)
    return clock


def test_w7_every_epoch_says_what_it_waited_for_its_loader(clock, competition, tmp_path, capsys):
    assert fit_fold(competition, tmp_path) == 0
    lines = (tmp_path / "runs" / "tiny" / "fold_0" / "metrics.jsonl").read_text().splitlines()
    # Two batches of 6: between them a step of 2 s and 6 images.
    assert [json.loads(line)["loader_wait"] for line in lines] == [0.75, 0.75]
    out = capsys.readouterr().out
    assert out.count("fold 0: cpu waits for its loader 75% of the time; to train faster, set ") == 1


def test_w7_what_waits_little_is_told_nothing(clock, competition, tmp_path, capsys):
    assert fit_fold(competition, tmp_path, **{"data.batch_size": 1, "trainer.max_epochs": 1}) == 0
    lines = (tmp_path / "runs" / "tiny" / "fold_0" / "metrics.jsonl").read_text()
    assert json.loads(lines)["loader_wait"] == 0.3333
    assert "waits for its loader" not in capsys.readouterr().out


def test_w7_a_single_batch_has_no_share(competition, tmp_path, capsys):
    assert fit_fold(competition, tmp_path, **{"data.batch_size": 32, "trainer.max_epochs": 1}) == 0
    assert "loader_wait" not in (tmp_path / "runs" / "tiny" / "fold_0" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        ({"loading": {"cache": False}}, "cuda", "set data.loading.cache to true or data.loading.num_workers to 3"),
        (
            {"loading": {"cache": True}},
            "cuda",
            "set data.loading.augment_on to device or data.loading.num_workers to 3",
        ),
        ({"loading": {"cache": True, "augment_on": "device"}}, "cuda", "set data.loading.num_workers to 3"),
        ({"loading": {"cache": True}}, "mps", "set data.loading.num_workers to 3"),
        ({"loading": {"cache": True}}, "cpu", "set data.loading.num_workers to 3"),
    ],
)
def test_w7_the_advice_fits_the_settings(settings, device, expected, competition, tmp_path, monkeypatch):
    data = module(competition, **merged({"loading": {"cache_dir": str(tmp_path)}}, settings))
    data.destination = Destination(torch.device(device))
    monkeypatch.setattr(loading, "available_cores", lambda: 4)
    assert loading.advice(data, 0) == expected
    monkeypatch.setattr(loading, "available_cores", lambda: 1)
    data = module(competition, loading={"cache_dir": str(tmp_path), "cache": True}, augment="heavy")
    assert "take a machine with more" in loading.advice(data, 0)


def test_w7_a_gpu_is_slowed_by_less_than_a_cpu():
    assert loading.is_slow(0.11, CUDA)
    assert not loading.is_slow(0.09, CUDA)
    assert not loading.is_slow(0.4, CPU)


def test_w7_sampling_on_the_device_is_no_waiting(competition, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loading, "time", clock)
    sample = DeviceImages.sample

    def slow(self, batch):
        clock.now += 100
        return sample(self, batch)

    monkeypatch.setattr(DeviceImages, "sample", slow)
    data = module(competition, loading={"augment_on": "device", "cache_dir": str(tmp_path)})
    loader = data.train_dataloader()
    assert len(list(loader)) == 2
    assert loader.waits.seconds == 0
    assert loader.waits.share == 0


def test_w7_the_callback_leaves_a_plain_loader_alone():
    assert recorder._wait_share(SimpleNamespace(train_dataloader=[1, 2])) is None
