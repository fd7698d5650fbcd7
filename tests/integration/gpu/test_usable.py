"""A device that cannot compute is refused in one line before anything is read, and never replaced by the CPU."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import Namespace
from torch.cuda._utils import _get_device_index

from swinft.cli import main
from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError
from swinft.run.compute import selection
from swinft.run.compute.choices import default_choice
from swinft.run.compute.devices import check_training_devices, describe_slots, devices_per_fold, slots_for
from swinft.run.prediction import shards as parts
from swinft.system import device as usable
from swinft.system.device import check_usable, probe, runs_on
from swinft.system.precision import choose_device, resolve_precision
from tests.conftest import ROOT, tiny_config, write_config

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver."
)
CPU = torch.device("cpu")


class Refused(AssertionError):
    """Something was done that must not be done yet."""


def never(*_: object, **__: object) -> object:
    raise Refused


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def only_line(capsys) -> str:
    """What was printed as an error, which must be one line."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


def machine(monkeypatch, *cards, built=WHEEL, error=None):
    """A machine with these GPUs, each a name and a capability, or a driver that does not start."""

    def index(device):
        if error:
            raise error
        return torch.device(device).index or 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=0: cards[index(device)][0])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=0: cards[index(device)][1])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)  # torch 2.11 and older ask the driver


P100, V100, GTX = ("Tesla P100-PCIE-16GB", (6, 0)), ("Tesla V100-SXM2-16GB", (7, 0)), ("GeForce GTX 1080", (6, 1))
T4, H100, NEXT = ("Tesla T4", (7, 5)), ("NVIDIA H100", (9, 0)), ("NVIDIA N1", (13, 0))
CU126 = "https://download.pytorch.org/whl/cu126"


def auto(competition, tmp_path, **changes):
    changes = {"trainer.accelerator": "auto", "trainer.precision": "auto", **changes}
    return str(write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes)))


@pytest.mark.parametrize(
    ("cards", "error", "words"),
    [
        ([P100], None, ["Tesla P100-PCIE-16GB is sm_60", "built for sm_75, sm_80", "the T4", "torch<2.15", CU126]),
        ([V100], None, ["is sm_70", CU126]),
        ([GTX, GTX], None, ["cuda:0 and cuda:1 cannot be used", "is sm_61", CU126]),
        ([("GeForce GTX 780", (3, 5))], None, ["is sm_35", "choose another GPU"]),
        ([NEXT], None, ["is sm_130", "pip install --upgrade torch"]),
        ([P100], RuntimeError(TOO_OLD), ["CUDA 12.4 at most", "built with CUDA 13.0", "580 or later", CU126]),
        ([T4], RuntimeError(TOO_OLD.replace("12040", "11040")), ["CUDA 11.4 at most", "580 or later"]),
        ([T4], RuntimeError("CUDA unknown error - this may be due to\nsomething. Setting"), ["CUDA unknown error"]),
        ([T4], AssertionError("Torch not compiled with CUDA enabled"), ["Torch not compiled with CUDA enabled"]),
    ],
    ids=["p100", "v100", "two gtx", "kepler", "newer", "driver 12", "driver 11", "driver error", "cpu wheel"],
)
def test_c1_a_gpu_that_cannot_run_this_torch_is_refused(
    cards, error, words, competition, tmp_path, monkeypatch, capsys
):
    machine(monkeypatch, *cards, error=error)
    monkeypatch.setattr(CSVDataModule, "check", never)
    monkeypatch.setattr(usable, "run_module", never)
    assert main(["check", "--config", auto(competition, tmp_path)]) == 2
    line = only_line(capsys)
    for each in [*words, "or set CUDA_VISIBLE_DEVICES=-1 in" if error else "or add --trainer.accelerator cpu to"]:
        assert each in line
    assert (CU126 in line) == (CU126 in words)  # an advice that does not help is worse than none


