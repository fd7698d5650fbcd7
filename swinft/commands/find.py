"""`swinft find`: find a learning rate and a batch size for a config, and print the keys to paste into it."""

from swinft.run.find.find import find_from_argv


def main(argv: list[str]) -> int:
    """`swinft find --config FILE --what lr,batch_size`."""
    find_from_argv(argv)
    return 0
