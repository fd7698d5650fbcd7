"""Weights out: what a file computes without swinft is what the fold predicts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import swinft
from swinft.cli import main
from swinft.errors import InputError
from swinft.inference import export as forms
from swinft.inference.export import TOLERANCE, check_parity, export_net
from swinft.inference.openvino import TOLERANCES, compile_net
from swinft.inference.parity import example_inputs
from swinft.inference.provenance import sha256
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.network import ImageModel
from swinft.run.experiment import Experiment
from swinft.run.export import _decode_rule
from tests.conftest import TINY_SWIN, tiny_config, write_config

CNN = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
SIDE = 32

# Run in a process that cannot import swinft: every file computes the images of inputs.npz.
READER = """
import json, sys
sys.modules["swinft"] = None  # an import would fail
from pathlib import Path
import numpy as np, onnxruntime, timm, torch

def decoded(rule, logits):
    x = 1 / (1 + np.exp(-logits)) if "sigmoid" in rule["rule"] else logits
    if rule["rule"] == "softmax":
        x = np.exp(logits - logits.max(1, keepdims=True))
        return x / x.sum(1, keepdims=True)
    if "standardised" in rule["rule"]:
        x = x * np.array(rule["scale"], np.float32) + np.array(rule["shift"], np.float32)
        x = x if rule["low"] is None and rule["high"] is None else x.clip(rule["low"], rule["high"])
    return x

found = {}
for folder in map(Path, sys.argv[1:]):
    inputs = dict(np.load(folder / "inputs.npz"))
    about = json.loads((folder / "timm" / "w.safetensors.json").read_text())
    usage, mean, std = about["usage"], *(np.array(about["input"][k], np.float32)[:, None, None] for k in ("mean", "std"))
    pixels = torch.from_numpy((inputs["image"] / np.float32(255) - mean) / std)
    file = folder / "timm" / "w.safetensors"
    with torch.no_grad():
        by_file = timm.create_model(usage["model_name"], checkpoint_path=file, **usage["arguments"]).eval()(pixels)
        by_folder = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True).eval()(pixels)
    out = {"same": bool(torch.equal(by_file, by_folder)), "timm": by_file.numpy().tolist()}
    if about["output"]["name"] == "logits":
        out["timm"] = decoded(about["output"]["decode"], by_file.numpy()).tolist()
    session = onnxruntime.InferenceSession(folder / "w.onnx")
    given = {x.name: inputs[x.name].astype(np.float32) for x in session.get_inputs()}
    out["onnx"] = session.run(None, given)[0].tolist()
    net = torch.jit.load(folder / "w.pt")
    tensors = [torch.from_numpy(inputs[name]) for name in ("image", "features") if name in inputs]
    out["torchscript"] = net(*tensors).tolist()
    out["one"] = torch.cat([net(*(x[i : i + 1] for x in tensors)) for i in range(len(tensors[0]))]).tolist()
    found[folder.name] = out
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def runs(competition, tmp_path_factory):
    """One finished fold each: Swin V1 with classes, a CNN with numbers in a range, labels with metadata."""
    folder = tmp_path_factory.mktemp("exported")
    cnn = {"model.backbone": "convnext_atto", "model.backbone_args": CNN}
    regression = {"data.target": "brightness", "data.target_kind": "regression"}
    ranged = {"class_path": "swinft.RegressionHead", "init_args": {"loss": "bce", "low": 10, "high": 100}}
    labels = {"data.target": ["is_red", "is_green"], "data.target_kind": "multilabel"}
    fused = {
        "data.test": None,
        "data.columns.numeric_features": ["brightness"],
        "data.columns.categorical_features": ["tags", "color"],
    }
    of = {
        "classes": {},
        "range": {**cnn, **regression, "model.head": ranged},
        "numbers": {**regression, "model.head": {"class_path": "swinft.RegressionHead"}},
        "metadata": {**labels, **fused, "model.head": {"class_path": "swinft.MultilabelHead"}},
    }
    for name, changes in of.items():
        changes = {"trainer.max_epochs": 1, "model.optim": {"lr": 0.03}, **changes}
        config = tiny_config(competition, folder, name=name, **changes)
        assert main(["fit", "--config", str(write_config(folder / f"{name}.yaml", config)), "--fold", "0"]) == 0
    return folder


