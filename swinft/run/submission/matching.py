"""Matches the sample submission with the run: its columns with outputs, its words with classes."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from swinft.data.schema import Schema
from swinft.data.tables.text import twin_key
from swinft.errors import InputError
from swinft.run.config.yaml_text import yaml_text
from swinft.run.submission.sample import Sample

SHOWN_NAMES = 10
# Pairs of class names; a single probability is that of the second one.
NEGATIVE_POSITIVE = (
    ("0", "1"),
    ("-1", "1"),
    ("false", "true"),
    ("f", "t"),
    ("no", "yes"),
    ("n", "y"),
    ("negative", "positive"),
    ("neg", "pos"),
    ("absent", "present"),
)
# Conversions of the run's spelling to the sample's. The one that matches most of the sample's words is used.
SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda word: word,
    lambda word: word.partition(".")[0] if _is_whole(word) else word,
    lambda word: f"{word}.0" if word.lstrip("-").isdigit() else word,
    lambda word: unicodedata.normalize("NFD", word),  # names of files on a Mac; those of a run are in NFC
    str.lower,
    str.upper,
    str.capitalize,
    str.title,
    lambda word: word.replace(" ", "_"),
    lambda word: word.replace("_", " "),
    lambda word: word.replace(" ", "_").lower(),
    lambda word: word.replace("_", " ").lower(),
)


def match_columns(
    sample: Sample, schema: Schema, columns: Mapping[str, str], keep: Sequence[str], drop: Sequence[str]
) -> dict[str, int]:
    """The index of each column's output.

    Args:
        sample: The sample submission.
        schema: The run's outputs.
        columns: Output by column, if their names differ.
        keep: Columns that are not filled.
        drop: Outputs that fill no column.

    Raises:
        InputError: A column has no output, or an output no column; all of them are named, with a suggested mapping.
    """
    outputs = schema.outputs
    wanted = {column: columns.get(column, column) for column in sample.targets if column not in keep}
    place = {name: k for k, name in reversed(list(enumerate(outputs)))}
    filled = {column: place[output] for column, output in wanted.items() if output in place}
    odd = [column for column in wanted if column not in filled]
    used, counts = set(filled.values()), Counter(wanted.values())
    unused = [name for k, name in enumerate(outputs) if k not in used and name not in drop]
    twice = [name for name in outputs if counts[name] > 1 or (name in drop and name in wanted)]
    if not (odd or unused or twice):
        return filled
    lines = [f"the columns of {sample.source} are not those that the run predicts:"]
    lines += [f"without a prediction: {_some(odd)}"] if odd else []
    lines += [f"predicted, but without a column: {_some(unused)}"] if unused else []
    lines += [f"for more than one column, or for one and dropped: {_some(twice)}"] if twice else []
    raise InputError("\n  ".join([*lines, *_advice(sample, schema, odd, unused)]))


def _advice(sample: Sample, schema: Schema, odd: list[str], unused: list[str]) -> list[str]:
    """Settings that fix columns and outputs that do not match."""
    words = [name for name in odd if sample.numbers(name) is None and knows_words(schema.outputs, sample.words(name))]
    others = [name for name in odd if name not in words]
    lines = []
    if words:
        keep = f"keep the sample's cells in the others: submission.keep: {in_yaml(others)}"
        lines.append(f"{_some(words)} has classes: {keep if others else 'set submission.format to label'}")
    elif odd and unused:
        pairs = _pairs(odd, unused)
        lines.append(f"If these are the same, name them: submission.columns: {in_yaml(pairs)}")
    if odd and not words:
        lines.append(f"To keep the sample's cells in columns: submission.keep: {in_yaml(odd)}")
    if unused and not words:
        lines.append(f"To leave outputs out: submission.drop: {in_yaml(unused)}")
    return [*lines, "Or point data.sample_submission to the right file."]


def positive_class(sample: Sample, column: str, outputs: list[str], columns: Mapping[str, str]) -> int:
    """The one of two classes whose probability a single column contains.

    It is the class in the settings, the class in the column's name, or the second of a pair like 0 and 1, no and yes.

    Raises:
        InputError: It is ambiguous.
    """
    if column in columns:
        return outputs.index(columns[column])
    forms = [_form(name) for name in outputs]
    if forms.count(_form(column)) == 1:
        return forms.index(_form(column))
    for negative, positive in NEGATIVE_POSITIVE:
        if set(forms) == {negative, positive}:
            return forms.index(positive)
    raise InputError(
        f"{sample.source}: column '{column}' has the probability of one class, but of which of {outputs}? Set "
        f"submission.columns to {in_yaml({column: outputs[1]})} or to {in_yaml({column: outputs[0]})}."
    )


def knows_words(outputs: Sequence[str], found: Sequence[str], words: Mapping[str, str] | None = None) -> bool:
    """Whether there are words, and all of them are outputs in some spelling."""
    known = {_form((words or {}).get(name, name)) for name in outputs}
    return bool(found) and all(_form(word) in known for word in found)


def resolve_words(
    sample: Sample, column: str, outputs: list[str], found: Sequence[str], words: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """The text of each output: the word in the settings, or the output in the sample's spelling.

    Args:
        sample: The sample submission.
        column: The column that is filled.
        outputs: Classes or labels.
        found: The words of the sample's cells.
        words: Words in the settings, by output.

    Returns:
        A word per output, and notes, one line each.

    Raises:
        InputError: No word of the sample matches an output, and the settings have no words; or two outputs have the
            same word.
    """
    known, given = set(outputs), set(found)
    spellings = {_number_form(word): _like_number(word) for word in found}  # few, though words may be many
    spelling = max((*SPELLINGS, *spellings.values()), key=lambda spell: len({spell(name) for name in outputs} & given))
    by_form = {_form(word): word for word in found if word not in known}
    usual = [name if name in given else by_form.get(_form(name), spelling(name)) for name in outputs]
    written = [words.get(name, word) for name, word in zip(outputs, usual, strict=True)]
    doubled = sorted(word for word, count in Counter(written).items() if count > 1)
    if doubled:
        raise InputError(f"submission.words: {doubled} would be written for more than one class.")
    to_write = set(written)
    strange = [word for word in found if word not in to_write]
    garbled = next((word for word in strange if _holds_names(word, written)), None)
    if garbled and not words:
        raise InputError(
            f"{sample.source}: column '{column}' has {garbled!r}: several of the run's classes or labels, or one with "
            f"other characters. submit writes {written[0]!r}. For sets of labels set submission.delimiter to the text "
            f"between them; submission.words: {in_yaml({outputs[0]: written[0]})} writes the names as they are."
        )
    if found and len(strange) == len(found) and not words:
        pairs = dict.fromkeys(outputs, "…")
        raise InputError(
            f"{sample.source}: column '{column}' has {_some([repr(word) for word in found])}, which are not "
            f"classes of the run: {_some(outputs)}. Set the text of each class in submission.words: "
            f"{in_yaml(pairs)}; submission.words: {in_yaml({outputs[0]: outputs[0]})} writes the classes as they "
            f"are. Or point data.sample_submission to the right file."
        )
    notes = []
    if strange:
        notes.append(f"the sample's {_some([repr(word) for word in strange])} in '{column}' is not a class of the run")
    changed = [f"{name} as {word}" for name, word in zip(outputs, written, strict=True) if name != word]
    if changed:
        notes.append(f"written with other names: {_some(changed)}")
    return written, notes


def _holds_names(word: str, names: Sequence[str]) -> bool:
    """Whether a word contains one of the names, between punctuation or spaces."""
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", word) for name in names if name)


def _pairs(odd: list[str], unused: list[str]) -> dict[str, str]:
    """The most similar output of each column, each once; the remaining columns get the remaining outputs in order."""
    left, pairs = list(unused), {}
    for column in sorted(odd, key=lambda name: -max(_similarity(name, other) for other in unused)):
        if left:
            pairs[column] = max(left, key=lambda name: _similarity(column, name))
            left.remove(pairs[column])
    return {column: pairs[column] for column in odd if column in pairs}


def _similarity(one: str, other: str) -> float:
    one, other = one.casefold(), other.casefold()
    starts = other.startswith(one) or one.startswith(other)
    return starts + difflib.SequenceMatcher(None, one, other).ratio()


def _form(word: str) -> str:
    """A normal form, equal for all spellings of one name, with underscores as spaces."""
    return twin_key(word.replace("_", " "))


def _number_form(word: str) -> tuple[int, str, str] | None:
    """The width of a whole number, and its point and decimals, which are zeros; None for other words."""
    whole, point, rest = word.partition(".")
    if not whole.isdecimal() or rest.strip("0"):
        return None
    return len(whole) if whole.startswith("0") else 1, point, rest


def _like_number(word: str) -> Callable[[str], str]:
    """Formats whole numbers with the leading zeros and decimals of a word: `7` as `007`, like `012`."""
    form = _number_form(word)
    if form is None:
        return lambda name: name
    width, point, rest = form
    return lambda name: f"{name.partition('.')[0].lstrip('0').zfill(width)}{point}{rest}" if _is_number(name) else name


def _is_number(word: str) -> bool:
    return word.isdecimal() or (_is_whole(word) and not word.startswith("-"))


def _is_whole(word: str) -> bool:
    """Whether a word is a whole number followed by `.0`, as pandas writes a column with missing cells."""
    whole, point, rest = word.partition(".")
    return bool(point) and whole.lstrip("-").isdigit() and bool(rest) and not rest.strip("0")


def in_yaml(value: Mapping[str, str] | Sequence[str]) -> str:
    """A mapping or list as one line of YAML: `{label: 'yes'}`; ten entries at most."""
    is_map = isinstance(value, Mapping)
    shown = dict(list(value.items())[:SHOWN_NAMES]) if isinstance(value, Mapping) else list(value)[:SHOWN_NAMES]
    rest = [] if len(value) <= SHOWN_NAMES else ["…"]
    written = yaml_text(shown, flow=True, width=10**9).strip()
    return ", ".join([written[:-1], *rest]) + ("}" if is_map else "]")


def _some(names: Sequence[str]) -> str:
    rest = f", … and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + rest
