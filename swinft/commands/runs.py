"""`swinft runs`: the ledger of a folder of runs, with their scores, times, notes and submissions."""

from dataclasses import dataclass

from swinft.errors import InputError, command
from swinft.json_output import Output
from swinft.kaggle.ledger import Sort, entries_of
from swinft.printing import print_line
from swinft.run.compare.ledger_table import ledger_lines
from swinft.run.compare.notes import write_note
from swinft.run.config.parser import Parser
from swinft.run.layout import Run


@dataclass(frozen=True)
class RunsOptions:
    """Lists the runs of a folder; unfinished and unreadable ones with what they lack.

    Args:
        sort: `score`, `public`, `private`: the best first, by the metric's direction; `time`, `parameters`: the least
            first; `date`: the newest first; `name`. Runs with different metrics, tables or targets are not ranked
            together.
        metric: The metric whose scores are shown; by default each run's first one.
    """

    sort: Sort = "score"
    metric: str | None = None


def main(argv: list[str]) -> Output:
    """`swinft runs [FOLDER]`, `swinft runs --note RUN TEXT`.

    Raises:
        InputError: `--note` has no run, or not one text.
    """
    parser = Parser(prog="swinft runs")
    parser.add_argument("folder", nargs="?", type=str, default="runs", help="the folder that holds the folders of runs")
    parser.add_argument("--note", nargs=2, metavar=("RUN", "TEXT"), help="keep a note on a run; '' deletes it")
    filters = "patterns of names, 'swin*', or of other fields, 'backbone=convnext*', kind=ensemble; all must match"
    parser.add_argument("--filter", nargs="+", type=str, default=[], metavar="PATTERN", help=filters)
    parser.add_class_arguments(RunsOptions)
    given = parser.parse_args(argv).as_dict()
    folder, note, patterns = (given.pop(key) for key in ("folder", "note", "filter"))
    options = RunsOptions(**given)
    if note is not None:
        if folder != "runs":
            raise InputError(f"--note takes a run and one text: {command('runs', '--note', note[0], 'the text')}.")
        if patterns or options != RunsOptions():
            raise InputError("--note lists no runs: remove --filter, --sort and --metric.")
        run = Run.open(note[0])
        write_note(run, note[1])
        print_line(f"{run.note}: {'written' if run.note.is_file() else 'deleted'}")
        return {"run": run.root, "note": note[1] if run.note.is_file() else None}
    entries, others = entries_of(folder, options.sort, options.metric, patterns)
    for line in ledger_lines(entries, others):
        print_line(line)
    return {"folder": folder, "runs": [each.to_plain() for each in entries], "not_runs": others}
