"""Checks that a device works: its driver starts, this torch's kernels run on it, and their results are right."""

import json
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from swinft.errors import InputError
from swinft.system.orphans import is_child
from swinft.system.processes import Slot, run_module

# The first driver for each major version of CUDA; later drivers run its programs too.
FIRST_DRIVER = {12: "525", 13: "580"}
# Wheels for GPUs and drivers that CUDA 13 no longer supports. They are built for sm_50 to sm_90; 2.14 is the last.
OLDER_WHEELS = "pip install 'torch<2.15' torchvision --index-url https://download.pytorch.org/whl/cu126"
OLDER_WHEELS_FROM, TURING = (5, 0), (7, 5)
NO_GPU = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES with which users, and Slurm, hide all GPUs
# `accelerator cpu` is not enough: if the driver does not start, torch's optimisers fail even on the CPU.
HIDE = "set CUDA_VISIBLE_DEVICES=-1 in the environment"
PROBE_SECONDS = 180.0  # eight GPUs take a while to create their contexts; a device that hangs never answers


def check_usable(devices: Sequence[torch.device], on_cpu: str) -> None:
    """Checks that devices work, before anything is read or trained.

    Kernels run in a separate process, so that the GPU memory that they take is freed with it. The CPU is not checked,
    and a child process checks nothing: its parent has done so.

    Args:
        devices: All devices that will be used; CUDA devices with their index.
        on_cpu: How to use the CPU instead, such as `add --device cpu`.

    Raises:
        InputError: A device cannot be used; the message says why, and what to change.
    """
    checked = [device for device in devices if device.type != "cpu"]
    if not checked or is_child():
        return
    problems = _known_problems(checked) or _probe_in_process(checked)
    if problems:
        raise InputError(_error_message(checked, problems, on_cpu))


def probe(device: torch.device) -> None:
    """Multiplies two matrices on a device, in this process.

    Raises:
        RuntimeError: The device fails, or its result differs from the CPU's.
    """
    numbers = torch.arange(64 * 64).remainder(7).view(64, 64)  # products and sums are exact, in TF32 as well
    there = numbers.float().to(device)
    if not torch.equal((there @ there).cpu().long(), numbers @ numbers):
        raise RuntimeError("its product of two matrices is wrong")


def missing_gpu() -> str | None:
    """Why torch finds no GPU although there is one; None if the machine has none, or all are hidden."""
    variable, named = _visible_devices_variable()
    if named is not None and named.strip() in NO_GPU:
        return None
    is_there = any(Path("/dev").glob("kfd" if torch.version.hip else "nvidia[0-9]*"))
    if torch.version.hip is None and torch.version.cuda is None:
        problem = f"torch {torch.__version__} is built for the CPU only, and there is a GPU: install one with CUDA"
        return problem if is_there else None
    if named is not None:
        return f"{variable} is '{named}', which names no GPU of this machine: correct or unset it"
    if not is_there:
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return _driver_problem(str(error))
    return "there is a GPU, and torch finds none"


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, in the form of CUDA_VISIBLE_DEVICES: numbers, UUIDs, MIG names."""
    count = torch.cuda.device_count()
    named = [name.strip() for name in (_visible_devices_variable()[1] or "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


def slot_of(names: Sequence[str]) -> Slot:
    """The environment of a process that may use only some of this process's GPUs.

    Args:
        names: Their names, as `visible_gpus` returns them.
    """
    joined = ",".join(names)
    # ROCm reads HIP_VISIBLE_DEVICES, and CUDA_VISIBLE_DEVICES only if that is unset: set both to the same value.
    return {"CUDA_VISIBLE_DEVICES": joined} | ({"HIP_VISIBLE_DEVICES": joined} if torch.version.hip else {})


def _visible_devices_variable() -> tuple[str, str | None]:
    """The environment variable that selects GPUs, and its value; None if it is not set."""
    names = ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES") if torch.version.hip else ("CUDA_VISIBLE_DEVICES",)
    return next(((name, os.environ[name]) for name in names if name in os.environ), (names[0], None))


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether a GPU runs code that was built for some architectures.

    `sm_80` is machine code: it runs on the same major version from that minor version on. `compute_80` is PTX, which
    the driver compiles for any later GPU. `sm_90a` runs only on exactly that version, `sm_100f` only on that family.

    Args:
        capability: Compute capability of the GPU, major and minor.
        architectures: As `torch.cuda.get_arch_list()` returns them.
    """
    for kind, major, minor, suffix in re.findall(r"(sm|compute)_(\d+)(\d)([af]?)\b", " ".join(architectures)):
        built = int(major), int(minor)
        if capability == built or (suffix != "a" and capability[0] == built[0] and capability >= built):
            return True
        if kind == "compute" and not suffix and capability > built:
            return True
    return False


