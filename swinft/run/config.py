"""One flat YAML is one complete run: this module reads it, checks every key, and freezes it into the run folder.

The sections are signatures: `data:` is `CSVDataModule`, `model:` is `FineTuneTask`, `trainer:` is Lightning's
`Trainer`, `predict:` and `submission:` are the dataclasses below. Every key can be overridden on the command line
(`--model.backbone convnext_tiny`).
"""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, suggest
from swinft.model.task import FineTuneTask
from swinft.run.arguments import Parser, known_keys
from swinft.run.precision import Precision
from swinft.run.submission import SubmissionConfig
from swinft.run.tta import View


@dataclass
class PredictConfig:
    """How predictions are made, out-of-fold and for the test rows alike.

    Args:
        views: Test-time augmentations whose predictions are averaged in the competition's units. `[identity]` is none.
        batch_size: Images per batch; None for twice the training batch, since prediction keeps no activations.
    """

    views: list[View] = field(default_factory=lambda: ["identity"])
    batch_size: int | None = None


# What swinft decides itself, or what would not act in a run of whole folds: better an unknown key than a dead one.
OWN_TRAINER_KEYS = {
    "barebones",
    "check_val_every_n_epoch",
    "default_root_dir",
    "enable_autolog_hparams",
    "enable_checkpointing",
    "fast_dev_run",
    "inference_mode",
    "limit_predict_batches",
    "limit_test_batches",
    "limit_val_batches",
    "max_time",
    "min_epochs",
    "min_steps",
    "model_registry",
    "num_sanity_val_steps",
    "overfit_batches",
    "plugins",
    "precision",  # added again below, with `auto`
    "reload_dataloaders_every_n_epochs",
    "use_distributed_sampler",
    "val_check_interval",
}
# Words of the command line that say how to run, not what: never part of a frozen config.
COMMAND_KEYS = ("config", "fold", "resume", "overwrite")


def build_parser(command: str) -> Parser:
    """The parser of every command that reads a config."""
    parser = Parser(prog=f"swinft {command}", flags=("resume", "overwrite"), description=sys.modules[__name__].__doc__)
    parser.add_argument("--config", action="config", help="a YAML file; a later one or a later option wins")
    parser.add_argument("--name", type=str, required=True, help="the run's folder inside `runs`")
    parser.add_argument("--runs", type=str, default="runs", help="the folder of all runs")
    parser.add_argument("--seed", type=int, default=42, help="seeds folds, weights, shuffling, augmentation and mixing")
    parser.add_argument(
        "--checkpoint",
        type=Literal["last", "best"],
        default="last",
        help="which epoch's weights a fold predicts with; `best` picks it on the rows it is then scored on",
    )
    parser.add_class_arguments(CSVDataModule, "data", skip={"fold", "seed", "schema"}, instantiate=False)
    skip_model = {"num_outputs", "num_metadata", "image_size", "seed"}
    parser.add_class_arguments(FineTuneTask, "model", skip=skip_model, instantiate=False)
    parser.add_class_arguments(Trainer, "trainer", skip=set(OWN_TRAINER_KEYS), instantiate=False)
    parser.add_argument("--trainer.precision", type=Precision, default="auto", help="`auto` asks the hardware")
    parser.add_class_arguments(PredictConfig, "predict")
    parser.add_class_arguments(SubmissionConfig, "submission")
    parser.set_defaults(
        {
            "trainer.max_epochs": 10,
            "trainer.gradient_clip_val": 1.0,  # Swin's recipe; keeps fp16 from running away
            "trainer.logger": False,  # metrics.jsonl is always written; a logger is the user's addition
            "trainer.enable_progress_bar": False,  # one line per epoch reads better in a saved notebook
            "trainer.enable_model_summary": False,
        }
    )
    return parser


def load(parser: Parser, argv: list[str]) -> Namespace:
    """Parses a command line with its YAML files.

    Raises:
        InputError: A file is missing, a key is unknown or given twice (all of them are listed, with their lines), or a
            value has the wrong type.
    """
    # A user's own head lives beside the config; the end of the path, so that it cannot shadow an installed package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    files = _config_files(argv)
    if not files and not {"-h", "--help"}.intersection(argv):
        raise InputError(f"give a config: {parser.prog} --config configs/bluemarble.yaml")
    for path in files:
        check_file(path, known_keys(parser))
    return parser.parse_args(argv)


