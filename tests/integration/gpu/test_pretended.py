"""Commands on a GPU that is not there: on which device tensors are, what CUDA refuses, and what makes steps wait."""

import copy
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch

import swinft
from swinft.cli import main
from swinft.model.heads import LovaszLoss, OrdinalHead, SegmentationHead, SoftmaxLovaszLoss
from swinft.model.trial import TrialSteps
from swinft.run.compute import selection
from swinft.run.find.batch import EvaluatedToo
from swinft.run.layout import Run
from tests.conftest import make_competition, power_gone_after, tiny_config, write_config
from tests.data.masks.salt import write_salt
from tests.integration.gpu.pretended import GPU, Mixed, pretended_gpu
from tests.integration.test_row_images import SEVERAL, pairs
from tests.integration.test_segmentation import HEAD

__all__ = ["pairs"]  # a fixture

MPS = torch.device("mps", 0)
ON_MPS = {"trainer.accelerator": "mps", "trainer.precision": "32-true", "trainer.deterministic": False}
# fp16: was a gradient infinite, and the loss of a step that was skipped?
GRAD_SCALER = {
    "run/folds/fold.py item",
    "run/folds/fold.py _local_scalar_dense",
    "model/training/epoch_losses.py nonzero",
}
STEPS = 4  # of an epoch; the last one is not watched


@pytest.fixture
def gpu(monkeypatch):
    with pretended_gpu(monkeypatch) as gpu:
        yield gpu
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def apple(monkeypatch):
    """Apple's GPU, which has no float64."""
    with pretended_gpu(monkeypatch, MPS) as gpu:
        yield gpu


@pytest.fixture(scope="module")
def salt(tmp_path_factory):
    return write_salt(tmp_path_factory.mktemp("salt"), 16)


def config(root, folder, name="tiny", **changes):
    """A fit on a T4: fp16 with a scaler, every operation deterministic; every fold has four steps."""
    own = {
        "trainer.accelerator": "gpu", "trainer.precision": "16-mixed", "trainer.deterministic": True,
        "trainer.max_epochs": 1, "model.compute.fast_attention": True, "model.compute.compile": False,
        "data.batch_size": 3, "data.loading.num_workers": 0, "name": name,
    }  # fmt: skip
    changes = {key: value for key, value in {**own, **changes}.items() if value != "default"}
    return write_config(folder / f"{name}.yaml", tiny_config(root, folder / "runs", **changes))


def every_step(gpu):
    """What waits for the GPU in every training step, without the number of its line."""
    found = [place.partition(":") for place, count in gpu.waits.items() if count >= STEPS - 1]
    return {f"{file} {rest.partition(' ')[2]}" for file, _, rest in found}


def head(name, **arguments):
    return {"class_path": f"swinft.{name}", "init_args": arguments}


