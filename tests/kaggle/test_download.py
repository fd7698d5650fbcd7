"""`swinft download` through the front door, with Kaggle's real client and a server on loopback."""

import json
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import swinft
from swinft.cli import main
from swinft.kaggle.download import downloaded_from
from tests.conftest import ROOT
from tests.json_documents import document_of
from tests.kaggle.conftest import SLUG
from tests.kaggle.fake_server import KEY, SIGNATURE, TOKEN, Contest, Fault, zipped

FOLDER = Path("data") / SLUG


def said(capsys, *words: str, code: int = 0) -> str:
    """What a download prints; it ends with this code, and prints no secret."""
    found = main(["download", *words])
    out = "".join(capsys.readouterr())
    assert found == code, out
    assert not any(secret in out for secret in (KEY, TOKEN, SIGNATURE))
    return out


def in_place(folder: Path = FOLDER) -> dict[str, bytes]:
    """Every file in the data's folder but those of the record."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".download" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_competition_is_downloaded_unpacked_recorded_and_not_downloaded_again(kaggle, capsys):
    out = said(capsys, f"https://www.kaggle.com/competitions/{SLUG}/data?select=train.csv")
    assert in_place() == kaggle.contests[SLUG].files
    assert "train/                           2 files" in out
    assert out.endswith(f"next: swinft new {SLUG} --data {FOLDER}\n")
    record = json.loads((FOLDER / ".download" / "record.json").read_text())
    assert record["competition"] == SLUG == downloaded_from(FOLDER)
    assert record["downloads"][""]["size"] == len(zipped(kaggle.contests[SLUG].files))
    rows = (FOLDER / ".download" / "files.csv").read_text().splitlines()
    assert rows[0] == "download,name,size,sha256"
    assert len(rows) == 5
    assert not list((FOLDER / ".download").glob("*.part"))
    before = len(kaggle.ranges)
    found = document_of(capsys, "download", SLUG)
    assert found["competition"] == SLUG
    assert len(found["files"]) == 4
    assert len(kaggle.ranges) == before + 1  # its headers only
    (FOLDER / "train" / "007.jpg").unlink()
    assert "1 file of the earlier download changed or missing, such as train/007.jpg" in said(capsys, SLUG)
    assert in_place() == kaggle.contests[SLUG].files


def test_new_data_at_kaggle_does_not_replace_what_is_here_unasked(kaggle, capsys):
    assert swinft.download(SLUG) == FOLDER
    kaggle.contests[SLUG].files["train.csv"] += b"3,4\n"
    assert "Kaggle has other data now" in said(capsys, SLUG, code=2)
    assert in_place()["train.csv"].count(b"\n") == 3
    said(capsys, SLUG, "--overwrite")
    assert in_place() == kaggle.contests[SLUG].files
    assert f"holds the data of {SLUG}" in said(capsys, "other", "--output", str(FOLDER), code=2)


@pytest.mark.parametrize(("options", "there"), [(["--unzip", "false"], 1), (["--keep-zip"], 5)])
def test_the_zip_is_kept_where_that_is_asked_for(kaggle, capsys, options, there):
    said(capsys, SLUG, "--output", "d", *options)
    assert len(in_place(Path("d"))) == there
    assert (Path("d") / f"{SLUG}.zip").read_bytes() == zipped(kaggle.contests[SLUG].files)


def test_one_file_is_downloaded_and_taken_out_of_the_zip_that_kaggle_makes(kaggle, capsys):
    said(capsys, SLUG, "--file", "train.csv")
    said(capsys, SLUG, "--file", "train/1e5.jpg")
    files = kaggle.contests[SLUG].files
    assert in_place() == {name: files[name] for name in ("train.csv", "train/1e5.jpg")}
    assert f"{SLUG} has no file 'tran.csv'. Did you mean 'train.csv'?" in said(
        capsys, SLUG, "--file", "tran.csv", code=2
    )


def test_inner_zips_are_unpacked_only_where_that_is_asked_for(kaggle, capsys):
    inner = {"train.zip": zipped({"train/1.jpg": b"one"}), "flat.zip": zipped({"2.jpg": b"two"})}
    kaggle.contests[SLUG].files = {**inner, "deep.zip": zipped({"deeper.zip": zipped({"3.jpg": b"three"})})}
    assert "packed: deep.zip, flat.zip, train.zip: images and tables are read from them" in said(capsys, SLUG)
    assert set(in_place()) == {"train.zip", "flat.zip", "deep.zip"}
    said(capsys, SLUG, "--inner-zips", "--output", "all")
    assert in_place(Path("all")) == {"train/1.jpg": b"one", "flat/2.jpg": b"two", "deep/deeper/3.jpg": b"three"}


def test_the_command_that_unpacks_an_archive_of_another_kind_is_printed(kaggle, capsys):
    kaggle.contests[SLUG].files = {"train.json.7z": b"7z\xbc\xaf\x27\x1c", "more/a.RAR": b"Rar!"}
    out = said(capsys, SLUG, "--inner-zips", "--output", "my data")
    assert (
        "train.json.7z: neither read nor unpacked by swinft; unpack it with `7z x '-omy data' 'my data/train.json.7z'`"
        in out
    )
    assert "with `unrar x 'my data/more/a.RAR' 'my data/more/'`" in out


def test_what_is_asked_for_later_is_done_without_another_download(kaggle, capsys):
    inner = {"train.zip": zipped({"train/1.jpg": b"one"}), "a.csv": b"1"}
    kaggle.contests[SLUG].files = inner
    said(capsys, SLUG, "--unzip", "false")
    assert set(in_place()) == {f"{SLUG}.zip"}
    kaggle.faults["storage"] = [Fault(cut=0)] * 3  # no content comes any more
    said(capsys, SLUG, "--keep-zip")
    assert set(in_place()) == {f"{SLUG}.zip", "train.zip", "a.csv"}
    said(capsys, SLUG, "--inner-zips", "--keep-zip")
    assert set(in_place()) == {f"{SLUG}.zip", "train.zip", "train/1.jpg", "a.csv"}
    said(capsys, SLUG, "--inner-zips")
    assert set(in_place()) == {f"{SLUG}.zip", "train/1.jpg", "a.csv"}
    kaggle.faults.clear()
    assert "everything is in" in said(capsys, SLUG, "--inner-zips")
    assert "--inner-zips needs --unzip true" in said(capsys, SLUG, "--inner-zips", "--unzip", "false", code=2)
    assert "--file is '../a.csv'" in said(capsys, SLUG, "--file", "../a.csv", code=2)


def test_a_zip_of_the_user_with_the_same_size_is_not_replaced(kaggle, capsys):
    FOLDER.mkdir(parents=True)
    (FOLDER / f"{SLUG}.zip").write_bytes(bytes(len(zipped(kaggle.contests[SLUG].files))))
    assert "is there already and differs" in said(capsys, SLUG, "--unzip", "false", code=2)


# What a server may do, and how the download ends.


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("swinft.kaggle.transfer.CHUNK", 1000)


def test_a_lost_connection_is_continued_where_it_was_lost(kaggle, capsys, small_chunks):
    kaggle.faults["storage"] = [Fault(cut=3000), Fault(), Fault(cut=10_000), Fault(0)]
    out = said(capsys, SLUG)
    assert in_place() == kaggle.contests[SLUG].files
    assert "the connection was lost at 0.00 MB; again in 1 s" in out
    assert next(wanted for wanted in kaggle.ranges if wanted) == "bytes=3000-"


def test_a_download_that_failed_is_continued_by_the_next_command(kaggle, capsys, small_chunks):
    kaggle.faults["storage"] = [Fault(cut=4000), *[Fault(0)] * 8]
    assert "are kept: the same command continues" in said(capsys, SLUG, code=1)
    assert in_place() == {}
    kaggle.faults.clear()
    kaggle.ranges.clear()
    said(capsys, SLUG)
    assert kaggle.ranges == ["", "bytes=4000-"]
    assert in_place() == kaggle.contests[SLUG].files


def test_a_part_of_data_that_has_changed_since_is_not_continued(kaggle, capsys, small_chunks):
    kaggle.faults["storage"] = [Fault(cut=4000), *[Fault(0)] * 8]
    said(capsys, SLUG, code=1)
    kaggle.faults.clear()
    kaggle.contests[SLUG].files["train.csv"] = b"Id,Score\n007,1\n1e5,3\n"  # the first bytes of the zip are others
    said(capsys, SLUG)
    assert in_place() == kaggle.contests[SLUG].files


@pytest.mark.parametrize(
    ("method", "fault", "code", "message"),
    [
        ("storage", [Fault(page=True)], 1, "the answer is a web page and not the file"),
        ("DownloadDataFiles", [Fault(403, "Permission 'competitions.get' was denied")], 2, "if you have not joined"),
        ("DownloadDataFiles", [Fault(401, "Unauthenticated")], 2, "Kaggle does not accept the credentials (401"),
        ("DownloadDataFiles", [Fault(503)] * 4, 1, "Kaggle's server has a problem (503)"),
        ("DownloadDataFiles", [Fault(0)] * 9, 1, "there is no connection to Kaggle"),
        ("DownloadDataFiles", [Fault(429, headers={"Retry-After": "7"})] * 4, 1, "again in 7 s"),
        ("DownloadDataFiles", [Fault(429, headers={"Retry-After": "900"})], 1, "again in 15 min"),
        ("DownloadDataFiles", [Fault(400, "Bad thing")], 2, "Kaggle refuses it (400: Bad thing)"),
    ],
)
def test_every_refusal_says_what_to_do(kaggle, capsys, method, fault, code, message):
    kaggle.faults[method] = list(fault)
    assert message.casefold() in said(capsys, SLUG, code=code).casefold()
    assert in_place() == {}


def test_a_busy_server_is_asked_again_after_the_time_that_it_says(kaggle, capsys):
    kaggle.faults["DownloadDataFiles"] = [Fault(429, headers={"Retry-After": "7"}), Fault(502)]
    said(capsys, SLUG)
    assert kaggle.slept == [7.0, 2.0]
    assert in_place() == kaggle.contests[SLUG].files


def test_rules_that_are_not_accepted_are_named_with_their_address(kaggle, capsys):
    kaggle.contests[SLUG].entered = False
    out = said(capsys, SLUG, code=2)
    assert f"Accept them at https://www.kaggle.com/competitions/{SLUG}/rules" in out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("pet-", f"Kaggle has no competition 'pet-'. A search finds: {SLUG}."),
        ("pet-scroes", f"Kaggle has no competition 'pet-scroes'. Did you mean '{SLUG}'?"),
        ("https://www.kaggle.com/datasets/a/b", "is not the address of a competition"),
        ("pet scores", "is not the slug of a competition"),
        ("../..", "is not the address of a competition"),
        ("", "is not the slug of a competition"),
    ],
)
def test_a_wrong_slug_is_explained(kaggle, capsys, given, message):
    assert message in said(capsys, given, code=2)
    assert not Path("data").exists() or in_place() == {}


@pytest.mark.parametrize("given", [f"c/{SLUG}", f"competitions/{SLUG}", f"kaggle.com/c/{SLUG}/overview", f" {SLUG} "])
def test_addresses_are_slugs(kaggle, capsys, given):
    said(capsys, given, "--file", "train.csv")
    assert set(in_place()) == {"train.csv"}


def test_without_credentials_every_way_to_give_them_is_named(kaggle, capsys, monkeypatch):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    out = said(capsys, SLUG, code=2)
    for way in ("kaggle auth login", "KAGGLE_API_TOKEN", "~/.kaggle/access_token", "kaggle.json", "settings/api"):
        assert way in out
    assert kaggle.asked == []
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_expired")
    assert "Kaggle does not accept the token of KAGGLE_API_TOKEN" in said(capsys, SLUG, code=2)
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setenv("VERBOSE", "1")  # Kaggle's client would print the token
    said(capsys, SLUG)


def test_a_competition_that_kaggle_forbids_and_does_not_have_is_not_called_one_with_rules(kaggle, capsys):
    for method in ("DownloadDataFiles", "GetCompetition"):
        kaggle.faults[method] = [Fault(403, "Permission 'competitions.get' was denied")]
    assert f"Kaggle has no competition 'pet-scroes'. Did you mean '{SLUG}'?" in said(capsys, "pet-scroes", code=2)


def test_a_key_that_others_can_read_is_said(kaggle, capsys, tmp_path):
    path = tmp_path / "home" / "kaggle.json"
    path.write_text(json.dumps({"username": "tester", "key": KEY}))
    path.chmod(0o644)
    assert said(capsys, SLUG).count(f"chmod 600 {path}") == 1


def test_a_key_that_was_revoked_is_not_printed(kaggle, capsys, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "revoked-and-secret")
    out = said(capsys, SLUG, code=2)
    assert "Kaggle does not accept the credentials (401" in out
    assert "revoked-and-secret" not in out


@pytest.mark.parametrize("name", ["VERBOSE", "VERBOSE_OUTPUT"])
def test_variables_of_other_programs_do_not_make_the_client_print_requests_with_the_key(
    kaggle, capsys, monkeypatch, name
):
    monkeypatch.setenv(name, "true")
    out = said(capsys, SLUG)
    assert KEY not in out
    assert "Authorization" not in out


def test_without_the_client_the_extra_is_named(kaggle, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaggle.api.kaggle_api_extended", None)
    assert "pip install 'swinft[kaggle]'" in said(capsys, SLUG, code=2)
    monkeypatch.setattr("swinft.kaggle.session.version", lambda name: "1.6.17")
    assert "kaggle 1.6.17 is installed" in said(capsys, SLUG, code=2)


def test_without_a_connection_that_is_said(kaggle, capsys, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert "cannot download the data" in said(capsys, SLUG, code=1)
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert "cannot sign in to Kaggle" in said(capsys, SLUG, code=1)


# What a zip, a disk and other processes may do.


def test_members_that_lead_out_of_the_folder_are_refused_before_anything_is_unpacked(kaggle, capsys, tmp_path):
    for name in ("../out.csv", "/etc/out.csv", "a/../../out.csv", "C:/out.csv", "a\\..\\out.csv"):
        kaggle.contests[SLUG].archive = zipped({"good.csv": b"1", name: b"2"})
        out = said(capsys, SLUG, code=2)
        assert "cannot be unpacked, and nothing was" in out
        assert in_place() == {}
    assert not list(tmp_path.rglob("out.csv"))


def test_links_and_doubles_in_a_zip_are_refused(kaggle, capsys, tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
        archive.writestr("a.csv", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.csv", "2")
    kaggle.contests[SLUG].archive = path.read_bytes()
    assert "'link' is a link, 'a.csv' exists twice" in said(capsys, SLUG, code=2)
    assert in_place() == {}


def test_a_folder_that_is_a_link_to_another_place_is_not_written_through(kaggle, capsys, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    FOLDER.mkdir(parents=True)
    (FOLDER / "train").symlink_to(tmp_path / "elsewhere")
    assert "a link to another place" in said(capsys, SLUG, code=2)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("damage", [lambda zip: zip[: len(zip) // 2], lambda zip: b"<html>", lambda zip: flipped(zip)])
def test_a_damaged_zip_leaves_no_half_file(kaggle, capsys, damage):
    kaggle.contests[SLUG].archive = damage(zipped(kaggle.contests[SLUG].files))
    assert "is damaged or not a zip" in said(capsys, SLUG, code=2)
    files = kaggle.contests[SLUG].files
    assert all(files[name] == content for name, content in in_place().items())


def flipped(archive: bytes) -> bytes:
    """One bit of the last file's content is another."""
    place = archive.rindex(b"1e5.jpg", 0, archive.rindex(b"PK\x01\x02") - 200) + 40
    return archive[:place] + bytes([archive[place] ^ 1]) + archive[place + 1 :]


