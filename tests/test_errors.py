"""Suggestions."""

import pytest

from swinft.errors import suggest


@pytest.mark.parametrize(
    ("word", "allowed", "expected"),
    [
        ("colour", ["color", "size"], " Did you mean 'color'?"),
        ("id", ["Id", "Pawpularity"], " Did you mean 'Id'?"),
        ("zzz", ["color", "size"], " Allowed: color, size."),
        ("zzz", [], ""),
    ],
)
def test_the_nearest_word_is_suggested_whatever_its_case(word, allowed, expected):
    assert suggest(word, allowed) == expected
