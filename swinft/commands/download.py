"""`swinft download`: download the data of a Kaggle competition."""

from swinft.json_output import Output
from swinft.kaggle.download import DownloadOptions, download_data, downloaded_from, read_files
from swinft.run.config.parser import call


def download(slug: str, options: DownloadOptions) -> Output:
    """Downloads a competition's data and unpacks it; an interrupted download is continued by the same command.

    Args:
        slug: The competition's slug, `petfinder-pawpularity-score`, or its address.
        options: What to download, and what becomes of it.
    """
    folder = download_data(slug, options)
    files = read_files(folder, options.file or "")
    return {"competition": downloaded_from(folder), "folder": folder, "files": files}


def main(argv: list[str]) -> Output:
    """`swinft download SLUG`."""
    return call(download, "download", argv, DownloadOptions)
