"""`python -m swinft`: the same as the `swinft` command."""

from swinft.cli import entry

if __name__ == "__main__":
    entry()
