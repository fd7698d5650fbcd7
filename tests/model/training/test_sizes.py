"""`model.optim.sizes`: the first epochs are trained on smaller images, by one network."""

import pytest
import torch
from torch.nn import functional

from swinft import ClassificationHead, ComputeConfig, FineTuneTask, OptimConfig
from swinft.cli import main
from swinft.errors import InputError
from swinft.model.training.sizes import SizeStage
from tests.conftest import power_gone_after, tiny_config, with_context, write_config

SWIN_V2 = {"embed_dim": 12, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
PLAIN = ComputeConfig(fast_attention=False)


def task_of(backbone, sizes, arguments=None, size=64, compute=PLAIN, **options):
    torch.manual_seed(0)
    optim = OptimConfig(lr=1e-2, sizes=[SizeStage(*each) for each in sizes])
    given = {"backbone_args": arguments, "pretrained": False, "num_outputs": 3, "image_size": size, "optim": optim}
    return FineTuneTask(**with_context(head=ClassificationHead, backbone=backbone, compute=compute, **given, **options))


@pytest.mark.parametrize(
    ("backbone", "arguments"), [("test_resnet", None), ("swinv2_tiny_window8_256", SWIN_V2), ("test_convnext", None)]
)
def test_an_epoch_is_trained_at_its_size_and_the_network_comes_back(backbone, arguments):
    task = task_of(backbone, [(32, 2), ((48, 32), 1)], arguments)
    sizes = task._sizes
    assert [sizes.size(epoch) for epoch in range(5)] == [(32, 32), (32, 32), (48, 32), (64, 64), (64, 64)]
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    net = task.net.eval()
    before = {name: id(each) for name, each in net.named_parameters()}
    with torch.no_grad():
        plain = net(images)
        assert sizes.shrink(images) is images
        assert sizes.set(0)
        assert not sizes.set(1)
        small = sizes.shrink(images)
        wanted = functional.interpolate(images.float(), (32, 32), mode="bilinear", antialias=True)
        assert torch.equal(small, wanted)
        assert not torch.allclose(net(small), plain)
        assert sizes.set(2)
        assert net(sizes.shrink(images)).shape == plain.shape
        assert sizes.set(None)
        assert torch.equal(net(images), plain)
    assert {name: id(each) for name, each in net.named_parameters()} == before
    views = images[:, None].expand(2, 5, 3, 64, 64)
    sizes.set(0)
    assert torch.equal(sizes.shrink(views)[:, 4], small)


def test_windows_divide_the_grids_of_every_size():
    task = task_of("swinv2_tiny_window8_256", [(48, 1)], SWIN_V2)
    blocks = [stage.blocks[1] for stage in task.net.backbone.model.layers]
    assert [tuple(block.window_size) for block in blocks] == [(4, 4), (4, 4)]
    task._sizes.set(0)
    for block, grid in zip(blocks, (12, 6), strict=True):
        assert block.input_resolution == (grid, grid)
        assert grid % block.window_size[0] == 0
        assert block.window_size[0] == (4 if grid == 12 else 3)
        assert block.attn.relative_position_index.numel() == block.window_area**2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backbone": "test_resnet", "sizes": [(96, 1)]}, "96 x 96 px, more than data.image_size"),
        ({"backbone": "test_resnet", "sizes": [(0, 1)]}, "size is .* Allowed: a number from 1"),
        ({"backbone": "vit_tiny_patch16_224", "sizes": [(96, 1)], "size": 160}, "does not work at it with the weights"),
        (
            {"backbone": "swin_tiny_patch4_window7_224", "sizes": [(48, 1)], "arguments": SWIN_V2},
            "'layers.1.blocks.0.attn.relative_position_bias_table' would have another shape",
        ),
        (
            {
                "backbone": "swinv2_tiny_window8_256",
                "sizes": [(32, 1)],
                "arguments": SWIN_V2,
                "compute": ComputeConfig(),
            },
            "fast_attention and compile cannot: set both to false",
        ),
    ],
)
def test_sizes_that_cannot_be_had_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        task_of(**given)


@pytest.mark.parametrize("backbone", ["test_resnet", "swinv2_tiny_window8_256"])
def test_a_run_over_sizes_resumes_to_the_same_bytes_and_differs_from_one_size(backbone, competition, tmp_path, capsys):
    def fitted(name, *options, **changes):
        given = {"data.image_size": 64, "trainer.max_epochs": 3, "model.backbone": backbone}
        given |= {"model.backbone_args": SWIN_V2 if "swin" in backbone else None, "model.compute.fast_attention": False}
        config = write_config(
            tmp_path / f"{name}.yaml", tiny_config(competition, tmp_path / "runs", name=name, **given, **changes)
        )
        assert main(["fit", "--config", str(config), "--fold", "0", *options]) == 0
        fold = tmp_path / "runs" / name / "fold_0"
        return [(fold / file).read_bytes() for file in ("weights.safetensors", "oof.csv")]

    sizes = {"model.optim.sizes": [{"size": 32, "epochs": 1}, {"size": [48, 48], "epochs": 1}]}
    whole = fitted("whole", **sizes)
    with power_gone_after(1):
        fitted("again", **sizes)
    assert fitted("again", "--resume", **sizes) == whole
    if backbone == "test_resnet":
        assert fitted("one") != whole
        sizes["model.optim.sizes"][1]["epochs"] = 2
        changes = {**sizes, "model.backbone": backbone, "model.backbone_args": None, "data.image_size": 64}
        config = tiny_config(competition, tmp_path, **changes, **{"trainer.max_epochs": 3})
        assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
        assert "3 epochs at smaller sizes, and training takes 3: none would be left" in capsys.readouterr().err
