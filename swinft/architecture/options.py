"""The options of `swinft inspect`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from swinft.errors import InputError
from swinft.ranges import Range, check_ranges, whole_problems

Sizing = Literal["swinft", "img_size"]
Fields = Literal["auto", "gradient", "off"]
SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class InspectOptions:
    """What of networks is shown, and how.

    Args:
        image_size: Height and width in pixels, or one side; by default that of each network.
        backbone_args: Arguments of the timm models, as `model.backbone_args` of a config.
        classes: Classes of the classifier of backbones, as of ImageNet; 0 for none. A run has its own head.
        sizing: `swinft`: at another size, windows are chosen that divide every stage's grid, as a run does. `img_size`:
            as `timm.create_model(img_size=...)` does: windows stay as they are, and grids are padded.
        receptive_field: `auto`: by arithmetic where windows or attention say it, otherwise by gradients of networks of
            up to 25 GMACs. `gradient`: by gradients of networks of any size. `off`: not at all.
        output: A page of tables, and drawings of the first network with shifted windows: FILE.html.
        image: An image file for the drawings; by default a tile of Blue Marble (NASA).
        drawings: A folder for the drawings as PNG and GIF files.
        allow_code: Packages or modules whose classes the runs' configs may name, besides the trusted ones.

    Raises:
        InputError: A value is wrong, or has no effect.
    """

    image_size: int | list[int] | None = None
    backbone_args: dict[str, Any] | None = None
    classes: int = 1000
    sizing: Sizing = "swinft"
    receptive_field: Fields = "auto"
    output: str | None = None
    image: str | None = None
    drawings: str | None = None
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        if problems := whole_problems("", vars(self), {"classes": 0}):
            raise InputError(" ".join(problems))
        if self.image_size is not None:
            sides = [self.image_size] if isinstance(self.image_size, int) else self.image_size
            if len(sides) not in (1, 2):
                raise InputError(f"--image-size is {sides}: give one side, or height and width, like [224, 320].")
            check_ranges("", {"--image-size": sides}, {"--image-size": Range(8, 8192)})
        if self.output is not None and Path(self.output).suffix.lower() not in SUFFIXES:
            raise InputError(f"--output is '{self.output}': it is a web page, name it FILE.html.")
        if self.output is not None and Path(self.output).is_dir():
            raise InputError(f"--output: '{self.output}' is a folder: name a file in it, {self.output}/inspect.html.")
        if self.image is not None:
            if self.output is None and self.drawings is None:
                raise InputError("--image is for drawings: add --output FILE.html or --drawings FOLDER, or remove it.")
            if not Path(self.image).is_file():
                raise InputError(f"--image: there is no file '{self.image}'.")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels, if they are given."""
        if self.image_size is None:
            return None
        sides = [self.image_size] if isinstance(self.image_size, int) else self.image_size
        return sides[0], sides[-1]
