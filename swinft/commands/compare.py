"""`swinft compare`: compare runs on the same rows, with probabilities for the private leaderboard."""

from swinft.run.compare.command import compare_from_argv


def main(argv: list[str]) -> int:
    """`swinft compare RUN RUN`."""
    compare_from_argv(argv)
    return 0
