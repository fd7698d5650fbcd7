"""One experiment: a checked config, and the objects that are built from it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from safetensors.torch import load_file, save
from torch import Tensor

from swinft.data.datamodule import CSVDataModule
from swinft.data.images.libraries import tune_decoders
from swinft.data.row_images import row_images
from swinft.data.schema import Schema
from swinft.data.sources.recorded import with_recorded
from swinft.errors import InputError, listed
from swinft.inference.tta import View, chosen_views
from swinft.model.attention.swin import FastAttention, set_attention
from swinft.model.backbones.memory_format import plain_where_needed
from swinft.model.network import ImageModel
from swinft.model.settings import TaskContext
from swinft.model.task import FineTuneTask
from swinft.model.training.lora import merged_state
from swinft.model.training.optim import OptimConfig
from swinft.run.config.explain import reason
from swinft.run.config.parser import Parser, plain
from swinft.run.config.secrets import environment
from swinft.run.config.sections import build_parser, dump, load, read_frozen, without_command_keys
from swinft.run.inputs import TABLES
from swinft.run.layout import Run
from swinft.run.trainer import make_trainer
from swinft.store import commit, verify
from swinft.system.precision import Precision, half_dtype


@dataclass(frozen=True)
class Experiment:
    """A checked config with its parser; builds every object of a run.

    Args:
        parser: The parser that read the config; it knows the class of every section.
        config: The config, with the options of the command line.
    """

    parser: Parser
    config: Namespace

    @classmethod
    def from_argv(cls, parser: Parser, argv: list[str]) -> "Experiment":
        """The experiment of a command line and its YAML files.

        Raises:
            InputError: A file, a key or a value is wrong; all of them are listed.
        """
        return cls(parser, load(parser, argv))

    @classmethod
    def of_run(cls, run: Run, command: str, allow_code: list[str] | None) -> "Experiment":
        """The experiment of an existing run, from its verified frozen config.

        Args:
            run: The run.
            command: The command that reads it.
            allow_code: Packages or modules whose classes the config may name, besides the trusted ones.

        Raises:
            InputError: A key is unknown, or a class is not allowed.
            StoreError: The config has changed since the run was started.
        """
        parser = build_parser(command)
        return cls(parser, read_frozen(parser, verify(run.config), allow_code))

    def with_config(self, config: Namespace) -> "Experiment":
        """The same experiment with another config."""
        return replace(self, config=config)

    def dump(self) -> str:
        """The config as a run freezes it: every key, `***` for secrets, no options that only say how to run.

        Raises:
            InputError: A class has an argument that YAML cannot express.
        """
        return dump(self.parser, self.config)

    def secrets(self) -> dict[str, str]:
        """Environment variables from which a child process fills in the masked secrets."""
        return environment(str(self.parser.dump(without_command_keys(self.config), skip_unset=False)))

    def section(self, name: str) -> dict[str, Any]:
        """One section's arguments, with its class paths instantiated.

        Raises:
            InputError: A class does not accept its arguments.
        """
        alone = Namespace(**{name: self.config[name]})  # type: ignore[no-untyped-call]
        try:
            return dict(vars(self.parser.instantiate(alone)[name]))  # its own `items` flattens sections
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{name}: {reason(str(error))}") from error

    def views(self) -> list[View]:
        """The views of out-of-fold predictions, and of test rows by default.

        Raises:
            InputError: There is no such view, or a class does not accept its arguments.
        """
        return chosen_views(self.section("predict")["views"])

    def datamodule(self, run: Run | None = None, needs_images: bool = True, **changes: Any) -> CSVDataModule:
        """The datamodule.

        Args:
            run: A run that was started with the config: its verified folds.csv, images.csv and extra.csv are used.
            needs_images: Missing images are an error. False for what needs the run's rows and targets: images, and the
                tables of rows to predict, may be gone, and one that is there can be read.
            changes: Arguments to replace; in a section (`folds={"held_out": 1}`), only the keys given.

        Raises:
            InputError: Settings are wrong or contradict each other; all of them are listed.
            StoreError: A file of the run has changed.
        """
        tune_decoders()
        data = CSVDataModule(**self.data_arguments(run, **changes))
        if run:
            data.use_images_csv(verify(run.images))
            data.splits.known_schema = run.schema
            data.splits.known_leaks = verify(run.extra) if data.settings.folds.extra else None
            if not needs_images:
                data.splits.needs_images = False
                data.splits.settings = with_recorded(data.settings, run.images)
                data.image_files.use_known_cache("")
        return data

    def data_arguments(self, run: Run | None = None, **changes: Any) -> dict[str, Any]:
        """The arguments of `datamodule`, with objects built; the same as those of `datamodule`."""
        arguments = {name: plain(value) if name in TABLES else value for name, value in self.section("data").items()}
        own: dict[str, Any] = {"seed": self.config.seed}
        if run:
            own |= {"drop": str(verify(run.dropped))} if self.config.data.folds.drop else {}
            own |= {"file": str(verify(run.folds)), "kind": "auto", "num": None}
            spreads = self.config.data.folds.rare_classes == "spread"  # what such folds score is allowed still
            own |= {
                "rare_classes": "spread" if spreads else "error",
                "duplicates": "report",
                "column": None,
                "fraction": None,
            }
        nested = {"folds": own, "columns": {"sample_id": self.config.submission.id}, "loading": {}}
        for name, settings in nested.items():
            arguments[name] = {**plain(arguments[name]), **settings, **changes.pop(name, {})}
        return {**arguments, **changes}

    def task(self, schema: Schema, seed: int | None = None, loads_weights: bool = True, **changes: Any) -> FineTuneTask:
        """The task for a table's outputs.

        Args:
            schema: The outputs, and the metadata.
            seed: Seed of the training; None for the config's.
            loads_weights: As in `TaskContext`.
            changes: Arguments of the task to replace.

        Raises:
            InputError: The head is for another kind of target than `data.target_kind`.
        """
        seed = self.config.seed if seed is None else seed
        images, rest = row_images(self.config.data.image).for_network, (seed, loads_weights)
        more = {**images, "auxiliary": schema.auxiliary_heads, "has_gaps": schema.has_gaps}
        more |= {"are_maps": schema.base.are_maps}
        context = TaskContext(self.config.data.image_size, schema.num_features, schema.category_sizes, *rest, **more)
        own = {"num_outputs": len(schema.outputs), "context": context}
        task = FineTuneTask(**{**self.section("model"), **own, **changes})
        task.check_schema(schema)
        return task

    def trainer(self, root: Path, precision: Precision, recorder: Checkpoint, **changes: Any) -> Trainer:
        """Lightning's Trainer, which writes every file inside `root` and saves through the store.

        Args:
            root: The fold's folder.
            precision: The resolved precision.
            recorder: The callback that saves; Lightning calls it after all callbacks of the config.
            changes: Arguments to replace.

        Raises:
            InputError: Lightning rejects a value, or a package that the config needs is not installed.
        """
        arguments = {**self.section("trainer"), "precision": precision, **changes}
        if arguments["benchmark"] is None and row_images(self.config.data.image).may_lack:
            arguments["benchmark"] = False  # cuDNN would search again for each number of images in a batch
        return make_trainer(arguments, root, recorder)

    def network(
        self,
        schema: Schema,
        path: Path,
        device: torch.device,
        fast_attention: FastAttention | None = None,
        precision: Precision = "32-true",
    ) -> ImageModel:
        """A new network with verified weights, ready to predict.

        It is never taken from the Trainer that fitted it: predictions always use the weights on disk.

        Args:
            schema: The run's outputs.
            path: The weights.
            device: Device of the network.
            fast_attention: Whether Swin's attention is computed faster; None for the config's setting.
            precision: The resolved precision of the prediction.

        Raises:
            InputError: A weight is NaN or infinite.
        """
        net = self.task(schema, pretrained=False, ema_decay=None, optim=OptimConfig()).net  # nothing is trained
        net.load_state_dict(load_file(verify(path)))
        _check_weights(net, path)
        net.auxiliary = None  # for training only
        net = net.eval().to(device)
        plain_where_needed(net, device)
        wanted = self.config.model.compute.fast_attention if fast_attention is None else fast_attention
        set_attention(net, device, wanted, dtype=half_dtype(precision) or torch.float)
        return net


def save_net(net: ImageModel, path: Path, others: Mapping[str, Tensor] | None = None) -> None:
    """Commits a network's weights as safetensors.

    Args:
        net: The network.
        path: The file.
        others: What a network that only predicts does not hold: the weights of auxiliary heads.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in merged_state(net).items()}
    commit(path, save({**(others or {}), **tensors}), "swinft fit")


def _check_weights(net: ImageModel, path: Path) -> None:
    """Refuses weights with which every prediction would be NaN.

    Raises:
        InputError: A weight is NaN, or a parameter is infinite.
    """
    bad = [name for name, tensor in net.named_parameters() if not tensor.isfinite().all()]
    bad += [name for name, tensor in net.named_buffers() if tensor.isnan().any()]
    if bad:
        raise InputError(
            f"{path} has NaN or infinite weights ({listed(bad, 3)}): the training of this fold has diverged. Predict "
            f"without it (--folds), or fit again with a lower model.optim.lr or trainer.precision 32-true, under "
            f"another --name."
        )
