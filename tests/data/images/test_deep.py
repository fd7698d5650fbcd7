"""Images whose levels are kept: what is decoded, resized, cut and cached, against the samples themselves."""

import io

import cv2
import h5py
import numpy as np
import pytest

from swinft.data.augment.pipelines import apply, train_pipeline
from swinft.data.cache.pixels import cache_key, load_or_build, open_cache
from swinft.data.images.decode import decode, load, probe
from swinft.data.images.depth import WHITE, as_unit, displayed
from swinft.data.images.resize import load_image
from swinft.data.images.rules import ImageRules
from swinft.data.inspection.duplicates import find_duplicates
from swinft.data.inspection.scan import ImageSet
from swinft.data.row_images import RowImages
from swinft.data.sources.files import FILES
from swinft.data.sources.hdf5 import HDF5Source
from swinft.data.sources.parts import PartSource, part_names
from swinft.data.sources.source import ImageError
from swinft.errors import InputError
from tests.integration.test_images import png, png_chunk, tiff

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (40, 50), dtype=np.uint16)
COLOURS = RNG.integers(0, 65536, (40, 50, 3), dtype=np.uint16)
FLOATS = RNG.normal(0, 1, (40, 50)).astype(np.float32)
UINT16, UNIT = ImageRules(keep="uint16"), ImageRules(keep="float32", range=(-1, 1))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def seen(tmp_path, content, rules):
    path = tmp_path / "image.bin"
    path.write_bytes(content)
    return decode(path, rules)


def refused(tmp_path, content, rules):
    with pytest.raises(ImageError) as caught:
        seen(tmp_path, content, rules)
    assert "image.bin" in str(caught.value)
    return str(caught.value)


def grey(array):
    return np.repeat(array[:, :, None], 3, axis=2)


