"""Sample submissions in long format: a row for each row to predict and output, `ID12__weight`.

Their predictions have a column per output. The plan is made for a sample with such columns (wide), and its cells are
written to the rows of the long one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from swinft.data.sample_rows import LongIds, long_ids, split_ids
from swinft.errors import InputError
from swinft.run.submission.sample import Sample


@dataclass(frozen=True)
class Long:
    """A long sample.

    Args:
        sample: The sample as it is in the file.
        column: Its column of values.
        ids: The row to predict and the output of each of its rows.
    """

    sample: Sample
    column: str
    ids: LongIds

    @property
    def wide(self) -> Sample:
        """The same with a row for each row to predict, and a column for each output."""
        rows, words = list(dict.fromkeys(self.ids.rows)), list(dict.fromkeys(self.ids.words))
        row_of = {id: row for row, id in enumerate(rows)}
        cells = {word: [""] * len(rows) for word in words}
        for id, word, cell in zip(self.ids.rows, self.ids.words, self.sample.cells[self.column], strict=True):
            cells[word][row_of[id]] = cell
        deciding = self.sample.deciding
        known = None if deciding is None else dict.fromkeys(words, deciding[self.column])
        id = self.sample.keys[0] if len(self.sample.keys) > 1 else self.sample.id
        return Sample(self.sample.source, id, [id, *words], rows, cells, deciding=known)

    def first(self) -> "Long":
        """Its first row alone."""
        return replace(self, sample=self.sample.first(), ids=self.ids.first())

    def rows(self, wide: Mapping[str, list[str]], id: str) -> dict[str, list[str]]:
        """The cells of the id and the values, from the columns of a wide submission."""
        at = {row: number for number, row in enumerate(wide[id])}
        values = [wide[word][at[row]] for row, word in zip(self.ids.rows, self.ids.words, strict=True)]
        keys = self.sample.keys
        own = {name: list(self.sample.cells[name]) for name in keys} if len(keys) > 1 else {id: list(self.sample.ids)}
        return {**own, self.column: values}


def long_sample(sample: Sample, keep: Sequence[str], pattern: str | None, predicted: Sequence[str]) -> Long | None:
    """The long form of a sample; None if it has a row for each row to predict.

    Where two columns name the id and the output of a row, they decide.

    Args:
        sample: The sample.
        keep: Columns that are not predicted.
        pattern: How its ids are made; None to find it.
        predicted: Ids of the rows to predict.

    Raises:
        InputError: The pattern does not fit, or several columns are to be filled.
    """
    is_pair = len(sample.keys) > 1
    if is_pair and pattern is not None:
        raise InputError(f"submission.rows takes ids apart, and submission.id is {[*sample.keys]}: remove one of them.")
    if pattern is None and not is_pair and (not sample.cells or set(sample.ids) == set(predicted)):
        return None
    if is_pair:
        named = [list(sample.cells[name]) for name in sample.keys]
        found: LongIds | None = LongIds(", ".join(f"{{{name}}}" for name in sample.keys), named[0], named[1])
    else:
        found = long_ids(sample.ids, predicted) if pattern is None else split_ids(sample.ids, predicted, pattern)
    if found is None:
        return None
    free = [column for column in sample.targets if column not in keep]
    if len(free) != 1:
        raise InputError(
            f"{sample.source} has a row for each row and output (submission.rows: '{found.pattern}'), so that one "
            f"column is filled, and it has {free}: list those that keep the sample's cells in submission.keep."
        )
    return Long(sample, free[0], found)
