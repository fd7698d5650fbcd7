"""What is measured, its name and its random numbers: the base of all subjects, and those that are no run."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from swinft.errors import InputError, suggest
from swinft.laboratory.options import LabOptions
from swinft.printing import visible
from swinft.seeding import seed_for
from swinft.system.device import check_usable
from swinft.system.precision import choose_device


class Subject:
    """What is measured.

    Args:
        given: What the user named.
        options: The options of the command.
    """

    kind = ""

    def __init__(self, given: str, options: LabOptions) -> None:
        self.given, self.options = given, options
        self.label = visible(given)

    @property
    def folder(self) -> Path | None:
        """The folder in which its steps lie; None for that of the page."""
        return None

    def made_with(self) -> dict[str, Any]:
        """What it depends on, as plain values: weights, rows, seed."""
        return {"kind": self.kind, "seed": self.options.seed}

    def describe(self) -> str:
        """One line for the page."""
        return self.given

    @cached_property
    def device(self) -> torch.device:
        """Where it is measured."""
        device = choose_device(self.options.device)
        check_usable([device], "add --device cpu")
        return device

    def generator(self, what: str) -> np.random.Generator:
        """Random numbers for one use: the same in each process, whatever was drawn before.

        Args:
            what: What they are for, such as the name of the step and of a row.
        """
        return np.random.default_rng([seed_for("resampling", self.options.seed), *what.encode()])


class BackboneSubject(Subject):
    """A network of timm by its name, without trained weights."""

    kind = "network"

    def __init__(self, given: str, options: LabOptions) -> None:
        super().__init__(given, options)
        if not timm.is_model(given.split(".")[0]):
            raise InputError(
                f"'{given}' is neither a folder of a run nor a network of timm.{suggest(given, timm.list_models())}"
            )

    def made_with(self) -> dict[str, Any]:
        """Its name and the seed of its weights."""
        return {**super().made_with(), "network": self.given}


class ConfigSubject(Subject):
    """A config, for instruments that train."""

    kind = "config"

    def made_with(self) -> dict[str, Any]:
        """The text of the file."""
        return {**super().made_with(), "config": Path(self.given).read_text(encoding="utf-8")}
