"""`swinft embed`: write the embeddings of a run's rows, and fit a model on them."""

from swinft.json_output import Output
from swinft.run.config.parser import call
from swinft.run.embed.command import embed_run, embedded_output
from swinft.run.embed.options import EmbedOptions, FitOptions
from swinft.run.embed.started import run_of
from swinft.run.layout import Run
from swinft.run.run_output import run_output


def embed(run: str, options: EmbedOptions, fit: FitOptions) -> Output:
    """Writes the embeddings of a run's rows by the network of each fold, and fits a model on them if one is named.

    Args:
        run: The run folder; or with `--backbone` a config, whose run is started without training.
        options: Which embeddings are made, and how.
        fit: What is fitted on them.
    """
    made = embed_run(run_of(run, options), options, fit)
    return run_output(made) if isinstance(made, Run) else embedded_output(made)


def main(argv: list[str]) -> Output:
    """`swinft embed RUN`, `swinft embed RUN --fit svr --name NAME`, `swinft embed FILE.yaml --backbone NAME`."""
    return call(embed, "embed", argv, EmbedOptions, FitOptions)
