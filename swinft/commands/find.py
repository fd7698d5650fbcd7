"""`swinft find`: find a learning rate and a batch size for a config, and print the keys to paste into it."""

from swinft.json_output import Output
from swinft.run.find.find import find_from_argv


def main(argv: list[str]) -> Output:
    """`swinft find --config FILE --what lr,batch_size`."""
    found = find_from_argv(argv)
    return {"keys": found.keys, "lines": found.lines}
