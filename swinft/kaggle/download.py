"""Downloads a competition's data: whole files only, checked, unpacked safely, and recorded."""

import csv
import io
import json
import os
import shlex
import sys
import zipfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from swinft.errors import InputError, StoreError, command, listed, number_of, suggest
from swinft.kaggle.client import Client
from swinft.kaggle.failures import NotFound, status_of
from swinft.kaggle.slugs import competition_slug
from swinft.kaggle.transfer import Remote, Transfer, Transferred
from swinft.kaggle.unpack import FileRecord, inner_zips, unpack
from swinft.printing import print_line
from swinft.run.lock import hold
from swinft.store import json_bytes, probe, replace, sha256_of, sweep
from swinft.system.limits import format_bytes
from swinft.system.mounts import SCHEME

STATE = ".download"  # in the data's folder: part files, and afterwards the record
RECORD, FILES = "record.json", "files.csv"
PACKED = (".7z", ".rar")  # archives that Python cannot read by itself


@dataclass(frozen=True)
class DownloadOptions:
    """What to download, and what becomes of it.

    Args:
        output: The data's folder; by default data/SLUG.
        file: Download only this file.
        unzip: Unpack the zip that Kaggle makes of the files.
        keep_zip: Keep that zip, and zips inside it, when they are unpacked.
        inner_zips: Also unpack zips inside it, each into a folder of its name.
        overwrite: Replace files that are there and differ.
    """

    output: str | None = None
    file: str | None = None
    unzip: bool = True
    keep_zip: bool = False
    inner_zips: bool = False
    overwrite: bool = False


def download(slug: str, **options: Any) -> Path:
    """Downloads a competition's data; does and prints the same as `swinft download`.

    Args:
        slug: The competition's slug, or its address.
        options: `output`, `file`, `unzip`, `keep_zip`, `inner_zips`, `overwrite`, as those of the command.

    Returns:
        The data's folder.

    Raises:
        InputError: There are no credentials, the rules are not accepted, there is no such competition, or the files
            would replace others.
        RunError: The connection was lost, or Kaggle's server has a problem; the same call continues.
    """
    from swinft.run.config.parser import options_from  # slow to import

    return download_data(slug, options_from(DownloadOptions, options))


def download_data(address: str, options: DownloadOptions) -> Path:
    """Downloads what the options say, and prints what is there; see `download`.

    Raises:
        InputError: Options, slug or credentials are wrong, or the competition's rules are not accepted.
        StoreError: The folder cannot be written to.
    """
    slug = competition_slug(address)
    _check(options)
    folder = Path(options.output or f"data/{slug}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder} is a file. Name a folder.")
    client = Client()
    probe(folder / STATE, what="the data", advice="Choose another folder with --output.")
    with hold(folder / STATE / f"{slug}.lock", advice="Wait for it, or choose another folder with --output."):
        record = _read_record(folder, slug)
        transfer = Transfer(client, slug, options.file, folder / STATE)
        try:
            if _is_here(folder, record, transfer, options):
                print_line(f"{options.file or slug}: everything is in {folder} already, unchanged at Kaggle")
                _unpack_inner_of(folder, record, options)
            else:
                got = transfer.run()
                files = _place(got, folder, slug, options)
                _write_record(folder, record, files, options.file, _entry(got))
                transfer.done()
                _print_files(folder, files)
                _print_archives(folder, files)
        except InputError as error:
            raise _diagnosed(client, slug, options.file, error) from error
    print(f"next: {command('new', slug, '--data', folder)}")
    return folder


def _check(options: DownloadOptions) -> None:
    """Checks the options together.

    Raises:
        InputError: A file's path leads out of the folder, or zips inside a zip shall be unpacked and not the zip.
    """
    wanted = PurePosixPath(options.file or "file")
    if wanted.is_absolute() or ".." in wanted.parts or not wanted.name:
        raise InputError(f"--file is '{options.file}'. Give a path as Kaggle lists it, such as train.csv.")
    if options.inner_zips and not options.unzip and not options.file:
        raise InputError("--inner-zips needs --unzip true: the zips are inside the one that Kaggle makes.")


