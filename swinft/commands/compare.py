"""`swinft compare`: compare runs on the same rows, with probabilities for the private leaderboard."""

from swinft.json_output import Output
from swinft.run.compare.command import compare_from_argv


def main(argv: list[str]) -> Output:
    """`swinft compare RUN RUN`."""
    return compare_from_argv(argv)
