"""Completes the metrics and rules of a config: what their files say, and the threshold of the labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from swinft.class_spec import parameters_of
from swinft.data.roots import resolved_root
from swinft.data.target.kinds import TARGETS
from swinft.inference.rules.expected_cost import completed
from swinft.model.metrics import METRICS, word_of
from swinft.model.metrics.taxonomy import HierarchicalDistance, read_taxonomy


def complete(config: Namespace) -> None:
    """Writes out what metrics and rules have from elsewhere, so that the frozen config alone defines them.

    - The taxonomy of `hierarchical_distance`, and that or the costs of the rule `expected_cost`, from a file relative
      to `data.root`.
    - `submission.threshold`, for metrics of labels without a threshold of their own, where it is not 0.5.

    Raises:
        InputError: A file cannot be read.
    """
    metrics = config.model.metrics
    for place, given in enumerate(metrics or []):
        found = dict(_found(given, config))
        if found:
            arguments = dict(given[word_of(given)] or {}) if not isinstance(given, str) else {}
            metrics[place] = {word_of(given): {**arguments, **found}}
    config.submission.rules = [completed(rule, config.data.root) for rule in config.submission.rules or []]


def _found(given: Any, config: Namespace) -> Iterator[tuple[str, Any]]:
    """Arguments that a metric of a config has from elsewhere."""
    metric = METRICS.get(word_of(given))
    arguments = {} if isinstance(given, str) else given.get(word_of(given))
    if metric is None or not isinstance(arguments or {}, dict):
        return
    known = arguments or {}
    if metric is HierarchicalDistance and isinstance(known.get("taxonomy"), str):
        yield "taxonomy", read_taxonomy(Path(resolved_root(config.data.root)) / known["taxonomy"])
    target = TARGETS.get(config.data.target_kind) if isinstance(config.data.target_kind, str) else None
    by_threshold = "threshold" in parameters_of(metric) and target is not None and "labels" in target.formats
    if by_threshold and known.get("threshold") is None and config.submission.threshold != 0.5:
        yield "threshold", config.submission.threshold