NUMBERS = {"data.target": "brightness", "data.target_kind": "regression"}
LABELS = {"data.target": ["is_red", "is_green"], "data.target_kind": "multilabel"}
GRADES = {"data.columns.class_order": ["red", "green", "blue"]}
CNN = {"model.backbone": "test_resnet", "model.backbone_args": None}
FITS = {
    "mixed": {"model.mix": {"mixup_alpha": 0.5, "cutmix_alpha": 0.5}, "trainer.accumulate_grad_batches": 1},
    "mixed inside": {"model.mix": {"mixup_alpha": 0.5, "mixup_at": "random"}},
    **{
        f"classes {name}": {"model.head": head("ClassificationHead", loss=name, dropout=0.2, dropout_samples=3)}
        for name in ("focal", "kl", "poly1", "class_balanced", "balanced_softmax", "bi_tempered")
    },
    **{
        f"labels {name}": {**LABELS, "model.head": head("MultilabelHead", loss=name)}
        for name in ("focal", "asymmetric", "poly1")
    },
    **{
        f"numbers {name}": {**NUMBERS, "model.head": head("RegressionHead", loss=name)}
        for name in ("l1", "huber", "r2", "pearson", "concordance")
    },
    "bce of numbers": {**NUMBERS, "model.head": head("RegressionHead", loss="bce", low=0, high=100)},
    "ranks": {**NUMBERS, "model.head": head("RegressionHead", transform="rank")},
    "distribution": {**NUMBERS, "model.head": head("LabelDistributionHead", low=0, high=100)},
    "angles": {"model.head": head("ArcFaceHead", smallest_margin=0.1, sub_centres=2, embedding=8)},
    "ordinal": {**GRADES, "model.head": head("OrdinalHead")},
    "coral": {**GRADES, "model.head": head("OrdinalHead", form="coral"), "model.mix": {"mixup_alpha": 0.5}},
    "grades": {**NUMBERS, "model.head": head("OrdinalRegressionHead", grades=[10, 50, 100])},
    **{f"pooling {name}": {"model.pooling": name} for name in ("gem", "gated_attention", "max", "avg+max", "stages")},
    "augmented there": {"data.loading.augment_on": "device", "data.augment": "medium"},
    "lora": {"model.optim.freeze": {"share": 1, "lora": {"rank": 2}}},
    "soup": {**CNN, "checkpoint": {"soup": "greedy", "epochs": 2}, "trainer.max_epochs": 2},
    "sizes": {
        **CNN, "model.optim.sizes": [{"size": 16, "epochs": 1}], "trainer.max_epochs": 2,
        "model.compute.fast_attention": False,
    },
    "uint16": {"data.loading.image_rules": {"keep": "uint16", "range": [0, 65535]}},
    "float32": {"data.loading.image_rules": {"keep": "float32", "range": [0, 255]}},
    "recomputed": {"model.compute.grad_checkpointing": True},
    "v2": {"model.backbone": "swinv2_tiny_window8_256"},
    "limited": {"max_hours": 1},
    "auxiliary": {"data.columns.auxiliary": [{"target": "brightness", "target_kind": "regression"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "mixed")) for name in FITS])
def test_a_fit_in_fp16_is_deterministic_and_its_steps_wait_for_the_scaler_alone(name, competition, tmp_path, gpu):
    path = config(competition, tmp_path, **FITS[name])
    assert main(["fit", "--config", str(path), "--fold", "0"]) == 0
    assert gpu.operations > 1000
    assert every_step(gpu) <= GRAD_SCALER
    run = tmp_path / "runs" / "tiny"
    done = gpu.operations
    views = "identity" if "float32" in name or "uint16" in name else "identity,hflip,rot90,scale"
    if "data.target" not in FITS[name]:
        assert main(["predict", str(run), "--folds", "0", "--device", "cuda", "--views", views]) == 0
        assert gpu.operations > done + 100


def masks_config(salt, folder, **changes):
    own = {
        **CNN, "data.target": "rle_mask", "data.target_kind": "segmentation", "data.test": None,
        "data.sample_submission": "sample_submission.csv", "data.image": "images/{id}.png", "data.batch_size": 2,
        "data.loading": {"resize": "pad", "num_workers": 0}, "data.image_size": 64, "model.metrics": ["dice"], "model.ema_decay": None,
        "predict": {"views": ["identity", "hflip"]},
    }  # fmt: skip
    return config(salt, folder, **{**own, **changes})


NARROW = {"upernet": {"decoder_channels": 8}}


def unet(loss):
    made = copy.deepcopy(HEAD)
    made["init_args"] |= {"decoder_args": {"decoder_channels": [16, 8, 8, 8, 8]}, "loss": loss}
    return made


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["bce", "dice", "focal", "lovasz"])
def test_masks_are_trained_predicted_and_explained(loss, salt, tmp_path, gpu):
    path = masks_config(salt, tmp_path, **{"model.head": unet(loss)})
    assert main(["fit", "--config", str(path), "--fold", "0"]) == 0
    assert every_step(gpu) <= GRAD_SCALER
    run = str(tmp_path / "runs" / "tiny")
    assert main(["predict", run, "--folds", "0", "--device", "cuda"]) == 0
    held_out = pd.read_csv(f"{run}/fold_0/oof.csv", dtype=str).iloc[0, 0]
    assert main(["explain", run, "--ids", held_out, "--device", "cuda"]) == 0


