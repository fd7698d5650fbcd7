"""The networks of some folds of a run, and how they predict: device, precision, attention, compilation, views."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError
from swinft.inference.compiled import nets_for_passes
from swinft.inference.predictor import Predictor
from swinft.inference.provenance import Provenance
from swinft.inference.tta import View, chosen_views
from swinft.model.compiling import CompilePolicy
from swinft.model.network import ImageModel
from swinft.run.compute.choices import Choice, choice_to_predict, halved
from swinft.run.compute.selection import select_attention
from swinft.run.config.trust import built_by_name
from swinft.run.environment import trained_in
from swinft.run.experiment import Experiment
from swinft.run.fold_files import FoldId
from swinft.run.folds.kept import kept_epochs
from swinft.run.layout import Run
from swinft.run.prediction.options import PredictOptions
from swinft.run.provenance import weights_of
from swinft.system.precision import Precision, prediction_precision


@dataclass(frozen=True)
class Networks:
    """The networks of some folds of a run, and how they predict; they are loaded by `load`.

    Args:
        run: The run.
        experiment: Its experiment, with the batch size that its device needed.
        folds: The trainings that predict.
        device: The device, or the type of several.
        choice: The attention of the run on this device.
        views: Views that are averaged.
        oof_views: Those of the out-of-fold predictions.
        backend: `torch` or `openvino`.
        policy: Whether to compile.
        precision: The resolved precision.
    """

    run: Run
    experiment: Experiment
    folds: list[FoldId]
    device: torch.device
    choice: Choice
    views: list[View]
    oof_views: list[View]
    backend: str
    policy: CompilePolicy
    precision: Precision

    @classmethod
    def of(cls, run: Run, options: PredictOptions) -> "Networks":
        """The networks that options choose; prints a note if their precision is not that of the training.

        Raises:
            InputError: A fold is not finished, a view is unknown, or the device cannot be used.
        """
        experiment = Experiment.of_run(run, "predict", options.allow_code)
        folds, device = run.finished_folds(options.folds), options.torch_device()
        choice = choice_to_predict(run, experiment.config, device)
        experiment = experiment.with_config(halved(experiment.config, choice.halvings))
        oof_views = experiment.views()
        views = oof_views if options.views is None else requested_views(options)
        requested: Precision = "32-true" if options.backend == "openvino" else options.precision
        precision, note = prediction_precision(requested, trained_in(run, folds), device)
        if note:
            print(f"  {note}")
        policy = experiment.config.predict.compile if options.compile is None else options.compile
        kept = (views, oof_views, options.backend, policy, precision)
        return cls(run, experiment, folds, device, choice, *kept)

    @property
    def weights(self) -> list[Path]:
        """The weights file of each network."""
        return [self.run.fold(name).weights for name in self.folds]

    def batch_size(self, options: PredictOptions) -> int:
        """Images per batch: that of the options, or of the config."""
        config = self.experiment.config
        return int(options.batch_size or config.predict.batch_size or 2 * config.data.batch_size)

    def provenance(self) -> Provenance:
        """What their predictions are made with."""
        return Provenance(
            self.folds,
            self.run.planned_folds(),
            [view.name for view in self.views],
            self.backend,
            self.precision,
            str(kept_epochs(self.experiment.config.checkpoint)),
            weights_of(self.run, self.folds),
        )

    def load(self, data: CSVDataModule, device: torch.device, images: int = 0, batches: int = 0) -> Sequence[Predictor]:
        """The networks on a device, compiled if configured.

        Args:
            data: The datamodule of the rows.
            device: The device.
            images: Number of rows of this process, on which it depends whether attention is timed; 0 if unknown.
            batches: Number of batches, on which it depends whether `auto` compiles; 0 if unknown.

        Raises:
            InputError: OpenVINO does not predict this kind of target.
        """
        # OpenVINO compiles timm's attention.
        is_openvino, precision, views = self.backend == "openvino", self.precision, len(self.views)
        if is_openvino and data.schema.base.are_maps:
            raise InputError(f"--backend openvino does not predict {data.schema.kind}: remove it.")
        fast = False if is_openvino else self.choice.prediction
        loaded = [self.experiment.network(data.schema, file, device, fast, precision) for file in self.weights]
        if is_openvino:
            return _by_openvino(loaded, data.image_size)
        if fast == "auto" and self.policy is not True:  # a compiled network would be timed eagerly
            select_attention(loaded, images * views, data.batch_size, data.image_size, device, precision)
        passes = batches * len(loaded) * views
        return nets_for_passes(loaded, passes, data.batch_size, device, self.policy, precision, data.image_size)


def requested_views(options: PredictOptions) -> list[View]:
    """The views of a command line: names, and class paths of custom views, which get no arguments.

    Raises:
        InputError: There is no such view, or its class is not allowed.
    """
    allowed = options.allow_code or []
    return chosen_views(
        [
            built_by_name(name, "predict.views", "--views", allowed) if "." in name else name
            for name in options.views or []
        ]
    )


def _by_openvino(nets: Sequence[ImageModel], image_size: tuple[int, int]) -> Sequence[Predictor]:
    """The networks compiled by OpenVINO, each compared with torch."""
    from swinft.inference.openvino import compile_net  # optional, and slow to import

    compiled = [compile_net(net, image_size) for net in nets]
    largest = max(net.deviation for net in compiled)
    print(f"compiled by OpenVINO; largest difference from torch: {largest:.1e} of the range")
    return compiled
