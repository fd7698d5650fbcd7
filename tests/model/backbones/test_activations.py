"""One activation for any backbone: the MLPs of a network, counted; weights and equal activations change nothing."""

import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from swinft.errors import InputError
from swinft.model.backbones.activations import activations, replace_activations
from swinft.model.backbones.timm_backbone import create_backbone
from tests.conftest import TINY_SWIN

V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
NARROW = {**TINY_SWIN, "depths": (2, 1)}
MLPS = [  # name, its arguments, number of its MLPs
    (V1, NARROW, 3),
    (V2, NARROW, 3),
    ("swin_mlp_tiny_c24_patch4_window8_256", NARROW, 3),
    ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 12, "num_heads": 2}, 2),
    ("beit_base_patch16_224", {"depth": 2, "embed_dim": 12, "num_heads": 2}, 2),  # timm's model takes no name
    ("tnt_s_legacy_patch16_224", {"depth": 2}, 4),  # inner and outer
]


def made(name: str, arguments: dict, **more) -> nn.Module:
    torch.manual_seed(0)
    size = 224 if "patch16" in name else 32
    model = create_backbone(name, size, False, backbone_args={**arguments, **more}).model.eval()
    for parameter in model.parameters():  # V2's norms start at 0, behind which nothing is seen
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    return model


def kinds(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(type(module) is kind for module in model.modules())


@pytest.mark.parametrize(("name", "arguments", "mlps"), MLPS)
def test_one_key_sets_the_activation_of_every_mlp_and_no_weight(name, arguments, mlps):
    gelu, elu = made(name, arguments), made(name, arguments, act_layer="elu")
    assert (kinds(gelu, nn.ELU), kinds(elu, nn.ELU)) == (0, mlps)
    assert kinds(elu, nn.ReLU) == kinds(gelu, nn.ReLU)  # of V2's position bias
    state = gelu.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in elu.state_dict().items())
    image = torch.randn(1, 3, *(gelu.patch_embed.img_size if hasattr(gelu, "patch_embed") else (224, 224)))
    swapped = copy.deepcopy(gelu)
    assert replace_activations(swapped, "elu") == mlps == len(activations(gelu))
    with torch.inference_mode():
        assert torch.equal(swapped(image), elu(image))
        assert not torch.allclose(swapped(image), gelu(image), atol=1e-6)
        replace_activations(swapped, "gelu")
        assert torch.equal(swapped(image), gelu(image))  # equal activations, equal outputs


def test_gates_keep_theirs():
    model = timm.create_model("efficientnet_b0", num_classes=0)
    gates = [module for name, module in model.named_modules() if ".se." in name and isinstance(module, nn.SiLU)]
    found = len(activations(model))
    assert len(gates) == 16
    assert replace_activations(model, "relu") == found == kinds(model, nn.ReLU)
    assert kinds(model, nn.SiLU) == kinds(model, nn.Sigmoid) == 16


def test_weights_with_another_activation_load_and_those_of_another_model_do_not(tmp_path):
    file = tmp_path / "published.safetensors"
    save_file(timm.create_model(V1, img_size=32, num_classes=5, **NARROW).state_dict(), file)
    loaded = create_backbone(V1, 32, str(file), backbone_args={**NARROW, "act_layer": "relu"}).model
    assert kinds(loaded, nn.ReLU) == 3
    saved = timm.models.load_state_dict(str(file))
    assert all(torch.equal(tensor, saved[key]) for key, tensor in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (V1, {"act_layer": "rellu"}, r"act_layer is 'rellu'; it must be one of relu, .*Did you mean 'relu'\?"),
        (V1, {"act_layer": 3}, "act_layer is 3; it must be one of relu"),
        (V1, {"act_layer": "prelu"}, "act_layer is 'prelu'; it must be one of relu"),  # it has weights
        (V1, {"act_layer": "relu", "depth": 3}, "timm cannot build .* unexpected keyword argument 'depth'"),
        ("swin_mlp_tiny_c24_patch4_window8_256", {"qkv_bias": True}, "no attention, and got an argument of it: qkv_b"),
    ],
)
def test_what_cannot_be_is_an_error(name, arguments, message):
    with pytest.raises(InputError, match=message):
        create_backbone(name, 224, False, backbone_args=arguments)
