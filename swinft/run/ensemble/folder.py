"""The files of an ensemble, and which folders may be overwritten by one."""

import json
from pathlib import Path
from typing import Any

from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.run.config.old_keys import migrated
from swinft.run.config.yaml_text import read_own_yaml, yaml_text
from swinft.run.ensemble.engines import library
from swinft.run.layout import Run
from swinft.store import commit, is_committed, json_bytes, verify
from swinft.versions import version
from swinft.whole_folders import restore

MAKER = "swinft ensemble"
PACKAGES = ("swinft", "numpy", "scipy", "scikit-learn")
COPIED = ("schema", "folds", "images", "inputs", "sample", "extra", "dropped")


def check_name_is_free(run: Run, overwrite: bool) -> None:
    """Checks that the folder does not exist yet, or is an ensemble that may be deleted.

    The caller holds the lock of the run.

    Raises:
        InputError: It exists, or is not an ensemble.
    """
    restore(run.root)
    if not run.root.exists():
        return
    if not overwrite:
        raise InputError(f"{run.root} exists. --overwrite deletes it if it is an ensemble, --name NAME makes another.")
    if not run.is_ensemble:
        raise InputError(f"{run.root} is not an ensemble: --overwrite deletes only those. Give another --name.")


def write_files(
    run: Run,
    base: Run,
    recipe: dict[str, Any],
    found: dict[str, Any],
    oof: Predictions,
    scores: dict[str, Any],
    maker: str = MAKER,
) -> None:
    """Writes the files of an ensemble; the config comes last.

    Args:
        run: The folder to write to.
        base: The run whose table, folds and submission it has.
        recipe: The recipe.
        found: What the method learned, and the members.
        oof: Out-of-fold predictions of all training rows.
        scores: The content of scores.json.
        maker: The command, stored in the commit records.
    """
    for name in COPIED:
        source: Path = getattr(base, name)
        if is_committed(source):
            commit(run.root / source.name, verify(source).read_bytes(), maker)
    versions: dict[str, Any] = {"versions": {package: version(package) for package in PACKAGES}}
    # The module says it, as xgboost and xgboost-cpu install one of the same name.
    if engine := (found.get("fitted") or {}).get("engine"):
        versions["versions"][engine] = library(engine).__version__
    commit(run.environment, json.dumps(versions, indent=1).encode(), maker)
    oof.write(run.oof, maker)
    commit(run.scores, json_bytes(scores), maker)
    commit(run.root / "ensemble.yaml", yaml_text(recipe).encode(), maker)
    commit(run.ensemble, json_bytes(found), maker)
    commit(run.config, config_of(base, str(recipe["name"])), maker)


def config_of(base: Run, name: str) -> bytes:
    """The config of the base with the ensemble's name: `data`, `model.metrics` and `submission` act."""
    config = read_own_yaml(migrated(verify(base.config).read_text(encoding="utf-8")))
    text = yaml_text({**config, "name": name})
    head = f"# An ensemble, see ensemble.yaml. The rows, metrics and submission are those of {base.root.name}.\n"
    return (head + text).encode()
