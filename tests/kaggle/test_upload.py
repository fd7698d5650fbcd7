"""`swinft submit --message` and `swinft submissions` through the front door, with Kaggle's real client."""

import csv
import hashlib
import io
import json
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import swinft
from swinft.cli import main
from swinft.errors import InputError, RunError
from swinft.kaggle.upload import UploadOptions
from swinft.run import layout
from tests.conftest import ROOT
from tests.kaggle.conftest import SLUG
from tests.kaggle.fake_server import KEY, SIGNATURE, TOKEN, Fault, date

SECRETS = (KEY, TOKEN, SIGNATURE)
SENT = ("--competition", SLUG, "--message", "first try")


@pytest.fixture
def run(tiny_run, tmp_path, kaggle, monkeypatch) -> Path:
    """A copy of a finished run; waiting takes no time."""
    for module in ("scores", "interrupted"):
        monkeypatch.setattr(f"swinft.kaggle.{module}.sleep", kaggle.slept.append)
    return Path(shutil.copytree(tiny_run, tmp_path / "runs" / "tiny"))


def said(capsys, *words: object, code: int = 0) -> str:
    """What a command prints; it ends with this code, and prints no secret."""
    found = main([str(word) for word in words])
    out = "".join(capsys.readouterr())
    assert found == code, out
    assert not any(secret in out for secret in SECRETS)
    return out


def submit(capsys, run: Path, *words: object, code: int = 0) -> str:
    """What `swinft submit` prints; no file in the run's folder has a secret."""
    out = said(capsys, "submit", run, *SENT, *words, code=code)
    for path in run.rglob("*"):
        assert not path.is_file() or not any(secret.encode() in path.read_bytes() for secret in SECRETS)
    return out


def record(run: Path) -> list[dict]:
    path = run / "submissions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_submission_is_uploaded_scored_and_recorded(kaggle, run, capsys):
    kaggle.scores = [("0.91", "", "")]
    out = submit(capsys, run)
    assert f"Kaggle: A Competition ({SLUG}), RMSE; deadline " in out
    assert "the first submission; 5 per day" in out
    assert f"ref 50000001, https://www.kaggle.com/competitions/{SLUG}/submissions" in out
    assert "public score 0.91, private score not yet known; out-of-fold accuracy 1.0000" in out
    (content,) = kaggle.uploads.values()
    assert content == (run / "submission.csv").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    (made,) = kaggle.submissions
    assert made["description"] == "first try"
    assert made["fileName"] == f"tiny-{digest[:12]}.csv"
    (entry,) = record(run)
    assert entry | {"sha256": digest, "ref": 50000001, "status": "complete", "public_score": "0.91"} == entry
    assert entry["size"] == len(content)


def test_private_scores_are_read_after_the_deadline(kaggle, run, capsys):
    assert "has submitted nothing" in said(capsys, "submissions", run)
    submit(capsys, run, "--wait", "0")
    assert "pending" in said(capsys, "submissions", run)
    assert "GetSubmission" not in kaggle.asked  # without --refresh nobody is asked
    kaggle.scores = [("0.91", "0.88", "")]
    out = said(capsys, "submissions", run, "--refresh")
    assert "'first try'" in out
    assert "public score 0.91, private score 0.88; out-of-fold accuracy 1.0000" in out
    before = len(kaggle.asked)
    said(capsys, "submissions", run, "--refresh")
    assert len(kaggle.asked) == before  # it cannot change any more


