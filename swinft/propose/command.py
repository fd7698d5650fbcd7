"""`swinft new`: looks at a folder, writes a proposed config, checks it, and says what comes next."""

import json
from dataclasses import dataclass
from pathlib import Path

from swinft.errors import InputError, command
from swinft.json_output import Output
from swinft.printing import print_line
from swinft.propose.facts import Facts, look
from swinft.propose.lines import Line, to_yaml
from swinft.propose.proposal import Proposal, propose
from swinft.run.check import check_run, print_checked
from swinft.run.config.sections import build_parser
from swinft.run.experiment import Experiment
from swinft.run.layout import check_name
from swinft.store import replace

# What is printed of a proposal; the file has all of it.
SHOWN = (
    "data.train", "data.test", "data.sample_submission", "data.image", "data.columns.test_image", "data.id",
    "data.columns.test_id", "data.target", "data.target_kind", "data.folds.group", "data.folds.column", "model.metrics",
)  # fmt: skip
LONGEST = 160


@dataclass(frozen=True)
class NewOptions:
    """Options of `swinft new`.

    Args:
        data: The folder of the downloaded data, unpacked.
        output: The config; by default configs/SLUG.yaml.
        overwrite: Replace an existing file.
        no_check: Only write the config; by default it is then checked, as by `swinft check`.
    """

    data: str
    output: str | None = None
    overwrite: bool = False
    no_check: bool = False


@dataclass(frozen=True)
class Proposed:
    """What `swinft.new` has written.

    Args:
        path: The config.
        facts: What the folder holds.
        proposal: The keys, with their reasons, and what is undecided.
    """

    path: Path
    facts: Facts
    proposal: Proposal


def new(slug: str, data: str | Path, output: str | Path | None = None, overwrite: bool = False) -> Proposed:
    """Looks at a folder of downloaded data, and writes a config for it with the reason for every key.

    Args:
        slug: The competition's name in its address on Kaggle; any name for other data.
        data: The folder.
        output: The config; by default `configs/SLUG.yaml`.
        overwrite: Replace an existing file.

    Returns:
        The config's path, what the folder holds, and the proposed keys. `swinft.fit(made.path)` trains it.

    Raises:
        InputError: There is no such folder, or the output exists.
    """
    check_name(slug)
    path = Path(output) if output else Path("configs") / f"{slug}.yaml"
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists. Choose another --output, or replace it with --overwrite.")
    facts = look(Path(data))
    proposal = propose(slug, facts, str(data))
    replace(path, to_yaml(_title(slug, path, facts, proposal), proposal.lines).encode())
    return Proposed(path, facts, proposal)


def _title(slug: str, path: Path, facts: Facts, proposal: Proposal) -> list[str]:
    """The comments at the top: the commands, what the folder holds, and what is undecided."""
    lines = [f"{slug}: proposed by `swinft new`. Read the reasons, and change what is wrong.", ""]
    lines += [f"  {each}" for each in commands(slug, path)]
    lines += ["", f"In {facts.root}:", *(f"  {each}" for each in [*facts.describe(), *facts.problems])]
    if proposal.notes:
        lines += ["", "Undecided, or to be known:", *(f"  {each}" for each in proposal.notes)]
    return [*lines, ""]


def commands(slug: str, path: Path) -> list[str]:
    """The commands that lead to a submission."""
    run = f"runs/{slug}"
    words = (("check", "--config", path), ("fit", "--config", path), ("predict", run), ("submit", run))
    return [command(*each) for each in words]


def new_from_options(slug: str, options: NewOptions) -> Output:
    """Does what `swinft new` does, and prints it.

    Returns:
        All of it as plain values, for `--json`.

    Raises:
        InputError: There is no such folder, the output exists, something is undecided, or `check` refuses the config.
    """
    made = new(slug, options.data, options.output, options.overwrite)
    print_line(f"{options.data}:")
    for line in [*made.facts.describe(), *made.facts.problems]:
        print_line(f"  {line}")
    print_line(f"{made.path}, with the reason for every key; the main ones:")
    for line_ in made.proposal.lines:
        if line_.key in SHOWN:
            print_line(_shown(line_))
    for note in made.proposal.notes:
        print_line(f"note: {note}")
    if undecided := made.proposal.undecided:
        raise InputError(
            f"{made.path} is written, and cannot be used yet: {', '.join(undecided)} could not be decided, and "
            f"{'is' if len(undecided) == 1 else 'are'} in it as a comment. Fill in what is missing, then: "
            f"{commands(slug, made.path)[0]}",
            [{"key": line.key, "message": line.why} for line in made.proposal.lines if line.is_open],
        )
    checked = None if options.no_check else _check(made.path)
    following = commands(slug, made.path)[0 if options.no_check else 1 :]
    print_line("next:")
    for each in following:
        print_line(f"  {each}")
    about = {"config": made.path, "data": [*made.facts.describe(), *made.facts.problems], "keys": made.proposal.lines}
    return {**about, "notes": made.proposal.notes, "check": checked, "next": following}


def _shown(line: Line) -> str:
    """A key as a printed line: its value, and the reason."""
    value = line.value if isinstance(line.value, str) else json.dumps(line.value, ensure_ascii=False)
    value = value if len(value) <= LONGEST else f"{value[:LONGEST]} …"
    return f"  {line.key}: {'undecided' if line.is_open else value}{f'  # {line.why}' if line.why else ''}"


def _check(path: Path) -> Output:
    """Checks the config, as `swinft check` does, but with random weights: those of the hub may not be here yet.

    Raises:
        InputError: Config, tables or images are wrong.
    """
    experiment = Experiment.from_argv(build_parser("check"), ["--config", str(path), "--model.pretrained", "false"])
    experiment.config.devices_per_fold = None
    return print_checked(check_run(experiment))
