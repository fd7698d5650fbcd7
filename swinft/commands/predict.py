"""`swinft predict`: predict the test rows with every fold of a run."""

from swinft.json_output import Output
from swinft.run.config.parser import call
from swinft.run.layout import Run
from swinft.run.prediction.options import PredictOptions
from swinft.run.prediction.predict import predict as predict_run


def predict(run: str, options: PredictOptions) -> Output:
    """Predicts the test rows with every fold of a run and averages.

    Args:
        run: The run folder.
        options: Which rows to predict, with which folds and views, on which device.
    """
    opened = Run.open(run)
    found = predict_run(opened, options)
    about = {"rows": len(found), "outputs": found.outputs, "provenance": found.provenance}
    return {"run": opened.root, "predictions": options.output or opened.test_predictions, **about}


def main(argv: list[str]) -> Output:
    """`swinft predict RUN`."""
    return call(predict, "predict", argv, PredictOptions)
