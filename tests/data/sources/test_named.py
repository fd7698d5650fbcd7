"""Images in archives, HDF5 files and columns: the same as files, and nothing hostile is read."""

import io
import os
import pickle
import stat
import struct
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from swinft.data.images.arrays import read_array
from swinft.data.images.decode import decode
from swinft.data.sources import archives
from swinft.data.sources.column import ColumnSource
from swinft.data.sources.files import FileSource
from swinft.data.sources.hdf5 import HDF5Source
from swinft.data.sources.source import ImageError, read_image
from swinft.data.sources.zip import ZipSource
from swinft.data.tables.table import read_table
from swinft.errors import InputError

PIXELS = np.arange(9 * 9 * 3, dtype=np.uint8).reshape(9, 9, 3)


def png(pixels=PIXELS):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def found(source, root, template, *ids, header="id"):
    """References and problems of a table of some rows."""
    path = root / "t.csv"
    path.write_text("\n".join([header, *ids]) + "\n")
    problems = []
    table = read_table(path, "id", {}, problems)
    assert not problems
    return source.references(table, template, root, problems), [f"{each.message}. {each.fix}" for each in problems]


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tarred(path, members, mode="w"):
    """Members are (TarInfo or name, bytes)."""
    with tarfile.open(path, mode) as archive:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [zipped, tarred])
