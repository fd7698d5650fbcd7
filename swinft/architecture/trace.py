"""Runs a network once and records its operations: the multiplications of each, and the module that it is in.

On torch's meta device, which has shapes and no numbers, that takes a fraction of a second for any network.
Shapes: B batch, N rows, K inner dimension, M columns of a matrix product.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from swinft.model.operations import operations

aten: Any = torch.ops.aten
FUSED = "scaled_dot_product"  # in the names of torch's fused attentions
ROOT = ""


@dataclass(frozen=True)
class Operation:
    """A matrix product or a convolution.

    Args:
        module: The innermost module that it is in, by its dotted name.
        moment: Its place in the order of all operations and calls of modules.
        macs: Pairs of a multiplication and an addition.
        product: (B, N, K, M) if both factors depend on the image, as queries and keys do; None if one is a weight.
    """

    module: str
    moment: int
    macs: int
    product: tuple[int, int, int, int] | None = None


@dataclass
class Call:
    """A call of a module.

    Args:
        started: When it started, as `Operation.moment`.
        ended: When its last call ended.
        shape: Shape of what it returned; empty if that is no tensor.
    """

    started: int
    ended: int = -1
    shape: tuple[int, ...] = ()


@dataclass
class Trace:
    """What a network did with an image.

    Args:
        operations: In their order.
        calls: The calls of its modules by name, in the order in which they started.
        macs_by_torch: All pairs of a multiplication and an addition, counted by torch's `FlopCounterMode`.
    """

    operations: list[Operation] = field(default_factory=list)
    calls: dict[str, Call] = field(default_factory=dict)
    macs_by_torch: int = 0

    @property
    def macs(self) -> int:
        """All pairs of a multiplication and an addition."""
        return sum(each.macs for each in self.operations)

    @property
    def attentions(self) -> list[str]:
        """Names of the modules that multiply activations with one another, as attention does; in their order."""
        return list(dict.fromkeys(each.module for each in self.operations if each.product))

    def inside(self, module: str) -> list[Operation]:
        """The operations of a module and of those in it."""
        prefix = f"{module}." if module else ""
        return [each for each in self.operations if each.module == module or each.module.startswith(prefix)]


def trace(network: nn.Module, *inputs: Any) -> Trace:
    """Records what a network does with inputs, without gradients and in evaluation.

    Args:
        network: The network, on the device of the inputs.
        inputs: As its `forward` takes them.
    """
    found = Trace()
    recorder = _Recorder(found, inputs)
    was_training = network.training
    try:
        with _named_calls(network.eval(), recorder), operations(network) as counter, recorder:
            network(*inputs)
    finally:
        network.train(was_training)
    found.macs_by_torch = counter.get_total_flops() // 2
    return found


class _Recorder(TorchDispatchMode):
    """Records operations; knows which tensors depend on the inputs, and which are weights or constants."""

    def __init__(self, found: Trace, inputs: Iterable[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found, self.moment, self.inside = found, 0, [ROOT]
        self.dependent = {_storage(each) for each in _tensors(list(inputs))}

    def next(self) -> int:
        """The next moment."""
        self.moment += 1
        return self.moment

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if counted := _counted(func, args, kwargs or {}, out):
            macs, product, factors = counted
            is_product = product is not None and all(map(self._depends, factors))
            moment = self.next()
            self.found.operations.append(Operation(self.inside[-1], moment, macs, product if is_product else None))
        depends = any(map(self._depends, _tensors((args, kwargs or {}))))
        # What is made of weights alone is one; its storage may be where a dependent tensor's has been.
        for each in _tensors(out):
            (self.dependent.add if depends else self.dependent.discard)(_storage(each))
        return out

    def _depends(self, tensor: Tensor) -> bool:
        return _storage(tensor) in self.dependent


@contextmanager
def _named_calls(network: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Records when each module starts and ends, while the block runs."""
    handles = list[RemovableHandle]()

    def started(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            recorder.found.calls.setdefault(name, Call(recorder.next()))
            recorder.inside.append(name)

        return hook

    def ended(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, out: Any) -> None:
            recorder.inside.pop()
            call = recorder.found.calls[name]
            call.ended, call.shape = recorder.next(), tuple(getattr(out, "shape", ()))

        return hook

    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(started(name)))
        handles.append(module.register_forward_hook(ended(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Product = tuple[int, int, int, int]


def _counted(func: Any, args: Any, kwargs: Any, out: Any) -> tuple[int, Product | None, Sequence[Tensor]] | None:
    """Multiplications of an operation, and shape and factors of a matrix product; None for one that has none."""
    packet = func._overloadpacket
    if packet in (aten.mm, aten.addmm):
        first, second = args[-2:]
        return _product(1, first.shape[0], first.shape[1], second.shape[1], (first, second))
    if packet in (aten.bmm, aten.baddbmm):
        first, second = args[-2:]
        return _product(first.shape[0], first.shape[1], first.shape[2], second.shape[2], (first, second))
    if packet in (aten.convolution, aten._convolution):
        image, weight, is_transposed = args[0], args[1], args[6]
        positions = math.prod(image.shape[2:] if is_transposed else out.shape[2:])
        return image.shape[0] * positions * weight.numel(), None, ()
    if FUSED in packet.__name__ and "backward" not in packet.__name__:
        query, key, value = args[:3]
        batch, rows, inner, keys = math.prod(query.shape[:-2]), query.shape[-2], query.shape[-1], key.shape[-2]
        return batch * rows * keys * (inner + value.shape[-1]), (batch, rows, inner, keys), (key, value)
    return None


def _product(
    batch: int, rows: int, inner: int, columns: int, factors: Sequence[Tensor]
) -> tuple[int, Product, Sequence[Tensor]]:
    return batch * rows * inner * columns, (batch, rows, inner, columns), factors


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _tensors(each)


def _storage(tensor: Tensor) -> int:
    """What views of a tensor share; also of tensors without numbers, which have no address."""
    return int(tensor.untyped_storage()._cdata)
