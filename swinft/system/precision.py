"""Chooses the device and the precision for training and prediction."""

import platform
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from swinft.errors import InputError
from swinft.system.device import missing_gpu, rocm_architecture

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed", "16-mixed")  # without `auto`

# sm_80, Ampere, is the first NVIDIA generation with bf16 units. Older ones (Kaggle's T4 is sm_75) report bf16 as
# supported because CUDA emulates it, several times slower than fp16.
FIRST_BF16_CAPABILITY = (8, 0)
# A CPU uses bf16 if it is this many times as fast as fp32. With bf16 units a step of Swin-T took a third of fp32's time
# (benchmarks/results/step.json); on a Xeon without AMX a matrix product took twice fp32's time.
MIN_SPEEDUP = 1.2
SIDE, PRODUCTS = 512, 6  # a millisecond each
# CDNA from the MI100 on, RDNA 3 and 4. Earlier ones (gfx906, gfx1030) emulate bf16.
BF16_OF_ROCM = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")


def choose_device(device: str) -> torch.device:
    """Resolves `auto`: CUDA, then Apple's MPS, then the CPU. The device is not tried; `check_usable` does that.

    Returns:
        The device; a GPU always with its index, since parts of torch need it. Without an index, the first GPU.

    Raises:
        InputError: The device does not exist, or `auto` would be the CPU although the machine has a GPU.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        if problem := missing_gpu():
            raise InputError(f"{problem}; or name the CPU (--trainer.accelerator cpu; of predict: --device cpu).")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    allowed = "Allowed: auto, cpu, cuda, mps, and one of several GPUs as cuda:1."
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device '{device}' is unknown. {allowed}") from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (chosen.index or 0) >= counts.get(chosen.type, 0):
        why = f" ({missing_gpu()})" if chosen.type == "cuda" and not counts["cuda"] and missing_gpu() else ""
        here = ", ".join(f"{number} of {kind}" for kind, number in counts.items())
        raise InputError(f"device '{device}' cannot be used: torch finds {here}{why}. {allowed}")
    return torch.device("cuda", chosen.index or 0) if chosen.type == "cuda" else chosen


def training_device(trainer: Any) -> torch.device:
    """The device of a fold's first process.

    Args:
        trainer: The section `trainer`: its `accelerator`, and its `devices` where they name a GPU by its index.

    Raises:
        InputError: As `choose_device`.
    """
    device, named = choose_device("cpu" if trainer.accelerator == "cpu" else "auto"), named_devices(trainer.devices)
    is_here = device.type == "cuda" and named and named[0] < torch.cuda.device_count()
    return torch.device("cuda", named[0]) if is_here else device


def named_devices(devices: Any) -> list[int]:
    """The indices in a value of `trainer.devices` that names some, [0, 1] or "0,1"; empty for a number and auto."""
    if isinstance(devices, str) and "," in devices:
        devices = [name for name in map(str.strip, devices.split(",")) if name]
    try:
        return [int(index) for index in devices] if isinstance(devices, list) else []
    except ValueError:  # the check of the section says so
        return []


def training_precision(trainer: Any) -> tuple[torch.device, Precision, str]:
    """Device, precision and its reason of a training.

    Args:
        trainer: The section `trainer`: as of `training_device`, and its `precision`.

    Raises:
        InputError: The device does not train in this precision.
    """
    device, requested = training_device(trainer), trainer.precision
    if requested == "16-mixed" and device.type == "cpu":
        raise InputError(
            "trainer.precision is 16-mixed, and this CPU would train in bf16 instead. Allowed on a CPU: auto, 32-true, "
            "bf16-mixed."
        )
    return device, *resolve_precision(requested, device)


def resolve_precision(requested: Precision, device: torch.device) -> tuple[Precision, str]:
    """Resolves `auto` from the hardware.

    Args:
        requested: The configured precision.
        device: Where the network runs.

    Returns:
        The precision, and the reason as text.
    """
    if requested != "auto":
        return requested, "as configured"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if has_units("bf16-mixed", device):
            return "bf16-mixed", f"{name} has bf16 units"
        return "16-mixed", f"{name} has fp16 units but none for bf16"
    if device.type == "cpu" and cpu_is_faster_in_bf16():
        return "bf16-mixed", "this CPU is faster in bf16"
    return "32-true", f"bf16 is no faster on this {device.type}"


def precision_choices(device: torch.device) -> list[Precision]:
    """The precisions that `auto` chooses from on a device: 32-true, and the mixed precision that its hardware has."""
    lossless: Precision = "32-true"
    return list(dict.fromkeys([lossless, resolve_precision("auto", device)[0]]))


def prediction_precision(requested: Precision, trained: Sequence[str], device: torch.device) -> tuple[Precision, str]:
    """Resolves the precision of a prediction: that of the training, if the device has units for it.

    A network trained in one 16-bit format may overflow in the other: fp16 ends at 65,504, bf16 does not.

    Args:
        requested: The option `--precision`.
        trained: Precision of each fold.
        device: Where the networks run.

    Returns:
        The precision, and a line to print if `auto` cannot be that of the training; empty otherwise.

    Raises:
        InputError: The device does not support the precision.
    """
    if requested == "16-mixed" and device.type == "cpu":
        raise InputError("--precision is 16-mixed, which is for GPUs. Allowed on a CPU: auto, 32-true, bf16-mixed.")
    if requested != "auto":
        return requested, ""
    kinds = sorted(set(trained))
    found = next((kind for kind in PRECISIONS if [kind] == kinds and has_units(kind, device)), None)
    if found:
        return found, ""
    reason = f", and this {device.type} has no units for it" if len(kinds) == 1 else ""
    chosen: Precision = "32-true"
    return chosen, f"trained in {' and '.join(kinds)}{reason}: predicting in 32-true. --precision chooses another."


def has_units(precision: Precision, device: torch.device) -> bool:
    """Whether a device computes in a precision without emulating it."""
    if precision == "bf16-mixed":
        if device.type == "cuda":
            return _gpu_has_bf16(device)
        return device.type == "cpu" and cpu_has_bf16()
    return precision == "32-true" or device.type != "cpu"


def _gpu_has_bf16(device: torch.device) -> bool:
    """Whether a GPU has bf16 units. Under ROCm the compute capability is not comparable to NVIDIA's."""
    if torch.version.hip:
        return rocm_architecture(device).startswith(BF16_OF_ROCM)
    return torch.cuda.get_device_capability(device) >= FIRST_BF16_CAPABILITY


