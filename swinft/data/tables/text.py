"""Text of cells: normalisation, words for a missing value, and equivalent spellings of a name.

The same rules apply to ids, classes, labels, groups, categories and the words of a sample submission. `strip` is
applied to every cell, `normal` to names; `twins` and `Spellings` compare names.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from swinft.errors import InputError

# What pandas, R, SQL and spreadsheets write for a missing value; case is ignored.
MISSING_WORDS = ("", "nan", "na", "n/a", "#n/a", "<na>", "null", "none", "nat")
TRUE, FALSE = frozenset({"true", "t", "yes", "y"}), frozenset({"false", "f", "no", "n"})
ZERO_WIDTH = (
    "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + ZERO_WIDTH
INVISIBLE = {ord(mark): None for mark in ZERO_WIDTH}
# Punctuation that keyboards type in one way and text processors in several.
PLAIN_SIGNS = INVISIBLE | dict.fromkeys(map(ord, "‐‑‒–—―−"), "-") | dict.fromkeys(map(ord, "‘’‚‛“”„‟`´«»"), "'")
WHOLE_OR_DECIMAL = re.compile(r"([+-]?)0*([0-9]+?)(?:\.([0-9]*?)0*)?")
HOW_TWINS_DIFFER = "case, blanks, quotes, the form of a number or of its Unicode characters"

Twins = Literal["error", "distinct"]


@dataclass(frozen=True)
class TextRules:
    """How the names in a table are read.

    Args:
        missing_words: Cells that mean a missing value, in any case; the empty cell always does.
        twins: Two spellings of one name are an `error`, or two names (`distinct`).

    Raises:
        InputError: `missing_words` is not a list of texts.
    """

    missing_words: Sequence[str] = MISSING_WORDS
    twins: Twins = "error"
    _missing: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.missing_words, str) or not all(isinstance(word, str) for word in self.missing_words):
            raise InputError(
                f"data.columns.missing_words is {self.missing_words!r}; write a list of texts, like ['NA', '?']."
            )
        words = {normal(word).casefold() for word in self.missing_words}
        object.__setattr__(self, "_missing", frozenset(words | {""}))

    def is_missing(self, cell: str) -> bool:
        """Whether a cell means a missing value."""
        return cell.casefold() in self._missing

    def missing(self, cells: Iterable[str]) -> Counter[str]:
        """The cells that mean a missing value, each spelling with its count."""
        return Counter(cell for cell in cells if self.is_missing(cell))


def strip(cell: str) -> str:
    """The cell without blanks around it, including no-break and zero-width blanks."""
    return cell.strip() if cell.isascii() else cell.strip(BLANKS)


def normal(cell: str) -> str:
    """The normal form of a name: stripped, in Unicode NFC."""
    cell = strip(cell)
    return cell if cell.isascii() else unicodedata.normalize("NFC", cell)


def as_in_header(names: Any) -> Any:
    """A name of a column or a list of them in the form in which tables have them, `normal`; anything else as it is."""
    if isinstance(names, list | tuple):
        return [as_in_header(name) for name in names]
    return normal(names) if isinstance(names, str) else names


TEXT_RULES = TextRules()


def twin_key(name: str) -> str:
    """A key that is equal for all spellings of one name.

    Spellings differ by case, blanks, invisible characters, quotes around the name, kinds of dashes and quotes, Unicode
    form or width (`é` in one or two characters, `Ａ` and `A`), or are one number (`1`, `01`, `+1`, `1.0`; `0.5`,
    `0.50`). `1e5` is not a spelling of `100000`: it is more often a hash.
    """
    if name.isascii():
        key = name.casefold()
    else:
        key = unicodedata.normalize("NFKC", name.translate(PLAIN_SIGNS)).casefold()
        key = unicodedata.normalize("NFKC", key).translate(PLAIN_SIGNS)
    key = " ".join(key.split())
    while len(key) > 1 and key[0] == key[-1] and key[0] in "'\"":
        key = key[1:-1].strip()
    if len(key) <= 40 and (number := WHOLE_OR_DECIMAL.fullmatch(key)):
        sign, whole, fraction = number.groups()
        key = f"{whole}.{fraction}" if fraction else whole
        return f"-{key}" if sign == "-" and key != "0" else key
    return key


def twins(names: Iterable[str]) -> list[list[str]]:
    """Lists of two or more names that are spellings of one name, in order of occurrence."""
    found: dict[str, dict[str, None]] = {}
    for name in names:
        found.setdefault(twin_key(name), {})[name] = None
    return [list(spellings) for spellings in found.values() if len(spellings) > 1]


class Spellings:
    """Looks up known names by any spelling.

    Args:
        names: The names. If two are spellings of one name, only their exact spelling finds them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = dict.fromkeys(names)
        keys = [(twin_key(name), name) for name in self.names]
        count = Counter(key for key, _ in keys)
        self._by_key = {key: name for key, name in keys if count[key] == 1}

    def find(self, word: str) -> str | None:
        """The known name that the word is a spelling of, an exact match first; None if there is none.

        It matches the words of the sample submission with classes and labels.
        """
        return word if word in self.names else self._by_key.get(twin_key(word))


def counted(words: Counter[str], limit: int = 5) -> str:
    """Words with their counts, most frequent first: `'NaN' 6, '' 3`."""
    shown = ", ".join(f"{word!r} {count:,}" for word, count in words.most_common(limit))
    return shown + (f" and {len(words) - limit:,} others" if len(words) > limit else "")