def rocm_architecture(device: torch.device) -> str:
    """Name of an AMD GPU's architecture without its features, such as `gfx90a`."""
    return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]


def _known_problems(devices: Sequence[torch.device]) -> dict[torch.device, str]:
    """Devices that this build of torch does not support; no kernel is run.

    Raises:
        InputError: The driver does not start.
    """
    problems: dict[torch.device, str] = {}
    for device in devices:
        if device.type != "cuda":
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of the same in many lines
                problem = _architecture_problem(device)
        except (RuntimeError, AssertionError) as error:
            problem = _driver_problem(str(error))
            raise InputError(f"the GPU cannot be used: {problem}; or {HIDE} to work on the CPU.") from error
        if problem:
            problems[device] = problem
    return problems


def _architecture_problem(device: torch.device) -> str | None:
    """Why this build of torch does not run on a GPU; None if it does."""
    name, built = torch.cuda.get_device_name(device), torch.cuda.get_arch_list()
    if torch.version.hip:
        own = rocm_architecture(device)
        # A generic target, such as gfx11-generic, covers several architectures: only a kernel shows whether it runs.
        if not built or own in built or any("generic" in each for each in built):
            return None
        return f"{name} is {own}, and this torch is built for {', '.join(built)}: install one that is built for {own}"
    capability = torch.cuda.get_device_capability(device)
    if not built or runs_on(capability, built):
        return None
    problem = f"{name} is sm_{capability[0]}{capability[1]}, and torch {torch.__version__} is built for "
    problem += f"{', '.join(built)}: choose another GPU (on Kaggle the T4)"
    if OLDER_WHEELS_FROM <= capability < TURING:
        return f"{problem}, or install a torch that is built for it: {OLDER_WHEELS}"
    if capability > TURING:
        return f"{problem}, or install a newer torch: pip install --upgrade torch torchvision"
    return problem


def _driver_problem(message: str) -> str:
    """Torch's error about the driver in one sentence, with what to install."""
    found = re.search(r"driver .*too old.*found version (\d+)", message, re.DOTALL)
    if not found:
        return f"the GPU's driver does not start: {' '.join(message.split()).split('. ')[0].rstrip('.')}"
    version, needed = int(found[1]) // 1000, str(torch.version.cuda)
    major = int(needed.split(".")[0]) if needed[:1].isdigit() else 0
    first = f" ({FIRST_DRIVER[major]} or later)" if major in FIRST_DRIVER else ""
    problem = (
        f"the NVIDIA driver is too old: it supports CUDA {version}.{int(found[1]) % 1000 // 10} at most, and torch "
        f"{torch.__version__} is built with CUDA {needed}. Update the driver{first}"
    )
    return f"{problem}, or install a torch for it: {OLDER_WHEELS}" if version == 12 else problem


def _probe_in_process(devices: Sequence[torch.device]) -> dict[torch.device, str]:
    """Runs kernels on devices in a separate process, and returns what fails."""
    output, ending = run_module(__name__, list(map(str, devices)), PROBE_SECONDS)
    try:
        found: Mapping[str, str] = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):  # a driver's messages, or the process died
        return dict.fromkeys(devices, f"the process that tried it {ending}")
    return {device: found[str(device)] for device in devices if found.get(str(device))}


def _error_message(checked: Sequence[torch.device], problems: Mapping[torch.device, str], on_cpu: str) -> str:
    """One line per problem, with the devices that have it; then the devices that work."""
    lines = []
    for problem in dict.fromkeys(problems.values()):
        names = " and ".join(str(device) for device, each in problems.items() if each == problem)
        lines.append(f"{names} cannot be used: {problem}; or {on_cpu} to work on the CPU.")
    good = [device for device in checked if device not in problems and device.type == "cuda"]
    if good:
        names_here = visible_gpus()
        slot = slot_of([names_here[device.index or 0] for device in good])
        shown = " ".join(f"{name}={value}" for name, value in slot.items())
        lines.append(f"{' and '.join(map(str, good))} can be used: {shown} in the environment leaves the other out.")
    return "\n".join(lines)


def main(names: Sequence[str]) -> None:
    """Prints the problem of each device as a line of JSON; null for none."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            probe(torch.device(name))
            found[name] = None
        except Exception as error:  # any failure of a driver is a result
            message = str(error) or type(error).__name__
            found[name] = "a test computation failed: " + message.splitlines()[0].rstrip(".")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
