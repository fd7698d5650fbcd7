"""`swinft new`: look at what was downloaded, and propose a config with the reason for every key."""

from swinft.json_output import Output
from swinft.propose.command import NewOptions, new_from_options
from swinft.run.config.parser import call


def new(slug: str, options: NewOptions) -> Output:
    """Looks at a folder of downloaded data, writes a config with the reason for every key, and checks it.

    What the data cannot tell is written as a comment that says what is missing. Nothing is trained.

    Args:
        slug: The competition's name in its address on Kaggle; any name for other data. It names the run.
        options: The folder, and where the config is written.
    """
    return new_from_options(slug, options)


def main(argv: list[str]) -> Output:
    """`swinft new SLUG --data DIR`."""
    return call(new, "new", argv, NewOptions)
