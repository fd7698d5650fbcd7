"""Competition metrics on pooled rows: the base class of all metrics, and the built-in ones."""

from swinft.model.metrics.base import Array, BuiltinMetric, Metric, mean_of_defined
from swinft.model.metrics.named import METRICS, MetricWithArguments, Traits, at_threshold, metric_of, traits_of, word_of

__all__ = [
    "METRICS",
    "Array",
    "BuiltinMetric",
    "Metric",
    "MetricWithArguments",
    "Traits",
    "at_threshold",
    "mean_of_defined",
    "metric_of",
    "traits_of",
    "word_of",
]
