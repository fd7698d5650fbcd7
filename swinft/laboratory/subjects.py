"""What is measured of a run: the network of a fold, with rows that the fold holds out.

Shapes: B batch, V images of a row, C channels, H and W pixels, N rows, K outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinft.data.datamodule import CSVDataModule
from swinft.data.loading.workers import Destination
from swinft.data.roots import resolved_root
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.finite import Origin, check_finite
from swinft.inference.tta import View, check_views, predict_views
from swinft.laboratory.layers import Layers
from swinft.laboratory.options import LabOptions
from swinft.laboratory.subject import BackboneSubject, ConfigSubject, Subject
from swinft.model.metrics import Metric
from swinft.model.network import ImageModel
from swinft.model.scoring import chosen_metrics
from swinft.printing import visible
from swinft.run.experiment import Experiment
from swinft.run.fold_files import Fold, FoldId, held_out_by
from swinft.run.inputs import check_inputs
from swinft.run.layout import Run
from swinft.run.scoring import row_scorer
from swinft.store import digest

__all__ = ["BackboneSubject", "Batch", "ConfigSubject", "Intact", "RunSubject", "Subject", "subject_of"]
Batch = dict[str, Tensor]


class Intact(NamedTuple):
    """What a network predicts as it is.

    Args:
        values: (N, K), in the competition's units.
        scores: By the run's metrics.
    """

    values: NDArray[np.float32]
    scores: dict[str, float]


class RunSubject(Subject):
    """The network of one fold of a run, and rows that the fold holds out.

    Nothing is loaded before it is used.

    Raises:
        InputError: The folder is no run, or has no networks, or predicts masks, or the fold is not finished or holds
            out no row.
    """

    kind = "run"

    def __init__(self, given: str, options: LabOptions) -> None:
        super().__init__(given, options)
        self.run = Run.open(given)
        self.run.check_trained()
        if Schema.from_dict(self.run.read_schema()).base.are_maps:
            raise InputError(f"{self.run.root} predicts masks: the laboratory measures networks with one answer a row.")
        self.label = visible(self.run.root.resolve().name)
        self.fold = _chosen_fold(self.run, options.fold)
        self.experiment = Experiment.of_run(self.run, "lab", options.allow_code)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run.root

    @property
    def held_out(self) -> int:
        """The number of the fold whose rows are measured."""
        held_out = self.fold.held_out
        assert held_out is not None
        return held_out

    def made_with(self) -> dict[str, Any]:
        """Weights, rows, seed and device."""
        files = {"weights": self.fold.weights, "folds": self.run.folds, "images": self.run.images}
        found = {name: digest(path) for name, path in files.items()}
        views = [view.name for view in self.views]
        rows = {"rows": self.options.rows, "fold": str(self.fold.index), "views": views, "device": self.device.type}
        return {**super().made_with(), **found, **rows}

    def describe(self) -> str:
        """Backbone, image size, fold and rows."""
        config = self.experiment.config
        size = config.data.image_size
        side = f"{size}" if isinstance(size, int) else " × ".join(map(str, size))
        named = config.model.backbone
        backbone = named if isinstance(named, str) else str(getattr(named, "class_path", named))
        return f"{backbone} at {side} px, fold {self.fold.index}, {len(self.rows):,} of its held-out rows"

    @cached_property
    def data(self) -> CSVDataModule:
        """The datamodule with the training rows; the fold is held out.

        Raises:
            InputError: The training table has changed since the run's start.
        """
        options, config = self.options, self.experiment.config.clone()
        changes: dict[str, Any] = {"batch_size": options.batch_size or 2 * config.data.batch_size}
        if options.root:
            config.data.root = changes["root"] = resolved_root(options.root)
        changes |= {"folds": {"held_out": self.held_out}, "loading": {"num_workers": options.num_workers}}
        check_inputs(self.run, config, ("train",))
        data = self.experiment.datamodule(self.run, **changes)
        data.image_files.use_known_cache("")
        data.setup("fit")
        check_views(self.views, *data.settings.shown_to_network)
        data.destination = Destination(self.device, is_command=True)
        return data

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the measured rows in the training table, (N,), ascending."""
        held_out = self.data.splits.held_out(self.held_out)
        if self.options.rows == "all" or self.options.rows >= len(held_out):
            return held_out
        drawn = self.generator("rows").permutation(len(held_out))[: self.options.rows]
        return np.sort(held_out[drawn])

    @cached_property
    def batches(self) -> list[Batch]:
        """The rows as the network sees them without augmentation, decoded once and kept in memory.

        `image` uint8 (B, C, H, W) or (B, V, C, H, W) with `image_mask`; `row`, `target`, and `features` if any.
        """
        return list(self.data.ordered_loader("val", self.rows))

    @cached_property
    def views(self) -> list[View]:
        """The views of the run's out-of-fold predictions."""
        return self.experiment.views()

    def network(self) -> ImageModel:
        """The fold's network with the weights on disk, new each time, in evaluation mode and 32-true.

        Attention is timm's own and computed operation by operation: hooks see all of it, and it can be differentiated
        twice, which torch's fused functions cannot.
        """
        net = self.experiment.network(self.data.schema, self.fold.weights, self.device, False, "32-true")
        for module in net.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # type: ignore[assignment]
        return net

    @cached_property
    def layers(self) -> Layers:
        """The layers of `net`, with their hooks."""
        net, first = self.net, self.batches[0]

        def run() -> None:
            with torch.inference_mode():
                self.forward(net, {name: value[:2] for name, value in first.items()})

        return Layers(net.backbone.model, run)

    @cached_property
    def net(self) -> ImageModel:
        """One network for measurements that leave it as it was."""
        return self.network()

    def predict(self, net: ImageModel, batches: Sequence[Batch] | None = None) -> NDArray[np.float32]:
        """Predictions (N, K) of the rows in the competition's units, the mean of the run's views.

        Args:
            net: A network on the device.
            batches: Other images of the same rows; by default those of the run.

        Raises:
            InputError: A prediction is NaN or infinite.
        """
        found = []
        with torch.inference_mode():
            for batch in self.batches if batches is None else batches:
                images = batch["image"].to(self.device)
                values = predict_views(partial(self._predicted, net, batch), images, self.views)
                check_finite(batch["row"], values.cpu().isfinite().all(1), [0], "32-true", self._origin)
                found.append(values.cpu())
        return torch.cat(found).numpy()

    def forward(self, function: Callable[..., Tensor], batch: Batch, image: Tensor | None = None) -> Tensor:
        """Calls a function such as `net` or `net.predict` with what a batch holds, on the device.

        Args:
            function: Takes `image`, and `features` and `image_mask` where there are any.
            batch: A batch.
            image: Other images than those of the batch.
        """
        more = {name: batch[name].to(self.device) for name in ("features", "image_mask") if name in batch}
        return function(batch["image"].to(self.device) if image is None else image, **more)

    def _predicted(self, net: ImageModel, batch: Batch, image: Tensor) -> Tensor:
        return self.forward(net.predict, batch, image)

    @property
    def _origin(self) -> Origin:
        return Origin(self.data.train_table.ids, [self.fold.weights], "Measure another fold: --fold.")

    @cached_property
    def metrics(self) -> list[Metric]:
        """The run's metrics; the first one is what the run is chosen by."""
        given = self.experiment.section("model")["metrics"] or list(self.fold.read_result()["oof"])
        return chosen_metrics(given, self.data.schema.kind)

    @property
    def metric(self) -> str:
        """The name of the first metric."""
        return str(self.metrics[0].name)

    @property
    def higher_is_better(self) -> bool:
        """The direction of the first metric."""
        return bool(self.metrics[0].higher_is_better)

    @cached_property
    def _scorer(self) -> Callable[..., dict[str, float]]:
        return row_scorer(self.metrics, self.data, self.rows)

    def scores(self, values: NDArray[np.float32]) -> dict[str, float]:
        """The run's metrics of predictions of the rows; NaN where a metric is undefined for them."""
        return self._scorer(values, None)

    @cached_property
    def intact(self) -> Intact:
        """The predictions and the scores of `net` as it is."""
        values = self.predict(self.net)
        return Intact(values, self.scores(values))

    def losses(self, values: Mapping[str, float], base: Mapping[str, float]) -> float:
        """How much worse a score is than another one: positive whatever the direction of the metric is."""
        difference = base[self.metric] - values[self.metric]
        return difference if self.higher_is_better else -difference


