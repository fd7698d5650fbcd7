"""The layers of any network: a feature map behind every attention, MLP and convolution, seen and changed by hooks.

A block is a module with a residual connection: timm's have an attribute `drop_path` or `drop_path1`. Its branches are
what it adds, one after another: in a transformer attention, then an MLP; in a ResNet all of its convolutions. Nothing
here depends on the name of a network.

Shapes: B batch, C channels, H and W positions, N tokens.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from swinft.errors import InputError
from swinft.laboratory.blocks import Kind, branch_ends, channels_last, find_blocks, kind_of

IMAGE = "image"


@dataclass(frozen=True)
class Layer:
    """A point in a network with a feature map.

    Args:
        number: From 0, in the order of the computation; the image is 0.
        name: Name of the block, with the kind where the block has several branches.
        block: Name of the block's module; of the image and of what is between blocks, that of the next block.
        branch: Number of the branch that ends here; None for what no branch adds.
        kind: What computes it: `msa`, `mlp`, `conv`, `mixer` (an MLP over positions), `other`; `downsample` where
            something between two blocks changes the size, `stem` for the input of the first block, and `image`.
        channels: C.
        height: H.
        width: W.
        is_resized: Whether the layer before has another number of positions.
    """

    number: int
    name: str
    block: str
    branch: int | None
    kind: Kind
    channels: int
    height: int
    width: int
    is_resized: bool


@dataclass
class _Visit:
    """One pass through a block: what came in, how many branches have ended, and the kind and sum of those."""

    given: Tensor
    branches: int = 0
    kind: Kind = "other"
    so_far: Tensor | None = None
    used: list[tuple[str, nn.Module]] = field(default_factory=list)


class Layers:
    """The layers of a network, found by a forward pass.

    Args:
        model: The network that sees normalised images, as timm makes it.
        run: Computes a forward pass of it.
        blocks: Names of its blocks; None to find them.

    Raises:
        InputError: It has no block with feature maps.
    """

    def __init__(self, model: nn.Module, run: Callable[[], Any], blocks: list[str] | None = None) -> None:
        self.model = model
        names = find_blocks(model) if blocks is None else blocks
        modules = dict(model.named_modules())
        self.blocks: dict[str, Any] = {name: modules[name] for name in names}
        self.layers: list[Layer] = []
        self._is_known = False
        with self._hooked(lambda layer, _: self.layers.append(layer), None):
            run()
        self._is_known = True
        if len(self.layers) < 3:
            raise InputError(
                f"{type(model).__name__} has no feature maps that can be told apart: its blocks have no attribute "
                f"`drop_path`, and it has no nn.Sequential or nn.ModuleList of several modules."
            )

    @contextmanager
    def watched(self, read: Callable[[Layer, Tensor], None]) -> Iterator[None]:
        """Calls a function with every layer and its feature map (B, C, H, W) during forward passes."""
        with self._hooked(read, None):
            yield

    @contextmanager
    def changed(self, layer: Layer, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Changes what the branch of a layer adds, or what a layer without a branch returns.

        Args:
            layer: The layer.
            change: From the output of the branch, in the layout of the network, to another one of the same shape.
        """
        with self._hooked(None, (layer, change)):
            yield

    @contextmanager
    def skipped(self, block: str) -> Iterator[None]:
        """A block returns its input."""

        def skip(_: nn.Module, given: tuple[Any, ...], __: Any) -> Any:
            return given[0]

        handle = self.blocks[block].register_forward_hook(skip)
        try:
            yield
        finally:
            handle.remove()

    def as_map(self, features: Tensor, block: nn.Module) -> Tensor | None:
        """Features of a block as (B, C, H, W); None if they are not those of positions.

        Args:
            features: (B, C, H, W), (B, H, W, C) or (B, prefix + N, C).
            block: The block that gets or returns them, whose first layer tells where the channels are.
        """
        if features.ndim == 4:
            return features.movedim(-1, 1) if channels_last(features, block) else features
        if features.ndim != 3:
            return None
        for prefix in dict.fromkeys((self.prefix, 0)):  # some add the class token only to the last blocks
            grid = self._grid(features.shape[1] - prefix)
            if grid is not None:
                tokens = features[:, prefix:].transpose(1, 2)
                return tokens.reshape(*tokens.shape[:2], *grid)
        return None

    @property
    def prefix(self) -> int:
        """Number of tokens before those of positions."""
        return int(getattr(self.model, "num_prefix_tokens", 0))

    def _grid(self, count: int) -> tuple[int, int] | None:
        known = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        if known is not None and known[0] * known[1] == count:
            return int(known[0]), int(known[1])
        height, width = self._sides
        rows = round(math.sqrt(count * height / width))
        return (rows, count // rows) if rows and count % rows == 0 else None

    @contextmanager
    def _hooked(
        self,
        read: Callable[[Layer, Tensor], None] | None,
        changing: tuple[Layer, Callable[[Tensor], Tensor]] | None,
    ) -> Iterator[None]:
        """Hooks on the network, the blocks and the ends of their branches while the block of `with` runs."""
        state = _Pass(self, read, changing)
        with ExitStack() as stack:

            def hook(handle: Any) -> None:
                stack.callback(handle.remove)

            hook(self.model.register_forward_pre_hook(state.begin))
            for name, block in self.blocks.items():
                hook(block.register_forward_pre_hook(state.entered(name)))
                for end in branch_ends(block):
                    hook(end.register_forward_hook(state.added(name)))
                if not self._is_known:
                    for inner, module in block.named_modules():
                        if inner:
                            hook(module.register_forward_hook(state.used(name, inner)))
                hook(block.register_forward_hook(state.left(name)))
            yield

    _sides = (1, 1)  # of the image, of the last forward pass


class _Pass:
    """What the hooks of a forward pass share."""

    def __init__(self, layers: Layers, read: Any, changing: Any) -> None:
        self.layers, self.read, self.changing = layers, read, changing
        self.visits: dict[str, _Visit] = {}
        self.number, self.size = 0, (0, 0)
        self.image: torch.Size | None = None
        self.last: torch.Size | None = None

    def begin(self, _: nn.Module, given: tuple[Any, ...]) -> None:
        image = given[0]
        self.layers._sides = image.shape[-2], image.shape[-1]
        self.visits, self.number, self.last, self.size = {}, 0, None, (0, 0)
        self.image = image.shape
        self._see(image, IMAGE, IMAGE, None, "image")

    def entered(self, name: str) -> Callable[..., None]:
        def hook(block: nn.Module, given: tuple[Any, ...]) -> None:
            features = given[0]
            self.visits[name] = _Visit(features)
            is_image = self.last is None and features.shape == self.image
            if not is_image and self.last != features.shape:
                kind: Kind = "stem" if self.last is None else "downsample"
                self._see(self.layers.as_map(features, block), f"before {name}", name, None, kind)

        return hook

    def used(self, name: str, inner: str) -> Callable[..., None]:
        def hook(module: nn.Module, *_: Any) -> None:
            self.visits[name].used.append((inner, module))

        return hook

    def added(self, name: str) -> Callable[..., Any]:
        """At the end of a branch: what came into the block with the branches before it is a layer."""

        def hook(_: nn.Module, __: Any, branch: Tensor) -> Tensor | None:
            visit, block = self.visits[name], self.layers.blocks[name]
            if visit.so_far is not None:  # the block's output is the layer of the last branch
                found = self.layers.as_map(visit.so_far, block)
                self._see(found, f"{name} {visit.kind}", name, visit.branches - 1, visit.kind)
            if self._is_changed(name, visit.branches):
                branch = self.changing[1](branch)
            if visit.given.numel() == branch.numel():
                before = visit.given if visit.so_far is None else visit.so_far
                visit.so_far = before + branch.reshape(before.shape)
            visit.branches, visit.kind = visit.branches + 1, self._kind(name)
            visit.used.clear()
            return branch if self.changing else None

        return hook

    def left(self, name: str) -> Callable[..., Any]:
        def hook(block: nn.Module, _: Any, out: Any) -> Any:
            visit = self.visits[name]
            branch = visit.branches - 1 if visit.branches else None
            if branch is None and self._is_changed(name, None):
                out = self.changing[1](out)
            features = out[0] if isinstance(out, tuple | list) else out
            kind = visit.kind if visit.branches else self._kind(name)
            shown = f"{name} {kind}" if visit.branches > 1 else name
            self._see(self.layers.as_map(features, block), shown, name, branch, kind)
            self.last = features.shape
            return out if self.changing else None

        return hook

    def _is_changed(self, name: str, branch: int | None) -> bool:
        layer = self.changing[0] if self.changing else None
        return layer is not None and layer.block == name and layer.branch == branch and layer.kind not in BETWEEN

    def _kind(self, name: str) -> Kind:
        return "other" if self.layers._is_known else kind_of(self.visits[name].used)

    def _see(self, features: Tensor | None, name: str, block: str, branch: int | None, kind: Kind) -> None:
        if features is None:
            return
        number, self.number = self.number, self.number + 1
        if self.layers._is_known:
            if self.read is not None:
                self.read(self.layers.layers[number], features)
            return
        size = (features.shape[2], features.shape[3])
        layer = Layer(number, name, block, branch, kind, features.shape[1], *size, size != self.size)
        self.size = size
        self.read(layer, features)


BETWEEN = ("image", "stem", "downsample")  # layers that are not the output of a block
