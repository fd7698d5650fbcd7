"""`swinft embed`: write the embeddings of a run's rows, and fit a model on them."""

from swinft.run.config.parser import call
from swinft.run.embed.command import embed_run
from swinft.run.embed.options import EmbedOptions, FitOptions
from swinft.run.embed.started import run_of


def embed(run: str, options: EmbedOptions, fit: FitOptions) -> None:
    """Writes the embeddings of a run's rows by the network of each fold, and fits a model on them if one is named.

    Args:
        run: The run folder; or with `--backbone` a config, whose run is started without training.
        options: Which embeddings are made, and how.
        fit: What is fitted on them.
    """
    embed_run(run_of(run, options), options, fit)


def main(argv: list[str]) -> int:
    """`swinft embed RUN`, `swinft embed RUN --fit svr --name NAME`, `swinft embed FILE.yaml --backbone NAME`."""
    return call(embed, "embed", argv, EmbedOptions, FitOptions)
