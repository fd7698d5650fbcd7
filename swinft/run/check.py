"""`swinft check`, and what it shares with `swinft fit`: all that can be wrong, found before anything is trained.

Cheap checks come first: the settings before a table is read, the network and the tables before an image is decoded.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.data.overview import format_summary
from swinft.data.rows import Rows
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.model.backbone import weights_file
from swinft.run.arguments import Parser
from swinft.run.build import build_datamodule, build_task
from swinft.run.config import build_parser, load
from swinft.run.trainer import check_trainer
from swinft.run.tta import check_views

T = TypeVar("T")


@dataclass(frozen=True)
class CheckedRun:
    """What a run needs of its config and data, once all of it is known to be right.

    Args:
        data: With its tables read and its images decoded.
        num_parameters: Of the network.
        seconds: What the look at the images took.
    """

    data: CSVDataModule
    num_parameters: int
    seconds: float


def main(argv: list[str]) -> int:
    """`swinft check --config FILE`."""
    parser = build_parser("check")
    checked = check_run(parser, load(parser, argv))
    print(format_summary(checked.data.summary()))
    return 0


def check_run(parser: Parser, config: Namespace) -> CheckedRun:
    """Builds what a run needs and checks all of it; `check` and `fit` refuse the same configs because both call this.

    Args:
        parser: The parser that read the config.
        config: The config of `check` or `fit`.

    Raises:
        InputError: Config, tables or images are wrong. All that is found before an image is decoded is listed at once.
    """
    problems: list[str] = []
    data = _check_settings(parser, config, problems)
    tables = _collect(problems, data.read_tables) if data else None
    num_parameters = _collect(problems, lambda: _check_task(parser, config, *tables)) if tables else None
    if data is None or num_parameters is None or problems:
        raise InputError("\n".join(problems))
    started = time.perf_counter()
    data.check()
    return CheckedRun(data, num_parameters, time.perf_counter() - started)


def _check_settings(parser: Parser, config: Namespace, problems: list[str]) -> CSVDataModule | None:
    """Checks what can be said of the config before any table is read.

    Args:
        parser: The parser that read the config.
        config: The config.
        problems: Whatever is wrong is appended.

    Returns:
        The datamodule, which has read nothing yet; None where its settings are wrong.
    """
    data = _collect(problems, lambda: build_datamodule(parser, config))
    _collect(problems, lambda: check_trainer(parser, config))
    _collect(problems, lambda: weights_file(config.model.backbone, config.model.pretrained))
    if data:
        _collect(problems, lambda: check_views(config.predict.views, data.image_size))
    return data


def _check_task(parser: Parser, config: Namespace, rows: Rows, schema: Schema) -> int:
    """Builds the task once: a wrong key, a wrong file or a refused target must not wait for the first fold.

    Returns:
        The number of its parameters.
    """
    # The hub's weights are left to the folds, which find them in its cache after the first.
    from_hub = {"pretrained": False} if config.model.pretrained is True else {}
    task = build_task(parser, config, schema, **from_hub)
    assert rows.targets is not None
    task.initialize(torch.from_numpy(rows.targets[rows.is_used]))
    features = torch.zeros(1, schema.num_features) if schema.num_features else None
    size = config.data.image_size
    height, width = (size, size) if isinstance(size, int) else size
    try:
        with torch.inference_mode():
            task.net.eval()(torch.zeros(1, 3, height, width, dtype=torch.uint8), features)
    except RuntimeError as error:
        raise InputError(
            f"'{config.model.backbone}' cannot work at {height} x {width} px (data.image_size): {error}"
        ) from error
    return sum(parameter.numel() for parameter in task.net.parameters())


def _collect(problems: list[str], check: Callable[[], T]) -> T | None:
    """What a check returns; None where it refuses, and what it says joins the list, once."""
    try:
        return check()
    except InputError as error:
        problems.extend({str(error)}.difference(problems))
        return None
