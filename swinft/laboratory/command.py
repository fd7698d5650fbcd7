"""The command `lab`, and `swinft.lab` in Python: measures the steps of all subjects; writes the CSV and the page."""

import csv
import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from swinft.errors import InputError, command, number_of
from swinft.json_output import Output
from swinft.laboratory.options import LabOptions
from swinft.laboratory.table import INSTRUMENTS, entry_of, instrument_class, settings_class
from swinft.printing import aligned, format_brief, print_line
from swinft.run.config.parser import Parser, options_from
from swinft.store import commit, json_bytes, probe, sweep

if TYPE_CHECKING:
    import pandas as pd

    from swinft.laboratory.instrument import Instrument
    from swinft.laboratory.page import Measured
    from swinft.laboratory.steps import Steps
    from swinft.laboratory.subjects import Subject
    from swinft.pages.figures import Drawing

USAGE = """usage: swinft lab INSTRUMENT RUN... [options]

Measures the networks of finished runs; writes a CSV and a page. Instruments:
{instruments}

`swinft lab INSTRUMENT --help` lists the options of one. An example:
  swinft lab frequency runs/swin runs/resnet
"""
PRODUCER = "swinft lab"
NAMED = {"run": "the folder of a run", "network": "a network of timm", "config": "a config"}


@dataclass(frozen=True)
class LabResult:
    """What an instrument has measured. `swinft.lab` returns it.

    Args:
        folder: The folder with the CSV and the page.
        summary: The numbers of every subject, as in the JSON file beside the page.
        lines: The lines of the CSV.
        drawings: The figures of the page.
    """

    folder: Path
    summary: dict[str, Any]
    lines: list[dict[str, Any]] = field(repr=False)
    drawings: "list[Drawing]" = field(repr=False, default_factory=list)

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / f"{self.summary['instrument']}.html"

    def to_frame(self) -> "pd.DataFrame":
        """The lines of the CSV."""
        import pandas as pd  # slow to import

        return pd.DataFrame(self.lines)


def lab_from_argv(argv: Sequence[str]) -> Output:
    """Runs a command line of `lab`, and prints what was measured.

    Returns:
        The numbers, the folder and the files.

    Raises:
        InputError: An option is wrong, or a subject cannot be measured.
        SystemExit: For `--help`.
    """
    if not argv or argv[0] in ("-h", "--help"):
        rows = [[f"  {name}", entry.help] for name, entry in INSTRUMENTS.items()]
        width = max((len(name) for name, _ in rows), default=0)
        print(USAGE.format(instruments="\n".join(f"{name:<{width}}  {text}" for name, text in rows)), end="")
        raise SystemExit(0 if argv else 2)
    name, own = argv[0], settings_class(argv[0])
    kinds = (LabOptions, own)
    hints = [each for kind in kinds for each in fields(kind)]
    parser = Parser(
        prog=f"swinft lab {name}",
        description=entry_of(name).help,
        flags=[each.name for each in hints if each.type in (bool, "bool")],
        lists=[each.name for each in hints if "list[" in str(each.type)],
    )
    parser.add_argument(
        "subject", nargs="*", type=str, default=[], help="folders of runs, or what the instrument takes"
    )
    for kind in kinds:
        parser.add_class_arguments(kind)
    given = parser.parse_args(list(argv[1:])).as_dict()
    options = LabOptions(**{each.name: given[each.name] for each in fields(LabOptions)})
    settings: Any = own(**{each.name: given[each.name] for each in fields(own)})
    result = measure(instrument_class(name)(settings), given["subject"], options)
    files = {kind: result.folder / f"{name}.{kind}" for kind in ("html", "csv")}
    return {"folder": result.folder, "files": files, **result.summary}


