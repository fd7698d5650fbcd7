"""One decoder, against the image that was written: every pixel format, and every way a file can be broken."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from swinft.data.images.decode import decode, probe
from swinft.data.images.rules import ImageRules
from swinft.data.inspection.scan import ImageSet, headers, scan
from swinft.data.sources.source import ImageError

RAMP = np.add.outer(np.arange(12) * 6, np.arange(20) * 9).astype(np.uint8)  # (12, 20), 0 to 237
COLORS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
GREY = np.repeat(RAMP[:, :, None], 3, axis=2)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif", "jpg"])
def test_every_format_gives_the_image_that_was_written(tmp_path, suffix):
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    decoded = decode(save(tmp_path / f"a.{suffix}", COLORS, **options))
    assert (decoded.dtype, decoded.shape) == (np.uint8, (12, 20, 3))
    tolerance = {"jpg": 12, "gif": 30}.get(suffix, 0)
    assert abs(decoded.astype(int) - COLORS).max() <= tolerance


def test_grey_one_bit_and_palette(tmp_path):
    assert np.array_equal(decode(save(tmp_path / "l.png", RAMP)), GREY)
    black_or_white = decode(save(tmp_path / "1.png", RAMP, "1"))
    assert set(np.unique(black_or_white)) == {0, 255}
    Image.fromarray(GREY).quantize(64).save(tmp_path / "p.png")
    assert Image.open(tmp_path / "p.png").mode == "P"
    assert abs(decode(tmp_path / "p.png").astype(int) - GREY).max() <= 12


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    deep = RAMP.astype(np.uint16) * 257
    decoded = decode(save(tmp_path / f"deep.{suffix}", deep))
    assert np.array_equal(decoded, GREY)
    assert (
        np.asarray(Image.open(tmp_path / f"deep.{suffix}").convert("RGB")).mean() > 200
    )  # what Pillow would make of it


def test_cmyk(tmp_path):
    for name in ("c.jpg", "c.tiff"):
        decoded = decode(save(tmp_path / name, COLORS, "CMYK", **({"quality": 95} if name == "c.jpg" else {})))
        assert abs(decoded.astype(int) - COLORS).max() <= 14


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(tmp_path, mode):
    alpha = np.full_like(RAMP, 255)
    alpha[:, :10] = 0
    image = Image.fromarray(np.dstack([GREY, alpha]))
    image = image.quantize(200) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "t.png")
    assert Image.open(tmp_path / "t.png").mode == mode
    decoded = decode(tmp_path / "t.png")
    assert (decoded[:, :10] == 255).all()
    assert abs(decoded[:, 10:].astype(int) - GREY[:, 10:]).max() <= 12


def test_a_transparent_colour_key_counts_as_transparency(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "k.png", transparency=tuple(int(c) for c in COLORS[0, 0]))
    assert decode(tmp_path / "k.png")[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_turns_the_image_and_probe_agrees(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright
    options = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(suffix, {})
    path = save(tmp_path / f"e.{suffix}", GREY, exif=exif, **options)
    decoded = decode(path)
    assert decoded.shape == (20, 12, 3)
    assert abs(decoded.astype(int) - np.rot90(GREY, -1)).max() <= 4
    info = probe(path)
    assert (info.width, info.height, info.is_rotated) == (12, 20, True)


def test_sixteen_bits_and_exif_together(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    path = save(tmp_path / "d.png", RAMP.astype(np.uint16) * 257, exif=exif)
    assert np.array_equal(decode(path), GREY[::-1, ::-1])


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.fromarray(array) for array in (COLORS, 255 - COLORS)]
    for name in ("a.webp", "a.tiff", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.array_equal(decode(tmp_path / name), COLORS)
        assert probe(tmp_path / name).frames == 2


def test_a_stack_of_jpegs_as_phones_write_it(tmp_path):
    frames = [Image.fromarray(array) for array in (COLORS, 255 - COLORS)]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:], quality=95)
    assert probe(tmp_path / "a.jpg").format == "MPO"
    assert abs(decode(tmp_path / "a.jpg").astype(int) - COLORS).max() <= 30


def test_a_png_named_jpg_is_what_it_is(tmp_path):
    Image.fromarray(COLORS).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(decode(tmp_path / "a.jpg"), COLORS)
    assert probe(tmp_path / "a.jpg").format == "PNG"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC"),
        (b"PK\x03\x04" + bytes(40), "zip archive"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x93NUMPY\x01\x00", "numpy array"),
        (bytes(128) + b"DICM" + bytes(9), "DICOM"),
        (b"hello there, this is text", "is not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is PostScript, not an image"),
    ],
)
def test_what_is_no_image_is_named_for_what_it_is(tmp_path, content, expected):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=expected) as caught:
        decode(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        decode(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match="Is a directory"):
        decode(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "bmp"])
def test_a_cut_file_is_an_error_wherever_it_is_cut(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    whole = save(tmp_path / f"a.{suffix}", noise).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for length in (len(whole) // 8, len(whole) // 2, len(whole) - 100):
        cut.write_bytes(whole[:length])
        with pytest.raises(ImageError):
            decode(cut)


def test_a_flipped_bit_in_a_png_is_an_error(tmp_path):
    whole = save(tmp_path / "a.png", COLORS).read_bytes()
    start = whole.index(b"IDAT") + 4
    path, unnoticed = tmp_path / "b.png", 0
    for position in range(start + 2, len(whole) - 12):  # the last chunk is empty
        content = bytearray(whole)
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(ImageError, match="damaged"):
            decode(path)
        try:
            Image.open(path).load()
            unnoticed += 1
        except (OSError, SyntaxError):
            pass
    assert unnoticed > 0  # Pillow alone loads some of them, as wrong images


def bomb(side):
    """A tiny PNG that claims to be side × side pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8001, 40_000])
def test_bombs_are_refused_before_memory_is_taken(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side))
    with pytest.raises(ImageError, match="more than 64 megapixels"):
        decode(path)


def test_the_limit_is_on_the_area(tmp_path):
    path = save(tmp_path / "a.png", COLORS)
    assert decode(path, ImageRules(max_megapixels=12 * 20 / 1e6)).shape == (12, 20, 3)
    with pytest.raises(ImageError, match="20 × 12 pixels"):
        decode(path, ImageRules(max_megapixels=(12 * 20 - 1) / 1e6))


def test_numbers_without_a_known_range_are_refused(tmp_path):
    with pytest.raises(ImageError, match="floating-point"):
        decode(save(tmp_path / "f.tiff", RAMP.astype(np.float32)))
    with pytest.raises(ImageError, match="more than 16 bits"):
        decode(save(tmp_path / "i.tiff", RAMP.astype(np.int32) * 70_000))


def test_a_scan_counts_what_is_there_and_lists_what_is_not(tmp_path):
    good = [save(tmp_path / "a.png", COLORS), save(tmp_path / "b.jpg", RAMP)]
    cut = tmp_path / "c.jpg"
    cut.write_bytes(good[1].read_bytes()[:-40])
    paths = [*good, cut, tmp_path / "no.jpg"]
    found = scan(ImageSet(paths), workers=2)
    assert sorted(found.errors) == [2, 3]
    assert found.summary(paths) == {
        "files": 4,
        "unreadable": 2,
        "smallest": "20×12",
        "largest": "20×12",
        "sizes": 1,
        "formats": {"PNG": 1, "JPEG": 1},
        "modes": {"RGB": 1, "L": 1},
        "rotated by EXIF": 0,
        "animated, first frame used": 0,
        "named for another format": 0,
    }
    assert sorted(headers(ImageSet(paths))) == [3]  # the cut file's header is whole
