"""What runs out of memory says so in a few lines, and names the settings that need less."""

import errno
import gc
import json
import re
from types import SimpleNamespace

import pytest
import torch

from swinft.cli import main
from swinft.data.cache.budget import check_device_budget
from swinft.data.loading.device_loader import DeviceImages, optimizer_step_bytes
from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import recomputes_activations
from swinft.run.compute.out_of_memory import explain_out_of_memory, is_out_of_memory
from swinft.run.folds import fold as fit
from swinft.run.prediction import predict
from swinft.system import memory as devicememory
from swinft.system import precision
from tests.conftest import TINY_SWIN, tiny_config, write_config
from tests.integration.gpu.heads import HungryHead

GB = 10**9


def hungry_config(competition, tmp_path, **changes):
    changes = {"model.head": {"class_path": "tests.integration.gpu.heads.HungryHead"}, **changes}
    return write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))


def fake_gpu(monkeypatch, free, reserved, peak, total=16 * GB):
    """A GPU that answers questions about its memory, and nothing else."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: peak)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak // 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")


def settings(batch_size=32, accumulated=1, **changes):
    loading = SimpleNamespace(**{"augment_on": "cpu", "num_workers": 0, **changes})
    compute = SimpleNamespace(grad_checkpointing=False)
    model = {"compute": compute, "backbone": "swin_tiny_patch4_window7_224", "backbone_args": dict(TINY_SWIN)}
    trainer = SimpleNamespace(accumulate_grad_batches=accumulated)
    return SimpleNamespace(
        data=SimpleNamespace(batch_size=batch_size, loading=loading), model=SimpleNamespace(**model), trainer=trainer
    )


@pytest.mark.slow
def test_c2_a_whole_fit_out_of_memory_ends_with_2_and_names_the_settings_of_the_same_step(competition, tmp_path, capfd):
    config = hungry_config(competition, tmp_path, **{"trainer.accumulate_grad_batches": 2})
    assert main(["fit", "--config", str(config), "--allow-code", "tests.integration.gpu.heads"]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.count("this machine has run out of memory in fold 0, epoch 2: at its peak this process used ") == 1
    assert "data.batch_size 3 with trainer.accumulate_grad_batches 4, or data.batch_size 2 with" in said
    assert "model.compute.grad_checkpointing true" in said
    assert "Give the new run another --name" in said
    assert "--resume" not in said
    assert len(said.strip().splitlines()) < 10


@pytest.mark.parametrize(
    ("error", "is_known"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."), True),
        (RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0."), True),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. … out of shared memory."), False),
        (RuntimeError("out of resource: shared memory, Required: 180224, Hardware limit: 101376"), False),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), False),
    ],
    ids=lambda value: str(value)[:50],
)
def test_c2_every_way_to_say_that_memory_is_lacking_is_known_and_no_other(error, is_known):
    assert is_out_of_memory(error) == is_known


def test_c2_other_errors_of_a_training_keep_their_traceback(competition, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(HungryHead, "error", RuntimeError("CUDA error: device-side assert triggered"))
    config = hungry_config(competition, tmp_path)
    words = ["fit", "--config", str(config), "--fold", "0", "--allow-code", "tests.integration.gpu.heads"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert re.search(r"your own code fails in heads.py:\d+ .*device-side assert", said)


def test_c2_batches_that_are_accumulated_already_and_batches_of_one(monkeypatch):
    fake_gpu(monkeypatch, free=1 * GB, reserved=14 * GB, peak=15 * GB)
    device, error = torch.device("cuda:0"), torch.OutOfMemoryError()
    said = str(explain_out_of_memory(error, settings(12, 3), device))
    pairs = [(6, 6), (4, 9), (3, 12)]
    assert ", or ".join(f"data.batch_size {b} with trainer.accumulate_grad_batches {a}" for b, a in pairs) in said
    assert "cuda:0 (Tesla T4) has run out of memory in a training step" in said
    assert "15.00 GB of 16.00 GB, 7.50 GB of them tensors" in said
    assert "another --name" not in said  # nothing is frozen yet
    assert "data.batch_size" not in str(explain_out_of_memory(error, settings(1), device))


def test_c2_what_another_process_holds_is_said_with_the_command_that_goes_on_without_it(monkeypatch):
    fake_gpu(monkeypatch, free=0, reserved=6 * GB, peak=6 * GB)
    device, error = torch.device("cuda:0"), torch.OutOfMemoryError()
    said = str(explain_out_of_memory(error, settings(), device, resume="swinft fit --resume runs/x"))
    assert "Other processes use 10.00 GB of it" in said
    assert "resume with: swinft fit --resume runs/x" in said
    fake_gpu(monkeypatch, free=0, reserved=15 * GB, peak=15 * GB)  # 1 GB is about what CUDA itself takes
    said = str(explain_out_of_memory(error, settings(), device, resume="swinft fit --resume runs/x"))
    assert "Other processes" not in said
    assert "--resume" not in said


def test_c2_the_machines_memory_is_told_apart_from_that_of_its_gpu(monkeypatch):
    fake_gpu(monkeypatch, free=GB, reserved=GB, peak=GB)
    config, device = settings(num_workers=4), torch.device("cuda:0")
    said = str(explain_out_of_memory(MemoryError(), config, device, resume="swinft fit --resume x"))
    assert said.startswith("this machine has run out of memory")
    assert "--data.loading.num_workers 0" in said
    assert "--data.loading.num_workers 0" in str(explain_out_of_memory(MemoryError(), config, torch.device("cpu")))
    assert "--data.loading.num_workers 0" not in str(explain_out_of_memory(torch.OutOfMemoryError(), config, device))
    assert "data.batch_size" not in said
    assert said.endswith("Resume with: swinft fit --resume x")


def test_c2_settings_are_named_only_where_they_act(monkeypatch):
    fake_gpu(monkeypatch, free=GB, reserved=15 * GB, peak=15 * GB)
    config = settings(augment_on="device")
    assert "data.loading.augment_on cpu" in str(explain_out_of_memory(MemoryError(), config, torch.device("cpu")))
    config.data.loading.augment_on, config.model.compute.grad_checkpointing = "cpu", True
    said = str(explain_out_of_memory(torch.OutOfMemoryError(), config, torch.device("cuda:0")))
    assert "augment_on" not in said
    assert "grad_checkpointing" not in said
    assert recomputes_activations("swin_tiny_patch4_window7_224")
    assert not recomputes_activations("inception_v3")


def test_c2_after_the_training_the_same_command_goes_on_and_succeeds(competition, tmp_path, capsys, monkeypatch):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    words = ["fit", "--config", str(config), "--fold", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(fit, "predict_rows", HungryHead.fail)
        assert main(words) == 2
    said = capsys.readouterr().err
    assert "in the out-of-fold prediction" in said
    assert "The training is finished and saved.\n  Resume with: swinft fit --config" in said
    assert main([*words, "--resume"]) == 0


def test_c2_a_prediction_out_of_memory_names_the_options_that_need_less(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "predict_rows", HungryHead.fail)
    monkeypatch.setattr(precision, "cpu_is_faster_in_bf16", lambda: True)
    output = tmp_path / "p.csv"
    assert main(["predict", str(tiny_run), "--device", "cpu", "--output", str(output)]) == 2
    said = capsys.readouterr().err
    assert "this machine has run out of memory in a prediction" in said
    assert "--batch-size 6, or 3, or 1." in said
    assert "--folds K" in said
    assert "--precision bf16-mixed" in said
    assert not output.exists()


def test_c2_the_peak_is_said_once_and_kept_in_the_result(competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    said = capsys.readouterr().out
    assert said.count("fold 0: peak memory ") == 1
    assert said.index("peak memory") < said.index("epoch 2/2")
    peak = json.loads((tmp_path / "runs" / "tiny" / "fold_0" / "result.json").read_text())["peak_memory"]
    assert 10**7 < peak["bytes"] <= peak["of"]


def test_c2_the_peak_of_a_gpu_is_that_of_its_allocator(monkeypatch):
    fake_gpu(monkeypatch, free=2 * GB, reserved=13 * GB, peak=14 * GB)
    use = devicememory.memory_use(torch.device("cuda:0"))
    assert (use.peak, use.tensors, use.others, use.total) == (14 * GB, 7 * GB, GB, 16 * GB)


def test_s4_images_on_the_device_are_gone_before_the_out_of_fold_prediction(competition, tmp_path, monkeypatch):
    held = []

    def counted(*given):
        alive = [
            each for each in gc.get_objects() if type(each) is DeviceImages
        ]  # proxies of the dead answer isinstance with an error
        held.append(sum(each.pixels.untyped_storage().nbytes() for each in alive))
        return predict_rows(*given)

    predict_rows = fit.predict_rows
    monkeypatch.setattr(fit, "predict_rows", counted)
    changes = {
        "data.loading.augment_on": "device",
        "data.loading.cache_dir": str(tmp_path / "cache"),
        "trainer.max_epochs": 1,
    }
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert held == [0]


def test_s4_images_on_the_device_leave_room_for_gradients_and_optimiser():
    weight = torch.nn.Parameter(torch.zeros(1000))
    optimizer = torch.optim.AdamW([weight])
    assert optimizer_step_bytes([weight, torch.zeros(1000)], [optimizer]) == 12_000
    weight.sum().backward()
    assert optimizer_step_bytes([weight, torch.zeros(1000)], [optimizer]) == 8_000
    optimizer.step()
    assert (
        optimizer_step_bytes([weight, torch.zeros(1000)], [optimizer]) == 0
    )  # as after a checkpoint was loaded: not counted twice
    check_device_budget(40, 112, "cuda:0", reserved=12)
    with pytest.raises(InputError, match=r"without 0.00 MB for gradients and optimiser, are 0.00 MB"):
        check_device_budget(40, 112, "cuda:0", reserved=13)