def test_files_of_the_user_are_not_replaced_unasked(kaggle, capsys):
    FOLDER.mkdir(parents=True)
    (FOLDER / "train.csv").write_text("mine")
    assert "1 file of pet-scores.zip would replace other ones" in said(capsys, SLUG, code=2)
    assert in_place() == {"train.csv": b"mine"}
    said(capsys, SLUG, "--overwrite")
    assert in_place() == kaggle.contests[SLUG].files


def test_a_disk_without_room_is_noticed_before_the_download(kaggle, capsys, monkeypatch):
    usage = type("Usage", (), {"free": 100_000_500})
    monkeypatch.setattr("swinft.kaggle.transfer.shutil.disk_usage", lambda folder: usage)
    assert "0.10 GB free, and " in said(capsys, SLUG, code=2)
    assert in_place() == {}


def test_a_disk_that_fills_up_keeps_what_is_there(kaggle, capsys, monkeypatch):
    from swinft.kaggle import transfer

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer.os, "fsync", full)
    monkeypatch.setattr("swinft.kaggle.transfer.replace", lambda *args: None)
    monkeypatch.setattr("swinft.kaggle.download.probe", lambda folder, **words: folder.mkdir(parents=True))
    assert "is full" in said(capsys, SLUG, code=1)
    assert in_place() == {}
    assert len(kaggle.ranges) == 1  # it is not downloaded again and again


