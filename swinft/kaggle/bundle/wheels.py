"""Wheels for a notebook without internet: swinft's own, and those of every package that it needs besides torch."""

import base64
import hashlib
import io
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

import swinft
from swinft.errors import InputError, RunError, number_of
from swinft.store import json_bytes, replace

# Kaggle's image has them, for its GPUs: they are gigabytes, and must fit the driver.
OF_IMAGE = re.compile(r"(torch|torchvision|torchaudio|triton|pytorch-triton|(nvidia|cuda)-.*)")
PYTHON = "3.12"  # of Kaggle's image
# Of glibc 2.35, in Kaggle's image: pip does not take an older platform for a newer one by itself.
PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)),
    *(f"manylinux{year}_x86_64" for year in ("2014", "2010", "1")),
]
COMPILED_WITH = "numpy"  # whose next major version other packages do not accept
SHOWN = 12  # lines of pip's error
IGNORED = {"__pycache__", ".DS_Store"}


@dataclass(frozen=True)
class Needed:
    """A package that a notebook needs.

    Args:
        version: Its version here, of which a wheel is in the bundle; None for those that are the image's.
        allowed: Versions that do, as `>=2.0,<3`; empty for any.
        compiled_with: Packages with which it is installed again, as it was compiled with them.
    """

    version: str | None
    allowed: str
    compiled_with: list[str]


def needed_packages(extras: Sequence[str] = (), python: str = PYTHON) -> dict[str, Needed]:
    """What swinft and other packages need in a notebook.

    Args:
        extras: Distributions besides swinft, or extras of swinft as `swinft[hdf5]`.
        python: Python of the notebook.

    Raises:
        InputError: One is not installed here.
    """
    tree = _Tree(python)
    for text in ["swinft", *extras]:
        try:
            tree.add(Requirement(text), None)
        except InvalidRequirement:
            raise InputError(f"--packages {text}: not the name of a package.") from None
    return {
        name: Needed(
            tree.versions[name],
            ",".join(sorted(filter(None, tree.allowed[name]))),
            [COMPILED_WITH] if COMPILED_WITH in tree.needs[name] and tree.versions[name] else [],
        )
        for name in sorted(tree.versions)
        if name != "swinft"
    }


class _Tree:
    """Packages with all that they need, by what is installed here.

    Args:
        python: Python of the notebook.
    """

    def __init__(self, python: str) -> None:
        self.python = python
        self.versions: dict[str, str | None] = {}
        self.allowed: dict[str, set[str]] = {}
        self.needs: dict[str, set[str]] = {}
        self._seen: set[tuple[str, str]] = set()

    def add(self, wanted: Requirement, needed_by: str | None) -> None:
        """Adds a package.

        Raises:
            InputError: It is not installed.
        """
        name = str(canonicalize_name(wanted.name))
        self.allowed.setdefault(name, set()).add(str(wanted.specifier))
        if needed_by is not None:
            self.needs[needed_by].add(name)
        self.needs.setdefault(name, set())
        if OF_IMAGE.fullmatch(name):
            self.versions[name] = None
            return
        new = {(name, extra) for extra in ("", *wanted.extras)} - self._seen
        if not new:
            return
        self._seen |= new
        package = _installed(wanted.name)
        if package is None:
            raise InputError(
                f"{wanted.name} is not installed here, so that its version is not known: pip install {wanted.name}, "
                f"or remove it from --packages."
            )
        self.versions[name] = package.version.partition("+")[0]
        for text in package.requires or []:
            each = Requirement(text)
            environments = [_notebook(self.python, extra) for _, extra in new]
            if each.marker is None or any(each.marker.evaluate(environment) for environment in environments):
                self.add(each, name)


def _installed(name: str) -> metadata.Distribution | None:
    """A package as pip installed it; None if it is not.

    A clone has an `egg-info` besides, which may be older, and which a process in its folder finds first.
    """
    found = [*metadata.distributions(name=name)]
    return next((each for each in found if each.read_text("METADATA")), found[0] if found else None)


