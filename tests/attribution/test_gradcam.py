"""Grad-CAM against the definition, written out; and for every layout of a backbone's features."""

import pytest
import torch
from torch.nn import functional

from swinft import SegmentationHead
from swinft.attribution.gradcam import gradcam, gradcam_maps
from swinft.attribution.layers import layer_names
from swinft.errors import InputError
from swinft.model.attention.swin import accelerate
from tests.attribution.networks import SHIFTED_SWIN, SWIN, TINY_VIT, images_of, net_of

IMAGES = images_of()


def normalised(net, images):
    return (images.float() - net.backbone.mean) / net.backbone.std


def by_hand(net, images, output, activations, rest):
    """The definition: activations (B, C, h, w), weighted by the means of their gradients, at the images' size."""
    activations = activations.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(rest(activations)[:, output].sum(), activations)
    coarse = (activations * gradient.mean((2, 3), keepdim=True)).sum(1).relu()
    full = functional.interpolate(coarse[:, None], images.shape[-2:], mode="bilinear")[:, 0]
    return (full / full.flatten(1).amax(1).view(-1, 1, 1)).detach()


def test_it_is_the_definition_for_a_cnn():
    net = net_of("resnet10t", {}, 64)
    images = images_of(3, 64)
    model = net.backbone.model
    expected = by_hand(
        net,
        images,
        1,
        model.forward_features(normalised(net, images)),
        lambda features: net.head(model.forward_head(features)),
    )
    found = gradcam(net, images, 1)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.flatten(1).amax(1).tolist() == [1, 1, 1]
    assert found.flatten(1).std(1).min() > 0.1  # not flat, of which anything would be a copy


def test_of_a_swin_with_a_linear_head_it_is_the_class_activation_map():
    net = net_of(arguments=SHIFTED_SWIN, side=64)
    images = images_of(2, 64)
    features = net.backbone.model.forward_features(normalised(net, images))  # (B, 8, 8, C), a stage less than Swin-T
    cam = (features @ net.head.linear.weight.T)[..., 2].relu()
    full = functional.interpolate(cam[:, None], (64, 64), mode="bilinear")[:, 0]
    expected = full / full.flatten(1).amax(1).view(-1, 1, 1)
    assert torch.allclose(gradcam(net, images, [2, 2], layer="final"), expected.detach(), atol=1e-5)
    assert gradcam_maps(net, images, [2, 2])[1] == "layers.1"  # before the norm, which makes all tokens equally long


def test_a_vit_that_reads_its_class_token_is_explained_by_an_earlier_block():
    net = net_of("vit_tiny_patch16_224", TINY_VIT)
    model = net.backbone.model
    found, layer = gradcam_maps(net, IMAGES, 0)
    assert layer == "blocks.1"  # its last block, 2, changes no position that is read

    tokens = {}
    handle = model.blocks[1].register_forward_hook(lambda *given: tokens.update(x=given[2]))
    with torch.no_grad():
        net(IMAGES)
    handle.remove()
    x = tokens["x"].requires_grad_()
    logits = net.head(model.forward_head(model.norm(model.blocks[2](x))))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
    coarse = (x[:, 1:] * gradient[:, 1:].mean(1, keepdim=True)).sum(2).relu().view(-1, 1, 4, 4)
    expected = functional.interpolate(coarse, (32, 32), mode="bilinear")[:, 0]
    assert expected.max() > 0
    assert torch.allclose(found, expected, atol=1e-7)


def test_each_row_has_its_own_output_and_its_own_map():
    net = net_of(arguments=SHIFTED_SWIN)
    both = gradcam(net, IMAGES, torch.tensor([2, 0]))
    for row, output in enumerate([2, 0]):
        assert torch.allclose(both[row], gradcam(net, IMAGES[[row]], output)[0], atol=1e-5)
    assert not torch.allclose(both[0], gradcam(net, IMAGES, 0)[0], atol=0.05)
    predicted = net(IMAGES).argmax(1)
    assert torch.equal(gradcam(net, IMAGES), gradcam(net, IMAGES, predicted))


def test_the_fast_attention_gives_the_same_map():
    net = net_of(arguments=SHIFTED_SWIN)
    slow = gradcam(net, IMAGES, 1, layer="layers.0")
    assert accelerate(net) == 4
    assert torch.allclose(gradcam(net, IMAGES, 1, layer="layers.0"), slow, atol=1e-4)