def words(runs, name, to, output=None, fold=0):
    return ["export", str(runs / name), "--fold", str(fold), "--to", to, *(["--output", str(output)] if output else [])]


def refused(capsys, argv):
    """The message of a command that refuses."""
    capsys.readouterr()
    assert main(argv) == 2
    return capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("names", [["metadata"], ["classes", "range", "numbers"]], ids="-".join)
def test_files_compute_without_swinft_what_the_fold_predicts(names, runs, tmp_path, capsys):
    expected = {}
    for name in names:
        folder, net = tmp_path / name, swinft.open_run(runs / name).network(0)
        for to, file in (("timm", "timm/w.safetensors"), ("onnx", "w.onnx"), ("torchscript", "w.pt")):
            assert main(words(runs, name, to, folder / file)) == 0
        printed = capsys.readouterr().out
        assert "4 random images and 4 of the fold\n" in printed
        assert ("the file holds the backbone, for num_classes=0" in printed) == (name == "metadata")
        inputs = example_inputs(net, (SIDE, SIDE), 3, seed=7)
        image = inputs[0].to(torch.uint8)
        np.savez(folder / "inputs.npz", image=image, **({"features": inputs[1]} if len(inputs) > 1 else {}))
        with torch.inference_mode():
            expected[name] = net.predict(image, *inputs[1:]).numpy(), net.backbone(image).numpy()
    argv = [sys.executable, "-I", "-c", READER, *(str(tmp_path / name) for name in names)]
    result = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert list(found) == names
    for name, out in found.items():
        predictions, features = expected[name]
        assert out["same"]
        for to in ("timm", "onnx", "torchscript", "one"):
            wanted = features if (name, to) == ("metadata", "timm") else predictions
            assert np.ptp(wanted) > 1e-3 * np.abs(wanted).max()  # or anything would do
            np.testing.assert_allclose(out[to], wanted, rtol=0, atol=TOLERANCE * max(1, np.abs(wanted).max()))


def test_the_json_says_what_a_program_must_do(runs, tmp_path, competition):
    assert main(words(runs, "metadata", "onnx", tmp_path / "x.onnx")) == 0
    text = (tmp_path / "x.onnx.json").read_text()
    about = json.loads(text)
    assert str(tmp_path) not in text
    assert str(competition) not in text
    assert str(runs) not in text
    assert about["sha256"] == sha256((tmp_path / "x.onnx").read_bytes())
    assert (about["run"]["name"], about["run"]["fold"], about["form"]) == ("metadata", 0, "onnx")
    assert about["input"]["shape"] == ["batch", 3, SIDE, SIDE]
    assert about["input"]["mean"] == [0.485, 0.456, 0.406]
    assert (about["input"]["value_range"], about["input"]["colour_order"]) == ([0, 255], "RGB")
    assert about["resize"]["rule"] == "squash"
    assert about["output"]["names"] == ["is_red", "is_green"]
    assert about["output"]["decode"] == {"rule": "sigmoid", "done_by_the_network": True}
    columns = [(each["column"], each.get("is")) for each in about["metadata"]["columns"]]
    tags, colors = ["cool", "cool plant", "warm"], ["blue", "green", "red"]
    assert columns == [("brightness", None), *(("tags", tag) for tag in tags), *(("color", color) for color in colors)]
    assert set(about["versions"]) == {"swinft", "timm", "torch", "safetensors"}


