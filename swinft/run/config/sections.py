"""The config of a run: reads the YAML, checks every key, and writes the frozen config.

The sections correspond to signatures: `data:` to `CSVDataModule`, `model:` to `FineTuneTask`, `trainer:` to Lightning's
`Trainer`, `distill:`, `predict:` and `submission:` to `DistillConfig`, `PredictConfig` and `SubmissionConfig`. Every
key can be overridden on the command line (`--model.backbone convnext_tiny`).
"""

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from swinft.data.columns import Columns
from swinft.data.datamodule import CSVDataModule
from swinft.data.fold_settings import FoldConfig
from swinft.data.settings import LoadingConfig
from swinft.errors import InputError
from swinft.inference.tta import View
from swinft.model.compiling import CompilePolicy
from swinft.model.task import FineTuneTask
from swinft.ranges import COUNT, check_ranges
from swinft.run.compute.out_of_memory import Policy
from swinft.run.config.distill import DistillConfig
from swinft.run.config.files import complete
from swinft.run.config.parser import TOO_LARGE, Parser, built_once, key_types
from swinft.run.config.secrets import fill, mask, redact
from swinft.run.config.trust import TRUSTED_PACKAGES, check_allowed, check_named
from swinft.run.config.value_checks import wrong_values
from swinft.run.config.yaml_checks import Allowed, file_problems, option_problems
from swinft.run.folds.kept import SoupConfig
from swinft.run.layout import check_name
from swinft.run.submission.plan import SubmissionConfig
from swinft.run.trackers.configured import LoggerName
from swinft.system.import_paths import add_parent_import_paths
from swinft.system.precision import Precision


@dataclass
class PredictConfig:
    """Settings of predictions, both out-of-fold and for the test rows.

    Args:
        views: Test-time augmentations whose predictions are averaged in the competition's units: identity, hflip,
            vflip, rot90, rot180, rot270, transpose, scale, or the `class_path` of a custom `swinft.View`. `[identity]`
            for no augmentation.
        batch_size: Images per batch; None for twice the training batch, since prediction stores no activations.
        compile: Compile the backbone with `torch.compile`: faster on GPUs, after half a minute or more of compilation.
            `auto` compiles on CUDA for 4,000 forward passes or more.
    """

    views: list[View | str] = field(default_factory=lambda: ["identity"])
    batch_size: int | None = None
    compile: CompilePolicy = False

    def __post_init__(self) -> None:
        """Checks the range."""
        check_ranges("predict", vars(self), {"batch_size": COUNT})


# Lightning's arguments that swinft sets itself, or that would have no effect in a run, with the reason.
MANAGED_TRAINER_KEYS = {
    "barebones": "a run is always validated, saved and reported.",
    "check_val_every_n_epoch": "every epoch is validated; data.loading.virtual_epochs makes epochs shorter.",
    "default_root_dir": "all files are written to the run's folder; set `runs` and `name`.",
    "enable_autolog_hparams": "the whole config is stored in the run's config.yaml.",
    "enable_checkpointing": "every epoch is saved; `checkpoint` selects the one that predicts.",
    "inference_mode": "validation and prediction run in inference mode.",
    "limit_predict_batches": "every row is predicted.",
    "limit_test_batches": "there is no test loop; `swinft predict` predicts the test rows, all of them.",
    "limit_val_batches": "every held-out row is validated: the out-of-fold score must cover all rows.",
    "max_time": "set max_hours, which limits the whole run.",
    "min_epochs": "a run ends by trainer.max_epochs or trainer.max_steps.",
    "min_steps": "a run ends by trainer.max_epochs or trainer.max_steps.",
    "model_registry": "weights stay in the run's folder.",
    "num_sanity_val_steps": "nothing is validated before training; trainer.fast_dev_run tries a batch of everything.",
    "overfit_batches": "it would validate on training rows; for a quick try set trainer.limit_train_batches.",
    "plugins": "checkpoints go through swinft's own store; trainer.precision and trainer.strategy do the rest.",
    "reload_dataloaders_every_n_epochs": "the order of every epoch is a function of the seed and the epoch.",
    "use_distributed_sampler": "the datamodule divides the rows among processes, without padding the held-out ones.",
    "val_check_interval": "validation runs at the end of an epoch; data.loading.virtual_epochs makes epochs shorter.",
}
# Lightning's other spellings of `trainer.precision`.
SPELLINGS = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
PrecisionSpelling = Precision | Literal["32", "16", "bf16", 32, 16]
# Options that say how to run, not what: never part of a frozen config.
RUN_KEYS = ("fold", "resume", "overwrite", "accept", "devices_per_fold", "on", "copy_data")
COMMAND_KEYS = ("config", "allow_code", "trial", "what", "steps", "rounds", "gpus", "seconds", *RUN_KEYS)