def check_file(path: Path, known: set[str]) -> None:
    """Checks the keys of one YAML file, all of them at once.

    Args:
        path: The file.
        known: Every dotted key that is right.

    Raises:
        InputError: The file is missing or is no YAML; or keys are unknown or doubled.
    """
    if not path.is_file():
        siblings = [str(sibling) for sibling in path.parent.glob("*.y*ml")]
        raise InputError(f"there is no config '{path}'.{suggest(str(path), siblings)}")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path} holds no keys.")
    problems, seen = list(_class_problems(path, root)), set()
    for key, line in _keys(root, "", known):
        if key in seen:
            problems.append(f"{path}:{line}: key '{key}' is given twice. Keep one of them.")
        elif key not in known:
            problems.append(f"{path}:{line}: unknown key '{key}'.{suggest(key, sorted(known))}")
        seen.add(key)
    if problems:
        raise InputError("\n  ".join(["the config has wrong keys:", *problems]))


def dump(parser: Parser, config: Namespace) -> str:
    """The resolved config as YAML: every key with its value, without the words that only say how to run."""
    frozen = config.clone()
    for key in COMMAND_KEYS:
        frozen.pop(key, None)
    return str(parser.dump(frozen, skip_unset=False))


def difference(frozen: str, wanted: str) -> str:
    """What differs between a run's frozen config and the one that is asked for: one line per key, empty when equal."""
    lines = difflib.unified_diff(
        frozen.splitlines(), wanted.splitlines(), "frozen in the run", "asked for", n=0, lineterm=""
    )
    return "\n".join(line for line in lines if not line.startswith("@@"))


def _keys(node: yaml.MappingNode, prefix: str, known: set[str]) -> Iterator[tuple[str, int]]:
    """Dotted keys of a YAML mapping with their lines, down to where the parser's own keys end."""
    for key_node, value in node.value:
        key = f"{prefix}{key_node.value}"
        yield key, key_node.start_mark.line + 1
        has_children = any(other.startswith(f"{key}.") for other in known)
        if isinstance(value, yaml.MappingNode) and has_children:
            yield from _keys(value, f"{key}.", known)


def _class_problems(path: Path, node: yaml.Node) -> Iterator[str]:
    """Wrong class paths and wrong arguments of classes, anywhere in a YAML file."""
    children = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        entries = {key.value: (key, value) for key, value in node.value}
        children = [value for _, value in node.value]
        if "class_path" in entries and isinstance(entries["class_path"][1], yaml.ScalarNode):
            class_node, arguments = entries["class_path"][1], entries.get("init_args")
            try:
                allowed = _arguments(_import(class_node.value))
            except ImportError as error:
                yield f"{path}:{class_node.start_mark.line + 1}: {error}"
                return
            for key, _ in arguments[1].value if arguments and allowed else []:
                if key.value not in allowed:
                    place = f"{path}:{key.start_mark.line + 1}: '{class_node.value}' has no argument '{key.value}'."
                    yield f"{place}{suggest(key.value, allowed)}"
    for child in children:
        yield from _class_problems(path, child)


def _import(class_path: str) -> Any:
    """The object at a dotted path.

    Raises:
        ImportError: There is none; the message suggests the nearest.
    """
    name, _, attribute = class_path.rpartition(".")
    try:
        module = importlib.import_module(name)
    except (ImportError, ValueError) as error:
        raise ImportError(f"class_path '{class_path}' cannot be imported: {error}.") from error
    if not hasattr(module, attribute):
        raise ImportError(f"'{name}' has no '{attribute}'.{suggest(attribute, dir(module))}")
    return getattr(module, attribute)


def _arguments(cls: Any) -> list[str]:
    """What a class takes by keyword in YAML; empty where it takes anything."""
    parameters = inspect.signature(cls).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return []
    # The first two of a head come from the backbone and from the target.
    return [parameter.name for parameter in parameters if parameter.name not in ("in_features", "num_outputs")]


def _config_files(argv: list[str]) -> list[Path]:
    files = [argv[i + 1] for i, word in enumerate(argv[:-1]) if word == "--config"]
    files += [word.removeprefix("--config=") for word in argv if word.startswith("--config=")]
    return [Path(file) for file in files]
