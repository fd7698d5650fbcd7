"""`swinft bundle`: make the datasets and the notebook with which Kaggle predicts hidden rows, without internet."""

from swinft.json_output import Output
from swinft.kaggle.bundle.make import NOTEBOOK, BundleOptions, make_bundle
from swinft.kaggle.bundle.metadata import SUFFIXES
from swinft.run.config.parser import Parser

FLAGS = ("only_in_rerun", "upload", "overwrite")


def main(argv: list[str]) -> Output:
    """`swinft bundle RUN… --owner USER --competition SLUG`."""
    parser = Parser(prog="swinft bundle", flags=FLAGS, lists=("views", "folds", "packages", "allow_code"))
    parser.add_argument("run", nargs="+", type=str, help="runs or ensembles; of several the mean is submitted")
    parser.add_class_arguments(BundleOptions)
    given = parser.parse_args(argv).as_dict()
    folders = given.pop("run")
    folder = make_bundle(folders, BundleOptions(**given))
    return {
        "folder": folder,
        "datasets": [folder / kind for kind in SUFFIXES],
        "notebook": folder / "kernel" / NOTEBOOK,
    }
