"""Lightning under its other name: a Trainer of `pytorch_lightning` does not take classes of `lightning`."""

import sys
import warnings


def warn_of_other_lightning() -> None:
    """Says in a line what to import where `pytorch_lightning` is: its Trainer's own message does not."""
    if "pytorch_lightning" in sys.modules:
        warnings.warn(
            "pytorch_lightning is imported, and its Trainer does not take swinft's classes, which are lightning's, "
            "another package of the same content. Write `import lightning.pytorch as pl` in its place.",
            stacklevel=3,
        )
