"""Heads that fail as a device does: named by class path, with `--allow-code tests.integration.gpu.heads`."""

import os

import torch
from torch.nn import functional

from swinft import ClassificationHead


class HungryHead(ClassificationHead):
    """Runs out of a device's memory in its third training step, or with an error of its caller's."""

    error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    passes = 0

    def forward(self, features):
        self.passes += self.training
        if self.passes > 2:
            raise self.error
        return super().forward(features)

    @classmethod
    def fail(cls, *args, **kwargs):
        """In the place of any function."""
        raise cls.error


class HoledHead(ClassificationHead):
    """Has no numbers for every fifth row of a batch that is evaluated, where the environment's HOLES says so.

    `logits` hides them behind an argmax; with `decoded` they are what it predicts.
    """

    def forward(self, features):
        logits = super().forward(features)
        if os.environ.get("HOLES") == "logits" and not self.training:
            logits[::5] = float("nan")
        return logits

    def decode(self, logits):
        predictions = functional.one_hot(logits.argmax(1), self.num_outputs)
        if os.environ.get("HOLES") == "decoded":
            predictions = predictions.float()
            predictions[::5] = float("inf")
        return predictions


class LargeHead(ClassificationHead):
    """Allocates `megabytes` per row of a batch."""

    megabytes = 100

    def forward(self, features):
        torch.empty(len(features) * self.megabytes << 20, dtype=torch.uint8)
        return super().forward(features)


class NaNHead(ClassificationHead):
    """Its logits are not finite once it is trained."""

    def forward(self, features):
        return super().forward(features) * (float("nan") if self.training and torch.is_grad_enabled() else 1)
