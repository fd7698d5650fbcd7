"""Reads the command line of `swinft compare`, and compares from Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swinft.printing import print_line
from swinft.run import api
from swinft.run.compare.compare import compared
from swinft.run.compare.members import member_specs, read_compared
from swinft.run.compare.options import CompareOptions
from swinft.run.compare.table import comparison_lines
from swinft.run.config.parser import Parser, options_from
from swinft.run.python_inputs import plain, python_inputs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """Runs, compared on the same rows.

    Args:
        table: All of it as plain values, as `swinft compare --json` prints it.
    """

    table: Mapping[str, Any]

    def to_frame(self) -> "pd.DataFrame":
        """A row per run: score, gain over the first one, intervals, and probabilities on the private split."""
        import pandas as pd  # slow to import

        rows = []
        for each in self.table["runs"]:
            row = {key: each.get(key) for key in ("name", "score", "gain", "interval", "best")}
            private = each.get("private", {})
            row |= {f"private_{key}": private.get(key) for key in ("interval", "gain_interval")}
            row |= {"beats_reference": private.get("beats_reference")}
            rows.append({**row, **private.get("medals", {})})
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        return "\n".join(comparison_lines(self.table))

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return str(self.to_frame()._repr_html_())  # type: ignore[operator]


def compare_from_argv(argv: Sequence[str]) -> Mapping[str, Any]:
    """Compares the runs of a command line, prints the result, and returns it as plain values.

    Raises:
        InputError: An option is wrong, or the runs cannot be compared.
    """
    parser = Parser(prog="swinft compare", flags=("common_rows", "rules"), lists=("allow_code",))
    parser.add_argument("run", nargs="*", type=str, default=[], help="runs, ensembles, or OOF.csv of another program")
    parser.add_class_arguments(CompareOptions)
    given = parser.parse_args(argv).as_dict()
    members = given.pop("run")
    options = CompareOptions(**given)
    table = compared(read_compared(member_specs(members), options), options)
    for line in comparison_lines(table):
        print_line(line)
    return table


def compare(runs: Sequence[Any], **options: Any) -> Comparison:
    """Compares runs on the same rows; the same as `swinft compare`, and prints nothing but notes.

    Args:
        runs: Folders, runs, or CSVs of out-of-fold predictions; gains are over the first one.
        options: `metric`, `rows`, `public`, `medals` (`{"gold": 17.0}`), `base`, `rules`, `common_rows`, `resamples`,
            `seed`, `allow_code`.

    Returns:
        The comparison: `.table`, `.to_frame()`, and as text what the command prints.

    Raises:
        InputError: A run is missing or unfinished, the runs predict other targets or rows, or an option is wrong.
    """
    with python_inputs():
        given = options_from(CompareOptions, plain(options))
        members = [each.folder if isinstance(each, api.Run) else each for each in runs]
        return Comparison(compared(read_compared(member_specs(members), given), given))
