"""Connects to Kaggle with its official client, which is an extra, and imported only here."""

import functools
import importlib
import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from swinft.errors import InputError
from swinft.kaggle.failures import explained
from swinft.kaggle.slugs import SITE

FLOOR = (2, 2, 5)  # of the extra `kaggle`
SECONDS = (10, 120)  # to connect, and without a byte: the client itself would wait for ever
INSTALL = "Install it with `pip install 'swinft[kaggle]'`."
WAYS = f"""Make a token at {SITE}/settings/api and give it in one of these ways:
  in a browser:   kaggle auth login
  in the shell:   export KAGGLE_API_TOKEN=TOKEN
  in a file:      ~/.kaggle/access_token
  an older key:   ~/.kaggle/kaggle.json, or KAGGLE_USERNAME and KAGGLE_KEY"""


def connect() -> Any:
    """The official client's `KaggleApi`, authenticated by what the environment has now.

    Raises:
        InputError: The extra is not installed, or there are no credentials that Kaggle accepts.
        RunError: There is no connection.
    """
    # The client prints help of its own, authenticates while it is imported, and ends the process without credentials.
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(io.StringIO()):
        api = _imported()
        _read_environment(api)
        try:
            api.authenticate()
        except SystemExit:
            raise InputError(_no_credentials(Path(api.config))) from None
        except Exception as error:
            raise explained(error, "sign in to Kaggle", secrets=secrets_of(api)) from error
    for line in {line for line in said.getvalue().splitlines() if "readable by other users" in line}:
        print(line, file=sys.stderr)
    return api


def secrets_of(api: Any) -> list[str]:
    """Text that must never be printed."""
    return [str(api.config_values.get(name) or "") for name in ("key", "token", "api_token")]


def _imported() -> Any:
    """A new `KaggleApi`.

    Raises:
        InputError: The client or one of its packages is missing or too old, or its folder cannot be made.
    """
    try:
        found = version("kaggle")
        if tuple(int(part) for part in found.split(".")[:3]) < FLOOR:
            oldest = ".".join(map(str, FLOOR))
            raise InputError(f"kaggle {found} is installed, and {oldest} is the oldest that can be used. {INSTALL}")
        return importlib.import_module("kaggle.api.kaggle_api_extended").KaggleApi()
    except ImportError as error:
        raise InputError(f"Kaggle's client is not installed ({error}). {INSTALL}") from error
    except OSError as error:  # it makes ~/.config/kaggle when it is imported
        raise InputError(
            f"Kaggle's client cannot make its folder ({error}). Set KAGGLE_CONFIG_DIR to another."
        ) from error


def _read_environment(api: Any) -> None:
    """Reads again what the client reads when it is imported, and gives its requests a time limit.

    VERBOSE, which other programs use, would make it print every request with the credentials.
    """
    api.args = ["--local"] if os.environ.get("KAGGLE_API_ENVIRONMENT") == "LOCALHOST" else []
    if folder := os.environ.get("KAGGLE_CONFIG_DIR"):
        api.config_dir, api.config = folder, str(Path(folder) / "kaggle.json")
    build = api.build_kaggle_client

    def limited() -> Any:
        client = build()
        session = client.http_client().__enter__()._session
        session.send = functools.partial(session.send, timeout=SECONDS)
        return client

    api.build_kaggle_client = limited


def _no_credentials(config: Path) -> str:
    """The message where there are no credentials, or none that can be used."""
    sources = importlib.import_module("kagglesdk.kaggle_env")
    token, source = None, None
    with suppress(OSError):  # a token that looks like a path
        token, source = sources.get_access_token_from_env()
    if token:
        where = "~/.kaggle/access_token" if source == "access_token" else source
        return f"Kaggle does not accept the token of {where}: it is wrong, expired or revoked. {WAYS}"
    if config.is_file():
        return f"{config} has no username and key that can be read. {WAYS}"
    return f"there are no credentials for Kaggle. {WAYS}"
