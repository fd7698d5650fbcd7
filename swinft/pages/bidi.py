"""Words that are written from right to left stay apart: without it they change the order of the numbers beside them."""

import re

from markupsafe import Markup, escape

LETTER = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff"
BETWEEN = " \u00a0\u200c\u200d'\"’׳״-"  # what words of one name have between them
WORDS = re.compile(f"[{LETTER}]+(?:[{BETWEEN}]+[{LETTER}]+)*")
START, END = "\u2068", "\u2069"  # first strong isolate, pop directional isolate


def isolated(text: str) -> Markup:
    """A text as HTML, escaped: Arabic, Hebrew and other words from right to left are elements of their own."""
    if text.isascii():
        return escape(text)
    found, at = Markup(), 0
    for each in WORDS.finditer(text):
        found += escape(text[at : each.start()]) + Markup("<bdi>{}</bdi>").format(each[0])
        at = each.end()
    return found + escape(text[at:])


def marked(text: str) -> str:
    """The same for attributes, SVG and scripts, where there are no elements: by invisible characters."""
    return text if text.isascii() else WORDS.sub(lambda found: f"{START}{found[0]}{END}", text)
