"""The rows of all ranks are scored once each, whatever loaders gave them."""

import pytest
import torch

from swinft.errors import InputError
from swinft.model.evaluation import Evaluated, pooled_rows


def rank(rows, targets):
    rows, targets = torch.tensor(rows), torch.tensor(targets)
    return Evaluated(rows, rows[:, None].float(), targets, torch.ones(len(rows)))


def test_rows_that_ranks_repeat_and_padding_are_scored_once():
    """Lightning's own sampler repeats rows, so that all ranks have as many; ours pads with -1."""
    pooled = pooled_rows(
        [rank([4, 0, 2, -1], [0.5, 1.0, float("nan"), 9.0]), rank([2, 3, 4, -1], [float("nan"), 1, 0.5, 8])]
    )
    assert pooled.rows.tolist() == pooled.predictions[:, 0].tolist() == [0, 2, 3, 4]
    assert pooled.targets.nan_to_num(-1).tolist() == [1.0, -1.0, 1.0, 0.5]


def test_one_number_for_two_rows_is_an_error():
    with pytest.raises(InputError, match=r"two rows with the number 2 .* number each row of the loaders differently"):
        pooled_rows([rank([1, 2], [0, 1]), rank([2, 3], [0, 1])])
