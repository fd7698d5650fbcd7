"""Decode once: the same pixels as decoding and shrinking, whatever happens to the files and to who builds the cache."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.utils.data import DataLoader, Dataset

from swinft.data.augment.pipelines import apply, eval_pipeline, train_pipeline
from swinft.data.cache import pixels as cache_module
from swinft.data.cache.pixels import cache_key, open_cache, prepare
from swinft.data.images.decode import decode, decode_reduced
from swinft.data.images.resize import min_shrunk_shape, shrunk_shape
from swinft.data.inspection import scan as scan_module
from swinft.data.inspection.scan import ImageSet
from swinft.data.loading.collate import collate
from swinft.data.sources.source import ImageError, read_image
from swinft.errors import InputError, StoreError
from swinft.system.import_paths import child_environment

SIZE = (32, 32)  # cached images cover 37 × 37
FORK = multiprocessing.get_context("fork")
PHOTO = load_sample_image("china.jpg")  # (427, 640, 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """JPEG, PNG, EXIF-turned, 16-bit grey and RGBA, larger and smaller than what is cached."""
    root = tmp_path_factory.mktemp("files")
    photo = Image.fromarray(PHOTO[:120, :200])
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(root / "a.jpg", quality=90)
    photo.save(root / "b.png")
    photo.save(root / "turned.jpg", exif=exif)
    Image.fromarray(PHOTO[:60, :90, 0].astype(np.uint16) * 257).save(root / "deep.png")
    alpha = np.full((70, 50, 1), 255, np.uint8)
    alpha[:35] = 0
    Image.fromarray(np.dstack([PHOTO[:70, :50], alpha])).save(root / "alpha.png")
    Image.fromarray(PHOTO[:20, :90]).save(root / "small.png")
    return [root / name for name in ("a.jpg", "b.png", "turned.jpg", "deep.png", "alpha.png", "small.png")]


@pytest.fixture
def copies(files, tmp_path):
    """The files where they may be changed."""
    (tmp_path / "images").mkdir()
    for path in files:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    return [tmp_path / "images" / path.name for path in files]


def make(paths, folder, size=SIZE, workers=2):
    return prepare(paths, paths[0].parent, size, folder, workers)


def key_of(paths, size=SIZE):
    return cache_key(ImageSet(paths, paths[0].parent, size))


def built(folder):
    return sorted(folder.glob("*.pixels"))


def remains(folder):
    return sorted(folder.glob("*.tmp"))


def no_build(*args, **kwargs):
    raise AssertionError("built again")


def expected(path, size=SIZE, at_least=None):
    full = decode(path)
    pixels = full if at_least is None else decode_reduced(path, at_least)[0]
    height, width = shrunk_shape(*full.shape[:2], size)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def assert_equal(cached, pillows):
    assert np.abs(cached.astype(int) - pillows).max() <= 1  # two kernels of one filter, in integers


def test_pixels_are_those_of_decoding_and_shrinking(files, tmp_path):
    cache = make(files, tmp_path)
    assert [cache.read(row).shape for row in range(6)] == [
        (37, 62, 3),
        (37, 62, 3),
        (62, 37, 3),  # turned upright
        (37, 56, 3),
        (52, 37, 3),
        (20, 90, 3),  # as it is: enlarging adds nothing
    ]
    for row, path in enumerate(files):
        assert_equal(cache.read(row), expected(path, at_least=min_shrunk_shape(SIZE)))
    for row in (1, 3, 4, 5):  # no JPEG: nothing is left out in decoding either
        assert_equal(cache.read(row), expected(files[row]))
    assert (cache.read(4)[:20] == 255).all()  # transparent
    assert cache.array is None
    assert cache.errors == {}


def test_one_shape_is_one_array_without_a_copy(files, tmp_path):
    cache = make(files[:2], tmp_path)
    assert cache.array.shape == (2, 37, 62, 3)
    assert np.array_equal(cache.array[1], cache.read(1))
    assert np.shares_memory(cache.array, cache.read(1))
    assert np.shares_memory(cache.read(0), cache.read(0))
    with pytest.raises(ValueError, match="read-only"):
        cache.read(0)[0, 0, 0] = 1
    assert not decode(files[0]).flags.writeable  # a transform behaves the same whether there is a cache or not


@pytest.mark.parametrize(
    ("shape", "size", "cached"),
    [
        ((375, 500), (224, 224), (256, 341)),
        ((500, 375), (224, 224), (341, 256)),
        ((256, 256), (224, 224), (256, 256)),
        ((255, 4000), (224, 224), (255, 4000)),
        ((1000, 1000), (224, 448), (511, 511)),
        ((1000, 1001), (100, 100), (114, 114)),
        ((1, 1), (224, 224), (1, 1)),
    ],
)
def test_what_is_cached_covers_and_never_enlarges(shape, size, cached):
    assert shrunk_shape(*shape, size) == cached
    assert all(new <= old for new, old in zip(cached, shape, strict=True))


def test_rows_out_of_range_do_not_wrap_around(files, tmp_path):
    cache = make(files, tmp_path)
    for row in (-1, 6):
        with pytest.raises(IndexError, match="of 6"):
            cache.read(row)


def test_the_second_time_nothing_is_decoded(files, tmp_path, monkeypatch):
    first = make(files, tmp_path)
    monkeypatch.setattr(cache_module, "build", no_build)
    assert make(files, tmp_path).path == first.path
    assert built(tmp_path) == [first.path]
    assert remains(tmp_path) == []


def test_the_key_is_of_all_that_decides_the_pixels(copies, tmp_path, monkeypatch):
    keys = [key_of(copies)]
    keys += [key_of(copies, (32, 33)), key_of(copies[::-1]), key_of(copies[:-1])]
    keys += [cache_key(ImageSet(copies, copies[0].parent.parent, SIZE))]
    for module, name in ((cache_module, "CONVERSION"), (cache_module, "GEOMETRY"), (cache_module.PIL, "__version__")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, "other")
            keys.append(key_of(copies))
    stat = os.stat(copies[1])
    os.utime(copies[1], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    keys.append(key_of(copies))
    with copies[1].open("ab") as file:
        file.write(b"0")
    os.utime(copies[1], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    keys.append(key_of(copies))
    copies[1].unlink()
    keys.append(key_of(copies))
    assert len(set(keys)) == len(keys) == 11


def test_data_that_moved_keeps_its_cache(copies, tmp_path):
    before = key_of(copies)
    (tmp_path / "images").rename(tmp_path / "moved")
    assert key_of([tmp_path / "moved" / path.name for path in copies]) == before


def test_a_changed_file_gives_its_new_pixels(copies, tmp_path):
    make(copies, tmp_path)
    Image.fromarray(255 - PHOTO[:120, :200]).save(copies[1])
    assert_equal(make(copies, tmp_path).read(1), expected(copies[1]))
    assert len(built(tmp_path)) == 2


def test_a_file_that_changes_while_it_is_decoded_is_an_error(copies, tmp_path, monkeypatch):
    def slow(path, source):
        os.utime(copies[0], ns=(0, 0))
        return read_image(path, source)

    monkeypatch.setattr(scan_module, "read_image", slow)
    with pytest.raises(InputError, match=r"changed while .*a\.jpg"):
        make(copies, tmp_path)
    assert built(tmp_path) + remains(tmp_path) == []


def test_bad_files_are_listed_all_at_once(copies, tmp_path, monkeypatch):
    copies[0].write_bytes(copies[0].read_bytes()[:-400])
    copies[2].write_bytes(b"<html>")
    copies[4].unlink()
    cache = make(copies, tmp_path)
    assert sorted(cache.errors) == [0, 2, 4]
    for row, error in cache.errors.items():
        with pytest.raises(ImageError) as caught:
            decode(copies[row])
        assert error == str(caught.value)
        assert str(copies[row]) in error
        with pytest.raises(ImageError, match=copies[row].name):
            cache.read(row)
    assert cache.shapes[[0, 2, 4]].sum() == 0
    assert_equal(cache.read(5), expected(copies[5]))
    with monkeypatch.context() as patch:  # and they stay known
        patch.setattr(cache_module, "build", no_build)
        assert make(copies, tmp_path).errors == cache.errors


def test_a_file_that_becomes_readable_again_is_decoded(copies, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:

        def refused(path, source):
            raise ImageError(f"{path} cannot be read: Input/output error.")

        patch.setattr(scan_module, "read_image", refused)
        cache = make(copies, tmp_path)
        assert len(cache.errors) == 6
        assert cache.data.size == 0
    assert make(copies, tmp_path).errors == {}


def test_no_rows(tmp_path):
    cache = prepare([], tmp_path, SIZE, tmp_path)
    assert (len(cache), cache.array, cache.errors) == (0, None, {})


def build_slowly(paths, folder, ready, results):
    def slow(path, source):
        time.sleep(0.05)
        return read_image(path, source)

    def counted(*args, **kwargs):
        results.put("built")
        return real(*args, **kwargs)

    real, scan_module.read_image, cache_module.build = cache_module.build, slow, counted
    ready.wait()
    cache = make(paths, folder, workers=1)
    results.put(cache.data.sum())


def test_of_two_processes_one_builds_and_both_read(files, tmp_path):
    results, ready = FORK.Queue(), FORK.Barrier(2)
    processes = [FORK.Process(target=build_slowly, args=(files, tmp_path, ready, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=20) for _ in range(3)]
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(map(str, found)) == sorted(["built", *[str(make(files, tmp_path).data.sum())] * 2])
    assert remains(tmp_path) == []


def build_and_hang(paths, folder):
    def hang(path, source):
        if path == paths[-1]:
            time.sleep(60)
        return read_image(path, source)

    scan_module.read_image = hang
    make(paths, folder)


def test_a_killed_builder_leaves_nothing_that_is_used(files, tmp_path):
    process = FORK.Process(target=build_and_hang, args=(files, tmp_path))
    process.start()
    until = time.monotonic() + 20
    while not (remains(tmp_path) and remains(tmp_path)[0].stat().st_size > 4096) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert (built(tmp_path), len(remains(tmp_path))) == ([], 1)
    cache = make(files, tmp_path)
    assert_equal(cache.read(5), expected(files[5]))
    assert (built(tmp_path), remains(tmp_path)) == ([cache.path], [])


def test_a_builder_that_fails_cleans_up(files, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            make(files, tmp_path)
    assert built(tmp_path) + remains(tmp_path) == []
    assert len(make(files, tmp_path)) == 6


def edited(content, **changes):
    header = json.loads(content[:4096]) | changes
    return json.dumps(header).encode().ljust(4096) + content[4096:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: b"",
        lambda content: content + b"0",
        lambda content: content[:-3] + b"0" + content[-2:],
        lambda content: bytes(4096) + content[4096:],
        lambda content: edited(content, key="other"),
        lambda content: edited(content, format="swinft-pixels-0"),
        lambda content: edited(content, rows=3.5),
        lambda content: b"[]".ljust(4096) + content[4096:],
    ],
)
def test_a_damaged_cache_is_noticed_and_built_again(files, tmp_path, capsys, damage):
    path = make(files, tmp_path).path
    whole = path.read_bytes()
    path.unlink()  # the mapping above keeps the old content
    path.write_bytes(damage(whole))
    with pytest.raises(StoreError, match="cannot be used"):
        open_cache(path)
    assert_equal(make(files, tmp_path).read(1), expected(files[1]))
    assert "Decoding again" in capsys.readouterr().err
    assert path.read_bytes() == whole  # the file is the same, byte for byte, whoever builds it


def test_what_is_pickled_is_the_path(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = make(files, Path("cache"))
    pickled = pickle.dumps(cache)
    assert len(pickled) < 400
    code = f"import pickle; print(pickle.loads({pickled!r}).read(2).sum())"
    words = [sys.executable, "-c", code]
    env = child_environment()  # elsewhere Python would import the package that is installed, not this one
    run = subprocess.run(words, cwd=tmp_path.parent, env=env, capture_output=True, text=True, check=True)
    assert int(run.stdout) == cache.read(2).sum()


def test_workers_share_the_mapping(files, tmp_path):
    cache = make(files, tmp_path)
    rows = Rows(cache)
    alone = list(DataLoader(rows, batch_size=2, collate_fn=collate))
    loader = DataLoader(rows, batch_size=2, collate_fn=collate, num_workers=2)
    for here, there in zip(alone, loader, strict=True):
        assert torch.equal(here["image"], there["image"])
        assert here["row"].tolist() == there["row"].tolist()
    assert np.array_equal(alone[1]["image"][0].permute(1, 2, 0), cache.read(2)[:20, :37])


def is_shared(items):
    return collate(items)["image"].is_shared()


def test_workers_fill_shared_memory_in_place(files, tmp_path):
    rows = Rows(make(files, tmp_path))
    assert list(DataLoader(rows, batch_size=6, collate_fn=is_shared, num_workers=1)) == [True]
    assert list(DataLoader(rows, batch_size=6, collate_fn=is_shared)) == [False]


class Rows(Dataset):
    def __init__(self, cache):
        self.cache = cache

    def __len__(self):
        return len(self.cache)

    def __getitem__(self, row):
        return {"image": self.cache.read(row)[:20, :37], "row": torch.tensor(row)}


def photo(path, shape, **options):
    image = cv2.resize(PHOTO, shape[::-1], interpolation=cv2.INTER_CUBIC)
    Image.fromarray(image).save(path, quality=90, **options)
    return path


@pytest.mark.parametrize(("at_least", "factor"), [((213, 320), 2), ((214, 320), 1), ((106, 160), 4), ((30, 30), 8)])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_enough(tmp_path, at_least, factor):
    path = photo(tmp_path / "a.jpg", (427, 640))
    pixels, full = decode_reduced(path, at_least)
    assert (pixels.shape[:2], full) == ((-(-427 // factor), -(-640 // factor)), (427, 640))
    png = tmp_path / "a.png"
    Image.fromarray(PHOTO).save(png)
    assert np.array_equal(decode_reduced(png, at_least)[0], PHOTO)


def test_scaled_decoding_counts_after_turning(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = photo(tmp_path / "a.jpg", (200, 800), exif=exif)  # upright: 800 high, 200 wide
    pixels, full = decode_reduced(path, (400, 100))
    assert (pixels.shape, full) == ((400, 100, 3), (800, 200))
    assert decode_reduced(path, (100, 400))[0].shape == (800, 200, 3)  # not wide enough to begin with


def test_scaled_decoding_notices_cut_files_and_keeps_modes(tmp_path):
    path = photo(tmp_path / "a.jpg", (400, 600))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageError, match="truncated"):
        decode_reduced(path, (40, 40))
    for mode in ("L", "CMYK"):
        Image.fromarray(PHOTO).convert(mode).save(tmp_path / "m.jpg", quality=95)
        full, scaled = decode(tmp_path / "m.jpg"), decode_reduced(tmp_path / "m.jpg", (100, 100))[0]
        small = cv2.resize(full, scaled.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert cv2.absdiff(small, scaled).mean() < 3


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (96, 96)])
def test_scaled_decoding_is_close_to_full_decoding(tmp_path, size):
    path = photo(tmp_path / "a.jpg", (854, 1280))
    cached = make([path], tmp_path, size).read(0)
    difference = cv2.absdiff(cached, expected(path, size)).mean()
    assert 0 < difference < 4  # of 255 grey levels; measured: 1.5, 3.0, 2.7


@pytest.mark.parametrize("rule", ["squash", "crop", "pad"])
def test_evaluation_sees_nearly_the_same_from_the_cache(tmp_path, rule):
    size = (224, 224)
    path = photo(tmp_path / "a.jpg", (427, 640))
    pipeline = eval_pipeline(size, rule)
    cached, full = (apply(pipeline, pixels, 0, 0, 0) for pixels in (make([path], tmp_path, size).read(0), decode(path)))
    difference = cv2.absdiff(cached, full).mean()
    assert cached.shape == full.shape
    assert difference < 4  # of 255 grey levels; measured: 2.3, 3.2, 1.1


@pytest.mark.parametrize("augment", ["none", "light", "medium", "heavy", [A.RandomCrop(32, 32), A.CoarseDropout(p=1)]])
def test_augmentations_take_read_only_views(files, tmp_path, augment):
    view = make(files, tmp_path).read(0)
    pipeline = train_pipeline(augment, SIZE, "squash")
    for row in range(5):
        assert np.array_equal(apply(pipeline, view, 0, 0, row), apply(pipeline, view.copy(), 0, 0, row))


def test_a_batch_is_what_pytorch_would_stack():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), dtype=np.uint8)
    items = [{"image": image, "row": torch.tensor(row), "target": 2.0} for row, image in enumerate(images)]
    batch = collate(items)
    assert torch.equal(batch["image"], torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["row"].tolist() == [0, 1, 2]
    assert batch["target"].dtype == torch.float64
    images[:] = 0
    assert batch["image"].any()  # a copy
    with pytest.raises(InputError, match="different shapes"):
        collate([items[0], items[1] | {"image": images[1][:1]}])
