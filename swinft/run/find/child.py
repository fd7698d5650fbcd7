"""What a finder's throw-away process does: one measurement that a folder requests, and its answer."""

import json
from pathlib import Path
from typing import Any

from swinft.errors import InputError
from swinft.run.compute.choices import choice_here
from swinft.run.compute.out_of_memory import explain_out_of_memory, out_of_memory_explained
from swinft.run.experiment import Experiment
from swinft.run.find.batch import VERIFIED_STEPS, fits, memory_limit, search
from swinft.run.find.brief import Brief
from swinft.run.find.rate import find_rate
from swinft.run.folds.fold import exit_on_signals
from swinft.run.layout import Run
from swinft.run.throw_away import ANSWER, REQUEST


def run_request(experiment: Experiment, folder: Path) -> None:
    """Measures what a folder requests, in the child process.

    Args:
        experiment: Of the throw-away run.
        folder: Holds the request, and will hold the answer; its `error` is one of the user's input.
    """
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    config = experiment.config.clone()
    run = Run.at(Path(config.runs) / config.name)
    config.fold, config.seed = request["fold"], request["seed"]
    config.data.batch_size = request["batch_size"]
    config.trainer.accumulate_grad_batches = request["accumulate_grad_batches"]
    config = choice_here(run, config).applied(config)
    answer: dict[str, Any]
    try:
        with exit_on_signals():
            answer = _measured(Brief(run, experiment.with_config(config)), request, folder)
    except InputError as error:
        answer = {"error": str(error)}
    _write(folder, answer)


def _measured(brief: Brief, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    config = brief.config
    if request["what"] == "lr":

        def explained(error: Exception) -> Any:
            return explain_out_of_memory(error, config, brief.device)

        with out_of_memory_explained(explained):
            return find_rate(brief, request["steps"], request["epochs"])
    if request["what"] == "verified":
        size, step = config.data.batch_size, config.trainer.accumulate_grad_batches
        with memory_limit(brief.device):
            return {"fits": fits(brief, size, step, VERIFIED_STEPS, request["epochs"])}
    known = {int(size): fit for size, fit in request["known"].items()}

    def tell(size: int) -> None:  # if the system kills this process, it was this size
        _write(folder, {"fits": known, "running": size})

    return {"fits": search(brief, known, request["most"], request["epochs"], tell)}


def _write(folder: Path, answer: dict[str, Any]) -> None:
    (folder / ANSWER).write_text(json.dumps(answer), encoding="utf-8")
