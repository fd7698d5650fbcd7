"""One flat YAML is one complete run: this module reads it, checks every key, and freezes it into the run folder.

The sections are signatures: `data:` is `CSVDataModule`, `model:` is `FineTuneTask`, `trainer:` is Lightning's
`Trainer`, `predict:` and `submission:` are the dataclasses below. Every key can be overridden on the command line
(`--model.backbone convnext_tiny`).
"""

import difflib
import importlib
import inspect
import os
import re
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
from swinft.model.task import CompilePolicy, FineTuneTask
from swinft.run.arguments import Parser, known_keys
from swinft.run.precision import Precision
from swinft.run.secrets import fill, mask, redact
from swinft.run.submission import SubmissionConfig
from swinft.run.tta import View


@dataclass
class PredictConfig:
    """How predictions are made, out-of-fold and for the test rows alike.

    Args:
        views: Test-time augmentations whose predictions are averaged in the competition's units. `[identity]` is none.
        batch_size: Images per batch; None for twice the training batch, since prediction keeps no activations.
        compile: Compile the backbone with `torch.compile`: faster passes on GPUs, after half a minute or more at the
            start. `auto` does so on CUDA for 4,000 forward passes or more.
    """

    views: list[View] = field(default_factory=lambda: ["identity"])
    batch_size: int | None = None
    compile: CompilePolicy = False


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
COMMAND_KEYS = ("config", "fold", "resume", "overwrite", "allow_code", "devices_per_fold")
# Packages whose classes a YAML may name. Naming a class imports its module, and importing runs it: a config from
# elsewhere must not run what its reader did not ask for.
TRUSTED_PACKAGES = {"swinft", "albumentations", "lightning", "timm", "torch", "torchmetrics", "torchvision"}
MOST_NODES = 100_000  # values of a config; aliases of aliases make billions of a few lines
# Where a bare string is taken for a class path, without the word `class_path`.
CLASS_KEYS = ("model.head", "data.augment", "trainer.")


def build_parser(command: str) -> Parser:
    """The parser of every command that reads a config."""
    flags, lists = ("resume", "overwrite"), ("allow_code",)
    parser = Parser(prog=f"swinft {command}", flags=flags, lists=lists, description=sys.modules[__name__].__doc__)
    parser.add_argument("--config", action="config", help="a YAML file; a later one or a later option wins")
    parser.add_argument(
        "--allow_code", type=list[str], default=[], help="packages or modules whose classes the config may name besides"
    )
    parser.add_argument("--name", type=str, required=True, help="the run's folder inside `runs`")
    parser.add_argument("--runs", type=str, default="runs", help="the folder of all runs")
    parser.add_argument("--seed", type=int, default=42, help="seeds folds, weights, shuffling, augmentation and mixing")
    parser.add_argument(
        "--checkpoint",
        type=Literal["last", "best"],
        default="last",
        help="which epoch's weights a fold predicts with; `best` picks it on the rows it is then scored on",
    )
    parser.add_class_arguments(CSVDataModule, "data", skip={"fold", "seed", "schema", "images"}, instantiate=False)
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
    files = [Path(file) for file in _values(argv, "--config")]
    allowed = ",".join(value.strip("[]") for value in _values(argv, "--allow-code", "--allow_code"))
    allow_code = [name.strip() for name in allowed.split(",") if name.strip()]
    if not files and not {"-h", "--help"}.intersection(argv):
        raise InputError(f"give a config: {parser.prog} --config configs/bluemarble.yaml")
    texts: list[str] = []
    try:
        for path in files:
            check_file(path, known_keys(parser), allow_code)
            texts.append(path.read_text(encoding="utf-8"))
        config = parser.parse_args(argv)
    except InputError as error:
        raise InputError(redact(str(error), texts)) from None
    fill(config)
    return config


def read_frozen(parser: Parser, path: Path, allow_code: list[str] | None) -> Namespace:
    """Parses the config that a run was frozen with, after the same checks: a run may come from elsewhere, too.

    Raises:
        InputError: A key is unknown, or a class path is outside the trusted packages and `allow_code`.
    """
    check_file(path, known_keys(parser), allow_code or [])
    config: Namespace = parser.parse_path(str(path))
    return config


