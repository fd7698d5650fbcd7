"""What predictions are computed in, and that none is written that is no number."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from swinft.cli import main
from swinft.errors import InputError
from swinft.inference import predictor as inference
from swinft.inference.finite import Origin
from swinft.inference.openvino import compile_net
from swinft.inference.predictions import Predictions
from swinft.run.folds import fold as fit
from swinft.run.layout import Run
from swinft.run.prediction import predict
from swinft.run.prediction import shards as parts
from swinft.store import commit
from swinft.system import precision
from tests.conftest import fit_in_process, tiny_config, write_config
from tests.inference.test_openvino import SIDE, make_net
from tests.integration.gpu.heads import HungryHead
from tests.integration.gpu.pretended import GPU, Calls, pretended_gpu

CODE = ("--allow-code", "tests.integration.gpu.heads")


@pytest.fixture(scope="module")
def holed_run(competition, tmp_path_factory):
    """A finished run whose head has holes once the environment says so."""
    folder = tmp_path_factory.mktemp("holed")
    changes = {"model.head": {"class_path": "tests.integration.gpu.heads.HoledHead"}, "trainer.max_epochs": 1}
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **changes))
    fit_in_process(config, *CODE)
    return folder / "runs" / "tiny"


def predicts(run, output, *options):
    return main(["predict", str(run), "--device", "cpu", "--output", str(output), *CODE, *options])


@pytest.mark.parametrize("holes", ["logits", "decoded"])
def test_w3_predictions_that_are_no_numbers_stop_and_name_the_rows(holes, holed_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOLES", holes)
    output = tmp_path / "p.csv"
    assert predicts(holed_run, output) == 2
    said = capsys.readouterr().err
    assert (
        "fold_0, fold_1: predictions of 2 of the 6 rows of a batch are NaN or infinite in 32-true (ids t1, t6)" in said
    )
    assert "`decode` of the head" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("HOLES")
    assert predicts(holed_run, output) == 0


def test_w3_the_first_batch_is_the_last_and_another_format_is_the_cure(holed_run, tmp_path, capsys, monkeypatch):
    forwards = []

    def counted(nets, *given):
        forwards.append(len(nets))
        return predict_batch(nets, *given)

    predict_batch = inference._predict_batch
    monkeypatch.setattr(inference, "_predict_batch", counted)
    monkeypatch.setenv("HOLES", "logits")
    assert predicts(holed_run, tmp_path / "p.csv", "--batch-size", "2", "--precision", "bf16-mixed") == 2
    assert forwards == [2, 1, 1]  # of 3 batches one, and then each fold alone
    said = capsys.readouterr().err
    assert "1 of the 2 rows of a batch are NaN or infinite in bf16-mixed (ids t1). Nothing is written." in said
    assert "Predict with --precision 32-true." in said


def test_w3_a_part_stops_too_and_its_parent_ends_with_2(holed_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOLES", "logits")
    assert predicts(holed_run, tmp_path / "part.csv", "--part", "1/2") == 2
    assert "1 of the 3 rows of a batch are NaN or infinite in 32-true (ids t2)" in capsys.readouterr().err
    monkeypatch.setattr(parts, "run_children", lambda children, *_, **__: {0: 2, 1: 143})
    assert predicts(holed_run, tmp_path / "p.csv", "--devices", "2") == 2
    assert "What to change is above" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_w3_out_of_fold_predictions_stop_before_the_fold_is_done(competition, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOLES", "logits")
    changes = {"model.head": {"class_path": "tests.integration.gpu.heads.HoledHead"}, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0", *CODE]) == 2
    said = capsys.readouterr().err
    assert "fold_0: predictions of 2 of the 6 rows of a batch are NaN or infinite in 32-true (ids " in said
    assert not (tmp_path / "runs" / "tiny" / "fold_0" / "oof.csv").exists()
    assert not (tmp_path / "runs" / "tiny" / "fold_0" / "result.json").exists()


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_w3_weights_that_are_no_numbers_are_named_by_their_file(backend, holed_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(holed_run, run)
    weights = Run.open(run).fold(1).weights
    tensors = load_file(weights)
    tensors["head.linear.bias"][0] = float("nan")
    commit(weights, save(tensors), "swinft fit")
    assert predicts(run, tmp_path / "p.csv", "--backend", backend) == 2
    said = capsys.readouterr().err
    assert "fold_1/weights.safetensors has NaN or infinite weights (head.linear.bias)" in said
    assert "--folds" in said
    assert predicts(run, tmp_path / "p.csv", "--folds", "0") == 0


def test_w3_the_one_network_that_has_no_numbers_is_named():
    nets = [make_net(), make_net(), make_net()]
    nets[1].head.register_forward_hook(lambda module, given, logits: logits.index_fill(0, torch.tensor([3]), torch.nan))
    rows = [{"image": torch.full((3, SIDE, SIDE), 40 * row, dtype=torch.uint8), "row": row} for row in range(5)]
    loader = torch.utils.data.DataLoader(rows, batch_size=5)
    given = (nets, loader, ["identity"], torch.device("cpu"), "32-true")
    origin = Origin(list("abcde"), [Path(f"runs/x/fold_{k}/weights.safetensors") for k in range(3)], "")
    with pytest.raises(InputError, match=r"^fold_1: predictions of 1 of the 5 rows .* \(ids d\)"):
        inference.predict_rows(*given, origin)
    with pytest.raises(InputError, match=r"^network 1: .* \(ids 3\)"):
        inference.predict_rows(*given)


def test_w3_openvino_does_not_hide_behind_an_argmax_what_is_no_number(monkeypatch):
    class Rooted(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear = linear

        def forward(self, features):
            return self.linear(features) + torch.sqrt(features[:, :1]) * 0

    net = make_net()
    net.head.linear = Rooted(net.head.linear)
    net.head.decode = lambda logits: (logits.argmax(1, keepdim=True) == torch.arange(3)).float()
    monkeypatch.setattr("swinft.inference.openvino._deviation", lambda *given: 0.0)
    compiled = compile_net(net, (SIDE, SIDE))
    images = torch.randint(0, 256, (16, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    images = (images * torch.linspace(0, 1, 16).view(-1, 1, 1, 1)).to(torch.uint8)
    with torch.inference_mode():
        expected = net.predict(images).isnan()
    assert 0 < expected.any(1).sum() < 16
    assert torch.equal(compiled.predict(images).isnan(), expected)


def test_w3_out_of_fold_predictions_on_another_device_are_in_what_was_trained_in(
    competition, tmp_path, capsys, monkeypatch
):
    changes = {"trainer.precision": "auto", "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = ["fit", "--config", str(config), "--fold", "0"]
    monkeypatch.setattr(precision, "cpu_is_faster_in_bf16", lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "predict_rows", HungryHead.fail)
        assert main(words) == 2
    monkeypatch.setattr(fit, "resolve_precision", lambda *given: ("16-mixed", "of another device"))
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    capsys.readouterr()
    used = []
    monkeypatch.setattr(fit, "predict_rows", lambda *given: used.append(given[4]) or inference.predict_rows(*given))
    assert main([*words, "--resume"]) == 0
    assert used == ["32-true"]
    note = "fold 0: trained in bf16-mixed, and this cpu has no units for it: predicting in 32-true."
    assert note in capsys.readouterr().out
    result = json.loads((tmp_path / "runs" / "tiny" / "fold_0" / "result.json").read_text())
    assert result["made_with"]["precision"] == "bf16-mixed"


def test_maps_come_from_the_device_as_levels_of_8_bits(monkeypatch):
    """A quarter of the bytes to copy; only whether they are finite is asked besides."""
    given = torch.linspace(-0.1, 1.1, 3 * 2 * 4).view(3, 2, 2, 2)
    rows = [
        {"image": torch.zeros(3, 2, 2), "row": torch.tensor(row), "size": torch.tensor([2, 2])} for row in (0, 1, -1)
    ]
    copied, moved = [], Calls.moved

    def seen(calls, tensor, device, non_blocking):
        copied.append((device.type, tensor.dtype))
        return moved(calls, tensor, device, non_blocking)

    with monkeypatch.context() as patch, pretended_gpu(patch):
        patch.setattr(Calls, "moved", seen)
        net = SimpleNamespace(predict=lambda image: given.to(GPU))
        loader = torch.utils.data.DataLoader(rows, batch_size=3)
        numbers, values = inference.predict_rows([net], loader, ["identity"], GPU, "32-true")
    assert numbers.tolist() == [0, 1]
    assert values.levels.tolist() == (given[:2] * 255).round().clamp(0, 255).tolist()
    assert [dtype for place, dtype in copied if place == "cpu"] == [torch.uint8, torch.bool]


def t4(monkeypatch, capability=(7, 5)):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    return torch.device("cuda:0")


def test_w3_what_was_trained_in_bf16_is_not_predicted_in_fp16(monkeypatch):
    device = t4(monkeypatch)
    found, note = precision.prediction_precision("auto", ["bf16-mixed", "bf16-mixed"], device)
    assert found == "32-true"
    assert note.startswith("trained in bf16-mixed, and this cuda has no units for it: predicting in 32-true.")
    assert precision.prediction_precision("16-mixed", ["bf16-mixed"], device) == ("16-mixed", "")
    assert precision.prediction_precision("auto", ["16-mixed"], device) == ("16-mixed", "")
    device = t4(monkeypatch, (8, 0))
    assert precision.prediction_precision("auto", ["bf16-mixed"], device) == ("bf16-mixed", "")
    assert precision.prediction_precision("auto", ["16-mixed"], device) == ("16-mixed", "")
    found, note = precision.prediction_precision("auto", ["16-mixed", "bf16-mixed"], device)
    assert found == "32-true"
    assert "16-mixed and bf16-mixed: predicting in 32-true" in note
    assert precision.prediction_precision("auto", ["16-mixed"], torch.device("cpu"))[0] == "32-true"


def test_w3_the_precision_is_an_option_that_the_predictions_remember(tiny_run, tmp_path, capsys):
    def made_in(*options):
        output = tmp_path / "p.csv"
        assert predicts(tiny_run, output, *options) == 0
        said = capsys.readouterr().out
        found = json.loads((tmp_path / "p.made_from.json").read_text())["provenance"]["precision"]
        assert f"by torch in {found}" in said
        return found, Predictions.read(output, 3).values

    (plain, exact), (asked, rounded) = made_in(), made_in("--precision", "bf16-mixed")
    assert (plain, asked) == ("32-true", "bf16-mixed")
    assert 0 < np.abs(exact - rounded).max() < 0.02
    assert predicts(tiny_run, tmp_path / "p.csv", "--precision", "16-mixed") == 2
    assert "--precision is 16-mixed, which is for GPUs. Allowed on a CPU: auto, 32-true" in capsys.readouterr().err
    assert predicts(tiny_run, tmp_path / "p.csv", "--precision", "bf16-mixed", "--backend", "openvino") == 2
    assert "--backend openvino is 32-true, not bf16-mixed" in capsys.readouterr().err


def test_w3_a_run_trained_in_bf16_says_that_it_is_predicted_in_32_true(tiny_run, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    for index in (0, 1):
        path = run / f"fold_{index}" / "result.json"
        result = json.loads(path.read_text())
        result["made_with"]["precision"] = "bf16-mixed"
        commit(path, json.dumps(result).encode(), "swinft fit")
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    given = {}

    def taken(run, options, *rest):
        given.update(vars(options))
        return predict_parts(run, options, *rest)

    predict_parts = predict.predict_parts
    monkeypatch.setattr(predict, "predict_parts", taken)
    monkeypatch.setattr(parts, "run_children", lambda *_, **__: {0: 1})
    assert predicts(run, tmp_path / "p.csv", "--devices", "2") == 1
    assert given["precision"] == "32-true"  # settled once, for all parts
    note = "trained in bf16-mixed, and this cpu has no units for it: predicting in 32-true."
    assert capsys.readouterr().out.count(note) == 1
    assert predicts(run, tmp_path / "p.csv") == 0
    assert note in capsys.readouterr().out
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    assert predicts(run, tmp_path / "p.csv") == 0
    said = capsys.readouterr().out
    assert note not in said
    assert "by torch in bf16-mixed" in said


@pytest.mark.parametrize(
    ("devices", "place", "expected"),
    [
        ("auto", 0, "bf16-mixed"),
        (2, 0, "bf16-mixed"),
        ([1], 1, "16-mixed"),
        ("1,", 1, "16-mixed"),
        ("1,0", 1, "16-mixed"),
        ([7], 0, "bf16-mixed"),  # refused by Lightning when the Trainer is built
        ("a,b", 0, "bf16-mixed"),  # as is this
    ],
)
def test_a_gpu_that_trainer_devices_names_decides_where_labels_are_made_and_in_what_is_trained(
    devices, place, expected, monkeypatch
):
    """An A100 and a T4 in one machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: [(8, 0), (7, 5)][device.index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: ["A100", "T4"][device.index])
    trainer = SimpleNamespace(accelerator="gpu", devices=devices, precision="auto")
    device, found, _ = precision.training_precision(trainer)
    assert (device, found) == (torch.device("cuda", place), expected)
