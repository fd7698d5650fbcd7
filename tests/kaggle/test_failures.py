"""What a failure says: pure functions, on the errors of requests."""

import errno

import pytest
import requests

from swinft.errors import InputError, RunError, StoreError
from swinft.kaggle.failures import explained, redacted, seconds_to_wait


def answered(status: int, content: bytes = b"", **headers: str) -> requests.HTTPError:
    response = requests.Response()
    response.status_code, response._content = status, content
    response.headers.update(headers)
    return requests.HTTPError(response=response)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            answered(403, b'{"message": "You must accept this competition\'s rules"}'),
            InputError,
            "/competitions/a/rules",
        ),
        (answered(403, b"<html>"), InputError, "cannot try: Kaggle forbids it (403). If you have not joined"),
        (answered(404, b"[1]"), InputError, "cannot try: Kaggle has no such thing (404)."),
        (answered(500, b'{"message": null}'), RunError, "cannot try: Kaggle's server has a problem (500)."),
        (answered(429), RunError, "Run the same command again in 64 s."),
        (requests.exceptions.SSLError("self-signed certificate"), RunError, "REQUESTS_CA_BUNDLE"),
        (requests.exceptions.ReadTimeout("Read timed out. (read timeout=120)"), RunError, "(Read timed out)"),
        (ConnectionResetError(104, "Connection reset by peer"), RunError, "there is no connection to Kaggle"),
        (requests.exceptions.JSONDecodeError("Expecting value", "<html>", 0), RunError, "the answer is not Kaggle's"),
        (OSError(errno.ENOSPC, "No space left", "data.zip"), StoreError, "the disk is full (data.zip)"),
        (PermissionError(errno.EACCES, "Permission denied", "data.zip"), StoreError, "Permission denied"),
        (
            ValueError("Please specify exactly one license"),
            InputError,
            "cannot try: Please specify exactly one license",
        ),
        (AttributeError("'NoneType' object"), RunError, "try: 'NoneType' object"),
    ],
)
def test_each_failure_is_explained(error, kind, message):
    found = explained(error, "try", "a")
    assert isinstance(found, kind)
    assert message in str(found)


def test_nothing_secret_is_in_a_message(monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "1234567890")
    pool = "HTTPSConnectionPool(host='storage.googleapis.com', port=443): Max retries exceeded with url: "
    error = requests.ConnectionError(f"{pool}/kaggle/x.zip?X-Goog-Signature=abcdef&b=1 (Caused by 1234567890)")
    assert str(explained(error, "try", secrets=["token-of-oauth"])).count("***") == 2
    assert "abcdef" not in str(explained(error, "try"))
    assert redacted("a token-of-oauth b", ["token-of-oauth", ""]) == "a *** b"
    assert redacted("line\nline  https://a.b/c?d=e 1234567890", []) == "line line https://a.b/c?*** ***"
    assert len(redacted("x" * 1000)) == 300


@pytest.mark.parametrize(("told", "wait"), [("7", 7), ("0.5", 0.5), ("", 4), ("Wed, 26 Mar 2026 00:00:00 GMT", 4)])
def test_the_server_says_how_long_to_wait(told, wait):
    assert seconds_to_wait(answered(429, **{"Retry-After": told}), 2) == wait
