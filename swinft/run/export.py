"""Exports a fold's weights to a format that works without swinft, with a JSON description beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swinft.class_spec import to_spec
from swinft.data.data_settings import image_sides
from swinft.data.schema import MISSING_CATEGORY, Schema
from swinft.errors import InputError, RunError, listed
from swinft.inference.export import SUFFIXES, Exported, Form, check_installed, check_parity, export_net
from swinft.inference.parity import example_inputs
from swinft.inference.provenance import sha256
from swinft.inference.timm_export import per_channel
from swinft.model.heads import Head
from swinft.model.network import ImageModel
from swinft.run.config.yaml_text import read_own_yaml
from swinft.run.experiment import Experiment
from swinft.run.fold_files import FoldId, held_out_by
from swinft.run.folds.kept import kept_epochs
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.store import digest, json_bytes, probe
from swinft.versions import version
from swinft.whole_files import is_left, replace_together

MAKER = "swinft export"
CONFIG = "config.json"  # timm's file name
WEIGHTS = (".safetensors", ".pth", ".bin")  # weights that timm would load from a folder
SIZES = (1, 3)  # images in the batches that are compared; the traced batch has 2
# Packages whose versions decide whether the network can be built elsewhere.
PACKAGES = ("swinft", "timm", "torch", "safetensors")


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Args:
        weights: The weights file.
        description: The JSON beside it.
        config: timm's config.json, for the format `timm`; None for others.
        difference: The largest difference from torch, as a fraction of the range.
        compared: How many images were compared, and of which kind.
        note: What the file lacks; empty if it is complete.
        usage: How to load it.
    """

    weights: Path
    description: Path
    config: Path | None
    difference: float
    compared: str
    note: str
    usage: dict[str, Any]

    @property
    def paths(self) -> list[Path]:
        """All files that were written."""
        return [self.weights, *([self.config] if self.config else []), self.description]


def description_of(path: Path) -> Path:
    """The JSON beside an exported file, named after it: several formats can be in one folder."""
    return path.with_name(f"{path.name}.json")


def export(
    run: str | Path, fold: FoldId, to: Form, output: str | Path | None = None, allow_code: list[str] | None = None
) -> ExportResult:
    """Writes the weights of a finished fold in another format, after comparing it with torch.

    A JSON file with the same name and `.json` describes preprocessing, outputs, metadata, versions and SHA-256.

    Args:
        run: The run's folder.
        fold: Number of the fold, or `all` for the training on every row.
        to: `timm`, `onnx`, `torchscript` or `safetensors`.
        output: The weights file; None for one in the run's folder `exports`.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: There is no such fold, it is not finished, the output exists and is not an export, a package is
            missing, or the network cannot be exported.
        StoreError: The file cannot be written, or the weights have changed since the fold saved them.
    """
    opened = Run.open(str(run))
    path = Path(output) if output else opened.exports / f"fold_{fold}" / to / f"model{SUFFIXES[to]}"
    with hold_if_writable(opened.lock):
        experiment = Experiment.of_run(opened, "predict", allow_code)
        (index,) = opened.finished_folds([fold], "--fold")
        check_installed(to)
        _check_output(path, to, output is None, opened.fold(index).weights.stat().st_size)
        config, schema = experiment.config, Schema.from_dict(opened.read_schema())
        if schema.base.are_maps:
            raise InputError(f"{opened.root} predicts masks, and networks of {schema.kind} cannot be exported.")
        net = experiment.network(schema, opened.fold(index).weights, torch.device("cpu"), fast_attention=False)
        sides = image_sides(config.data.image_size)
        exported = export_net(net, to, sides, schema.outputs, config.data.loading.resize)
        drawn = [example_inputs(net, sides, size, seed) for seed, size in enumerate(SIZES, 1)]
        real, reason = _real_batches(opened, experiment, index)
        difference = check_parity(net, exported, [*drawn, *real])
        compared = (
            f"{sum(SIZES)} random images and {f'{sum(SIZES)} of the fold' if real else f'none of the fold: {reason}'}"
        )
        parity = {"largest_difference": difference, "share_of": "the range", "images": compared}
        about = {"parity": parity, **_describe(experiment, schema, net, exported, sides)}
        about = {
            "run": {**_origin(opened, index), "name": config.name, "checkpoint": str(kept_epochs(config.checkpoint))},
            **about,
        }
        return ExportResult(*_write(path, to, exported, about), difference, compared, exported.note, exported.usage)


def _check_output(path: Path, to: Form, is_default: bool, needed_bytes: int) -> None:
    """Checks, before anything is computed, that the output may and can be written.

    Raises:
        InputError: It is a folder, has another suffix, or exists and is not an unchanged export; timm would load
            another file of its folder; or the folder is not writable.
    """
    suffix, at = SUFFIXES[to], path.parent
    if path.is_dir():
        raise InputError(f"--output {path} is a folder. Name a file: --output {path / f'model{suffix}'}.")
    if path.suffix != suffix:
        raise InputError(f"--output {path}: --to {to} writes {suffix}. Name it {path.with_suffix(suffix)}.")
    files = [path, *([at / CONFIG] if to == "timm" else []), description_of(path)]
    foreign = [] if is_default else [file for file in files if file.exists() and not _is_ours(file, path)]
    if foreign:
        raise InputError(
            f"{listed(map(str, foreign))}: already exists, and not as `{MAKER}` wrote it. Nothing is overwritten: name "
            f"another --output."
        )
    others = [file for file in at.glob("*") if file.suffix in WEIGHTS and file.name != path.name]
    if to == "timm" and others:
        raise InputError(
            f"{at} holds other weights ({others[0].name}), which timm could load with the {CONFIG} that is written "
            f"there. Name a file in a separate folder: --output {at / 'timm' / path.name}."
        )
    probe(at, needed_bytes, path.name, "Choose another path with --output FILE.")


