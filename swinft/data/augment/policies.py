"""RandAugment, TrivialAugment and AugMix: torchvision's, as transforms of albumentations."""

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from albumentations import ImageOnlyTransform

from swinft.data.images.depth import Pixels
from swinft.ranges import COUNT, POSITIVE, UNIT, Range, SettingsError, check_ranges, whole_problems


class Policy(ImageOnlyTransform):
    """A policy of torchvision.transforms.v2, on images (H, W, 3) that are uint8, or float32 in 0–1.

    On float32 it draws among the operations that do not reduce them to 8 bits or fewer.

    torchvision draws from torch's global generator: it is seeded for each image by what the pipeline draws, and put
    back, so that an augmentation depends on (seed, epoch, row) alone.

    Args:
        p: Probability that an image is augmented, in 0–1.
    """

    def __init__(self, p: float = 1.0) -> None:
        check_ranges(f"data.augment: {type(self).__name__}", {"p": p}, {"p": UNIT})
        super().__init__(p=p)

    @cached_property
    def policy(self) -> Any:
        """Torchvision's transform; imported where it is used."""
        raise NotImplementedError

    def get_params(self) -> dict[str, Any]:
        """Draws the seed of what torchvision draws."""
        return {"seed": int(self.random_generator.integers(2**63))}

    @cached_property
    def policy_on_floats(self) -> Any:
        """The same without some operations: torchvision equalises in uint8, and posterising leaves 8 bits at most."""
        found = copy.copy(self.policy)
        found._AUGMENTATION_SPACE = {
            name: drawn for name, drawn in found._AUGMENTATION_SPACE.items() if name not in ("Equalize", "Posterize")
        }
        return found

    def apply(self, img: Pixels, seed: int, **params: Any) -> Pixels:
        """Augments an image."""
        policy = self.policy if img.dtype == np.uint8 else self.policy_on_floats
        with _seeded(seed):
            pixels = torch.from_numpy(np.require(img, requirements=["C", "W"])).permute(2, 0, 1)
            result: Pixels = policy(pixels).permute(1, 2, 0).contiguous().numpy()
        return result


class RandAugment(Policy):
    """RandAugment (arXiv 1909.13719): some operations, drawn for each image, all of one strength.

    Args:
        num_ops: Operations one after another, from 1.
        magnitude: Their strength, a whole number in 0–30.
        p: Probability that an image is augmented, in 0–1.
    """

    def __init__(self, num_ops: int = 2, magnitude: int = 9, p: float = 1.0) -> None:
        _check(self, {"num_ops": num_ops, "magnitude": magnitude}, {"num_ops": 1, "magnitude": 0})
        check_ranges("data.augment: RandAugment", {"magnitude": magnitude}, {"magnitude": Range(0, 30)})
        super().__init__(p=p)
        self.num_ops, self.magnitude = num_ops, magnitude

    @cached_property
    def policy(self) -> Any:
        """Torchvision's RandAugment."""
        v2 = _torchvision()
        return v2.RandAugment(self.num_ops, self.magnitude, interpolation=v2.InterpolationMode.BILINEAR)


class TrivialAugment(Policy):
    """TrivialAugment, wide (arXiv 2103.10158): one operation of any strength, drawn for each image."""

    @cached_property
    def policy(self) -> Any:
        """Torchvision's TrivialAugmentWide."""
        v2 = _torchvision()
        return v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)


class AugMix(Policy):
    """AugMix (arXiv 1912.02781): the mean of an image and some chains of operations on it, without its extra loss.

    Args:
        severity: Strength of the operations, a whole number in 1–10.
        width: Chains, from 1.
        depth: Operations of a chain, from 1; null for 1 to 3, drawn for each.
        alpha: Parameter of the Dirichlet and Beta distributions of the weights, above 0.
        p: Probability that an image is augmented, in 0–1.
    """

    def __init__(
        self, severity: int = 3, width: int = 3, depth: int | None = None, alpha: float = 1.0, p: float = 1.0
    ) -> None:
        given = {"severity": severity, "width": width, "depth": depth or 1}
        _check(self, given, dict.fromkeys(given, 1))
        check_ranges(
            "data.augment: AugMix",
            {"severity": severity, "alpha": alpha, "depth": depth},
            {"severity": Range(1, 10), "alpha": POSITIVE, "depth": COUNT},
        )
        super().__init__(p=p)
        self.severity, self.width, self.depth, self.alpha = severity, width, depth, alpha

    @cached_property
    def policy(self) -> Any:
        """Torchvision's AugMix."""
        v2 = _torchvision()
        return v2.AugMix(self.severity, self.width, -1 if self.depth is None else self.depth, self.alpha)


def _torchvision() -> Any:
    """torchvision.transforms.v2, imported where it is used: that takes a second."""
    return importlib.import_module("torchvision.transforms.v2")


def _check(policy: Policy, values: dict[str, Any], lowest: dict[str, int]) -> None:
    """Raises InputError for numbers that are not whole or too low."""
    if problems := whole_problems(f"data.augment: {type(policy).__name__}", values, lowest):
        raise SettingsError(problems)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds torch's generator of the CPU, and puts it back; sums over pixels do not depend on the number of threads."""
    state, threads = torch.default_generator.get_state(), torch.get_num_threads()
    torch.default_generator.manual_seed(seed)
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
        if threads > 1:
            torch.set_num_threads(threads)
