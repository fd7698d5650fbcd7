"""The notebook of a bundle, from its first cell to submission.csv, in a fresh environment without a network."""

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from swinft.cli import main
from tests.kaggle.bundle.conftest import COMPETITION, mount

LACKING = ["lightning", "jsonargparse"]  # what the image does not have
# Runs a notebook inside a network namespace that has nothing but its own loopback.
RUN = """
import fcntl, json, socket, struct, sys
try:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0x49))  # up, for the kernel's sockets
except OSError:
    pass
try:
    socket.create_connection(("151.101.0.223", 443), timeout=2)
    print("NETWORK")
except OSError:
    print("NO NETWORK")
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    NotebookClient(notebook, timeout=300, kernel_name="fresh", resources={"metadata": {"path": sys.argv[2]}}).execute()
finally:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            print(output.get("text", ""), "\\n".join(output.get("traceback", [])))
"""


def wheel_of(name: str, folder: Path) -> None:
    """A wheel of an installed package."""
    package = metadata.distribution(name)
    files = [file for file in package.files or [] if ".." not in file.parts and "__pycache__" not in file.parts]
    content = {file.as_posix(): file.locate().read_bytes() for file in files if file.name != "RECORD"}
    about = next(name for name in content if name.endswith(".dist-info/METADATA")).partition("/")[0]
    digests = {
        name: base64.urlsafe_b64encode(hashlib.sha256(each).digest()).rstrip(b"=").decode()
        for name, each in content.items()
    }
    lines = [f'"{name}",sha256={digests[name]},{len(each)}' for name, each in content.items()]
    content[f"{about}/RECORD"] = "\n".join([*lines, f"{about}/RECORD,,"]).encode()
    with zipfile.ZipFile(folder / f"{about.removesuffix('.dist-info')}-py3-none-any.whl", "w") as archive:
        for name, each in content.items():
            archive.writestr(name, each)


def fresh_environment(folder: Path) -> Path:
    """A virtual environment on top of the packages of this one, as Kaggle's image has them: without swinft and some."""
    image = folder / "image"
    image.mkdir()
    hidden = {str(metadata.distribution(name)._path.name) for name in ("swinft", *LACKING)}  # type: ignore[attr-defined]
    hidden |= {"swinft", "lightning", "jsonargparse"}
    for path in Path(metadata.distribution("torch").locate_file("")).iterdir():
        if (
            path.name not in hidden
            and not path.name.startswith(("__editable__", "__pycache__"))
            and path.suffix != ".pth"
        ):
            (image / path.name).symlink_to(path)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "image.pth").write_text(f"{image}\n")
    return folder / "venv"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    yield fresh_environment(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_fresh_environment_without_a_network_writes_the_same_submission(image, tiny_run, competition, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in LACKING:
        wheel_of(name, wheels)
    words = [str(tiny_run), "--owner", "me", "--competition", COMPETITION, "--wheels", str(wheels)]
    assert main(["bundle", *words, "--output", str(tmp_path / "out")]) == 0
    inputs, working = mount(tmp_path / "out", competition, tmp_path / "input"), tmp_path / "working"
    working.mkdir()
    for path in inputs.rglob("*"):
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    kernels = tmp_path / "jupyter" / "kernels" / "fresh"
    kernels.mkdir(parents=True)
    argv = [str(image / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernels / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "fresh", "language": "python"}))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    refusing = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment |= {"JUPYTER_PATH": str(tmp_path / "jupyter"), "SWINFT_KAGGLE_INPUT": str(inputs)} | refusing
    environment |= {
        "SWINFT_KAGGLE_WORKING": str(working),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "IPYTHONDIR": str(tmp_path),
    }
    cut = ["unshare", "-n"] if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0 else []
    command = [*cut, sys.executable, "-c", RUN, str(tmp_path / "out" / "kernel" / "notebook.ipynb"), str(working)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=working)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.startswith("NO NETWORK") or not cut
    assert (working / "submission.csv").read_bytes() == (tiny_run / "submission.csv").read_bytes()
    (packages,) = (image / "lib").glob("python*/site-packages")
    assert {"swinft", "lightning", "jsonargparse"} <= {path.name for path in packages.iterdir()}
    (inputs / "datasets" / "me" / "swinft-tiny-weights" / "tiny--fold_1--weights.safetensors").unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=working)
    assert done.returncode == 1
    assert "tiny--fold_1--weights.safetensors is missing" in done.stdout + done.stderr
    assert not (working / "submission.csv").exists()
