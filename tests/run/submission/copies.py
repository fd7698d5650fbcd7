"""Copies of a finished run with other settings of its submission."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from swinft.run.experiment import Experiment
from swinft.run.inputs import freeze_inputs
from swinft.run.layout import Run
from swinft.run.scores import join
from swinft.store import commit


def finished_with(
    run: Path, folder: Path, submission: dict[str, Any], sample: Path | None = None, **data: object
) -> Run:
    """A copy of a finished run with other keys of `submission` and `data`, its folds joined again."""
    copied = Run(Path(shutil.copytree(run, folder)))
    config = copied.read_config()
    config["submission"] |= submission
    config["data"] |= data | ({"sample_submission": str(sample)} if sample else {})
    commit(copied.config, yaml.safe_dump(config).encode(), "swinft fit")
    experiment = Experiment.of_run(copied, "fit", None)
    freeze_inputs(copied, experiment.config, {})
    join(copied, experiment)  # what `fit` does once the folds are finished
    return copied
