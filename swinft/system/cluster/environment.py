"""What a child on another node gets of this process's environment."""

import os
from collections.abc import Mapping

# Variables that decide on a child's result or on what it may open: on every node those of this process, and no others.
SHARED: tuple[str, ...] = (
    *("OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "KMP_", "TORCH", "PYTORCH_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32"),
    *(
        "TRITON_",
        "HF_",
        "WANDB_",
        "MLFLOW_",
        "TRACKIO_",
        "KAGGLE_",
        "SWINFT_",
        "XDG_CACHE_HOME",
        "PYTHONHASHSEED",
        "LANG",
        "LC_",
        "TZ",
    ),
)
SLOTS_ON_NODE = "SWINFT_SLOTS_ON_NODE"  # environment variable: children that share a node's cores
ON_CLUSTER = "SWINFT_ON_CLUSTER"  # environment variable of such a child
GPUS, CPUS = "SWINFT_SLOT_GPUS", "SWINFT_SLOT_CPUS"  # environment variables of a slot on a cluster: what it takes


def shared(environment: Mapping[str, str]) -> dict[str, str]:
    """What a child on another node gets of a local child's environment: what was set for it, and `SHARED`."""
    own = os.environ
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(SHARED) or (own.get(name) != value and not name.endswith("_VISIBLE_DEVICES"))
    }


def is_on_cluster() -> bool:
    """Whether this process was started on a node by a command elsewhere."""
    return ON_CLUSTER in os.environ
