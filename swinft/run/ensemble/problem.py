"""Makes what an ensemble is fitted and scored on, of members that are read.

Shapes: M members, N rows, K outputs.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swinft.model.metrics import Metric
from swinft.run.ensemble.members import Base, Member
from swinft.run.ensemble.nested import Problem
from swinft.run.room import refuse_too_much
from swinft.run.scoring import row_scorer


def make_problem(base: Base, members: Sequence[Member], rows: NDArray[np.int64], metric: Metric) -> Problem:
    """The members' predictions of some training rows, with their targets, folds and metric."""
    data, schema = base.data, base.data.schema
    refuse_too_much(
        2 * 8 * len(members) * len(rows) * len(schema.outputs),  # float64 of each, and of what is tried
        f"the predictions of {len(members)} members, {len(rows):,} rows and {len(schema.outputs):,} outputs",
        "Combine fewer members, or use a machine with more memory.",
    )
    scores = row_scorer(base.metrics[:1], data, rows)
    targets, weights, splits = data.targets[rows], data.score_weights, data.splits.train
    return Problem(
        names=[member.spec.name for member in members],
        members=np.stack([member.oof.values[rows] for member in members]).astype(np.float64),
        targets=np.eye(len(schema.outputs))[targets] if targets.ndim == 1 else targets.astype(np.float64),
        folds=data.fold_of_row[rows],
        weights=np.ones(len(rows)) if weights is None else weights[rows].astype(np.float64),
        target=schema.base,
        score=lambda values, chosen: scores(values, chosen)[metric.name],
        higher_is_better=metric.higher_is_better,
        compares_order=metric.compares_order,
        groups=None if splits.groups is None else np.array(splits.groups)[rows],
        features=None if splits.features is None else splits.features[rows].astype(np.float64),
        outputs=schema.outputs,
        by_columns=metric.columns,
    )
