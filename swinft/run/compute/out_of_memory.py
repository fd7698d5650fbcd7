"""Out of memory: who has run out of it, and the settings that need less and train or predict the same."""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jsonargparse import Namespace

from swinft.errors import InputError, RunError
from swinft.model.backbones.timm_backbone import recomputes_activations
from swinft.system.limits import format_bytes
from swinft.system.memory import memory_use
from swinft.system.precision import PRECISIONS, Precision, has_units

# What torch and the libraries under it say. cublasCreate is the first to ask CUDA for memory behind torch's back.
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
# Above this share of the device, what others hold is worth a word: CUDA itself takes some hundred megabytes.
LARGE_SHARE = 0.1
MOST_CHOICES = 3


def lacks_memory(error: BaseException) -> bool:
    """Whether a lack of memory, of a device or of the machine, is what raised an error."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError) or isinstance(error, RunError):
        return False
    return any(pattern.search(str(error)) for pattern in (OF_DEVICE, OF_MACHINE))


@contextmanager
def out_of_memory_explained(explain: Callable[[Exception], InputError]) -> Iterator[None]:
    """Puts an explanation in the place of an error for lack of memory; other errors pass.

    Args:
        explain: Makes it of the error, such as `explain_out_of_memory` with the rest of its arguments.

    Raises:
        InputError: Memory was lacking.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise explain(error) from error


def explain_out_of_memory(
    error: BaseException,
    config: Namespace,
    device: torch.device,
    during: str = "a training step",
    resume: str | None = None,
) -> InputError:
    """What to change where training has run out of memory.

    Args:
        error: One that `lacks_memory` knows.
        config: The config of the run.
        device: That trains.
        during: What ran, in words.
        resume: The command that goes on with the run, whose settings are frozen; None where nothing is frozen yet.
    """
    workers = config.data.loading.num_workers
    has_loaders = device.type != "cpu" if workers == "auto" else workers > 0
    loaders = ["Loader processes are in the machine's memory: --data.loading.num_workers 0 needs less."]
    loaders = loaders if has_loaders and _is_of_machine(error, device) else []
    if device.type != "cpu" and _is_of_machine(error, device):
        lines = [*loaders, "End what else runs on this machine."]
        return _explained(error, device, during, lines, resume, helps=True)
    smaller = [*_smaller_steps(config), *_slower(config)]
    lines = [f"The same training in less memory: {'; or '.join(smaller)}."] if smaller else []
    lines += ["Less to compute: a smaller data.image_size or model.backbone."]
    lines += ["Give the new run another --name: those settings are frozen with the run."] if resume else []
    lines += loaders
    return _explained(error, device, during, lines, resume)


def explain_after_training(error: BaseException, device: torch.device, has_trained: bool, resume: str) -> InputError:
    """What to do where the out-of-fold prediction of a fold has run out of memory.

    Args:
        error: One that `lacks_memory` knows.
        device: That predicts.
        has_trained: This process has trained the fold, and some of the memory is still that of the training.
        resume: The command that goes on with the run.
    """
    lines = ["The training is done and kept."]
    lines += [] if has_trained else ["Free memory of the device, or go on where there is more."]
    return _explained(error, device, "the out-of-fold prediction", lines, resume, helps=True)


def explain_in_prediction(
    error: BaseException,
    batch_size: int,
    networks: int,
    devices: int,
    device: torch.device,
    precision: Precision | None,
) -> InputError:
    """What to change where `swinft predict` has run out of memory.

    Args:
        error: One that `lacks_memory` knows.
        batch_size: Images per batch.
        networks: One of each fold, all of them on the device.
        devices: Processes that predict side by side.
        device: That predicts.
        precision: What it predicts in; None where there is no other.
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
) -> InputError:
    """The whole message; `resume` is part of it where it `helps`, or where others hold much of the memory."""
    where, others = _measured(torch.device("cpu") if _is_of_machine(error, device) else device, during)
    more = [others] if others else []
    if resume and (helps or others):
        more += [f"{'With that memory free, go' if others else 'Go'} on with: {resume}"]
    return InputError("\n  ".join([where, *lines, *more]))


def _measured(device: torch.device, during: str) -> tuple[str, str]:
    """What has run out, with peak and total; and a sentence where others hold much of it."""
    name = "this machine" if device.type == "cpu" else str(device)
    try:
        use = memory_use(device)
        name += f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    except RuntimeError:  # a device may answer nothing after it has failed
        return f"{name} has run out of memory in {during}.", ""
    others = ""
    if use.others is not None and use.others > LARGE_SHARE * use.total:
        others = f"Other processes hold {format_bytes(use.others)} of it: `nvidia-smi` lists them."
    return f"{name} has run out of memory in {during}: at its peak this process held {use.describe()}.", others


def _is_of_machine(error: BaseException, device: torch.device) -> bool:
    """Whether it was the machine's memory, and not that of its GPU, that ran out."""
    if device.type == "cpu" or isinstance(error, MemoryError | OSError):
        return True
    return not isinstance(error, torch.OutOfMemoryError) and bool(OF_MACHINE.search(str(error)))


def _smaller_steps(config: Namespace) -> list[str]:
    """Smaller batches that make the same optimiser step, more of them accumulated."""
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
