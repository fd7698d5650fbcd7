"""The honest score of choosing among trials, against the definition."""

from types import SimpleNamespace

import numpy as np

from swinft.tuning.objective import FitObjective
from swinft.tuning.study import Settings


def test_each_folds_trial_is_chosen_by_the_other_folds(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(6, 4))  # of each trial and fold

    monkeypatch.setattr(FitObjective, "pooled", lambda _, parts: float(np.mean([scores[part] for part in parts])))
    monkeypatch.setattr(FitObjective, "_predicted", lambda _, number, fold: (number, fold))
    monkeypatch.setattr(FitObjective, "_read_data", lambda *_: None)
    monkeypatch.setattr("swinft.tuning.objective.Experiment", SimpleNamespace(of_run=lambda *_: None))
    for higher in (True, False):
        settings = Settings("s", {}, ["score"], "tpe", "none", 1, [0, 1, 2, 3], "m", higher)
        objective = FitObjective(
            SimpleNamespace(keys={"seeds": None}, allow_code=()), SimpleNamespace(run=str), settings
        )
        expected = []
        for fold in range(4):
            others = np.delete(scores, fold, 1).mean(1)
            expected.append(scores[(np.argmax if higher else np.argmin)(others), fold])
        assert np.isclose(objective.nested(list(range(6))), np.mean(expected))
        assert objective.nested([0]) is None
