"""The options of `swinft explain`, and their checks."""

from dataclasses import dataclass, fields
from typing import Literal

from swinft.attribution.names import BaselineName, Method, RolloutBy
from swinft.errors import InputError
from swinft.ranges import check_whole

RowSet = Literal["train", "test"]
BATCH_SIZE = 16
IN_BATCHES: tuple[Method, ...] = ("integrated-gradients", "occlusion")  # the methods with many images per row
# The methods that have an option of `MethodOptions`; others refuse it.
OF_METHODS: dict[str, tuple[Method, ...]] = {
    "layer": ("gradcam",),
    "by": ("rollout",),
    "stage": ("windows",),
    "block": ("windows",),
    "head": ("windows",),
    "query": ("windows",),
    "baseline": ("integrated-gradients", "occlusion"),
    "steps": ("integrated-gradients",),
    "patch": ("occlusion",),
    "stride": ("occlusion",),
}


@dataclass(frozen=True)
class ExplainOptions:
    """How predictions are explained.

    Args:
        method: `gradcam`: Grad-CAM, for any backbone; `rollout`: attention rollout, for a ViT or a Swin; `windows`: the
            attention of one block; `integrated-gradients` (needs `pip install 'swinft[explain]'`); `occlusion`.
        output: Name of a class, label or target. By default the predicted class; each label that is predicted, or the
            most probable one; every number; every class with a mask.
        rows: Where the ids are: `train`, whose rows are explained by the network that did not train on them, or `test`;
            by default the training table if it has all of them.
        fold: The network for rows to predict; by default the mean of those of all folds.
        npy: Also write each map as a .npy file, float32 (H, W), before it is scaled for display.
        folder: Where images and page are written; by default `explain` in the run's folder.
        root: The data's folder if it differs from that of the training.
        batch_size: Images per forward pass of integrated-gradients and occlusion.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: An option contradicts another one, or a number is out of its range.
    """

    method: Method = "gradcam"
    output: str | None = None
    rows: RowSet | None = None
    fold: int | str | None = None
    npy: bool = False
    folder: str | None = None
    root: str | None = None
    batch_size: int = BATCH_SIZE
    device: str = "auto"
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        check_whole("swinft explain", "--batch-size", self.batch_size, 1)
        if self.batch_size != BATCH_SIZE and self.method not in IN_BATCHES:
            raise InputError(
                f"--batch-size is for the methods {' and '.join(IN_BATCHES)}, and the method is {self.method}: remove "
                f"it, or set --method."
            )
        if self.fold is not None and self.rows == "train":
            raise InputError(
                "--fold is for rows to predict: a training row is explained by the network of the fold that did not "
                "train on it. Remove --fold, or set --rows test."
            )


@dataclass(frozen=True)
class MethodOptions:
    """Options of single methods.

    Args:
        layer: Of gradcam: a layer of the backbone, such as `layers.2`, or `final`; by default the deepest one.
        by: Of rollout: `mean` of the heads, the same for each output, or `gradient`, which weights attention by how
            much it raises the output.
        stage: Of windows: the stage, from 0; by default the last one with several windows.
        block: Of windows: the block of the stage, from 0; by default its last one.
        head: Of windows: the head, from 0; by default the mean of all.
        query: Of windows: row and column of a pixel, like [40, 100]: what its token attends to.
        baseline: Of integrated-gradients and occlusion: `mean`, the colour that normalisation turns into 0 (default),
            `black`, `white`, or `blur`.
        steps: Of integrated-gradients: gradients between baseline and image; by default 64.
        patch: Of occlusion: side of the covered square in pixels; by default an eighth of the image.
        stride: Of occlusion: pixels between squares; by default half of one.

    Raises:
        InputError: A number is out of its range.
    """

    layer: str | None = None
    by: RolloutBy | None = None
    stage: int | None = None
    block: int | None = None
    head: int | None = None
    query: list[int] | None = None
    baseline: BaselineName | None = None
    steps: int | None = None
    patch: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_whole("swinft explain", "--steps", self.steps, 1)
        if self.query is not None and len(self.query) != 2:
            raise InputError(f"--query is {self.query}: give row and column of a pixel, like [40, 100].")

    def check(self, method: Method) -> None:
        """Refuses options of other methods.

        Raises:
            InputError: There is one.
        """
        given = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        if odd := [name for name in given if method not in OF_METHODS[name]]:
            raise InputError(
                f"--{odd[0]} is an option of the method {' or '.join(OF_METHODS[odd[0]])}, and the method is "
                f"{method}: remove it, or set --method."
            )
