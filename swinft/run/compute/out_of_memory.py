"""Out-of-memory errors: which device has run out, and settings that need less memory for the same result."""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from jsonargparse import Namespace

from swinft.errors import InputError, RunError
from swinft.model.backbones.timm_backbone import recomputes_activations
from swinft.system.limits import format_bytes
from swinft.system.memory import memory_use
from swinft.system.precision import PRECISIONS, Precision, has_units

# Messages of torch and its libraries. cublasCreate allocates CUDA memory outside torch's allocator.
OF_DEVICE = re.compile(
    r"out of memory|STATUS_\w*ALLOC\w*_FAILED|CUFFT_ALLOC_FAILED|StatusAllocFailed|status_memory_error|"
    r"NOT_INITIALIZED when calling `(cublas|hipblas|cudnn)Create",
    re.IGNORECASE,
)
OF_MACHINE = re.compile(
    r"can't allocate memory|not enough memory|cannot allocate memory|bad_alloc|Unable to allocate|"
    r"MemoryError in DataLoader|Insufficient memory",
    re.IGNORECASE,
)
# Other processes are mentioned if they use more than this fraction of the device: CUDA itself takes some 100 MB.
LARGE_SHARE = 0.1
MOST_CHOICES = 3
Policy = Literal["error", "halve"]  # what a run does whose first batch does not fit


class LackOfMemory(InputError):
    """Memory has run out; the message names the settings that need less."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an out-of-memory error, of a device or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError) or isinstance(error, RunError):
        return False
    return any(pattern.search(str(error)) for pattern in (OF_DEVICE, OF_MACHINE))


@contextmanager
def out_of_memory_explained(explain: Callable[[Exception], LackOfMemory]) -> Iterator[None]:
    """Replaces an out-of-memory error by an explanation; other errors pass.

    Args:
        explain: Builds the explanation from the error, such as a partial of `explain_out_of_memory`.

    Raises:
        LackOfMemory: Memory has run out.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise explain(error) from error


def explain_out_of_memory(
    error: BaseException,
    config: Namespace,
    device: torch.device,
    during: str = "a training step",
    resume: str | None = None,
) -> LackOfMemory:
    """What to change after training has run out of memory.

    Args:
        error: An error for which `is_out_of_memory` is true.
        config: The config of the run.
        device: The device that trains.
        during: What ran, as text.
        resume: The command that resumes the run, whose settings are frozen; None if nothing is frozen yet.
    """
    workers = config.data.loading.num_workers
    has_loaders = device.type != "cpu" if workers == "auto" else workers > 0
    loaders = ["Loader workers use the machine's memory: --data.loading.num_workers 0 needs less."]
    loaders = loaders if has_loaders and _is_of_machine(error, device) else []
    if device.type != "cpu" and _is_of_machine(error, device):
        lines = [*loaders, "End other programs on this machine."]
        return _explained(error, device, during, lines, resume, helps=True)
    smaller = [*_smaller_steps(config), *_slower(config)]
    lines = [f"The same rows per step in less memory: {'; or '.join(smaller)}."] if smaller else []
    if getattr(config, "on_out_of_memory", "halve") == "error" and config.data.batch_size % 2 == 0:
        lines += ["With on_out_of_memory halve, a run halves its batch by itself until a first step fits."]
    lines += ["Less to compute: a smaller data.image_size or model.backbone."]
    lines += ["Give the new run another --name: those settings are frozen with the run."] if resume else []
    lines += loaders
    return _explained(error, device, during, lines, resume)


def explain_after_training(error: BaseException, device: torch.device, has_trained: bool, resume: str) -> LackOfMemory:
    """What to do after the out-of-fold prediction of a fold has run out of memory.

    Args:
        error: An error for which `is_out_of_memory` is true.
        device: The device that predicts.
        has_trained: Whether this process has trained the fold, and still holds memory of the training.
        resume: The command that resumes the run.
    """
    lines = ["The training is finished and saved."]
    lines += [] if has_trained else ["Free memory of the device, or resume on one with more memory."]
    return _explained(error, device, "the out-of-fold prediction", lines, resume, helps=True)


