"""Keys and tables that a Python program gives as objects become files, which are read and checked as any other."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pandas as pd
import yaml
from PIL import ImageFile

from swinft.errors import InputError
from swinft.system.process_state import restored_process_state

FRAME = "DataFrame"  # what messages call a table that was given as one


@contextmanager
def given_files() -> Iterator[Path]:
    """A folder for what is given as objects; messages name what lies in it without the folder."""
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
        place = whole
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InputError(f"'{key}': '{section}' is given as {place!r} too. Give one of them.")
        before, wanted = place.get(last), plain(value)
        place[last] = {**before, **wanted} if isinstance(before, dict) and isinstance(wanted, dict) else wanted
    return whole


def write_keys(path: Path, keys: dict[str, Any]) -> Path:
    """Keys as a YAML file."""
    try:
        path.write_text(yaml.safe_dump(keys, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except yaml.YAMLError as error:
        raise InputError(f"a value in {path.name} is none that YAML can say: {error}") from None
    return path


def plain(value: Any) -> Any:
    """Paths, and numbers and arrays of numpy, as YAML has them."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, PurePath) else value


def check_names(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuses names that are numbers.

    Raises:
        InputError: A column of names holds something else than text.
    """
    for name in dict.fromkeys(names):
        cells = frame[name].tolist() if list(frame.columns).count(name) == 1 else []  # the reader says what is wrong
        odd = [cell for cell in cells if not isinstance(cell, str) and pd.notna(cell)]
        if odd:
            raise InputError(
                f"{FRAME}: column '{name}' holds {type(odd[0]).__name__}, such as {odd[0]!r}, and its cells are names: "
                f"'007' is not 7. Read the table as text: pd.read_csv(path, dtype=str)."
            )


def write_frame(path: Path, frame: pd.DataFrame, encoding: str) -> Path:
    """A DataFrame as a CSV."""
    try:
        frame.to_csv(path, index=False, encoding=encoding)
    except UnicodeEncodeError as error:
        raise InputError(f"{FRAME}: {error.object!r} cannot be written in data.columns.encoding {encoding}.") from None
    return path
