"""`swinft predict`: predict the test rows with every fold of a run."""

from swinft.run.config.parser import call
from swinft.run.layout import Run
from swinft.run.prediction.options import PredictOptions
from swinft.run.prediction.predict import predict as predict_run


def predict(run: str, options: PredictOptions) -> None:
    """Predicts the test rows with every fold of a run and averages.

    Args:
        run: The run folder.
        options: Which rows to predict, with which folds and views, on which device.
    """
    predict_run(Run.open(run), options)


def main(argv: list[str]) -> int:
    """`swinft predict RUN`."""
    return call(predict, "predict", argv, PredictOptions)
