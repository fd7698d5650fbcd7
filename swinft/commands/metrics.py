"""`swinft metrics`: list every metric with its kinds of target, its direction, its definition and its arguments."""

import inspect
from typing import Any

from docstring_parser import parse

from swinft.class_spec import parameters_of
from swinft.data.target.kinds import TargetKind
from swinft.json_output import Output
from swinft.model.metrics import METRICS, Metric
from swinft.run.config.parser import call


def metrics(
    kind: TargetKind | None = None, also: list[str] | None = None, allow_code: list[str] | None = None
) -> Output:
    """Lists the metrics that `model.metrics` accepts.

    Args:
        kind: List only metrics for this kind of target.
        also: Custom metric classes to list as well: `mymetric.Within`.
        allow_code: Packages or modules that custom metrics may come from.

    Raises:
        InputError: A class is not a metric, or is not allowed.
    """
    listed: list[type[Metric]] = list(METRICS.values())
    if also:
        from swinft.run.config.trust import named_class  # slow to import

        listed += [named_class(name, "model.metrics", allow_code or []) for name in also]
    shown = [metric for metric in listed if kind is None or kind in metric.kinds]
    for metric in shown:
        direction = "higher is better" if metric.higher_is_better else "lower is better"
        lines = [f"{', '.join(metric.kinds)}; {direction}", definition(metric), *arguments(metric)]
        print("\n  ".join([metric.name, *lines]))
    return {"metrics": [_described(metric) for metric in shown]}


def _described(metric: type[Metric]) -> dict[str, Any]:
    """A metric as plain values."""
    about = {"name": metric.name, "kinds": metric.kinds, "higher_is_better": metric.higher_is_better}
    return about | {"definition": definition(metric), "arguments": [line.strip() for line in arguments(metric)]}


def definition(metric: type[Metric]) -> str:
    """What a metric computes, in a sentence."""
    return inspect.cleandoc(metric.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def arguments(metric: type[Metric]) -> list[str]:
    """The arguments of a metric, one line each: name, default and meaning."""
    known = {each.arg_name: each.description or "" for each in parse(metric.__doc__ or "").params}
    lines = []
    for each in parameters_of(metric).values():
        default = "" if each.default is each.empty else f" ({'null' if each.default is None else each.default})"
        meaning = " ".join(known.get(each.name, "").split())
        lines.append(f"  {each.name}{default}: {meaning}")
    return lines


def main(argv: list[str]) -> Output:
    """`swinft metrics`."""
    return call(metrics, "metrics", argv)
