"""The settings for a table's columns: their roles, and how their cells are read (`Columns`)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from swinft.data.features import FillRules, MissingFeatures, UnknownCategories
from swinft.data.sample_rows import PAIR
from swinft.data.tables.text import MISSING_WORDS, TextRules, Twins, as_in_header
from swinft.data.target.auxiliary import AuxiliaryTarget, auxiliary_of
from swinft.ranges import SettingsError, list_problems, settings_of, text_problems, word_problems

OnMissingTarget = Literal["error", "skip", "mask"]


@dataclass(frozen=True)
class RowWeights:
    """Weights of rows.

    Args:
        column: Their column.
        in_score: Whether rows also count by their weight in the metrics of held-out rows, as by scikit-learn's
            `sample_weight`.

    Raises:
        InputError: A value is wrong.
    """

    column: str
    in_score: bool = False

    def __post_init__(self) -> None:
        """Checks the values."""
        problems = text_problems("data.columns.weight", vars(self), ("column",), ())
        problems += word_problems("data.columns.weight", vars(self), {"in_score": (True, False)})
        if problems:
            raise SettingsError(problems)


def one_column(given: str | list[str] | None) -> str | list[str] | None:
    """A list of one column, as the command line makes of a word, is that column."""
    return given[0] if isinstance(given, list) and len(given) == 1 else given


@dataclass(frozen=True)
class Columns:
    """Columns other than id, image and target, and how cells are read.

    Args:
        test_id: Id column of the test table and of the sample submission, if its name there differs from `data.id`.
        test_image: Image path of a test row, if it differs from `data.image`; of several images, as many or by the
            same names.
        label_delimiter: Delimiter between the labels of a multi-label target in one column.
        class_order: Classes from the lowest to the highest grade, for metrics of grades; for names that are no numbers.
        missing_words: Cells that mean a missing target, feature or group, in upper or lower case; null for the empty
            cell, nan, na, n/a, #n/a, <na>, null, none and nat. A list replaces these: omit a word that is one of your
            classes. The empty cell is always missing.
        twins: Two spellings of one class, label, group or category are an `error`, or two names (`distinct`). Spellings
            differ by case, blanks, quotes or Unicode form, or like `1`, `1.0` and `01`.
        numeric_features: Metadata columns that the network gets as numbers. A pattern (`tbp_lv_*`) stands for the
            columns of the training table that it matches, without those that another setting names.
        categorical_features: Metadata columns that the network gets as categories (one-hot), or patterns.
        missing_features: A missing number or category is an `error`; is filled in rows to predict (`fill_test`); or in
            training rows too (`fill`). A number becomes the training rows' mean. A category becomes a separate category
            if training rows have missing ones, and no category otherwise. Filled cells are counted.
        unknown_categories: In rows to predict, a category that the training rows do not have is encoded as no category
            and counted (`other`), or is an `error`.
        on_missing_target: A row with an empty target is an `error`; with `skip`, it is skipped and gets a status in the
            predictions. With `mask`, each empty cell of several numbers or labels is left out of loss, metrics and
            stratification; a row without any target trains its auxiliary targets, if it has some, and is not scored.
        encoding: Encoding of the CSVs: `utf-8`, `cp1252`, …
        auxiliary: Further targets that are used in training only, each with its own head: a list of `target`,
            `target_kind` and, if needed, `weight` (1.0), `label_delimiter`, `head` and `name`:
            `[{target: breed, target_kind: classification, weight: 0.3}]`. They may be missing in some rows. They are
            neither predicted nor scored; `metrics.jsonl` contains their loss on the held-out rows.
        sample_id: Id column of the sample submission, if its name differs there; or two, of the id and of the output
            that a row is for; `submission.id` in a config.
        weight: Column of numbers from 0, such as votes or confidence: a factor on the training loss of each row. They
            are divided by their mean over the rows that a fold trains on, so that they do not change the size of a
            step; the loss of a batch is the sum of its weighted losses over its number of rows. `val_loss` has none.
            A mapping `{column: votes, in_score: true}` also weights the rows in the metrics.

    Raises:
        InputError: Settings are wrong or contradict each other; all of them are listed.
    """

    test_id: str | None = None
    test_image: str | list[str] | dict[str, str] | None = None
    label_delimiter: str | None = None
    class_order: list[str] | None = None
    missing_words: list[str] | None = None
    twins: Twins = "error"
    numeric_features: list[str] | None = None
    categorical_features: list[str] | None = None
    missing_features: MissingFeatures = "fill_test"
    unknown_categories: UnknownCategories = "other"
    on_missing_target: OnMissingTarget = "error"
    encoding: str = "utf-8"
    sample_id: str | list[str] | None = None
    auxiliary: list[AuxiliaryTarget] | None = None
    weight: str | RowWeights | None = None

    def __post_init__(self) -> None:
        """Checks the values that do not depend on other settings."""
        words = {
            "twins": get_args(Twins),
            "missing_features": get_args(MissingFeatures),
            "unknown_categories": get_args(UnknownCategories),
            "on_missing_target": get_args(OnMissingTarget),
        }
        object.__setattr__(self, "sample_id", pair := one_column(self.sample_id))
        lists = ("class_order", "missing_words", "numeric_features", "categorical_features")
        optional = ("test_id", "label_delimiter", *([] if isinstance(self.sample_id, list) else ["sample_id"]))
        optional += ("weight",) if isinstance(self.weight, str) else ()
        problems = word_problems("data.columns", vars(self), words)
        if isinstance(pair, list) and (len({*map(str, pair)}) != 2 or len(pair) != 2):
            problems.append(f"submission.id is {pair}. Allowed: a column, or two: [id, class].")
        problems += text_problems("data.columns", vars(self), ("encoding",), optional)
        wrong_lists = list_problems("data.columns", vars(self), lists)
        problems += wrong_lists or self._contradictions()
        try:
            if self.weight is not None and not isinstance(self.weight, str):
                object.__setattr__(self, "weight", settings_of(RowWeights, "data.columns.weight", self.weight))
            object.__setattr__(self, "auxiliary", None if self.auxiliary is None else auxiliary_of(self.auxiliary))
        except SettingsError as error:
            problems += error.problems
        try:
            "a".encode(str(self.encoding))
        except (LookupError, UnicodeError):
            problems.append(f"data.columns.encoding '{self.encoding}' is unknown. Try utf-8, cp1252, latin-1, utf-16.")
        if problems:
            raise SettingsError(problems)
        for name in (*lists, "test_id", "weight"):
            object.__setattr__(self, name, as_in_header(getattr(self, name)))

    def _contradictions(self) -> list[str]:
        """Settings without effect, and columns that are named twice; one sentence each."""
        features = self.features
        found = [f"'{name}' is named twice among the features." for name in {*features} if features.count(name) > 1]
        if self.on_missing_target in ("skip", "mask") and self.label_delimiter is not None:
            key = "data.columns.on_missing_target"
            found.append(f"{key} does nothing for delimited labels: an empty cell has no label.")
        if not self.categories and self.unknown_categories == "error":
            key = "data.columns.unknown_categories"
            found.append(f"{key} does nothing without data.columns.categorical_features; remove it.")
        if not features and self.missing_features != "fill_test":
            found.append("data.columns.missing_features does nothing without metadata columns; remove it.")
        return found

    @property
    def numbers(self) -> list[str]:
        """Numeric metadata columns."""
        return list(self.numeric_features or [])

    @property
    def categories(self) -> list[str]:
        """Categorical metadata columns."""
        return list(self.categorical_features or [])

    @property
    def features(self) -> list[str]:
        """All metadata columns."""
        return self.numbers + self.categories

    @property
    def weight_column(self) -> str | None:
        """Column of the row weights."""
        return self.weight.column if isinstance(self.weight, RowWeights) else self.weight

    @property
    def weighs_score(self) -> bool:
        """Whether the metrics count rows by their weight."""
        return isinstance(self.weight, RowWeights) and self.weight.in_score

    @property
    def auxiliary_columns(self) -> list[str]:
        """All columns of auxiliary targets."""
        return [name for each in self.auxiliary or () for name in each.columns]

    @cached_property
    def rules(self) -> TextRules:
        """How names are read."""
        return TextRules(MISSING_WORDS if self.missing_words is None else self.missing_words, self.twins)

    @cached_property
    def fill_rules(self) -> FillRules:
        """How missing metadata is handled."""
        return FillRules(self.missing_features, self.unknown_categories)

    def id_of(self, id: str, is_sample: bool) -> tuple[str, str]:
        """The id column of the test table or of the sample submission, and the config key that names it.

        Args:
            id: Id column of the training table.
            is_sample: Whether the table is the sample submission.
        """
        if is_sample and isinstance(self.sample_id, list):
            return PAIR, "submission.id"
        if is_sample and isinstance(self.sample_id, str) and self.sample_id:
            return self.sample_id, "submission.id"
        if self.test_id:
            return self.test_id, "data.columns.test_id"
        return id, "submission.id" if is_sample else "data.columns.test_id"
