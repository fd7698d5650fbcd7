"""Reads the command line of `swinft inspect`, and inspects from Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinft.architecture.options import InspectOptions
from swinft.errors import InputError
from swinft.json_output import Output
from swinft.printing import print_line
from swinft.run.config.parser import Parser, options_from
from swinft.run.python_inputs import plain, python_inputs

if TYPE_CHECKING:
    import pandas as pd

    from swinft.architecture.describe import Architecture
    from swinft.run import api

BACKBONES, ARGUMENTS = "model.backbone", "model.backbone_args"


@dataclass(frozen=True)
class Inspection:
    """Networks, stage by stage.

    Args:
        networks: The architecture of each network.
        files: What was written.
    """

    networks: tuple["Architecture", ...]
    files: tuple[Path, ...] = ()

    @property
    def table(self) -> dict[str, Any]:
        """All of it as plain values, as `swinft inspect --json` prints it."""
        return {"networks": [each.as_json() for each in self.networks], "files": [str(each) for each in self.files]}

    def to_frame(self) -> "pd.DataFrame":
        """A row for each part of each network."""
        import pandas as pd  # slow to import

        rows = []
        for each in self.networks:
            for part in each.as_json()["parts"]:
                attention = part.pop("attention") or {}
                more = {f"attention_{key}": value for key, value in attention.items() if key != "windows"}
                rows.append({"network": each.name, **part, **more})
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        from swinft.architecture.text import lines

        return "\n".join(lines(self.networks))

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return str(self.to_frame()._repr_html_())  # type: ignore[operator]


def inspect_from_argv(argv: Sequence[str]) -> Output:
    """Inspects what a command line names, and prints the result.

    Returns:
        The same as plain values.

    Raises:
        InputError: An option is wrong, or a network cannot be built.
    """
    parser = Parser(prog="swinft inspect", lists=("allow_code",))
    parser.add_argument(
        "run", nargs="*", type=str, default=[], help="runs, whose networks are inspected with their head"
    )
    parser.add_argument(f"--{BACKBONES}", nargs="+", type=str, default=[], help="timm's name of a backbone, or several")
    parser.add_argument(f"--{ARGUMENTS}", type=dict[str, Any] | None, help="arguments of the backbones, as in a config")
    parser.add_class_arguments(InspectOptions, skip={"backbone_args"})
    given = parser.parse_args(argv).as_dict()
    runs, model = given.pop("run"), given.pop("model")
    options = InspectOptions(**given, backbone_args=model["backbone_args"])
    found = _inspected([*runs], list(model["backbone"]), options)
    for line in [*str(found).split("\n"), *(f"{file} written" for file in found.files)]:
        print_line(line)
    return found.table


def inspect(
    runs: "str | Path | api.Run | Sequence[str | Path | api.Run]" = (),
    backbone: str | Sequence[str] = (),
    **options: Any,
) -> Inspection:
    """Says what networks consist of, stage by stage; the same as `swinft inspect`, and prints nothing.

    Args:
        runs: Runs, or their folders; or one.
        backbone: timm's names of backbones; or one.
        options: `image_size`, `backbone_args`, `classes`, `sizing`, `receptive_field`, `output`, `image`, `drawings`,
            `allow_code`.

    Returns:
        The networks: `.networks`, `.to_frame()`, and as text what the command prints.

    Raises:
        InputError: An option is wrong, or a network cannot be built.
    """
    with python_inputs():
        folders = [runs] if isinstance(runs, str | Path) or hasattr(runs, "folder") else list(runs)
        names = [backbone] if isinstance(backbone, str) else list(backbone)
        plain_folders = [str(getattr(each, "folder", each)) for each in folders]
        return _inspected(plain_folders, names, options_from(InspectOptions, plain(options)))


def _inspected(runs: Sequence[str], names: Sequence[str], options: InspectOptions) -> Inspection:
    if not runs and not names:
        raise InputError("name what to inspect: a run, or backbones with --model.backbone NAME.")
    if not names and options.backbone_args is not None:
        raise InputError("--model.backbone_args is for --model.backbone: a run has its own.")
    from swinft.architecture.inspected import inspected  # imports torch, which `--help` need not wait for

    return Inspection(*inspected(runs, names, options))
