"""The page of `swinft inspect`: tables and drawings in one HTML file, without requests."""

from collections.abc import Sequence
from typing import Any

from swinft.architecture.describe import Architecture
from swinft.architecture.drawings import Drawing
from swinft.architecture.text import LEGEND, compared_rows, table_rows, title
from swinft.pages.page import data_uri, render
from swinft.pages.tables import Cell, Table, formatted

BAR = 120  # pixels of a bar of all MACs


def page(networks: Sequence[Architecture], drawings: Sequence[Drawing], drawn: str) -> str:
    """The page.

    Args:
        networks: What is shown.
        drawings: The drawings.
        drawn: The network that they are of.
    """
    return render(
        "swinft.architecture",
        "swinft inspect" if len(networks) > 1 else networks[0].name,
        styles=["page.css"],
        networks=[_shown(each) for each in networks],
        compared=_side_by_side(networks),
        drawings=[
            {"title": each.title, "text": each.text, "uri": data_uri(each.content, each.kind)} for each in drawings
        ],
        drawn=drawn,
        legend=[*LEGEND, "Bars: the share of a part in all MACs, and in colour that of its attention."],
    )


def _side_by_side(networks: Sequence[Architecture]) -> Table:
    columns, *rows = compared_rows(networks)
    return Table("Networks side by side", columns, [[Cell(name), *map(formatted, more)] for name, *more in rows])


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
