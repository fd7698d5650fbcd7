"""Restores process-wide settings of the user's program after swinft has run in it."""

import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def restored_process_state() -> Iterator[None]:
    """Restores what the block changes: warning filters, environment, `sys.path`, random generators, torch's flags."""
    environment, paths, numbers, threads = dict(os.environ), list(sys.path), random.getstate(), torch.get_num_threads()
    numpy_numbers = np.random.get_state()  # noqa: NPY002  # the user may have seeded this generator
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for name in set(os.environ).difference(environment):
            del os.environ[name]
        os.environ.update(environment)
        sys.path[:] = paths
        random.setstate(numbers)
        np.random.set_state(numpy_numbers)  # noqa: NPY002
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.backends.cudnn.benchmark = benchmark
