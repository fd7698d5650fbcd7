"""A GPU that is not there: commands run on `cuda:0`, and the CPU computes what they ask of it.

Tensors that a program puts there are tensors of the CPU whose storage is marked. Their `device` is `cuda:0`; what CUDA
refuses is an error: operations on tensors of both devices, numpy of a tensor there, a generator of the other device,
operations without a deterministic implementation under `torch.use_deterministic_algorithms`. Autocast of CUDA is that of
the CPU in the same dtype, with CUDA's list of operations in fp32. What waits for the GPU in a training step is counted.

What it cannot see: kernels, memory, streams, other processes.
"""

import contextlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.accelerators import mps as fabric
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as Loop
from torch import Tensor
from torch._decomp import decompositions
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from swinft.system import device
from tests.conftest import in_this_process

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
GB = 10**9

# What `torch.use_deterministic_algorithms` says raises an error on CUDA, by the operators' names.
RAISES = {
    "avg_pool3d_backward",
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "max_unpool2d",
    "max_unpool3d",
    "upsample_linear1d_backward",
    "upsample_bilinear2d_backward",
    "_upsample_bilinear2d_aa_backward",
    "upsample_bicubic2d_backward",
    "_upsample_bicubic2d_aa_backward",
    "upsample_trilinear3d_backward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "replication_pad1d_backward",  # before torch 2.12, as the next four
    "replication_pad2d_backward",
    "replication_pad3d_backward",
    "max_pool3d_with_indices_backward",
    "kthvalue",
    "nll_loss2d_forward",
    "_ctc_loss_backward",
    "put_",
    "put",
    "histc",
    "median",
    "nanmedian",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "scatter_reduce",
    "scatter_reduce_",
}
# Operations whose answer the CPU needs, and those whose result's size is not known before they have run.
WAITS = {
    "_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2",
    "unique_consecutive", "bincount", "repeat_interleave",
}  # fmt: skip
# Autocast's operations in fp32 on CUDA (torch.amp's documentation), by the names of functions.
IN_FP32 = {
    "__pow__", "__rdiv__", "__rpow__", "__rtruediv__", "acos", "asin", "binary_cross_entropy_with_logits", "cosh",
    "cosine_embedding_loss", "cdist", "cosine_similarity", "cross_entropy", "cumprod", "cumsum", "dist", "erfinv", "exp",
    "expm1", "group_norm", "gru", "hinge_embedding_loss", "kl_div", "l1_loss", "layer_norm", "log", "log10", "log_softmax",
    "log1p", "log2", "margin_ranking_loss", "mse_loss", "multilabel_margin_loss", "multi_margin_loss", "nll_loss", "norm",
    "normalize", "pdist", "poisson_nll_loss", "pow", "prod", "reciprocal", "rsqrt", "sinh", "smooth_l1_loss",
    "soft_margin_loss", "softmax", "softmin", "softplus", "sum", "renorm", "tan", "triplet_margin_loss",
}  # fmt: skip
ASKS_ON_CPU = ("one_hot",)  # CUDA does not look at the values
HALF = (torch.float16, torch.bfloat16)


class Mixed(RuntimeError):
    """What CUDA refuses."""


# The storages there. Of all tests: what swinft keeps for another call stays there.
MARKS: dict[int, StorageWeakRef] = {}


