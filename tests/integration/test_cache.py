"""Start-up and scale: one read per image, a cache that is never another's, and memory that grows with the rows alone."""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections import Counter

import cv2
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from swinft.cli import main
from swinft.data.cache import folder as cachefolder
from swinft.data.cache.folder import cache_files, is_in_use, prune
from swinft.data.cache.pixels import cache_key, load_or_build, open_cache
from swinft.data.datamodule import CSVDataModule
from swinft.data.inspection import duplicates as duplicates_module
from swinft.data.inspection import scan
from swinft.data.inspection.duplicates import cluster_groups, duplicate_notes, find_duplicates, fold_leaks
from swinft.data.inspection.index import RECORD, ImageIndex
from swinft.data.inspection.scan import ImageSet
from swinft.data.loading.dataset import ShuffledSampler
from swinft.errors import InputError, StoreError
from swinft.run.checked_images import VARIABLE
from swinft.system import limits
from tests.conftest import merged, tiny_config, write_config

SIZE = (32, 32)
opened: Counter[str] = Counter()
watched: set[str] = set()


def _count(event, arguments):
    if event == "open" and watched and str(arguments[0]) in watched:
        opened[str(arguments[0])] += 1


sys.addaudithook(_count)  # sees every file that Python or a library opens through it; it cannot be taken away


@contextlib.contextmanager
def counted(paths):
    """How often each of some files is opened in this process while the block runs."""
    opened.clear()
    watched.update(map(str, paths))
    try:
        yield opened
    finally:
        watched.clear()


@pytest.fixture
def root(competition, tmp_path):
    """A copy of the competition that may be changed."""
    shutil.copytree(competition, tmp_path / "data")
    return tmp_path / "data"


def images_of(root, pattern="[0-9]*.jpg"):
    return sorted((root / "images").glob(pattern))


def config_of(root, folder, **changes):
    changes = {"data.loading.cache_dir": str(folder / "cache"), "trainer.max_epochs": 1, **changes}
    return write_config(folder / "c.yaml", tiny_config(root, folder / "runs", **changes))


def module(root, folder, **changes):
    arguments = {
        "train": "train.csv",
        "image": "images/{id}.jpg",
        "target": "color",
        "image_size": 32,
        "folds": {"num": 2},
    }
    arguments |= {"root": str(root), "target_kind": "classification", "loading": {"cache_dir": str(folder / "cache")}}
    return CSVDataModule(**merged(arguments, changes))


def put_another_image_in_its_place(path):
    """Another image of the same size in bytes and with the same time of modification."""
    state, other = path.stat(), ImageOps.invert(Image.open(path).convert("RGB"))
    other.save(path, quality=40)
    assert path.stat().st_size < state.st_size
    path.write_bytes(path.read_bytes().ljust(state.st_size, b"0"))  # decoders stop at the image's end
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)


# --- one read


@pytest.mark.parametrize("cache", [True, "auto", False])
def test_f081_each_image_is_read_once_before_the_first_epoch(root, tmp_path, monkeypatch, cache):
    train, test = images_of(root), images_of(root, "t*.jpg")
    before = {}
    fit = pl.Trainer.fit

    def epoch(*args, **kwargs):
        before.update(opened)
        return fit(*args, **kwargs)

    monkeypatch.setattr(pl.Trainer, "fit", epoch)
    config = config_of(root, tmp_path, **{"data.loading.cache": cache})
    with counted([*train, *test]):
        assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert before == {str(path): 1 for path in [*train, *test]}
    if cache is not False:
        assert opened == before  # nor by any epoch, nor for the out-of-fold predictions


