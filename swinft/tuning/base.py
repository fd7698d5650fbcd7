"""The config of a search, from which the configs of its trials are made."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from swinft.errors import InputError
from swinft.run.config.fit_options import fit_parser
from swinft.run.config.parser import key_types
from swinft.run.config.secrets import mask
from swinft.run.config.sections import COMMAND_KEYS, without_command_keys
from swinft.run.config.yaml_text import read_own_yaml, yaml_text
from swinft.run.experiment import Experiment


@dataclass(frozen=True)
class Base:
    """A complete config.

    Args:
        keys: Every section with its keys; secrets are not masked.
        allow_code: Packages or modules whose classes it may name, besides the trusted ones.
    """

    keys: dict[str, Any] = field(repr=False)
    allow_code: Sequence[str] = ()

    @classmethod
    def of(cls, experiment: Experiment) -> "Base":
        """The config of an experiment."""
        text = experiment.parser.dump(without_command_keys(experiment.config), skip_unset=False)
        return cls(read_own_yaml(text), experiment.config.allow_code)

    @property
    def name(self) -> str:
        """Name of the search."""
        return str(self.keys["name"])

    def text(self, values: Mapping[str, Any] | None = None) -> str:
        """The config with values in the place of its own, as YAML with `***` for secrets."""
        return mask(yaml_text(self.with_values(values or {})))

    def with_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Its keys with other values: each replaces what was there, arguments of a class too."""
        keys = copy.deepcopy(self.keys)
        for key, value in values.items():
            *sections, last = key.split(".")
            node = keys
            for section in sections:
                if not isinstance(node.get(section), dict):  # backbone_args: null; a head by its path alone
                    inner = node.get(section)
                    node[section] = {"class_path": inner} if isinstance(inner, str) else {}
                node = node[section]
            node[last] = copy.deepcopy(value)
        return keys

    def experiment(self, values: Mapping[str, Any], *words: str) -> Experiment:
        """The experiment of a trial.

        Args:
            values: By dotted key.
            words: More options of `swinft fit`.

        Raises:
            InputError: A value has the wrong type; the message names no file, as the user wrote none.
        """
        with TemporaryDirectory() as folder:
            path = Path(folder) / "trial.yaml"
            path.write_text(yaml_text(self.with_values(values)), encoding="utf-8")
            allow = [f"--allow-code={','.join(self.allow_code)}"] if self.allow_code else []
            try:
                return Experiment.from_argv(fit_parser(), [f"--config={path}", *allow, *words])
            except InputError as error:
                raise InputError(re.sub(rf"{re.escape(str(path))}(:\d+)?: ", "", str(error))) from None


def space_types() -> dict[str, Any]:
    """The type of every key that a config may have; None for a section."""
    return {key: hint for key, hint in key_types(fit_parser()).items() if key not in COMMAND_KEYS}


def managed_keys() -> dict[str, str]:
    """Keys that swinft sets itself, with the reason."""
    return dict(fit_parser().managed)
