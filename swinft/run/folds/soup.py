"""A fold's weights as the average of those of several epochs."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import DataLoader

from swinft.data.datamodule import CSVDataModule
from swinft.data.loading.dataset import ShuffledSampler, make_loader
from swinft.data.loading.workers import last_pass, plan_loader
from swinft.errors import listed
from swinft.inference.predictor import Values
from swinft.model.metrics import Metric
from swinft.model.network import ImageModel
from swinft.run.experiment import save_net
from swinft.run.fold_files import Fold
from swinft.run.folds.kept import SoupConfig
from swinft.run.folds.recorder import FoldRecorder
from swinft.run.scoring import score_rows
from swinft.seeding import seed_for
from swinft.store import commit, verify
from swinft.system.precision import Precision, autocast

Norm = nn.modules.batchnorm._BatchNorm


def averaged(files: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of every weight of several files; what is no fraction is that of the last file.

    Args:
        files: Weights of one network, committed.

    Raises:
        StoreError: A file has changed, or is missing.
    """
    sums: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    for file in files:
        last = load_file(verify(file))
        for name, tensor in last.items():
            if tensor.is_floating_point():
                sums[name] = sums[name] + tensor.double() if name in sums else tensor.double()
    return {name: (sums[name] / len(files)).to(last[name].dtype) if name in sums else last[name] for name in last}


def changed_norms(net: nn.Module, files: Sequence[Path]) -> list[Norm]:
    """The BatchNorms of a network whose statistics differ between files: an average of weights has others.

    Those that were frozen in training have the same in all of them, which they keep.
    """
    states = [load_file(file) for file in files]
    norms = {name: module for name, module in net.named_modules() if isinstance(module, Norm)}
    keys = {name: f"{name}.running_mean" for name in norms}
    return [
        norms[name]
        for name, key in keys.items()
        if key in states[0] and any(not torch.equal(states[0][key], state[key]) for state in states[1:])
    ]


@torch.no_grad()
def recompute(
    net: ImageModel,
    norms: Iterable[Norm],
    loader: DataLoader[Any],
    device: torch.device,
    precision: Precision,
) -> None:
    """Sets the statistics of BatchNorms to the mean of those of a loader's batches; all else is as in evaluation."""
    momenta = {norm: norm.momentum for norm in norms}
    for norm in momenta:
        norm.reset_running_stats()
        norm.momentum = None  # all batches count alike
        norm.train()
    with autocast(precision, device), last_pass(loader):
        for batch in loader:
            net(**{name: batch[name].to(device) for name in net.inputs if name in batch})
    for norm, momentum in momenta.items():
        norm.momentum = momentum
        norm.eval()


def training_batches(data: CSVDataModule) -> DataLoader[Any]:
    """The training rows of a fold as in a first epoch on one device, whatever trained them."""
    rows = data.splits.trained_on(data.fold)
    if data.max_batches is not None:
        rows = rows[: data.max_batches * data.batch_size]
    dataset, seed = data.make_dataset("train", rows), data.settings.folds.seed
    order = ShuffledSampler(rows, seed_for("order", seed, data.fold))
    height, width = data.image_size
    batches = -(-len(rows) // data.batch_size)
    wanted = data.settings.loading.num_workers
    plan = plan_loader(wanted, data.destination, 3 * height * width * data.batch_size, batches, "validate")
    return make_loader(dataset, order, data.batch_size, plan, seed)


class Soup:
    """Makes the average that a fold predicts with, from the weights that it has kept.

    Args:
        fold: The fold's folder: its weights are the average so far.
        data: The fold's rows.
        network: Makes the network of the fold's weights.
        score: The first metric of a network's predictions of the held-out rows; it may spoil the network.
        metric: That metric.
        device: Where networks compute.
        precision: What was trained in.
    """

    def __init__(
        self,
        fold: Fold,
        data: CSVDataModule,
        network: Callable[[], ImageModel],
        score: Callable[[ImageModel], float],
        metric: Metric,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.fold, self.data, self.network, self.score = fold, data, network, score
        self.metric, self.device, self.precision = metric, device, precision

    def make(self, config: SoupConfig, candidates: Sequence[int]) -> list[int]:
        """Averages epochs into the fold's weights.

        Args:
            config: Which.
            candidates: The epochs that were kept, counted from 1; for `greedy` the best first.

        Returns:
            The epochs of the average.
        """
        if config.soup != "greedy":
            return self._average(candidates)
        taken, best = list(candidates[:1]), math.nan
        for number, epoch in enumerate(candidates):
            tried = [epoch] if not number else [*taken, epoch]
            self._average(tried)
            score = self.score(self.network())
            if not number or self._is_better(score, best):
                taken, best = tried, score
        return self._average(taken)

    def _is_better(self, score: float, best: float) -> bool:
        if math.isnan(score) or math.isnan(best):
            return False
        return score > best if self.metric.higher_is_better else score < best

    def _average(self, epochs: Sequence[int]) -> list[int]:
        """Commits the average of epochs as the fold's weights, with the statistics that it has on the training rows."""
        epochs = sorted(epochs)
        files = [self.fold.candidate(epoch) for epoch in epochs]
        weights = averaged(files)
        commit(self.fold.weights, save(weights), "swinft fit")
        if len(epochs) > 1:
            net = self.network()
            if norms := changed_norms(net, files):
                recompute(net, norms, training_batches(self.data), self.device, self.precision)
                save_net(net, self.fold.weights, weights)
        return epochs


def make_soup(
    recorder: FoldRecorder,
    data: CSVDataModule,
    network: Callable[[], ImageModel],
    predict: Callable[[ImageModel], tuple[NDArray[np.int64], Values]],
    device: torch.device,
    precision: Precision,
) -> dict[str, Any]:
    """Makes the fold's weights an average of its epochs where that is configured.

    Returns:
        The epochs, under the name that they have in the fold's result; empty where there is no average.
    """
    kept, metric = recorder.kept, recorder.metrics[0]
    if not isinstance(kept.checkpoint, SoupConfig):
        return {}
    soup = Soup(
        kept.fold,
        data,
        network,
        lambda net: score_rows([metric], data, *predict(net))[metric.name],
        metric,
        device,
        precision,
    )
    epochs = soup.make(kept.checkpoint, kept.candidates(recorder.history))
    print(f"fold {kept.fold.index}: predicts with the mean weights of epochs {listed(map(str, epochs))}", flush=True)
    return {"averaged_epochs": epochs}