def test_missing_members_are_named_with_the_nearest_as_files_are(tmp_path, make):
    make(tmp_path / "a.zip", [("x/001.png", png()), ("./x/B.png", png()), ("x/é.png", png())])
    paths, problems = found(ZipSource(), tmp_path, "a.zip/x/{id}.png", "001", "b", "1", "e\u0301", "zzz")
    assert [problem.split(".")[0] for problem in problems] == ["the image file is missing"] * 3
    assert "'B.png'" in problems[0]
    assert "{id:03d}" in problems[1]
    assert paths[3] == str(tmp_path / "a.zip/x/é.png")
    _, (problem,) = found(ZipSource(), tmp_path, "a.zip/{id}.png", "001", "b")
    assert "the folder of 2 images is missing" in problem
    assert "no image outside of its folders. Allowed: x." in problem
    _, (problem,) = found(ZipSource(), tmp_path, "b.zip/{id}.png", "001")
    assert "There is no 'b.zip'" in problem
    assert "'a.zip'" in problem
    _, (problem,) = found(FileSource(), tmp_path, "a.zip/x/{id}.png", "001")
    assert "a.zip is a file: data.loading.source zip" in problem


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def encrypted(path):
    """Sets the bit of the first member that says so."""
    content = bytearray(path.read_bytes())
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def declared(path, size):
    """Makes the last member say another size."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.rfind(b"PK\x01\x02") + 24, size)
    path.write_bytes(content)


HOSTILE = {
    "is a link": lambda path: zipped(path, [(zip_link("a.png"), "/etc/passwd")]),
    "is a link to '/etc/passwd'": lambda path: tarred(path, [(link("a.png", "/etc/passwd"), b"")]),
    "is a link to 'b.png'": lambda path: tarred(
        path, [("b.png", png()), (link("a.png", "b.png", tarfile.LNKTYPE), b"")]
    ),
    "is not a regular file": lambda path: tarred(path, [(link("a.png", "", tarfile.CHRTYPE), b"")]),
    "'/a.png' is a path that leads out": lambda path: zipped(path, [("/a.png", png())]),
    "'../a.png' is a path that leads out": lambda path: tarred(path, [("../a.png", png())]),
    "'x\\..\\..\\a.png' is a path that leads out": lambda path: zipped(path, [("x\\..\\..\\a.png", png())]),
    "is encrypted": lambda path: encrypted(zipped(path, [("a.png", png())])),
    "bytes, more than any image": lambda path: declared(zipped(path, [("a.png", png())]), 2**31),
    "uses an unsupported compression": lambda path: zipped(path, [("a.png", png())], zipfile.ZIP_LZMA),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", [*HOSTILE, "exists twice"])
def test_a_member_that_is_not_what_it_seems_is_named(tmp_path, what):
    path = tmp_path / "a.zip"
    HOSTILE.get(what, lambda path: zipped(path, [("a.png", png()), ("./a.png", png())]))(path)
    source = ZipSource()
    (reference,), (problem,) = found(source, tmp_path, "a.zip/{id}.png", "a")
    assert f"In {path}, " in problem
    assert what in problem
    with pytest.raises(ImageError, match=r"a\.png cannot be read"):
        read_image(reference, source)


def test_what_no_row_names_harms_nothing(tmp_path):
    zipped(tmp_path / "a.zip", [("a.png", png()), (zip_link("b.png"), "/etc/passwd"), ("../c.png", b"")])
    source = ZipSource()
    (reference,), problems = found(source, tmp_path, "a.zip/{id}.png", "a")
    assert problems == []
    assert source.read(reference) == png()


def test_a_member_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.png", bytes(10**8))])
    declared(path, 1000)
    source = ZipSource()
    (reference,), problems = found(source, tmp_path, "a.zip/{id}.png", "a")
    assert not problems
    with pytest.raises(ImageError, match=r"a\.png cannot be read: it is damaged in .*size or checksum"):
        read_image(reference, source)


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
def test_a_truncated_archive_is_one_problem(tmp_path, make, kept):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    path = make(tmp_path / "a.zip", [(f"{k}.png", png(noise)) for k in range(4)])
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[: int(kept * len(content))])
    _, (problem,) = found(ZipSource(), tmp_path, "a.zip/{id}.png", *"0123")
    assert "the folder of 4 images cannot be read" in problem
    assert f"{path} is damaged, incomplete" in problem


def test_an_archive_that_is_none_is_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>log in</html>")
    assert "not a zip or tar archive" in found(ZipSource(), tmp_path, "a.zip/{id}", "a")[1][0]
    tarred(tmp_path / "b.tgz", [("a.png", png())], "w:gz")
    assert "unpack it to a .tar" in found(ZipSource(), tmp_path, "b.tgz/{id}", "a")[1][0]


def hdf5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "hdf5"])
def test_a_file_that_changes_ends_the_reading(tmp_path, kind):
    path, make = tmp_path / f"a.{kind}", {"zip": zipped, "tar": tarred}.get(kind)
    make(path, [("a", png())]) if make else hdf5(path, a=np.void(png()))
    source = ZipSource() if make else HDF5Source()
    (reference,), _ = found(source, tmp_path, f"a.{kind}/{{id}}", "a")
    assert read_image(reference, source) == png()
    before = source.stat(reference)
    os.utime(path, ns=(0, 0))
    assert source.stat(reference) != before
    with pytest.raises(InputError, match="has changed while images were read") as caught:
        read_image(reference, pickle.loads(pickle.dumps(source)))
    assert not isinstance(caught.value, ImageError)  # rows are not skipped for it


def test_an_archive_that_a_row_names_may_not_be_a_link_out(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    zipped(tmp_path / "secret.zip", [("a.png", png())])
    (data / "b.zip").symlink_to(tmp_path / "secret.zip")
    assert "is a link that leaves" in found(ZipSource(), data, "{id}/a.png", "b.zip")[1][0]
    assert found(ZipSource(), data, "b.zip/{id}.png", "a")[1] == []
    assert "leaves the images' folder" in found(ZipSource(), data, "b.zip/{id}", "../../secret.zip/a.png")[1][0]


def test_hdf5_holds_bytes_and_pixels_in_every_way(tmp_path):
    images = np.stack([PIXELS, PIXELS[::-1]])
    path = hdf5(tmp_path / "a.h5", opaque=np.void(png()), flat=np.frombuffer(png(), np.uint8), text=np.bytes_(png()))
    with h5py.File(path, "a") as file:
        file["x"], file["grey"], file["names"] = images, images[..., 0], np.array([b"q", b"p"])
        file["one/deeper"] = np.void(png())
        file["float"] = images.astype(float)
        packed = file.create_dataset("packed", 2, h5py.vlen_dtype(np.uint8))
        packed[0], packed[1] = np.frombuffer(b"", np.uint8), np.frombuffer(png(), np.uint8)
        file["out"], file["soft"] = h5py.ExternalLink("/etc/x.h5", "a"), h5py.SoftLink("/x")
    source = HDF5Source()
    paths, problems = found(source, tmp_path, "a.h5/{id}", "opaque", "flat", "text", "out", "soft")
    assert not problems
    assert {read_image(path, source) for path in paths[:2]} == {png()}
    assert read_image(paths[2], source).rstrip(b"\0") == png().rstrip(b"\0")
    for path in paths[3:]:
        with pytest.raises(ImageError, match="is a link"):
            read_image(path, source)
    named = HDF5Source("names")
    ways = [(source, "x", "01"), (named, "x", "qp"), (named, "grey", "qp")]
    for way, array, ids in ways:
        paths, problems = found(way, tmp_path, f"a.h5/{array}/{{id}}", *ids)
        assert not problems
        copy = pickle.loads(pickle.dumps(way))
        decoded = [np.asarray(Image.open(io.BytesIO(read_image(path, copy)))) for path in paths]
        assert np.array_equal(decoded, images[..., 0] if array == "grey" else images)
    source = HDF5Source()
    (path,), _ = found(source, tmp_path, "a.h5/packed/{id}", "1")
    assert read_image(path, source) == png()
    assert "the image file is missing" in found(named, tmp_path, "a.h5/x/{id}", "z")[1][0]
    source = HDF5Source()
    (path,), _ = found(source, tmp_path, "a.h5/float/{id}", "1")
    with pytest.raises(ImageError, match="of another type than uint8"):
        decode(path, source=source)
    assert "no dataset 'no', which" in found(HDF5Source("no"), tmp_path, "a.h5/x/{id}", "q")[1][0]
    assert "has no folder 'y'. Allowed: " in found(HDF5Source(), tmp_path, "a.h5/y/{id}", "q")[1][0]
    assert "'soft' is a link" in found(HDF5Source(), tmp_path, "a.h5/soft/{id}", "q")[1][0]


def test_a_truncated_hdf5_is_one_problem(tmp_path):
    path = hdf5(tmp_path / "a.h5", a=np.void(png()), b=np.void(png()))
    path.write_bytes(path.read_bytes()[:-100])
    _, (problem,) = found(HDF5Source(), tmp_path, "a.h5/{id}", "a", "b")
    assert "the folder of 2 images cannot be read" in problem
    assert f"{path} cannot be read as HDF5" in problem


def columns(root, source, template, header, *rows):
    (first, *_), problems = found(source, root, template, *rows, header=header)
    return (None if problems else np.asarray(Image.open(io.BytesIO(read_image(first, source))))), problems


def test_columns_are_pixels_in_the_order_of_their_numbers(tmp_path):
    header, row = "id,p10,p2,p1,p0,p3,p4,p5,p6,p7,p8,p9,p11", "a,10,2,1,0,3,4,5,6,7.0,8,9,11"
    image, _ = columns(tmp_path, ColumnSource(height=3), "p*", header, row)
    assert np.array_equal(image, np.arange(12).reshape(3, 4))
    image, _ = columns(tmp_path, ColumnSource(width=2, channels=3), "p*", header, row)
    assert np.array_equal(image, np.arange(12).reshape(2, 2, 3))
    image, _ = columns(tmp_path, ColumnSource(), "pixels", "id,pixels", "a,0 1 2 3", "b,4 5 6 7")
    assert np.array_equal(image, [[0, 1], [2, 3]])
    source = ColumnSource(values="numbers")
    (first, *_), problems = found(source, tmp_path, "pixels", "a,-27.5 1e-1 nan 3", header="id,pixels")
    assert not problems
    samples, _ = read_array(read_image(first, source))
    np.testing.assert_array_equal(samples[..., 0], np.array([[-27.5, 0.1], [np.nan, 3]], np.float32))


@pytest.mark.parametrize(
    ("source", "template", "row", "message"),
    [
        (ColumnSource(), "p*", "a,1,2,3", "3 columns do not make an image"),
        (ColumnSource(height=2), "p*", "a,1,2,3", "3 columns do not make an image"),
        (ColumnSource(height=1), "q*", "a,1,2,3", "there is no such column"),
        (ColumnSource(height=1), "*", "a,1,2,3", "'a' must be a whole number"),
        (ColumnSource(height=1), "p*", "a,1,256,3", "'256' must be a whole number in 0–255"),
        (ColumnSource(height=1), "p*", "a,1,,3", "'' must be a whole number in 0–255"),
        (ColumnSource(height=1), "p*", "a,1,0.5,3", "'0.5' must be"),
        (ColumnSource(height=1, values="numbers"), "p*", "a,1,-0.5e1,x", "'x' must be a number"),
        (ColumnSource(height=1, values="numbers"), "p*", "a,1,,3", "'' must be a number"),
        (ColumnSource(height=1, values="numbers"), "p*", "a,1,1e60,3", "'1e60' must be a number"),
        (ColumnSource(height=2), "p0", "a,1,2,3", "an image has 0 values"),
    ],
)
def test_columns_that_make_no_image_are_named(tmp_path, source, template, row, message):
    assert message in columns(tmp_path, source, template, "id,p0,p1,p2", row)[1][0]


def test_no_more_of_an_image_is_held_than_an_image_can_have(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 10)
    tarred(tmp_path / "a.tar", [("a.png", png())])
    assert "more than any image" in found(ZipSource(), tmp_path, "a.tar/{id}.png", "a")[1][0]
