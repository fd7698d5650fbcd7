"""The parser of `swinft fit`: a config, and the options that say how to run."""

from swinft.class_spec import AsWritten
from swinft.run.config.parser import Parser, built_once
from swinft.run.config.sections import new_parser
from swinft.system.cluster.place import LOCAL

ON_HELP = (
    "where the folds run: `local`; `ray`, a Ray cluster of this machine; `HOST:PORT`, a Ray cluster that this machine "
    "belongs to, or `ray://HOST:PORT` by Ray Client: see docs/cluster.md"
)

ROUNDS_HELP = (
    "runs of this config that learn from one another, one after another, in a YAML file: a list of mappings with "
    "`name`, `from`, `drop_noisy`, `pseudo_labels`, `distill` and `set` (docs/rounds.md)"
)


def add_rounds(parser: Parser) -> None:
    """Adds the key `rounds`, which YAML files may have."""
    parser.add_argument("--rounds", type=list[dict[str, AsWritten]] | None, default=None, help=ROUNDS_HELP)


@built_once
def fit_parser() -> Parser:
    """The parser of `swinft fit`."""
    parser = new_parser("fit")
    add_rounds(parser)
    parser.add_argument(
        "--fold",
        type=int | str | None,
        default=None,
        help="fit this fold only, in this process; `all` trains on every row once the folds are finished",
    )
    parser.add_argument(
        "--resume",
        type=bool,
        default=False,
        help="resume the config's run; or `--resume RUN` with the run's folder, without --config",
    )
    parser.add_argument(
        "--accept",
        type=bool,
        default=False,
        help="with --resume: accept files whose commit record is missing or damaged as they are",
    )
    parser.add_argument(
        "--devices_per_fold",
        type=int | None,
        default=None,
        help="number of GPUs for each fold, fixed for the run; by default one, or more if there are more GPUs than "
        "folds",
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="delete the run's folder first")
    parser.add_argument("--on", type=str, default=LOCAL, help=ON_HELP)
    parser.add_argument(
        "--copy_data",
        type=str | None,
        default=None,
        help="with --on: copy data.root once to this folder of every node, compared by SHA-256; by default nodes read "
        "data.root itself, on a file system that they share",
    )
    return parser
