"""The built-in metrics by name, and metrics as a config names them: a word, a word with arguments, or an object."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from swinft.class_spec import AsWritten, from_word
from swinft.model.metrics.base import BuiltinMetric, Metric
from swinft.model.metrics.classes import (
    F1,
    Accuracy,
    BalancedAccuracy,
    MAPAtK,
    MatthewsCorrelation,
    QuadraticKappa,
    TopKAccuracy,
)
from swinft.model.metrics.groups import GroupedLogLoss, ProbabilisticF1
from swinft.model.metrics.labels import LabelSetMetric, MacroF1, MicroF1, SamplesF1
from swinft.model.metrics.numbers import MAE, MAPE, R2, RMSE, RMSLE, SMAPE, Pearson, PooledRMSE, Spearman, WeightedR2
from swinft.model.metrics.probabilities import Brier, KaggleLogLoss, KLDivergence, LogLoss, MeanColumnLogLoss
from swinft.model.metrics.ranking import AUC, Gini, MeanAveragePrecision, MeanColumnAUC, PartialAUC, WeightedAUC
from swinft.model.metrics.segmentation import Dice, DiceOfPresent, IoU, MAPOverIoU, PooledDice
from swinft.model.metrics.taxonomy import HierarchicalDistance

BUILTIN: tuple[type[BuiltinMetric], ...] = (
    *(Accuracy, BalancedAccuracy, MacroF1, F1, MatthewsCorrelation, TopKAccuracy, MAPAtK, HierarchicalDistance),
    *(LogLoss, KaggleLogLoss, KLDivergence, Brier, GroupedLogLoss, AUC, PartialAUC, Gini, ProbabilisticF1),
    *(MeanColumnAUC, WeightedAUC, MeanAveragePrecision, MeanColumnLogLoss, SamplesF1, MicroF1),
    *(QuadraticKappa, RMSE, PooledRMSE, RMSLE, MAE, MAPE, SMAPE, R2, WeightedR2, Pearson, Spearman),
    *(Dice, DiceOfPresent, PooledDice, IoU, MAPOverIoU),
)
METRICS: dict[str, type[BuiltinMetric]] = {metric.name: metric for metric in BUILTIN}
# Names of the metrics that take arguments: a mapping of another word is an error of the parser.
NameWithArguments = Literal[
    "f1",
    "gini",
    "grouped_log_loss",
    "hierarchical_distance",
    "macro_f1",
    "map_at_k",
    "mean_average_precision",
    "mean_column_auc",
    "mean_column_log_loss",
    "micro_f1",
    "partial_auc",
    "probabilistic_f1",
    "samples_f1",
    "top_k_accuracy",
    "weighted_auc",
    "weighted_r2",
]
MetricWithArguments = dict[NameWithArguments, dict[str, AsWritten] | list[AsWritten] | float | str | None]
SHOWN_AS = "name"  # an argument of every metric with arguments: the name of its score


def metric_of(given: Any) -> Any:
    """A metric of a config: a built-in one for its word, with or without arguments; anything else as it is.

    Args:
        given: A name; a mapping of a name to its arguments, `{"partial_auc": {"min_tpr": 0.9}}`, among which may be
            `name`, the name of the score; or an object.

    Raises:
        InputError: There is no such metric, or its arguments are wrong.
    """
    if not isinstance(given, str | Mapping):
        return given
    shown, word = None, given
    if isinstance(given, Mapping) and len(given) == 1:
        ((name, arguments),) = given.items()
        if isinstance(arguments, Mapping) and SHOWN_AS in arguments:
            shown = arguments[SHOWN_AS]
            word = {name: {key: each for key, each in arguments.items() if key != SHOWN_AS}}
    metric = from_word(word, METRICS, "metric")
    if shown is not None:
        metric.name = metric._name(SHOWN_AS, shown)
    return metric


def word_of(given: Any) -> str:
    """The word with which a config names a built-in metric; empty for anything else."""
    if isinstance(given, Mapping) and len(given) == 1:
        return str(next(iter(given)))
    return given if isinstance(given, str) else ""


@dataclass(frozen=True)
class Traits:
    """Attributes of the first metric that a submission needs, as in `Metric`."""

    name: str = ""
    wants_probabilities: bool = False
    scores_grades: bool = False


def traits_of(metric: Any) -> Traits:
    """The traits of a metric, given as in a config or as an object; the defaults for an unknown name."""
    found = metric if isinstance(metric, Metric) else METRICS.get(word_of(metric))
    return Traits(found.name, found.wants_probabilities, found.scores_grades) if found else Traits()


def at_threshold(metrics: Sequence[Any], threshold: float, before: float) -> list[Any]:
    """Metrics with another threshold of labels; those with one of their own keep it.

    Args:
        metrics: Names, mappings of a name to its arguments, and metrics.
        threshold: Labels with at least this probability are chosen.
        before: The threshold that is replaced, `submission.threshold`.
    """
    found = []
    for given in metrics:
        metric = copy.copy(metric_of(given))
        if (
            isinstance(metric, LabelSetMetric | F1)
            and (0.5 if metric.threshold is None else metric.threshold) == before
        ):
            metric.threshold = threshold
        found.append(metric)
    return found