def test_safetensors_are_the_folds_own_weights_and_lie_in_the_run(runs, capsys):
    made = swinft.export(runs / "classes", 0, "safetensors")
    assert made.paths == [made.weights, made.description]
    assert made.weights == runs / "classes" / "exports" / "fold_0" / "safetensors" / "model.safetensors"
    about = json.loads(made.description.read_bytes())
    own = swinft.open_run(runs / "classes").network(0).state_dict()
    saved = load_file(made.weights)
    assert saved.keys() == own.keys()
    assert all(torch.equal(saved[key], own[key]) for key in own)
    assert about["network"]["head"]["class_path"].endswith(".ClassificationHead")
    made.description.unlink()  # as a kill before the end leaves it
    assert main(words(runs, "classes", "safetensors")) == 0


def test_an_output_that_is_somebody_elses_is_not_overwritten(runs, tmp_path, capsys, monkeypatch):
    path = tmp_path / "m" / "w.safetensors"
    assert main(words(runs, "classes", "timm", path)) == 0
    assert main(words(runs, "classes", "timm", path)) == 0  # its own
    monkeypatch.setattr(Experiment, "network", lambda *_, **__: pytest.fail("before the work"))
    beside = tmp_path / "n" / "other.bin"
    beside.parent.mkdir()
    beside.write_bytes(b"")
    message = refused(capsys, words(runs, "classes", "timm", beside.with_name("w.safetensors")))
    assert "holds other weights (other.bin)" in message
    path.with_name("config.json").write_text("{}")
    assert "config.json: already exists" in refused(capsys, words(runs, "classes", "timm", path))
    path.write_bytes(b"mine")
    message = refused(capsys, words(runs, "classes", "safetensors", path))
    assert "w.safetensors: already exists, and not as `swinft export` wrote it" in message
    assert path.read_bytes() == b"mine"
    assert "is a folder" in refused(capsys, words(runs, "classes", "timm", tmp_path / "m"))
    assert "--to onnx writes .onnx. Name it" in refused(capsys, words(runs, "classes", "onnx", tmp_path / "x.pt"))
    message = refused(capsys, words(runs, "classes", "onnx", path / "x.onnx"))  # inside of a file
    assert "cannot be written to" in message
    assert "--output FILE" in message