def test_the_same_file_is_not_submitted_twice(kaggle, run, capsys):
    kaggle.scores = [("0.91", "", "")]
    submit(capsys, run)
    out = submit(capsys, run, code=2)
    assert "the same file was submitted before" in out
    assert "ref 50000001: public score 0.91" in out
    assert len(kaggle.submissions) == 1
    (run / "submissions.jsonl").unlink()  # a copy of the run, or another run with the same predictions
    assert "Kaggle has the same file already" in submit(capsys, run, code=2)
    assert len(kaggle.submissions) == 1
    submit(capsys, run, "--again", "--wait", "0")
    assert len(kaggle.submissions) == 2
    assert len(record(run)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entered": False}, f"Accept them at https://www.kaggle.com/competitions/{SLUG}/rules"),
        ({"is_closed": True, "deadline": date(-3)}, "takes no submissions (its deadline has passed: "),
        ({"is_code": True}, "--kernel OWNER/NOTEBOOK --kernel-version N"),
        ({"total_left": 0}, "allows in total (99)"),
        (
            {"max_daily": 2},
            "your team has used its 2 submissions to pet-scores of today. The count starts again at 00:00 UTC",
        ),
    ],
)
def test_what_kaggle_would_refuse_is_not_sent(kaggle, run, change, message):
    kaggle.used_today = 2
    for name, value in change.items():
        setattr(kaggle.contests[SLUG], name, value)
    with pytest.raises(InputError, match=re.escape(message)):
        swinft.upload(run, message="m", competition=SLUG)
    assert kaggle.uploads == {}
    assert kaggle.submissions == record(run) == []


def test_a_late_submission_and_what_is_left_are_said(kaggle, run, capsys):
    kaggle.used_today = 3
    kaggle.contests[SLUG].deadline = date(-3)
    out = submit(capsys, run, "--wait", "0")
    assert "a submission after the deadline is scored, and not ranked" in out
    assert "2 of 5 submissions left today; the count starts again at 00:00 UTC, in " in out


def test_a_dry_run_checks_everything_and_sends_nothing(kaggle, run, capsys):
    out = submit(capsys, run, "--dry-run")
    assert "would be submitted; nothing was sent" in out
    assert kaggle.uploads == {}
    assert record(run) == []
    assert "upload: kaggle" not in out


def test_the_competition_is_that_of_the_data(kaggle, run, capsys, competition):
    words = ("submit", run, "--message", "m", "--wait", "0")
    assert "name the competition with --competition SLUG" in said(capsys, *words, code=2)
    folder = competition / ".download"
    folder.mkdir()
    try:
        (folder / "record.json").write_text(json.dumps({"competition": SLUG, "downloads": {}}))
        assert f"submitted to {SLUG}" in said(capsys, *words)
    finally:
        shutil.rmtree(folder)


def test_the_competition_is_that_of_a_mount(kaggle, run, monkeypatch):
    config = layout.Run.open(run).read_config()
    config["data"]["root"] = f"kaggle://{SLUG}"
    monkeypatch.setattr(layout.Run, "read_config", lambda self: config)
    assert UploadOptions(message="m").check(layout.Run.open(run)).competition == SLUG
    config["data"]["root"] = "kaggle://owner/dataset"
    with pytest.raises(InputError, match="--competition SLUG"):
        UploadOptions(message="m").check(layout.Run.open(run))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--competition", SLUG], "--message TEXT"),
        (["--competition", SLUG, "--message", " "], "--message TEXT"),
        ([*SENT, "--wait", "-1"], "--wait is -1"),
        ([*SENT, "--kernel", "a/b"], "with both: --kernel OWNER/NOTEBOOK --kernel-version N"),
        ([*SENT, "--kernel", "b", "--kernel-version", "1"], "--kernel is 'b'"),
        (["--competition", "pet-scroes", "--message", "m"], f"Did you mean '{SLUG}'?"),
    ],
)
def test_wrong_options_are_explained(kaggle, run, capsys, words, message):
    assert message in said(capsys, "submit", run, *words, code=2)
    assert kaggle.uploads == {}


# A notebook's output.


def test_the_output_of_a_notebook_is_submitted_when_it_has_run(kaggle, run, capsys):
    kaggle.contests[SLUG].is_code = True
    words = ("--kernel", "https://www.kaggle.com/code/tester/infer", "--kernel-version", "3")
    assert "cannot" in submit(capsys, run, *words, code=2)
    for status, message in {"RUNNING": "is running. Submit it when", "ERROR": "its run ended with error"}.items():
        kaggle.kernels["tester/infer"] = status
        assert message in submit(capsys, run, *words, code=2)
    assert kaggle.submissions == []
    kaggle.kernels["tester/infer"] = "COMPLETE"
    kaggle.scores = [("0.7", "", "")]
    submit(capsys, run, *words)
    assert kaggle.submissions[0]["fileName"] == "submission.csv"
    assert kaggle.uploads == {}
    assert record(run)[0]["kernel"] == "tester/infer/3"
    assert "the same notebook was submitted before" in submit(capsys, run, *words, code=2)