def _is_ours(file: Path, weights: Path) -> bool:
    """Whether a file is what an export wrote for `weights`, unchanged, even if that was interrupted."""
    if is_left(file, description_of(weights)):
        return True
    try:
        about = json.loads(description_of(weights).read_bytes())
        is_made_here = about["made_by"] == MAKER
        if file == description_of(weights):
            return bool(is_made_here)
        return bool(is_made_here and about["files"][file.name] == sha256(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _write(path: Path, to: Form, exported: Exported, about: dict[str, Any]) -> tuple[Path, Path, Path | None]:
    """Writes the files; the description is missing until all others are there."""
    config = path.parent / CONFIG if exported.config is not None else None
    files = {path: exported.content} | ({config: exported.config} if config and exported.config else {})
    description = description_of(path)

    def describe(found: Mapping[Path, str]) -> bytes:
        digests = {file.name: sha256 for file, sha256 in found.items()}
        return json_bytes({"made_by": MAKER, "form": to, "sha256": found[path], "files": digests, **about})

    replace_together(files, description, describe)
    return path, description, config


def _real_batches(run: Run, experiment: Experiment, fold: FoldId) -> tuple[list[tuple[Tensor, ...]], str]:
    """Images of the fold's held-out rows, with their metadata; or none, and why."""
    loading = {"cache": False, "augment_on": "cpu", "num_workers": 0}
    try:
        data = experiment.datamodule(
            run, folds={"held_out": held_out_by(fold) or 0}, loading=loading, batch_size=max(SIZES)
        )
        data.setup("fit")
        batch = next(iter(data.val_dataloader()))
    except (InputError, RunError, OSError) as error:  # a run can be exported without its images
        return [], str(error).splitlines()[0]
    tensors = [batch[key] for key in ("image", "features", "image_mask") if key in batch]
    return [tuple(tensor[:size] for tensor in tensors) for size in SIZES], ""


def _origin(run: Run, fold: FoldId) -> dict[str, Any]:
    """Which weights were exported, without paths of this machine."""
    return {"fold": fold, "of_folds": run.planned_folds(), "weights_sha256": digest(run.fold(fold).weights)}


def _describe(
    experiment: Experiment, schema: Schema, net: ImageModel, exported: Exported, sides: tuple[int, int]
) -> dict[str, Any]:
    """The preprocessing, the network, and the decoding of its output."""
    frozen = read_own_yaml(experiment.dump())
    loading, model = frozen["data"]["loading"], frozen["model"]
    is_inside = exported.output == "predictions"
    return {
        "input": {
            "name": "image",
            "shape": ["batch", *net.image_shape(sides)],
            "dtype": "float32",
            "colour_order": "RGB" if net.backbone.num_channels == 3 else "as data.image stacks channels",
            "of_a_row": frozen["data"]["image"],
            "mask": "image_mask, bool [batch, images]: which are there" if net.fusion else None,
            "value_range": [0, 255] if is_inside else "(pixel / 255 - mean) / std of pixels in 0-255",
            "normalised_by_the_network": is_inside,
            "mean": per_channel(net.backbone.mean),
            "std": per_channel(net.backbone.std),
        },
        "resize": {
            "rule": loading["resize"],
            "interpolation": "area averaging to shrink, bilinear to enlarge (OpenCV's INTER_AREA, INTER_LINEAR)",
            "shrink_first": loading["shrink"],
            "preprocess": loading["preprocess"],
            "image_rules": loading["image_rules"],
        },
        "metadata": _metadata(schema),
        "output": {
            "name": exported.output,
            "names": schema.outputs,
            "target_kind": schema.kind,
            "target_class": schema.kind_class,
            "classes": schema.outputs if schema.base.are_classes else None,
            "decode": {**_decode_rule(net.head), "done_by_the_network": is_inside},
        },
        "network": {
            "backbone": model["backbone"],
            "backbone_args": model["backbone_args"],
            "head": to_spec(net.head),
            "pooling": net.pooling_spec,
            "metadata_hidden": model["metadata_hidden"] if net.metadata else None,
        },
        "usage": exported.usage,
        "note": exported.note,
        "versions": {package: version(package) for package in PACKAGES},
    }


def _decode_rule(head: Head) -> dict[str, Any]:
    """The rule of a head's `decode`; that of the base class does not apply if a subclass overrides `decode`."""
    owner: Any = next(cls for cls in type(head).__mro__ if "decode" in vars(cls))
    rule: dict[str, Any] = (owner if "decode_rule" in vars(owner) else Head).decode_rule(head)
    return rule


def _metadata(schema: Schema) -> dict[str, Any] | None:
    """The second input, with the content of each of its F columns; None without metadata."""
    if not schema.num_features:
        return None
    numbers = [
        {"column": name, "kind": "number", "true_and_false": "1 and 0" if name in schema.booleans else None}
        for name in schema.numeric_features
    ]
    categories = [
        {"column": column, "kind": "category", "is": None if value == MISSING_CATEGORY else value}
        for column, known in schema.categories.items()
        for value in known
    ]
    return {
        "name": "features",
        "shape": ["batch", schema.num_features],
        "dtype": "float32",
        "missing_number": "NaN",
        "category": "1 in the column of the row's category, 0 in the others; `is: null` stands for a missing cell; all "
        "are 0 for another category",
        "columns": [*numbers, *categories],
    }