def packed(array):
    return cv2.imencode(".tiff", array, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()


@pytest.mark.parametrize(
    ("content", "samples"),
    [
        (png(DEEP), grey(DEEP)),
        (png(COLOURS), COLOURS),
        *((tiff(DEEP, order=order), grey(DEEP)) for order in "<>"),
        *((tiff(COLOURS, order=order), COLOURS) for order in "<>"),
        (packed(DEEP), grey(DEEP)),
        (packed(COLOURS), COLOURS[:, :, ::-1]),
        (tiff(DEEP, {262: [0]}), grey(65535 - DEEP)),
        (tiff(DEEP, {274: [6]}), grey(np.rot90(DEEP, -1))),
        (npy(DEEP), grey(DEEP)),
        (npy(np.asfortranarray(COLOURS.astype(">u2"))), COLOURS),
        (b"P5 50 40 65535\n" + DEEP.astype(">u2").tobytes(), grey(DEEP)),
    ],
)
def test_every_level_of_16_bits_is_kept(tmp_path, content, samples):
    found = seen(tmp_path, content, UINT16)
    assert found.dtype == np.uint16
    assert np.array_equal(found, samples)
    assert not found.flags.writeable
    as_floats = seen(tmp_path, content, ImageRules(keep="float32", range=(0, 65535))) if b"P5" not in content else None
    if as_floats is not None:
        assert as_floats.dtype == np.float32
        np.testing.assert_allclose(as_floats, samples / 65535, atol=1e-7)
    assert np.array_equal(displayed(found), np.rint(samples / 257).astype(np.uint8))


def test_white_is_what_the_file_the_bits_or_the_range_say(tmp_path):
    twelve = DEEP >> 4
    expected = np.rint(twelve / 4095 * 65535)
    for rules in (ImageRules(keep="uint16", bits=12), ImageRules(keep="uint16", range=(0, 4095))):
        assert np.abs(seen(tmp_path, png(twelve), rules)[:, :, 0] - expected).max() <= 1
    said = png(twelve, png_chunk(b"sBIT", bytes([12])))
    assert np.abs(seen(tmp_path, said, UINT16)[:, :, 0] - expected).max() <= 1
    assert seen(tmp_path, png(twelve), UINT16).max() < 4096
    eight = (DEEP >> 8).astype(np.uint8)
    assert np.array_equal(
        seen(tmp_path, png(eight), ImageRules(keep="uint16", range=(0, 255))), grey(257 * (DEEP >> 8))
    )


@pytest.mark.parametrize(
    ("content", "samples"),
    [
        *((tiff(FLOATS, {339: [3]}, order=order), FLOATS) for order in "<>"),
        (packed(FLOATS), FLOATS),
        (npy(FLOATS.astype(np.float64)), FLOATS),
        (tiff((1000 * FLOATS).astype(np.int16), {339: [2]}), (1000 * FLOATS).astype(np.int16) / 1000),
        (tiff((2**31 + 1e9 * FLOATS.clip(-2, 2)).astype(np.uint32)), FLOATS.clip(-2, 2)),
    ],
)
@pytest.mark.parametrize("keep", ["uint16", "float32"])
def test_a_range_scales_any_numbers_and_counts_what_it_cuts(tmp_path, content, samples, keep):
    by_type = {"u": (2**31 - 1e9, 2**31 + 1e9), "i": (-1000, 1000), "f": (-1, 1)}
    kind = "u" if content[:2] == b"II" and samples.max() == 2 else "i" if samples.dtype == np.float64 else "f"
    rules = ImageRules(keep=keep, range=by_type[kind])
    path = tmp_path / "image.bin"
    path.write_bytes(content)
    pixels, _, info = load(path, content, None, rules)
    np.testing.assert_allclose(as_unit(pixels)[:, :, 0], (samples.clip(-1, 1) + 1) / 2, atol=1e-5)
    assert info.altered == pytest.approx((np.abs(samples) > 1).mean())
    assert 0.2 < info.altered < 0.5


def test_what_has_no_range_or_no_number_is_refused_by_name(tmp_path):
    hole = FLOATS.copy()
    hole[3, 4], hole[5, 6] = np.nan, np.inf
    for content in (npy(hole), tiff(hole, {339: [3]})):
        assert "2 of its 2,000 samples are NaN or infinite; replace them in the file" in refused(
            tmp_path, content, UNIT
        )
    hole[5, 6] = np.nan
    assert "set data.loading.image_rules.fill_nan" in refused(tmp_path, npy(hole), UNIT)
    for content, what in (
        (tiff(FLOATS, {339: [3]}), "floating-point"),
        (png((DEEP >> 8).astype(np.uint8)), "of 8 bits"),
        (tiff(np.full((40, 50), -1, np.int16), {339: [2]}), "signed"),
        (npy(DEEP.astype(np.uint32)), "of 32 bits"),
    ):
        words = refused(tmp_path, content, UINT16)
        assert what in words
        assert "Set data.loading.image_rules.range" in words
    both = np.dstack([COLOURS, DEEP])
    assert "transparency to ignore" in refused(tmp_path, png(both), UINT16)
    ignored = ImageRules(keep="uint16", transparency="ignore")
    assert np.array_equal(seen(tmp_path, png(both), ignored), COLOURS)
    assert "layout LA;16B" in refused(tmp_path, png(both[:, :, :2]), ignored)
    assert "separate planes" in refused(tmp_path, tiff(COLOURS, planar=True), UINT16)
    half = b"P5 50 40 4095\n" + (DEEP >> 4).astype(">u2").tobytes()
    assert "scaled while they were read" in refused(tmp_path, half, ImageRules(keep="uint16", range=(0, 4095)))


def test_arrays_are_read_without_trust(tmp_path):
    assert "numpy array" in refused(tmp_path, npy(DEEP), ImageRules())
    for array, what in (
        (np.zeros((2, 40, 50), np.uint16), "2 × 40 × 50 of uint16"),
        (np.zeros((40, 50), complex), "real numbers"),
        (np.array({"a": 1}), "of object"),
        (np.zeros((40, 50), bool), "real numbers"),
    ):
        assert what in refused(tmp_path, npy(array), UINT16)
    assert "incomplete" in refused(tmp_path, npy(DEEP)[:-1], UINT16)
    assert "damaged" in refused(tmp_path, npy(DEEP)[:20], UINT16)
    huge = npy(DEEP).replace(b"(40, 50)", b"(9**9, 9)") + bytes(99)
    assert "damaged" in refused(tmp_path, huge, UINT16)
    large = npy(DEEP).replace(b"(40, 50), }  ", b"(40000, 50000), }"[:13].ljust(13))
    assert "image.bin" in refused(tmp_path, large, UINT16)
    assert "min_side" in refused(tmp_path, npy(DEEP[:2]), UINT16)
    path = tmp_path / "image.npy"
    path.write_bytes(npy(DEEP))
    info = probe(path, UINT16)
    assert (info.width, info.height, info.mode, info.format, info.bits) == (50, 40, "uint16", "NPY", 16)


def test_rules_that_cannot_act_are_refused():
    for given, words in (
        ({"keep": "uint8"}, "keep is 'uint8'; it must be uint16, float32 or null"),
        ({"keep": "float32"}, "range is null; with keep: float32"),
        ({"range": (0, 1)}, "set keep to uint16 or float32, or remove it"),
        ({"keep": "uint16", "range": (0, 9), "bits": 12}, "bits and range both say"),
        ({"keep": "uint16", "background": (0, 0, 0)}, "does nothing as keep is uint16"),
        *(
            ({"keep": "uint16", "range": range}, "two finite numbers, the smaller first")
            for range in ([1, 1], [2, 1], [0, float("nan")], [0, float("inf")], [1], "01", [0, True], [1e39, 1e40])
        ),
    ):
        with pytest.raises(InputError) as caught:
            ImageRules(**given)
        assert words in str(caught.value)
    assert ImageRules(keep="uint16", range=[0, 9]) == ImageRules(keep="uint16", range=(0.0, 9.0))


def test_rules_that_are_not_set_leave_the_keys_of_caches_as_they_were():
    known = ["max_megapixels", "min_side", "max_aspect", "apply_exif", "bits", "transparency", "background", "animated"]
    assert list(ImageRules().identity) == known
    keys = {cache_key(ImageSet([], rules=rules)) for rules in (ImageRules(), UINT16, UNIT, ImageRules(bits=12))}
    assert len(keys) == 4


@pytest.mark.parametrize("keep", ["uint16", "float32"])
def test_a_resized_image_has_more_levels_than_bytes(tmp_path, keep):
    large = cv2.resize(DEEP, (400, 300))
    path = tmp_path / "a.png"
    path.write_bytes(png(large))
    rules = ImageRules(keep=keep, range=(0, 65535))
    deep, eight = (load_image(path, (32, 40), each) for each in (rules, ImageRules()))
    assert deep.shape == eight.shape != (300, 400, 3)
    assert deep.dtype == keep
    levels = 255 * as_unit(deep)
    assert np.abs(levels - eight).max() < 2
    assert np.abs(levels - np.rint(levels)).max() > 0.4


@pytest.mark.parametrize("keep", ["uint16", "float32"])
def test_a_cache_holds_the_pixels_themselves(tmp_path, keep):
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(png(RNG.integers(0, 65536, (40, 50, 3), dtype=np.uint16)))
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "d.png").write_bytes(png((COLOURS >> 8).astype(np.uint8)))
    paths, rules = [tmp_path / f"{name}.png" for name in "abcd"], ImageRules(keep=keep, range=(30000, 65535))
    if keep == "uint16":
        rules = UINT16
    images = ImageSet(paths, tmp_path, (20, 20), rules)
    made = load_or_build(images, tmp_path / "cache", True).cache
    opened = open_cache(made.path)
    for row, path in enumerate(paths[:3]):
        assert opened.read(row).dtype == keep
        assert np.array_equal(opened.read(row), load_image(path, (20, 20), rules))
    if keep == "uint16":
        assert "of 8 bits" in opened.errors[3]
    assert find_duplicates(opened.index, np.ones(4, dtype=bool)).tolist() == [0, 1, 0, 3]
    assert opened.data.nbytes == opened.index.needed_bytes * np.dtype(keep).itemsize
    dim = ImageSet(paths[:3], tmp_path, (20, 20), ImageRules(keep="uint16", range=(-1e7, 1e7)))
    index = load_or_build(dim, tmp_path / "cache", True).index  # 215 of 65,536 levels: still not one colour
    assert not index.records["is_flat"].any()