def test_f081_with_a_warm_cache_nothing_is_read(root, tmp_path, capsys):
    config = config_of(root, tmp_path)
    assert main(["check", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    with counted([*images_of(root), *images_of(root, "t*.jpg")]):
        assert main(["check", "--config", str(config)]) == 0
        assert capsys.readouterr().out == said
        assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert not opened


def test_f081_a_changed_image_never_shows_old_pixels(root, tmp_path):
    before = module(root, tmp_path)
    before.setup("fit")
    path = images_of(root)[3]
    old = before.training_cache().read(3).copy()
    put_another_image_in_its_place(path)
    after = module(root, tmp_path)
    after.setup("fit")
    with counted(images_of(root)):
        assert np.abs(after.training_cache().read(3).astype(int) - old).mean() > 5
    assert set(opened.values()) == {1}


def test_f083_the_files_are_asked_once_for_all_loaders(root, tmp_path, monkeypatch):
    asked = []
    real = scan.signatures
    monkeypatch.setattr(scan, "signatures", lambda paths, source: asked.append(len(paths)) or real(paths, source))
    data = module(root, tmp_path)
    data.setup("fit")
    data.training_cache()
    asked.clear()
    data = module(root, tmp_path)
    data.setup("fit")
    for fold in (0, 1):
        data.fold = fold
        for loader in (data.train_dataloader(), data.val_dataloader()):
            assert loader.dataset.cache is not None
    assert asked == [24]


def test_f083_a_fold_of_a_run_asks_no_file(root, tmp_path, monkeypatch, capsys):
    config = config_of(root, tmp_path)
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    (path,) = (tmp_path / "cache").glob("*.pixels")

    def refused(*args, **kwargs):
        raise AssertionError("asked again")

    monkeypatch.setenv(VARIABLE, f"found:{path}")  # as the run's process gives it to those of the folds
    monkeypatch.setattr(scan, "signatures", refused)
    monkeypatch.setattr(scan, "scan_image", refused)
    with counted(images_of(root)):
        assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 0
    assert not opened


def test_f083_a_fold_whose_cache_has_gone_makes_another(root, tmp_path, monkeypatch, capsys):
    config = config_of(root, tmp_path)
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    (path,) = (tmp_path / "cache").glob("*.pixels")
    path.unlink()
    monkeypatch.setenv(VARIABLE, f"found:{path}")
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 0
    assert path.is_file()


def test_f083_loader_processes_get_no_table(root, tmp_path):
    text = (root / "train.csv").read_text().splitlines()
    wide = [f"{line},{'note' if row == 0 else 'y' * 1000}" for row, line in enumerate(text)]
    (root / "train.csv").write_text("\n".join(wide) + "\n")
    data = module(root, tmp_path)
    data.setup("fit")
    pickled = pickle.dumps(data.train_dataloader().dataset)
    assert b"yyyy" not in pickled
    images_of(root)[4].write_bytes(b"<html>")
    data = module(root, tmp_path, loading={"cache": False, "num_workers": 1})
    data.setup("fit")
    with pytest.raises(InputError, match=r"train.csv:6: id '004'.*is a web page"):
        [batch for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader]


# --- whose cache


@pytest.mark.parametrize("suffix", [".bmp", ".tif"])
def test_f080_another_folder_with_the_same_names_sizes_and_times_is_another_cache(tmp_path, suffix):
    found = []
    for version, grey in (("one", 40), ("two", 200)):
        folder = tmp_path / version / "images"
        folder.mkdir(parents=True)
        for row in range(3):
            path = folder / f"{row}{suffix}"
            Image.fromarray(np.full((20, 20, 3), grey + row, dtype=np.uint8)).save(path)
            os.utime(path, ns=(0, 0))
        paths = sorted(folder.iterdir())
        found.append(load_or_build(ImageSet(paths, tmp_path / version, SIZE), tmp_path / "cache", True).cache)
    assert [cache.read(0)[0, 0, 0] for cache in found] == [40, 200]


def test_f080_a_link_that_points_elsewhere_is_another_image(tmp_path):
    for name, grey in (("a.png", 40), ("b.png", 200)):
        Image.fromarray(np.full((20, 20, 3), grey, dtype=np.uint8)).save(tmp_path / name)
        os.utime(tmp_path / name, ns=(0, 0))
    link = tmp_path / "link.png"
    values = []
    for target in ("a.png", "b.png"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / target)
        values.append(load_or_build(ImageSet([link], tmp_path, SIZE), tmp_path / "cache", True).cache.read(0)[0, 0, 0])
    assert values == [40, 200]


def test_f080_a_folder_put_back_from_an_archive_is_another_cache(root, tmp_path):
    keys = []
    for _ in range(2):
        keys.append(cache_key(ImageSet(images_of(root), root, SIZE)))
        shutil.copytree(root, tmp_path / "archive", dirs_exist_ok=True)  # with its times
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "archive", root)
    assert keys[0] != keys[1]


def test_a_cache_of_other_rows_is_not_taken_over(root, tmp_path):
    few = load_or_build(ImageSet(images_of(root)[:5], root, SIZE), tmp_path / "cache", True).cache
    data = module(root, tmp_path)
    data.image_files.use_known_cache(str(few.path))
    data.setup("fit")
    assert len(data.training_cache()) == 24


# --- look-alikes


def index_of(codes, pixels=None, **fields):
    """An index of images that are known by their hashes."""
    records = np.zeros(len(codes), dtype=RECORD)
    records["is_usable"] = True
    records["perceptual"] = codes
    rows = np.arange(len(codes)) if pixels is None else np.asarray(pixels)
    records["pixels"][:, :8] = rows.astype("<i8").view(np.uint8).reshape(-1, 8)
    for name, values in fields.items():
        records[name] = values
    return ImageIndex(records, {})


def codes_of(bits):
    return np.packbits(np.asarray(bits, dtype=bool), axis=1).view(np.uint64)


def search(rows):
    """Most memory that Python's and NumPy's allocations take while one camera's frames are searched and described."""
    rng = np.random.default_rng(0)
    bits = np.tile(rng.random(256) < 0.5, (rows, 1))
    bits[np.arange(rows), rng.integers(0, 256, rows)] ^= True
    index = index_of(codes_of(bits))
    ids = [f"frame {row}" for row in range(rows)]
    tracemalloc.start()
    labels = find_duplicates(index, np.ones(rows, dtype=bool))
    notes = duplicate_notes(labels, index, ids, np.arange(rows) % 5, np.zeros(rows))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not labels.any()
    return peak, notes


def test_f079_the_search_for_look_alikes_takes_memory_of_the_rows_alone():
    few, _ = search(600)
    many, notes = search(6000)
    assert many < few + 30e6  # all pairs took 280 bytes × rows² / 2: 5 GB
    assert all(len(note) < 400 for note in notes)
    assert "ids frame 0, frame 1, " in notes[0]
    assert "frame 9 and 5,990 more look alike" in notes[0]


def test_f079_components_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr(duplicates_module, "TILE", 16)
    rng = np.random.default_rng(3)
    centres = rng.random((12, 256)) < 0.5
    bits = centres[rng.integers(0, 12, 150)] ^ (rng.random((150, 256)) < rng.choice([0.02, 0.05, 0.08], (150, 1)))
    pixels = rng.integers(0, 120, 150)
    bits = bits[pixels]  # the same pixels have the same hash
    used = rng.random(150) < 0.9
    labels = find_duplicates(index_of(codes_of(bits), pixels), used)
    near = (bits[:, None] != bits[None]).sum(axis=2) <= duplicates_module.NEAR_BITS
    near &= used[:, None] & used[None]
    expected = np.arange(150)
    for _ in range(150):  # each takes the smallest name among its neighbours until nothing changes
        expected = np.where(near, expected[None], expected[:, None]).min(axis=1)
    assert labels.tolist() == expected.tolist()
    groups = [f"g{row % 40}" for row in range(150)]
    joined = cluster_groups(labels, groups)
    assert all(joined[row] == joined[label] for row, label in enumerate(labels))
    assert all(joined[row] == joined[row % 40] for row in range(150))


def test_f079_look_alikes_can_be_ignored(root, tmp_path, monkeypatch, capsys):
    shutil.copy(images_of(root)[0], images_of(root)[1])

    def refused(*args):
        raise AssertionError("searched")

    assert main(["check", "--config", str(config_of(root, tmp_path))]) == 0
    assert "ids 000, 001 are the same image" in capsys.readouterr().out
    monkeypatch.setattr("swinft.data.inspection.image_files.find_duplicates", refused)
    assert main(["check", "--config", str(config_of(root, tmp_path, **{"data.folds.duplicates": "ignore"}))]) == 0
    assert "same image" not in capsys.readouterr().out


CHECK = """
import resource, sys
from swinft.cli import main
code = main(["check", "--config", sys.argv[1]])
print("peak", code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_f079_check_on_3000_look_alikes_takes_hardly_more_memory_than_on_500(tmp_path):
    peaks = {}
    for rows in (500, 3000):
        root = tmp_path / str(rows)
        (root / "images").mkdir(parents=True)
        frame = np.asarray(
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).resize((48, 36))
        )
        for row in range(rows):
            image = frame.copy()
            image[row // 48 % 36, row % 48] ^= 255
            Image.fromarray(image).save(root / "images" / f"{row:05d}.png")
        lines = [f"{row:05d},{'ab'[row % 2]}" for row in range(rows)]
        (root / "train.csv").write_text("\n".join(["id,color", *lines]) + "\n")
        changes = {"data.image": "images/{id}.png", "data.test": None, "data.sample_submission": None}
        config = config_of(root, root, **changes)
        command = [sys.executable, "-c", CHECK, str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "look alike" in done.stdout
        assert max(map(len, done.stdout.splitlines())) < 500
        code, peak = done.stdout.splitlines()[-1].split()[1:]
        assert code == "0"
        peaks[rows] = int(peak)
    assert peaks[3000] <= 1.2 * peaks[500], peaks


def test_f062_look_alikes_that_hang_together_by_others_are_said_to():
    bits = np.zeros((60, 256), dtype=bool)
    for row in range(1, 60):  # each 20 bits from the one before
        bits[row] = bits[row - 1]
        bits[row, (20 * row) % 240 : (20 * row) % 240 + 20] ^= True
    index = index_of(codes_of(bits))
    labels = find_duplicates(index, np.ones(60, dtype=bool))
    assert not labels.any()
    (note, *_) = duplicate_notes(labels, index, [str(row) for row in range(60)], np.arange(60) % 2, np.zeros(60))
    assert "look alike in a chain: each differs from another in at most 32 of 256 bits, 0 and " in note
    assert note.endswith("in folds [0, 1], a leak in the out-of-fold score.")


def test_f070_blank_images_are_called_blank_and_are_no_duplicates(root, tmp_path, capsys):
    for path in images_of(root)[:12]:
        Image.new("RGB", (40, 36)).save(path)
    assert main(["check", "--config", str(config_of(root, tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "12 images are blank (one colour): ids 000, 001, " in out
    assert "009 and 2 more." in out
    assert "same image" not in out
    assert "leak" not in out


def test_f070_dark_images_with_something_in_them_are_not_blank(root, tmp_path):
    data = module(root, tmp_path)
    for path in images_of(root)[:2]:
        dark = np.zeros((40, 36, 3), dtype=np.uint8)
        dark[10:12, 10:12] = 9
        Image.fromarray(dark).save(path.with_suffix(".png"))
        path.with_suffix(".png").rename(path)
    data.check()
    assert not [note for note in data.notes if "blank" in note]
    assert [note for note in data.notes if note.startswith("ids 000, 001 are the same image")]


def test_f112_duplicates_that_cannot_leak_are_counted_not_listed():
    rows = 200
    index = index_of(np.zeros((rows, 4), np.uint64), pixels=np.arange(rows) // 2, is_flat=True)
    labels = find_duplicates(index, np.ones(rows, dtype=bool))
    ids, together = [str(row) for row in range(rows)], np.arange(rows) // 2 % 5
    notes = duplicate_notes(labels, index, ids, together, np.zeros(rows))
    assert notes == [
        "ids 0, 1 are the same image, all in fold 0.",
        "and 99 more clusters of equal or similar images within one fold.",
    ]
    apart = duplicate_notes(labels, index, ids, np.arange(rows) % 2, np.zeros(rows))
    assert len(fold_leaks(labels, np.arange(rows) % 2)) == 100
    assert apart[9:] == [
        "ids 18, 19 are the same image, in folds [0, 1], a leak in the out-of-fold score.",
        "and 90 more clusters of equal or similar images over several folds.",
        "`data.folds.duplicates: group` keeps such rows in one fold.",
    ]


# --- the cache's folder


def some_caches(root, folder, number=3):
    """Caches of different sizes of training, last used one to `number` days ago, the oldest first."""
    found = []
    for days in range(number, 0, -1):
        cache = load_or_build(ImageSet(images_of(root), root, (16 + days, 16)), folder, True).cache
        used = time.time() - days * cachefolder.DAY - 60
        os.utime(cache.path, (used, used))
        found.append(cache.path)
    return found


def test_f085_caches_are_listed_and_pruned_by_age_and_by_size(root, tmp_path, capsys):
    folder = tmp_path / "cache"
    old, middle, new = some_caches(root, folder)
    assert main(["cache", "--dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{folder}: 3 caches, ")
    assert out.index(old.name) < out.index(middle.name) < out.index(new.name)
    assert f"24 images of {root}, for 17 × 16 pixels" in out
    assert "used 2 days ago" in out
    assert main(["cache", "--dir", str(folder), "--prune", "2.5d"]) == 0
    assert "deleted 1 cache, " in capsys.readouterr().out
    assert [file.path for file in cache_files(folder)] == [middle, new]
    keep = new.stat().st_size + 10
    assert main(["cache", "--dir", str(folder), "--prune", f"{keep / 1e6}MB"]) == 0
    assert [file.path for file in cache_files(folder)] == [new]
    assert main(["cache", "--dir", str(folder), "--prune", "0"]) == 0
    assert main(["cache", "--dir", str(folder)]) == 0
    assert f"{folder}: 0 caches, 0.00 MB" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--prune", "soon"], ["--prune", "3 weeks"], ["--prune=-1"], ["--dir", "nowhere"]])
def test_f085_what_cannot_be_pruned_is_said(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["cache", *words]) == 2
    assert "30d" in capsys.readouterr().err or "nowhere" in words


def test_f085_what_a_process_uses_is_not_pruned(root, tmp_path, capsys):
    folder = tmp_path / "cache"
    (path,) = some_caches(root, folder, 1)
    code = "import sys; from pathlib import Path; from swinft.data.cache.pixels import open_cache\n"
    code += (
        f"cache = open_cache(Path({str(path)!r})); print('open', flush=True); sys.stdin.read(); print(cache.data.sum())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout.readline() == "open\n"
        assert is_in_use(path)
        assert main(["cache", "--dir", str(folder), "--prune", "0d"]) == 0
        assert "deleted 0 caches, 0.00 MB; 1 cache, " in (out := capsys.readouterr().out)
        assert "a running process uses 1 of them" in out
        assert path.is_file()
        user.kill()
    assert not is_in_use(path)  # the system lets go of what a killed process held
    assert [file.path for file in prune(folder, max_days=0)] == [path]
    with pytest.raises(StoreError, match="cannot be used"):
        open_cache(path)


def test_f085_old_caches_go_when_another_is_built_and_that_is_said(root, tmp_path, capsys):
    folder = tmp_path / "cache"
    old, new = some_caches(root, folder, 2)
    long_ago = time.time() - 31 * cachefolder.DAY
    os.utime(old, (long_ago, long_ago))
    other = folder / "notes.txt"
    other.write_text("mine")
    load_or_build(ImageSet(images_of(root), root, (40, 40)), folder, "auto")
    assert "deleted 1 old pixel caches" in capsys.readouterr().err
    assert not old.exists()
    assert new.exists()
    assert other.exists()


def test_f085_what_killed_builders_left_goes(root, tmp_path):
    folder = tmp_path / "cache"
    some_caches(root, folder, 1)
    left = folder / ".0123.77.tmp"
    left.write_bytes(b"0")
    (folder / ".0123.lock").touch()
    with cachefolder.FileLock(folder / ".0123.lock"):
        prune(folder, max_days=0)
        assert left.exists()  # it is being built
    prune(folder)
    assert not left.exists()


def test_f085_two_data_sets_are_built_side_by_side(root, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    one, two = (ImageSet(images_of(root), root, size) for size in ((16, 16), (24, 24)))
    with cachefolder.FileLock(folder / f".{cache_key(one)}.lock"):
        assert load_or_build(two, folder, True).cache  # a lock for the whole folder would be waited for here


def test_f085_damaged_files_are_listed(tmp_path, capsys):
    (tmp_path / "x.pixels").write_bytes(b"{}")
    (tmp_path / "y.pixels").write_bytes(json.dumps({"format": "swinft-pixels-1"}).encode().ljust(4096))
    assert [file.purpose for file in cache_files(tmp_path)].count("damaged") == 1
    assert main(["cache", "--dir", str(tmp_path), "--prune", "0"]) == 0
    assert cache_files(tmp_path) == []


def test_the_folder_of_the_user_may_be_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    assert main(["cache"]) == 0
    assert main(["cache", "--prune", "30"]) == 0
    assert "deleted 0 caches" in capsys.readouterr().out


# --- resume and notebooks


def test_f086_a_resumed_run_makes_its_cache_again_and_says_so(root, tmp_path, capsys):
    config = config_of(root, tmp_path)
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    first = (tmp_path / "runs" / "tiny" / "fold_0" / "oof.csv").read_bytes()
    shutil.rmtree(tmp_path / "cache")
    shutil.copytree(root, tmp_path / "copy")  # new inodes; then new times as well
    shutil.rmtree(root)
    shutil.copytree(tmp_path / "copy", root)
    for path in images_of(root):
        os.utime(path, ns=(0, 0))
    capsys.readouterr()
    with counted(images_of(root)):
        assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 0
    assert set(opened.values()) == {1}
    assert "Images are decoded once: the decoded images take" in capsys.readouterr().out
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 1
    assert (tmp_path / "runs" / "tiny" / "fold_0" / "oof.csv").read_bytes() == first


@pytest.mark.parametrize("cache", ["auto", False])
def test_f086_a_changed_image_is_refused_on_resume_with_and_without_a_cache(root, tmp_path, capsys, cache):
    config = config_of(root, tmp_path, **{"data.loading.cache": cache})
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    path = images_of(root)[2]
    content = path.read_bytes()
    put_another_image_in_its_place(path)
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 2
    assert "id '002': the image is not that of the run's start" in capsys.readouterr().err
    path.write_bytes(content)
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 0


def test_f086_an_image_saved_anew_with_the_same_pixels_is_the_same(root, tmp_path):
    image = np.asarray(Image.open(images_of(root)[0]))
    for row, path in enumerate(images_of(root)):
        Image.fromarray(image + row).save(path, format="PNG")
    config = config_of(root, tmp_path, **{"data.loading.cache": False})
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    Image.open(images_of(root)[3]).save(images_of(root)[3], format="BMP")
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 0


def test_f086_in_a_notebook_the_first_loader_makes_the_cache_and_says_so(root, tmp_path, capsys):
    data = module(root, tmp_path)
    data.setup("fit")
    assert data.train_dataloader().dataset.cache is not None
    assert capsys.readouterr().out.startswith("Images are decoded once: the decoded images take 0.")
    data.val_dataloader()
    assert capsys.readouterr().out == ""
    off = module(root, tmp_path, loading={"cache": False})
    off.setup("fit")
    with counted(images_of(root)):
        assert off.train_dataloader().dataset.cache is None
    assert not opened


# --- what a process may use


def group(tmp_path, monkeypatch, lines, files):
    """A machine's control groups."""
    own = tmp_path / "cgroup"
    own.write_text("\n".join(lines) + "\n")
    for name, text in files.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(limits, "OWN_GROUPS", own)
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "sys")
    (tmp_path / "meminfo").write_text("MemTotal: 999 kB\nMemAvailable:   64000000 kB\n")
    monkeypatch.setattr(limits, "MEMINFO", tmp_path / "meminfo")


