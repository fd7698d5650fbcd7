"""What a table may hold: the forms of text, numbers and paths that exports, spreadsheets and people produce."""

import pytest

from swinft.data.text import Spellings, TextRules, normal, strip, twin_key, twins


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "Cat "),
        ("café", "cafe\u0301"),
        ("Ａ１", "a1"),
        ("New York", "New\u00a0\u00a0york"),
        ("ab", "a\u200bb"),
        ("red", "'red'"),
        ("T-shirt", "t–shirt"),
        ("Straße", "STRASSE"),
        ("1", "01"),
        ("1", "1.0"),
        ("-1", "−1."),
        ("0.5", "0.50"),
        ("0", "-0.00"),
    ],
)
def test_f057_two_spellings_of_one_name_have_one_key(one, other):
    assert twin_key(one) == twin_key(other)
    assert twins([one, "x", other]) == [[one, other]]
    assert Spellings([one]).find(other) == one


@pytest.mark.parametrize(
    ("one", "other"), [("1", "10"), ("1e5", "100000"), ("a b", "ab"), ("1.05", "1.5"), ("-1", "1"), ("'", "''")]
)
def test_different_names_have_different_keys(one, other):
    assert twin_key(one) != twin_key(other)
    assert twins([one, other]) == []


def test_numbers_of_any_length_are_compared_digit_by_digit():
    assert twin_key("12345678901234567890123456789") != twin_key("12345678901234567890123456788")


def test_a_spelling_finds_a_name_only_where_one_name_can_be_meant():
    known = Spellings(["a", "A", "b"])
    assert [known.find(word) for word in ("a", "A", "B", " a", "c")] == ["a", "A", "b", None, None]


def test_blanks_of_every_kind_are_stripped_and_names_composed():
    assert strip("\u200b \u00a0x y\u3000\ufeff") == "x y"
    assert strip("cafe\u0301 ") == "cafe\u0301"
    assert normal("cafe\u0301 ") == "café"


def test_f055_missing_words_are_the_same_in_any_case_and_can_be_set():
    rules = TextRules()
    assert rules.missing(["NaN", "None", "", "x", "NaN"]) == {"NaN": 2, "None": 1, "": 1}
    assert TextRules(["?"]).missing(["?", "None", ""]) == {"?": 1, "": 1}