@pytest.mark.parametrize(
    "options", [[], ["--trainer.fast_dev_run", "2"], ["--fold", "0"]], ids=["fit", "trial", "fold"]
)
def test_c1_fit_refuses_before_it_looks_at_an_image(options, competition, tmp_path, monkeypatch, capsys):
    machine(monkeypatch, P100)
    monkeypatch.setattr(CSVDataModule, "check", never)
    assert main(["fit", "--config", auto(competition, tmp_path), *options]) == 2
    line = only_line(capsys)
    assert "cuda:0 cannot be used: Tesla P100" in line
    assert not (tmp_path / "runs" / "tiny" / "config.yaml").exists()


@pytest.mark.parametrize("options", [[], ["--device", "cuda"], ["--devices", "2"]], ids=["auto", "named", "parts"])
def test_c1_predict_refuses_before_it_reads_a_row(options, tiny_run, tmp_path, monkeypatch, capsys):
    machine(monkeypatch, P100, P100)
    monkeypatch.setattr(CSVDataModule, "setup", never)
    assert main(["predict", str(tiny_run), "--output", str(tmp_path / "o.csv"), *options]) == 2
    line = only_line(capsys)
    assert "cannot be used: Tesla P100" in line
    assert "--device cpu" in line


def test_c1_a_resume_on_an_unusable_gpu_is_refused(competition, tmp_path, monkeypatch, capsys):
    config = auto(competition, tmp_path, **{"trainer.max_epochs": 1})
    assert main(["fit", "--config", config, "--fold", "0"]) == 0
    machine(monkeypatch, P100)
    capsys.readouterr()
    assert main(["fit", "--config", config, "--resume"]) == 2
    line = only_line(capsys)
    assert "or set CUDA_VISIBLE_DEVICES=-1 in the environment to work on the CPU" in line


def test_c1_kernels_run_in_a_process_of_their_own_and_its_failure_is_one_line(
    competition, tmp_path, monkeypatch, capsys
):
    """The real process, which finds no driver here: what torch says of the GPU in this one is made up."""
    machine(monkeypatch, T4)
    monkeypatch.setattr(CSVDataModule, "check", never)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # also where there are GPUs
    assert main(["check", "--config", auto(competition, tmp_path)]) == 2
    line = only_line(capsys)
    assert "cuda:0 cannot be used: a test computation failed: " in line


@pytest.mark.parametrize(
    ("answer", "complaint", "words"),
    [
        (
            '{"cuda:0": null, "cuda:1": "a test computation failed: busy"}',
            "",
            "cuda:1 cannot be used: a test computation failed: busy",
        ),
        (
            "",
            "ended with exit code -11: ",
            "cuda:0 and cuda:1 cannot be used: the process that tried it ended with exit",
        ),
        ("some driver's words\n", "ended with exit code 1: x", "the process that tried it ended with exit code 1: x"),
        ("", "did not answer within 180 s", "the process that tried it did not answer within 180 s"),
    ],
)
def test_c1_whatever_the_process_does_is_an_answer(answer, complaint, words, monkeypatch):
    machine(monkeypatch, T4, T4)
    monkeypatch.setattr(usable, "run_module", lambda *_: (answer, complaint))
    with pytest.raises(InputError) as caught:
        check_usable([torch.device("cuda", 0), torch.device("cuda", 1)], "x")
    assert words in str(caught.value)


def test_c1_a_driver_that_prints_before_the_answer_does_not_hide_it(monkeypatch):
    machine(monkeypatch, T4)
    monkeypatch.setattr(usable, "run_module", lambda *_: ('hello\n{"cuda:0": null}\n', ""))
    check_usable([torch.device("cuda", 0)], "x")


def test_c1_a_wrong_product_is_found(monkeypatch):
    probe(CPU)
    multiply = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: multiply(a, b) + (1 if a.is_floating_point() else 0))
    with pytest.raises(RuntimeError, match="product of two matrices is wrong"):
        probe(CPU)


def test_c1_nothing_is_started_on_a_cpu_or_in_a_child(monkeypatch):
    monkeypatch.setattr(usable, "run_module", never)
    check_usable([CPU], "x")
    machine(monkeypatch, T4)
    with pytest.raises(Refused):
        check_usable([torch.device("cuda", 0)], "x")
    monkeypatch.setattr(usable, "is_child", lambda: True)
    check_usable([torch.device("cuda", 0)], "x")


