"""Competition metrics on pooled rows: the base class of all metrics, and the built-in ones."""

from swinft.model.metrics.base import METRICS, Array, BuiltinMetric, Metric, Traits, mean_of_defined, traits_of

__all__ = ["METRICS", "Array", "BuiltinMetric", "Metric", "Traits", "mean_of_defined", "traits_of"]
