"""Finds the files that fit a pattern, in folders and archives."""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from swinft.data.sources.files import FileSource, containing_file
from swinft.data.sources.zip import ZipSource
from swinft.data.tables.csv_lines import missing_folder
from swinft.data.tables.steps.frame import Context
from swinft.data.tables.steps.path_pattern import Part
from swinft.errors import InputError

ARCHIVES = (".zip", ".tar")


class Search:
    """One search for files.

    Args:
        context: Where the folder of the data is, and where to report.
        parts: The parts of the paths below the folder.
        folder: Where it starts, relative to the folder of the data; links must not lead out of it.
    """

    def __init__(self, context: Context, parts: Sequence[Part], folder: str) -> None:
        self.context, self.parts, self.folder = context, parts, folder
        self.inside = context.path(folder) if folder else str(context.root)
        self.files, self.archives = FileSource(context.follow_links), ZipSource()
        self.others, self.other = 0, ""  # files that do not fit: how many, and the first by name

    def matches(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The path of each file that fits, relative to the folder of the data, and its columns."""
        try:
            yield from self._below(self.inside, f"{self.folder}/" if self.folder else "", {}, 0)
        except (InputError, OSError) as error:
            self.context.fail(f"it cannot be read: {error}", "Restore it.", self.inside)

    def hint(self) -> str:
        """What to do if nothing fits."""
        if not os.path.isdir(self.inside) and containing_file(self.inside) is None:
            return missing_folder(Path(self.inside))
        if not self.others and not os.path.isdir(self.inside):
            return self.archives.missing(self.inside)
        if self.others:
            return f"There is '{self.other}': correct the pattern; upper and lower case differ."
        return "Correct the pattern, or restore the files."

    def _below(
        self, folder: str, prefix: str, found: dict[str, str], depth: int
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """The files below a folder that fit the parts from `depth` on; `found` are the columns of the parts before."""
        part, is_last = self.parts[depth], depth == len(self.parts) - 1
        archive = None if os.path.isdir(folder) else containing_file(folder)
        names = self._files(folder, archive) if is_last else self._folders(folder, archive)
        for name in names:
            is_hidden = name.startswith(".") and not part.fits_hidden
            match = None if is_hidden else part.expression.fullmatch(name)
            cells = {} if match is None else {each: match[f"c{k}"] or "" for k, each in enumerate(part.columns)}
            if match is None or any(found.get(each, cell) != cell for each, cell in cells.items()):
                if is_last and not is_hidden:
                    self.others, self.other = self.others + 1, min(self.other or prefix + name, prefix + name)
                continue
            reference = os.path.join(folder, name)
            if not is_last:
                yield from self._below(reference, f"{prefix}{name}/", {**found, **cells}, depth + 1)
            elif flaw := (self.archives if archive else self.files).flaw(reference, self.inside):
                self.context.fail(flaw.message, flaw.fix, reference)
            else:
                yield prefix + name, {**found, **cells}

    def _files(self, folder: str, archive: str | None) -> Collection[str]:
        """The files of a folder."""
        return (self.archives if archive else self.files).names(folder) or ()

    def _folders(self, folder: str, archive: str | None) -> Collection[str]:
        """The folders of a folder, and its archives, which act as folders."""
        if archive:
            inner = f"{folder[len(archive) :].strip('/')}/".lstrip("/")
            below = (each[len(inner) :] for each in self.archives.folders(archive) if each.startswith(inner))
            return {each.partition("/")[0] for each in below if each}
        if not os.path.isdir(folder):
            return ()
        with os.scandir(folder) as entries:
            return [each.name for each in entries if each.is_dir() or each.name.endswith(ARCHIVES)]
