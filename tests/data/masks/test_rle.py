"""Run-length encoding against a loop over pixels, for any mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from swinft.data.masks.rle import area, decode, encode, parse, runs_problem, text_of

MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def pixel_by_pixel(text, shape, order):
    """A decoder of another kind: a loop."""
    mask = np.zeros(shape, bool)
    numbers = list(map(int, text.split()))
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for position in range(start - 1, start - 1 + length):
            y, x = (position % shape[0], position // shape[0]) if order == "columns" else divmod(position, shape[1])
            mask[y, x] = True
    return mask


@settings(deadline=None, max_examples=60)
@given(MASKS, st.sampled_from(["columns", "rows"]))
def test_any_mask_comes_back_in_both_orders(mask, order):
    text = text_of(encode(mask, order))
    np.testing.assert_array_equal(pixel_by_pixel(text, mask.shape, order), mask)
    np.testing.assert_array_equal(decode(parse(text), mask.shape, order), mask)
    assert area(parse(text)) == mask.sum()
    assert text_of(parse(text)) == text


def test_the_competitions_example_counts_down_the_columns_from_1():
    mask = np.array([[1, 0], [1, 0], [1, 1]])
    assert text_of(encode(mask)) == "1 3 6 1"
    assert text_of(encode(mask, "rows")) == "1 1 3 1 5 2"
    assert text_of(encode(np.zeros((3, 2)))) == ""
    np.testing.assert_array_equal(decode(parse(""), (3, 2)), np.zeros((3, 2), bool))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "3 numbers"),
        ("1 x", "'x'"),
        ("-1 2", "'-1'"),
        ("1.0 2", "'1.0'"),
        ("٣ 2", "no whole number"),
        ("0 2", "counted from 1"),
        ("1 0", "at least one pixel"),
        ("5 2 1 2", "not sorted"),
        ("1 3 3 2", "1 3 and 3 2"),
        ("9" * 30 + " 1", "no position"),
    ],
)
def test_a_cell_that_is_no_encoding_says_why(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_runs_beyond_the_image_are_found_and_runs_that_touch_are_not_wrong():
    assert runs_problem(parse("1 6"), (2, 3)) == ""
    assert "ends at 7" in runs_problem(parse("1 2 4 4"), (2, 3))
    with pytest.raises(ValueError, match="6 pixels"):
        decode(parse("1 7"), (2, 3))
    assert decode(parse("1 2 3 1"), (2, 3)).sum() == 3
