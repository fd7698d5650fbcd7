"""Backbones: what timm builds is built, what timm loads is loaded, and what cannot train is refused before a run begins."""

import importlib
import json

import pytest
import timm
import torch
from safetensors.torch import save_file

import swinft
from swinft import ClassificationHead, FineTuneTask
from swinft.cli import main
from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.trial import try_step
from tests.conftest import ROOT, tiny_config, write_config


def native_weights(name, tmp_path, **arguments):
    """A file of the weights as timm publishes them, with the classifier."""
    torch.manual_seed(0)
    file = tmp_path / f"{name}.safetensors"
    state = timm.create_model(name, **arguments).state_dict()
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, file)
    return file


@pytest.mark.parametrize("name", ["caformer_s18", "levit_128s", "repvit_m1", "tf_efficientnet_lite0", "resnet18"])
def test_f095_a_published_file_loads_with_whatever_classifier_it_has(name, tmp_path):
    file = native_weights(name, tmp_path)
    backbone = create_backbone(name, 224, pretrained=str(file))
    kept = backbone.model.state_dict()
    saved = timm.create_model(name)
    saved.load_state_dict(timm.models.load_state_dict(str(file)))
    assert all(torch.equal(kept[key], tensor) for key, tensor in saved.state_dict().items() if key in kept)
    assert len(kept) < len(saved.state_dict())


def test_f095_a_file_with_more_than_the_model_and_its_classifier_is_refused(tmp_path):
    file = native_weights("resnet18", tmp_path)
    state = timm.models.load_state_dict(str(file)) | {"layer9.0.weight": torch.zeros(1)}
    save_file(state, file)
    with pytest.raises(InputError, match=r"Not known to the model: layer9\.0\.weight"):
        create_backbone("resnet18", 224, pretrained=str(file))


@pytest.mark.parametrize(
    ("name", "size"), [("xcit_nano_12_p16_224", 224), ("pvt_v2_b0", 256), ("xcit_nano_12_p8_224", 200)]
)
def test_f096_an_overlapping_stem_is_no_grid_of_patches(name, size):
    backbone = create_backbone(name, size, pretrained=False).eval()
    with torch.inference_mode():
        assert backbone(torch.zeros(1, 3, size, size)).shape == (1, backbone.num_features)


def test_f096_a_model_that_pads_its_patches_takes_any_size():
    dynamic = {"dynamic_img_size": True, "dynamic_img_pad": True, "depth": 1}
    backbone = create_backbone("vit_tiny_patch16_224", 50, False, backbone_args=dynamic).eval()
    with torch.inference_mode():
        assert backbone(torch.zeros(1, 3, 50, 50)).shape == (1, backbone.num_features)
    with pytest.raises(InputError, match="no multiple of the 16 px patches"):
        create_backbone("vit_tiny_patch16_224", 50, False, backbone_args={"depth": 1})


@pytest.mark.parametrize("name", ["coat_lite_tiny", "gcvit_xxtiny", "convit_tiny", "pit_ti_224", "nest_tiny"])
def test_f097_a_family_of_one_size_is_built_for_another(name):
    backbone = create_backbone(name, 256, pretrained=False).eval()
    with torch.inference_mode():
        assert backbone(torch.zeros(1, 3, 256, 256)).shape == (1, backbone.num_features)


def test_f097_weights_that_do_not_fit_the_size_are_refused_and_never_left_out(tmp_path):
    file = native_weights("gmlp_ti16_224", tmp_path)
    with pytest.raises(InputError, match="is made for 224 px and is not available at 256 x 256 px"):
        create_backbone("gmlp_ti16_224", 256, pretrained=str(file))
    assert create_backbone("gmlp_ti16_224", 224, pretrained=str(file)).num_features


def test_f098_averaged_buffers_may_change_their_shape():
    task = FineTuneTask(ClassificationHead, "convit_tiny", False, ema_decay=0.9, num_outputs=2)
    targets = torch.tensor([0, 1])
    task.initialize(targets)
    try_step(task, targets, None, (224, 224), 2)


