"""The default search space of a config, by the family of its backbone; docs/tune.md has the source of each range."""

from typing import Any

import timm

from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.model.training.defaults import Training, rates_of
from swinft.run.experiment import Experiment
from swinft.tuning.base import Base
from swinft.tuning.checks import problem_of

SWIN, VIT, CONVNEXT, CNN = "Swin", "ViT", "ConvNeXt", "CNN"
# timm's module of a model, by the start of its name; all others without batch normalisation are taken for a ViT.
MODULES = {"swin_transformer": SWIN, "convnext": CONVNEXT, "metaformer": CONVNEXT, "efficientnet": CNN}
FACTOR = 5.0  # around the learning rate of docs/defaults.md
LAYER_DECAY = {SWIN: (0.7, 1.0), VIT: (0.6, 0.95), CONVNEXT: (0.7, 1.0)}
DROP_PATH = {SWIN: 0.4, VIT: 0.3, CONVNEXT: 0.5, CNN: 0.3}
WEIGHT_DECAY = {SWIN: (0.005, 0.3), VIT: (0.005, 0.3), CONVNEXT: (0.0005, 0.3), CNN: (1e-5, 0.1)}
EMA, MIXUP = [None, 0.99, 0.999], [0.0, 0.2, 0.8]
HEAD_RATE = (1e-4, 1e-2)


def family_of(name: Any, has_batch_norm: bool) -> str:
    """The family of a backbone, by timm's module that defines it; a class of its own by its normalisation."""
    base = name.split(".")[0] if isinstance(name, str) else ""
    module = timm.models.model_entrypoint(base).__module__.rpartition(".")[2] if timm.is_model(base) else ""
    known = next((family for start, family in MODULES.items() if module.startswith(start)), None)
    return known or (CNN if has_batch_norm else VIT)


def default_space(base: Base, experiment: Experiment, schema: Schema) -> tuple[dict[str, Any], str]:
    """The space of a config without one, and for what it is made.

    Args:
        base: The config.
        experiment: The same.
        schema: The outputs.
    """
    config = experiment.config
    task = experiment.task(schema, loads_weights=False, pretrained=False)
    is_pretrained = config.model.pretrained is not False
    training = Training.of(task.net.backbone, is_pretrained)
    family = family_of(config.model.backbone, training.has_batch_norm)
    freeze = config.model.optim.freeze
    is_frozen = bool((freeze.share == 1 and freeze.epochs is None) or config.model.freeze_epochs >= _epochs(config))
    space = _rates(training, family, is_frozen) | _others(config, family, is_frozen)
    found = {key: _possible(base, schema, key, given) for key, given in space.items()}
    space = {key: given for key, given in found.items() if given}
    weights = "pretrained" if is_pretrained else "random weights"
    return space, f"{family}, {weights}{', frozen' if is_frozen else ''}"


def _rates(training: Training, family: str, is_frozen: bool) -> dict[str, Any]:
    """Learning rates and decays."""
    low, high = WEIGHT_DECAY[family]
    decay = {"model.optim.weight_decay": {"low": low, "high": high, "log": True}}
    heads = {"model.optim.head_lr": {"low": HEAD_RATE[0], "high": HEAD_RATE[1], "log": True}}
    if is_frozen:  # nothing but the head is trained
        return heads | decay
    rate = rates_of(training)["model.optim.lr"]
    space: dict[str, Any] = {"model.optim.lr": {"low": rate / FACTOR, "high": rate * FACTOR, "log": True}}
    if training.is_pretrained and family in LAYER_DECAY:
        low, high = LAYER_DECAY[family]
        space |= heads | {"model.optim.layer_decay": {"low": low, "high": high}}
    return space | decay


def _others(config: Any, family: str, is_frozen: bool) -> dict[str, Any]:
    """Regularisation, augmentation and length."""
    space: dict[str, Any] = {}
    if not is_frozen:
        space["model.drop_path_rate"] = {"low": 0.0, "high": DROP_PATH[family]}
    if isinstance(config.data.augment, str):  # a pipeline of the user's own stays
        space["data.augment"] = ["light", "medium", "heavy"]
    if not (config.model.mix.mixup_alpha or config.model.mix.cutmix_alpha):
        space["model.mix.mixup_alpha"] = list(MIXUP)
    if not is_frozen and isinstance(config.model.ema_decay, float | int | None):
        space["model.ema_decay"] = list(EMA)
    epochs = config.trainer.max_epochs
    if epochs and epochs > 1 and config.trainer.max_steps == -1:
        space["trainer.max_epochs"] = sorted({max(1, epochs // 2), epochs, 2 * epochs})
    return space


def _epochs(config: Any) -> int:
    epochs = config.trainer.max_epochs
    return int(epochs) if epochs and epochs > 0 else 1 << 30


def _possible(base: Base, schema: Schema, key: str, given: Any) -> Any:
    """What of a range or of choices this config takes; None for nothing to search.

    Not every backbone has drop path, and not every head mixes rows.
    """
    values = given if isinstance(given, list) else [given["low"], given["high"]]
    right = [value for value in values if problem_of(base, {key: value}) is None]
    if len(right) < 2 or (len(right) < len(values) and not isinstance(given, list)):
        return None
    try:
        base.experiment({key: right[-1]}).task(schema, loads_weights=False, pretrained=False)
    except InputError:
        return None
    return right if isinstance(given, list) else given
