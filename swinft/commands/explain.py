"""`swinft explain`: show what in an image the prediction of a row comes from."""

from swinft.json_output import Output
from swinft.run.config.parser import call
from swinft.run.explain.options import ExplainOptions, MethodOptions
from swinft.run.layout import Run

IDS = "--ids"


def main(argv: list[str]) -> Output:
    """`swinft explain RUN --ids A B --method gradcam`."""
    words, ids = split_ids(argv)

    def explain(run: str, options: ExplainOptions, own: MethodOptions) -> Output:
        """Explains predictions of rows: `swinft explain RUN --ids ID [ID ...]`; ids are text, as in the table.

        Args:
            run: The run folder.
            options: The method, and what is explained.
            own: Options of the method.
        """
        from swinft.run.explain.command import explain_run  # imports torch

        return explain_run(Run.open(run), ids, options, own).output()

    return call(explain, "explain", words, ExplainOptions, MethodOptions)


def split_ids(argv: list[str]) -> tuple[list[str], list[str]]:
    """The words without `--ids A B` and `--ids=A`, and the ids, which are text: not read as numbers or lists."""
    words: list[str] = []
    ids: list[str] = []
    is_id = False
    for word in argv:
        if word == IDS:
            is_id = True
        elif word.startswith(f"{IDS}="):
            ids.append(word.removeprefix(f"{IDS}="))
            is_id = False
        elif word.startswith("--"):
            is_id = False
            words.append(word)
        else:
            (ids if is_id else words).append(word)
    return words, ids
