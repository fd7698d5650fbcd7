"""GPUs that a plan can be made for, with their memory and their peak rates."""

import re
from typing import NamedTuple

from swinft.errors import InputError, suggest
from swinft.system.precision import Precision

GIB = 2**30


class GPU(NamedTuple):
    """A GPU, by NVIDIA's data sheet: without sparsity, and with sums in float32 where the sheet tells them apart.

    Args:
        memory: Bytes.
        half: Operations per second in half precision.
        single: Operations per second in float32, without tensor cores.
        has_bf16: Whether its half precision is bfloat16, else float16.
    """

    memory: int
    half: float
    single: float
    has_bf16: bool = True

    @property
    def precision(self) -> Precision:
        """The precision that `auto` takes there."""
        return "bf16-mixed" if self.has_bf16 else "16-mixed"


def _gpu(gib: int, half: float, single: float, has_bf16: bool = True) -> GPU:
    return GPU(gib * GIB, 1e12 * half, 1e12 * single, has_bf16)


# The smallest version where there are several.
GPUS = {
    "T4": _gpu(16, 65, 8.1, has_bf16=False),
    "P100": _gpu(16, 18.7, 9.3, has_bf16=False),
    "V100": _gpu(16, 112, 14, has_bf16=False),
    "V100-32GB": _gpu(32, 112, 14, has_bf16=False),
    "A10": _gpu(24, 125, 31.2),
    "L4": _gpu(24, 121, 30.3),
    "L40S": _gpu(48, 362, 91.6),
    "A6000": _gpu(48, 154.8, 38.7),
    "A100": _gpu(40, 312, 19.5),
    "A100-80GB": _gpu(80, 312, 19.5),
    "H100": _gpu(80, 989, 67),
    "H100-PCIe": _gpu(80, 756, 51),
    "H200": _gpu(141, 989, 67),
    "RTX3090": _gpu(24, 71, 35.6),
    "RTX4090": _gpu(24, 165.2, 82.6),
    "RTX5090": _gpu(32, 209.5, 104.8),
}


def parsed(given: str) -> tuple[int, str]:
    """The number and the name of `8xA100`, or of `A100` alone.

    Raises:
        InputError: It is not of this form, or the GPU is not known.
    """
    match = re.fullmatch(r"(?:([0-9]+)\s*[x×*]\s*)?([A-Za-z].*)", given.strip())
    if match is None or int(match[1] or 1) < 1:
        raise InputError(f"--gpus is '{given}'; write a number and a name: 8xA100.")
    known = {name.casefold(): name for name in GPUS}
    name = known.get(re.sub(r"[\s_]", "", match[2]).casefold())
    if name is None:
        raise InputError(f"--gpus {given}: '{match[2]}' is not known.{suggest(match[2], GPUS)}")
    return int(match[1] or 1), name
