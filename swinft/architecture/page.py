"""The page of `swinft inspect`: tables and drawings in one HTML file, without scripts and without requests."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from swinft.architecture.describe import Architecture
from swinft.architecture.drawings import Drawing
from swinft.architecture.text import LEGEND, compared_rows, table_rows, title
from swinft.pages import data_uri, policy_source, templates

BAR = 120  # pixels of a bar of all MACs


def page(networks: Sequence[Architecture], drawings: Sequence[Drawing], drawn: str) -> str:
    """The page.

    Args:
        networks: What is shown.
        drawings: The drawings.
        drawn: The network that they are of.
    """
    style = files("swinft.architecture").joinpath("page.css").read_text(encoding="utf-8")
    template = templates("swinft.architecture").get_template("page.html")
    return template.render(
        title="swinft inspect" if len(networks) > 1 else networks[0].name,
        style=Markup(style),  # a file of the package
        style_source=policy_source(style),
        networks=[_shown(each) for each in networks],
        compared=compared_rows(networks),
        drawings=[
            {"title": each.title, "text": each.text, "uri": data_uri(each.content, each.kind)} for each in drawings
        ],
        drawn=drawn,
        legend=[*LEGEND, "Bars: the share of a part in all MACs; dark is its attention."],
    )


def _shown(network: Architecture) -> dict[str, Any]:
    """A network as the template shows it."""
    shares = []
    for part in network.parts:
        whole, attention = part.macs / max(1, network.macs), part.attention.macs if part.attention else 0
        label = f"{whole:.1%} of all MACs, {attention / max(1, network.macs):.1%} attention"
        shares.append((f"{BAR * whole:.1f}", f"{BAR * attention / max(1, network.macs):.1f}", label))
    return {
        "name": network.name,
        "title": title(network),
        "rows": table_rows(network),
        "shares": shares,
        "notes": network.notes,
    }