# Failures.


@pytest.mark.parametrize(
    ("method", "faults", "kind", "message"),
    [
        ("StartSubmissionUpload", [Fault(403, "You must accept the rules")], InputError, "accepted the rules"),
        ("StartSubmissionUpload", [Fault(503)], RunError, "Kaggle's server has a problem (503)"),
        ("upload", [Fault(400)], RunError, "could not be uploaded"),
        ("CreateSubmission", [Fault(400, "Your team has used its daily allowance")], InputError, "daily allowance"),
        ("CreateSubmission", [Fault(429, headers={"Retry-After": "9"})], RunError, "again in 9 s"),
        ("CreateSubmission", [Fault(503)], RunError, "has not arrived. Run the same command again"),
        ("GetSubmissionLimits", [Fault(0)] * 9, RunError, "there is no connection to Kaggle"),
    ],
)
def test_what_is_not_submitted_can_be_submitted_again(kaggle, run, method, faults, kind, message):
    kaggle.faults[method] = list(faults)
    with pytest.raises(kind, match=re.escape(message)):
        swinft.upload(run, message="m", competition=SLUG)
    assert kaggle.submissions == []
    assert all(entry["status"] == "not sent" for entry in record(run))
    kaggle.faults.clear()
    swinft.upload(run, message="m", competition=SLUG, wait=0)
    assert len(kaggle.submissions) == 1
    assert record(run)[-1]["ref"] == 50000001


def test_an_answer_that_is_lost_loses_no_submission(kaggle, run, capsys):
    kaggle.faults["CreateSubmission"] = [Fault(0, done_first=True)]
    out = submit(capsys, run, "--wait", "0")
    assert "the connection was lost after everything was sent: looking for the submission" in out
    assert len(kaggle.submissions) == 1
    assert [entry["ref"] for entry in record(run)] == [50000001]


@pytest.mark.parametrize("method", ["write_sent", "_send", "Client.submit", "wait_for_score"])
@pytest.mark.parametrize("is_after", [False, True])
def test_a_command_that_ends_at_any_point_is_continued_by_the_next(kaggle, run, monkeypatch, method, is_after):
    """The first call of each step ends the command, before it or after it."""
    owner, _, name = f"swinft.kaggle.upload.{method}".rpartition(".")
    real = pkgutil.resolve_name(f"{owner}.{name}")

    def ended(*args, **kwargs):
        if is_after:
            real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"{owner}.{name}", ended)
        with pytest.raises(KeyboardInterrupt):
            swinft.upload(run, message="m", competition=SLUG, wait=0)
    has_ref = [entry["ref"] for entry in record(run)] == [50000001]
    if has_ref:
        with pytest.raises(InputError, match="was submitted before"):
            swinft.upload(run, message="m", competition=SLUG, wait=0)
    else:
        assert swinft.upload(run, message="m", competition=SLUG, wait=0).ref == 50000001
    assert len(kaggle.submissions) == 1
    assert [entry["ref"] for entry in record(run) if entry["status"] != "not sent"] == [50000001]


def test_a_submission_that_cannot_be_scored_is_an_error(kaggle, run, capsys):
    kaggle.scores = [("", "", "Submission must have 7 rows")]
    assert "could not score submission 50000001: Submission must have 7 rows" in submit(capsys, run, code=1)
    assert record(run)[0]["error"] == "Submission must have 7 rows"


def test_the_time_to_wait_is_kept_and_the_score_read_later(kaggle, run, capsys):
    kaggle.faults["GetSubmission"] = [Fault(404), Fault(503)]  # not listed yet; then a server with a problem
    out = submit(capsys, run, "--wait", "60")
    assert "not scored within 60 s; read the score later with `swinft submissions" in out
    assert sum(kaggle.slept) - 1 <= 60
    assert record(run)[0]["status"] == "pending"


