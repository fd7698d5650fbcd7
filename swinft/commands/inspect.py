"""`swinft inspect`: what a network consists of, stage by stage, with drawings of its windows."""

from swinft.architecture.command import inspect_from_argv
from swinft.json_output import Output


def main(argv: list[str]) -> Output:
    """`swinft inspect --model.backbone NAME NAME --image-size 256`, `swinft inspect RUN --output FILE.html`."""
    return inspect_from_argv(argv)
