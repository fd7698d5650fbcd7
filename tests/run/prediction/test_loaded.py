"""Networks that stay loaded and predict rows in this process: the values of `swinft predict`, no files, no processes."""

import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import swinft
from swinft.inference.predictions import Predictions
from swinft.run.prediction import loaded
from tests.run.test_api import state

CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return swinft.open_run(tiny_run).predictor(**CPU)


@pytest.fixture
def rows(competition) -> pd.DataFrame:
    return pd.read_csv(competition / "test.csv", dtype=str)


@pytest.fixture
def whole(tiny_run) -> Predictions:
    return Predictions.read(tiny_run / "test_predictions.csv", 3)


def content(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a process or a temporary file")


def test_a_table_is_predicted_as_by_the_command_without_files_and_processes(
    tiny_run, rows, whole, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before, files = state(), content(tiny_run)
    made = swinft.open_run(tiny_run).predictor(**CPU)
    for name in ("subprocess.Popen", "multiprocessing.Process.start", "os.fork"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr("tempfile._get_default_tempdir", refuse)
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    for _ in range(2):
        found = made.predict(rows)
        assert found.to_bytes() == whole.to_bytes()
    assert found.provenance.folds == [0, 1]
    monkeypatch.undo()
    assert (state() | {"folder": ""}, content(tiny_run)) == (before | {"folder": ""}, files)
    assert list(tmp_path.iterdir()) == []
    assert repr(made) == f"predictor of {tiny_run}: 2 folds, views identity, by torch in 32-true on cpu"
    assert made.outputs == ["blue", "green", "red"]


def test_rows_alone_and_in_any_order_have_the_same_values_up_to_rounding(predictor, tiny_run, rows, whole):
    some = rows.iloc[[4, 1]].assign(note=[1.5, None])
    run = swinft.open_run(tiny_run)
    assert predictor.predict(some).to_bytes() == run.predict(some, **CPU).to_bytes()  # the same batch
    for place in range(len(rows)):
        alone = predictor.predict(rows.iloc[[place]])
        assert alone.ids == [whole.ids[place]]
        assert np.allclose(alone.values[0], whole.values[place], atol=1e-6)


def test_threads_share_a_predictor_one_after_another(predictor, rows, monkeypatch):
    alone = [predictor.predict(rows.iloc[[place]]) for place in range(6)]
    inside, most, predicted = [], [], loaded.predicted

    def counted(*words: object) -> Predictions:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)  # another thread would come in
        found = predicted(*words)
        inside.pop()
        return found

    monkeypatch.setattr(loaded, "predicted", counted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: predictor.predict(rows.iloc[[place % 6]]), range(18)))
    assert [each.to_bytes() for each in found] == [each.to_bytes() for each in alone] * 3
    assert max(most) == 1


def test_images_of_another_root(predictor, competition, rows, whole, tmp_path):
    (tmp_path / "images").mkdir()
    for id, other in zip(rows["id"], rows["id"][::-1], strict=True):
        shutil.copy(competition / "images" / f"{other}.jpg", tmp_path / "images" / f"{id}.jpg")
    moved = predictor.predict(rows, root=tmp_path)
    assert np.allclose(moved.values, whole.values[::-1], atol=1e-6)
    assert predictor.predict(rows).to_bytes() == whole.to_bytes()


def as_given(path: Path, kind: str) -> object:
    if kind == "bytes":
        return path.read_bytes()
    image = Image.open(path)
    return image if kind == "pillow" else np.asarray(image)


@pytest.mark.parametrize("kind", ["bytes", "pillow", "array"])
def test_images_in_a_column(kind, predictor, competition, rows, whole):
    given = rows.assign(picked=[as_given(competition / "images" / f"{id}.jpg", kind) for id in rows["id"]])
    found = predictor.predict(given, images="picked", root="/nowhere")
    assert found.to_bytes() == whole.to_bytes()


def odd_images(folder: Path) -> list[str]:
    """Images whose conversion depends on more than their pixels."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 36, 4), dtype=np.uint8)
    rgba, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6
    folder.mkdir()
    rgba.save(folder / "a.png")
    rgba.convert("RGB").quantize(8).save(folder / "b.png", transparency=3)
    rgba.convert("RGB").save(folder / "c.png", exif=exif)
    rgba.convert("L").save(folder / "d.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "e.png")
    rgba.convert("CMYK").save(folder / "f.png", "TIFF")
    rgba.convert("RGB").convert("1").save(folder / "g.png")
    return sorted(path.stem for path in folder.iterdir())


def test_odd_images_of_pillow_are_converted_as_their_files_are(predictor, tmp_path):
    rows = pd.DataFrame({"id": odd_images(tmp_path / "images")})
    files = [tmp_path / "images" / f"{id}.png" for id in rows["id"]]
    kept = {
        kind: predictor.predict(rows.assign(x=[as_given(path, kind) for path in files]), images="x").values
        for kind in ("bytes", "pillow")
    }
    assert np.array_equal(kept["bytes"], kept["pillow"])
    assert len(np.unique(kept["bytes"], axis=0)) == len(files)


def test_a_bad_image_is_an_error_or_the_mean_of_the_training_rows(predictor, tiny_run, competition, rows, capsys):
    cells = [(competition / "images" / f"{id}.jpg").read_bytes() for id in rows["id"]]
    cells[1:4] = [cells[1][:100], None, np.zeros((3, 4, 7), np.uint8)]
    given = rows.assign(x=cells)
    for place, says in ((1, "x of t2 is damaged|x of t2 .*cannot"), (2, "no image is given"), (3, "it is 3 × 4 × 7")):
        with pytest.raises(swinft.InputError, match=says):
            predictor.predict(given.iloc[[place]], images="x")
    tolerant = swinft.open_run(tiny_run).predictor(on_bad_image="skip", **CPU)
    found = tolerant.predict(given, images="x")
    assert found.status == ["ok", "bad image", "bad image", "bad image", "ok", "ok"]
    assert np.allclose(found.values[1:4], 1 / 3)
    assert "skipped, predicted as the mean" in capsys.readouterr().err
    good = predictor.predict(rows).values
    assert np.allclose(found.values[[0, 4, 5]], good[[0, 4, 5]], atol=1e-6)
    alone = tolerant.predict(given.iloc[[2]], images="x")
    assert (alone.status, alone.values.tolist()) == (["bad image"], found.values[[2]].tolist())


@pytest.mark.parametrize(
    ("edit", "options", "says"),
    [
        (lambda rows: rows.assign(id=range(6)), {}, r"column 'id' contains int, such as 0.*dtype=str"),
        (lambda rows: rows.rename(columns={"id": "Id"}), {}, "there is no such column"),
        (lambda rows: pd.concat([rows, rows]), {}, "DataFrame:8.*the id is duplicated"),
        (lambda rows: rows.iloc[:0], {}, "a header but no row"),
        (lambda rows: rows.assign(id="../x"), {}, "leaves the images' folder"),
        (lambda rows: rows.assign(id="x").iloc[:1], {}, "the image file is missing"),
        (lambda rows: rows["id"].tolist(), {}, "rows are a list; give a pandas.DataFrame"),
        (lambda rows: rows, {"images": "imge"}, "DataFrame has no column 'imge'"),
        (lambda rows: rows.assign(x="a.jpg"), {"images": "x"}, "x of t1 is of type str; .*leave out `images`"),
        (lambda rows: rows.assign(x=[[b"1"]] * 6), {"images": "x"}, "is of type list"),
    ],
)
def test_wrong_rows_are_refused(edit, options, says, predictor, rows):
    with pytest.raises(swinft.InputError, match=re.compile(says, re.DOTALL)):
        predictor.predict(edit(rows), **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"devices": 2}, "one device: make one for each"),
        ({"test": "x.csv", "output": "y"}, "test: the rows are given.*output: a predictor writes no file"),
        ({"view": ["hflip"]}, "Did you mean 'views'"),
        ({"folds": [7]}, "names \\[7\\], but the run has folds"),
        ({"on_bad_image": "ignore"}, "on_bad_image"),
    ],
)
def test_wrong_options_are_refused(options, says, tiny_run):
    with pytest.raises(swinft.InputError, match=says):
        swinft.open_run(tiny_run).predictor(**options)


def test_views_folds_and_batches_are_those_of_the_command(tiny_run, rows):
    run, options = swinft.open_run(tiny_run), {"views": ["identity", "hflip"], "folds": [1], "batch_size": 4, **CPU}
    assert run.predictor(**options).predict(rows).to_bytes() == run.predict(rows, **options).to_bytes()


def test_a_run_on_a_read_only_disk(tiny_run, rows, whole, monkeypatch, capsys):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr("swinft.run.lock.FileLock.acquire", refused)
    assert swinft.open_run(tiny_run).predictor(**CPU).predict(rows).to_bytes() == whole.to_bytes()
    assert "is read without its lock" in capsys.readouterr().err


def test_a_row_is_found_without_listing_its_folder(predictor, competition, rows, whole, tmp_path, monkeypatch):
    shutil.copytree(competition / "images", tmp_path / "images")
    (tmp_path / "images" / "t2.jpg").rename(tmp_path / "t2.jpg")
    (tmp_path / "images" / "t2.jpg").symlink_to(tmp_path / "t2.jpg")
    (tmp_path / "images" / "t4.jpg").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", refuse)
        assert np.allclose(predictor.predict(rows.iloc[:1], root=tmp_path).values, whole.values[:1], atol=1e-6)
        with pytest.raises(swinft.InputError, match="a link that leaves the images' folder"):
            predictor.predict(rows.iloc[[1]], root=tmp_path)
    with pytest.raises(swinft.InputError, match=r"the image file is missing.*has 29 files, such as '000\.jpg'"):
        predictor.predict(rows.iloc[[3]], root=tmp_path)