class PretendedGPU:
    """What is there, and what was seen."""

    def __init__(self, device: torch.device = GPU) -> None:
        self.device, self.marks = device, MARKS
        self.operations = self.blocking = 0
        self.waits: Counter[str] = Counter()
        self.is_step = False  # in a training step
        self.within: str | None = None  # the function on tensors there that runs

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is there."""
        try:
            key = real_storage(tensor)._cdata
        except (RuntimeError, NotImplementedError):  # fake and meta tensors
            return False
        return key in self.marks

    def any_of(self, values: list[Any]) -> bool:
        """Whether a tensor of several values is there."""
        return any(isinstance(value, Tensor) and self.holds(value) for value in values)

    def mark(self, found: Any) -> Any:
        """Puts tensors there."""
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and not self.holds(tensor) and real_device(tensor).type == "cpu":
                storage = real_storage(tensor)
                self.marks[storage._cdata] = StorageWeakRef(storage)  # keeps the number from being given again
        if len(self.marks) > 50_000:
            for key in [key for key, ref in self.marks.items() if ref.expired()]:
                del self.marks[key]
        return found

    def check_dtype(self, found: Any) -> None:
        """Refuses float64 on MPS."""
        if self.device.type == "mps" and any(
            isinstance(x, Tensor) and x.dtype == torch.double for x in tree_leaves(found)
        ):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )

    def wait(self, name: str) -> None:
        """Notes that the CPU waits for the GPU in a training step, and where."""
        if self.is_step and self.within not in ASKS_ON_CPU:
            own = [frame for frame in traceback.extract_stack() if "/swinft/" in frame.filename]
            place = f"{own[-1].filename.rpartition('/swinft/')[2]}:{own[-1].lineno}" if own else "elsewhere"
            self.waits[f"{place} {name}"] += 1


real_device = torch.Tensor.device.__get__
real_storage = torch.Tensor.untyped_storage


class Kernels(TorchDispatchMode):
    """Checks the tensors of every operation, and marks its results."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, gpu = function.overloadpacket.__name__, self.gpu
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in tensors if gpu.holds(x)]
        if not there:
            found = function(*args, **kwargs)
            # What autograd, or an operation on tensors there, makes of no tensor: zeros to add to.
            return gpu.mark(found) if gpu.within and not tensors else found
        gpu.operations += 1
        if name in WAITS:
            gpu.wait(name)
        if name not in ("copy_", "_foreach_copy_"):
            beside = [tuple(x.shape) for x in tensors if x.ndim and not gpu.holds(x)]
            if beside and not (name.startswith("index") and gpu.holds(tensors[0])):
                raise Mixed(f"{name} works on tensors of the GPU and on those of the CPU {beside}")
            if name.startswith("index") and (beside or any(x.dtype == torch.bool for x in tensors[1:])):
                gpu.wait(f"{name} by a mask or from the CPU")
        is_sum = name.startswith("cumsum") and (kwargs.get("dtype") or tensors[0].dtype).is_floating_point
        is_weighted = name == "bincount" and len(tensors) > 1
        # Sums of numbers that are not whole: before torch 2.12.
        refused = name in RAISES or is_sum or is_weighted
        if refused and torch.are_deterministic_algorithms_enabled():
            raise Mixed(f"{name} does not have a deterministic implementation, but you set …")
        generator = kwargs.get("generator")
        if generator is not None and not isinstance(generator, GeneratorThere):
            raise Mixed(f"Expected a 'cuda' device type for generator of {name} but found 'cpu'")
        found = function(*args, **kwargs)
        gpu.check_dtype(found)
        return found if name in ("copy_", "_foreach_copy_") else gpu.mark(found)


class GeneratorThere(torch.Generator):
    """A generator of the GPU."""


class Calls(TorchFunctionMode):
    """Replaces `cuda` in arguments, and moves tensors by marking copies."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name, gpu = dict(kwargs or {}), getattr(function, "__name__", ""), self.gpu
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and name in ("cuda", "cpu", "to"):
            return self.converted(function, name, args, kwargs)
        if first is not None and gpu.holds(first):
            if name in ("numpy", "__array__"):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
            if name in ("tolist", "item", "__bool__", "__float__", "__int__"):
                gpu.wait(name)
            if name == "new_tensor":
                return self.moved(function(*args, **kwargs), gpu.device, non_blocking=False)
            if name == "binary_cross_entropy" and torch.is_autocast_enabled("cpu") and gpu.device.type == "cuda":
                raise Mixed("torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to autocast.")
        is_between = name == "copy_" and gpu.holds(args[0]) != gpu.holds(args[1]) and args[1].ndim
        if is_between and not kwargs.get("non_blocking", args[2:] == (True,)):
            gpu.wait("copy_ between devices")
        place = kwargs.get("device")
        if place is not None and name != "__set__" and torch.device(place).type in (gpu.device.type, "cpu"):
            kwargs["device"] = CPU
            found = function(*args, **kwargs)
            if torch.device(place).type == "cpu":
                return found
            if name in ("tensor", "as_tensor"):
                return self.moved(found, gpu.device, non_blocking=False)
            return gpu.mark(found)
        if name in IN_FP32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(self.raised, args), tree_map(self.raised, kwargs)
        outer, gpu.within = gpu.within, name if gpu.any_of(tree_leaves((args, kwargs))) else None
        try:
            return function(*args, **kwargs)
        finally:
            gpu.within = outer

    def raised(self, value: Any) -> Any:
        """Tensors there in fp32, where they are in 16 bit."""
        is_half = isinstance(value, Tensor) and value.dtype in HALF and self.gpu.holds(value)
        return value.float() if is_half else value

    def converted(self, function: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """`Tensor.to`, `cuda` and `cpu`."""
        tensor, rest = args[0], args[1:]
        if name != "to":
            return self.moved(tensor, CPU if name == "cpu" else self.gpu.device, kwargs.get("non_blocking", False))
        for x in rest:
            if isinstance(x, Tensor):
                kwargs |= {"device": x.device, "dtype": x.dtype}
            elif isinstance(x, torch.device | str):
                kwargs["device"] = x
            elif isinstance(x, torch.dtype):
                kwargs["dtype"] = x
        flags = [x for x in rest if isinstance(x, bool)]
        non_blocking = kwargs.pop("non_blocking", None) or flags[:1] == [True]
        device = kwargs.pop("device", None)
        kept = {key: value for key, value in kwargs.items() if value is not None}
        found: Tensor = function(tensor, **kept) if kept else tensor
        return found if device is None else self.moved(found, torch.device(device), bool(non_blocking))

    def moved(self, tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        """A tensor on a device: itself if it is there, else a copy."""
        is_gpu = device.type == self.gpu.device.type
        if not (is_gpu or device.type == "cpu") or is_gpu == self.gpu.holds(tensor):
            return tensor
        if is_gpu:
            self.gpu.check_dtype(tensor)
        if is_gpu and device.type == "mps" and non_blocking:
            raise Mixed("a copy to MPS that does not wait may read memory that is used again")
        if device.type == "cpu" or not non_blocking:
            self.gpu.wait(f"a copy to the {device.type}")
        copy: Tensor = Copied.apply(tensor)
        return self.gpu.mark(copy) if is_gpu else copy


class Copied(torch.autograd.Function):
    """A copy in a storage of its own, on no device yet; gradients pass."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """The copy."""
        with _disable_current_modes():
            return tensor.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient."""
        return gradient


