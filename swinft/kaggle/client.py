"""A typed wrapper of Kaggle's official client: what swinft asks Kaggle, with retries and errors that say what to do."""

import importlib
import io
import re
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from swinft.errors import InputError, RunError, suggest
from swinft.kaggle.answers import Competition, Created, Limits, Submitted, submitted, utc
from swinft.kaggle.failures import (
    MOST_SECONDS,
    explained,
    is_connection,
    is_transient,
    redacted,
    seconds_to_wait,
    status_of,
)
from swinft.kaggle.session import SECONDS, connect, secrets_of

ATTEMPTS = 4
PAGE = 100  # submissions or competitions that one request lists
sleep = time.sleep


class Client:
    """A connection to Kaggle.

    Raises:
        InputError: The client is not installed, or there are no credentials that Kaggle accepts.
        RunError: There is no connection.
    """

    def __init__(self) -> None:
        self._api = connect()

    @property
    def user(self) -> str:
        """The user's name, which owns new datasets and notebooks."""
        return str(self._api.config_values.get("username") or "")

    def competition(self, slug: str) -> Competition:
        """A competition.

        Raises:
            InputError: There is no such competition; the message suggests the most similar one.
        """
        try:
            found = self._competitions(f"read the competition {slug}", slug, "get_competition", competition_name=slug)
        except InputError as error:  # for some names Kaggle forbids what it does not have
            similar = self.similar(slug) if status_of(error.__cause__ or error) in (403, 404) else [slug]
            if slug in similar:
                raise
            hint = suggest(slug, similar).replace(" Allowed:", " A search finds:")
            raise InputError(f"Kaggle has no competition '{slug}'.{hint}") from None
        return Competition(
            slug,
            found.title or slug,
            found.evaluation_metric or "",
            utc(found.deadline),
            bool(found.user_has_entered),
            bool(found.is_kernels_submissions_only),
            bool(found.submissions_disabled),
            int(found.max_daily_submissions or 0),
        )

    def similar(self, slug: str) -> list[str]:
        """Slugs of competitions that a search finds for the words of a slug."""
        words = slug.split("-")
        for search in dict.fromkeys([" ".join(words), *sorted(words, key=len, reverse=True)[:2]]):
            found = self._call("search competitions", None, self._api.competitions_list, search=search, page_size=PAGE)
            if found and found.competitions:
                return [str(each.ref).rstrip("/").rpartition("/")[2] for each in found.competitions]
        return []

    def limits(self, slug: str) -> Limits:
        """How many submissions the team has made and may make."""
        found = self._call("read the limits", slug, self._api.competition_get_submission_limits, slug)
        return Limits(found.num_today, found.num_total, found.num_allowed_now, found.limited_by_total)

    def files(self, slug: str) -> dict[str, int]:
        """Size of each file of a competition in bytes; at most the first 1,000 files."""
        sizes: dict[str, int] = {}
        token = None
        for _ in range(10):
            found = self._call("list the files", slug, self._api.competition_list_files, slug, token, PAGE)
            sizes |= {each.name: each.total_bytes for each in found.files}
            token = found.next_page_token
            if not token:
                break
        return sizes

    def open_download(self, slug: str, file: str | None = None) -> Any:
        """The answer, whose content is not read yet, with all files of a competition as a zip, or with one file.

        Raises:
            InputError: The rules are not accepted, or there is no such competition or file.
        """
        if file is None:
            return self._competitions("download the data", slug, "download_data_files", competition_name=slug)
        return self._competitions(f"download {file}", slug, "download_data_file", competition_name=slug, file_name=file)

    def continue_download(self, answer: Any, first_byte: int, validator: str) -> Any:
        """The answer with the rest of a file, from `first_byte` on, or with all of it if it has changed since."""
        headers = {**answer.request.headers, "Range": f"bytes={first_byte}-", "If-Range": validator}
        answer.close()
        requests = importlib.import_module("requests")
        return requests.get(answer.url, headers=headers, stream=True, timeout=SECONDS)

    def submissions(self, slug: str) -> list[Submitted]:
        """The team's last submissions, the newest first; at most 500."""
        found: dict[int, Submitted] = {}
        token = None
        for _ in range(5):
            fields = {"competition_name": slug, "page_size": PAGE, "page_token": token}
            answer = self._competitions("list the submissions", slug, "list_submissions", **fields)
            found |= {each.ref: each for each in map(submitted, answer.submissions)}
            token = answer.next_page_token
            if not token:
                break
        return sorted(found.values(), key=lambda each: -each.ref)

    def submission(self, ref: int) -> Submitted:
        """One submission, by its number.

        Raises:
            NotFound: Kaggle does not know it, or not yet.
        """
        return submitted(self._call("read the submission", None, self._api.get_submission, ref))

    def submit(self, slug: str, path: Path, message: str) -> int:
        """Uploads a file and submits it, once: nothing is tried again.

        Returns:
            The number of the submission; 0 if Kaggle did not say it.

        Raises:
            InputError: Kaggle has refused it.
            RunError: It was not submitted.
            UnknownOutcome: The connection was lost after the file was sent.
        """
        said = io.StringIO()
        with redirect_stdout(said):
            answer = self._once(slug, self._api.competition_submit, str(path), message, slug, quiet=True)
        if answer.message == self._api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
            reason = redacted(said.getvalue(), secrets_of(self._api)) or "the connection was lost"
            raise RunError(f"{path.name} could not be uploaded ({reason}); nothing was submitted. Run it again.")
        return int(answer.ref or 0)

    def submit_code(self, slug: str, kernel: str, version: int, file: str, message: str) -> int:
        """Submits the output of a version of a notebook, once: nothing is tried again; see `submit`.

        Args:
            slug: The competition.
            kernel: `owner/notebook`.
            version: Number of the version, whose run has ended.
            file: The file that the notebook writes.
            message: The description.

        Raises:
            UnknownOutcome: Nobody knows whether it has arrived.
        """
        call = self._api.competition_submit_code
        answer = self._once(slug, call, file, message, slug, kernel, version, quiet=True)
        return int(answer.ref or 0)

    def dataset_create(self, folder: Path, public: bool = False, folders: str = "zip") -> Created:
        """Creates a dataset of a folder with a `dataset-metadata.json`.

        Args:
            folder: The folder.
            public: Whether everybody may see it.
            folders: What becomes of folders inside it: `zip`, `tar`, or `skip`.

        Raises:
            InputError: The metadata is wrong, or the slug is in use.
        """
        call = self._api.dataset_create_new
        return self._created(f"create a dataset of {folder}", call, str(folder), public=public, dir_mode=folders)

    def dataset_version(self, folder: Path, notes: str, folders: str = "zip") -> Created:
        """Uploads a folder as a new version of the dataset that its `dataset-metadata.json` names.

        Raises:
            InputError: Kaggle refused it.
        """
        call = self._api.dataset_create_version
        return self._created(f"upload a version of {folder}", call, str(folder), notes, dir_mode=folders)

    def dataset_status(self, name: str) -> str:
        """`ready`, or another state, of the dataset `owner/slug`.

        Raises:
            InputError: There is no such dataset, or it is another user's private one.
        """
        return str(self._call(f"read the dataset {name}", None, self._api.dataset_status, name))

    def kernel_push(self, folder: Path, accelerator: str | None = None, run: bool = True) -> Created:
        """Uploads a notebook with its `kernel-metadata.json`, and by default runs it.

        Raises:
            InputError: The metadata is wrong.
        """
        call = self._api.kernels_push
        return self._created(f"upload the notebook of {folder}", call, str(folder), None, accelerator, not run)

    def kernel_status(self, name: str) -> tuple[str, str]:
        """State of the newest run of `owner/notebook`, or of a version of it, `owner/notebook/3`, and why it failed.

        Returns:
            `queued`, `running`, `complete`, `error`, `cancel_requested`, `cancel_acknowledged` or `new_script`.

        Raises:
            InputError: There is no such notebook, or it is another user's private one.
        """
        found = self._call(f"read the notebook {name}", None, self._api.kernels_status, name)
        return str(found.status.name).lower(), str(found.failure_message or "")

    def _competitions(self, doing: str, slug: str, method: str, **fields: Any) -> Any:
        """Calls a method of the competitions' service for which the client has no function."""
        types = importlib.import_module("kagglesdk.competitions.types.competition_api_service")
        request = getattr(types, f"Api{''.join(word.title() for word in method.split('_'))}Request")()
        for name, value in fields.items():
            setattr(request, name, value)

        def call() -> Any:
            with self._api.build_kaggle_client() as kaggle:
                return getattr(kaggle.competitions.competition_api_client, method)(request)

        return self._call(doing, slug, call)

    def _call(self, doing: str, slug: str | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls the client, several times if the connection fails or the server asks to wait."""
        for attempt in range(ATTEMPTS):
            try:
                with redirect_stdout(io.StringIO()):
                    return function(*args, **kwargs)
            except Exception as error:
                wait = seconds_to_wait(error, attempt)
                if not is_transient(error) or attempt == ATTEMPTS - 1 or wait > MOST_SECONDS:
                    raise self.explained(error, doing, slug) from error
                reason = "no connection" if status_of(error) is None else f"status {status_of(error)}"
                print(f"cannot {doing}: {reason}; again in {wait:.0f} s", file=sys.stderr)
                sleep(wait)
        raise AssertionError

    def _once(self, slug: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls what makes a submission; afterwards it is known, or said, whether there is one."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            status, url = status_of(error), str(getattr(getattr(error, "request", None), "url", ""))
            was_last = re.search("/Create(Code)?Submission$", url) is not None or not url
            if was_last and (is_connection(error) if status is None else status >= 500):
                told = "the connection was lost" if status is None else f"Kaggle's server had a problem ({status})"
                raise UnknownOutcome(told) from error
            raise self.explained(error, "submit", slug) from error

    def _created(self, doing: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Created:
        """Calls what makes a dataset or a notebook, once, and raises the error in its answer."""
        try:
            with redirect_stdout(io.StringIO()):
                answer = function(*args, **kwargs)
        except Exception as error:
            raise self.explained(error, doing) from error
        if answer.error:
            raise InputError(f"cannot {doing}: {redacted(answer.error, secrets_of(self._api))}")
        names = [name for name in vars(type(answer)) if name.startswith("invalid_")]
        invalid = {name.removeprefix("invalid_").replace("_", " "): list(getattr(answer, name)) for name in names}
        notes = tuple(f"Kaggle left out {kind}: {', '.join(each)}" for kind, each in invalid.items() if each)
        return Created(str(answer.url or ""), getattr(answer, "version_number", None), notes)

    def explained(self, error: Exception, doing: str, slug: str | None = None) -> Exception:
        """The error to raise for one of the connection; those of swinft are returned as they are."""
        if isinstance(error, InputError | RunError):
            return error
        return explained(error, doing, slug, secrets_of(self._api))


class UnknownOutcome(RunError):
    """It is not known whether Kaggle has made a submission."""
