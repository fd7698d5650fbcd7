"""The figures of a search's report."""

import re
from types import SimpleNamespace

import pytest

from swinft.tuning.report import slices
from swinft.tuning.results import COMPLETE, Row
from swinft.tuning.space import Parameter


@pytest.mark.parametrize(
    ("high", "expected"), [(1e-2, {"0.0001", "0.001", "0.01"}), (8e-4, {"0.0001", "0.0002", "0.0004"})]
)
def test_logarithmic_parameters_are_labelled_with_numbers(high, expected):
    study = SimpleNamespace(
        space=SimpleNamespace(parameters=[Parameter("model.optim.lr", low=1e-4, high=high, log=True)])
    )
    rows = [Row(k, COMPLETE, 1, 0.5, {}, {"model.optim.lr": lr}) for k, lr in enumerate((1e-4, high))]
    svg = slices(study, rows, {}).shown().svg
    assert set(re.findall(r">([^<>]+)</text>", svg)) >= {*expected, "model.optim.lr"}
