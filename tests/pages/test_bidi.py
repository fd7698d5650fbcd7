"""Words from right to left are apart from the text around them, and nothing else is changed."""

import html
import random
import re

from swinft.pages.bidi import isolated, marked
from swinft.printing import aligned, visible, width

PARTS = ["שלום", "قطة", "می\u200cخواهم", "cat", "<b>", "&", "12", "0.42", " ", ", ", "(", ")", "猫", "e\u0301", "🎉"]


def test_random_texts_are_the_same_but_for_the_isolation():
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choices(PARTS, k=draw.randint(0, 12)))
        page = str(isolated(text))
        assert html.unescape(re.sub("</?bdi>", "", page)) == text
        assert re.sub("[\u2068\u2069]", "", marked(text)) == text
        assert re.findall("<bdi>(.*?)</bdi>", page) == re.findall("\u2068(.*?)\u2069", marked(text))
        outside = re.sub("<bdi>.*?</bdi>", "", page)
        assert not re.search("[\u0590-\u08ff]", outside)
        assert not re.search("[0-9a-z<&]", "".join(re.findall("<bdi>(.*?)</bdi>", page)))
    assert str(isolated("true: כלב קטן 12, קטה")) == "true: <bdi>כלב קטן</bdi> 12, <bdi>קטה</bdi>"


def test_marks_and_joiners_take_no_column_of_a_terminal():
    names = {"ก\u0e31น": 2, "e\u0301": 1, "हिन्दी": 5, "می\u200cخواهم": 7, "猫": 2, "plain": 5}
    assert {name: width(name) for name in names} == names
    lines = aligned([[name, "1.0"] for name in names])
    assert {width(line) for line in lines} == {7 + 2 + 3}
    assert visible("می\u200cخواهم") == "می\u200cخواهم"
    assert visible("a\u202eb\u200b") == "a\\u202eb\\u200b"
