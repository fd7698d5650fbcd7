"""Backbones: any timm model, any size, real weights."""

import importlib.util

import pytest
import timm
import torch
from safetensors.torch import save_file

from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import create_backbone
from tests.conftest import ROOT, TINY_SWIN

SWIN = "swin_tiny_patch4_window7_224"


def windows(backbone) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Grid and window of every Swin block."""
    return [(m.input_resolution, m.window_size) for m in backbone.model.modules() if hasattr(m, "shift_size")]


def test_features_are_timms_with_its_own_normalisation():
    backbone = create_backbone("resnet18", 64, pretrained=False).eval()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    cfg = timm.get_pretrained_cfg("resnet18")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (cfg.mean, cfg.std))
    expected = backbone.model((image / 255 - mean) / std)
    torch.testing.assert_close(backbone(image), expected, atol=1e-4, rtol=1e-4)
    assert backbone(image).shape == (2, backbone.num_features)
    assert not any("mean" in name and "running" not in name for name in backbone.state_dict())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("swin_tiny_patch4_window7_224", 27_519_354),
        ("swin_small_patch4_window7_224", 48_837_258),
        ("swin_base_patch4_window7_224", 86_743_224),
    ],
)
def test_parameter_counts_are_the_published_ones(name, parameters):
    assert sum(p.numel() for p in create_backbone(name, pretrained=False).parameters()) == parameters


@pytest.mark.parametrize("size", [192, 224, 240, 256, 288, 384, (320, 224)])
@pytest.mark.parametrize("name", [SWIN, "swinv2_tiny_window8_256"])
def test_every_window_divides_its_grid(name, size):
    backbone = create_backbone(name, size, pretrained=False, backbone_args={"embed_dim": 24})
    found = windows(backbone)
    assert len(found) == 12
    assert all(grid[axis] % window[axis] == 0 for grid, window in found for axis in (0, 1))


@pytest.mark.parametrize(("size", "window"), [(224, 7), (256, 8), (384, 12)])
def test_windows_grow_with_the_image_as_the_authors_grow_them(size, window):
    assert {w for _, w in windows(create_backbone(SWIN, size, False, backbone_args={"embed_dim": 24}))} == {
        (window, window)
    }


def test_opposite_edges_do_not_attend_to_each_other():
    # One pair of blocks, plain and shifted, at a size where timm's own window of 7 would pad a grid of 60.
    args = {"embed_dim": 24, "depths": [2], "num_heads": [2]}
    backbone = create_backbone(SWIN, 240, pretrained=False, backbone_args=args).eval().double()
    image = torch.rand(1, 3, 240, 240, dtype=torch.double, requires_grad=True)
    native = timm.create_model(SWIN, img_size=240, num_classes=0, **args).eval().double()

    def rows_seen_by_the_last(model) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(model.forward_features(image)[0, -1].sum(), image)  # features are NHWC
        by_row = gradient.abs().sum((0, 1, 3)).reshape(60, 4).sum(1)
        return (by_row > 1e-20 * by_row.max()).nonzero().flatten()  # the mask is -100: e^-100 is not quite nothing

    assert rows_seen_by_the_last(native).min() == 0  # what the chosen windows protect from
    assert rows_seen_by_the_last(backbone.model).tolist() == list(range(54, 60))


def test_a_given_window_is_honoured_or_refused():
    found = windows(create_backbone(SWIN, 64, False, backbone_args={**TINY_SWIN, "window_size": 4}))
    assert [window for _, window in found] == [(4, 4), (4, 4)]
    with pytest.raises(InputError, match=r"256 x 256 px into windows of 7 .* Sizes that work: .*224"):
        create_backbone(SWIN, 256, False, backbone_args={"window_size": 7})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "swin_tiny_patch4_windw7_224"}, "Did you mean 'swin_tiny_patch4_window7_224'"),
        ({"name": SWIN, "image_size": 236}, "236 x 236 px .* Sizes that work: .*240"),
        ({"name": "vit_tiny_patch16_224", "image_size": 250}, "no multiple of the 16 px patches .* Set 240 or 256"),
        ({"name": "resnet18", "backbone_args": {"embed_dim": 3}}, "embed_dim"),
        ({"name": "resnet18", "backbone_args": {"window_size": 3}}, "unexpected keyword argument 'window_size'"),
        ({"name": "resnet18", "pretrained": "nowhere.pth"}, "no file 'nowhere.pth'"),
        ({"name": "swin_s3_tiny_224.ms_1k", "pretrained": True}, r"Did you mean 'swin_s3_tiny_224\.ms_in1k'"),
        ({"name": "coatnet_0_224", "pretrained": True}, "timm knows no weights of 'coatnet_0_224'"),
        ({"name": "resnet18", "pretrained": True}, "Download model.safetensors of 'timm/resnet18"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-",
)
def test_what_cannot_work_says_what_would(arguments, message):
    with pytest.raises(InputError, match=message):
        create_backbone(**{"pretrained": False, **arguments})


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_local_file_loads_back_equal(suffix, tmp_path):
    args = {**TINY_SWIN, "window_size": 4}
    source = timm.create_model(SWIN, img_size=64, num_classes=7, **args)  # with a head of its own, which is left out
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": source.state_dict()}, path)
    else:
        save_file(source.state_dict(), path)
    backbone = create_backbone(SWIN, 64, str(path), backbone_args=args).eval()
    image = torch.rand(2, 3, 64, 64)
    expected = source.eval().forward_head(source.forward_features(image), pre_logits=True)
    torch.testing.assert_close(backbone.model(image), expected)


def test_a_file_of_another_model_is_refused(tmp_path):
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not contain"):
        create_backbone("resnet34", 64, str(tmp_path / "other.safetensors"))


def test_a_pickle_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"state_dict": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth"):
        create_backbone("resnet18", 64, str(tmp_path / "evil.pth"))
    assert not (tmp_path / "owned").exists()


def lite0(path):
    """The converter, which is a script and no module of the package."""
    spec = importlib.util.spec_from_file_location("convert_lite0", ROOT / "benchmarks" / "convert_lite0.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.convert(path)


def test_real_imagenet_weights_tell_the_climates_apart(tmp_path):
    """A linear read-out of frozen features on the demo's tiles: far above chance only with the right weights."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from swinft import CSVDataModule

    backbone = create_backbone("tf_efficientnet_lite0", 128, str(lite0(tmp_path / "lite0.safetensors"))).eval()
    data = CSVDataModule(
        root=str(ROOT / "competitions" / "bluemarble"), train="train.csv", image="images/{image}", target="climate",
        target_kind="classification", folds={"num": 2}, image_size=128, augment="none",
    )  # fmt: skip
    data.setup("fit")
    features, rows = [], []
    with torch.inference_mode():
        for fold in (0, 1):
            data.fold = fold
            for batch in data.val_dataloader():
                features.append(backbone(batch["image"]))
                rows.append(batch["row"])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    accuracy = cross_val_score(probe, torch.cat(features).numpy(), data.targets[torch.cat(rows).numpy()], cv=5).mean()
    assert accuracy > 0.6, accuracy
