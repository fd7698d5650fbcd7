"""`swinft metrics`: every metric with the kinds of target that it scores, its direction and its definition."""

import inspect

from swinft.data.schema import TargetKind
from swinft.model.metrics import METRICS
from swinft.run.config.parser import call


def metrics(kind: TargetKind | None = None) -> None:
    """Lists the metrics that `model.metrics` takes.

    Args:
        kind: List those of this kind of target only.
    """
    for name, metric in METRICS.items():
        if kind is None or kind in metric.kinds:
            direction = "higher is better" if metric.higher_is_better else "lower is better"
            print(f"{name}\n  {', '.join(metric.kinds)}; {direction}\n  {definition(name)}")


def definition(name: str) -> str:
    """What a metric computes, in a sentence."""
    return inspect.cleandoc(METRICS[name].compute.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def main(argv: list[str]) -> int:
    """`swinft metrics`."""
    return call(metrics, "metrics", argv)
