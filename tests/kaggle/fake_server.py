"""A server on loopback that answers what Kaggle's official client asks, for the tests.

The client is the real one. `KAGGLE_API_ENVIRONMENT=LOCALHOST` makes it ask `http://localhost/api/v1`, and `HTTP_PROXY` sends
those requests here, so that any free port will do; uploads and downloads go to addresses of this server as well.
"""

import base64
import io
import json
import re
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

USER, KEY, TOKEN, SIGNATURE = "tester", "key-that-is-secret", "KGAT_token_that_is_secret", "signature-that-is-secret"


def date(days: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def zipped(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # of the same date each time
    return target.getvalue()


@dataclass
class Contest:
    """A competition; `archive` replaces the zip of its files."""

    files: dict[str, bytes]
    entered: bool = True
    deadline: str = field(default_factory=lambda: date(10))
    is_code: bool = False
    is_closed: bool = False
    max_daily: int = 5
    total_left: int | None = None
    archive: bytes | None = None


@dataclass
class Fault:
    """What one request gets in the place of its answer.

    Args:
        status: An answer with this status; 0 closes the connection.
        message: The message in the answer.
        headers: Headers of the answer.
        done_first: Do what was asked, and then lose the answer.
        cut: Send the real answer's first bytes only, then close the connection.
        page: Answer with a web page.
    """

    status: int = 503
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    done_first: bool = False
    cut: int | None = None
    page: bool = False


class FakeKaggle:
    """What the server knows; tests read and change it.

    Attributes:
        faults: For a method's name, or `storage` and `upload`, what its next requests get.
        asked: Names of the methods that were asked, in order.
        scores: Public score, private score and error of the next submissions; without one they stay pending.
    """

    def __init__(self) -> None:
        self.contests: dict[str, Contest] = {}
        self.submissions: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.datasets: dict[str, dict[str, Any]] = {}
        self.kernels: dict[str, str] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.scores: list[tuple[str, str, str]] = []
        self.slept: list[float] = []
        self.used_today: int | None = None
        self.slow_answer = ""  # a method that is done, and then waits with its answer
        self.hold: int | None = None  # bytes of a download after which it waits
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"kaggle": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, folder: Any) -> dict[str, str]:
        """Variables that lead the client here, with credentials."""
        return {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_CONFIG_DIR": str(folder),
            "KAGGLE_USERNAME": USER,
            "KAGGLE_KEY": KEY,
            "HOME": str(folder),
            "HTTP_PROXY": self.address,
            "http_proxy": self.address,
            "NO_PROXY": "",
            "no_proxy": "",
        }

    # What the client asks.

    def answer(self, method: str, given: dict[str, Any]) -> Any:
        own = getattr(self, "".join(f"_{word.lower()}" for word in re.findall("[A-Z][a-z]*", method)))
        with self.lock:
            return own(given)

    def contest(self, given: dict[str, Any], joined: bool = True) -> Contest:
        contest = self.contests.get(given["competitionName"])
        if contest is None:
            raise Refused(404, "Not found")
        if joined and not contest.entered:
            raise Refused(403, "You must accept this competition's rules before you'll be able to download files.")
        return contest

    def _introspect_token(self, given: dict[str, Any]) -> Any:
        return {"active": given["token"] == TOKEN, "username": USER if given["token"] == TOKEN else ""}

    def _get_competition(self, given: dict[str, Any]) -> Any:
        found = self.contest(given, joined=False)
        return {
            "ref": f"https://www.kaggle.com/competitions/{given['competitionName']}",
            "title": "A Competition",
            "deadline": found.deadline,
            "userHasEntered": found.entered,
            "isKernelsSubmissionsOnly": found.is_code,
            "submissionsDisabled": found.is_closed,
            "maxDailySubmissions": found.max_daily,
            "evaluationMetric": "RMSE",
        }

    def _list_competitions(self, given: dict[str, Any]) -> Any:
        words = given.get("search", "").split()
        slugs = [slug for slug in self.contests if all(word in slug for word in words)]
        return {"competitions": [{"ref": f"https://www.kaggle.com/competitions/{slug}"} for slug in slugs]}

    def _list_data_files(self, given: dict[str, Any]) -> Any:
        files = self.contest(given).files
        start, size = int(given.get("pageToken") or 0), given["pageSize"]
        page = list(files)[start : start + size]
        more = str(start + size) if start + size < len(files) else ""
        listed = [{"name": name, "totalBytes": len(files[name])} for name in page]
        return {"files": listed, "nextPageToken": more}

    def _download_data_files(self, given: dict[str, Any]) -> Any:
        self.contest(given)
        return f"http://localhost/storage/{given['competitionName']}.zip?X-Goog-Signature={SIGNATURE}"

    def _download_data_file(self, given: dict[str, Any]) -> Any:
        files, name = self.contest(given).files, given["fileName"]
        if name not in files:
            raise Refused(404, "Not found")
        wrapped = ".zip" if name.endswith(".csv") else ""
        return f"http://localhost/storage/{given['competitionName']}/{name}{wrapped}?X-Goog-Signature={SIGNATURE}"

    def _get_submission_limits(self, given: dict[str, Any]) -> Any:
        found = self.contest(given)
        today = len(self.submissions) if self.used_today is None else self.used_today
        if found.total_left is not None:
            return {"numToday": today, "numTotal": 99, "numAllowedNow": found.total_left, "limitedByTotal": True}
        left = found.max_daily - today if today else 0  # zeros until the team has submitted
        return {"numToday": today, "numTotal": today, "numAllowedNow": left}

    def _start_submission_upload(self, given: dict[str, Any]) -> Any:
        self.contest(given)
        token = f"{len(self.uploads)}:{given['fileName']}"
        self.uploads[token] = b""
        return {"token": token, "createUrl": f"http://localhost/upload/{token}?upload_id={SIGNATURE}"}

    def _create_submission(self, given: dict[str, Any]) -> Any:
        name = given["blobFileTokens"].partition(":")[2]
        assert self.uploads[given["blobFileTokens"]]
        return self._submit(given, name)

    def _create_code_submission(self, given: dict[str, Any]) -> Any:
        if f"{given['kernelOwner']}/{given['kernelSlug']}" not in self.kernels:
            raise Refused(403, "Permission 'kernelSessions.get' was denied")
        return self._submit(given, given["fileName"])

    def _submit(self, given: dict[str, Any], name: str) -> Any:
        ref = 50_000_001 + len(self.submissions)
        made = {"ref": ref, "fileName": name, "description": given.get("submissionDescription", ""), "date": date()}
        self.submissions.append({**made, "status": "PENDING", "competition": given["competitionName"]})
        return {"message": "Successfully submitted", "ref": ref}

    def _list_submissions(self, given: dict[str, Any]) -> Any:
        self.contest(given)
        newest = [each for each in reversed(self.submissions) if each["competition"] == given["competitionName"]]
        start, end = int(given.get("pageToken") or 0), int(given.get("pageToken") or 0) + min(given["pageSize"], 50)
        more = str(end) if end < len(newest) else ""  # it lists fewer than asked for
        return {"submissions": [shown(each) for each in newest[start:end]], "nextPageToken": more}

    def _get_submission(self, given: dict[str, Any]) -> Any:
        found = next((each for each in self.submissions if each["ref"] == given["ref"]), None)
        if found is None:
            raise Refused(404, "Not found")
        if found["status"] == "PENDING" and self.scores:
            public, private, error = self.scores.pop(0)
            found |= {"status": "ERROR" if error else "COMPLETE", "publicScore": public, "privateScore": private}
            found["errorDescription"] = error
        return shown(found)

    def _start_blob_upload(self, given: dict[str, Any]) -> Any:
        token = f"{len(self.uploads)}:{given['name']}"
        self.uploads[token] = b""
        return {"token": token, "createUrl": f"http://localhost/upload/{token}?upload_id={SIGNATURE}"}

    def _get_dataset_status(self, given: dict[str, Any]) -> Any:
        if f"{given['ownerSlug']}/{given['datasetSlug']}" not in self.datasets:
            raise Refused(404, "Not found")
        return {"status": "READY"}

    def _create_dataset(self, given: dict[str, Any]) -> Any:
        name = f"{given['ownerSlug']}/{given['slug']}"
        self.datasets[name] = {"files": [each["token"] for each in given["files"]], "versions": 1}
        return {"status": "ok", "url": f"https://www.kaggle.com/datasets/{name}"}

    def _create_dataset_version(self, given: dict[str, Any]) -> Any:
        name = f"{given['ownerSlug']}/{given['datasetSlug']}"
        self.datasets[name]["files"] = [each["token"] for each in given["body"]["files"]]
        self.datasets[name]["versions"] += 1
        return {"status": "ok", "url": f"https://www.kaggle.com/datasets/{name}"}

    def _save_kernel(self, given: dict[str, Any]) -> Any:
        self.kernels[given["slug"]] = "RUNNING"
        missing = [each for each in given.get("datasetDataSources", []) if each not in self.datasets]
        return {
            "url": f"https://www.kaggle.com/code/{given['slug']}",
            "versionNumber": 1,
            "invalidDatasetSources": missing,
        }

    def _get_kernel_session_status(self, given: dict[str, Any]) -> Any:
        name = f"{given['userName']}/{given['kernelSlug']}"
        if name not in self.kernels:
            raise Refused(403, "Permission 'kernels.get' was denied")
        return {"status": self.kernels[name]}

    def stored(self, path: str) -> bytes:
        """What a signed address serves."""
        slug, _, name = path.partition("/")
        contest = self.contests[slug.removesuffix(".zip")]
        if not name:
            return contest.archive if contest.archive is not None else zipped(contest.files)
        if name not in contest.files:
            inside = name.removesuffix(".zip")
            return zipped({inside.rpartition("/")[2]: contest.files[inside]})
        return contest.files[name]


def shown(submission: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in submission.items() if key != "competition"}


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    kaggle: FakeKaggle

    def log_message(self, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client has closed a download that it does not need
            super().handle()

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        method = urlsplit(self.path).path.rpartition("/")[2]
        self.kaggle.asked.append(method)
        fault = self._fault(method)
        if fault and not fault.done_first:
            self._fail(fault)
            return
        try:
            if method != "IntrospectToken":
                self._check_credentials()
            answer = self.kaggle.answer(method, json.loads(content))
        except Refused as refused:
            self._send(refused.status, {"code": refused.status, "message": str(refused)})
            return
        while self.kaggle.slow_answer == method:  # until the test lets it answer
            time.sleep(0.02)
        if fault:
            self._fail(fault)
        elif isinstance(answer, str):
            self.send_response(302)
            self.send_header("Location", answer)
            self.end_headers()
        else:
            self._send(200, answer)

    def do_GET(self) -> None:
        fault, wanted = self._fault("storage"), self.headers.get("Range")
        self.kaggle.ranges.append(wanted or "")
        if fault and fault.cut is None:
            self._fail(fault)
            return
        content = self.kaggle.stored(unquote(urlsplit(self.path).path).removeprefix("/storage/"))
        tag = f'"{abs(hash(content))}"'
        first = 0
        if wanted and self.headers.get("If-Range") == tag:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        for name, value in {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": "application/zip"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        rest = content[first:]
        rest = rest if fault is None else rest[: fault.cut]
        until = self.kaggle.hold
        self.wfile.write(rest[:until])
        while self.kaggle.hold is not None:  # until the test lets it go on
            time.sleep(0.02)
        self.wfile.write(b"" if until is None else rest[until:])

    def do_PUT(self) -> None:
        token = unquote(urlsplit(self.path).path).removeprefix("/upload/")
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self._fault("upload")
        if fault:
            self._fail(fault)
            return
        self.kaggle.uploads[token] = content
        self._send(200, {})

    def _fault(self, name: str) -> Fault | None:
        waiting = self.kaggle.faults.get(name)
        return waiting.pop(0) if waiting else None

    def _check_credentials(self) -> None:
        given = self.headers.get("Authorization", "")
        basic = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        if given not in (f"Bearer {TOKEN}", f"Basic {basic}"):
            raise Refused(401, "Unauthenticated")

    def _fail(self, fault: Fault) -> None:
        if fault.page:
            self._write(200, b"<html>Sign in to this network</html>", "text/html")
        elif fault.status:
            content = json.dumps({"code": fault.status, "message": fault.message}).encode()
            self._write(fault.status, content, "application/json", fault.headers)
        self.close_connection = True

    def _send(self, status: int, answer: Any) -> None:
        self._write(status, json.dumps(answer).encode(), "application/json")

    def _write(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
