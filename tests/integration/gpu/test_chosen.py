"""Number format and attention are what a timed trial finds fastest, once for a whole run; nothing here is timed."""

import json
import shutil
from dataclasses import replace
from typing import ClassVar

import pandas as pd
import pytest
import torch
import yaml
from timm.models.swin_transformer import SwinTransformerBlock

from swinft.cli import main
from swinft.inference.predictions import Predictions
from swinft.model.attention import swin as window_attention
from swinft.model.attention import windows as window_kernels
from swinft.model.attention.swin import FastBlock, FusedBlock, accelerate, attentions, restore, set_attention
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.timing import StepTimer, choose
from swinft.model.trial import TrialSteps
from swinft.run.compute import choices, selection
from swinft.run.compute import trial as measured
from swinft.run.compute.choices import choices_folder, default_choice, freeze_choice, read_choice
from swinft.run.layout import Run
from swinft.store import commit
from swinft.system import precision
from tests.conftest import TINY_SWIN, fit_in_process, tiny_config, write_config

CPU = torch.device("cpu")
NARROW = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "drop_path_rate": 0.0}


def table(**seconds):
    """What stands in for a trial's clock: seconds by `training_True`; of what is not named, 1."""

    def time(trial, what, precision, attention):
        return seconds.get(f"{what}_{attention}", seconds.get(precision.replace("-", "_"), 1.0))

    return time


def timed(monkeypatch, time):
    """Has a trial's clock say other times than it took."""
    monkeypatch.setattr(measured.Trial, "_time", time)
    monkeypatch.setattr(measured.Trial, "step", lambda trial: 1.0)


