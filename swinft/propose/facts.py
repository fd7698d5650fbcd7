"""What is in a folder of data: tables, images, their sizes. A pure look; nothing is written."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from swinft.propose.listing import Listing, list_folder
from swinft.propose.scattered import Scattered, find_scattered
from swinft.propose.tables import TableFacts, read_facts
from swinft.propose.templates import Images, Template, find_templates

MOST_TABLES = 40


@dataclass(frozen=True)
class Facts:
    """What a folder holds.

    Args:
        listing: Its files.
        tables: Its tables, those nearest to the root first.
        problems: What could not be read, one line each.
    """

    listing: Listing
    tables: list[TableFacts]
    problems: list[str]

    @property
    def root(self) -> Path:
        """The folder."""
        return self.listing.root

    @cached_property
    def images(self) -> Images:
        """The images, to look up paths."""
        return Images(self.listing)

    @cached_property
    def _templates(self) -> dict[int, list[Template]]:
        return {}

    @cached_property
    def _scattered(self) -> dict[int, Scattered | None]:
        return {}

    def templates(self, table: TableFacts) -> list[Template]:
        """How the images of a table's rows are named, the best first."""
        if id(table) not in self._templates:
            self._templates[id(table)] = find_templates(table, self.images)
        return self._templates[id(table)]

    def scattered(self, table: TableFacts) -> Scattered | None:
        """The images of a table's rows, where they are spread over several folders."""
        if id(table) not in self._scattered:
            self._scattered[id(table)] = find_scattered(table, self.listing.groups)
        return self._scattered[id(table)]

    def describe(self) -> list[str]:
        """The tables and the images, line by line."""
        lines = []
        for table in self.tables:
            names = ", ".join([*table.columns][:8]) + (" …" if len(table.columns) > 8 else "")
            lines.append(f"{table.path}: {table.num_rows:,} rows, {len(table.columns):,} columns ({names})")
        for group in self.listing.groups:
            about = "" if group.is_exact else "about "
            lines.append(
                f"{group.pattern}: {about}{group.count:,} files"
                + (f" in {group.container}" if group.container != "files" else "")
            )
        return lines


def look(root: Path) -> Facts:
    """Looks at a folder.

    Raises:
        InputError: It is not a folder.
    """
    listing = list_folder(root)
    problems = list(listing.problems)
    paths = sorted(listing.tables, key=lambda path: (path.count("/"), len(os.path.basename(path)), path))
    tables = [table for path in paths[:MOST_TABLES] if (table := read_facts(root, path, problems)) is not None]
    if len(paths) > MOST_TABLES:
        problems.append(f"{len(paths) - MOST_TABLES:,} more files that may be tables were not read")
    return Facts(listing, [table for table in tables if table.num_rows and table.columns], problems)