def pinned(tensor: Tensor, *_: Any) -> Tensor:
    """A tensor in pinned memory, which is made of tensors that it takes."""
    if tensor.device.type != "cpu":
        raise Mixed("cannot pin 'torch.cuda.FloatTensor', only dense CPU tensors can be pinned")
    return tensor.clone()


@contextlib.contextmanager
def pretended_gpu(patch: pytest.MonkeyPatch, place: torch.device = GPU) -> Iterator[PretendedGPU]:
    """Within it there is one GPU.

    Args:
        patch: Undone by its owner.
        place: Its device: `cuda:0`, an H100, or `mps:0`.
    """
    gpu = PretendedGPU(place)
    patch_commands(patch)
    patch_tensors(patch, gpu)
    (patch_cuda if place.type == "cuda" else patch_mps)(patch)
    patch_torch(patch)
    patch_autocast(patch, place.type)
    patch_trainer(patch, gpu)
    calls = Calls(gpu)
    # What torch calls within the handling of a call, where calls are not seen.
    for module, name in ((torch.autograd, "_engine_run_backward"), (decompositions, "_upsample_linear_vec")):
        patch.setattr(module, name, seen(calls, getattr(module, name)))
    with Kernels(gpu), calls:
        yield gpu


def seen(calls: Calls, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose calls are seen."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with calls:
            return function(*args, **kwargs)

    return call


def patch_tensors(patch: pytest.MonkeyPatch, gpu: PretendedGPU) -> None:
    """What tensors, storages and generators say of their device."""
    tell = lambda tensor: gpu.device if gpu.holds(tensor) else real_device(tensor)  # noqa: E731
    patch.setattr(torch.Tensor, "device", property(tell), raising=False)
    patch.setattr(torch.Tensor, f"is_{gpu.device.type}", property(gpu.holds), raising=False)
    patch.setattr(torch.Tensor, "is_cpu", property(lambda tensor: not gpu.holds(tensor)), raising=False)
    patch.setattr(torch.Tensor, "get_device", lambda tensor: 0 if gpu.holds(tensor) else -1, raising=False)
    patch.setattr(torch.Tensor, "pin_memory", pinned)
    clone = torch.UntypedStorage.clone

    def cloned(storage: torch.UntypedStorage) -> torch.UntypedStorage:
        found = clone(storage)
        if storage._cdata in gpu.marks:
            gpu.marks[found._cdata] = StorageWeakRef(found)
        return found

    patch.setattr(torch.UntypedStorage, "clone", cloned)
    location = torch.serialization.location_tag
    patch.setattr(
        torch.serialization,
        "location_tag",
        lambda storage: str(gpu.device) if storage._cdata in gpu.marks else location(storage),
    )

    def restored(storage: Any, place: str) -> Any:
        if str(place).startswith(gpu.device.type):
            gpu.marks[storage._cdata] = StorageWeakRef(storage)
            return storage
        return storage

    patch.setattr(torch.serialization, "default_restore_location", restored)


def patch_cuda(patch: pytest.MonkeyPatch) -> None:
    """What torch says of CUDA."""
    name, many = "NVIDIA H100 80GB HBM3", {"multi_processor_count": 132, "warp_size": 32, "L2_cache_size": 50 << 20}
    answers: dict[str, Any] = {
        "is_available": True, "is_initialized": True, "is_current_stream_capturing": False, "is_bf16_supported": True,
        "device_count": 1, "current_device": 0, "get_device_name": name, "get_device_capability": (9, 0),
        "get_device_properties": SimpleNamespace(name=name, total_memory=80 * GB, major=9, minor=0, **many),
        "get_arch_list": ["sm_75", "sm_90"], "mem_get_info": (70 * GB, 80 * GB), "memory_allocated": GB,
        "memory_reserved": 2 * GB, "max_memory_allocated": GB, "max_memory_reserved": 2 * GB,
        "get_rng_state": torch.get_rng_state(), "get_rng_state_all": [],
        "current_stream": SimpleNamespace(wait_stream=lambda *_: None, synchronize=lambda: None),
    }  # fmt: skip
    silent = ("set_device", "synchronize", "empty_cache", "init", "_lazy_init", "ipc_collect", "set_rng_state",
              "set_rng_state_all", "reset_peak_memory_stats", "set_per_process_memory_fraction")  # fmt: skip
    for each, answer in {**answers, **dict.fromkeys(silent)}.items():
        patch.setattr(torch.cuda, each, lambda *_, answer=answer, **__: answer)
    for each in ("manual_seed", "manual_seed_all"):
        patch.setattr(torch.cuda, each, torch.default_generator.manual_seed)
    patch.setattr(torch.cuda, "device", lambda *_: contextlib.nullcontext())
    patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)


