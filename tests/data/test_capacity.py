"""Whether a cache fits: exact numbers, and a sentence for each choice."""

from types import SimpleNamespace

import pytest
from PIL import Image

from swinft.data import capacity
from swinft.data.cache import prepare
from swinft.data.capacity import available_memory, decide, fits, needed_bytes
from swinft.data.scan import scan
from swinft.errors import InputError


@pytest.fixture
def machine(monkeypatch):
    """A disk with 1000 bytes free and a memory of which 60 % are 900."""
    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr(capacity, "available_memory", lambda: 1500)


def test_needed_is_what_a_cache_takes(tmp_path):
    paths = [tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "no.png"]
    Image.new("RGB", (200, 100)).save(paths[0])
    Image.new("L", (20, 30)).save(paths[1])
    infos = [seen.info for seen in scan(paths, decode_pixels=False).files]
    assert needed_bytes(infos, (32, 32)) == prepare(paths, tmp_path, (32, 32), tmp_path).data.nbytes
    assert needed_bytes(infos, (32, 32)) == 3 * (37 * 74 + 20 * 30)


def test_both_disk_and_memory_must_do(machine, tmp_path):
    path = tmp_path / "not" / "yet" / "a.pixels"
    assert fits(900, path)[0]
    is_fitting, reason = fits(901, path)
    assert not is_fitting
    assert "60% of the available memory are 0.00 MB" in reason
    is_fitting, reason = fits(1001, path)
    assert not is_fitting
    assert f"{tmp_path} has 0.00 MB free" in reason


def test_what_is_built_already_needs_no_disk(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(capacity, "available_memory", lambda: 10_000)
    path = tmp_path / "a.pixels"
    assert not fits(1001, path)[0]
    path.touch()
    assert fits(1001, path)[0]


def test_the_policy_decides_and_says_so(machine, tmp_path):
    path = tmp_path / "a.pixels"
    assert decide("auto", 900, path)[0]
    assert decide(True, 900, path)[0]
    assert decide("auto", 900, path)[1].startswith("Images are decoded once: the decoded pictures take 0.00 MB")
    chosen, reason = decide("auto", 901, path)
    assert not chosen
    assert reason.startswith("Images are decoded each time they are read: the decoded pictures take")
    assert decide(False, 1, path) == (
        False,
        "Images are decoded each time they are read: the pixel cache is switched off.",
    )
    with pytest.raises(InputError, match=r"does not fit: .* 60% of the available memory are"):
        decide(True, 901, path)


def test_memory_is_asked_of_the_system_and_of_the_container(tmp_path, monkeypatch):
    real = available_memory()
    assert 10**7 < real < 10**14
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(capacity, "LIMITS", (tmp_path / "missing", limit))
    limit.write_text("max\n")
    assert available_memory() > 10**7
    limit.write_text("12345\n")
    assert available_memory() == 12345
    monkeypatch.setattr(capacity, "LIMITS", ())
    monkeypatch.setattr(capacity, "MEMINFO", tmp_path / "missing")  # no Linux
    assert available_memory() > 10**7
