"""`swinft metrics`: list every metric with its kinds of target, its direction and its definition."""

import inspect

from swinft.data.target.kinds import TargetKind
from swinft.model.metrics import METRICS, BuiltinMetric, Metric
from swinft.run.config.parser import call


def metrics(kind: TargetKind | None = None, also: list[str] | None = None, allow_code: list[str] | None = None) -> None:
    """Lists the metrics that `model.metrics` accepts.

    Args:
        kind: List only metrics for this kind of target.
        also: Custom metric classes to list as well: `mymetric.Within`.
        allow_code: Packages or modules that custom metrics may come from.

    Raises:
        InputError: A class is not a metric, or is not allowed.
    """
    listed: list[Metric | type[Metric]] = list(METRICS.values())
    if also:
        from swinft.run.config.trust import named_class  # slow to import

        listed += [named_class(name, "model.metrics", allow_code or []) for name in also]
    for metric in listed:
        if kind is None or kind in metric.kinds:
            direction = "higher is better" if metric.higher_is_better else "lower is better"
            print(f"{metric.name}\n  {', '.join(metric.kinds)}; {direction}\n  {definition(metric)}")


def definition(metric: Metric | type[Metric]) -> str:
    """What a metric computes, in a sentence."""
    described = metric.function if isinstance(metric, BuiltinMetric) else metric
    return inspect.cleandoc(described.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def main(argv: list[str]) -> int:
    """`swinft metrics`."""
    return call(metrics, "metrics", argv)