def test_every_image_of_a_row_has_its_map():
    net, single = net_of(images=3), net_of()
    single.load_state_dict(net.state_dict())
    images, mask = images_of(2, 32, 3), torch.tensor([[1, 1, 1], [0, 1, 0]]).bool()
    by_output = [gradcam(net, images, output, image_mask=mask) for output in range(3)]  # random: a map may be empty
    output, found = next(each for each in enumerate(by_output) if each[1].flatten(1).any(1).all())
    assert found.shape == (2, 3, 32, 32)
    assert found[1, [0, 2]].count_nonzero() == 0
    assert found.flatten(1).amax(1).tolist() == [1, 1]  # of the row, so that its images can be compared
    alone = gradcam_maps(single, images[0], output)[0]  # the mean of three embeddings: a third of each map
    assert torch.allclose(found[0], alone / alone.max(), atol=1e-5)


def test_masks_of_segmentation_are_explained_by_their_mean_logit():
    net = net_of("resnet10t", {}, (40, 72), SegmentationHead, 2)
    images = images_of(2, (40, 72))
    with torch.no_grad():
        net.head.last.bias -= net(images)[:, 1].median()  # the mask of half of the pixels
    found, layer = gradcam_maps(net, images, 1)
    assert found.shape == (2, 40, 72)  # the backbone sees 64 × 96
    assert layer == "layer4"
    assert (found.flatten(1).amax(1) > 0).all()

    model, stages = net.backbone.model, {}
    handle = model.layer4.register_forward_hook(lambda *given: stages.update(x=given[2]))
    logits = net(images)
    handle.remove()
    mask = logits.detach()[:, 1] >= 0
    assert 0 < mask.float().mean() < 1
    inside = torch.stack([logits[row, 1][mask[row]].mean() for row in range(2)])
    (gradient,) = torch.autograd.grad(inside.sum(), stages["x"])
    coarse = (stages["x"] * gradient.mean((2, 3), keepdim=True)).sum(1).relu()
    full = functional.interpolate(coarse[:, None], (64, 96), mode="bilinear")[:, 0, :40, :72]
    assert torch.allclose(found, full.detach(), atol=1e-6 + 1e-4 * float(full.detach().max()))


def test_a_network_is_left_as_it_was():
    net = net_of(SWIN, SHIFTED_SWIN)
    model = net.backbone.model
    model.set_grad_checkpointing(True)
    net.train()
    with torch.inference_mode():
        found = gradcam(net, IMAGES, 1)
    assert net.training
    assert model.layers[0].blocks[0].training
    assert "forward_features" not in vars(model)
    assert not any(module._forward_hooks for module in net.modules())
    assert all(stage.grad_checkpointing for stage in model.layers)
    assert all(parameter.grad is None for parameter in net.parameters())
    model.set_grad_checkpointing(False)
    assert torch.equal(found, gradcam(net.eval(), IMAGES, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("convnext_atto", "final"),
        ("swinv2_cr_tiny_224", "stages.3"),
        ("vit_relpos_small_patch16_224", "final"),
        ("deit_tiny_distilled_patch16_224", "blocks.10"),
        ("mixer_s32_224", "blocks.7"),
        ("densenet121", "final"),
        ("hrnet_w18_small", "final"),
        ("coatnet_0_rw_224", "stages.3"),
        ("xcit_nano_12_p16_224", "blocks.11"),
        ("cait_xxs24_224", "blocks.23"),
        ("pvt_v2_b0", "stages.3"),
        ("twins_svt_small", "final"),
        ("tf_efficientnet_lite0", "final"),
        ("fastvit_t8", "final"),
        ("vit_tiny_r_s16_p8_224", "blocks.10"),
        ("levit_128s", "final"),
        ("vgg11", "final"),
        ("focalnet_tiny_srf", "layers.3"),
    ],
)
def test_every_family_has_a_layer(name, layer):
    side = 224 if "_224" in name or "hrnet" in name else 128
    net = net_of(name, {}, side)
    found, used = gradcam_maps(net, images_of(1, side), 1)
    assert used == layer
    assert found.shape == (1, side, side)
    assert found.isfinite().all()


def test_what_cannot_be_explained_is_an_error():
    net = net_of()
    with pytest.raises(
        InputError, match=r"no layer 'layer\.1'\. Did you mean 'layers\.1'.*layers\.0, layers\.1, final"
    ):
        gradcam(net, IMAGES, 1, layer="layer.1")
    with pytest.raises(InputError, match="one number from 0 to 2 for each of 2 rows"):
        gradcam(net, IMAGES, [0, 3])
    with pytest.raises(InputError, match="one number from 0 to 2 for each of 2 rows"):
        gradcam(net, IMAGES, [0])
    tiny = net_of("resnet10t", {}, 32)
    assert layer_names(tiny.backbone.model)[-1] == "final"
    assert gradcam_maps(tiny, IMAGES, 1)[1] == "layer3"  # the last grid is a single position
    with pytest.raises(InputError, match=r"final has no grid \(\(2, 512, 1, 1\)\)"):
        gradcam(tiny, IMAGES, 1, layer="final")