def lab(instrument: str, *subjects: Any, **options: Any) -> LabResult:
    """Measures networks with an instrument; does and prints the same as `swinft lab`.

    Args:
        instrument: Its name; `swinft lab --help` lists them.
        subjects: Runs or their folders; names of timm's networks, or configs, where the instrument takes them.
        options: The options of `swinft lab INSTRUMENT`.

    Returns:
        The folder with the page, the numbers, and the lines of the CSV.

    Raises:
        InputError: An option is wrong, or a subject cannot be measured.
    """
    from swinft.run.python_inputs import plain, python_inputs

    with python_inputs():
        own = settings_class(instrument)
        names = {each.name for each in fields(own)}
        given = plain(options)
        settings: Any = options_from(own, {key: value for key, value in given.items() if key in names})
        rest = options_from(LabOptions, {key: value for key, value in given.items() if key not in names})
        named = [str(getattr(each, "folder", each)) for each in subjects]
        return measure(instrument_class(instrument)(settings), named, rest)


def measure(instrument: "Instrument[Any]", given: Sequence[str], options: LabOptions) -> LabResult:
    """Measures what is not measured yet, and writes the CSV, the numbers and the page.

    Args:
        instrument: The instrument.
        given: What the user named.
        options: The options of every instrument.

    Raises:
        InputError: A subject cannot be measured, or a folder cannot be written.
    """
    subjects = _subjects(instrument, given, options)
    folder = _folder(instrument, subjects, options)
    homes = [_home(instrument, subject, folder, options) for subject in subjects]
    with _locked([folder, *homes], instrument.name):
        for each in subjects:
            instrument.check(each)
        end = None if options.seconds is None else time.monotonic() + options.seconds
        plans = [_planned(instrument, each, home) for each, home in zip(subjects, homes, strict=True)]
        return _written(instrument, [_measured(instrument, each, end) for each in plans], folder)


def _subjects(instrument: "Instrument[Any]", given: Sequence[str], options: LabOptions) -> "list[Subject]":
    """The subjects, with names that tell them apart.

    Raises:
        InputError: There is none, one is named twice, or the instrument does not take one.
    """
    from swinft.laboratory.subjects import subject_of

    if not given:
        what = " or ".join(NAMED[each] for each in instrument.takes)
        raise InputError(f"name {what}: `{command('lab', instrument.name, 'runs/NAME')}`.")
    subjects = [subject_of(each, options, instrument.takes) for each in given]
    labels = [each.label for each in subjects]
    for each in subjects:  # runs of one name in different folders
        if labels.count(each.label) > 1:
            each.label = str(each.folder or each.given)
    labels = [each.label for each in subjects]
    if len(set(labels)) < len(labels):
        raise InputError(f"{', '.join(labels)}: name each once.")
    return subjects


def _folder(instrument: "Instrument[Any]", subjects: "Sequence[Subject]", options: LabOptions) -> Path:
    """The folder of the page, checked to be writable."""
    own = subjects[0].folder if len(subjects) == 1 else None
    folder = Path(options.output) if options.output else (own or Path()) / "lab" / instrument.name
    probe(folder, what="pages", advice="Choose another folder with --output.")
    sweep(folder)
    return folder


def _home(instrument: "Instrument[Any]", subject: "Subject", folder: Path, options: LabOptions) -> Path:
    """The folder of a subject's steps: in that of the run, unless `--output` says where everything goes."""
    if subject.folder is not None and not options.output:
        home = subject.folder / "lab" / instrument.name / "steps"
        probe(home, what="steps", advice="Choose another folder with --output.")
        return home
    return folder / "steps"


@contextmanager
def _locked(folders: Sequence[Path], name: str) -> Iterator[None]:
    """Holds the locks of all folders: a second process would measure the same steps.

    Raises:
        InputError: Another process holds one.
    """
    from swinft.run.lock import hold

    roots = {(each.parent if each.name == "steps" else each).resolve() for each in folders}
    with ExitStack() as stack:
        for root in sorted(roots):
            path = root.parent / ".locks" / f"{name}.{root.name}.lock"
            stack.enter_context(hold(path, advice="Wait for it, or choose another folder with --output."))
        yield


class _Plan(NamedTuple):
    """What is to be measured of a subject.

    Args:
        subject: The subject.
        steps: Its steps on disk.
        names: All of its steps, in their order.
    """

    subject: "Subject"
    steps: "Steps"
    names: list[str]


