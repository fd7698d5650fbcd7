"""Casts weights to 16 bit once for prediction, instead of in every forward pass by autocast.

In inference mode autocast does not cache the weights it casts. A forward pass shows which ones it casts, so norms,
scales and everything else that it computes in fp32 are left unchanged, for any layer.

Shapes: B images, H and W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from swinft.model.network import ImageModel


def cast_weights(
    nets: Sequence[ImageModel], image_size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> int:
    """Casts the weights that autocast would cast, in place, if the predictions stay bit-identical.

    Args:
        nets: Networks of one architecture, in evaluation mode, only for prediction; not compiled yet.
        image_size: H and W.
        device: The device of the networks.
        dtype: Autocast's dtype.

    Returns:
        Number of weights cast per network; 0 if predictions would have changed.
    """
    net = nets[0]
    given = _example(net, image_size, device)
    # Not in inference mode, in which the dispatch mode does not see the casts inside operations.
    with torch.no_grad(), torch.autocast(device.type, dtype=dtype, cache_enabled=False):
        with _Uses(net, dtype) as uses:
            expected = net.predict(*given)
        names = [name for name in uses.names.values() if name in uses.cast - uses.other]
        before = _cast(net, names, dtype)
        found = net.predict(*given)
    if not torch.equal(expected.nan_to_num(), found.nan_to_num()):
        for name, weight in before.items():
            net.get_parameter(name).data = weight
        return 0
    del before
    for other in nets[1:]:
        _cast(other, names, dtype)
    return len(names)


def _cast(net: ImageModel, names: list[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Casts parameters in place, with the same memory format; returns their values before."""
    before = {}
    for name in names:
        parameter = net.get_parameter(name)
        before[name] = parameter.data
        parameter.data = parameter.data.to(dtype)
    return before


def _example(net: ImageModel, image_size: tuple[int, int], device: torch.device) -> list[Tensor]:
    """A random image, with metadata if the network takes any."""
    random = torch.Generator().manual_seed(0)
    given = [torch.randint(0, 256, (1, *net.image_shape(image_size)), dtype=torch.uint8, generator=random)]
    if net.metadata is not None:
        given.append(net.metadata.draw(1, random))
    return [tensor.to(device) for tensor in given]


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records which parameters are cast to a dtype, and which are used in any other way."""

    def __init__(self, net: ImageModel, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype = dtype
        self.names = {id(parameter): name for name, parameter in net.named_parameters()}
        self.cast: set[str] = set()
        self.other: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = {name: value for name, value in (kwargs or {}).items() if value is not None}
        is_cast = func is torch.ops.aten._to_copy.default and options == {"dtype": self.dtype}
        used = {self.names[id(each)] for each in tree_leaves((args, kwargs)) if id(each) in self.names}
        (self.cast if is_cast else self.other).update(used)
        return func(*args, **(kwargs or {}))