def test_parts_are_scaled_once(tmp_path):
    (tmp_path / "a.png").write_bytes(png(DEEP))
    rules = ImageRules(keep="uint16", range=(10000, 60000))
    whole, _, info = load("", png(DEEP), None, rules)
    source = PartSource(FILES, RowImages("{id}.png", grid=(1, 2)), rules)
    names = part_names(str(tmp_path / "a.png"), 2)
    halves = [load(name, source.read(name), None, rules) for name in names]
    assert np.array_equal(np.concatenate([half[0] for half in halves], axis=1), whole)
    assert [half[2].altered for half in halves] == [info.altered] * 2
    assert info.altered > 0.1


def test_hdf5_gives_arrays_of_any_numbers(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep"], file["floats"] = np.stack([DEEP, DEEP[::-1]]), FLOATS[None].astype(">f8")
    source = HDF5Source()
    assert source.names(str(tmp_path / "a.h5/deep")) is not None
    assert source.names(str(tmp_path / "a.h5/floats")) is not None
    assert np.array_equal(decode(tmp_path / "a.h5/deep/1", UINT16, source), grey(DEEP[::-1]))
    found = decode(tmp_path / "a.h5/floats/0", UNIT, source)
    np.testing.assert_allclose(found, grey((FLOATS.clip(-1, 1) + 1) / 2), atol=1e-6)
    with pytest.raises(ImageError, match="of another type than uint8"):
        decode(tmp_path / "a.h5/deep/1", source=source)


PRESETS = ["none", "light", "medium", "heavy", "crop", "randaugment", "trivialaugment", "augmix"]
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (90, 110, 3), dtype=np.uint8), (0, 0), 3)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_no_preset_computes_on_8_bits(preset, resize):
    pipeline = train_pipeline(preset, (48, 40), resize, keeps_levels=True)
    image = (PHOTO + RNG.random(PHOTO.shape, dtype=np.float32)) / np.float32(256)
    for row in range(12):
        found = apply(pipeline, image, 0, 0, row)
        assert found.dtype == np.float32
        assert found.shape == (48, 40, 3)
        assert -0.3 < found.min() <= found.max() < 1.3
        inside = 255 * found[(found > 0) & (found < 1)]
        assert np.abs(inside - np.rint(inside)).max() > 0.45


@pytest.mark.parametrize("preset", ["none", "light", "medium", "crop"])
def test_presets_do_the_same_on_floats_as_on_bytes(preset):
    one, other = (train_pipeline(preset, (48, 40), "crop", keeps_levels=keeps) for keeps in (False, True))
    for row in range(6):
        levels = 255 * apply(other, as_unit(PHOTO), 0, 0, row)
        assert np.abs(np.clip(levels, 0, 255) - apply(one, PHOTO, 0, 0, row)).max() < 4


def test_scales_agree():
    for name, white in WHITE.items():
        assert as_unit(np.array([white], dtype=name)) == 1