@pytest.mark.parametrize("decoder", ["upernet", pytest.param("pspnet", marks=pytest.mark.slow)])
def test_a_decoder_that_is_not_deterministic_is_refused_with_the_key(decoder, salt, tmp_path, gpu, capfd, monkeypatch):
    """By the trial step, which sets the environment's variable of cuBLAS as a fold does."""
    found, select = [], selection.select_in_process
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(
        selection,
        "select_in_process",
        lambda *given: [found.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG")), select(*given)][1],
    )
    path = masks_config(
        salt, tmp_path, **{"model.head": head("SegmentationHead", decoder=decoder, decoder_args=NARROW.get(decoder))}
    )
    assert main(["fit", "--config", str(path), "--fold", "0"]) == 2
    assert "set trainer.deterministic to warn, or choose another head or loss" in capfd.readouterr().err
    assert found == [":4096:8"]


@pytest.mark.parametrize("loss", [LovaszLoss(), SoftmaxLovaszLoss()])
def test_losses_of_sorted_pixels_are_deterministic(loss, gpu):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=random)
    masks = (torch.arange(3)[:, None, None] == torch.randint(0, 3, (2, 1, 8, 8), generator=random)).float()
    expected = loss(logits, masks)
    torch.use_deterministic_algorithms(True)
    assert torch.equal(loss(logits.to(GPU), masks.to(GPU)).cpu(), expected)


def test_grades_are_encoded_deterministically(gpu):
    torch.use_deterministic_algorithms(True)
    encoded = OrdinalHead(4, 3).encode(torch.tensor([0, 2, 1], device=GPU))
    assert encoded.tolist() == [[0, 0], [1, 1], [1, 0]]
    assert encoded.dtype == torch.float32


def test_pixels_are_counted_on_a_device_without_float64(apple):
    head = SegmentationHead(8, 2)
    predictions = torch.tensor([0.2, 0.9]).view(1, 2, 1, 1).expand(1, 2, 4, 4).to(MPS)
    counts, wanted = head.counted(predictions, torch.ones(1, 2, 4, 4, dtype=torch.uint8, device=MPS))
    assert (counts.tolist(), wanted.tolist()) == ([[[0, 0], [16, 16]]], [[16, 16]])