def cpu_has_bf16() -> bool:
    """Whether the processor has instructions for bf16: AVX-512 BF16 or AMX on x86, the bf16 extension on Arm."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():  # macOS and Windows: torch has no fast bf16 kernels there
        return False
    flags = set(cpuinfo.read_text().split())
    wanted = {"avx512_bf16", "amx_bf16"} if platform.machine() in ("x86_64", "AMD64") else {"bf16"}
    return bool(flags & wanted)


def cpu_is_faster_in_bf16() -> bool:
    """Whether the processor has instructions for bf16, and is faster with them.

    The instructions alone are not enough: where a virtual machine hides AMX, AVX-512 BF16 remains, at half the speed of
    fp32.
    """
    return cpu_has_bf16() and bf16_speedup() > MIN_SPEEDUP


@cache
def bf16_speedup() -> float:
    """How many times as fast as in fp32 this processor multiplies matrices in bf16; measured once."""
    seconds = {}
    for dtype in (torch.float, torch.bfloat16):
        matrix = torch.ones(SIDE, SIDE, dtype=dtype)
        taken = []
        for _ in range(PRODUCTS):
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            taken.append(time.perf_counter() - started)
        seconds[dtype] = min(taken)  # the least disturbed one
    return seconds[torch.float] / seconds[torch.bfloat16]


def half_dtype(precision: Precision) -> torch.dtype | None:
    """The 16-bit type of a resolved mixed precision; None for the others."""
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)


def in_float64(values: torch.Tensor) -> torch.Tensor:
    """Values in float64: on their device, or on the CPU if it has no such numbers, as Apple's MPS."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The autocast context of a resolved mixed precision; one that does nothing for the others."""
    dtype = half_dtype(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
