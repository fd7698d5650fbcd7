"""Which of swinft's extras a run needs to predict, by its config."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

# The packages of each extra that predicts, and the words of a config that tell of it.
PACKAGES = {
    "hdf5": ["h5py"],
    "parquet": ["pyarrow"],
    "dicom": ["pydicom", "python-gdcm"],
    "gbdt": ["lightgbm"],
    "xgboost": ["xgboost-cpu"],
    "catboost": ["catboost"],
    "segmentation": ["segmentation-models-pytorch"],
}
WORDS = {
    "hdf5": ("hdf5", ".h5"),
    "parquet": ("parquet",),
    "dicom": ("dicom", ".dcm"),
    "segmentation": ("segmentation",),
    "gbdt": ("lightgbm",),
    "xgboost": ("xgboost",),
    "catboost": ("catboost",),
}
TABLES = ("train", "test", "sample_submission")  # of steps, whose words are keys


def used_packages(configs: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[str]:
    """Names of the packages that are installed here; one too many does no harm.

    Args:
        configs: The configs of the runs.
        methods: The methods of the ensembles; for gradient boosting the library.
    """
    texts = [text.lower() for config in configs for text in _texts(config["data"])] + list(methods)
    extras = [extra for extra, words in WORDS.items() if any(word in text for word in words for text in texts)]
    return [name for extra in extras for name in PACKAGES[extra] if _is_installed(name)]


def _texts(data: Mapping[str, Any]) -> Iterator[str]:
    """Values of the section, and the keys of steps."""
    for name, value in data.items():
        yield from _inside(value, with_keys=name in TABLES)


def _inside(value: Any, with_keys: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from [str(key)] * with_keys
            yield from _inside(each, with_keys)
    elif isinstance(value, list):
        for each in value:
            yield from _inside(each, with_keys)
    elif isinstance(value, str):
        yield value


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
