"""The command `embed`, and `swinft.embed` in Python."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from swinft.run import api, layout
from swinft.run.config.parser import options_from
from swinft.run.embed.embeddings import Embeddings
from swinft.run.embed.make import folder_of, make_embeddings
from swinft.run.embed.makers import Maker
from swinft.run.embed.member import make_member
from swinft.run.embed.options import EmbedOptions, FitOptions
from swinft.run.embed.started import run_of
from swinft.run.lock import hold_if_writable
from swinft.run.python_inputs import plain, python_inputs


def embed_run(run: layout.Run, options: EmbedOptions, fit: FitOptions) -> "Maker | layout.Run":
    """Makes embeddings, and fits a model on them if one is named.

    Returns:
        What made the embeddings; or the folder of the model.

    Raises:
        InputError: The run is not finished, or an option is wrong.
    """
    if fit.fit is not None:
        return make_member(run, options, fit)
    with hold_if_writable(run.lock):
        return make_embeddings(run, options)


def embedded_output(maker: Maker) -> dict[str, Any]:
    """Embeddings as plain values, for `--json`: their folder, their files, and what made them."""
    folder = folder_of(maker)
    about = {"views": [view.name for view in maker.views], "layer": maker.label, "precision": maker.precision}
    return {"run": maker.run.root, "folder": folder, "files": sorted(folder.glob("*.parquet")), **about}


def embed(
    run: "str | Path | api.Run",
    fit: str | Mapping[str, Any] | None = None,
    name: str | None = None,
    *,
    allow_code: str | Sequence[str] = (),
    **options: Any,
) -> "Embeddings | api.Run":
    """Makes embeddings of a run's rows; does and prints the same as `swinft embed`.

    Args:
        run: The run, or its folder; or with `backbone` a YAML file, whose run is started without training.
        fit: A model that is fitted on the embeddings of each fold: `"svr"`, or `{"svr": {"C": 10}}`.
        name: Name of what is fitted: its folder beside the run's.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.
        options: The other options of `swinft embed`: `layer`, `rows`, `views`, `backbone`, …, `metadata`, `overwrite`.

    Returns:
        The embeddings; with `fit`, what is fitted, which is a run: it has `oof`, `scores`, `predict` and `submit`.

    Raises:
        InputError: The run is not finished, or an option is wrong.
    """
    with python_inputs():
        folder = run.folder if isinstance(run, api.Run) else run
        allowed = [allow_code] if isinstance(allow_code, str) else list(allow_code)
        names = {field.name for field in fields(FitOptions)}
        own = {key: value for key, value in options.items() if key in names} | {"fit": fit, "name": name}
        rest = {key: value for key, value in options.items() if key not in names} | {"allow_code": allowed or None}
        given = options_from(EmbedOptions, plain(rest)), options_from(FitOptions, plain(own))
        made = embed_run(run_of(folder, given[0]), *given)
    return Embeddings(made) if isinstance(made, Maker) else api.Run(made.root, allow_code)
