"""Receptive fields: by windows against gradients of the same network, and of a ResNet against its kernels and strides."""

import pytest

from swinft.architecture.inspected import inspected
from swinft.architecture.options import InspectOptions

TINY = {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
SIZES = [("", 64, 96, "swinft"), ("", 40, 40, "img_size"), ("v2", 72, 56, "img_size")]


def fields(name, **options):
    ((found,), _) = inspected([], [name], InspectOptions(**options))
    return {part.name: part.field and (part.field.height, part.field.width) for part in found.parts}, found


@pytest.mark.parametrize(("version", "height", "width", "sizing"), SIZES)
def test_of_shifted_windows_it_is_where_the_gradient_is_not_zero(version, height, width, sizing):
    name = f"swin{version}_tiny_{'window8_256' if version else 'patch4_window7_224'}"
    given = {"image_size": [height, width], "backbone_args": TINY, "sizing": sizing, "classes": 0}
    derived, found = fields(name, **given)
    assert found.parts[1].field.how == "windows"
    measured, found = fields(name, **given, receptive_field="gradient")
    assert found.parts[1].field.how == "gradient"
    assert derived == measured


def test_of_a_resnet_it_follows_from_kernels_and_strides():
    found, _ = fields("resnet10t", image_size=128, classes=0)
    # Kernel and stride of every convolution and pooling on the longest way.
    layers = {"stem": [(3, 2), (3, 1), (3, 1)], "stage 1": [(3, 2), (3, 1), (3, 1)]}
    layers |= {f"stage {number}": [(3, 2), (3, 1)] for number in (2, 3)}
    size, jump, expected = 1, 1, {}
    for name, each in layers.items():
        for kernel, stride in each:
            size, jump = size + (kernel - 1) * jump, jump * stride
        expected[name] = (size, size)
    assert {name: found[name] for name in layers} == expected


def test_attention_among_all_tokens_sees_the_whole_image():
    found, architecture = fields("vit_tiny_patch16_224", classes=0)
    assert found["stage 1"] == (224, 224)
    assert architecture.parts[1].field.is_whole
    assert found["stem"] == (16, 16)
