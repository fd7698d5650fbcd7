"""`swinft download`: download the data of a Kaggle competition."""

from swinft.kaggle.download import DownloadOptions, download_data
from swinft.run.config.parser import call


def download(slug: str, options: DownloadOptions) -> None:
    """Downloads a competition's data and unpacks it; an interrupted download is continued by the same command.

    Args:
        slug: The competition's slug, `petfinder-pawpularity-score`, or its address.
        options: What to download, and what becomes of it.
    """
    download_data(slug, options)


def main(argv: list[str]) -> int:
    """`swinft download SLUG`."""
    return call(download, "download", argv, DownloadOptions)
