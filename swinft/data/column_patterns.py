"""Patterns such as `tbp_lv_*` in lists of columns: replaced by the names that they match in the training table."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from swinft.data.tables.steps.frame import is_pattern, matched_columns
from swinft.data.tables.table import Problem, Table
from swinft.errors import suggest

if TYPE_CHECKING:
    from swinft.data.columns import Columns
    from swinft.data.data_settings import DataSettings
    from swinft.data.schema import Schema


def has_patterns(settings: "DataSettings") -> bool:
    """Whether a list of columns has patterns that are not replaced yet."""
    given = [*settings.columns.features, *(settings.target if isinstance(settings.target, list) else [])]
    return not settings.is_matched and any(map(is_pattern, given))


def exact(settings: "DataSettings", names: Sequence[str]) -> list[str]:
    """The names without patterns that are not replaced yet."""
    return [name for name in names if settings.is_matched or not is_pattern(name)]


def matched(settings: "DataSettings", table: Table, problems: list[Problem]) -> "DataSettings":
    """The settings with names in place of patterns.

    A pattern stands for the columns that it matches, in the order of the table, without those that another setting
    names exactly: so `tbp_lv_*` can be numbers although one of them is a category.

    Args:
        settings: The settings.
        table: The training table.
        problems: Patterns that match nothing are appended.

    Raises:
        InputError: Two settings name the same column.
    """
    if not has_patterns(settings):
        return settings
    columns, folds = settings.columns, settings.folds
    target = settings.target if isinstance(settings.target, list) else [settings.target]
    named = {settings.id, *target, *columns.features, *columns.auxiliary_columns, *settings.image.columns}
    named |= {columns.weight_column or "", folds.group or "", folds.column or ""}
    free = [name for name in table.columns if name not in named]

    def found(key: str, given: list[str] | None) -> list[str] | None:
        if given is None:
            return None
        names: dict[str, None] = {}
        for each in given:
            chosen = [each] if each in table.columns or not is_pattern(each) else matched_columns([each], free)
            if not chosen:
                fix = f"Change {key}.{suggest(each, free)}"
                problems.append(Problem(str(table.path), "no column matches the pattern", fix, column=each))
            names |= dict.fromkeys(chosen)
        return list(names)

    numbers = found("data.columns.numeric_features", columns.numeric_features)
    categories = found("data.columns.categorical_features", columns.categorical_features)
    new = replace(columns, numeric_features=numbers, categorical_features=categories)
    targets = found("data.target", settings.target) if isinstance(settings.target, list) else settings.target
    return _replaced(settings, targets, new) if targets else settings


def by_schema(settings: "DataSettings", schema: "Schema") -> "DataSettings":
    """The settings with the names that the patterns matched in the training table of a schema."""
    if not has_patterns(settings):
        return settings
    columns = settings.columns
    numbers = None if columns.numeric_features is None else list(schema.numeric_features)
    categories = None if columns.categorical_features is None else list(schema.categories)
    new = replace(columns, numeric_features=numbers, categorical_features=categories)
    target = settings.target if isinstance(settings.target, str) else list(schema.outputs)
    return _replaced(settings, target, new)


def _replaced(settings: "DataSettings", target: str | list[str], columns: "Columns") -> "DataSettings":
    """The settings with other names, checked again."""
    new = replace(settings, target=target, columns=columns)
    object.__setattr__(new, "is_matched", True)
    return new
