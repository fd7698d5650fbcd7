"""Options that do not fit together."""

import pytest

from swinft.errors import InputError
from swinft.tuning.options import TuneOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "--trials is 0"),
        ({"hours": 0.0}, "--hours is 0"),
        ({"jobs": 1000}, "--jobs is 1000"),
        ({"folds": []}, "--folds is []; give at least one"),
        ({"folds": [1, 1]}, "each once"),
        ({"folds": [-1]}, "--folds is [-1]"),
        ({"objective": []}, "--objective is []"),
        ({"objective": ["score", "seconds"], "sampler": "cmaes"}, "cmaes is for one objective"),
        ({"objective": ["score", "seconds"], "pruner": "median"}, "it is for --objective score alone"),
        ({"resume": True, "overwrite": True}, "give one of them"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(InputError) as error:
        TuneOptions(**options)
    assert message in str(error.value)


def test_trials_end_early_only_where_there_is_something_left_to_save():
    assert TuneOptions().pruner_for(5) == "median"
    assert TuneOptions().pruner_for(1) == "none"
    assert TuneOptions(objective=["score", "seconds"]).pruner_for(5) == "none"
    with pytest.raises(InputError, match="a trial has one fold"):
        TuneOptions(pruner="hyperband").pruner_for(1)
