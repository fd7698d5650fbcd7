"""The packages of a notebook and their wheels: everything that swinft needs, besides what only the image can have."""

import json
import re
import shutil
import zipfile
from importlib import metadata

import pytest

import swinft
from swinft.errors import RunError
from swinft.kaggle.bundle.wheels import Needed, copy_wheels, download_wheels, lacking, needed_packages, own_wheel


def test_every_requirement_of_swinft_is_there_and_torch_is_the_images():
    found = needed_packages()
    plain = [re.match(r"[\w.-]+", text)[0].lower() for text in metadata.requires("swinft") if "extra ==" not in text]
    assert len(plain) > 15
    assert set(plain) <= set(found)
    assert found["torch"].version is None
    assert ">=" in found["torch"].allowed
    assert not [name for name in found if name.startswith(("nvidia", "cuda", "triton"))]
    assert found["timm"] == Needed(metadata.version("timm"), "<1.1,>=1.0.31", [])
    assert found["scipy"].compiled_with == ["numpy"]
    assert {"docstring-parser", "typeshed-client"} <= set(found)  # of an extra of jsonargparse
    assert "openvino" not in found
    with pytest.raises(swinft.InputError, match="no_such_package_here is not installed here"):
        needed_packages(["no_such_package_here"])
    with pytest.raises(swinft.InputError, match="not the name of a package"):
        needed_packages(["a b"])
    assert "openvino" in needed_packages(["swinft[openvino]"])


@pytest.mark.slow  # two runs of pip
def test_wheels_are_downloaded_in_the_versions_of_this_machine(tmp_path, monkeypatch):
    (tmp_path / "index").mkdir()
    (tmp_path / "out").mkdir()
    wheel = own_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    version = metadata.version("swinft")
    files = download_wheels(tmp_path / "out", {"swinft": Needed(version, "", []), "torch": Needed(None, "", [])})
    assert [path.name for path in files] == [wheel.name]
    assert lacking(files, {"swinft": Needed(version, "", []), "timm": Needed("1.0", "", [])}) == ["timm"]
    with pytest.raises(swinft.InputError, match=r"no wheel of timm==9\.9 for Python 3\.12 on Linux"):
        download_wheels(tmp_path / "out", {"timm": Needed("9.9", "", [])})


def test_a_pip_that_fails_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "subprocess.run", lambda *_, **__: type("Done", (), {"returncode": 1, "stderr": "no\nroute", "stdout": ""})
    )
    with pytest.raises(RunError, match=r"pip download failed with exit code 1:\n  no\n  route"):
        download_wheels(tmp_path, {"timm": Needed("1.0", "", [])})


def test_wheels_of_a_folder(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
    with pytest.raises(swinft.InputError, match="there is no wheel"):
        copy_wheels(source, target)
    own = own_wheel(source)
    shutil.copy(own, source / "timm-1.0-py3-none-any.whl")
    assert [path.name for path in copy_wheels(source, target)] == ["timm-1.0-py3-none-any.whl"]
    (source / "odd.whl").write_bytes(b"")
    with pytest.raises(swinft.InputError, match=r"not the name of a wheel.*'odd'"):
        copy_wheels(source, target)


def test_an_older_egg_info_of_a_clone_is_not_taken_for_the_installation(tmp_path, monkeypatch):
    found, version = needed_packages(), metadata.version("swinft")
    info = tmp_path / "swinft.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: swinft\nVersion: 0.0.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.version("swinft") == "0.0.9"
    assert needed_packages() == found
    wheel = own_wheel(tmp_path)
    assert wheel.name == f"swinft-{version}-py3-none-any.whl"
    assert f"swinft-{version}.dist-info/METADATA" in zipfile.ZipFile(wheel).namelist()


def test_the_same_wheel_each_time(tmp_path):
    content = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        content.append(own_wheel(tmp_path / name).read_bytes())
    assert content[0] == content[1]


def test_what_the_image_is_compared_with_is_in_the_bundle(tiny_bundle):
    needed = json.loads((tiny_bundle / "wheels" / "needed.json").read_text())
    assert needed["torch"]["allowed"] == needed_packages()["torch"].allowed
    assert needed["pillow"]["allowed"]