def test_c1_mps_is_tried_too(monkeypatch):
    monkeypatch.setattr(usable, "run_module", lambda *_: ('{"mps": "a test computation failed: no"}', ""))
    with pytest.raises(
        InputError, match="mps cannot be used: a test computation failed: no; or add --device cpu to work"
    ):
        check_usable([torch.device("mps")], "add --device cpu")


def config_of(devices="auto", accelerator="auto"):
    trainer = Namespace(accelerator=accelerator, devices=devices, precision="auto")
    return Namespace(trainer=trainer, devices_per_fold=None, resume=False)


@pytest.mark.parametrize(
    ("devices", "tried"),
    [("auto", [0, 1]), (1, [0]), ("1", [0]), ([0], [0]), ("0,", [0]), (-1, [0, 1]), ("-1", [0, 1]), ([1], [1])],
)
def test_c1_the_gpus_that_are_used_are_tried_and_no_other(devices, tried, monkeypatch):
    machine(monkeypatch, T4, GTX)
    asked = []
    monkeypatch.setattr(usable, "run_module", lambda _, names, __: (asked.extend(names), ("{}", ""))[1])
    if 1 in tried:
        with pytest.raises(InputError) as caught:
            check_training_devices(config_of(devices))
        assert "cuda:1 cannot be used: GeForce GTX 1080 is sm_61" in str(caught.value)
        leaves_out = "cuda:0 can be used: CUDA_VISIBLE_DEVICES=0 in the environment leaves the other out"
        assert (leaves_out in str(caught.value)) == (0 in tried)
    else:
        check_training_devices(config_of(devices))
        assert asked == ["cuda:0"]


def test_c1_the_edit_names_gpus_as_the_environment_does(monkeypatch):
    machine(monkeypatch, GTX, T4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa, GPU-bb")
    with pytest.raises(InputError, match="cuda:1 can be used: CUDA_VISIBLE_DEVICES=GPU-bb in the environment"):
        check_training_devices(config_of())


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((7, 5), WHEEL, True),
        ((7, 0), WHEEL, False),
        ((8, 9), WHEEL, True),  # of sm_86
        ((8, 6), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_86"], False),
        ((9, 0), ["sm_86", "compute_86"], True),
        ((8, 0), ["sm_90", "compute_90"], False),
        ((12, 0), ["sm_90a"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 0), ["compute_90a"], False),
        ((10, 3), ["sm_100f"], True),
        ((10, 3), ["sm_100a"], False),
        ((12, 1), WHEEL, True),
        ((11, 0), WHEEL, False),
        ((10, 0), ["sm_10"], False),
        ((6, 1), ["sm_50", "sm_60", "sm_70"], True),
    ],
)
def test_c1_which_code_runs_on_which_gpu(capability, built, runs):
    assert runs_on(capability, built) == runs


def test_c1_an_unknown_list_of_architectures_is_left_to_the_kernel(monkeypatch):
    machine(monkeypatch, P100, built=[])
    monkeypatch.setattr(
        usable, "run_module", lambda *_: ('{"cuda:0": "a test computation failed: no kernel image"}', "")
    )
    with pytest.raises(InputError, match="no kernel image"):
        check_training_devices(config_of())


