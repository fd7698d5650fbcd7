"""Inspects networks: traces each, describes it, finds its receptive fields, and writes the page and the drawings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from swinft.architecture.describe import Architecture, Traced, describe, with_fields
from swinft.architecture.drawings import Drawing
from swinft.architecture.field import derived, measured
from swinft.architecture.illustrate import drawings, has_shifted_windows, read_image
from swinft.architecture.networks import CPU, backbone, traced_backbone, traced_run
from swinft.architecture.options import InspectOptions
from swinft.architecture.page import page
from swinft.architecture.text import giga, sides
from swinft.errors import InputError, listed
from swinft.model.backbones.input_size import patch_sides
from swinft.store import probe
from swinft.store import replace as replace_file

MOST_MACS = 25_000_000_000  # of a network whose receptive fields are measured unasked: half a minute on one core


def inspected(
    runs: Sequence[str], names: Sequence[str], options: InspectOptions
) -> tuple[tuple[Architecture, ...], tuple[Path, ...]]:
    """The architectures of runs and backbones, and the files that were written.

    Raises:
        InputError: A network cannot be built.
    """
    image = _prepared(options)
    of_runs = replace(options, image_size=None, backbone_args=None, sizing="swinft") if names else options
    traces = [traced_run(run, of_runs) for run in runs] + [traced_backbone(name, options) for name in names]
    plain = [describe(each) for each in traces]
    _check_drawings(plain, options)
    named = zip(plain, traces, [*[""] * len(runs), *names], strict=True)
    found = tuple(_described(*each, options) for each in named)
    if options.output is None and options.drawings is None:
        return found, ()
    drawn, made = _drawings(traces, found, names, options, image)
    return found, _written(found, drawn, made, options)


def _prepared(options: InspectOptions) -> Any:
    """The image of the drawings, after what will be written is known to be writable; None without any.

    Raises:
        InputError: The image cannot be read, or a folder cannot be written.
    """
    if options.output is not None:
        probe(Path(options.output).parent, what="pages", advice="Name another file with --output.")
    if options.drawings is not None:
        probe(Path(options.drawings), what="drawings", advice="Name another folder with --drawings.")
    return None if options.output is None and options.drawings is None else read_image(options.image)


def _check_drawings(found: Sequence[Architecture], options: InspectOptions) -> None:
    """Refuses drawings that were asked for where there is nothing to draw.

    Raises:
        InputError: No network has shifted windows.
    """
    asked = [f"--{name}" for name in ("image", "drawings") if getattr(options, name) is not None]
    if asked and not any(map(has_shifted_windows, found)):
        raise InputError(
            f"none of the networks has shifted windows, of which the drawings are: remove {listed(asked)}, or add a "
            f"Swin, such as --model.backbone swin_tiny_patch4_window7_224."
        )


def _drawings(
    traces: Sequence[Traced], found: Sequence[Architecture], names: Sequence[str], options: InspectOptions, image: Any
) -> tuple[str, list[Drawing]]:
    """The name of the first network with shifted windows, and its drawings; nothing if there is none."""
    number = next((number for number, each in enumerate(found) if has_shifted_windows(each)), None)
    if number is None:
        return "", []
    named = number - (len(found) - len(names))
    network = traces[number].network if named < 0 else backbone(names[named], options, CPU)
    is_random = named >= 0 or bool(traces[number].notes)
    return found[number].name, drawings(found[number], network, image, is_random)


def _written(
    found: Sequence[Architecture], drawn: str, made: Sequence[Drawing], options: InspectOptions
) -> tuple[Path, ...]:
    """Writes the page and the drawings, and returns their files."""
    files = list[Path]()
    if options.drawings is not None:
        for each in made:
            files.append(Path(options.drawings) / f"{each.name}.{each.kind}")
            replace_file(files[-1], each.content)
    if options.output is not None:
        files.append(Path(options.output))
        replace_file(files[-1], page(found, made, drawn).encode())
    return tuple(files)


def _described(found: Architecture, given: Traced, name: str, options: InspectOptions) -> Architecture:
    """The architecture of a traced network with its receptive fields; `name` is empty for that of a run."""
    notes = [*found.notes, *_padding_notes(found)]
    fields = derived(found.parts, given.size, _patch(given.model)) if options.receptive_field == "auto" else None
    if fields is None and options.receptive_field == "auto" and found.macs > MOST_MACS:
        notes.append(
            f"Receptive fields: measuring them takes long at {giga(found.macs)} GMACs; --receptive-field gradient."
        )
    elif fields is None and options.receptive_field != "off":
        model = backbone(name, options, CPU) if name else given.model
        try:
            fields = measured(model, given.spans, given.size, given.channels, given.prefix)
        except Exception as error:  # a model may raise anything with the weights that it is given here
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            notes.append(f"Receptive fields cannot be measured: {reason}")
    found = replace(found, notes=tuple(notes))
    return found if fields is None else with_fields(found, fields)


def _patch(model: Any) -> tuple[int, int] | None:
    """Height and width of a patch; None if the image is not cut into patches."""
    sides = patch_sides(model)
    return None if sides == (1, 1) else sides


def _padding_notes(found: Architecture) -> list[str]:
    """What happens where windows do not divide the grid."""
    padded, wrapped = list[str](), list[str]()
    for part in found.parts:
        windows = part.attention.widest if part.attention is not None else None
        if windows is None or not windows.padding:
            continue
        padded.append(f"{part.name} to {sides(windows.padded)} ({windows.padding:.0%} of the tokens are padding)")
        wrapped += [part.name] * windows.wraps
    notes = []
    if padded:
        notes.append(f"Windows do not divide the grid, and timm pads {listed(padded)}. Tokens attend to padding.")
    if wrapped:
        notes.append(
            f"It pads after the cyclic shift, behind what the shift has brought from the other edge, so the mask "
            f"misses the seam: in {listed(wrapped)} tokens of opposite edges attend to each other. Leave --sizing "
            f"away for windows that divide the grid."
        )
    return notes
