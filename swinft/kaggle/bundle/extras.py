"""Which of swinft's extras a run needs to predict: those whose packages its networks and images import."""

import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# They do not predict: development, Kaggle's client, formats for other programs, training alone.
NOT_TO_PREDICT = {"dev", "kaggle", "export", "openvino", "schedulefree"}
OF_SOURCES = {"hdf5": "h5py"}  # imported with the first image
OF_METHODS = {"gbdt": "lightgbm"}


def used_packages(configs: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[str]:
    """Names of the packages.

    Args:
        configs: The configs of the runs, whose networks have been loaded in this process.
        methods: The methods of the ensembles.
    """
    sources = [config["data"]["loading"].get(key) for config in configs for key in ("source", "test_source")]
    named = {OF_SOURCES[source] for source in sources if isinstance(source, str) and source in OF_SOURCES}
    named |= {OF_METHODS[method] for method in methods if method in OF_METHODS}
    modules = _modules()
    imported = {name for name in _of_extras() if any(module in sys.modules for module in modules.get(name, ()))}
    return sorted(named | imported - set(OF_SOURCES.values()) - set(OF_METHODS.values()))


def _of_extras() -> set[str]:
    """Packages of the extras that may be needed to predict."""
    found = set()
    for text in metadata.requires("swinft") or []:
        each = Requirement(text)
        extras = {str(value) for value in metadata.metadata("swinft").get_all("Provides-Extra") or []} - NOT_TO_PREDICT
        if each.marker and any(each.marker.evaluate({"extra": extra}) for extra in extras):
            found.add(str(canonicalize_name(each.name)))
    return found - {"swinft"}


def _modules() -> dict[str, list[str]]:
    """The modules that each installed package brings."""
    found: dict[str, list[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for package in packages:
            found.setdefault(str(canonicalize_name(package)), []).append(module)
    return found
