"""Writes the dictionaries and DataFrames of a Python caller to temporary files, which are checked like any others."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
import yaml
from PIL import ImageFile

from swinft.errors import InputError
from swinft.run.config.yaml_text import yaml_text
from swinft.system.process_state import restored_process_state

FRAME = "DataFrame"  # file name of a DataFrame, which messages show


@contextmanager
def python_inputs() -> Iterator[Path]:
    """A temporary folder for the caller's objects; error messages show its files without the folder.

    Also restores the process-wide settings of the caller.

    Raises:
        InputError: What is done inside is wrong, named as it was given.
    """
    decoders = cv2.getNumThreads(), ImageFile.MAXBLOCK
    try:
        with TemporaryDirectory() as folder, restored_process_state():
            try:
                yield Path(folder)
            except InputError as error:
                if folder not in str(error):
                    raise
                raise InputError(str(error).replace(f"{folder}/", "")) from None
    finally:
        cv2.setNumThreads(decoders[0])
        ImageFile.MAXBLOCK = decoders[1]


def nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections: `{"trainer.max_epochs": 3}` as `{"trainer": {"max_epochs": 3}}`.

    Raises:
        InputError: A key is a value and a section at once.
    """
    whole: dict[str, Any] = {}
    for key, value in keys.items():
        *sections, last = str(key).split(".")
        node = whole
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise InputError(f"'{key}': '{section}' is given as {node!r} too. Give one of them.")
        before, wanted = node.get(last), plain(value)
        node[last] = {**before, **wanted} if isinstance(before, dict) and isinstance(wanted, dict) else wanted
    return whole


def write_keys(path: Path, keys: dict[str, Any]) -> Path:
    """Writes keys as a YAML file.

    Raises:
        InputError: A value cannot be written as YAML.
    """
    try:
        path.write_text(yaml_text(keys), encoding="utf-8")
    except yaml.YAMLError as error:
        raise InputError(f"a value in {path.name} cannot be written as YAML: {error}") from None
    return path


def plain(value: Any) -> Any:
    """Converts paths, devices and numpy values to plain YAML values."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, PurePath | torch.device) else value


def check_names(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuses ids and names that are not text.

    Raises:
        InputError: A column of names contains other values than text, or is the index, or columns have several levels.
    """
    if frame.columns.nlevels > 1:
        raise InputError(
            f"{FRAME}: its columns have {frame.columns.nlevels} levels, such as {frame.columns[0]!r}. Give them one: "
            f"frame.columns = frame.columns.get_level_values(0)."
        )
    for name in frame.index.names:
        if name is not None and name in names and name not in frame.columns:
            raise InputError(f"{FRAME}: '{name}' is its index, and must be a column: call frame.reset_index().")
    for name in dict.fromkeys(names):
        cells = frame[name].tolist() if list(frame.columns).count(name) == 1 else []  # the reader reports the problem
        odd = [cell for cell in cells if not isinstance(cell, str) and pd.notna(cell)]
        if odd:
            raise InputError(
                f"{FRAME}: column '{name}' contains {type(odd[0]).__name__}, such as {odd[0]!r}, but must be text: "
                f"'007' is not 7. Read the table as text: pd.read_csv(path, dtype=str)."
            )


def frame_content(frame: pd.DataFrame, names: Sequence[str], encoding: str) -> bytes:
    """A DataFrame as the bytes of a CSV.

    Args:
        frame: The DataFrame.
        names: Its columns that must be text.
        encoding: Encoding of the text.

    Raises:
        InputError: Such a column contains other values, or a text cannot be encoded.
    """
    check_names(frame, names)
    try:
        # All quoted: pandas leaves a carriage return bare, which ends a line.
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
        return bytes(text.encode(encoding))
    except UnicodeEncodeError as error:
        raise InputError(f"{FRAME}: {error.object!r} cannot be written in data.columns.encoding {encoding}.") from None