def _chosen_fold(run: Run, given: FoldId | None) -> Fold:
    """The fold whose network is measured.

    Raises:
        InputError: It is unknown, unfinished, or holds out no row.
    """
    if given is None:
        done = [name for name in run.planned_folds() if run.fold(name).is_done]
        if not done:
            raise InputError(f"no fold of {run.root} is finished. Run `{run.resume_command}`.")
        return run.fold(done[0])
    name = int(given) if isinstance(given, str) and given.isdigit() else given
    if held_out_by(name) is None:
        raise InputError(f"--fold {given} trains on every row and holds out none: name one of {run.planned_folds()}.")
    chosen = run.finished_folds([name], "--fold")
    return run.fold(chosen[0])


def subject_of(given: str, options: LabOptions, takes: Sequence[str]) -> Subject:
    """The subject that a user names.

    Args:
        given: The folder of a run, the name of a network of timm, or a YAML file.
        options: The options of the command.
        takes: The kinds of subject that the instrument takes.

    Raises:
        InputError: It is none of these, or the instrument does not take it.
    """
    path = Path(given)
    is_config = path.suffix.lower() in (".yaml", ".yml") and path.is_file()
    is_name = timm.is_model(given.split(".")[0]) and not path.is_dir()
    kind = "config" if is_config else "network" if is_name and "network" in takes else "run"
    if kind not in takes:
        what = f"'{given}' is a {kind}" if kind != "run" or path.is_dir() else f"there is no '{given}'"
        raise InputError(f"{what}, and this instrument takes {' or '.join(f'a {each}' for each in takes)}.")
    if kind == "run" and not path.is_dir() and "network" in takes:
        return BackboneSubject(given, options)  # whose error names both
    made: Mapping[str, type[Subject]] = {"run": RunSubject, "network": BackboneSubject, "config": ConfigSubject}
    return made[kind](given, options)
