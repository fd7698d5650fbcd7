"""The step `files`: one row for each file whose path fits a pattern."""

from typing import Any

from swinft.data.image_paths import natural
from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.steps.listing import Search
from swinft.data.tables.steps.path_pattern import parsed
from swinft.data.tables.steps.step import BuiltinStep, name
from swinft.errors import InputError, number_of

PATH = "path"  # the column of the path itself


class FilesStep(BuiltinStep):
    """Lists files: a row for each one whose path fits a pattern, in natural order, with its path in the column `path`.

    Args:
        pattern: A path relative to `data.root`, with columns in braces: `train/{label}/{name}.jpg`. A brace is the
            shortest text that fits, without a slash; `{id:[0-9a-f]{32}}` fits a regular expression. `*` and `?` are
            any text and any character. A part of the path may be a zip or tar archive: `train.zip/{name}.jpg`.
    """

    word, position = "files", "first"

    def __init__(self, pattern: Any) -> None:
        self.pattern = name("pattern", pattern)
        self.folder, self.expressions, self.columns = parsed(self.pattern)
        if PATH in self.columns:
            raise InputError(f"'{pattern}' names the column '{PATH}', which is the whole path; choose another name.")

    def run(self, frame: Frame, context: Context) -> Frame:
        """The files that fit."""
        search, before = Search(context, self.expressions, self.folder), len(context.problems)
        found = sorted(search.matches(), key=lambda each: natural(each[0]))
        if not found and len(context.problems) == before:
            context.fail("no file fits the pattern", search.hint(), context.path(self.pattern), is_missing=True)
        if search.others:
            context.details.append(f"{number_of(search.others, 'other file')}, such as '{search.other}', not used")
        columns = {each: [cells[each] for _, cells in found] for each in self.columns}
        places = context.places(context.path(self.pattern), range(1, len(found) + 1))
        made = Frame({**columns, PATH: [path for path, _ in found]}, places)
        self._check(made, context)
        return made

    def _check(self, frame: Frame, context: Context) -> None:
        """Appends files with the same cells, and names that a table cannot contain."""
        first: dict[tuple[str, ...], int] = {}
        for row, key in enumerate(frame.keys(self.columns)):
            path = frame.columns[PATH][row]
            if not path.isascii() and not _is_unicode(path):
                context.fail_row(frame, row, "the file's name is not UTF-8", f"Rename it: {path!r}.")
            elif (before := first.setdefault(key, row)) != row:
                fix = f"'{frame.columns[PATH][before]}' has the same cells: put in braces what differs."
                context.fail_row(frame, row, "two files give the same row", fix, PATH)


def _is_unicode(path: str) -> bool:
    """Whether a path has no bytes that are not UTF-8, which Python represents by half of a character."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
