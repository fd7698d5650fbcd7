"""The rules of a run: checked before training, applied to its rows to predict and to its out-of-fold predictions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.columns import Columns
from swinft.data.roots import resolved_root
from swinft.data.samples import Rows
from swinft.data.schema import Schema
from swinft.data.tables.steps.make import given_table, read_given
from swinft.data.tables.table import DataError, Problem, Table
from swinft.data.tables.text import TextRules
from swinft.data.target.base import twin_problems
from swinft.errors import InputError, listed, number_of, suggest
from swinft.inference.rules.builtin import GroupRule
from swinft.inference.rules.expected_cost import completed
from swinft.inference.rules.fitted import FitRows, apply_all, fit_rows, fitted_of, try_fit
from swinft.inference.rules.named import rules_of
from swinft.inference.rules.rule import (
    KEY,
    NUM_EXAMPLES,
    Rule,
    after_rules,
    check_rules,
    columns_of,
    examples,
    label,
    numbered,
    try_rules,
)
from swinft.model.metrics import Metric
from swinft.model.scoring import chosen_metrics
from swinft.model.scoring import score as score_values
from swinft.run.layout import Run
from swinft.run.submission.grouping import GroupConfig, groups_of_several_targets
from swinft.run.submission.plan import SubmissionConfig

if TYPE_CHECKING:
    from swinft.data.datamodule import CSVDataModule


def check_on_tables(
    config: SubmissionConfig,
    train: Rows,
    test: Rows | None,
    schema: Schema,
    text: TextRules,
    metrics: Sequence[str | Metric],
) -> list[Rule]:
    """Checks the rules of a config with the tables, before anything is trained.

    Args:
        config: The settings of the submission, with the rules, and how rows are joined.
        train: The training rows.
        test: The rows to predict; None without them.
        schema: The outputs.
        text: How cells are read.
        metrics: The run's metrics.

    Returns:
        The rules.

    Raises:
        InputError: A rule is wrong, names an unknown output or column, or fails for the tables' first rows.
        DataError: A group is spelled in two ways.
    """
    rules = rules_of(config.rules)
    check_rules(rules, schema)
    tables = [train.table, *([test.table] if test else [])]
    readers = columns_of(rules) | dict.fromkeys(config.group.columns if config.group else [], "submission.group")
    problems = [
        f"{reader} reads the column '{name}', which {table.path} does not have.{suggest(name, table.columns)}"
        for name, reader in readers.items()
        for table in tables
        if name not in table.columns
    ]
    if problems:
        raise InputError("\n  ".join(["the rules are wrong:", *problems]), problems)
    groups = [name for rule in rules if isinstance(rule, GroupRule) for name in rule.columns]
    groups += [config.group.by] if config.group else []
    found = [twin_problems(table, name, Counter(table.names(name)), text) for name in groups for table in tables]
    if any(found):
        raise DataError([problem for each in found for problem in each])
    assert train.targets is not None
    used = np.flatnonzero(train.is_used & train.has_target & ~train.is_extra)
    if not rules or not metrics:  # without a metric another check has failed
        return rules
    given = example_rows(rules, train, used[:NUM_EXAMPLES], schema, text, metrics)
    tried = try_fit(rules, given)
    if after_rules(tried, schema).outputs != schema.outputs:
        _try_metrics(tried, given, metrics)
    for table in (train.table.take(used), *tables[1:]):
        if len(table):
            try_rules(tried, train.targets[used], cells_of(table, columns_of(rules), text), schema)
    return rules


def _try_metrics(rules: Sequence[Rule], given: FitRows, metrics: Sequence[str | Metric]) -> None:
    """Scores example predictions with the outputs that rules add.

    Raises:
        InputError: A metric cannot score them.
    """
    changed, schema = apply_all(rules, given.predictions, given.rows, given.schema)
    every = np.arange(len(changed))
    for metric in chosen_metrics(metrics, schema.kind):
        try:
            given.scorer(metric.name, every, schema.outputs)(changed)
        except Exception as error:  # whatever a metric does with more outputs than classes
            raise InputError(
                f"{KEY}: the rules add the outputs {listed(schema.outputs[len(given.schema.outputs) :], 5)}, and "
                f"{metric.name} (model.metrics) cannot score them: {type(error).__name__}: {error}. Remove the metric, "
                f"or restrict the rule to classes."
            ) from error


def example_rows(
    rules: Sequence[Rule],
    train: Rows,
    used: NDArray[np.int64],
    schema: Schema,
    text: TextRules,
    metrics: Sequence[str | Metric],
) -> FitRows:
    """Training rows with example predictions, to try rules on. Arguments as for `check_on_tables`."""
    assert train.targets is not None
    targets, table = train.targets[used], train.table.take(used)
    rows, frame = cells_of(table, columns_of(rules), text), table.frame(list(range(len(used))))

    def score(metrics: Sequence[str | Metric], values: Any, numbers: Any, outputs: list[str]) -> dict[str, float]:
        own = frame.iloc[numbers].reset_index(drop=True)
        return score_values(metrics, schema.kind, values, targets[numbers], schema.grades, outputs=outputs, rows=own)

    return fit_rows(examples(targets, rows, schema), targets, rows, schema, None, metrics, score)


def describe_rules(rules: Sequence[Rule], data: "CSVDataModule", joined: GroupConfig | None = None) -> list[str]:
    """What `check` and `fit` print about rules and groups of rows: their order, and rows that cannot be joined."""
    if not rules and not joined:
        return []
    lines = [f"rows of the submission: {joined.how} of those with the same '{joined.by}'"] if joined else []
    lines += [f"rules: {', then '.join(map(str, rules))}"] if rules else []
    if fits := list(map(str, fitted_of(rules))):
        lines.append(f"  fitted on the out-of-fold predictions: {', '.join(fits)}")
    scored, text = np.flatnonzero(data.is_scored), data.settings.columns.rules
    tables = [data.train_table.take(scored), *([data.test_table] if data.splits.has_test else [])]
    readers = [(label(number, rule), *rule.columns) for number, rule in numbered(rules) if isinstance(rule, GroupRule)]
    readers += [("submission.group", joined.by)] if joined else []
    for reader, name in readers:
        for table in tables:
            empty = int((cells_of(table, [name], text)[name] == "").sum())
            if empty:
                rows = number_of(empty, "row has", "rows have")
                lines.append(f"  note: {reader}: {rows} no '{name}' in {table.path}, and no group")
        folds: dict[str, set[int]] = {}
        for group, fold in zip(cells_of(tables[0], [name], text)[name], data.fold_of_row[scored].tolist(), strict=True):
            folds.setdefault(group, set()).add(fold)
        if several := sum(len(each) > 1 for group, each in folds.items() if group):
            groups = number_of(several, "group has", "groups have")
            lines.append(
                f"  note: {reader}: {groups} rows in several folds, of which each is joined alone for the "
                f"out-of-fold score; data.folds.group: {name} keeps groups together"
            )
    if joined:
        names = cells_of(tables[0], [joined.by], text)[joined.by].tolist()
        if wrong := groups_of_several_targets(names, data.targets[scored]):
            groups = number_of(len(wrong), "group has", "groups have")
            lines.append(
                f"  note: submission.group: {groups} rows with different targets, as '{wrong[0]}': the out-of-fold "
                f"score of groups will not be known"
            )
    return lines


def cells_of(table: Table, names: Sequence[str] | Mapping[str, str], text: TextRules) -> pd.DataFrame:
    """Columns of a table as rules read them: names, `""` where they are missing; the index are the ids."""
    cells = {name: ["" if text.is_missing(cell) else cell for cell in table.names(name)] for name in names}
    return pd.DataFrame(cells, index=table.ids, dtype=object)


def requested_rules(
    run: Run, frozen: Sequence[Any], given: Sequence[Any] | None, allow_code: Sequence[str], root: str
) -> list[Rule]:
    """The rules of an option, or of a run's config without one.

    Args:
        run: The run.
        frozen: The rules in its config.
        given: The option: names, mappings of a name to arguments, and class paths.
        allow_code: Packages or modules that custom rules may come from.
        root: The data's folder, in which files of rules are.

    Raises:
        InputError: A rule is wrong, or its class is not allowed.
    """
    if given is None and any(isinstance(each, Mapping) and "class_path" in each for each in frozen):
        from swinft.run.experiment import Experiment  # slow to import, and seldom needed

        return rules_of(Experiment.of_run(run, "submit", list(allow_code)).section("submission")["rules"])
    found: list[Any] = []
    for each in frozen if given is None else given:
        spec: Any = {"class_path": each} if isinstance(each, str) and "." in each else each
        if isinstance(spec, Mapping) and "class_path" in spec:
            from swinft.run.config.trust import named_class  # as above

            cls, arguments = named_class(str(spec["class_path"]), KEY, allow_code), spec.get("init_args")
            try:
                spec = cls(**({} if arguments is None else dict(arguments)))
            except TypeError as error:
                raise InputError(f"--rules: {each}: {error}") from error
        found.append(completed(spec, root))
    return rules_of(found)


def rows_to_predict(
    names: Mapping[str, str], data: Mapping[str, Any], columns: Columns, ids: Sequence[str]
) -> pd.DataFrame:
    """Columns of the rows to predict.

    Args:
        names: The columns, each with what reads it.
        data: The section `data` of the run's config.
        columns: Its columns, with the id of the sample submission.
        ids: The ids of the predictions, in order.

    Raises:
        InputError: There is no table of the rows to predict, or it lacks a column or an id.
    """
    if not names:
        return pd.DataFrame(index=list(ids))
    table = table_to_predict(names, data, columns)
    if absent := sorted(set(ids).difference(table.ids)):
        raise InputError(f"{KEY}: {table.path} does not have the predicted ids {listed(absent, 5)}, nor their columns.")
    return cells_of(table, names, columns.rules).loc[list(ids)]


def table_to_predict(names: Mapping[str, str], data: Mapping[str, Any], columns: Columns) -> Table:
    """The table of the rows to predict. Arguments as for `rows_to_predict`.

    Raises:
        InputError: There is none.
        DataError: It is missing or wrong, or lacks a column.
    """
    given = given_table("data.test", data["test"]) or given_table("data.sample_submission", data["sample_submission"])
    if not given:
        raise InputError(f"{next(iter(names.values()))} reads columns of the rows to predict: set data.test.")
    problems: list[Problem] = []
    id, setting = columns.id_of(data["id"], is_sample=not data["test"])
    root, follow_links = Path(resolved_root(data["root"])), data["loading"]["follow_links"]
    table = read_given(given, root, id, names, problems, columns.encoding, setting, follow_links)
    if table is None or problems:
        raise DataError(problems, data["loading"]["download"])
    return table