@pytest.mark.parametrize("value", ["7", "GPU-none", "0"])
def test_c1_a_visible_gpu_that_is_not_there_does_not_become_the_cpu(value, competition, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert main(["check", "--config", auto(competition, tmp_path)]) == 2
    line = only_line(capsys)
    assert f"CUDA_VISIBLE_DEVICES is '{value}', which names no GPU of this machine" in line
    assert "--trainer.accelerator cpu" in line


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_c1_hidden_gpus_are_the_users_word(value, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU


@pytest.mark.parametrize(
    ("cuda", "words"), [("13.0", "driver does not start: no NVML"), (None, "is built for the CPU only")]
)
def test_c1_a_gpu_that_torch_does_not_find_does_not_become_the_cpu(cuda, words, monkeypatch):
    def init():
        raise RuntimeError("no NVML. And more")

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/nvidia0")]))
    with pytest.raises(InputError, match=words):
        choose_device("auto")


@pytest.mark.parametrize("named", ["auto", "cuda", "cuda:1"])
def test_a_gpu_is_named_by_its_number_as_all_of_torch_takes_it(named, monkeypatch):
    machine(monkeypatch, T4, T4)
    chosen = choose_device(named)
    assert chosen == torch.device("cuda", int(named == "cuda:1"))
    assert _get_device_index(chosen) == chosen.index  # what torch.cuda.set_device does with it


@pytest.mark.parametrize("device", ["cuda:4", "mps", "meta", "xpu", "tpu0", "cpu:1"])
def test_c1_a_named_device_that_is_not_there_is_refused(device, tiny_run, monkeypatch, capsys):
    machine(monkeypatch, T4, T4)
    assert main(["predict", str(tiny_run), "--device", device]) == 2
    line = only_line(capsys)
    assert f"device '{device}'" in line
    assert "Allowed: auto, cpu, cuda, mps" in line


def rocm(monkeypatch, architecture, built):
    machine(monkeypatch, ("AMD card", (9, 0)), ("AMD card", (9, 0)), built=built)
    monkeypatch.setattr(torch.version, "hip", "7.2")
    monkeypatch.setattr(torch.version, "cuda", None)
    properties = SimpleNamespace(gcnArchName=f"{architecture}:sramecc+:xnack-")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(usable, "run_module", lambda *_: ("{}", ""))


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [("gfx906", "16-mixed"), ("gfx1030", "16-mixed"), ("gfx90a", "bf16-mixed"), ("gfx1100", "bf16-mixed")],
)
def test_s4_capabilities_of_rocm_are_not_nvidias(architecture, precision, monkeypatch):
    rocm(monkeypatch, architecture, ["gfx90a"])
    assert resolve_precision("auto", torch.device("cuda", 0))[0] == precision


def test_s4_an_amd_card_is_compared_with_the_names_of_its_makers(monkeypatch):
    rocm(monkeypatch, "gfx1030", ["gfx906", "gfx90a"])
    with pytest.raises(
        InputError, match="AMD card is gfx1030, and this torch is built for gfx906, gfx90a: install one"
    ):
        check_training_devices(config_of())
    for built in (["gfx1030"], ["gfx10-3-generic"], []):
        rocm(monkeypatch, "gfx1030", built)
        check_training_devices(config_of())


def test_s4_slots_of_rocm_are_those_that_hip_makes_visible(monkeypatch):
    rocm(monkeypatch, "gfx90a", ["gfx90a"])
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    slots = slots_for(config_of(), 1, 2)
    assert slots == [{"CUDA_VISIBLE_DEVICES": name, "HIP_VISIBLE_DEVICES": name} for name in ("2", "3")]


@pytest.mark.parametrize(
    ("gpus", "folds", "devices", "lines"),
    [
        (0, 5, "auto", []),
        (1, 5, "auto", []),
        (2, 5, "auto", ["2 folds at a time, on GPUs 0 and 1: 5 folds in 3 rounds, 1 in the last"]),
        (2, 4, "auto", ["2 folds at a time, on GPUs 0 and 1: 4 folds in 2 rounds"]),
        (
            8,
            10,
            "auto",
            [f"8 folds at a time, on GPUs {' and '.join('01234567')}: 10 folds in 2 rounds, 2 in the last"],
        ),
        (
            8,
            3,
            "auto",
            [
                "3 folds at a time, on GPUs 0,1 and 2,3 and 4,5: 3 folds in 1 round",
                "2 of 8 GPUs stay idle, because 3 folds are to be fitted on 2 each",
            ],
        ),
        (
            2,
            5,
            1,
            [
                "one fold at a time: 5 folds in 5 rounds",
                "1 of 2 GPUs stay idle, because trainer.devices is 1: with auto, folds are fitted in parallel",
            ],
        ),
        (2, 5, 2, ["one fold at a time: 5 folds in 5 rounds"]),
    ],
)
def test_s11_what_is_planned_for_folds_and_gpus_is_said(gpus, folds, devices, lines, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = config_of(devices)
    per_fold = devices_per_fold(config, folds)
    assert describe_slots(config, slots_for(config, per_fold, folds), per_fold, folds) == lines


def test_s11_fit_prints_the_plan(competition, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("swinft.run.freeze.check_run", never)
    said = []
    monkeypatch.setattr("swinft.run.fit.prepare", lambda *_: None)
    monkeypatch.setattr("swinft.run.layout.Run.planned_folds", lambda _: [0, 1, 2, 3, 4])
    monkeypatch.setattr("swinft.run.layout.Run.trainings_on_all", lambda _: [])
    monkeypatch.setattr("swinft.run.layout.Run.devices_per_fold", lambda _: 1)
    monkeypatch.setattr("swinft.run.fit.run_children", lambda _, slots, **__: said.extend(slots) or {0: 2})
    monkeypatch.setattr("swinft.run.fit.join_seconds", lambda _: 0.0)
    config = auto(competition, tmp_path, **{"trainer.devices": 1, "data.folds.num": 5})
    assert main(["fit", "--config", config]) == 2
    assert "1 of 2 GPUs stay idle, because trainer.devices is 1" in capsys.readouterr().out
    assert said == [{}]


@pytest.mark.parametrize("named", [None, "GPU-aa,GPU-bb", "MIG-1,MIG-2"])
def test_s10_each_part_of_a_prediction_sees_its_own_gpu_only(named, tiny_run, tmp_path, monkeypatch):
    machine(monkeypatch, T4, T4)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(usable, "run_module", lambda *_: ("{}", ""))
    started = []
    monkeypatch.setattr(parts, "run_children", lambda *given, **_: started.append(given) or {0: 1})
    words = ["--device", "cuda", "--devices", "2", "--output", str(tmp_path / "o.csv")]
    assert main(["predict", str(tiny_run), *words]) == 1
    ((children, slots),) = started
    assert slots == [{"CUDA_VISIBLE_DEVICES": name} for name in (named or "0,1").split(",")]
    for child in children.values():
        assert child.words[child.words.index("--device") + 1] == "cuda"  # the only one that it sees


def test_c1_work_on_the_cpu_asks_nothing_of_a_gpu(tiny_run, competition, tmp_path, monkeypatch):
    """Page-locked memory is the driver's: it takes memory on a GPU, and fails here, where there is none."""
    machine(monkeypatch, P100)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)  # which torch's optimisers ask
    assert main(["predict", str(tiny_run), "--device", "cpu", "--output", str(tmp_path / "o.csv")]) == 0
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 1}))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0


