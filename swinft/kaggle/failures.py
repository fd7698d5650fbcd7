"""Explains what failed between here and Kaggle: the server's answer or the connection, what to do, no secrets."""

import errno
import json
import os
import re
from collections.abc import Iterable

from swinft.errors import InputError, RunError, StoreError
from swinft.kaggle.slugs import SITE, page
from swinft.printing import format_seconds

RATE_LIMIT, MOST_SECONDS = 429, 120
TRANSIENT = (RATE_LIMIT, 500, 502, 503, 504)
LONGEST = 300  # characters of a server's message


class NotFound(InputError):
    """Kaggle does not know what was asked for."""


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the answer that an error reports; None if there was no answer."""
    response = getattr(error, "response", None)  # falsy where its status is an error's
    return None if response is None else int(response.status_code)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    status = status_of(error)
    return is_connection(error) if status is None else status in TRANSIENT


def is_connection(error: BaseException) -> bool:
    """Whether an error says that there is no connection, or that it was lost."""
    names = {each.__name__ for each in type(error).__mro__}
    broken = {"ConnectionError", "Timeout", "ChunkedEncodingError", "ProtocolError", "TimeoutError"}
    return bool(names & broken) and "SSLError" not in names


def seconds_to_wait(error: BaseException, attempt: int) -> float:
    """How long to wait before another attempt: as long as the server says, else 1 s, 2 s, 4 s."""
    response = getattr(error, "response", None)
    told = "" if response is None else str(response.headers.get("Retry-After", ""))
    return float(told) if re.fullmatch(r"\d+(\.\d+)?", told) else float(2**attempt)


def explained(error: BaseException, doing: str, slug: str | None = None, secrets: Iterable[str] = ()) -> Exception:
    """The error to raise for one of the client's.

    Args:
        error: What the client raised.
        doing: What was tried: `download the data`.
        slug: The competition, if it is about one.
        secrets: Text that must not be printed.
    """
    status, said = status_of(error), redacted(_message(error), secrets)
    if status is not None:
        return _answered(status, said, doing, slug, error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"cannot {doing}: the disk is full ({error.filename or said}). Free some space and run again."
        )
    names = {each.__name__ for each in type(error).__mro__}
    if "SSLError" in names:
        return RunError(
            f"cannot {doing}: the connection to Kaggle is not secure ({said}). A proxy may stand between: set "
            f"REQUESTS_CA_BUNDLE to the file of its certificate."
        )
    if is_connection(error):
        return RunError(
            f"cannot {doing}: there is no connection to Kaggle ({said}). Check the internet connection and "
            f"HTTPS_PROXY; in a Kaggle notebook, switch Internet on. Then run the same command again."
        )
    if "JSONDecodeError" in names:
        return RunError(
            f"cannot {doing}: the answer is not Kaggle's. A proxy's or network's login page may stand between: open "
            f"{SITE} in a browser on this machine."
        )
    if isinstance(error, OSError):
        return StoreError(f"cannot {doing}: {said}.")
    return InputError(f"cannot {doing}: {said}") if isinstance(error, ValueError) else RunError(f"{doing}: {said}")


def _answered(status: int, said: str, doing: str, slug: str | None, error: BaseException) -> Exception:
    """The error for an answer with an error's status."""
    reason = f": {said}" if said else ""
    if status == 401:
        return InputError(
            f"Kaggle does not accept the credentials (401{reason}): they are wrong, expired or revoked. Make a new "
            f"token at {SITE}/settings/api, or run `kaggle auth login`."
        )
    if status == 403 and slug and re.search(r"rules|participate", said, re.IGNORECASE):
        return InputError(rules_not_accepted(slug, reason))
    if status == 403:
        hint = f" If you have not joined the competition, accept its rules at {page(slug, 'rules')}." if slug else ""
        return InputError(f"cannot {doing}: Kaggle forbids it (403{reason}).{hint}")
    if status == 404:
        return NotFound(f"cannot {doing}: Kaggle has no such thing (404{reason}).")
    if status == RATE_LIMIT:
        wait = seconds_to_wait(error, 6)
        return RunError(
            f"cannot {doing}: Kaggle limits the rate of requests (429{reason}). Run the same command again in "
            f"{format_seconds(wait)}."
        )
    if status >= 500:
        return RunError(
            f"cannot {doing}: Kaggle's server has a problem ({status}{reason}). Run the same command again later."
        )
    return InputError(f"cannot {doing}: Kaggle refuses it ({status}{reason}).")


def rules_not_accepted(slug: str, reason: str = "") -> str:
    """The message where the user has not joined a competition."""
    return (
        f"you have not accepted the rules of {slug}{reason}. Accept them at {page(slug, 'rules')} (that works only on "
        f"the website; Kaggle may ask for a verified phone number), then run the same command again."
    )


def _message(error: BaseException) -> str:
    """What the server said, else what the error says."""
    response = getattr(error, "response", None)
    if response is None:
        cause = re.search(r"NewConnectionError\(.*?: ([^')\"]+)|(Read timed out|Connection aborted)", str(error))
        return next(group for group in cause.groups() if group) if cause else str(error) or type(error).__name__
    try:
        told = json.loads(response.content[:100_000])
        return str(told.get("message") or told.get("error") or "")
    except (ValueError, AttributeError, OSError, RuntimeError):  # no JSON, or a stream that was read
        return ""


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """A text without secrets and the signed part of addresses, on one line and not long."""
    for secret in {*secrets, *(os.environ.get(name, "") for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN"))}:
        if len(secret) > 3:
            text = text.replace(secret, "***")
    text = re.sub(r"//[^/\s@'\"]+@", "//***@", text)  # a proxy's password
    text = re.sub(r"(/[^\s?'\"]*)\?[^\s'\")]+", r"\1?***", " ".join(text.split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
