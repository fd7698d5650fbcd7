"""The options of `swinft submit`."""

from dataclasses import dataclass, fields, replace
from typing import Any

from swinft.class_spec import AsWritten
from swinft.data.roots import resolved_root
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.rules.named import rules_of
from swinft.inference.rules.rule import Rule
from swinft.run.submission.plan import SubmissionConfig


@dataclass(frozen=True)
class SectionOptions:
    """Options that replace keys of the run's `submission` section."""

    format: str | dict[str, AsWritten] | None = None
    threshold: float | None = None
    delimiter: str | None = None
    id: str | list[str] | None = None
    columns: dict[str, str] | None = None
    words: dict[str, str] | None = None
    keep: list[str] | None = None
    drop: list[str] | None = None
    rules: list[str | dict[str, AsWritten]] | None = None
    rows: str | None = None
    group: dict[str, str] | None = None

    def over(self, frozen: dict[str, Any]) -> SubmissionConfig:
        """The run's settings, overridden by the given options."""
        own = ("format", "rules")  # objects, which are in `frozen`
        names = [field.name for field in fields(SubmissionConfig) if field.name not in own]
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(SubmissionConfig(**frozen), **changes)


@dataclass(frozen=True)
class SubmitOptions(SectionOptions):
    """Options of a submission. Defaults come from the run's `submission` section.

    Args:
        root: The data's folder, with the sample submission, if it differs from that of the training; also
            `kaggle://SLUG`.
        predictions: A prediction table to submit: id and a column per output, of `swinft predict` or a blend. By
            default the run's test_predictions.csv.
        output: File of the submission; by default the run's submission.csv.
        format: `probabilities`, `label`, `number`, `integer`, `labels`, `rle`, `top_k` or `'{top_k: {k: 5}}'`; `auto`:
            by sample, target and first metric; or the class path of a custom format.
        threshold: Labels with at least this probability are written, in 0–1; the out-of-fold score with it is printed.
        delimiter: Text between labels.
        id: Id column of the sample submission, if its name differs from that in the test table; `[id, class]` if a row
            is for an id and an output.
        columns: Outputs of the sample's columns with other names: `'{X4: X4_mean}'`.
        words: Text of classes or labels: `'{cat: "0", dog: "1"}'`.
        keep: Columns that keep the sample's cells.
        drop: Outputs without a column in the sample.
        rules: What changes the predictions first, in the place of the config's rules:
            `'[{clip: {min: 0}}, normalize]'`; `[]` for none. The out-of-fold score with them is printed and stored, if
            the training table is there.
        rows: How the sample's ids are made of the id of a row and the name of an output: `"{id}__{output}"`.
        group: How several predicted rows become one row: `'{by: patient, how: mean}'`.
        clip: Also, and last, the rule `clip`: the smallest and the largest value, `0.01,0.99`.
        dry_run: Build and check the submission, but do not write it.
        allow_code: Packages or modules that a custom format or rule may come from.
    """

    root: str | None = None
    predictions: str | None = None
    output: str | None = None
    clip: list[float] | None = None
    dry_run: bool = False
    allow_code: list[str] | None = None

    def __post_init__(self) -> None:
        """Finds a mount of Kaggle."""
        if self.root:
            object.__setattr__(self, "root", resolved_root(self.root))

    def new_threshold(self, frozen: dict[str, Any], schema: Schema) -> float | None:
        """The threshold of labels, if it is another one than that with which the run is scored."""
        is_new = "labels" in schema.base.formats and self.threshold != frozen.get("threshold", 0.5)
        return self.threshold if is_new else None

    def last_rules(self) -> list[Rule]:
        """The rule of `clip`.

        Raises:
            InputError: It has not two numbers, of which the first is smaller.
        """
        if self.clip is not None and len(self.clip) != 2:
            raise InputError(f"--clip {self.clip}: give the smallest and the largest number: --clip 0.01,0.99.")
        return rules_of([{"clip": {"min": self.clip[0], "max": self.clip[1]}}] if self.clip else [])
