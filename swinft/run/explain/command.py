"""The command `explain`, and `swinft.explain` in Python: writes the maps of rows, and a page of them."""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swinft.data.schema import Schema
from swinft.extras import check_extra
from swinft.json_output import Output
from swinft.printing import format_score, print_line
from swinft.run import api, layout
from swinft.run.config.parser import options_from
from swinft.run.explain.maps import Explained, chosen_outputs, explained
from swinft.run.explain.options import OF_METHODS, ExplainOptions, MethodOptions
from swinft.run.explain.overlay import colored, enlarged, overlaid, rgb_of, scaled
from swinft.run.explain.page import page_of
from swinft.run.explain.rows import Row, rows_of
from swinft.run.lock import hold_if_writable
from swinft.run.python_inputs import plain, python_inputs
from swinft.store import commit, probe

PRODUCER = "swinft explain"
FOLDER, PAGE = "explain", "explain.html"
LONGEST = 60  # characters of a part of a file's name
ATTENTION = ("rollout", "windows")  # methods whose maps are nowhere 0


@dataclass(frozen=True)
class Explanation:
    """An output of a row, explained; `swinft.explain` returns one of each.

    Args:
        id: The row.
        output: Its name.
        value: Its prediction in the competition's units; of a mask the mean probability.
        networks: Names of the networks whose maps were averaged.
        difference: Of their prediction from the committed one; None if there is none.
        maps: float32 (V, H, W), one of each image, before they are scaled for display.
        facts: What else the method says: `layer`, `completeness_error`, ….
        files: The files, by what they are: `overlay`, `map`, and `npy` if asked for; a list of each, one per image.
    """

    id: str
    output: str
    value: float
    networks: list[str]
    difference: float | None
    maps: NDArray[np.float32]
    facts: dict[str, Any]
    files: dict[str, list[Path]]

    def to_dict(self) -> dict[str, Any]:
        """As `swinft explain --json` prints it."""
        shown = {name: value for name, value in vars(self).items() if name != "maps"}
        return {**shown, "files": {name: [str(path) for path in paths] for name, paths in self.files.items()}}


@dataclass(frozen=True)
class Explanations:
    """What `swinft.explain` returns.

    Args:
        page: The page, `explain.html`.
        method: The method.
        rows: One of each row and output.
    """

    page: Path
    method: str
    rows: list[Explanation]

    def output(self) -> Output:
        """As `swinft explain --json` prints it."""
        return {"page": str(self.page), "method": self.method, "rows": [row.to_dict() for row in self.rows]}


def explain_run(run: layout.Run, ids: Sequence[str], options: ExplainOptions, own: MethodOptions) -> Explanations:
    """Explains rows of a run, writes images and page, and prints a line of each.

    Raises:
        InputError: A row, an output or a network does not exist, or the method does not fit the backbone.
        RunError: The networks do not predict what the run has committed.
    """
    own.check(options.method)
    if options.method == "integrated-gradients":
        check_extra("captum", "explain", "captum, which computes integrated gradients,")
    run.check_trained()
    folder = Path(options.folder) if options.folder else run.root / FOLDER
    with hold_if_writable(run.lock):
        probe(folder, what="explanations", advice="Name another folder with --folder.")
        schema = Schema.from_dict(run.read_schema())
        threshold = float((run.read_config().get("submission") or {}).get("threshold", 0.5))
        found, shown = [], []
        for row in rows_of(run, ids, options):
            for output in chosen_outputs(row, schema, options, threshold):
                each = explained(row, output, schema, options, own)
                made, pictures = _written(folder, row, each, options)
                found.append(made)
                shown.append((made, pictures))
                print_line(_line(made, options))
        order = {id: number for number, id in enumerate(ids)}
        shown.sort(key=lambda pair: order[pair[0].id])
        page = folder / PAGE
        commit(page, page_of(run.root.name, options, shown).encode(errors="replace"), PRODUCER)
    print_line(f"{page}")
    return Explanations(page, options.method, sorted(found, key=lambda each: order[each.id]))


