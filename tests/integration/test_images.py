"""Images as other programs write them: what their samples mean is read from the file or set by a rule, and said."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from swinft.cli import main
from swinft.data.images.decode import decode, probe
from swinft.data.images.rules import ImageRules
from swinft.data.sources.source import ImageError
from swinft.errors import InputError
from tests.conftest import tiny_config, write_config

RNG = np.random.default_rng(0)
GREY = np.add.outer(np.arange(12) * 6, np.arange(20) * 9).astype(np.uint16)  # (12, 20), 0 to 237
COLORS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)
NOISE = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
ORIENTATION = 0x0112


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(samples, side=b""):
    """A PNG of uint8 or uint16 samples, (H, W) or (H, W, 2 to 4); `side` is put before the pixels."""
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    height, width, depth = *samples.shape[:2], 8 * samples.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in samples)
    chunks = png_chunk(b"IHDR", header) + side + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(samples, tags=None, planar=False, order="<"):
    """An uncompressed TIFF of samples (H, W) or (H, W, bands); `tags` replace or add lists of SHORTs."""
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    planes = [samples[:, :, band] for band in range(bands)] if planar else [samples]
    data = [np.ascontiguousarray(plane.astype(plane.dtype.newbyteorder(order))).tobytes() for plane in planes]
    starts = [8 + sum(map(len, data[:index])) for index in range(len(data))]
    body = b"".join(data)
    body += b"\0" * (len(body) % 2)
    all_tags = {256: [samples.shape[1]], 257: [samples.shape[0]], 258: [8 * samples.dtype.itemsize] * bands, 259: [1]}
    all_tags |= {262: [2 if bands > 2 else 1], 273: starts, 277: [bands], 278: [samples.shape[0]]}
    all_tags |= {279: list(map(len, data)), 284: [1 + planar]} | (tags or {})
    entries, more, end = b"", b"", 8 + len(body) + 2 + 12 * len(all_tags) + 4
    for tag, values in sorted(all_tags.items()):
        content = struct.pack(f"{order}{len(values)}H", *values)
        entries += struct.pack(f"{order}HHI", tag, 3, len(values))
        entries += content.ljust(4, b"\0") if len(content) <= 4 else struct.pack(f"{order}I", end + len(more))
        more += content if len(content) > 4 else b""
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(body))
    return start + body + struct.pack(f"{order}H", len(all_tags)) + entries + bytes(4) + more


def decoded(tmp_path, content, **rules):
    path = tmp_path / "image.bin"
    path.write_bytes(content)
    return decode(path, ImageRules(**rules))


def refused(tmp_path, content, **rules):
    with pytest.raises(ImageError) as caught:
        decoded(tmp_path, content, **rules)
    return str(caught.value)


def grey(array):
    return np.repeat(array.astype(np.uint8)[:, :, None], 3, axis=2)


def near(one, other, tolerance=1):
    return one.shape == other.shape and np.abs(one.astype(int) - other).max() <= tolerance


@pytest.mark.parametrize(
    "samples", [GREY, COLORS, np.dstack([COLORS, np.full_like(GREY, 65535 >> 4)])], ids=["grey", "colour", "four bands"]
)
@pytest.mark.parametrize("write", [png, tiff])
def test_f066_bits_says_what_white_is_of_grey_and_of_colour(tmp_path, samples, write):
    twelve = (samples * 16 + samples // 16).astype(np.uint16)  # 0 to 255 in 12 bits
    expected = grey(GREY) if samples.ndim == 2 else COLORS
    if samples.ndim == 3 and samples.shape[2] == 4:
        twelve[:, :, 3] = 65535
    assert decoded(tmp_path, write(twelve)).max() <= 15  # what the container says
    assert near(decoded(tmp_path, write(twelve), bits=12), expected)
    assert near(decoded(tmp_path, write(twelve), bits=14), expected // 4)
    words = refused(tmp_path, write(twelve), bits=10)
    assert all(
        word in words
        for word in (str((samples * 16 + samples // 16).max()), "data.loading.image_rules.bits is 10", "1023")
    )


@pytest.mark.parametrize("order", "<>")
def test_f066_byte_orders_and_compression_are_all_one(tmp_path, order):
    twelve = (COLORS * 16).astype(np.uint16)
    assert near(decoded(tmp_path, tiff(twelve, order=order), bits=12), COLORS)
    for samples, expected in ((GREY, grey(GREY)), (COLORS, COLORS[:, :, ::-1])):  # OpenCV's colours are BGR
        _, packed = cv2.imencode(".tiff", (samples * 16).astype(np.uint16), [cv2.IMWRITE_TIFF_COMPRESSION, 5])
        assert near(decoded(tmp_path, packed.tobytes(), bits=12), expected)


def test_f066_what_the_file_says_of_its_bits_needs_no_rule(tmp_path):
    twelve = (GREY * 16 + GREY // 16).astype(np.uint16)
    pairs = twelve.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    content = tiff(packed.astype(np.uint8).reshape(12, -1), {256: [20], 258: [12]})
    assert near(decoded(tmp_path, content), grey(GREY))
    said = png_chunk(b"sBIT", bytes([12]))
    assert near(decoded(tmp_path, png(twelve, said)), grey(GREY))  # 12 bits, not stretched
    stretched = ((twelve << 4) | (twelve >> 8)).astype(np.uint16)
    assert near(decoded(tmp_path, png(stretched, said)), grey(GREY))  # as the standard wants it
    assert near(decoded(tmp_path, png((GREY * 257 // 300).astype(np.uint16) << 4, said)), grey(GREY * 257 // 300 >> 4))
    maximum = b"P5 20 12 4095\n" + twelve.astype(">u2").tobytes()
    for rules in ({}, {"bits": 12}):
        assert near(decoded(tmp_path, maximum, **rules), grey(GREY))


def test_f066_few_bits_in_bytes_and_rules_that_cannot_act(tmp_path):
    mask = (GREY > 100).astype(np.uint8)
    assert decoded(tmp_path, png(mask)).max() == 1
    assert np.array_equal(decoded(tmp_path, png(mask), bits=1), grey(mask * 255))
    assert near(decoded(tmp_path, png(NOISE), bits=12), NOISE, 0)  # 8 bits have no 12: their own white stays
    with pytest.raises(InputError, match="bits is 0"):
        ImageRules(bits=0)
    with pytest.raises(InputError, match="bits is '12'"):
        ImageRules(bits="12")


def test_f066_zero_is_white_where_the_file_says_so(tmp_path):
    deep = (GREY * 257).astype(np.uint16)
    assert near(decoded(tmp_path, tiff(deep, {262: [0]})), grey(255 - GREY))
    assert near(decoded(tmp_path, tiff(GREY.astype(np.uint8), {262: [0]})), grey(255 - GREY))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_f067_transparency_can_be_ignored(tmp_path, mode):
    alpha = np.zeros((12, 20), dtype=np.uint8)
    alpha[:, :3] = 255
    image = Image.fromarray(np.dstack([grey(GREY), alpha]))
    image = image.quantize(250) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert (decoded(tmp_path, content)[:, 3:] == 255).all()
    shown = decoded(tmp_path, content, transparency="ignore")
    assert near(shown[:, :3], grey(GREY)[:, :3], 12)
    if mode != "P":  # quantize keeps no colour under what is transparent
        assert near(shown, grey(GREY), 0)
    with pytest.raises(InputError, match=r"background is .* does nothing"):
        ImageRules(transparency="ignore", background=(0, 0, 0))


def test_f067_a_band_that_the_file_does_not_call_alpha_is_none(tmp_path):
    infrared = RNG.integers(0, 60, (12, 20, 1), dtype=np.uint8)
    bands = np.concatenate([NOISE, infrared], axis=2)
    for tags, shown, dropped in (({}, NOISE, 1), ({338: [0]}, NOISE, 1), ({338: [2]}, None, 0)):
        result = decoded(tmp_path, tiff(bands, tags))
        assert near(result, NOISE, 0) == (shown is not None)
        assert probe(tmp_path / "image.bin").dropped_bands == dropped
    five = np.concatenate([bands, infrared], axis=2)
    assert near(decoded(tmp_path, tiff(five, {338: [0, 0]})), NOISE, 0)
    assert probe(tmp_path / "image.bin").dropped_bands == 2


def photo_with_exif(suffix, **tags):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for tag, value in tags.items():
        exif[int(tag[1:])] = value
    out = io.BytesIO()
    options = {"quality": 95} if suffix == "JPEG" else {"lossless": True} if suffix == "WEBP" else {}
    Image.fromarray(NOISE).save(out, suffix, exif=exif.tobytes(), **options)
    return out.getvalue()


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_f068_exif_kills_no_image(tmp_path, suffix):
    good = photo_with_exif(suffix, t282=1.0, t305="some software", t306="2020:01:01 00:00:00")
    expected = decoded(tmp_path, good)
    assert expected.shape == (20, 12, 3)
    position = good.index(b"some software") if suffix != "AVIF" else good.index(b"Exif\0", 200)
    for length in (1, 4, 13):
        broken = bytearray(good)
        broken[position : position + length] = b"\xff" * length
        assert decoded(tmp_path, bytes(broken)).size == expected.size


def test_f068_a_tag_that_cannot_be_written_back_is_left_alone(tmp_path):
    good = photo_with_exif("JPEG", t282=3.0)
    ratio, entry = struct.pack(">II", 3, 1), struct.pack(">HH", 282, 5)
    assert ratio in good
    assert entry in good
    signed = struct.pack(">HH", 282, 10)
    for odd in (struct.pack(">ii", -1, 0), struct.pack(">II", 0, 0), b"\xff" * 8):
        result = decoded(tmp_path, good.replace(ratio, odd).replace(entry, signed))
        assert np.array_equal(result, decoded(tmp_path, good))
        assert result.shape == (20, 12, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_f068_orientations_act_or_not_as_asked_in_every_format(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(grey(GREY)).save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    as_stored, turned = decode(path, ImageRules(apply_exif=False)), decode(path)
    assert near(as_stored, grey(GREY), 4)
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}
    expected = np.rot90(grey(GREY), turns[orientation])
    expected = expected[:, ::-1] if orientation in (2, 4) else expected[::-1] if orientation in (5, 7) else expected
    assert near(turned, expected, 4)
    for rules, pixels in ((ImageRules(apply_exif=False), as_stored), (ImageRules(), turned)):
        info = probe(path, rules)
        assert (info.height, info.width) == pixels.shape[:2]


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_f069_a_large_side_chunk_harms_no_png(tmp_path, name):
    side = png_chunk(name, b"prompt\0\0" + zlib.compress(bytes(3_000_000)))
    assert np.array_equal(decoded(tmp_path, png(NOISE, side)), NOISE)
    wrong = side[:-1] + bytes([side[-1] ^ 1])  # nor does its checksum
    assert np.array_equal(decoded(tmp_path, png(NOISE, wrong)), NOISE)
    assert "damaged" in refused(tmp_path, png(NOISE, side)[:-20])


def test_f069_more_formats_are_decoded(tmp_path):
    assert np.array_equal(decoded(tmp_path, b"P6 20 12 255\n" + NOISE.tobytes()), NOISE)
    out = io.BytesIO()
    Image.fromarray(NOISE).save(out, "JPEG2000", irreversible=False)
    assert np.array_equal(decoded(tmp_path, out.getvalue()), NOISE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff(np.zeros((12, 20, 5), np.uint8)), ["TIFF of 5 bands of 8-bit unsigned", "unknown pixel mode", "PNG"]),
        (tiff(np.zeros((12, 20, 3), np.float32), {339: [3, 3, 3]}), ["TIFF of 3 bands of 32-bit floating-point"]),
        (tiff(COLORS, planar=True), ["16-bit samples lie in separate planes", "PNG"]),
        (png(NOISE)[:20], ["is a PNG that Pillow cannot read"]),
        (b"P6 20 x 255\n", ["is a PPM that Pillow cannot read", "x"]),
        (b"8BPS\0\1" + bytes(40), ["Photoshop"]),
        (b"\xff\x0a" + bytes(40), ["JPEG XL"]),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), ["HDF5"]),
    ],
    ids=["five bands", "float colour", "planes", "cut PNG", "PPM", "Photoshop", "JPEG XL", "HDF5"],
)
def test_f069_what_cannot_be_decoded_is_named_with_the_reason(tmp_path, content, words):
    said = refused(tmp_path, content)
    assert all(word in said for word in words), said
    assert "is not a readable image" not in said


def test_f070_signed_samples_are_named_so(tmp_path):
    signed = tiff(np.linspace(-1000, 3000, 240).reshape(12, 20).astype(np.int16), {339: [2]})
    assert "signed, from -1000 to 3000" in refused(tmp_path, signed)
    assert "signed 8-bit" in refused(tmp_path, tiff((GREY - 100).astype(np.int8), {339: [2]}))
    positive = tiff((GREY * 128).astype(np.int16), {339: [2]})  # of 32,767, the largest that it can hold
    assert near(decoded(tmp_path, positive), grey(GREY), 2)
    assert "more than 16 bits" in refused(tmp_path, tiff(GREY.astype(np.uint32) * 70_000))


def competition(root, contents):
    """Twelve images, or as many as there are, of two classes; and a table that names them."""
    (root / "images").mkdir(parents=True)
    for row, content in enumerate(contents):
        (root / "images" / f"{row:02d}.png").write_bytes(content)
    lines = [f"{row:02d},{'ab'[row % 2]}\n" for row in range(len(contents))]
    (root / "train.csv").write_text("id,color\n" + "".join(lines))
    return root


def checked(root, capsys, **changes):
    """Exit code and words of `swinft check`."""
    base = {"data.root": str(root), "data.image": "images/{id}.png", "data.test": None, "data.sample_submission": None}
    base |= {f"data.{key}": value for key, value in changes.items()}
    config = write_config(root / "config.yaml", tiny_config(root, root / "runs", **base))
    code = main(["check", "--config", str(config)])
    words = capsys.readouterr()
    return code, words.out + words.err


def textures(count=12, bands=3):
    """Different images that are worth looking at."""
    rng = np.random.default_rng(1)
    shape = (32, 36) if bands == 1 else (32, 36, bands)
    return [rng.integers(0, 256, shape).astype(np.uint16) for _ in range(count)]


@pytest.mark.parametrize("bands", [1, 3])
def test_f066_check_says_that_samples_use_few_of_their_bits(tmp_path, capsys, bands):
    root = competition(tmp_path / "a", [png((one * 16).astype(np.uint16)) for one in textures(bands=bands)])
    code, said = checked(root, capsys)
    assert code == 0
    assert "12 of 12 images: their samples use 12 of 16 bits" in said
    assert "set data.loading.image_rules.bits to 12" in said
    assert "bits" not in checked(root, capsys, loading={"image_rules": {"bits": 12}})[1]
    full = competition(tmp_path / "b", [png((one * 257).astype(np.uint16)) for one in textures(bands=bands)])
    assert "bits" not in checked(full, capsys)[1]
    masks = competition(tmp_path / "c", [png((one > 99).astype(np.uint8)) for one in textures(bands=bands)])
    assert "12 of 12 images: their samples use 1 of 8 bits" in checked(masks, capsys)[1]


def test_f067_check_says_what_transparency_hides_and_which_bands_are_left_out(tmp_path, capsys):
    hidden = [one.astype(np.uint8) for one in textures(bands=4)]
    for one in hidden:
        one[:, :, 3] = 0
    root = competition(tmp_path / "a", [png(one) for one in hidden])
    code, said = checked(root, capsys)
    assert code == 0
    assert "12 of 12 images: transparency hides or fades more than half of the pixels" in said
    assert "set data.loading.image_rules.transparency to ignore" in said
    assert "are blank" in said  # as they are, over white
    _, said = checked(root, capsys, loading={"image_rules": {"transparency": "ignore"}})
    assert "transparency hides" not in said
    assert "blank" not in said
    four = competition(tmp_path / "b", [tiff(one.astype(np.uint8)) for one in textures(bands=4)])
    assert (
        "12 of 12 images: 1 band that the file declares neither colour nor transparency is ignored"
        in (checked(four, capsys)[1])
    )


def test_f070_blank_images_are_blank_and_no_leak(tmp_path, capsys):
    black = [png(np.zeros((32, 36, 3), np.uint8))] * 6
    root = competition(tmp_path / "a", black + [png(one.astype(np.uint8)) for one in textures(6)])
    code, said = checked(root, capsys, folds={"duplicates": "error"})
    assert code == 0
    assert "6 images are blank" in said
    assert "leak" not in said


@pytest.mark.parametrize("is_folder", [False, True])
def test_f071_links_out_of_the_folder_are_the_users_choice(tmp_path, capsys, is_folder):
    root = competition(tmp_path / "data", [png(one.astype(np.uint8)) for one in textures()])
    images, store = root / "images", tmp_path / "store"
    images.rename(store)
    images.mkdir()
    if is_folder:
        (images / "sub").symlink_to(store)
    for file in store.iterdir() if not is_folder else ():
        (images / file.name).symlink_to(file)
    template = {"image": "images/{folder}/{id}.png"} if is_folder else {}
    if is_folder:
        lines = (root / "train.csv").read_text().splitlines()
        (root / "train.csv").write_text("\n".join(["id,color,folder", *(f"{line},sub" for line in lines[1:])]) + "\n")
    code, said = checked(root, capsys, **template)
    assert code == 2
    assert "set data.loading.follow_links to true" in said
    assert checked(root, capsys, loading={"follow_links": True}, **template)[0] == 0
    if is_folder:  # a cell may not lead out, whatever is set
        table = (root / "train.csv").read_text()
        (root / "train.csv").write_text(table.replace(",sub", ",../../store"))
        code, said = checked(root, capsys, loading={"follow_links": True}, **template)
        assert code == 2
        assert "the path leaves the images' folder" in said


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"exif": True}])
def test_a_jpeg_whose_end_is_nothing_but_zeros_is_damaged(tmp_path, options):
    """What an interrupted download leaves where the space was taken first; decoders take the zeros for pixels."""
    if "exif" in options:
        thumbnail = io.BytesIO()
        Image.fromarray(NOISE).save(thumbnail, "JPEG")
        options = {"exif": b"Exif\0\0II*\0" + thumbnail.getvalue()}  # which has an end of its own
    file = io.BytesIO()
    Image.fromarray(np.tile(NOISE, (8, 8, 1))).save(file, "JPEG", quality=95, **options)
    whole = file.getvalue()
    assert len(whole) > 5000
    for kept in (len(whole) // 2, len(whole) - 40):
        said = refused(tmp_path, whole[:kept].ljust(len(whole), b"\0"))
        assert "is a JPEG whose end is nothing but zeros. Restore it" in said
    padded = decoded(tmp_path, whole + bytes(512))  # behind the end they are padding
    assert np.array_equal(padded, decoded(tmp_path, whole))


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 1}])
@pytest.mark.parametrize("level", [0, 9, 255])
def test_a_jpeg_of_one_colour_is_whole(tmp_path, options, level):
    file = io.BytesIO()
    Image.new("RGB", (600, 400), (level,) * 3).save(file, "JPEG", **options)
    assert np.array_equal(decoded(tmp_path, file.getvalue() + bytes(64)), np.asarray(Image.open(file)))
