"""Whether a cache fits: exact numbers, and a sentence for each choice."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from swinft.data.cache import budget as capacity
from swinft.data.cache.budget import CacheBudget
from swinft.data.cache.pixels import load_or_build, prepare
from swinft.data.inspection.scan import ImageSet, scan
from swinft.errors import InputError

SIZE = (32, 32)


@pytest.fixture
def files(tmp_path):
    """Two images of noise: cached at 37 × 74 and 20 × 30."""
    paths = [tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "no.png"]
    noise = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(paths[0])
    Image.fromarray(noise[:30, :20, 0]).save(paths[1])
    return paths


NEEDED = 3 * (37 * 74 + 20 * 30)


def on_a_machine(monkeypatch, free, memory):
    """So many bytes are free on the disk, and so many may be taken of the memory."""
    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr(capacity, "available_memory", lambda: round(memory / capacity.MEMORY_SHARE))


def test_needed_is_what_a_cache_takes(files, tmp_path):
    index = scan(ImageSet(files, tmp_path, SIZE))
    assert index.needed_bytes == NEEDED == prepare(files, tmp_path, SIZE, tmp_path).data.nbytes
    assert sorted(index.errors) == [2]


def test_both_disk_and_memory_must_do(tmp_path, monkeypatch):
    on_a_machine(monkeypatch, 1000, 900)
    room = CacheBudget.of(tmp_path / "not" / "yet", exists=False)
    assert room.shortage(900) == ""
    assert "60% of the available memory are 0.00 MB" in room.shortage(901)
    assert f"{tmp_path} has 0.00 MB free" in room.shortage(1001)
    assert (room.bytes, CacheBudget.of(tmp_path, exists=True).bytes) == (900, 900)
    on_a_machine(monkeypatch, 1000, 10_000)
    assert CacheBudget.of(tmp_path, exists=False).shortage(1001)
    assert not CacheBudget.of(tmp_path, exists=True).shortage(1001)  # what is built already needs no disk


@pytest.mark.parametrize(("free", "memory"), [(NEEDED - 1, 10**6), (10**6, NEEDED - 1)])
def test_the_policy_decides_and_says_so(files, tmp_path, monkeypatch, free, memory):
    images, folder = ImageSet(files, tmp_path, SIZE), tmp_path / "cache"
    on_a_machine(monkeypatch, free, memory)
    with pytest.raises(
        InputError, match=r"the pixel cache does not fit: the decoded images take about 0.02 MB, .* 0.01 MB"
    ):
        load_or_build(images, folder, True)
    assert not list(folder.glob("*.[pt]*"))
    for _ in range(2):  # decoded, and from what was kept of that
        found = load_or_build(images, folder, "auto")
        assert found.cache is None
        assert found.decision.startswith("Images are decoded each time they are read: the decoded images take about 0.")
        assert [path.suffix for path in folder.glob("*.[pi]*")] == [".index"]
    on_a_machine(monkeypatch, NEEDED, NEEDED)
    found = load_or_build(images, folder, "auto")  # there is room now
    assert found.decision.startswith("Images are decoded once: the decoded images take 0.01 MB, of 0.01 MB in memory")
    assert list(folder.glob("*.[pi]*")) == [found.cache.path]
    on_a_machine(monkeypatch, 0, NEEDED - 1)
    assert load_or_build(images, folder, "auto").cache is None  # kept, and not used
    with pytest.raises(InputError, match="does not fit"):
        load_or_build(images, folder, True)
    on_a_machine(monkeypatch, 0, NEEDED)
    assert load_or_build(images, folder, True).cache
