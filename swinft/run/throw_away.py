"""A throw-away run in a temporary folder, of which processes measure something: for `find` and `plan`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.errors import InputError, RunError
from swinft.run.check import CheckedRun, Select, check_run
from swinft.run.checked_images import CheckedImages, checked_images
from swinft.run.compute.devices import devices_per_fold
from swinft.run.compute.selection import KILLED
from swinft.run.experiment import Experiment
from swinft.run.fold_files import fold_id
from swinft.run.freeze import write_run
from swinft.run.layout import Run
from swinft.system.processes import Child, run_children

REQUEST, ANSWER = "request.json", "answer.json"


@dataclass(frozen=True)
class ThrowAway:
    """A checked run that is deleted again.

    Args:
        run: Its folder, with the frozen state of the config.
        experiment: With the folder of the run.
        checked: What the checks have found.
        devices: Devices per fold, as a real run would have them.
        images: The checked images.
        folder: Holds the run, requests and answers.
    """

    run: Run
    experiment: Experiment
    checked: CheckedRun
    devices: int
    images: CheckedImages
    folder: Path

    @classmethod
    def of(cls, experiment: Experiment, folder: Path, select: Select) -> "ThrowAway":
        """Checks a config, and writes its run into a folder. Arguments and errors as of `check_run`."""
        config = experiment.config.clone()
        config.runs = str(folder / "runs")
        experiment, run = experiment.with_config(config), Run.at(folder / "runs" / config.name)
        checked = check_run(experiment, select)
        trainings = (int(checked.data.fold_of_row.max()) + 1) * len(config.seeds or [0])
        devices = devices_per_fold(config, trainings)
        run.root.mkdir(parents=True)
        write_run(run, experiment, checked, 1)
        return cls(run, experiment, checked, devices, checked_images(checked.data), folder)

    def ask(self, command: str, request: Mapping[str, Any], may_be_killed: bool = False) -> dict[str, Any]:
        """The answer of a new process `swinft COMMAND --trial FOLDER`, which trains fold 0; `{}` if it was killed.

        Args:
            command: The command.
            request: What it is asked, besides the fold and its seed.
            may_be_killed: Whether an end for lack of memory is an answer.

        Raises:
            InputError: The process has found something wrong with the input.
            RunError: It has failed.
        """
        config = self.experiment.config
        seed = config.seeds[0] if config.seeds else None
        known = {"fold": fold_id(0, seed), "seed": config.seed if seed is None else seed}
        path = self.folder / ANSWER
        path.unlink(missing_ok=True)
        (self.folder / REQUEST).write_text(json.dumps(known | {**request}), encoding="utf-8")
        words = [command, "--config", str(self.run.config), "--trial", str(self.folder)]
        words += ["--allow-code", ",".join(config.allow_code)] if config.allow_code else []
        child = Child(words, self.experiment.secrets() | self.images.environment)
        code = run_children({0: child}, [{}])[0]
        if code and not (code == KILLED and may_be_killed):
            raise RunError(f"the process that measures ended with exit code {code}; its output is above.")
        answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if "error" in answer:
            raise InputError(answer["error"])
        return answer