def test_ctrl_c_while_waiting_says_what_stands(kaggle, run, capsys, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("swinft.kaggle.scores.sleep", interrupted)
    assert "submission 50000001 stands" in submit(capsys, run, code=130)
    assert record(run)[0]["ref"] == 50000001


def test_a_damaged_record_stops_before_anything_is_sent(kaggle, run, capsys):
    submit(capsys, run, "--wait", "0")
    (run / "submissions.jsonl").write_text("{}\n")
    assert "is damaged" in submit(capsys, run, "--again", code=2)
    assert len(kaggle.submissions) == 1


def test_a_run_whose_record_cannot_be_written_sends_nothing(kaggle, run):
    (run.parent / ".locks").write_text("a file, where the folder of the locks would be")
    with pytest.raises(InputError, match="so that nothing is sent"):
        swinft.upload(run, message="m", competition=SLUG)
    (run.parent / ".locks").unlink()
    (run / "submissions.jsonl").mkdir()
    with pytest.raises((InputError, RunError)):
        swinft.upload(run, message="m", competition=SLUG)
    assert kaggle.uploads == {}


def test_the_same_file_again_is_not_taken_for_the_earlier_one(kaggle, run):
    """Its number is larger than every number before it was sent."""
    swinft.upload(run, message="m", competition=SLUG, wait=0)
    kaggle.faults["CreateSubmission"] = [Fault(503)]
    with pytest.raises(RunError, match="has not arrived"):
        swinft.upload(run, message="m", competition=SLUG, again=True, wait=0)
    (run / "submissions.jsonl").unlink()
    kaggle.faults["CreateSubmission"] = [Fault(503)]
    with pytest.raises(RunError, match="has not arrived"):
        swinft.upload(run, message="m", competition=SLUG, again=True, wait=0)
    kaggle.faults["CreateSubmission"] = [Fault(0, done_first=True)]
    assert swinft.upload(run, message="m", competition=SLUG, again=True, wait=0).ref == 50000002


def process(kaggle, run: Path, folder: Path, *words: str) -> subprocess.Popen:
    """The command in a process of its own."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **kaggle.environment(folder / "home")}
    code = "import sys; from swinft.cli import main; sys.exit(main(sys.argv[1:]))"
    whole = (sys.executable, "-c", code, "submit", str(run), *SENT, *words)
    return subprocess.Popen(whole, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_process_killed_while_kaggle_answers_neither_loses_nor_repeats_the_submission(kaggle, run, capsys, tmp_path):
    kaggle.slow_answer = "CreateSubmission"
    first = process(kaggle, run, tmp_path)
    end = time.monotonic() + 60
    while not kaggle.submissions:
        assert time.monotonic() < end
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    assert f"tiny.upload is in use by process {first.pid}" in submit(capsys, run, code=2)  # two at once
    first.send_signal(signal.SIGKILL)
    first.wait()
    kaggle.slow_answer = ""
    assert [entry["status"] for entry in record(run)] == ["sending"]
    kaggle.scores = [("0.91", "", "")]
    out = submit(capsys, run)
    assert "submission 50000001 was sent by an interrupted command, and has arrived" in out
    assert "public score 0.91" in out
    assert len(kaggle.submissions) == 1


def test_in_python_a_run_is_uploaded_with_what_it_has_submitted(kaggle, run, capsys):
    kaggle.scores = [("0.91", "0.9", ""), ("0.5", "", "")]
    opened = swinft.open_run(run)
    found = swinft.upload(opened, message="from Python", competition=SLUG)
    assert (found.ref, found.public_score, found.private_score) == (50000001, "0.91", "0.9")
    made = opened.submit(output="other.csv", words={"red": "r", "green": "g", "blue": "b"}, keep=None)
    rows = list(csv.DictReader(io.StringIO(made.text)))
    assert {row["color"] for row in rows} <= {"r", "g", "b"}
    swinft.upload(run, made, message="second", competition=SLUG)
    assert [entry["message"] for entry in record(run)] == ["from Python", "second"]
    assert list(kaggle.uploads.values())[1].decode() == made.text
