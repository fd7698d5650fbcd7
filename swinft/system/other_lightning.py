"""A warning for `pytorch_lightning`: its Trainer does not accept classes based on the package `lightning`."""

import sys
import warnings


def warn_of_other_lightning() -> None:
    """Warns if `pytorch_lightning` is imported: the error of its Trainer does not say what to import."""
    if "pytorch_lightning" in sys.modules:
        warnings.warn(
            "pytorch_lightning is imported, and its Trainer does not accept swinft's classes, which are based on the "
            "package lightning. Write `import lightning.pytorch as pl` instead.",
            stacklevel=3,
        )
