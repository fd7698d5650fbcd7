"""Architectures as lines of at most 100 characters: a table of each, and one of all side by side."""

import textwrap
from collections.abc import Sequence

from swinft.architecture.attention import Attention
from swinft.architecture.describe import Architecture, Part
from swinft.printing import aligned, shortened

HEADER = ("", "grid", "width", "blocks", "heads", "window", "shift", "parameters", "GMACs", "attn.", "MSA", "field")
LEGEND = (
    "GMACs: 10⁹ multiplications with an addition, of one row; attn.: share of attention in them, with its projections.",
    "MSA: what attention among all tokens would cost, over what the attention costs; field: receptive field in px.",
)
COMPARED = ("", "px", "parameters", "GMACs", "attention", "tokens", "last grid", "keys", "field")
LONGEST, WIDTH = 34, 100


def giga(macs: int) -> str:
    """10⁹ MACs with two decimals, or as many as show two digits: `4.49`, `0.014`."""
    value = macs / 1e9
    return f"{value:.2f}" if value >= 0.1 or not macs else f"{value:.2g}"


def sides(pair: tuple[int, int] | None) -> str:
    """`56×56`; nothing if it is not known."""
    return "" if pair is None else f"{pair[0]}×{pair[1]}"


def field_text(part: Part) -> str:
    """The receptive field of a part: `61×61`, or `all` for the whole image."""
    return "" if part.field is None else "all" if part.field.is_whole else sides((part.field.height, part.field.width))


def shift_text(attention: Attention | None) -> str:
    """The shift of every other block: `3`, or `3×2`; 0 where windows stay where they are."""
    if attention is None or attention.widest is None:
        return ""
    rows, columns = attention.widest.shift
    return str(rows) if rows == columns else sides((rows, columns))


def window_text(attention: Attention | None) -> str:
    """The window; or what a token attends to: `all`, or the number of its keys."""
    if attention is None:
        return ""
    if attention.widest is not None:
        return sides(attention.widest.window)
    return {"all tokens": "all", "channels": "channels"}.get(attention.reach or "", f"{attention.keys} keys")


def ratio_text(attention: Attention | None) -> str:
    """The cost of attention among all tokens: `13.81×`."""
    return "" if attention is None or attention.ratio is None else f"{attention.ratio:.2f}×"


def share_text(share: float | None) -> str:
    """A share in percent."""
    return "" if share is None else f"{share:.0%}" if share >= 0.095 or not share else f"{share:.1%}"


def cells(part: Part) -> list[str]:
    """A row of the table of an architecture."""
    attention = part.attention
    return [
        part.name,
        sides(part.grid),
        "" if part.channels is None else str(part.channels),
        str(part.blocks or ""),
        "" if attention is None else str(attention.heads or ""),
        window_text(attention),
        shift_text(attention),
        f"{part.parameters:,}",
        giga(part.macs),
        share_text(part.attention_share),
        ratio_text(attention),
        field_text(part),
    ]


def title(architecture: Architecture) -> str:
    """Name, size, parameters and MACs."""
    images = "" if architecture.images == 1 else f", {architecture.images} images a row"
    return (
        f"{architecture.name} at {architecture.image_size[0]} x {architecture.image_size[1]} px{images}: "
        f"{architecture.parameters:,} parameters, {giga(architecture.macs)} GMACs"
    )


def table_rows(architecture: Architecture) -> list[list[str]]:
    """An architecture, part by part: a header, and a row for each; columns that say nothing of it are left out."""
    total = ["total", *[""] * 6, f"{architecture.parameters:,}", giga(architecture.macs)]
    total += [share_text(architecture.attention_share or None), "", ""]
    rows = [list(HEADER), *[cells(part) for part in architecture.parts], total]
    used = [column for column in range(len(HEADER)) if any(row[column] for row in rows[1:])]
    return [[row[column] for column in used] for row in rows]


def table(architecture: Architecture) -> list[str]:
    """The same as lines, with its title and its notes."""
    lines = aligned(table_rows(architecture))
    body = f"without classifier: {architecture.body[0]:,} parameters, {giga(architecture.body[1])} GMACs"
    return [title(architecture), *lines, *[body] * bool(architecture.classifier[0]), *_wrapped(architecture.notes)]


def _wrapped(notes: Sequence[str]) -> list[str]:
    return [line for note in notes for line in textwrap.wrap(note, WIDTH)]


def compared_rows(architectures: Sequence[Architecture]) -> list[list[str]]:
    """Architectures side by side: a header, and a row for each."""
    rows = [list(COMPARED)]
    for each in architectures:
        stages = [part for part in each.parts if part.grid is not None]
        attending = [part.attention for part in each.parts if part.attention is not None]
        rows.append(
            [
                shortened(each.name, LONGEST),
                sides(each.image_size),
                f"{each.parameters:,}",
                giga(each.macs),
                share_text(each.attention_share) if attending else "",
                f"{stages[0].tokens:,}" if stages else "",
                sides(stages[-1].grid) if stages else "",
                str(attending[0].keys) if attending else "",
                field_text(stages[-1]) if stages else "",
            ]
        )
    return rows


def lines(architectures: Sequence[Architecture]) -> list[str]:
    """What the command prints."""
    printed = list[str]()
    for each in architectures:
        printed += [*table(each), ""]
    if len(architectures) > 1:
        printed += [*aligned(compared_rows(architectures)), ""]
    return [*printed, *LEGEND]
