"""Heads that fail as a device does: named by class path, with `--allow-code tests.gpu.heads`."""

import torch

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
