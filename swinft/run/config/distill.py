"""The section `distill:`: a run that a run learns from."""

from dataclasses import dataclass

from swinft.errors import InputError
from swinft.model.training.distillation import RANGES
from swinft.ranges import check_ranges, named_runs


@dataclass(frozen=True)
class DistillConfig:
    """The teacher of a run.

    Args:
        run: Folder of a finished run with the same folds and outputs: each fold also learns from what that run's
            network of the same fold, which was not trained on the rows that the fold scores, predicts for its augmented
            images. A list of runs teaches with their mean, an ensemble with its weighted mean. Null for no teacher.
        weight: Share of the loss towards the teacher's predictions, in 0–1; the rest is the loss of the targets.
        temperature: Divides the logits of network and teacher before the softmax, above 0; for one of several classes.
    """

    run: str | list[str] | None = None
    weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Checks ranges, and that every setting acts."""
        check_ranges("distill", vars(self), RANGES)
        named_runs("distill.run", self.run)
        if self.run is None and (self.weight, self.temperature) != (DistillConfig.weight, DistillConfig.temperature):
            raise InputError("distill.weight and temperature do nothing without distill.run: set it, or remove them.")