def _notebook(python: str, extra: str) -> dict[str, str]:
    """Values of environment markers in the notebook."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "extra": extra,
    }


def download_wheels(folder: Path, packages: Mapping[str, Needed], python: str = PYTHON) -> list[Path]:
    """Downloads a wheel of each package, of its version here, for the notebook's Python.

    Raises:
        InputError: There is no such wheel.
        RunError: pip cannot reach its index.
    """
    names = [f"{name}=={each.version}" for name, each in packages.items() if each.version]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    words = ["download", "--dest", str(folder), "--no-deps", "--only-binary=:all:", *platforms]
    words += ["--python-version", python, "--implementation", "cp", "--disable-pip-version-check", *names]
    print(f"downloading {number_of(len(names), 'wheel')} for Python {python}", flush=True)
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = "\n  ".join(lines[-SHOWN:])
        if absent := re.search(r"No matching distribution found for (\S+)", done.stderr):
            raise InputError(
                f"there is no wheel of {absent[1]} for Python {python} on Linux: install a version here that has one, "
                f"or give a folder of wheels with --wheels DIR. pip said:\n  {said}"
            )
        raise RunError(f"pip download failed with exit code {done.returncode}:\n  {said}")
    return sorted(folder.glob("*.whl"))


def copy_wheels(source: Path, folder: Path) -> list[Path]:
    """Copies the wheels of a folder, as `wheels_of` lists them; returns the copies."""
    return [Path(shutil.copyfile(file, folder / file.name)) for file in wheels_of(source)]


def wheels_of(source: Path) -> list[Path]:
    """The wheels in a folder, except those of swinft: that of this installation is in the bundle.

    Raises:
        InputError: It has none, or one whose name is not that of a wheel.
    """
    if not source.is_dir():
        raise InputError(f"--wheels {source}: there is no such folder. Give one with wheels, or `download`, or `skip`.")
    files = sorted(source.glob("*.whl"))
    if not files:
        raise InputError(f"--wheels {source}: there is no wheel (*.whl) in it.")
    try:
        return [file for file in files if parse_wheel_filename(file.name)[0] != "swinft"]
    except InvalidWheelFilename as error:
        raise InputError(f"--wheels {source}: not the name of a wheel: {error}.") from None


def own_wheel(folder: Path) -> Path:
    """Writes a wheel of swinft as it is installed here, which may be a clone.

    Returns:
        Its path.

    Raises:
        InputError: It is not installed, but imported from a folder.
    """
    package = _installed("swinft")
    if package is None or not package.read_text("METADATA"):
        raise InputError("swinft is imported from a folder here, not installed: `pip install -e` the folder.")
    root = Path(swinft.__file__).parent
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not IGNORED & {*path.parts}]
    content = {f"swinft/{path.relative_to(root).as_posix()}": path.read_bytes() for path in files}
    about = f"swinft-{package.version}.dist-info"
    texts = {name: package.read_text(name) for name in ("METADATA", "entry_points.txt", "licenses/LICENSE")}
    content |= {f"{about}/{name}": text.encode() for name, text in texts.items() if text}
    wheel = "Wheel-Version: 1.0\nGenerator: swinft bundle\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content[f"{about}/WHEEL"] = wheel.encode()
    lines = [f"{name},sha256={_digest(each)},{len(each)}" for name, each in content.items()]
    content[f"{about}/RECORD"] = "\n".join([*lines, f"{about}/RECORD,,", ""]).encode()
    path = folder / f"swinft-{package.version}-py3-none-any.whl"
    replace(path, _zipped(content.items()))
    return path


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip of files, the same bytes each time."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return file.getvalue()


def lacking(files: Sequence[Path], packages: Mapping[str, Needed]) -> list[str]:
    """The packages of which no wheel is there, besides those of the image."""
    there = {parse_wheel_filename(file.name)[0] for file in files}
    return [name for name, each in packages.items() if each.version and name not in there]


def write_needed(folder: Path, packages: Mapping[str, Needed]) -> None:
    """Writes what the notebook compares with its image, `needed.json`."""
    needed = {name: {"allowed": each.allowed, "compiled_with": each.compiled_with} for name, each in packages.items()}
    replace(folder / "needed.json", json_bytes(needed))


def describe(files: Sequence[Path]) -> str:
    """`61 wheels, 171 MB`."""
    return f"{number_of(len(files), 'wheel')}, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB"