HELP = ("-h", "--help", "--help-all", "--help_all")
PURPOSES = {
    "check": "Checks the tables, images and folds of a config, and all else that a fit needs; trains nothing.",
    "find": "Finds a learning rate and a batch size for a config, and prints the keys to paste into it.",
    "fit": "Trains every fold of a config: out-of-fold predictions, their pooled score, a report.",
    "plan": "Says how long a config's run takes, here or on GPUs that are not here, and whether it fits into memory.",
}


@built_once
def build_parser(command: str) -> Parser:
    """The parser of every command that reads a config."""
    return new_parser(command)


def new_parser(command: str) -> Parser:
    """The same, to be extended."""
    managed = {f"trainer.{key}": reason for key, reason in MANAGED_TRAINER_KEYS.items()}
    parser = Parser(
        prog=f"swinft {command}",
        flags=("resume", "overwrite", "accept"),
        lists=("allow_code",),
        managed=managed,
        purpose=PURPOSES.get(command, ""),
    )
    _add_general(parser)
    # The datamodule instantiates its sections itself, so that all their problems are listed together.
    parser.add_class_arguments(CSVDataModule, "data", skip={"columns", "folds", "loading"}, instantiate=False)
    parser.add_class_arguments(Columns, "data.columns", skip={"sample_id"}, instantiate=False)
    parser.add_class_arguments(FoldConfig, "data.folds", skip={"held_out", "seed"}, instantiate=False)
    parser.add_class_arguments(LoadingConfig, "data.loading", instantiate=False)
    skip_model = {"num_outputs", "context"}
    parser.add_class_arguments(FineTuneTask, "model", skip=skip_model, instantiate=False)
    _add_trainer(parser)
    parser.add_class_arguments(DistillConfig, "distill")
    parser.add_class_arguments(PredictConfig, "predict")
    parser.add_class_arguments(SubmissionConfig, "submission")
    parser.lists |= {key for key, hint in key_types(parser).items() if _is_list(hint)}
    parser.set_defaults(
        {
            "trainer.max_epochs": 10,
            "trainer.gradient_clip_val": 1.0,  # as in Swin's recipe; prevents divergence in fp16
            "trainer.enable_progress_bar": False,  # one line per epoch is better in a saved notebook
            "trainer.enable_model_summary": False,
        }
    )
    return parser


def _add_general(parser: Parser) -> None:
    """The top-level keys."""
    parser.add_argument("--config", action="config", help="a YAML file; later files and options override earlier ones")
    parser.add_argument(
        "--allow_code",
        type=list[str],
        default=[],
        help="packages or modules whose classes the config may name, besides the trusted ones",
    )
    parser.add_argument("--name", type=str, required=True, help="the run's folder inside `runs`")
    parser.add_argument("--runs", type=str, default="runs", help="the folder of all runs")
    parser.add_argument(
        "--seed", type=int, default=42, help="seed of folds, weights, shuffling, augmentation and mixing"
    )
    parser.add_argument(
        "--seeds",
        type=list[int] | None,
        default=None,
        help="train each fold with each of these seeds, in a process of its own: the folds are those of `seed`, and "
        "out-of-fold predictions are means over the seeds",
    )
    parser.add_argument(
        "--checkpoint",
        type=Literal["last", "best"] | SoupConfig,
        default="last",
        help="which epoch's weights a fold predicts with; `best` selects it on the rows on which it is then scored; a "
        "mapping with `soup` (last, best, greedy) and `epochs` averages the weights of several",
    )
    parser.add_argument(
        "--max_hours",
        type=float | None,
        default=None,
        help="hours for the whole run: the time left is divided among the unfinished folds; each trains at least one "
        "whole epoch and is scored; the learning rate is still scheduled over trainer.max_epochs",
    )

    parser.add_argument(
        "--on_out_of_memory",
        type=Policy,
        default="error",
        help="what a run does whose first batch does not fit into memory: `error` names settings that need less; "
        "`halve` halves data.batch_size and doubles trainer.accumulate_grad_batches until a step fits, for all folds: "
        "BatchNorm, dropout, mixing and losses that compare rows then see smaller batches, so results differ",
    )


def _add_trainer(parser: Parser) -> None:
    """The section of Lightning's Trainer, without the arguments that a run sets itself."""
    typed_here = {*MANAGED_TRAINER_KEYS, "fast_dev_run", "limit_train_batches", "logger", "precision"}
    parser.add_class_arguments(Trainer, "trainer", skip=typed_here, instantiate=False)
    parser.add_argument(
        "--trainer.fast_dev_run",
        type=bool | int,
        default=False,
        help="train, validate and predict one batch (or this many) of the first fold, and save nothing",
    )
    parser.add_argument(
        "--trainer.limit_train_batches",
        type=int | float | None,  # int first: as a float, 2 batches would be 200 %
        default=None,
        help="train on this many batches of an epoch, or on a fraction of them up to 1.0",
    )
    parser.add_argument(
        "--trainer.logger",
        type=bool | LoggerName | Logger | list[LoggerName | Logger],
        default=False,  # metrics.jsonl is always written
        help="`wandb`, `tensorboard`, `mlflow` or `trackio` (docs/trackers.md), `csv` (true), the class_path of a "
        "logger, or a list of them",
    )
    parser.add_argument(
        "--trainer.precision", type=PrecisionSpelling, default="auto", help="`auto` depends on the hardware"
    )


