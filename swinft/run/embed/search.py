"""Which model is fitted: its arguments, and the search among several values within the rows of a fit.

Shapes: N rows, K outputs.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from swinft.errors import InputError, suggest
from swinft.run.config.parser import options_from
from swinft.run.embed.learner import Learner, Targets
from swinft.run.embed.methods import MODELS
from swinft.run.embed.model import Model

MOST = 200  # combinations of values in a search
Parts = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True)
class Wanted:
    """The models that `--fit` names: one, or several whose best is searched.

    Args:
        models: The models.
        given: What `--fit` names, as plain values.
    """

    models: list[Model]
    given: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.models[0].name


def read_fit(given: Any) -> Wanted:
    """The models that `--fit` names.

    Args:
        given: A name, or a mapping of one name to its arguments; lists of values are searched.

    Raises:
        InputError: The name or an argument is unknown, or a value is wrong.
    """
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = yaml.safe_load(given)
        except yaml.YAMLError as error:
            raise InputError(f"--fit {given}: it is neither a name nor a mapping: {error}") from None
    spec = {given: None} if isinstance(given, str) else given
    if not isinstance(spec, Mapping) or len(spec) != 1:
        raise InputError(f'--fit is {given!r}: name one model, like svr, or {{"svr": {{"C": 10}}}}.')
    name, arguments = next(iter(spec.items()))
    if name not in MODELS:
        raise InputError(f"--fit {name}: there is no such model.{suggest(str(name), MODELS)}")
    if not isinstance(arguments, Mapping | None):
        raise InputError(f'--fit {name}: its arguments are {arguments!r}: write a mapping, like {{"C": 10}}.')
    values = {key: each if isinstance(each, list) else [each] for key, each in (arguments or {}).items()}
    if empty := [key for key, each in values.items() if not each]:
        raise InputError(f"--fit {name}: {empty[0]} is an empty list.")
    many = math.prod(map(len, values.values()))
    if many > MOST:
        raise InputError(f"--fit {name}: {many:,} combinations of values; {MOST} at most.")
    found = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    try:
        models = [options_from(MODELS[name], each) for each in found]
    except InputError as error:
        raise InputError(f"--fit {name}: {error}") from None
    return Wanted(models, json.loads(json.dumps({name: dict(arguments or {})})))


def searched(
    learners: list[Learner],
    values: NDArray[np.float32],
    features: NDArray[np.float32] | None,
    rows: Targets,
    parts: Parts,
    gain: Callable[[NDArray[np.float32], NDArray[np.int64]], float],
) -> tuple[Learner, list[dict[str, Any]]]:
    """The learner with the best score of rows that it is not fitted on, within the rows of a fit.

    Args:
        learners: The learners.
        values: Embeddings of the rows of the fit.
        features: Their metadata.
        rows: Their targets.
        parts: Which of these rows are fitted on and scored, several times.
        gain: The metric of predictions of some of these rows, by their positions; higher is better.

    Returns:
        It, and the gain of every learner, with its arguments.

    Raises:
        InputError: The metric is undefined for every combination of values.
    """
    if len(learners) == 1:
        return learners[0], []
    held = np.concatenate([scored for _, scored in parts])
    table = []
    for learner in learners:
        found = []
        for fitted_on, scored in parts:
            own = None if features is None else features[fitted_on]
            learned = learner.fit(values[fitted_on], own, rows.take(fitted_on))
            others = None if features is None else features[scored]
            found.append(learner.predict(learned, values[scored], others))
        table.append(gain(np.concatenate(found), held))
    if max(table) == -math.inf:
        raise InputError("--fit: the metric is undefined for every combination of values: give one value each.")
    best = int(np.argmax(table))
    tried = zip(learners, table, strict=True)
    return learners[best], [{"arguments": each.model.arguments, "gain": value} for each, value in tried]