def _planned(instrument: "Instrument[Any]", subject: "Subject", home: Path) -> _Plan:
    """The steps of a subject, and where they lie. Nothing is measured before that is known of all subjects.

    Raises:
        InputError: The subject cannot be measured.
    """
    from swinft.laboratory.steps import Steps

    made_with = {"instrument": instrument.name, "version": instrument.version, **subject.made_with()}
    made_with["settings"] = instrument.decides()
    names = instrument.steps(subject)
    assert len(set(names)) == len(names) > 0
    return _Plan(subject, Steps(home, made_with, PRODUCER), names)


def _measured(instrument: "Instrument[Any]", plan: _Plan, end: float | None) -> "Measured":
    """All steps of a subject: those on disk, and the others measured now."""
    from swinft.laboratory.page import Measured
    from swinft.system.live import LiveLine

    subject, steps, names = plan
    found = {name: lines for name in names if (lines := steps.read(name)) is not None}
    print_line(f"{subject.label}: {subject.describe()}")
    if found:
        print_line(f"{subject.label}: {len(found)} of {number_of(len(names), 'step')} are measured already")
    waiting = [name for name in names if name not in found]
    started, line = time.monotonic(), LiveLine()
    for done, name in enumerate(waiting):
        if end is not None and time.monotonic() >= end:
            break
        left = (time.monotonic() - started) / done * (len(waiting) - done) if done else None
        about = f", {format_brief(left, is_rough=True)} left" if left is not None else ""
        line.show(f"{instrument.name} of {subject.label}: {len(found)} of {len(names)} steps{about}")
        found[name] = steps.write(name, instrument.measure(subject, name))
    line.clear()
    if len(found) < len(names):
        print_line(f"{subject.label}: {len(found)} of {len(names)} steps are measured; the same command continues")
    lines = [line for name in names for line in found.get(name, [])]
    summary = instrument.summarize(lines) if lines else {}
    notes = instrument.notes(summary) if lines else []
    counts = len(found), len(names)
    return Measured(subject.label, subject.describe(), lines, *counts, summary, notes, steps.made_with)


def _written(instrument: "Instrument[Any]", measured: "list[Measured]", folder: Path) -> LabResult:
    """Writes the CSV, the numbers and the page."""
    from swinft.laboratory.page import page
    from swinft.printing import plain_names

    lines = [{"subject": each.label, **line} for each in measured for line in each.lines]
    name = instrument.name
    commit(folder / f"{name}.csv", csv_bytes(lines), PRODUCER)
    summary = {
        "instrument": name,
        "complete": all(each.done == each.steps for each in measured),
        "subjects": {
            each.label: {"about": each.about, "measured": each.done, "steps": each.steps, **each.summary}
            for each in measured
        },
    }
    commit(folder / f"{name}.json", json_bytes(summary), PRODUCER)
    of_subjects = {each.label: each.lines for each in measured if each.lines}
    drawings = instrument.figures(of_subjects) if of_subjects else []
    with plain_names([text for line in lines for text in line.values() if isinstance(text, str)]):
        text = page(instrument.title, instrument.about, measured, drawings, f"{name}.csv")
    commit(folder / f"{name}.html", text.encode(), PRODUCER)
    for line in _summary_lines(measured):
        print_line(line)
    print_line(f"{folder / f'{name}.html'}")
    return LabResult(folder, json.loads(json_bytes(summary)), lines, drawings)


def _summary_lines(measured: "Sequence[Measured]") -> list[str]:
    """The numbers of all subjects as a table."""
    from swinft.laboratory.page import cell

    keys = list(dict.fromkeys(key for each in measured for key in each.summary))
    if not keys:
        return []
    rows = [["", *(each.label for each in measured)]]
    rows += [[key, *(cell(each.summary.get(key)) for each in measured)] for key in keys]
    notes = [f"{each.label}: {note}" for each in measured for note in each.notes]
    return [*aligned(rows), *notes]


def csv_bytes(lines: Sequence[dict[str, Any]]) -> bytes:
    """Lines as a CSV; a column for every key, empty where a line has none."""
    columns = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode(errors="surrogateescape")
