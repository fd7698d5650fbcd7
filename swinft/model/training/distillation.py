"""Distillation: a network also learns from the predictions of others, which see the same augmented images.

Shapes: B batch, H and W pixels, E encoded metadata features, K outputs.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from swinft.errors import InputError
from swinft.model.attention.swin import set_attention
from swinft.model.backbones.memory_format import plain_where_needed
from swinft.model.heads import Head
from swinft.model.heads.contract import check_row_losses, decoded
from swinft.model.network import ImageModel
from swinft.model.training.sizes import at_size
from swinft.ranges import POSITIVE, UNIT, check_ranges

RANGES = {"weight": UNIT, "temperature": POSITIVE}
Size = int | tuple[int, int] | None
METADATA = "teacher metadata.{}"  # metadata as network number k of the teacher encodes it


class Teacher:
    """Networks from whose mean prediction another one learns: `task.teacher = swinft.Teacher([net])`.

    It is no module: its weights belong to no parameter group, average, state dict or checkpoint of the task. Set it
    again after `load_from_checkpoint`. Its networks get the batches of the task after mixup and cutmix, and compute in
    the precision of the training, without gradients and random numbers.

    Args:
        nets: Networks with the same outputs as the task's and the same inputs, in evaluation mode from here on.
        image_size: Side, or height and width, in pixels, of their images; None for that of the task's. A list has one
            for each network.
        weight: Share of the loss towards their prediction, in 0–1; the rest is the head's own loss.
        temperature: Of the softmax of both, above 0; 1 for none. For one of K classes only.
        shares: What each network counts in the mean, from 0, with the sum 1; None for all alike.

    Raises:
        InputError: There is no network, a number is out of its range, or a list has another length than `nets`.
    """

    def __init__(
        self,
        nets: Sequence[ImageModel],
        image_size: Size | list[Size] = None,
        weight: float = 0.5,
        temperature: float = 1.0,
        shares: Sequence[float] | None = None,
    ) -> None:
        check_ranges("distill", {"weight": weight, "temperature": temperature}, RANGES)
        if not nets:
            raise InputError("a teacher needs at least one network.")
        self.nets = [net.eval().requires_grad_(False) for net in nets]
        sizes = image_size if isinstance(image_size, list) else [image_size] * len(nets)
        lengths = {"image_size": len(sizes), "shares": len(nets if shares is None else shares)}
        for name, length in lengths.items():
            if length != len(nets):
                raise InputError(f"Teacher: {name} has {length} values for {len(nets)} networks: give one for each.")
        self.sizes = [(size, size) if isinstance(size, int) else size for size in sizes]
        self.shares = shares
        self.weight, self.temperature = weight, temperature

    def to(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float,
        is_fast: bool = True,
        say: Callable[[str], None] = print,
    ) -> None:
        """Moves the networks to a device.

        Args:
            device: Where they will run.
            dtype: Autocast's dtype.
            is_fast: Whether Swin's attention is computed faster, with the same result.
            say: Prints a line.
        """
        for net in self.nets:
            net.to(device)
            plain_where_needed(net, device)
            set_attention(net, device, is_fast, say, dtype)

    @torch.no_grad()
    def encode(self, features: Tensor | None) -> dict[str, Tensor]:
        """Metadata (B, F) as each network encodes it, by the key `METADATA`; mixup can mix it.

        Raises:
            InputError: A network takes metadata, and there is none.
        """
        takers = {METADATA.format(k): net for k, net in enumerate(self.nets) if net.metadata is not None}
        if takers and features is None:
            raise InputError("the teacher takes metadata, and the batch has no `features`.")
        encoded = {key: net.encode_metadata(features) for key, net in takers.items()}
        return {key: each for key, each in encoded.items() if each is not None}

    @torch.no_grad()
    def predict(self, images: Tensor, more: Mapping[str, Tensor]) -> Tensor:
        """The mean prediction (B, K), float32 in the competition's units.

        Args:
            images: Pixels (B, C, H, W) or (B, V, C, H, W), at any size.
            more: What else belongs to the rows: what `encode` returns, and `image_mask`, if any.
        """
        found, resized = [], dict[tuple[int, int] | None, Tensor]()
        for k, (net, size) in enumerate(zip(self.nets, self.sizes, strict=True)):
            if size not in resized:
                resized[size] = images if size is None else at_size(images, size)
            logits = net.logits(resized[size], more.get(METADATA.format(k)), more.get("image_mask"))
            found.append(decoded(net.head, logits).float())
        if self.shares is None:
            return torch.stack(found).mean(0)
        # Not a matrix product, which autocast computes in 16 bit; nor a tensor of the shares, whose copy would wait.
        return torch.stack([share * each for share, each in zip(self.shares, found, strict=True)]).sum(0)

    def blended(self, head: Head, logits: Tensor, own: Tensor, prediction: Tensor) -> Tensor:
        """Losses of a batch (B,): `own`, and the loss towards the teacher's prediction, by their weights.

        Args:
            head: Of the network that learns.
            logits: Its logits (B, …).
            own: Its own losses (B,).
            prediction: What `predict` returned (B, K).

        Raises:
            InputError: The head has no softmax, and there is a temperature; or its loss has another shape.
        """
        towards = check_row_losses(head, head.loss_towards(logits, prediction, self.temperature), len(own))
        return (1 - self.weight) * own + self.weight * towards