@pytest.mark.parametrize(
    ("lines", "files", "memory"),
    [
        # Version 2, a step of a batch job: the limit is two levels up, and files in memory can be dropped.
        (
            ["0::/slurm/job_7/step_0"],
            {
                "slurm/job_7/step_0/memory.max": "max\n",
                "slurm/job_7/step_0/memory.current": "5000000\n",
                "slurm/job_7/memory.max": "8000000000\n",
                "slurm/job_7/memory.current": "3000000000\n",
                "slurm/job_7/memory.stat": "anon 1000000000\ninactive_file 1500000000\nactive_file 500000000\n",
                "memory.max": "max\n",
            },
            7_000_000_000,
        ),
        # Version 1 inside a container: the own path is the host's and not there.
        (
            ["5:cpu,cpuacct:/docker/ab", "4:memory:/docker/ab"],
            {
                "memory/memory.limit_in_bytes": "2000000000\n",
                "memory/memory.usage_in_bytes": "1500000000\n",
                "memory/memory.stat": "cache 1\ntotal_inactive_file 250000000\ntotal_active_file 0\n",
            },
            750_000_000,
        ),
        # Version 1 without a limit, which is a very large number.
        (["4:memory:/"], {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 64_000_000 * 1024),
        # More is used than allowed, for a moment.
        (["0::/"], {"memory.max": "100\n", "memory.current": "200\n"}, 0),
        (["0::/"], {}, 64_000_000 * 1024),
    ],
)
def test_f087_memory_is_what_the_own_groups_leave(tmp_path, monkeypatch, lines, files, memory):
    group(tmp_path, monkeypatch, lines, files)
    assert limits.available_memory() == memory


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        (["0::/a/b"], {"a/cpu.max": "250000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        (["0::/"], {"cpu.max": "50000 100000\n"}, 1),
        (
            ["3:cpu,cpuacct:/"],
            {"cpu,cpuacct/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        (
            ["3:cpu,cpuacct:/"],
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            64,
        ),
        (["something new"], {}, 64),
    ],
)
def test_f087_cores_are_those_that_are_allowed(tmp_path, monkeypatch, lines, files, cores):
    group(tmp_path, monkeypatch, lines, files)
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert limits.available_cores() == cores
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda process: {0, 5}, raising=False)
    assert limits.available_cores() == min(2, cores)


def test_f087_without_linux_there_is_an_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MEMINFO", tmp_path / "missing")
    monkeypatch.setattr(limits, "OWN_GROUPS", tmp_path / "missing")
    assert limits.available_memory() > 10**7
    assert limits.available_cores() >= 1


# --- a datamodule used twice


def test_f019_a_look_at_the_headers_does_not_spoil_the_one_at_the_pixels(root, tmp_path):
    path = images_of(root)[4]
    path.write_bytes(path.read_bytes()[:-40])
    shutil.copy(images_of(root)[0], images_of(root)[1])
    data = module(root, tmp_path)
    data.check(decode=False)
    with pytest.raises(InputError, match="id '004'"):
        data.check()
    skipping = module(root, tmp_path, loading={"on_bad_image": "skip"})
    skipping.check(decode=False)
    skipping.check()
    assert any("ids 000, 001 are the same image" in note for note in skipping.notes)


def test_f020_the_device_holds_the_images_of_the_fold_that_is_asked_for(root, tmp_path):
    data = module(root, tmp_path, augment="none", loading={"augment_on": "device"}, batch_size=4)
    data.setup("fit")
    held = []
    for fold in (0, 1, 1):
        data.fold = fold
        loader = data.train_dataloader()
        rows = torch.cat([batch["row"] for batch in loader]).tolist()
        assert sorted(rows) == np.flatnonzero(data.fold_of_row != fold).tolist()
        held.append(loader.device_images)
        assert isinstance(loader.sampler, ShuffledSampler)
    assert held[0] is not held[1]
    assert held[1] is held[2]


def test_f086_a_glance_at_a_batch_decodes_no_other_image(root, tmp_path):
    data = module(root, tmp_path)
    data.setup("fit")
    with counted(images_of(root)):
        data.show_batch("train", n=3)
        data.show_batch("val", n=2)
    assert sum(opened.values()) == 5
    assert not (tmp_path / "cache").exists()


COUNTING = """
import os, sys
def count(event, arguments, folder={folder!r}, log={log!r}):
    if event == "open" and str(arguments[0]).startswith(folder):
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as file:
            file.write(f"{{os.path.basename(str(arguments[0]))}}\\n")
sys.addaudithook(count)
"""


@pytest.mark.slow
def test_f081_the_run_and_its_folds_together_read_each_image_once(root, tmp_path):
    (tmp_path / "site").mkdir()
    log = tmp_path / "opened"
    text = COUNTING.format(folder=str(root / "images"), log=str(log))
    (tmp_path / "site" / "sitecustomize.py").write_text(text)  # Python runs it in every process that it starts
    config = config_of(root, tmp_path, **{"data.loading.num_workers": 1})
    paths = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "swinft", "fit", "--config", str(config)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Images are decoded once") == 1
    counts = Counter(log.read_text().split())
    assert set(counts) == {path.name for path in images_of(root, "*.jpg")}
    assert sum(counts.values()) - len(counts) <= 12, counts  # what the report shows at the end


def test_the_perceptual_hash_is_the_published_one():
    dct = pytest.importorskip("scipy.fft").dct
    image = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)).resize((400, 300))
    )
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA).astype(float)
    lowest = dct(dct(grey, axis=0), axis=1)[:16, :16]
    assert np.array_equal(np.unpackbits(scan.perceptual(image).view(np.uint8)), (lowest > np.median(lowest)).ravel())
    assert scan.perceptual(np.full((20, 20, 3), 7, np.uint8)) is None