def test_ctrl_c_says_that_the_next_command_continues(kaggle, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("swinft.kaggle.unpack._extract", interrupted)
    assert "the same command continues" in said(capsys, SLUG, code=130)
    monkeypatch.undo()


def process(kaggle, folder: Path, *words: str) -> subprocess.Popen:
    """The command in a process of its own."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **kaggle.environment(folder / "home")}
    code = "import sys; from swinft.cli import main; sys.exit(main(sys.argv[1:]))"
    words = (sys.executable, "-c", code, "download", *words)
    return subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_at_once_and_one_that_is_killed(kaggle, capsys, tmp_path):
    """The second names the first; what a killed one has downloaded is used by the next."""
    content = random.Random(0).randbytes(3_000_000)  # more than a chunk, and it does not get smaller in a zip
    kaggle.contests[SLUG] = Contest({"a.bin": content})
    kaggle.hold = 2_000_000
    first = process(kaggle, tmp_path, SLUG)
    wait_for(lambda: any(part.stat().st_size >= 1_000_000 for part in (tmp_path / FOLDER / ".download").glob("*.part")))
    assert f"{SLUG} is in use by process {first.pid}" in said(capsys, SLUG, code=2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kaggle.hold = None
    kaggle.ranges.clear()
    said(capsys, SLUG)
    assert kaggle.ranges[1].startswith("bytes=")
    assert in_place() == {"a.bin": content}


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_a_killed_command_left_half_unpacked_is_deleted_and_nothing_of_other_programs(kaggle, capsys):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (FOLDER / "train").mkdir(parents=True)
    for name in (f".{'a0' * 8}.{dead.pid}.tmp", f".mine.{dead.pid}.tmp"):
        (FOLDER / "train" / name).write_bytes(b"half")
    said(capsys, SLUG)
    assert set(in_place()) - set(kaggle.contests[SLUG].files) == {f"train/.mine.{dead.pid}.tmp"}
