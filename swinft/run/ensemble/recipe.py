"""The recipe of an ensemble: its members, its method and its options, from a YAML file or a command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swinft.errors import InputError, listed, suggest
from swinft.ranges import Range, SettingsError, range_problems, whole_problems
from swinft.run.ensemble.engines import EngineName
from swinft.run.layout import check_name

AUTO, ALL = "auto", "all"
SEED = 42
MethodName = Literal[
    "auto",
    "all",
    "mean",
    "geometric",
    "rank",
    "power",
    "hill",
    "nnls",
    "nelder-mead",
    "hill-per-output",
    "nnls-per-output",
    "nelder-mead-per-output",
    "ridge",
    "logistic",
    "gbdt",
]
KEYS = ("name", "run", "oof", "test")


@dataclass(frozen=True)
class MemberSpec:
    """Where a member's predictions are.

    Args:
        name: Its name in tables; by default that of the run's folder, or of the file.
        run: The folder of a run, which may be an ensemble.
        oof: Without a run: a CSV of out-of-fold predictions: id, a column per output, and `fold`.
        test: Without a run: a CSV of test predictions: id and a column per output; None if there are none yet.
    """

    name: str
    run: Path | None = None
    oof: Path | None = None
    test: Path | None = None

    @classmethod
    def read(cls, given: Any) -> "MemberSpec":
        """A member in a recipe.

        Args:
            given: The folder of a run, `OOF.csv:TEST.csv`, or a mapping with `run`, or `oof` and `test`, and a `name`.

        Raises:
            InputError: It is none of these.
        """
        if isinstance(given, Mapping):
            return cls._of_mapping(given)
        text = str(given)
        if Path(text).is_dir() or not text.casefold().endswith(".csv"):
            return cls(Path(text).resolve().name, Path(text))
        oof, colon, test = text.partition(":")
        if not colon or not oof or not test or ":" in test:
            raise InputError(
                f"member {text!r}: write OOF.csv:TEST.csv, two tables with a colon between them; or the folder of a "
                f"run."
            )
        return cls(Path(oof).stem, None, Path(oof), Path(test))

    @classmethod
    def _of_mapping(cls, given: Mapping[Any, Any]) -> "MemberSpec":
        unknown = [f"no '{key}'.{suggest(str(key), KEYS)}" for key in given if key not in KEYS]
        wrong = [f"{key} is {value!r}; write a text." for key, value in given.items() if not isinstance(value, str)]
        if not unknown and not wrong and ("run" in given) == ("oof" in given):
            wrong = ["write `run`, or `oof` and `test`, and not both."]
        if not unknown and not wrong and "run" in given and "test" in given:
            wrong = ["a run has its own test predictions: remove `test`."]
        if unknown or wrong:
            raise InputError(f"member {dict(given)}: {' '.join(unknown + wrong)}")
        paths = {key: Path(given[key]) for key in ("run", "oof", "test") if key in given}
        first = paths.get("run") or paths["oof"]
        name = given.get("name") or (first.resolve().name if "run" in given else first.stem)
        return cls(name, **paths)

    @property
    def place(self) -> Path:
        """What identifies it: the folder, or the table of out-of-fold predictions."""
        found = self.run or self.oof
        assert found is not None
        return found

    def to_plain(self) -> dict[str, str]:
        """The mapping of a recipe."""
        values = {"name": self.name, "run": self.run, "oof": self.oof, "test": self.test}
        return {key: str(value) for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class Recipe:
    """What `swinft ensemble` makes.

    Args:
        name: Name of the ensemble: its folder inside `runs`.
        members: Runs and pairs of tables: `runs/a`, `oof.csv:test.csv`, `{name: b, oof: oof.csv, test: test.csv}`.
        runs: Folder of all runs.
        base: The run with the training table, the folds and the metric; by default the first run among the members.
        method: How predictions are combined: `mean`, `geometric`, `rank`, `power`, `hill`, `nnls`, `nelder-mead`;
            the last three with weights of each output as `hill-per-output` and so on; `ridge`, `logistic`, `gbdt`.
            `all` for the one with the best nested score, `auto` for that without the slow ones: `gbdt` and the two
            searches per output.
        engine: The library of `gbdt`: `lightgbm` (`pip install 'swinft[gbdt]'`), `xgboost` (`swinft[xgboost]`) or
            `catboost` (`swinft[catboost]`); null for `lightgbm`.
        common_rows: Use the training rows that all members predicted; otherwise it is an error if they differ.
        bootstrap: Number of resamples for the intervals; 0 for none.
        leave_one_out: Whether to measure what each member adds, by fitting without it.
        seed: Seed of the resamples.
        overwrite: Delete the earlier ensemble of this name.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: A value is wrong, or two members have one name or one place.
    """

    name: str | None = None
    members: list[str | dict[str, Any]] = field(default_factory=list)
    runs: str = "runs"
    base: str | None = None
    method: MethodName = "auto"
    engine: EngineName | None = None
    common_rows: bool = False
    bootstrap: int = 500
    leave_one_out: bool = True
    seed: int = SEED
    overwrite: bool = False
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        problems = whole_problems("", vars(self), {"bootstrap": 0, "seed": 0})
        problems += range_problems("", vars(self), {"bootstrap": Range(0, 100_000)}) if not problems else []
        if problems:
            raise SettingsError(problems)
        if self.engine is not None and self.method not in ("gbdt", ALL):
            raise InputError(
                f"engine {self.engine} is for method gbdt, and the method is {self.method}: remove one of them."
            )
        if self.seed != SEED and not self.bootstrap and not self.leave_one_out:
            raise InputError("--seed: with --bootstrap 0 and --leave-one-out false nothing is drawn: remove it.")
        if not self.name:
            raise InputError("give the ensemble a name: --name NAME.")
        check_name(self.name)
        if not self.members:
            raise InputError("name the members: swinft ensemble runs/a runs/b --name NAME.")
        specs = self.specs
        names = [spec.name for spec in specs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(
                f"two members have the name {listed(twice)}: name each run once, and give others a name: "
                f"{{name: NAME, run: FOLDER}}."
            )
        places = [spec.place.resolve() for spec in specs]
        if same := sorted({str(place) for place in places if places.count(place) > 1}):
            raise InputError(f"two members are {listed(same)}: name each once.")

    @property
    def specs(self) -> list[MemberSpec]:
        """The members."""
        return [MemberSpec.read(given) for given in self.members]

    @property
    def folder(self) -> Path:
        """The ensemble's folder."""
        return Path(self.runs) / str(self.name)

    def to_plain(self) -> dict[str, Any]:
        """The recipe as plain values, with every key that decides on the result."""
        kept = ("name", "runs", "base", "method", "engine", "common_rows", "bootstrap", "leave_one_out", "seed")
        return {"members": [spec.to_plain() for spec in self.specs], **{key: getattr(self, key) for key in kept}}
