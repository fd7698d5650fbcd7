"""Integrated gradients and occlusion: the completeness of the first, a plain loop for the second; captum's Grad-CAM."""

import pytest
import torch
from captum.attr import LayerGradCam
from torch.nn import functional

from swinft import RegressionHead, SegmentationHead
from swinft.attribution.baselines import baseline_of
from swinft.attribution.gradcam import gradcam_maps
from swinft.attribution.integrated import integrated_gradients
from swinft.attribution.occlusion import occlusion, starts
from swinft.errors import InputError
from tests.attribution.networks import SHIFTED_SWIN, images_of, net_of

IMAGES = images_of()


def test_gradcam_is_that_of_captum():
    for net, images, layer in (
        (net_of("resnet10t", {}, 64), images_of(2, 64), "layer4"),
        (net_of(arguments=SHIFTED_SWIN), IMAGES, "layers.0"),
    ):
        module = net.backbone.model.get_submodule(layer)
        is_last = layer.startswith("layers")
        found = LayerGradCam(net, module).attribute(images.float(), 1, relu_attributions=not is_last)
        if is_last:  # captum takes the dimension of channels to be the second one
            activations, gradients = activations_of(net, module, images)
            found = (activations * gradients.mean((1, 2), keepdim=True)).sum(3)[:, None].relu()
        full = functional.interpolate(found, images.shape[-2:], mode="bilinear")[:, 0]
        assert full.max() > 0
        assert torch.allclose(
            gradcam_maps(net, images, 1, layer=layer)[0], full.detach(), atol=1e-6 + 1e-4 * float(full.detach().max())
        )


def activations_of(net, module, images):
    kept = {}
    handle = module.register_forward_hook(lambda *given: kept.update(x=given[2]))
    score = net(images)[:, 1].sum()
    handle.remove()
    return kept["x"].detach(), torch.autograd.grad(score, kept["x"])[0]


@pytest.mark.parametrize("baseline", ["mean", "blur"])
def test_contributions_sum_to_the_difference_from_the_baseline(baseline):
    net = net_of(arguments=SHIFTED_SWIN)
    found = integrated_gradients(net, IMAGES, [0, 2], baseline=baseline, steps=64)
    with torch.no_grad():
        start = baseline_of(net, IMAGES, baseline)
        change = torch.stack([net(IMAGES)[row, k] - net(start)[row, k] for row, k in enumerate([0, 2])])
    assert torch.allclose(found.maps.flatten(1).sum(1), change, atol=0.03 * float(change.abs().max()))
    assert torch.allclose(found.completeness_error, (found.maps.flatten(1).sum(1) - change).abs(), atol=1e-5)
    few = integrated_gradients(net, IMAGES, [0, 2], baseline=baseline, steps=2)
    assert few.completeness_error.max() > found.completeness_error.max()


def test_numbers_are_explained_in_their_units():
    net = net_of("resnet10t", {}, 64, RegressionHead, 1)
    images = images_of(1, 64)
    net.head.scale.fill_(20.0)
    net.head.shift.fill_(50.0)
    found = integrated_gradients(net, images, 0, steps=4)
    assert float(found.score[0]) == pytest.approx(float(net.predict(images).detach()[0, 0]), rel=1e-5)
    falls = occlusion(net, images, 0, patch=64)
    change = float((net.predict(images) - net.predict(baseline_of(net, images, "mean"))).detach()[0, 0])
    assert falls.flatten().tolist() == pytest.approx([change] * 64 * 64, rel=1e-3)


def test_occlusion_is_the_plain_loop():
    net = net_of(arguments=SHIFTED_SWIN)
    falls = occlusion(net, IMAGES, [1, 0], patch=12, stride=8, batch_size=5)
    assert starts(32, 12, 8) == [0, 8, 16, 20]
    with torch.no_grad():
        for row, output in enumerate([1, 0]):
            score, total, times = net(IMAGES[[row]])[0, output], torch.zeros(32, 32), torch.zeros(32, 32)
            for top in (0, 8, 16, 20):
                for left in (0, 8, 16, 20):
                    covered = IMAGES[[row]].float()
                    covered[0, :, top : top + 12, left : left + 12] = net.backbone.mean[0]
                    total[top : top + 12, left : left + 12] += score - net(covered)[0, output]
                    times[top : top + 12, left : left + 12] += 1
            assert torch.allclose(falls[row], total / times, atol=1e-5)
            assert total.abs().max() > 1e-3


def test_several_images_of_a_row_are_covered_one_at_a_time():
    net, single = net_of(images=2), net_of()
    single.load_state_dict(net.state_dict())
    images, mask = images_of(2, 32, 2), torch.tensor([[1, 1], [0, 1]]).bool()
    falls = occlusion(net, images, 1, image_mask=mask, patch=16)
    assert falls.shape == (2, 2, 32, 32)
    assert falls[1, 0].count_nonzero() == 0
    assert torch.allclose(falls[1, 1], occlusion(single, images[1, [1]], 1, patch=16)[0], atol=1e-5)
    found = integrated_gradients(net, images, 1, image_mask=mask, steps=32)
    assert found.maps[1, 0].count_nonzero() == 0
    assert found.completeness_error.max() < 0.05 * (found.score - found.at_baseline).abs().max()


def test_masks_keep_their_pixels_while_parts_are_covered():
    net = net_of("resnet10t", {}, 64, SegmentationHead, 2)
    images = images_of(1, 64)
    with torch.no_grad():
        net.head.last.bias -= net(images)[:, 1].median()
        logits = net(images)[0, 1]
        mask = logits >= 0
        covered = net(baseline_of(net, images, "mean"))[0, 1]
    change = float(logits[mask].mean() - covered[mask].mean())
    assert occlusion(net, images, 1, patch=64)[0, 0, 0].item() == pytest.approx(change, rel=1e-3)
    assert integrated_gradients(net, images, 1, steps=12).maps.sum().item() == pytest.approx(change, rel=0.3)


def test_wrong_options_are_errors():
    net = net_of()
    with pytest.raises(InputError, match=r"baseline is 'blak'\. Did you mean 'black'"):
        occlusion(net, IMAGES, 1, baseline="blak")
    for patch, stride in ((33, None), (8, 9), (8, 0), (0, None)):
        expected = "takes a patch of 1 to 32 px" if stride is None else "a patch of 8 px takes a stride of 1 to 8 px"
        with pytest.raises(InputError, match=expected):
            occlusion(net, IMAGES, 1, patch=patch, stride=stride)
