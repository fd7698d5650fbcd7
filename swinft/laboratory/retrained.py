"""A run trained again with one difference, by `swinft fit`, and compared with it, by `swinft compare`."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from swinft.errors import InputError
from swinft.laboratory.instrument import Line
from swinft.laboratory.subjects import RunSubject
from swinft.model.network import ImageModel
from swinft.model.operations import operations
from swinft.pages.figures import SOFT, color_of, label
from swinft.run.api import fit
from swinft.run.compare.command import compare
from swinft.run.layout import Run
from swinft.store import is_committed


def check_finished(subject: RunSubject) -> None:
    """Checks that a run can be compared with another one, and that its backbone is timm's.

    Raises:
        InputError: A fold is not finished, or the backbone is a class.
    """
    run = subject.run
    if run.unfinished_folds() or not is_committed(run.oof):
        raise InputError(f"{subject.given} is not finished: run `{run.resume_command}` first.")
    if not isinstance(subject.experiment.config.model.backbone, str):
        raise InputError(f"{subject.given}: its backbone is a class, and this instrument builds networks of timm.")


def retrained(subject: RunSubject, instrument: str, variant: str, changes: Mapping[str, Any]) -> Run:
    """The run that differs from a subject by some keys; trained if it is not, or continued.

    It lies in the folder of the instrument, under a name with the hash of the subject's config and of the changes.

    Args:
        subject: The run.
        instrument: The instrument's name.
        variant: A word for the difference.
        changes: Keys of the config, dotted.

    Raises:
        InputError: The config is wrong with the changes.
        RunError: A fold has failed.
    """
    options = subject.options
    home = Path(options.output) if options.output else subject.run.root / "lab" / instrument
    content = f"{subject.run.config.read_text(encoding='utf-8')}{sorted(changes.items())}"
    name = f"{variant}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    made = Run.at(home / "runs" / name)
    allow = options.allow_code or ()
    if made.is_run():
        if made.unfinished_folds() or not is_committed(made.oof):
            fit(resume=made.root, allow_code=allow)
        return made
    keys = {"name": name, "runs": str(made.root.parent), **changes}
    keys |= {"data.root": options.root} if options.root else {}
    fit(subject.run.config, keys, allow_code=allow)
    return made


def comparison(subject: RunSubject, made: Run) -> Line:
    """Score of a run on the rows of another one, and its gain with an interval: columns of the CSV."""
    options = subject.options
    runs = [subject.run.root, made.root]
    more = {"allow_code": options.allow_code} if options.allow_code else {}
    table = compare(runs, seed=options.seed, **more).table
    before, after = table["runs"]
    low, high = after["interval"]
    found = {"metric": table["metric"], "rows": table["rows"], "score": after["score"], "base": before["score"]}
    return found | {"gain": after["gain"], "low": low, "high": high}


def size_of(net: ImageModel, side: tuple[int, int]) -> dict[str, Any]:
    """Parameters, and operations of one image: a multiplication with its addition is one."""
    shape = net.image_shape(side)
    more = {"image_mask": torch.ones(1, shape[0], dtype=torch.bool)} if len(shape) == 4 else {}
    device = next(net.parameters()).device
    with operations(net) as counter:
        net.pooled(torch.zeros(1, *shape, device=device), **{name: each.to(device) for name, each in more.items()})
    parameters = sum(parameter.numel() for parameter in net.backbone.parameters())
    return {"parameters": parameters, "gmacs": counter.get_total_flops() / 2e9}


def gains_panel(figure: Figure, measured: Mapping[str, list[Line]], names: Sequence[str], column: str) -> None:
    """Gains with their intervals, a row for each name, a colour for each subject.

    Args:
        figure: The figure.
        measured: Lines with `gain`, `low` and `high`.
        names: The rows.
        column: The column with the name.
    """
    axis = figure.subplots()
    for place, (subject, lines) in enumerate(measured.items()):
        known = [line for line in lines if line["gain"] is not None and line[column] in names]
        heights = [names.index(line[column]) + 0.15 * (place - (len(measured) - 1) / 2) for line in known]
        for height, line in zip(heights, known, strict=True):
            if line["low"] is not None:
                axis.plot([line["low"], line["high"]], [height] * 2, color=color_of(place), linewidth=1.6)
        gains = [line["gain"] for line in known]
        axis.plot(gains, heights, "o", color=color_of(place), markersize=5, label=subject)
    axis.axvline(0, color=SOFT, linewidth=1, linestyle="--")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    label(axis, "", "gain over the run's own network", "")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=6)
