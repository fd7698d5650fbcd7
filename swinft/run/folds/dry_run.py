"""`trainer.fast_dev_run`: a few batches of everything that a run does, in a folder that is thrown away."""

from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.data.loading.workers import Destination
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.finite import Origin
from swinft.inference.predictor import predict_rows
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.system.precision import training_precision


def dry_run_config(config: Namespace) -> Namespace:
    """The config of a trial: its first fold, one epoch of a few batches, on one device.

    Raises:
        InputError: It is to go on with a run, or to replace one.
    """
    for option in ("resume", "overwrite", "fold", "devices_per_fold"):
        if config[option] not in (None, False):
            raise InputError(f"trainer.fast_dev_run tries the first fold and keeps nothing: --{option} does nothing.")
    trial: Namespace = config.clone()
    trial.fold, trial.max_hours = 0, None
    trial.trainer.max_epochs, trial.trainer.max_steps = 1, -1
    trial.trainer.limit_train_batches = int(config.trainer.fast_dev_run)
    trial.trainer.devices, trial.trainer.strategy, trial.trainer.sync_batchnorm = 1, "auto", False
    trial.trainer.logger = "csv" if config.trainer.logger else False  # in the folder that is thrown away
    warmup = config.model.optim.warmup_epochs
    trial.model.optim.warmup_epochs = warmup if warmup == "auto" else min(1.0, warmup)
    trial.model.freeze_epochs = min(1, config.model.freeze_epochs)
    return trial


def shorten(data: CSVDataModule, config: Namespace) -> None:
    """Leaves a few batches of held-out rows, and of rows to predict, where the config is that of a trial."""
    data.max_batches = int(config.trainer.fast_dev_run) or None


def predict_some(run: Run, experiment: Experiment) -> int:
    """Predicts a few batches of the rows to predict with what a trial has trained.

    Returns:
        How many rows; 0 where none are named.
    """
    config = experiment.config
    if not config.data.test and not config.data.sample_submission:
        return 0
    schema = Schema.from_dict(run.read_schema())
    data = experiment.datamodule()
    data.schema = schema
    shorten(data, config)
    data.setup("predict")
    device, precision, _ = training_precision(config.trainer.accelerator, config.trainer.precision)
    data.destination = Destination(device, is_command=True)
    net = experiment.network(schema, run.fold(config.fold).weights, device, precision=precision)
    origin = Origin(data.test_table.ids, [run.fold(config.fold).weights], "Set trainer.precision to 32-true.")
    rows, _ = predict_rows([net], data.predict_dataloader(), experiment.views(), device, precision, origin)
    return len(rows)