def test_what_is_missing_is_said_in_one_line_before_the_work(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Experiment, "network", lambda *_, **__: pytest.fail("before the work"))
    assert "folds [1] of" in refused(capsys, words(runs, "classes", "timm", fold=1))
    assert "--fold names [7], but the run has folds [0, 1]" in refused(capsys, words(runs, "classes", "timm", fold=7))
    assert "--to is missing" in refused(capsys, ["export", str(runs / "classes"), "--fold", "0"])
    assert "there is no run folder" in refused(capsys, words(runs, "clases", "timm"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = refused(capsys, words(runs, "classes", "onnx"))
    assert "pip install 'swinft[export]'" in message
    assert not (runs / "classes" / "exports" / "fold_0" / "onnx").exists()


@pytest.mark.parametrize("to", ["timm", "onnx", "torchscript", "safetensors"])
def test_a_file_that_computes_something_else_is_not_written(runs, tmp_path, capsys, monkeypatch, to):
    """One weight of what is written is off by a thousandth."""
    make = forms.export_net

    def off(net, *given):
        exported = make(net, *given)
        with torch.no_grad():
            net.head.linear.bias[0] += 1e-3
        return exported

    monkeypatch.setattr("swinft.run.export.export_net", off)
    path = tmp_path / f"w{forms.SUFFIXES[to]}"
    message = refused(capsys, words(runs, "classes", to, path))
    assert "of their range in a batch of 1; 1e-05 is allowed. Nothing is written." in message
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_its_images_is_exported_and_says_so(runs, tmp_path, capsys):
    frozen = yaml.safe_load((runs / "classes" / "config.yaml").read_text())
    assert Path(frozen["data"]["root"]).is_dir()
    hidden = Path(frozen["data"]["root"]) / "train.csv"
    hidden.rename(hidden.with_suffix(".away"))
    try:
        assert main(words(runs, "classes", "torchscript", tmp_path / "w.pt")) == 0
    finally:
        hidden.with_suffix(".away").rename(hidden)
    assert "4 random images and none of the fold: " in capsys.readouterr().out


def make_net(name=None, arguments=TINY_SWIN, head=swinft.ClassificationHead, **options):
    torch.manual_seed(0)
    backbone = create_backbone(name or "swin_tiny_patch4_window7_224", SIDE, False, backbone_args=arguments, **options)
    net = ImageModel(backbone, head, num_outputs=3, num_metadata=0, metadata_hidden=8).eval()
    nn.init.normal_(net.head.linear.weight, std=0.3)
    return net


def difference(net, to):
    exported = export_net(net, to, (SIDE, SIDE), ["a", "b", "c"], "crop")
    return check_parity(net, exported, [example_inputs(net, (SIDE, SIDE), size, seed=size) for size in (1, 3)])


class ByCount(swinft.ClassificationHead):
    """Decides by the number of images, which tracing turns into a constant."""

    def decode(self, logits):
        return super().decode(logits if len(logits) == 2 else 1.01 * logits)


class NotANumber(swinft.ClassificationHead):
    def decode(self, logits):
        return super().decode(logits * float("nan"))


def test_predictions_close_to_zero_are_compared_in_the_range_of_all_images():
    """Standardised targets are around 0; rounding is a large part of a prediction that is there by chance."""
    net = make_net(head=swinft.RegressionHead)
    batches = [example_inputs(net, (SIDE, SIDE), size, seed=size) for size in (1, 3)]
    nn.init.zeros_(net.head.shift)
    net.head.shift -= net.predict(*batches[0])[0].detach()
    exported = export_net(net, "onnx", (SIDE, SIDE), ["a", "b", "c"], "crop")
    computed, expected = exported.compute(*batches[0]), exported.expected(*batches[0])
    assert expected.abs().max() < 1e-5 < expected.abs().max() + (computed - expected).abs().max() / TOLERANCE
    assert check_parity(net, exported, batches) <= TOLERANCE


@pytest.mark.parametrize("head", [ByCount, NotANumber])
@pytest.mark.parametrize("to", ["onnx", "torchscript"])
def test_a_head_that_a_graph_cannot_hold_is_refused(head, to):
    with pytest.raises(InputError, match="predictions differ from torch's by "):
        difference(make_net(head=head), to)


def test_a_head_with_its_own_decode_has_no_rule_of_its_base():
    assert _decode_rule(ByCount(4, 3)) == {"rule": "custom", "head": "ByCount"}
    assert _decode_rule(swinft.ClassificationHead(4, 3)) == {"rule": "softmax"}


def test_torch_exports_a_network_for_any_number_of_images():
    net = make_net()
    dynamic = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(net, example_inputs(net, (SIDE, SIDE), 2), dynamic_shapes=dynamic).module()
    images = example_inputs(net, (SIDE, SIDE), 5, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(exported(*images), net(*images))


def test_swin_v2_and_recomputed_activations():
    net = make_net("swinv2_tiny_window8_256", grad_checkpointing=True)
    assert [difference(net, to) <= TOLERANCE for to in ("timm", "onnx", "torchscript")] == [True] * 3


VIT = {"embed_dim": 12, "depth": 2, "num_heads": 2}
V1 = "swin_tiny_patch4_window7_224"
SAYS_WHY = "timm's {} does not compute the same with global_pool='{}': the file holds the backbone"


def pooled_net(name, arguments, pooling, head=swinft.ClassificationHead):
    torch.manual_seed(0)
    backbone = create_backbone(name, SIDE, False, backbone_args=arguments)
    net = ImageModel(backbone, head, 3, 0, 8, pooling=pooling, image_size=(SIDE, SIDE)).eval()
    for parameter in [*net.head.parameters(), *net.pooling.parameters()]:
        if len(parameter) > 1:  # GeM's exponent stays
            nn.init.normal_(parameter, std=0.3)
    return net


@pytest.mark.parametrize(
    ("name", "arguments", "pooling", "note"),
    [
        (V1, TINY_SWIN, "max", ""),
        (V1, TINY_SWIN, "avgmax", ""),
        ("resnet10t", {}, "avg+max", ""),
        ("convnext_atto", CNN, "avg+max", SAYS_WHY.format("convnext_atto", "catavgmax")),
        ("vit_tiny_patch16_224", VIT, "cls", ""),
        (
            "vit_tiny_patch16_224",
            {**VIT, "global_pool": "avg"},
            "cls",
            SAYS_WHY.format("vit_tiny_patch16_224", "token"),
        ),
        (V1, TINY_SWIN, "gem", "the head needs model.pooling GeMPooling, which timm's model does not have"),
    ],
)
def test_a_pooling_that_timm_has_is_in_its_form_and_another_one_is_said(name, arguments, pooling, note):
    net = pooled_net(name, arguments, pooling)
    exported = export_net(net, "timm", (SIDE, SIDE), ["a", "b", "c"], "crop")
    assert exported.output == ("features" if note else "logits")
    assert note in exported.note
    assert bool(note) == bool(exported.note)
    check_parity(net, exported, [example_inputs(net, (SIDE, SIDE), 3, seed=1)])


@pytest.mark.parametrize(
    ("pooling", "head"),
    [
        ("gated_attention", lambda d, k: swinft.ArcFaceHead(d, k, sub_centres=2, embedding=5)),
        ("stages", lambda d, k: swinft.OrdinalHead(d, k, form="coral")),
        ("gem", lambda d, k: swinft.OrdinalRegressionHead(d, k, [0.0, 1, 2, 4])),
        ("max", lambda d, k: swinft.LabelDistributionHead(d, k, 0.0, 10.0, 11)),
        ("avgmax", lambda d, k: swinft.ClassificationHead(d, k, loss="bi_tempered")),
    ],
)
def test_new_heads_and_poolings_compute_the_same_elsewhere(pooling, head):
    net = pooled_net(V1, TINY_SWIN, pooling, head)
    predictions = net.predict(*example_inputs(net, (SIDE, SIDE), 4))
    assert predictions.std(0).max() > 1e-3  # or anything would do
    assert max(difference(net, to) for to in ("onnx", "torchscript")) <= 3 * TOLERANCE  # or `check_parity` refuses it
    compiled = compile_net(net, (SIDE, SIDE))
    assert compiled.deviation <= TOLERANCES["f32"]
    exported = export_net(net, "timm", (SIDE, SIDE), ["a", "b", "c"], "crop")
    is_classifier = isinstance(net.head, swinft.ClassificationHead)
    assert exported.note == ("" if is_classifier else exported.note)
    assert (
        is_classifier
        or "is not one linear layer" in exported.note
        or "which timm's model does not have" in exported.note
    )


def test_transforms_of_targets_are_exported_by_the_faster_exporter(monkeypatch, capfd):
    monkeypatch.setattr(forms, "_by_torch_export", None)

    def head(in_features, num_outputs):
        made = swinft.RegressionHead(in_features, num_outputs, transform=["log1p", "sqrt", "none"])
        made.initialize(torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) * 9)
        return made

    assert difference(pooled_net(V1, TINY_SWIN, "max", head), "onnx") <= TOLERANCE
    assert "graph(" not in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", {"embed_dim": 12, "depth": 2, "num_heads": 2}),
        ("tinynet_e", None),
        ("resnet18", None),
        ("mobilenetv3_small_050", None),
        ("levit_128s", None),
        ("deit_tiny_distilled_patch16_224", {"embed_dim": 12, "depth": 2, "num_heads": 2}),
    ],
)
@pytest.mark.parametrize("to", ["timm", "onnx", "torchscript", "safetensors"])
def test_families(name, arguments, to):
    assert difference(make_net(name, arguments), to) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_torchs_newer_onnx_exporter_takes_over_where_the_older_cannot(name, monkeypatch):
    def gone(*given):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(forms, "_by_trace", gone)
    assert difference(make_net(name), "onnx") <= TOLERANCE
    monkeypatch.setattr(forms, "_by_torch_export", gone)
    with pytest.raises(InputError, match=r"by tracing, no such operator; by torch\.export, no such operator"):
        difference(make_net(name), "onnx")