def explain_in_prediction(
    error: BaseException,
    batch_size: int,
    networks: int,
    devices: int,
    device: torch.device,
    precision: Precision | None,
) -> LackOfMemory:
    """What to change after `swinft predict` has run out of memory.

    Args:
        error: An error for which `is_out_of_memory` is true.
        batch_size: Images per batch.
        networks: Networks on the device, one per fold.
        devices: Processes that predict in parallel.
        device: The device that predicts.
        precision: Its precision; None if it cannot be changed.
    """
    choices = [str(size) for size in (batch_size // 2, batch_size // 4, batch_size // 8) if size]
    lines = [f"The same predictions in less memory: --batch-size {', or '.join(choices)}."] if choices else []
    half = next((kind for kind in PRECISIONS[1:] if has_units(kind, device)), None)
    if precision == "32-true" and half:
        lines += [f"Nearly the same: --precision {half}."]
    if device.type == "cpu" and devices > 1:
        lines += ["--devices 1: on the CPU all processes share the machine's memory."]
    if networks > 1:
        lines += [f"One network in memory, not {networks}: --folds K --output FILE_K.csv for each fold; average them."]
    return _explained(error, device, "a prediction", lines)


def _explained(
    error: BaseException,
    device: torch.device,
    during: str,
    lines: Sequence[str],
    resume: str | None = None,
    helps: bool = False,
) -> LackOfMemory:
    """The whole message; it has the `resume` command if this `helps`, or if other processes use much of the memory."""
    where, others = _measured(torch.device("cpu") if _is_of_machine(error, device) else device, during)
    more = [others] if others else []
    if resume and (helps or others):
        more += [f"{'After freeing that memory, resume' if others else 'Resume'} with: {resume}"]
    return LackOfMemory("\n  ".join([where, *lines, *more]))


def _measured(device: torch.device, during: str) -> tuple[str, str]:
    """What has run out, with peak and total; and a sentence if other processes use much of it."""
    name = "this machine" if device.type == "cpu" else str(device)
    try:
        use = memory_use(device)
        name += f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    except RuntimeError:  # a device may not respond after a failure
        return f"{name} has run out of memory in {during}.", ""
    others = ""
    if use.others is not None and use.others > LARGE_SHARE * use.total:
        others = f"Other processes use {format_bytes(use.others)} of it: `nvidia-smi` lists them."
    return f"{name} has run out of memory in {during}: at its peak this process used {use.describe()}.", others


def _is_of_machine(error: BaseException, device: torch.device) -> bool:
    """Whether the machine's memory has run out, and not its GPU's."""
    if device.type == "cpu" or isinstance(error, MemoryError | OSError):
        return True
    return not isinstance(error, torch.OutOfMemoryError) and bool(OF_MACHINE.search(str(error)))


def _smaller_steps(config: Namespace) -> list[str]:
    """Smaller batches with more gradient accumulation, for the same optimiser step."""
    batch, accumulated = config.data.batch_size, config.trainer.accumulate_grad_batches
    sizes = [size for size in range(batch // 2, 0, -1) if batch % size == 0][:MOST_CHOICES]
    pairs = [
        f"data.batch_size {size} with trainer.accumulate_grad_batches {accumulated * batch // size}" for size in sizes
    ]
    return [", or ".join(pairs)] if pairs else []


def _slower(config: Namespace) -> list[str]:
    """Settings that need less memory of a device and more time."""
    model = config.model
    found = []
    if not model.compute.grad_checkpointing and recomputes_activations(model.backbone, model.backbone_args):
        found += ["model.compute.grad_checkpointing true (about a third slower)"]
    if config.data.loading.augment_on == "device":
        found += ["data.loading.augment_on cpu"]
    return found
