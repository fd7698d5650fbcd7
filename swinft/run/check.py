"""`swinft check`: everything that can be wrong with the data, found before anything is trained."""

from swinft.data.overview import format_summary
from swinft.run.build import build_datamodule
from swinft.run.config import build_parser, load


def main(argv: list[str]) -> int:
    """`swinft check --config FILE`."""
    parser = build_parser("check")
    config = load(parser, argv)
    data = build_datamodule(parser, config)
    data.check()
    print(format_summary(data.summary()))
    return 0
