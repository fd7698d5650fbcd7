"""`swinft export`: write a fold's weights for timm, ONNX or TorchScript, after comparing them with torch."""

from swinft.errors import InputError, listed
from swinft.inference.export import SUFFIXES, Form
from swinft.json_output import Output, plain_values
from swinft.printing import print_line
from swinft.run.config.parser import call
from swinft.run.export import export as export_fold


def export(
    run: str,
    fold: int | str | None = None,
    to: Form | None = None,
    output: str | None = None,
    allow_code: list[str] | None = None,
) -> Output:
    """Writes the weights of a fold in another format, with a JSON file of the preprocessing beside it.

    Args:
        run: The run folder.
        fold: Number of the fold, or `all` for the training on every row.
        to: `timm` for `timm.create_model`; `onnx` (needs `pip install 'swinft[export]'`) and `torchscript` for a graph
            from pixels to predictions; `safetensors` for the tensors under swinft's names.
        output: The weights file; by default in the run's folder `exports`.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: The fold is not finished, the output exists and is not an export, a package is missing, or the
            exported network predicts something else.
    """
    if fold is None or to is None:
        missing = "--fold" if fold is None else "--to"
        raise InputError(f"{missing} is missing: write --fold 0 --to timm. Formats: {listed(SUFFIXES)}.")
    made = export_fold(run, fold, to, output, allow_code)
    print_line(f"largest difference from torch: {made.difference:.1e} of the range, over {made.compared}")
    if made.note:
        print_line(f"note: {made.note}")
    if made.config:
        arguments = {"checkpoint_path": str(made.weights), **made.usage["arguments"]}
        print_line(
            f"timm.create_model({made.usage['model_name']!r}, {', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
        )
    for path in made.paths:
        print(path)
    return {"files": made.paths, **plain_values(made)}


def main(argv: list[str]) -> Output:
    """`swinft export RUN --fold 0 --to timm`."""
    return call(export, "export", argv)
