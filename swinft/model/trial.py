"""One training step and one prediction before a run begins: what no look at a signature finds out.

Shapes: N training rows, F metadata features, K outputs.
"""

import torch
from torch import Tensor

from swinft.errors import InputError
from swinft.model.contract import decoded, encoded_targets, row_losses
from swinft.model.optim import adamw
from swinft.model.task import FineTuneTask

# Two rows show all that a full batch shows, but for its memory; on a CPU a full one can take minutes.
MOST_ROWS = 2


def try_step(task: FineTuneTask, targets: Tensor, features: Tensor | None, size: tuple[int, int], batch: int) -> None:
    """Takes one training step with averaged weights, as the task does it, and predicts; the task is spent afterwards.

    Args:
        task: Initialised, on the CPU.
        targets: Of the training rows: int64 (N,) for classification, else float (N, K).
        features: float (N, F) where there is metadata.
        size: Height and width in pixels.
        batch: Images per batch as configured; of more than `MOST_ROWS` that many are tried.

    Raises:
        InputError: A step or a prediction fails, or the network gives other shapes than the head asks for.
    """
    count = min(batch, MOST_ROWS)
    rows = torch.arange(count) % len(targets)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    chosen = None if features is None else features[rows]
    try:
        _step(task, image, targets[rows], chosen)
        with torch.inference_mode():
            net = task.predictor.eval()
            decoded(net.head, net.logits(image, net.encode_metadata(chosen)))
    except InputError:
        raise
    except Exception as error:  # whatever the network does not like: it would be a traceback in the first fold
        alone = " in batches of 1 (data.batch_size)" if batch == 1 else ""
        raise InputError(
            f"'{task.hparams['backbone']}' cannot work at {size[0]} x {size[1]} px (data.image_size){alone}: {error}"
        ) from error


def _step(task: FineTuneTask, image: Tensor, targets: Tensor, features: Tensor | None) -> None:
    """Forward, backward, optimiser, average."""
    net, head = task.net.train(), task.net.head
    logits = net.logits(image, net.encode_metadata(features))
    loss = row_losses(head, logits, encoded_targets(head, targets, len(image))).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    adamw(task.parameter_groups(), task.optim, torch.device("cpu"), scales_loss=False).step()
    if task.averaged is not None:
        task.averaged.update(net)
