"""The ledger as lines of at most 100 characters."""

from collections.abc import Callable, Sequence
from itertools import groupby

from swinft.errors import listed
from swinft.printing import format_brief, format_score, shortened, visible, width
from swinft.run.compare.ledger import Entry

WIDTH = 100
NAME = 28  # of a long name, as many characters are shown
# Columns in their order; a number behind those that are left out first where there is no room.
COLUMNS: dict[str, tuple[int, Callable[[Entry], str]]] = {
    "name": (0, lambda each: each.name),
    "kind": (1, lambda each: "" if each.kind == "run" else each.kind),
    "backbone": (4, lambda each: each.training.backbone or ""),
    "size": (3, lambda each: _size(each)),
    "folds": (
        2,
        lambda each: "" if each.training.folds is None else f"{each.training.folds_done}/{each.training.folds}",
    ),
    "score": (0, lambda each: "" if each.result.score is None else format_score(each.result.score)),
    "spread": (1, lambda each: "" if each.result.spread is None else f"{each.result.spread:.3g}"),
    "public": (1, lambda each: _number(each.submitted.public_score)),
    "private": (1, lambda each: _number(each.submitted.private_score)),
    "time": (2, lambda each: "" if each.training.seconds is None else format_brief(each.training.seconds)),
    "params": (5, lambda each: _millions(each.training.parameters)),
    "date": (3, lambda each: (each.date or "")[:10]),
}
LEFT = ("name", "kind", "backbone")


def ledger_lines(entries: Sequence[Entry], others: Sequence[str]) -> list[str]:
    """A table for each ranking, in the order of the entries; then what is unfinished, and notes."""
    lines = list[str]()
    scored = [each for each in entries if each.result.score is not None]
    hidden = dict[str, None]()
    for _, group in groupby(scored, key=lambda each: each.ranking):
        found = list(group)
        rows, left_out = table_lines(found)
        hidden |= dict.fromkeys(left_out)
        lines += [_title(found[0]), *rows, ""]
    for each in entries:
        if each.lacks:
            lines += cut(f"{visible(each.name)}: {visible(each.lacks)}")
    lines += [line for each in entries if each.note for line in cut(f"note on {visible(each.name)}: {each.note}")]
    if others:
        lines += cut(f"not runs: {listed(map(visible, others), 5)}")
    if hidden:
        lines.append(f"not shown: {', '.join(hidden)}; --json has everything")
    return lines or ["no runs"]


def _title(first: Entry) -> str:
    direction = {True: "higher is better", False: "lower is better", None: "not ranked: its direction is not known"}
    names = [each for each in (first.target, first.train) if each]
    text = (
        f"{first.result.metric}, {direction[first.result.higher_is_better]}{': ' if names else ''}{' of '.join(names)}"
    )
    return cut(visible(text))[0]


def table_lines(entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
    """A header and a line per entry; and the columns for which there is no room."""
    cells = {name: [visible(show(each)) for each in entries] for name, (_, show) in COLUMNS.items()}
    cells = {name: found for name, found in cells.items() if any(found)}
    cells["name"] = [shortened(each, NAME) for each in cells["name"]]
    if "backbone" in cells:
        cells["backbone"] = [shortened(each, NAME) for each in cells["backbone"]]
    sizes = {name: max(width(each) for each in (name, *found)) for name, found in cells.items()}
    left_out = list[str]()
    while sum(sizes.values()) + 2 * (len(sizes) - 1) > WIDTH:
        worst = max(sizes, key=lambda name: COLUMNS[name][0])
        left_out.append(worst)
        del sizes[worst]
    rows = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    return [_line(row, sizes) for row in [{name: name for name in cells}, *rows]], left_out


def _line(row: dict[str, str], sizes: dict[str, int]) -> str:
    padded = []
    for name, size in sizes.items():
        space = " " * (size - width(row[name]))
        padded.append(row[name] + space if name in LEFT else space + row[name])
    return "  ".join(padded).rstrip()


def cut(text: str) -> list[str]:
    """A text as one line of the table's width."""
    return [shortened(text, WIDTH)]


def _size(entry: Entry) -> str:
    found = entry.training.image_size
    return "" if found is None else "x".join(map(str, found)) if isinstance(found, list) else str(found)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f}M" if count >= 1e5 else f"{count / 1e3:.1f}k"