@pytest.mark.slow
@pytest.mark.parametrize("tile", [None, {"overlap": 0.5, "masked": 0.5}])
def test_masks_are_trained_and_predicted_by_apples_gpu(tile, salt, tmp_path, apple):
    kind = {"class_path": "swinft.Segmentation", "init_args": {"tile": tile}}
    changes = {"model.head": unet("lovasz"), **ON_MPS}
    if tile:
        changes |= {"data.target_kind": kind, "data.loading": {"num_workers": 0}, "data.image_size": 32}
    path = masks_config(salt, tmp_path, **changes)
    assert main(["fit", "--config", str(path), "--fold", "0"]) == 0
    assert main(["predict", str(tmp_path / "runs" / "tiny"), "--folds", "0", "--device", "mps"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["attention", "mean", "max", "concat", "gru"])
def test_several_images_of_a_row(fusion, pairs, tmp_path, gpu):
    path = config(pairs, tmp_path, **{**SEVERAL, "model.pooling": {"images": fusion}})
    assert main(["fit", "--config", str(path)]) == 0
    # How many of a batch's images are there is known to the GPU alone: it is asked once.
    assert every_step(gpu) <= GRAD_SCALER | {"model/network.py nonzero"}
    run = str(tmp_path / "runs" / "tiny")
    assert main(["predict", run, "--device", "cuda"]) == 0
    assert main(["embed", run, "--device", "cuda"]) == 0
    for method in ("gradcam", "occlusion", "integrated-gradients", "rollout"):
        assert main(["explain", run, "--ids", "003", "001", "--device", "cuda", "--method", method]) == 0


@pytest.mark.slow
def test_a_batch_in_fp16_is_tried_with_the_optimisers_state(competition, tmp_path, gpu, monkeypatch):
    """From the scale that torch begins with, the gradients of these losses overflow in every step of the trial."""
    held, end = [], EvaluatedToo.on_train_end

    def seen(measured, trainer, task):
        held.append(len(trainer.optimizers[0].state))
        end(measured, trainer, task)

    monkeypatch.setattr(EvaluatedToo, "on_train_end", seen)
    steps, train = [], TrialSteps.train

    def kept(tried, batch):
        steps.append(tried)
        return train(tried, batch)

    monkeypatch.setattr(TrialSteps, "train", kept)
    path = config(competition, tmp_path, **NUMBERS, **{"model.head": head("RegressionHead", loss="mse")})
    assert main(["find", "--config", str(path), "--what", "batch_size"]) == 0
    assert held
    assert min(held) > 10
    assert main(["check", "--config", str(path)]) == 0
    assert steps
    assert all(len(tried.optimizer.state) > 10 for tried in steps)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two finished runs in bf16 with the same folds, trained there; and their competition."""
    folder = tmp_path_factory.mktemp("there")
    competition = make_competition(folder / "competition")
    with pytest.MonkeyPatch.context() as patch, pretended_gpu(patch):
        runs = []
        for seed in (42, 3):
            changes = {"seed": seed, "trainer.precision": "bf16-mixed", "trainer.deterministic": False}
            folds = {"data.folds": {"file": str(runs[0] / "folds.csv")}} if runs else {}
            path = config(competition, folder, f"seed_{seed}", **changes, **folds)
            assert main(["fit", "--config", str(path)]) == 0
            runs.append(folder / "runs" / f"seed_{seed}")
            assert main(["predict", str(runs[-1]), "--device", "cuda"]) == 0
    return runs, competition


COMMANDS = {
    "report": ["report", "RUN"],
    **{
        method: ["explain", "RUN", "--ids", "003", "001", "--npy", "--device", "cuda", "--method", method]
        for method in ("gradcam", "integrated-gradients", "occlusion", "rollout", "windows")
    },
    "embed": ["embed", "RUN", "--device", "cuda"],
    **{
        f"model {model}": ["embed", "RUN", "--fit", model, "--name", model, "--bootstrap", "20", "--device", "cuda"]
        for model in ("svr", "knn", "gbdt")
    },
    **{
        f"lab {name}": ["lab", name, "RUN", "--device", "cuda", *more]
        for name, more in {
            "scale": [],
            "frequency": [],
            "variance": [],
            "lesion": [],
            "robust": ["--severities", "1"],
            "hessian": ["--mini_batch", "4", "--batches", "1", "--lanczos_steps", "6"],
            "landscape": ["--mini_batch", "4", "--points", "3"],
            "act": [],
            "mixer": [],
        }.items()
    },
    "find lr": ["find", "--config", "CONFIG", "--steps", "20", "--what", "lr"],
    "find batch": ["find", "--config", "CONFIG", "--steps", "20", "--what", "batch_size"],
    "inspect": ["inspect", "RUN"],
    "plan": ["plan", "--config", "CONFIG"],
    "export": ["export", "RUN", "--fold", "0", "--to", "timm", "--output", "FOLDER/a.safetensors"],
    "ensemble": ["ensemble", "RUN", "OTHER", "--name", "both", "--runs", "FOLDER"],
    "tune": ["tune", "--config", "CONFIG", "--trials", "2", "--folds", "0", "--name", "search"],
    "tried": ["fit", "--config", "CONFIG", "--name", "tried", "--trainer.fast_dev_run", "2"],
    "chosen": ["check", "--config", "CONFIG", "--trainer.precision", "auto", "--model.compute.fast_attention", "auto",
               "--trainer.max_epochs", "100000"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_on_a_run_that_was_trained_there(name, trained, tmp_path, gpu, monkeypatch):
    (run, other), competition = trained
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    changes = {"trainer.precision": "bf16-mixed", "trainer.deterministic": False}
    given = {"RUN": run, "OTHER": other, "CONFIG": config(competition, tmp_path, **changes)}
    words = [str(given.get(word, word)).replace("FOLDER", str(tmp_path)) for word in COMMANDS[name]]
    assert main(words) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "gradcam",
        "integrated-gradients",
        "embed",
        "lab variance",
        "lab frequency",
        "lab landscape",
        "find batch",
        "plan",
    ],
)
def test_a_command_works_on_apples_gpu(name, trained, tmp_path, apple):
    (run, _), competition = trained
    given = {"RUN": run, "CONFIG": config(competition, tmp_path, **ON_MPS), "cuda": "mps"}
    words = [str(given.get(word, word)).replace("FOLDER", str(tmp_path)) for word in COMMANDS[name]]
    assert main(words) == 0


@pytest.mark.slow
@pytest.mark.parametrize("teachers", ["one", "two"])
def test_a_student_learns_from_teachers_there(teachers, trained, tmp_path, gpu):
    runs, competition = trained
    named = str(runs[0]) if teachers == "one" else [str(run) for run in runs]
    changes = {
        "data.folds": {"file": str(runs[0] / "folds.csv")}, "distill": {"run": named, "weight": 0.5, "temperature": 2},
        "model.mix": {"mixup_alpha": 0.5, "cutmix_alpha": 0.5},
    }  # fmt: skip
    assert main(["fit", "--config", str(config(competition, tmp_path, **changes)), "--fold", "0"]) == 0
    assert every_step(gpu) <= GRAD_SCALER


@pytest.mark.slow
def test_rows_in_memory_are_predicted_there(trained, gpu):
    (run, _), _ = trained
    predictor = swinft.open_run(run).predictor(device="cuda", views=["identity", "hflip"])
    done = gpu.operations
    found = predictor.predict(pd.DataFrame({"id": ["t1", "t2"]}))
    assert len(found) == 2
    assert gpu.operations > done + 100


@pytest.mark.slow
def test_a_fold_that_was_interrupted_goes_on_there_with_the_same_weights(competition, tmp_path, gpu):
    found = []
    for name in ("whole", "ended"):
        path = config(competition, tmp_path, name, **{"trainer.max_epochs": 3, "model.mix": {"mixup_alpha": 0.5}})
        words = ["fit", "--config", str(path), "--fold", "0"]
        if name == "ended":
            with power_gone_after(1):
                main(words)
            words.append("--resume")
        assert main(words) == 0
        fold = Run(tmp_path / "runs" / name).fold(0)
        found.append((fold.root / "weights.safetensors").read_bytes())
        assert json.loads((fold.root / "result.json").read_text())["made_with"]["precision"] == "16-mixed"
    assert found[0] == found[1]


CONTROLS = {
    "mixed": (lambda x: x + torch.ones(3), "tensors of the GPU and on those of the CPU"),
    "numpy": (lambda x: x.numpy(), "can't convert cuda:0"),
    "asarray": (np.asarray, "can't convert cuda:0"),
    "pinned": (lambda x: x.pin_memory(), "cannot pin"),
    "generator": (lambda x: torch.empty_like(x).normal_(generator=torch.Generator()), "for generator of normal_"),
    "forbidden": (lambda x: x.cumsum(0), "deterministic implementation"),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_what_cuda_refuses_is_an_error(name, gpu):
    slip, said = CONTROLS[name]
    torch.use_deterministic_algorithms(True)
    there = torch.arange(3.0).to("cuda")
    assert (there.device, there.is_cuda, (there * 2).device, there.cpu().device.type) == (GPU, True, GPU, "cpu")
    with pytest.raises((Mixed, TypeError), match=said):
        slip(there)


WAITING = {
    "item": lambda x: x[0].item(),
    "copied back": lambda x: x.cpu(),
    "mask": lambda x: x[x > 1],
    "list": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "another list": lambda x: x.new_tensor([1.0, 2.0]),
    "blocking": lambda x: torch.ones(3).to(x.device),
}


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_in_a_step_is_counted(name, gpu):
    there = torch.arange(3.0).to("cuda")
    gpu.is_step = True
    torch.ones(3).to("cuda", non_blocking=True).add_(there)
    assert not gpu.waits
    WAITING[name](there)
    assert gpu.waits