def check_file(path: Path, known: set[str], allow_code: list[str]) -> None:
    """Checks the keys of one YAML file, all of them at once.

    Args:
        path: The file.
        known: Every dotted key that is right.
        allow_code: Packages or modules whose classes may be named, besides the trusted ones.

    Raises:
        InputError: The file is missing or is no YAML; keys are unknown or doubled; or classes may not be named.
    """
    if not path.is_file():
        siblings = [str(sibling) for sibling in path.parent.glob("*.y*ml")]
        raise InputError(f"there is no config '{path}'.{suggest(str(path), siblings)}")
    root = _compose(path)
    # A user's own head lives beside the config; the end of the path, so that it cannot shadow an installed package.
    if allow_code and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    problems, seen = list(_class_problems(path, root, "", allow_code)), set()
    for key, line in _keys(root, "", known):
        if key in seen:
            problems.append(f"{path}:{line}: key '{key}' is given twice. Keep one of them.")
        elif key not in known:
            problems.append(f"{path}:{line}: unknown key '{key}'.{suggest(key, sorted(known))}")
        seen.add(key)
    if problems:
        raise InputError("\n  ".join(["the config is wrong:", *problems]))


def dump(parser: Parser, config: Namespace) -> str:
    """The resolved config as YAML: every key with its value, `***` for secrets, no words that only say how to run."""
    frozen = config.clone()
    for key in COMMAND_KEYS:
        frozen.pop(key, None)
    return mask(str(parser.dump(frozen, skip_unset=False)))


def difference(frozen: str, wanted: str) -> str:
    """What differs between a run's frozen config and the one that is asked for: one line per key, empty when equal."""
    lines = difflib.unified_diff(
        frozen.splitlines(), wanted.splitlines(), "frozen in the run", "asked for", n=0, lineterm=""
    )
    return "\n".join(line for line in lines if not line.startswith("@@"))


def _compose(path: Path) -> yaml.MappingNode:
    """A YAML file's nodes, which know their lines, once it is known to hold plain values only."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{path} holds no keys.")
        if _size(root, {}) > MOST_NODES:
            raise InputError(f"{path} expands to more than {MOST_NODES:,} values through its aliases; write them out.")
        yaml.safe_load(text)  # tags that stand for Python objects
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    return root


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a YAML node stands for once its aliases are followed; aliases share a node."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # one that holds itself never ends
        children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_size(child, known) for child in children if isinstance(child, yaml.Node))
    return known[id(node)]


def _keys(node: yaml.MappingNode, prefix: str, known: set[str]) -> Iterator[tuple[str, int]]:
    """Dotted keys of a YAML mapping with their lines, down to where the parser's own keys end."""
    for key_node, value in node.value:
        key = f"{prefix}{key_node.value}"
        yield key, key_node.start_mark.line + 1
        has_children = any(other.startswith(f"{key}.") for other in known)
        if isinstance(value, yaml.MappingNode) and has_children:
            yield from _keys(value, f"{key}.", known)


def _class_problems(path: Path, node: yaml.Node, key: str, allow_code: list[str]) -> Iterator[str]:
    """Classes that may not be named or do not exist, and wrong arguments of classes, anywhere in a YAML file."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _class_problems(path, child, key, allow_code)
    elif isinstance(node, yaml.MappingNode):
        entries = {name.value: (name, value) for name, value in node.value}
        if "class_path" in entries:
            yield from _one_class(path, entries["class_path"][1], entries.get("init_args", (None, None))[1], allow_code)
        for name, (_, value) in entries.items():
            if name != "class_path":
                yield from _class_problems(path, value, f"{key}.{name}".lstrip("."), allow_code)
    elif key.startswith(CLASS_KEYS) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", str(node.value)):
        yield from _one_class(path, node, None, allow_code)


def _one_class(path: Path, node: yaml.Node, arguments: yaml.Node | None, allow_code: list[str]) -> Iterator[str]:
    """What is wrong with one class path and its arguments. Nothing is imported that may not be named."""
    place, name = f"{path}:{node.start_mark.line + 1}", str(node.value)
    if not any(name == trusted or name.startswith(f"{trusted}.") for trusted in [*TRUSTED_PACKAGES, *allow_code]):
        module = name.rpartition(".")[0] or name
        yield f"{place}: naming '{name}' would run code of its own. If you trust it, add --allow-code {module}."
        return
    try:
        allowed = _arguments(_import(name))
    except ImportError as error:
        yield f"{place}: {error}"
        return
    for key, _ in arguments.value if isinstance(arguments, yaml.MappingNode) and allowed else []:
        if key.value not in allowed:
            line = f"{path}:{key.start_mark.line + 1}"
            yield f"{line}: '{name}' has no argument '{key.value}'.{suggest(key.value, allowed)}"


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


def _values(argv: list[str], *options: str) -> list[str]:
    """What stands behind an option, as `--option value` or `--option=value`."""
    spaced = [argv[i + 1] for i, word in enumerate(argv[:-1]) if word in options]
    return spaced + [word.partition("=")[2] for word in argv if word.partition("=")[0] in options and "=" in word]