def test_c1_the_trial_step_before_a_run_asks_nothing_of_a_gpu(competition, tmp_path, monkeypatch, capsys):
    """The process that starts the folds must hold no memory on their GPUs."""
    machine(monkeypatch, T4)
    monkeypatch.setattr(usable, "run_module", lambda *_: ("{}", ""))
    # The child of the trial, which computes there, is another process.
    monkeypatch.setattr(
        selection, "select_in_child", lambda experiment, *rest: default_choice(experiment.config, rest[-2])
    )
    monkeypatch.setattr(torch.cuda, "_lazy_init", never)
    assert main(["check", "--config", auto(competition, tmp_path)]) == 0


def test_w5_only_copies_to_cuda_go_on_in_the_background(tiny_run, competition, tmp_path, monkeypatch):
    copy, seen = torch.Tensor.to, []

    def to(self, *args, **kwargs):
        if kwargs.get("non_blocking"):
            seen.append(args)
        return copy(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", to)
    changes = {"trainer.max_epochs": 1, "model.mix.mixup_alpha": 1.0, "data.loading.augment_on": "device"}
    changes |= {"data.loading.cache_dir": str(tmp_path / "cache")}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert main(["predict", str(tiny_run), "--device", "cpu", "--output", str(tmp_path / "o.csv")]) == 0
    assert seen == []


def test_the_probe_runs_by_its_module_name():
    done = subprocess.run(
        [sys.executable, "-m", usable.__name__, "cpu"], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout) == (0, '{"cpu": null}\n'), done.stderr