REFUSED = {
    "one row in BatchNorm": ({"backbone": "resnet18", "backbone_args": None}, {"batch_size": 1}, "in batches of 1"),
    "another number of channels": ({"backbone_args": {"in_chans": 1}}, {}, "data.image its channels"),
    "a size of its own": ({"backbone_args": {"img_size": 64}}, {}, "data.image_size its size"),
    "a file of weights": ({"backbone_args": {"checkpoint_path": "nope.pth"}}, {}, "contains checkpoint_path"),
    "many features": ({"backbone_args": {"features_only": True}}, {}, "contains features_only"),
    "no pooling": (
        {"backbone": "resnet18", "backbone_args": {"global_pool": ""}}, {}, "returns features (2, 512, 1, 1) for 2 images",
    ),
    "arguments of the backbone before": (
        {"backbone": "convnext_tiny"}, {}, "To build it without them, remove model.backbone_args (--model.backbone_args null)",
    ),
    "a size that it cannot do": (
        {"backbone": "inception_v3", "backbone_args": None}, {}, "'inception_v3' cannot work at 32 x 32 px",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("command", ["check", "fit"])
def test_f099_f100_f101_what_cannot_train_is_found_before_anything_is_made(
    case, command, competition, tmp_path, capsys
):
    model, data, message = REFUSED[case]
    changes = {f"model.{key}": value for key, value in model.items()} | {f"data.{k}": v for k, v in data.items()}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main([command, "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs" / "tiny").exists()


@pytest.mark.parametrize("pool", ["catavgmax", "avgmax", "max"])
def test_f099_poolings_that_widen_or_not_train(pool, competition, tmp_path):
    arguments = {"global_pool": pool, "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    changes = {"model.backbone": "resnet18", "model.backbone_args": arguments, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0


def test_f099_a_window_of_two_sides_is_taken():
    arguments = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": (4, 4)}
    backbone = create_backbone("swin_tiny_patch4_window7_224", 64, False, backbone_args=arguments)
    assert {m.window_size for m in backbone.model.modules() if hasattr(m, "shift_size")} == {(4, 4)}


@pytest.fixture
def sweep(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("families")


def test_every_family_of_timm_is_in_the_committed_table(sweep):
    table = json.loads((ROOT / "benchmarks" / "results" / "families.json").read_text())["families"]
    assert set(table) == set(sweep.MODELS)
    assert not sweep.families() - set(table), "timm has new families: give each a model in benchmarks/families.py"
    for family, row in table.items():
        assert row["at native"] == "works", family
        assert row["native is true"], family
        assert row["other is true"], family
        assert len(row["at other"].splitlines()) == 1, family


@pytest.mark.slow
def test_every_family_does_what_the_committed_table_says(sweep):
    table = json.loads((ROOT / "benchmarks" / "results" / "families.json").read_text())["families"]
    for family, row in table.items():
        found = sweep.row(family)
        for key in ("at native", "at other"):
            assert (found[key] == "works") == (row[key] == "works"), (family, found)


def test_swin_mixer_and_another_activation_train_and_are_exported_where_timm_is_not_needed(
    competition, tmp_path, capsys
):
    small = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    for name, backbone, arguments in (
        ("mixer", "swin_mlp_tiny_c24_patch4_window8_256", small),
        ("relu", "swin_tiny_patch4_window7_224", {**small, "act_layer": "relu"}),
    ):
        changes = {"model.backbone": backbone, "model.backbone_args": arguments, "trainer.max_epochs": 1}
        config = tiny_config(competition, tmp_path, name=name, **changes)
        assert main(["fit", "--config", str(write_config(tmp_path / f"{name}.yaml", config)), "--fold", "0"]) == 0
        run = swinft.open_run(tmp_path / name)
        assert run.config["model"]["backbone_args"] == arguments
        kinds = {type(module).__name__ for module in run.network(0).backbone.modules()}
        assert kinds & {"SwinMLPBlock", "ReLU", "GELU"} == ({"ReLU"} if name == "relu" else {"SwinMLPBlock", "GELU"})
        assert main(["export", str(run.folder), "--fold", "0", "--to", "timm"]) == 2
        assert main(["export", str(run.folder), "--fold", "0", "--to", "safetensors"]) == 0
    errors = capsys.readouterr().err
    assert "timm without swinft has no model 'swin_mlp_tiny_c24_patch4_window8_256'" in errors
    assert "timm's 'swin_tiny_patch4_window7_224' cannot be built with the activation 'relu'" in errors
