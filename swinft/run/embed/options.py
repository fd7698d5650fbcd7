"""The options of `swinft embed`, and their checks."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from swinft.data.loading.workers import NumWorkers
from swinft.errors import InputError
from swinft.ranges import Range, check_ranges, check_whole
from swinft.run.layout import check_name
from swinft.run.prediction.options import PredictOptions
from swinft.system.precision import Precision

Layer = Literal["pooled", "neck", "logits"]
RowSet = Literal["train", "test", "all"]
# Options that decide what the embeddings are, and not how they are made.
DECIDING = ("layer", "views", "backbone", "backbone_weights", "backbone_args", "image_size", "precision")


@dataclass(frozen=True)
class EmbedOptions:
    """Which embeddings are made, and how.

    Args:
        layer: `pooled`: the features of the backbone's pooling, without metadata; `neck`: what the head's last layer
            reads: these with the embedded metadata, behind the layer `embedding` of an ArcFaceHead; `logits`.
        rows: `train` for the training rows, `test` for the rows to predict, `all` for both.
        views: Test-time augmentations whose embeddings are averaged, as of `swinft predict`; by default the config's
            `predict.views`.
        backbone: A pretrained backbone of timm whose embeddings are made in the place of the run's networks: it has
            seen no label of the run, and its embeddings of all rows are of one space.
        backbone_weights: A .safetensors or .pth file of its weights; by default those of the hub.
        backbone_args: More arguments of the timm model.
        image_size: Its image size, height and width, or one side; by default the run's `data.image_size`.
        root: The data's folder if it differs from that of the training.
        batch_size: Images per batch; by default the config's.
        num_workers: Loader workers, or `auto`; by default the config's.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `32-true`, `bf16-mixed`, `16-mixed` (GPUs only), or `auto`, as of `swinft predict`; of a backbone
            32-true.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: Options contradict each other, or a number is out of its range.
    """

    layer: Layer = "pooled"
    rows: RowSet = "all"
    views: list[str] | None = None
    backbone: str | None = None
    backbone_weights: str | None = None
    backbone_args: dict[str, Any] | None = None
    image_size: int | list[int] | None = None
    root: str | None = None
    batch_size: int | None = None
    num_workers: NumWorkers | None = None
    device: str = "auto"
    precision: Precision = "auto"
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.prediction.root)  # checks the options that it shares
        if self.backbone is None:
            given: dict[str, Any] = {"--backbone-weights": self.backbone_weights, "--backbone-args": self.backbone_args}
            given |= {"--image-size": self.image_size}
            if odd := [name for name, value in given.items() if value is not None]:
                raise InputError(f"{odd[0]} is of a pretrained backbone: name it with --backbone, or remove {odd[0]}.")
            return
        if self.layer != "pooled":
            raise InputError(f"--layer {self.layer}: a backbone has no head, and only the layer pooled.")
        if self.image_size is not None:
            sides = [self.image_size] if isinstance(self.image_size, int) else self.image_size
            if len(sides) not in (1, 2):
                raise InputError(f"--image-size is {self.image_size}: give one side, or height and width: [224, 288].")
            check_ranges("", {"--image-size": sides}, {"--image-size": Range(8)})
            object.__setattr__(self, "image_size", [sides[0], sides[-1]])

    @property
    def prediction(self) -> PredictOptions:
        """The options that it shares with `swinft predict`."""
        shared = ("views", "root", "batch_size", "num_workers", "device", "precision", "allow_code")
        return PredictOptions(**{name: getattr(self, name) for name in shared})


@dataclass(frozen=True)
class FitOptions:
    """What is fitted on embeddings, and where it is written.

    Args:
        fit: A model that is fitted on the embeddings: `svr`, `ridge`, `logistic`, `knn`, `retrieval`, `gbdt` (needs
            `pip install 'swinft[gbdt]'`), or a mapping of one to its arguments: `{"svr": {"C": 10}}`. An argument with
            a list of values is searched, within the rows that the model is fitted on.
        name: Name of what is fitted: its folder beside the run's.
        metadata: Also fit on the metadata columns of the run.
        bootstrap: Number of resamples for the interval of the difference to the run; 0 for none.
        seed: Seed of the resamples, and of the parts of a search.
        overwrite: Delete what an earlier `--fit` has written under this name.

    Raises:
        InputError: A value is wrong or lacking.
    """

    fit: str | dict[str, Any] | None = None
    name: str | None = None
    metadata: bool = False
    bootstrap: int = 500
    seed: int = 42
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.fit is None:
            if odd := [field.name for field in fields(self) if getattr(self, field.name) != field.default]:
                raise InputError(f"--{odd[0]} is of what is fitted on embeddings: add --fit, or remove --{odd[0]}.")
            return
        if self.name is None:
            raise InputError("give what is fitted a name: --name NAME.")
        check_name(self.name)
        check_whole("swinft embed", "--bootstrap", self.bootstrap, 0)
        check_whole("swinft embed", "--seed", self.seed, 0)
