"""The run's config and environment."""

import json

from swinft.run.report.contents import ReportInput
from swinft.run.report.section import Section, render

LEAD = "With these and the data the run can be made again."


def section(report: ReportInput) -> Section | None:
    """The section."""
    config = report.run.config.read_text(encoding="utf-8")
    environment = json.dumps(report.environment, indent=1)
    body = render("sections/settings.html", config=config, environment=environment)
    return Section("settings", "Config and environment", LEAD, body)
