"""Rows to predict that a program has in memory: their table, and their images or the paths of these."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from swinft.data.found_images import Finding
from swinft.data.sources.files import FewFiles, FileSource
from swinft.data.sources.given import GivenImages

FEW = 64  # rows whose files are looked for one by one


@dataclass(frozen=True)
class GivenRows:
    """Rows to predict, in the place of those of `data.test`.

    Args:
        content: The rows as a CSV.
        num_rows: Their number.
        column: Name of the column of their images; None where these are files.
        images: The image of each row, as of `swinft.data.sources.given`.
    """

    content: bytes
    num_rows: int
    column: str | None = None
    images: Sequence[Any] = ()

    def finding(self, files: Finding) -> Finding:
        """What finds their images.

        Args:
            files: What finds the images of rows whose images are files.
        """
        if self.column is not None:
            return replace(files, source=GivenImages(self.column, self.images))
        if self.num_rows <= FEW and type(files.source) is FileSource:  # listing 100,000 files takes 0.1 s
            return replace(files, source=FewFiles(files.source.follow_links))
        return files