def patch_mps(patch: pytest.MonkeyPatch) -> None:
    """What torch and Lightning say of Apple's GPU."""
    patch.setattr(torch.backends.mps, "is_available", lambda: True)
    for accelerator in (MPSAccelerator, fabric.MPSAccelerator):
        patch.setattr(accelerator, "is_available", staticmethod(lambda: True))
    patch.setattr(torch.mps, "manual_seed", torch.default_generator.manual_seed)
    answers = {"driver_allocated_memory": GB, "current_allocated_memory": GB, "recommended_max_memory": 16 * GB}
    for name, answer in {
        **answers,
        "synchronize": None,
        "empty_cache": None,
        "device_count": 1,
        "set_per_process_memory_fraction": None,
    }.items():
        patch.setattr(torch.mps, name, lambda *_, answer=answer: answer)


def patch_torch(patch: pytest.MonkeyPatch) -> None:
    """What torch's C++ asks of its own device."""
    patch.setattr(torch.nn.RNNBase, "flatten_parameters", lambda _: None)
    patch.setattr(torch.nn.utils.clip_grad, "_group_tensors_by_device_and_dtype", grouped)
    patch.setattr(torch.accelerator, "synchronize", lambda *_: None)
    patch.setattr(torch, "Generator", generator)
    for each in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):  # by torch's version
        patch.setattr(torch.optim.Optimizer, each, lambda _: None, raising=False)


def grouped(lists: list[list[Any]], with_indices: bool = False) -> Any:
    """Tensors by what they say of their device; torch's C++ looks at them itself."""
    found = torch._C._group_tensors_by_device_and_dtype(lists, with_indices)
    return {(tensors[0][0].device, dtype): (tensors, places) for (_, dtype), (tensors, places) in found.items()}


def generator(device: Any = "cpu") -> torch.Generator:
    """In the place of `torch.Generator`."""
    return GeneratorThere() if torch.device(device).type != "cpu" else REAL_GENERATOR()


REAL_GENERATOR = torch.Generator


def patch_autocast(patch: pytest.MonkeyPatch, there: str) -> None:
    """Autocast of the GPU is that of the CPU."""
    begin = torch.autocast.__init__

    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        begin(self, "cpu" if device_type == there else device_type, *args, **kwargs)

    patch.setattr(torch.autocast, "__init__", init)
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        asked = getattr(torch, name)
        patch.setattr(torch, name, lambda kind=there, asked=asked: asked("cpu" if kind == there else kind))


def patch_trainer(patch: pytest.MonkeyPatch, gpu: PretendedGPU) -> None:
    """Marks the time of training steps, with the loading of their batches and the callbacks."""
    advance = Loop.advance

    def watched(loop: Any, *args: Any, **kwargs: Any) -> Any:
        is_last = loop.batch_progress.current.ready + 1 >= loop.trainer.num_training_batches  # an epoch's end may wait
        gpu.is_step = not is_last
        try:
            return advance(loop, *args, **kwargs)
        finally:
            gpu.is_step = False

    patch.setattr(Loop, "advance", watched)


def patch_commands(patch: pytest.MonkeyPatch) -> None:
    """Children are this process, where the GPU is; the process that tries a device is not started."""
    patch.setattr(device, "_probe_in_process", lambda _: {})
    for module in ("compute.selection", "fit", "throw_away", "prediction.shards"):
        patch.setattr(f"swinft.run.{module}.run_children", in_this_process)
    patch.setattr("swinft.tuning.command.run_children", in_this_process)
