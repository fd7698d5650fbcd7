"""The text of cells: its normal form, the words for a missing value, and which spellings stand for one name.

One rule for all that a table holds as text: ids, classes, labels, groups, categories and the words of a sample
submission. `strip` is applied to every cell that is read, `normal` to names, `twins` and `Spellings` to compare them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from swinft.errors import InputError

# What pandas, R, SQL and spreadsheets write for a value that is not there; compared without regard to case.
MISSING_WORDS = ("", "nan", "na", "n/a", "#n/a", "<na>", "null", "none", "nat")
TRUE, FALSE = frozenset({"true", "t", "yes", "y"}), frozenset({"false", "f", "no", "n"})
ZERO_WIDTH = (
    "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + ZERO_WIDTH
INVISIBLE = {ord(mark): None for mark in ZERO_WIDTH}
# Signs that one keyboard types in one way and a text processor in several.
PLAIN_SIGNS = INVISIBLE | dict.fromkeys(map(ord, "‐‑‒–—―−"), "-") | dict.fromkeys(map(ord, "‘’‚‛“”„‟`´«»"), "'")
WHOLE_OR_DECIMAL = re.compile(r"([+-]?)0*([0-9]+?)(?:\.([0-9]*?)0*)?")
HOW_TWINS_DIFFER = "case, blanks, quotes, the form of a number or of its Unicode characters"

Twins = Literal["error", "distinct"]


@dataclass(frozen=True)
class TextRules:
    """How the names in a table are read.

    Args:
        missing_words: Cells that stand for a missing value, whatever their case; the empty cell always does.
        twins: Two spellings of one name are an `error`, or two names (`distinct`).

    Raises:
        InputError: `missing_words` is no list of texts.
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
        """Whether a cell stands for a missing value."""
        return cell.casefold() in self._missing

    def missing(self, cells: Iterable[str]) -> Counter[str]:
        """The cells that stand for a missing value, each spelling with its count."""
        return Counter(cell for cell in cells if self.is_missing(cell))


def strip(cell: str) -> str:
    """The cell without blanks around it: no-break blanks and marks of no width are blanks too."""
    return cell.strip() if cell.isascii() else cell.strip(BLANKS)


def normal(cell: str) -> str:
    """The normal form of a name: without blanks around it, and with composed characters (Unicode NFC)."""
    cell = strip(cell)
    return cell if cell.isascii() else unicodedata.normalize("NFC", cell)


TEXT_RULES = TextRules()


def twin_key(name: str) -> str:
    """Equal for all spellings of one name.

    Spellings differ by case, by the number and kind of blanks, by invisible marks, by quotes around the whole name, by
    kinds of dashes and quotes, by Unicode form and width (`é` in one or two characters, `Ａ` and `A`), or are one
    number (`1`, `01`, `+1`, `1.0`; `0.5`, `0.50`). `1e5` is no spelling of `100000`: it is more often a hash.
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
    """Names that are spellings of one, in lists of two or more; in the order in which they come."""
    found: dict[str, dict[str, None]] = {}
    for name in names:
        found.setdefault(twin_key(name), {})[name] = None
    return [list(spellings) for spellings in found.values() if len(spellings) > 1]


class Spellings:
    """Known names, to be found by any spelling.

    Args:
        names: The names. Where two are spellings of one, only their own spelling finds them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = dict.fromkeys(names)
        keys = [(twin_key(name), name) for name in self.names]
        count = Counter(key for key, _ in keys)
        self._by_key = {key: name for key, name in keys if count[key] == 1}

    def find(self, word: str) -> str | None:
        """The known name that the word is a spelling of, itself before any other; None where there is none.

        The sample submission's words are compared with the classes and labels by this.
        """
        return word if word in self.names else self._by_key.get(twin_key(word))


def counted(words: Counter[str], limit: int = 5) -> str:
    """Words with their counts, the most frequent first: `'NaN' 6, '' 3`."""
    shown = ", ".join(f"{word!r} {count:,}" for word, count in words.most_common(limit))
    return shown + (f" and {len(words) - limit:,} others" if len(words) > limit else "")
