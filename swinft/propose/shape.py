"""Training rows as a run reads them, and the rows to predict: what reshaping makes of tables and files."""

from dataclasses import dataclass, field
from typing import Any

from swinft.propose.tables import TableFacts
from swinft.propose.targets import Target
from swinft.propose.templates import Template


@dataclass(frozen=True)
class ToPredict:
    """The rows to predict.

    Args:
        image: How their images are named.
        id: Their id column; None to be found.
        steps: Steps that make them; empty for a table as it is.
        why: Why these.
        sample_steps: Steps that make the sample submission.
        files: Templates of the files of a row, where each row has several.
    """

    image: Template | None = None
    id: str | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    why: str = ""
    sample_steps: list[dict[str, Any]] = field(default_factory=list)
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pixels:
    """Images whose pixels are in a table.

    Args:
        side: In pixels.
        channels: Columns that each hold a channel, where there are several.
    """

    side: int
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Files:
    """Images of which each row has several files.

    Args:
        paths: Their templates.
        are_channels: Whether each of them is a channel of one image.
    """

    paths: tuple[str, ...]
    are_channels: bool


@dataclass(frozen=True)
class Reshaped:
    """The training rows as a run reads them, one per image.

    Args:
        train: The rows, with the steps that make them.
        why: Why this table.
        image: How their images are named.
        test: The rows to predict.
        other_images: Further ways in which images are named.
        id: The id column, and why; None to be found.
        target: The target, where the shape tells it.
        used: Columns that are no metadata and no target.
        has_split: Whether a column `fold` holds a given validation split.
        counts: Rows of each class, where files are counted.
        loading: More keys, each with its value and reason.
        notes: What is to be known, one sentence each.
        categories: Columns that tell rows of one image apart: metadata.
        group: The column of the folds' groups, and why, where the shape tells it.
        made_of: What images consist of, where that is not a file each.
    """

    train: TableFacts
    why: str
    image: Template | None
    test: ToPredict = ToPredict()
    other_images: tuple[Template, ...] = ()
    id: tuple[str, str] | None = None
    target: Target | None = None
    used: tuple[str, ...] = ()
    has_split: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    loading: tuple[tuple[str, Any, str], ...] = ()
    notes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    group: tuple[str, str] | None = None
    made_of: Pixels | Files | None = None
