"""The search for a batch size."""

import pytest

from swinft.run.find.batch import batch_for, next_size


@pytest.mark.parametrize("start", [1, 6, 32, 100])
@pytest.mark.parametrize("most", [1, 3, 12, 100, 4096])
def test_the_search_ends_close_below_the_limit(start, most):
    for limit in [*range(130), 1000, 5000]:
        fits = {}
        while (size := next_size(fits, start, most)) is not None:
            assert 1 <= size <= most
            assert size not in fits
            fits[size] = size <= limit
        found = max((size for size, fit in fits.items() if fit), default=0)
        assert found <= limit
        assert found >= min(most, limit * 4 / 5)
        assert len(fits) < 20


@pytest.mark.parametrize(
    ("effective", "largest", "expected"),
    [(32, 32, (32, 1)), (32, 500, (32, 1)), (32, 24, (16, 2)), (12, 5, (4, 3)), (31, 30, (1, 31)), (96, 40, (32, 3))],
)
def test_a_step_keeps_its_rows(effective, largest, expected):
    assert batch_for(effective, largest) == expected
