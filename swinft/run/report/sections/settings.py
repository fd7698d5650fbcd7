"""How the run was made: the command, what differs from the defaults, every key, and the versions."""

import json
from collections.abc import Mapping
from typing import Any

from swinft.errors import command
from swinft.pages.tables import Cell, Table
from swinft.run.config.old_keys import migrated
from swinft.run.config.parser import plain
from swinft.run.config.sections import build_parser
from swinft.run.config.yaml_text import read_own_yaml
from swinft.run.provenance import remake_command
from swinft.run.report.contents import ReportInput
from swinft.run.report.section import Section, render

LEAD = "With these and the data the run can be made again."
UNSET = object()


def section(report: ReportInput) -> Section | None:
    """The section."""
    text = report.run.config.read_text(encoding="utf-8")
    environment = report.environment
    versions = [[Cell(name), Cell(str(value))] for name, value in environment.get("versions", {}).items()]
    others = [[Cell(name), Cell(_text(value))] for name, value in environment.items() if name != "versions"]
    body = render(
        "sections/settings.html",
        command=_command(report),
        changes=Table(
            "Keys that differ from the defaults", ["key", "value", "default"], changed_keys(text), is_text=True
        ),
        environment=Table("Environment", ["", "version or value"], [*versions, *others], is_sortable=False),
        config=text,
    )
    return Section("settings", "Config and environment", LEAD, body)


def _command(report: ReportInput) -> str:
    """The command that makes the run again, where its config's paths lead; of an ensemble, from its ensemble.yaml."""
    if report.run.is_embedding:
        return remake_command(report.run)
    if report.run.is_ensemble:
        return command("ensemble", report.run.root / "ensemble.yaml", "--name", "NAME")
    return command("fit", "--config", report.run.config, "--name", "NAME")


def changed_keys(text: str) -> list[list[Cell]]:
    """The keys of a frozen config whose value is not the default: key, value and default."""
    config = flat(read_own_yaml(migrated(text)))
    defaults = flat(plain(build_parser("fit").get_defaults()))
    rows = []
    for key, value in config.items():
        default = defaults.get(key, UNSET)
        if default is not UNSET and _text(default) == _text(value):
            continue
        if default is UNSET and value is None:
            continue
        rows.append([Cell(key), Cell(_text(value)), Cell("" if default is UNSET else _text(default))])
    return rows


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted keys; objects with a `class_path`, and what is empty, are values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and "class_path" not in value:
            found |= flat(value, f"{key}.")
        else:
            found[key] = value
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
