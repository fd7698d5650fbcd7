"""Creates a source from its name or a custom object, and checks the setting."""

import copy
from typing import Any, Literal, get_args

from swinft.class_spec import errors_of
from swinft.data.sources.column import ColumnSource
from swinft.data.sources.files import FileSource
from swinft.data.sources.hdf5 import HDF5Source
from swinft.data.sources.source import Source
from swinft.data.sources.zip import ZipSource
from swinft.errors import suggest

SourceName = Literal["files", "zip", "hdf5", "column"]


def make_source(given: SourceName | Source, follow_links: bool) -> Source:
    """Creates a source for one datamodule; sources cache what they have listed.

    Args:
        given: A name, or a source to copy.
        follow_links: For `files`.
    """
    if isinstance(given, Source):
        with errors_of(f"data.loading.source: {type(given).__name__} cannot be copied for loader processes"):
            return copy.deepcopy(given)
    makers = {"zip": ZipSource, "hdf5": HDF5Source, "column": ColumnSource}
    return makers[given]() if given in makers else FileSource(follow_links)


def source_problems(source: Any, test_source: Any, follow_links: bool) -> list[str]:
    """Problems of these settings in `data.loading`; one sentence each."""
    names, found = get_args(SourceName), []
    for key, given in {"source": source, "test_source": test_source}.items():
        is_right = isinstance(given, Source) or given in names or (given is None and key == "test_source")
        if not is_right:
            hint = suggest(given, names) if isinstance(given, str) else " Give one of its names, or a swinft.Source."
            found.append(f"data.loading.{key} is '{given}'.{hint}")
    if follow_links and "files" not in (source, test_source):
        found.append("data.loading.follow_links is for data.loading.source 'files'; remove it.")
    return found
