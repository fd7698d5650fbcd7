"""What a notebook installs: what its image lacks, or has in a version that does not do, and nothing else."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from swinft.kaggle.bundle.install import wheels_to_install


def wheels(folder: Path, needed: dict[str, tuple[str, list[str]]], *files: str) -> Path:
    content = {name: {"allowed": allowed, "compiled_with": others} for name, (allowed, others) in needed.items()}
    (folder / "needed.json").write_text(json.dumps(content))
    for name in ("swinft-0.1.0-py3-none-any.whl", *files):
        (folder / name).write_bytes(b"")
    return folder


def names(folder: Path) -> list[str]:
    return [path.name.partition("-")[0] for path in wheels_to_install(folder)]


@pytest.fixture
def image(monkeypatch):
    """The versions of an image."""
    versions = {"numpy": "2.0.2", "scipy": "1.15.0", "scikit-learn": "1.2.2", "torch": "2.10.0+cu128", "timm": "1.0.31"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    return versions


def test_only_what_is_missing_or_too_old_is_installed(image, tmp_path):
    needed = {
        "numpy": (">=2.0", []),
        "scipy": (">=1.14", ["numpy"]),
        "scikit-learn": (">=1.6", ["numpy"]),
        "timm": ("<1.1,>=1.0.31", []),
        "torch": (">=2.10", []),
        "jsonargparse": (">=4.53", []),
    }
    files = [
        "numpy-2.4.0-x.whl",
        "scipy-1.17.1-x.whl",
        "scikit_learn-1.9.1-x.whl",
        "timm-1.0.31-x.whl",
        "jsonargparse-4.53.0-x.whl",
    ]
    folder = wheels(tmp_path, needed, *files)
    assert names(folder) == ["swinft", "jsonargparse", "scikit_learn"]
    image["numpy"] = "1.26.4"  # scipy was compiled with it
    assert names(folder) == ["swinft", "jsonargparse", "numpy", "scikit_learn", "scipy"]


def test_what_cannot_be_installed_is_said_with_what_is_there(image, tmp_path):
    folder = wheels(tmp_path, {"torch": (">=2.11", []), "albumentations": ("<2.1,>=2.0.8", [])})
    with pytest.raises(RuntimeError) as error:
        wheels_to_install(folder)
    assert str(error.value) == (
        "albumentations<2.1,>=2.0.8 is needed, and nothing is installed; torch>=2.11 is needed, and 2.10.0+cu128 is "
        "installed. Make the bundle with --wheels download, or take a newer image."
    )
    (folder / "swinft-0.1.0-py3-none-any.whl").unlink()
    with pytest.raises(RuntimeError, match=r"no wheel of swinft.*upload the dataset of wheels again"):
        wheels_to_install(folder)
