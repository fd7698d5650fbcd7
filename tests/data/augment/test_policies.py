"""RandAugment, TrivialAugment, AugMix: torchvision's numbers, whatever the worker, the threads and the global seed."""

import warnings
from typing import ClassVar

import albumentations as A
import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import swinft
from swinft.data.augment.pipelines import apply, train_pipeline
from swinft.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (240, 200, 3), dtype=np.uint8)


@pytest.mark.parametrize("cls", [swinft.RandAugment, swinft.TrivialAugment, swinft.AugMix])
def test_an_image_is_torchvisions_and_torchs_generator_stays_as_it_was(cls):
    pipeline = A.Compose([cls()])
    theirs = {
        swinft.RandAugment: v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR),
        swinft.TrivialAugment: v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR),
        swinft.AugMix: v2.AugMix(),
    }[cls]
    torch.manual_seed(3)
    before = torch.default_generator.get_state()
    found = [apply(pipeline, IMAGE, 0, 0, row) for row in range(12)]
    assert torch.equal(torch.default_generator.get_state(), before)
    assert len({image.tobytes() for image in found}) > 6
    seed = cls.get_params
    seeds = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "get_params", lambda self: (seeds.append(seed(self)), seeds[-1])[1])
        again = apply(pipeline, IMAGE, 0, 0, 5)
    torch.manual_seed(seeds[0]["seed"])
    wanted = theirs(torch.from_numpy(IMAGE).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.array_equal(again, wanted)
    assert np.array_equal(again, found[5])


def test_an_image_that_must_not_be_written_to_is_augmented_without_a_warning():
    """As the pixel cache's are."""
    image = IMAGE.copy()
    image.setflags(write=False)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            swinft.RandAugment().apply(image, seed=1)
    finally:
        torch.set_warn_always(False)
    assert np.array_equal(image, IMAGE)


class Watched(swinft.RandAugment):
    """Notes down the number of threads: sums over pixels, as that of a contrast, differ with it in the last digit."""

    seen: ClassVar[list[int]] = []
    policy = property(lambda self: lambda pixels: (self.seen.append(torch.get_num_threads()), pixels)[1])


def test_what_an_image_becomes_does_not_depend_on_the_number_of_threads():
    pipeline, threads = train_pipeline([A.Resize(240, 200), Watched()], (240, 200), "squash"), torch.get_num_threads()
    found = []
    try:
        for number in (1, 4):
            torch.set_num_threads(number)
            found.append([apply(pipeline, IMAGE, 0, 0, row).tobytes() for row in range(30)])
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]
    assert set(Watched.seen) == {1}


@pytest.mark.parametrize(
    ("cls", "given", "message"),
    [
        (swinft.RandAugment, {"magnitude": 31}, "RandAugment.magnitude is 31. Allowed: a number from 0 to 30"),
        (swinft.RandAugment, {"num_ops": 1.5}, "RandAugment.num_ops is 1.5. Allowed: a whole number from 1"),
        (swinft.AugMix, {"severity": 11}, "AugMix.severity is 11"),
        (swinft.AugMix, {"alpha": 0}, "AugMix.alpha is 0"),
        (swinft.TrivialAugment, {"p": 2}, "TrivialAugment.p is 2"),
    ],
)
def test_wrong_settings_are_refused(cls, given, message):
    with pytest.raises(InputError, match=message):
        cls(**given)