@pytest.fixture
def config(competition, tmp_path, monkeypatch):
    """A config that leaves all to the trial, on a processor with bf16 units; a training that is long enough."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "cpu_is_faster_in_bf16", lambda: True)
    monkeypatch.setattr(selection, "LONG", 0.0)
    monkeypatch.setattr(selection, "SHARE", 1e6)
    changes = {"trainer.max_epochs": 1, "trainer.precision": "auto", "data.folds.num": 2}
    return write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))


def check(config, *options):
    return main(["check", "--config", str(config), *options])


@pytest.fixture
def never_timed(monkeypatch):
    def fail(*_):
        raise AssertionError("something was timed")

    monkeypatch.setattr(measured.Trial, "_measured", fail)


# --- the decision


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"a": 1.0, "b": 0.94}, "b"),
        ({"a": 1.0, "b": 0.96}, "a"),
        ({"a": 1.0, "b": 0.9, "c": 0.8}, "c"),
        ({"a": 1.0, "b": 2.0}, "a"),
        ({"a": 1.0}, "a"),
        ({"b": 0.1}, "a"),
        ({}, "a"),
        ({"a": float("nan"), "b": 1.0}, "a"),
    ],
)
def test_s9_another_is_chosen_if_it_saves_the_margin(seconds, chosen):
    assert choose(seconds, "a", 0.05) == chosen


def test_s9_a_budget_that_is_spent_times_nothing():
    taken = []
    assert StepTimer(CPU, 0.0).median(lambda: taken.append(1), expected=1.0) is None
    assert not taken
    assert StepTimer(CPU, 60.0).median(lambda: taken.append(1)) >= 0
    assert len(taken) == 4


# --- the trial, through the front door


def test_s9_what_is_fastest_is_said_frozen_and_used_by_every_fold(config, tmp_path, monkeypatch, capsys):
    timed(monkeypatch, table(**{"32_true": 2.0, "training_False": 0.5}))
    assert check(config) == 0
    said = capsys.readouterr().out
    assert "precision bf16-mixed: 6.0 img/s, 32-true 3.0\n" in said
    assert "attention in training timm's: 12.0 img/s, ours 6.0\n" in said
    assert "attention in prediction ours: 6.0 img/s, timm's 6.0\n" in said
    used = []
    for place in ("swinft.model.task.set_attention", "swinft.run.experiment.set_attention"):
        monkeypatch.setattr(place, lambda net, device, attention, *_, place=place, **__: used.append(attention))
    fit_in_process(config)
    assert used == [False, True, False, True]  # each fold's training, then its out-of-fold predictions
    run = Run(tmp_path / "runs" / "tiny")
    choice = read_choice(run)
    assert (choice.precision, choice.training, choice.prediction) == ("bf16-mixed", False, True)
    assert run.read_environment()["attention"] == {"training": False, "prediction": True}
    for fold in (0, 1):
        made_with = run.fold(fold).read_result()["made_with"]
        assert made_with["precision"] == "bf16-mixed"
        assert made_with["attention"] == {"training": False, "prediction": True}
    assert yaml.safe_load(run.config.read_text())["model"]["compute"]["fast_attention"] == "auto"


def test_s9_what_is_beaten_has_another_try(config, monkeypatch, capsys):
    disturbed = {("training", "32-true", True): [2.0, 0.9], ("training", "32-true", False): [1.0]}
    timed(monkeypatch, lambda trial, *key: disturbed[key].pop(0) if key in disturbed else 1.0)
    assert check(config, "--trainer.precision", "32-true") == 0
    assert "attention in training ours: 6.7 img/s, timm's 6.0\n" in capsys.readouterr().out
    assert not any(disturbed.values())


@pytest.mark.parametrize(("bf16", "chosen"), [(0.94, "bf16-mixed"), (0.96, "32-true")])
def test_s9_fewer_digits_must_be_worth_it(bf16, chosen, config, monkeypatch, capsys):
    timed(monkeypatch, table(bf16_mixed=bf16))
    assert check(config) == 0
    assert f"precision {chosen}: " in capsys.readouterr().out


def test_s9_it_is_really_timed_and_what_was_timed_is_kept(config, monkeypatch, capsys):
    assert check(config) == 0
    said = capsys.readouterr().out
    assert all(
        f"\n{what} " in f"\n{said}" for what in ("precision", "attention in training", "attention in prediction")
    )
    (kept,) = choices_folder().iterdir()

    def fail(*_):
        raise AssertionError("timed again")

    with monkeypatch.context() as patch:
        patch.setattr(measured.Trial, "choice", fail)
        assert check(config) == 0
    assert [line for line in said.splitlines() if "img/s" in line] == [
        line for line in capsys.readouterr().out.splitlines() if "img/s" in line
    ]
    for damaged in ("", "{", "[]", '{"key": 1}', kept.read_text().replace('"training": ', '"training": 7')):
        kept.write_text(damaged)
        assert check(config) == 0  # made again
        assert json.loads(kept.read_text())["choice"]["device"].startswith("cpu")
    assert check(config, "--data.batch_size", "5") == 0  # another network's or batch's is another choice
    assert len(list(choices_folder().iterdir())) == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.precision", "32-true", "--model.compute.fast_attention", "true"],
        ["--trainer.precision", "bf16-mixed", "--model.compute.fast_attention", "false"],
        ["--trainer.precision", "32-true", "--model.backbone", "resnet18", "--model.backbone_args", "null"],
        ["--trainer.fast_dev_run", "true"],
        ["--model.compute.compile", "true"],
    ],
    ids=lambda options: " ".join(options)[:40],
)
@pytest.mark.usefixtures("never_timed")
def test_s9_what_is_explicit_or_has_no_choice_is_not_timed(options, config, capsys):
    assert check(config, *options) == 0
    assert "img/s" not in capsys.readouterr().out


@pytest.mark.usefixtures("never_timed")
def test_s9_a_short_training_is_not_timed(config, monkeypatch, capsys):
    monkeypatch.setattr(selection, "LONG", 60.0)
    assert check(config) == 0
    assert "img/s" not in capsys.readouterr().out
    assert not choices_folder().exists()


def test_s9_a_candidate_that_fails_is_none(config, monkeypatch, capsys):
    class Steps(TrialSteps):
        def train(self, batch):
            if any(type(module) is SwinTransformerBlock for module in self._task.modules()):
                raise torch.OutOfMemoryError("out of memory")
            super().train(batch)

    monkeypatch.setattr(measured, "TrialSteps", Steps)
    assert check(config) == 0
    said = capsys.readouterr().out
    assert "attention in training" not in said  # ours alone could be timed
    assert "precision" in said


# --- on a GPU: a process of its own, and a full batch


@pytest.fixture
def as_on_gpu(monkeypatch):
    """The CPU is tried as a GPU is, and what a process would do is done in this one."""
    monkeypatch.setattr(selection, "IN_CHILD", {"cpu"})
    monkeypatch.setattr(selection, "run_children", lambda children, slots: {0: main(list(children[0].words))})


class Counting(TrialSteps):
    """Remembers how many images each step of a trial had."""

    images: ClassVar[list[int]] = []

    def train(self, batch):
        self.images.append(len(batch.image))
        super().train(batch)


@pytest.mark.usefixtures("as_on_gpu")
def test_c2_a_step_of_a_full_batch_is_taken_whatever_there_is_to_choose(config, monkeypatch, capsys):
    monkeypatch.setattr(Counting, "images", [])
    monkeypatch.setattr(measured, "TrialSteps", Counting)
    assert check(config, "--trainer.precision", "32-true", "--model.compute.fast_attention", "true") == 0
    assert set(Counting.images) == {6}
    said = capsys.readouterr().out
    assert "a training step of 6 images on cpu: " in said
    assert " GB" in said or " MB" in said
    assert check(config) == 0
    assert set(Counting.images) == {6}
    said = capsys.readouterr().out
    assert all(
        f"\n{what} " in f"\n{said}" for what in ("precision", "attention in training", "attention in prediction")
    )
    assert len(list(choices_folder().iterdir())) == 1


@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "data.batch_size 3 with trainer.accumulate_grad_batches 2"),
        (
            RuntimeError("no kernel image is available\nand so on"),
            "fails on cpu: no kernel image is available",
        ),
    ],
)
def test_c2_what_a_device_cannot_do_is_found_before_anything_is_frozen(
    error, words, config, tmp_path, monkeypatch, capsys
):
    class Failing(TrialSteps):
        def train(self, batch):
            raise error

    monkeypatch.setattr(measured, "TrialSteps", Failing)
    assert main(["fit", "--config", str(config)]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs" / "tiny").exists()


@pytest.mark.usefixtures("as_on_gpu")
def test_s9_candidates_are_compiled_where_the_run_is(config, monkeypatch):
    compiled = []
    monkeypatch.setattr(measured.Trial, "_measured", lambda trial, *key: compiled.append(trial._is_compiled) or 1.0)
    assert check(config, "--model.compute.compile", "true") == 0
    assert compiled[0] is False  # the step of a full batch: compiling it would only cost time
    assert len(compiled) > 3
    assert all(compiled[1:])


@pytest.mark.slow
def test_s9_the_process_of_a_trial_answers(config, monkeypatch):
    monkeypatch.setattr(selection, "IN_CHILD", {"cpu"})
    timed(monkeypatch, table())
    assert check(config) == 0


# --- a resume, and a prediction


@pytest.fixture
def copy(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "copy")
    return Run(tmp_path / "copy")


def test_s9_a_resume_keeps_the_choice_and_a_lost_one_is_made_again(copy, monkeypatch, capsys):
    freeze_choice(copy, replace(read_choice(copy), training=False, prediction=False))
    shutil.rmtree(copy.fold(1).root)
    used = []
    monkeypatch.setattr(
        "swinft.model.task.set_attention", lambda net, device, attention, *_, **__: used.append(attention)
    )
    assert main(["fit", "--resume", str(copy.root), "--fold", "1"]) == 0
    assert used == [False]
    assert copy.fold(1).read_result()["made_with"]["attention"] == {"training": False, "prediction": False}
    copy.choice.unlink()
    capsys.readouterr()
    assert main(["fit", "--resume", str(copy.root)]) == 0
    assert "made again: " in capsys.readouterr().out
    assert (read_choice(copy).precision, read_choice(copy).training) == ("32-true", True)


def test_s9_a_lost_choice_has_the_precision_of_the_start(copy, monkeypatch):
    parser = choices_config(copy)
    monkeypatch.setattr(precision, "cpu_is_faster_in_bf16", lambda: True)
    parser.trainer.precision = "auto"
    assert default_choice(parser, CPU).precision == "bf16-mixed"
    assert choices.remade_choice(copy, parser).precision == "32-true"


def test_s9_another_device_goes_on_by_the_rule(copy):
    config = choices_config(copy)
    config.trainer.precision = "auto"
    freeze_choice(copy, replace(read_choice(copy), device="cuda NVIDIA T4", precision="16-mixed", training="fused"))
    here = choices.choice_here(copy, config)
    assert (here.precision, here.training) == (default_choice(config, CPU).precision, True)
    # The same kind of device, without what was chosen: a CPU never trains in fp16.
    freeze_choice(copy, replace(read_choice(copy), device="cpu another"))
    here = choices.choice_here(copy, config)
    assert (here.precision, here.training) == (default_choice(config, CPU).precision, "fused")


def test_a_choice_of_a_kernel_that_earlier_versions_had_is_that_of_ours(copy):
    choice = json.loads(copy.choice.read_text())
    commit(copy.choice, json.dumps(choice | {"training": "triton", "prediction": "triton"}).encode(), "swinft fit")
    assert (read_choice(copy).training, read_choice(copy).prediction) == (True, True)


@pytest.mark.parametrize(("device", "used"), [(None, False), ("cpu another", "auto")])
def test_s9_a_prediction_computes_as_the_run_did_on_the_same_device(device, used, copy, monkeypatch):
    frozen = read_choice(copy)
    freeze_choice(copy, replace(frozen, device=device or frozen.device, training=True, prediction=False))
    found = []
    monkeypatch.setattr(
        "swinft.run.experiment.set_attention", lambda net, device, attention, *_, **__: found.append(attention)
    )
    assert main(["predict", str(copy.root), "--device", "cpu"]) == 0
    assert found == [used, used]


@pytest.mark.parametrize("is_long", [False, True])
def test_s9_a_long_prediction_on_another_device_is_timed(is_long, copy, monkeypatch, capsys):
    freeze_choice(copy, replace(read_choice(copy), device="cpu another"))
    monkeypatch.setattr(selection, "LONG", 0.0 if is_long else 300.0)
    before = Predictions.read(copy.test_predictions, 3).to_frame()
    assert main(["predict", str(copy.root), "--device", "cpu"]) == 0
    assert ("\nattention in prediction " in capsys.readouterr().out) is is_long
    pd.testing.assert_frame_equal(Predictions.read(copy.test_predictions, 3).to_frame(), before, atol=1e-5)


def test_s9_a_run_of_an_earlier_version_predicts_and_goes_on(copy):
    copy.choice.unlink()
    (copy.root / ".commits" / "choice.json.json").unlink()
    assert main(["predict", str(copy.root), "--device", "cpu"]) == 0
    assert main(["fit", "--resume", str(copy.root)]) == 0
    assert read_choice(copy).precision == "32-true"


@pytest.mark.parametrize("content", ["{}", "[]", "7", '{"device": "cpu"}'])
def test_s9_an_accepted_choice_that_is_none_is_named(content, copy, capsys):
    copy.choice.write_text(content)
    (copy.root / ".commits" / "choice.json.json").unlink()
    assert main(["fit", "--resume", str(copy.root), "--accept"]) == 1
    assert f"{copy.choice} is not a valid choice of precision and attention. Delete it" in capsys.readouterr().err


def choices_config(run):
    from swinft.run.config.sections import build_parser, read_frozen

    return read_frozen(build_parser("fit"), run.config, None)


# --- attention


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
@pytest.mark.parametrize("window", [5, 7, 8])
def test_c4_the_fused_kernels_get_a_bias_whose_rows_are_aligned(name, window, monkeypatch):
    changes = {**NARROW, "window_size": window}
    model = create_backbone(name, 8 * window, False, backbone_args=changes).model.eval()
    images = torch.randn(1, 3, 8 * window, 8 * window)
    expected = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
    strides = []
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, bias, *args, **options):
        strides.append(bias.stride())
        return sdpa(q, k, v, bias, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(window_kernels, "FUSED_ON", {"cpu"})
    monkeypatch.setattr(window_kernels, "attend", window_kernels.attend_by_parts)
    monkeypatch.setattr(window_attention, "attend", window_kernels.attend_by_parts)
    assert accelerate(model) == 4
    strides.clear()
    found = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
    assert len(strides) == 4
    assert all(stride[-1] == 1 and not any(each % 8 for each in stride[:-1]) for stride in strides)
    for theirs, own in zip(expected, found, strict=True):
        assert (own - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6


def test_s9_timms_fused_attention_is_timms_and_can_be_taken_back():
    model = create_backbone("swin_tiny_patch4_window7_224", 112, False, backbone_args=NARROW).model.eval()
    images = torch.randn(2, 3, 112, 112)
    expected = model(images)
    assert accelerate(model, kernel="fused") == 4
    assert {type(m) for m in model.modules()} >= {FusedBlock}
    assert all(m.attn.fused_attn for m in model.modules() if isinstance(m, FusedBlock))
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)
    seen = []
    model.layers[0].blocks[0].attn.softmax.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)
    assert seen
    assert restore(model) == 4
    assert not any(getattr(m, "fused_attn", False) for m in model.modules())


def test_s9_what_a_network_and_a_device_can_compute_is_asked(monkeypatch):
    v1 = create_backbone("swin_tiny_patch4_window7_224", 112, False, backbone_args=NARROW).model
    v2 = create_backbone("swinv2_tiny_window8_256", 64, False, backbone_args=NARROW).model
    resnet = create_backbone("resnet18", 64, False).model
    assert [attentions(model, CPU) for model in (v1, v2, resnet)] == [[True, False], [True, False], []]
    cuda = torch.device("cuda")
    assert [attentions(model, cuda) for model in (v1, v2)] == [[True, False, "fused"], [True, False]]


def test_s9_fused_attention_of_a_network_without_it_is_refused(competition, tmp_path, capsys):
    changes = {"model.compute.fast_attention": "fused", "model.backbone": "resnet18", "model.backbone_args": None}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert check(config) == 2
    assert "model.compute.fast_attention is 'fused', but the backbone has no block" in capsys.readouterr().err


def test_c5_rounding_of_gradients_that_cancel_is_no_fault(capsys):
    for seed in (2, 10):
        torch.manual_seed(seed)
        model = create_backbone("swin_tiny_patch4_window7_224", 32, False, backbone_args=TINY_SWIN).model
        set_attention(model, CPU, True, dtype=torch.bfloat16)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("setting", ["auto", True, "fused"])
@pytest.mark.parametrize("error", [RuntimeError("no kernel\nimage"), KeyError("arch"), ValueError("")])
def test_c5_a_check_that_fails_in_any_way_leaves_timms_attention_and_says_so(setting, error, monkeypatch, capsys):
    model = create_backbone("swin_tiny_patch4_window7_224", 112, False, backbone_args=NARROW).model

    def fail(*_):
        raise error

    monkeypatch.setattr(window_attention, "_results", fail)
    set_attention(model, CPU, setting)
    said = capsys.readouterr().out
    assert said.startswith("attention is computed as timm does: ")
    assert len(said.splitlines()) == 1
    assert len(said.strip()) > len("attention is computed as timm does: ")
    assert not any(isinstance(m, FastBlock | FusedBlock) for m in model.modules())


@pytest.mark.parametrize(("speedup", "expected"), [(0.53, "32-true"), (1.1, "32-true"), (3.0, "bf16-mixed")])
def test_s9_a_cpu_trains_in_bf16_only_where_it_is_faster_in_it(monkeypatch, speedup, expected):
    monkeypatch.setattr(precision, "bf16_speedup", lambda: speedup)
    monkeypatch.setattr(precision.Path, "is_file", lambda _: True)
    monkeypatch.setattr(precision.Path, "read_text", lambda _: "flags : fpu avx512_bf16 bf16")
    assert precision.resolve_precision("auto", torch.device("cpu"))[0] == expected


def test_s9_the_speed_in_bf16_is_measured_once():
    assert 0 < precision.bf16_speedup() == precision.bf16_speedup() < 100
