"""`swinft lab`: measure the networks of finished runs with an instrument, and draw what they do."""

from swinft.json_output import Output
from swinft.laboratory.command import lab_from_argv


def main(argv: list[str]) -> Output:
    """`swinft lab INSTRUMENT RUN RUN`."""
    return lab_from_argv(argv)