def explain(
    run: "str | Path | api.Run",
    ids: Sequence[str],
    method: str = "gradcam",
    *,
    allow_code: str | Sequence[str] = (),
    **options: Any,
) -> Explanations:
    """Explains predictions of a run; does and prints the same as `swinft explain`.

    Args:
        run: The run, or its folder.
        ids: Ids of rows, as text.
        method: `gradcam`, `rollout`, `windows`, `integrated-gradients` or `occlusion`.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.
        options: The other options of `swinft explain`: `output`, `rows`, `fold`, `layer`, `stage`, `baseline`, ….

    Returns:
        The page, and maps and files of each row and output.

    Raises:
        InputError: A row, an output or a network does not exist, or the method does not fit the backbone.
        RunError: The networks do not predict what the run has committed.
    """
    with python_inputs():
        folder = run.folder if isinstance(run, api.Run) else run
        allowed = [allow_code] if isinstance(allow_code, str) else list(allow_code)
        own = {name: value for name, value in options.items() if name in OF_METHODS}
        rest = {name: value for name, value in options.items() if name not in OF_METHODS}
        rest |= {"method": method, "allow_code": allowed or None}
        given = options_from(ExplainOptions, plain(rest)), options_from(MethodOptions, plain(own))
        names = [ids] if isinstance(ids, str) else [str(id) for id in ids]
        return explain_run(layout.Run.open(folder), names, *given)


def file_name(name: str) -> str:
    """A name from a table as a part of a file's name; what cannot be one is replaced, with a digest of the whole."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:LONGEST]
    if safe and safe == name:
        return name
    return f"{safe or 'row'}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _written(
    folder: Path, row: Row, each: Explained, options: ExplainOptions
) -> tuple[Explanation, list[tuple[Image.Image, Image.Image]]]:
    """Writes the files of an output of a row; returns also image and overlay of each image, for the page."""
    maps = scaled(each.maps, each.is_signed, from_least=options.method in ATTENTION)
    images = row.image[0] if row.image.ndim == 5 else row.image
    stem = f"{file_name(row.id)}.{options.method}.{file_name(each.output)}"
    files: dict[str, list[Path]] = {"overlay": [], "map": []}
    pictures = []
    for number, (image, map) in enumerate(zip(images, maps, strict=True)):
        if row.image_mask is not None and not bool(row.image_mask[0, number]):
            continue
        own = stem if len(images) == 1 else f"{stem}.{number}"
        shown, over = rgb_of(image), enlarged(overlaid(rgb_of(image), map, each.is_signed), each.cuts)
        pictures.append((enlarged(shown), over))
        for kind, picture in (("overlay", over), ("map", enlarged(colored(map, each.is_signed)))):
            path = folder / f"{own}{'' if kind == 'overlay' else '.map'}.png"
            commit(path, _png(picture), PRODUCER)
            files[kind].append(path)
        if options.npy:
            buffer = io.BytesIO()
            np.save(buffer, each.maps[number])
            path = folder / f"{own}.npy"
            commit(path, buffer.getvalue(), PRODUCER)
            files.setdefault("npy", []).append(path)
    given = (row.id, each.output, each.value, row.networks, row.difference, each.maps, each.facts, files)
    return Explanation(*given), pictures


def _line(made: Explanation, options: ExplainOptions) -> str:
    """What is printed of an output of a row."""
    facts = ", ".join(
        f"{name.replace('_', ' ')} {_text(value)}" for name, value in made.facts.items() if value is not None
    )
    same = "" if made.difference is None else f"; prediction as committed, within {made.difference:.1g}"
    networks = ", ".join(made.networks)
    return f"{made.id}: {made.output} {format_score(made.value)} by {networks}; {options.method}, {facts}{same}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