def downloaded_from(folder: Path) -> str | None:
    """The slug of the competition whose data `swinft download` put into a folder; None if it did not."""
    try:
        return str(json.loads((folder / STATE / RECORD).read_bytes())["competition"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def competition_of(root: str) -> str | None:
    """The competition of a run's `data.root`: that of `kaggle://SLUG`, or of what `swinft download` put there."""
    name = root.removeprefix(SCHEME) if root.startswith(SCHEME) else ""
    return downloaded_from(Path(root)) if not name or "/" in name else name


def _place(got: Transferred, folder: Path, slug: str, options: DownloadOptions) -> list[FileRecord]:
    """Unpacks the downloaded file or moves it to its place; returns every file that is there then."""
    wanted = PurePosixPath(options.file or f"{slug}.zip")
    is_wrapped = options.file is not None and got.remote.name == f"{wanted.name}.zip" and zipfile.is_zipfile(got.path)
    name = f"{wanted}.zip" if is_wrapped else str(wanted)
    is_unpacked = options.unzip and (options.file is None or is_wrapped)
    try:
        files = _unpacked(got.path, folder, wanted, options) if is_unpacked else [_moved(got, folder, name, options)]
        if options.inner_zips:
            files = _with_inner(folder, files, options)
        return [*files, _moved(got, folder, name, options)] if is_unpacked and options.keep_zip else files
    except KeyboardInterrupt:
        print(f"\nwhat was downloaded is kept in {folder / STATE}: the same command continues", file=sys.stderr)
        raise


def _unpacked(path: Path, folder: Path, wanted: PurePosixPath, options: DownloadOptions) -> list[FileRecord]:
    """The files of the zip; those of a single file's zip go where that file is."""
    inside = wanted.parent if options.file else PurePosixPath()
    files = unpack(path, folder / inside, f"{wanted}", options.overwrite)
    return [FileRecord(str(inside / file.name), file.size, file.sha256) for file in files]


def _moved(got: Transferred, folder: Path, name: str, options: DownloadOptions) -> FileRecord:
    """Moves the downloaded file to its place.

    Raises:
        InputError: There is another file.
    """
    path = folder / name
    if path.is_dir() or (path.exists() and not options.overwrite and sha256_of(path) != got.sha256):
        raise InputError(f"{path} is there already and differs. Choose another --output, or add --overwrite.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        got.path.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error
    return FileRecord(name, got.size, got.sha256)


def _with_inner(folder: Path, files: list[FileRecord], options: DownloadOptions) -> list[FileRecord]:
    """Unpacks zips among the files: beside themselves if all members are in a folder of their name, else into one."""
    found, waiting = list(files), list(files)
    while waiting:
        for path, file in inner_zips(folder, [waiting.pop(0)]):
            with zipfile.ZipFile(path) as archive:
                tops = {name.partition("/")[0] for name in archive.namelist()}
            place = path.parent if tops == {path.stem} else path.with_suffix("")
            inside = PurePosixPath(place.relative_to(folder).as_posix())
            inner = unpack(path, place, file.name, options.overwrite)
            new = [FileRecord(str(inside / each.name), each.size, each.sha256) for each in inner]
            found, waiting = found + new, waiting + new
            if not options.keep_zip:
                path.unlink()
                found.remove(file)
    return found


def _is_here(folder: Path, record: dict[str, Any], transfer: Transfer, options: DownloadOptions) -> bool:
    """Whether a complete, unchanged download is in the folder.

    Raises:
        InputError: Kaggle has other data now.
    """
    found = record["downloads"].get(options.file or "")
    if found is None:
        return False
    files = read_files(folder, options.file or "")
    missing = [file.name for file in files if not _is_file(folder, file)]
    remote = transfer.remote()
    if missing:
        count = number_of(len(missing), "file")
        print_line(f"{count} of the earlier download changed or missing, such as {missing[0]}: downloading again")
        return False
    if Remote(remote.name, found["size"], found["validator"]) != remote:
        if options.overwrite:
            return False
        raise InputError(
            f"the data in {folder} is of {found['date']}, and Kaggle has other data now. Choose another folder with "
            f"--output, or add --overwrite."
        )
    archive = next((file for file in files if file.sha256 == found["sha256"]), None)
    if options.file is None and options.unzip and len(files) == 1 and archive:
        transfer.take(folder / archive.name, remote)  # it was kept as a zip, and is unpacked now
        return False
    return options.file is not None or archive is not None or (options.unzip and not options.keep_zip)


def _unpack_inner_of(folder: Path, record: dict[str, Any], options: DownloadOptions) -> None:
    """Unpacks zips of an earlier download, if that is asked for now."""
    download = options.file or ""
    files = read_files(folder, download)
    own = record["downloads"][download]
    inside = [file for file in files if options.file or file.sha256 != own["sha256"]]
    if options.inner_zips and any(inner_zips(folder, inside)):
        kept = [file for file in files if file not in inside]
        files = [*_with_inner(folder, inside, options), *kept]
        _write_record(folder, record, files, options.file, own)
        _print_files(folder, files)


def _is_file(folder: Path, file: FileRecord) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size


def _diagnosed(client: Client, slug: str, file: str | None, error: InputError) -> InputError:
    """A better error where Kaggle does not know the competition or the file, or does not say that the rules are why."""
    status = status_of(error.__cause__) if error.__cause__ else None
    if not isinstance(error, NotFound) and status != 403:
        return error
    try:
        client.competition(slug)
        if isinstance(error, NotFound) and file:
            return InputError(f"{slug} has no file '{file}'.{suggest(file, client.files(slug))}")
    except InputError as better:
        return better if "no competition" in str(better) else error
    return error


def _read_record(folder: Path, slug: str) -> dict[str, Any]:
    """What was downloaded into the folder before.

    Raises:
        InputError: Data of another competition.
    """
    other = downloaded_from(folder)
    if other not in (None, slug):
        raise InputError(f"{folder} holds the data of {other}. Choose another folder with --output.")
    if other is None:
        return {"competition": slug, "downloads": {}}
    found: dict[str, Any] = json.loads((folder / STATE / RECORD).read_bytes())
    return {"competition": slug, "downloads": found.get("downloads") or {}}


def _entry(got: Transferred) -> dict[str, Any]:
    """What is recorded of a downloaded file."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"name": got.remote.name, "size": got.size, "sha256": got.sha256, "date": date}
    return entry | {"validator": got.remote.validator}


def _write_record(
    folder: Path, record: dict[str, Any], files: list[FileRecord], file: str | None, entry: dict[str, Any]
) -> None:
    """Records a download, and every file that it brought, with size and SHA-256, once they are on disk."""
    if hasattr(os, "sync"):  # all at once: a flush of each of many small files takes longer than the download
        os.sync()
    kept = [row for row in _read_rows(folder) if row["download"] != (file or "")]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["download", "name", "size", "sha256"], lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept, *({"download": file or "", **asdict(each)} for each in files)])
    replace(folder / STATE / FILES, text.getvalue().encode())
    record["downloads"][file or ""] = entry | {"files": len(files)}
    replace(folder / STATE / RECORD, json_bytes(record))
    sweep(folder / STATE)


def _read_rows(folder: Path) -> list[dict[str, str]]:
    path = folder / STATE / FILES
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def read_files(folder: Path, download: str) -> list[FileRecord]:
    """Every file of an earlier download."""
    rows = [row for row in _read_rows(folder) if row["download"] == download]
    return [FileRecord(row["name"], int(row["size"]), row["sha256"]) for row in rows]


def _print_files(folder: Path, files: list[FileRecord]) -> None:
    """Prints what is there: the largest folders or files first."""
    sizes: dict[str, list[int]] = {}
    for file in files:
        top, slash, _ = file.name.partition("/")
        sizes.setdefault(f"{top}{slash}", []).append(file.size)
    total = sum(map(sum, sizes.values()))
    print_line(f"{folder}: {number_of(len(files), 'file')}, {format_bytes(total)}; SHA-256 in {folder / STATE / FILES}")
    for name, each in sorted(sizes.items(), key=lambda item: -sum(item[1]))[:15]:
        count = f"{number_of(len(each), 'file')}, " if name.endswith("/") else ""
        print_line(f"  {name:<32} {count}{format_bytes(sum(each))}")


def _print_archives(folder: Path, files: list[FileRecord]) -> None:
    """Prints what is still packed, and how it is read or unpacked."""
    names = sorted(file.name for file in files if file.name.lower().endswith((".zip", *PACKED)))
    if zips := [name for name in names if name.lower().endswith(".zip")]:
        print_line(f"packed: {listed(zips, 5)}: images and tables are read from them; --inner-zips unpacks them")
    for name in [name for name in names if name not in zips]:
        path = folder / name
        is_7z = name.lower().endswith(".7z")
        tool = ["7z", "x", f"-o{path.parent}", f"{path}"] if is_7z else ["unrar", "x", f"{path}", f"{path.parent}/"]
        print_line(f"packed: {name}: neither read nor unpacked by swinft; unpack it with `{shlex.join(tool)}`")
