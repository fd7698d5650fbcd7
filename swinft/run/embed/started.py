"""The run of a config, started without training: its rows, folds and images are checked and frozen."""

from pathlib import Path

from swinft.errors import InputError
from swinft.run.config.fit_options import fit_parser
from swinft.run.embed.options import EmbedOptions
from swinft.run.experiment import Experiment
from swinft.run.freeze import prepare
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.resume import check_resume
from swinft.store import probe


def run_of(path: str | Path, options: EmbedOptions) -> Run:
    """A run by its folder; or that of a config, started if it is not there yet: `swinft fit --resume` trains it later.

    Args:
        path: The folder, or the YAML file.
        options: Which embeddings are made.

    Raises:
        InputError: There is no such run, or config or data are wrong, or its run was started with another config.
    """
    if Path(path).suffix.lower() not in (".yaml", ".yml") or Path(path).is_dir():
        return Run.open(path)
    if options.backbone is None:
        raise InputError(f"{path} is a config, which has no networks: name a finished run, or add --backbone NAME.")
    allowed = options.allow_code
    words = [f"--config={path}", *([f"--allow-code={','.join(allowed)}"] if allowed else [])]
    experiment = Experiment.from_argv(fit_parser(), words)
    config = experiment.config
    if config.trainer.fast_dev_run:
        raise InputError("trainer.fast_dev_run saves nothing: remove it.")
    run = Run.at(Path(config.runs) / config.name)
    with hold(run.lock, root=run.root):
        if run.root.is_dir() and run.is_run():
            config.resume = True
            check_resume(run, experiment)
        else:
            probe(run.root.parent)
            prepare(run, experiment, run.lock)
    return run
