"""`trainer.fast_dev_run`: a few batches of every step of a run, in a temporary folder."""

from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.data.loading.workers import Destination
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.finite import Origin
from swinft.inference.predictor import predict_rows
from swinft.run.experiment import Experiment
from swinft.run.fold_files import trainings_of
from swinft.run.layout import Run
from swinft.system.precision import training_precision


def dry_run_config(config: Namespace) -> Namespace:
    """The config of a dry run: the first fold, one epoch of a few batches, one device.

    Raises:
        InputError: An option resumes, replaces or restricts a run.
    """
    for option in ("resume", "overwrite", "fold", "devices_per_fold"):
        if config[option] not in (None, False):
            raise InputError(f"trainer.fast_dev_run tries the first fold and saves nothing: --{option} does nothing.")
    short = shortened(config, int(config.trainer.fast_dev_run))
    short.fold = trainings_of([0], config.seeds)[0]
    short.trainer.logger = "csv" if config.trainer.logger else False  # in the temporary folder
    return short


def shortened(config: Namespace, batches: int) -> Namespace:
    """A config of one epoch of a few batches on one device, at the last image size."""
    short: Namespace = config.clone()
    short.max_hours = None
    short.trainer.max_epochs, short.trainer.max_steps = 1, -1
    short.trainer.limit_train_batches = batches
    short.trainer.devices, short.trainer.strategy, short.trainer.sync_batchnorm = 1, "auto", False
    warmup = config.model.optim.warmup_epochs
    short.model.optim.warmup_epochs = warmup if warmup == "auto" else min(1.0, warmup)
    short.model.freeze_epochs = min(1, config.model.freeze_epochs)
    if config.model.optim.freeze.epochs:
        short.model.optim.freeze.epochs, short.model.optim.freeze.gradual = 1, False
    if getattr(config.model.ema_decay, "start_steps", 0):
        short.model.ema_decay.start_steps = 0
    short.model.optim.sizes = None
    if not isinstance(config.checkpoint, str):
        short.checkpoint = "last"  # there is one epoch
    return short


def shorten(data: CSVDataModule, config: Namespace) -> None:
    """Limits validation and prediction to a few batches in a dry run."""
    data.max_batches = int(config.trainer.fast_dev_run) or None


def predict_some(run: Run, experiment: Experiment) -> int:
    """Predicts a few batches of the test rows with the network of a dry run.

    Returns:
        How many rows; 0 without a test table.
    """
    config = experiment.config
    if not config.data.test and not config.data.sample_submission:
        return 0
    schema = Schema.from_dict(run.read_schema())
    data = experiment.datamodule()
    data.schema = schema
    shorten(data, config)
    data.setup("predict")
    device, precision, _ = training_precision(config.trainer)
    data.destination = Destination(device, is_command=True)
    net = experiment.network(schema, run.fold(config.fold).weights, device, precision=precision)
    origin = Origin(data.test_table.ids, [run.fold(config.fold).weights], "Set trainer.precision to 32-true.")
    rows, _ = predict_rows([net], data.predict_dataloader(), experiment.views(), device, precision, origin)
    return len(rows)