def _is_list(hint: Any) -> bool:
    """Whether a value must be a list or null: `a,b` is then read as `[a,b]`."""
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return all(typing.get_origin(member) in (list, tuple) for member in (members if is_union else [hint]))


def load(parser: Parser, argv: list[str]) -> Namespace:
    """Parses a command line with its YAML files.

    Raises:
        InputError: A file is missing, a key is unknown or given twice (all of them are listed, with their lines), a
            value has the wrong type, or a class is not allowed.
    """
    files = [Path(file) for file in _values(argv, "--config")]
    named = ",".join(value.strip("[]") for value in _values(argv, "--allow-code", "--allow_code"))
    allowed = _allow(parser, [name.strip() for name in named.split(",") if name.strip()])
    if not files and not any(
        word in ("-h", "--help", "--help-all", "--help_all") or word.endswith(".help") for word in argv
    ):
        raise InputError(f"give a config: {parser.prog} --config configs/bluemarble.yaml")
    texts: list[str] = []
    try:
        problems = [problem for path in files for problem in file_problems(path, allowed)]
        options = list(_options(argv))
        for option, value in options:
            problems += option_problems(option, value, allowed)
        texts += [path.read_text(encoding="utf-8") for path in files]
        if problems:
            _refuse([*problems, *wrong_values(files, options, allowed, problems)])
        try:
            config = parser.parse_args(argv)
        except InputError as error:
            found = wrong_values(files, options, allowed)
            if len(found) > 1 or str(error) == TOO_LARGE or any(not problem.startswith("--") for problem in found):
                _refuse(found)
            raise  # of one option, whose error names it
        config.trainer.precision = SPELLINGS.get(str(config.trainer.precision), config.trainer.precision)
        check_name(config.name)
        fill(config)
        check_named(without_command_keys(config), allowed.code)
        complete(config)
    except InputError as error:
        raise InputError(redact(str(error), texts)) from None
    return config


def read_frozen(parser: Parser, path: Path, allow_code: list[str] | None) -> Namespace:
    """Parses a run's frozen config with the same checks: the run may come from an untrusted source.

    Raises:
        InputError: A key is unknown, or a class is not allowed.
    """
    allowed = _allow(parser, allow_code or [])
    _refuse(file_problems(path, allowed))
    config: Namespace = parser.parse_path(str(path))
    check_named(without_command_keys(config), allowed.code)
    return config


def without_command_keys(config: Namespace) -> Namespace:
    """The config without the options that only say how to run."""
    rest: Namespace = config.clone()
    for key in (*COMMAND_KEYS, "trainer.fast_dev_run"):
        rest.pop(key, None)
    return rest


def _allow(parser: Parser, allow_code: list[str]) -> Allowed:
    """What files and options may contain; also limits the parser's imports."""
    check_allowed(allow_code)
    if allow_code:
        add_parent_import_paths()
    parser.packages = (*TRUSTED_PACKAGES, *allow_code)
    hints = {key: hint for key, hint in key_types(parser).items() if key not in COMMAND_KEYS or key == "rounds"}
    return Allowed(hints, parser.managed, allow_code)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise InputError("\n  ".join(["the config is wrong:", *problems]), problems)


def dump(parser: Parser, config: Namespace) -> str:
    """The resolved config as YAML: every key with its value, `***` for secrets, no options that only say how to run.

    Raises:
        InputError: A class has an argument that YAML cannot express.
    """
    try:
        return mask(str(parser.dump(without_command_keys(config), skip_unset=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"the config cannot be written as YAML: {' '.join(str(error).split())}") from error


def _values(argv: list[str], *options: str) -> list[str]:
    """The values of an option, as `--option value` or `--option=value`."""
    spaced = [argv[i + 1] for i, word in enumerate(argv[:-1]) if word in options]
    return spaced + [word.partition("=")[2] for word in argv if word.partition("=")[0] in options and "=" in word]


def _options(argv: list[str]) -> Iterator[tuple[str, str]]:
    """Every option with its value, as `--option value` or `--option=value`."""
    for position, word in enumerate(argv):
        option, equals, value = word.partition("=")
        following = argv[position + 1] if position + 1 < len(argv) else ""
        if option.startswith("--"):
            yield option[2:], value if equals else following
