"""DICOM files: every transfer syntax, windows, ranges, frames, colours, and the order of a series."""

import io
import zipfile
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from swinft.data.images.decode import decode, load, probe
from swinft.data.images.dicom import series_order
from swinft.data.images.rules import ImageRules
from swinft.data.sources.files import FILES
from swinft.data.sources.source import ImageError
from swinft.data.sources.zip import ZipSource
from swinft.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 4096, (24, 20)).astype(np.uint16)
SMOOTH = np.add.outer(np.arange(24), np.arange(20)).astype(np.uint16) * 90
SYNTAXES = {
    "jpeg lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpeg-ls": gdcm.TransferSyntax.JPEGLSLossless,
    "jpeg 2000": gdcm.TransferSyntax.JPEG2000Lossless,
}


def dicom(samples: np.ndarray, syntax: str = ExplicitVRLittleEndian, **attributes: object) -> pydicom.Dataset:
    """A file of grey samples, (H, W) or (frames, H, W), or of colours (H, W, 3)."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    is_rgb = samples.ndim == 3 and samples.shape[2] == 3
    data.Rows, data.Columns = samples.shape[:2] if samples.ndim == 2 or is_rgb else samples.shape[1:]
    if samples.ndim == 3 and not is_rgb:
        data.NumberOfFrames = len(samples)
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if is_rgb else (1, "MONOCHROME2")
    if is_rgb:
        data.PlanarConfiguration = 0
    bits = 8 * samples.dtype.itemsize
    stored = 12 if samples.dtype == np.uint16 else bits
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, stored, stored - 1
    data.PixelRepresentation = int(samples.dtype.kind == "i")
    data.PixelData = samples.astype(samples.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


def saved(path: Path, data: pydicom.Dataset) -> Path:
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def to_bytes(levels: np.ndarray, bits: int) -> np.ndarray:
    white = 2**bits - 1
    return (levels.astype(int) * 255 + white // 2) // white


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        *SYNTAXES,
    ],
)
def test_every_transfer_syntax_gives_the_samples_that_were_written(tmp_path, syntax):
    for samples, bits in ((GREY, 12), ((GREY >> 4).astype(np.uint8), 8)):
        plain = syntax if syntax not in (RLELossless, *SYNTAXES) else ExplicitVRLittleEndian
        data = dicom(samples, plain)
        if syntax == RLELossless:
            data.compress(RLELossless)
        path = saved(tmp_path / "a.dcm", data)
        if syntax in SYNTAXES:
            reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
            reader.SetFileName(str(path))
            assert reader.Read()
            change.SetTransferSyntax(gdcm.TransferSyntax(SYNTAXES[syntax]))
            change.SetInput(reader.GetImage())
            assert change.Change()
            writer.SetFileName(str(path))
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            assert writer.Write()
        assert np.array_equal(decode(path)[:, :, 1], to_bytes(samples, bits))
        if bits == 12:
            kept = decode(path, ImageRules(keep="uint16"))
            assert np.array_equal(kept[:, :, 0], np.rint(samples / np.float32(4095) * 65535).astype(np.uint16))
        info = probe(path)
        assert (info.width, info.height, info.format, info.bits, info.frames) == (20, 24, "DICOM", bits, 1)


def test_jpeg_baseline_is_what_pillow_decodes(tmp_path):
    colours = np.stack([SMOOTH // 20, SMOOTH // 40, 255 - SMOOTH // 20], axis=-1).astype(np.uint8)
    for image, name in ((Image.fromarray(colours), "YBR_FULL_422"), (Image.fromarray(colours[..., 0]), "MONOCHROME2")):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95)
        data = dicom(np.asarray(image), JPEGBaseline8Bit, PhotometricInterpretation=name)
        data.PixelData = encapsulate([file.getvalue()])
        data["PixelData"].is_undefined_length = True
        found = decode(saved(tmp_path / "a.dcm", data)).astype(int)
        assert np.abs(found - np.asarray(Image.open(file).convert("RGB"))).max() <= 2


def test_windows(tmp_path):
    stored = np.array([[0, 1024, 1064, 1104, 1184, 2000]] * 4, np.int16)
    units = {"RescaleSlope": 1, "RescaleIntercept": -1024}  # −1024, 0, 40, 80, 160, 976 HU
    path = saved(tmp_path / "a.dcm", dicom(stored, **units))
    assert decode(path, ImageRules(window=(40, 80)))[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]
    three = decode(path, ImageRules(window=[(40, 80), (80, 160), (0, 4000)]))[0]
    assert three[:, 1].tolist() == [0, 0, 64, 128, 255, 255]
    assert three[2].tolist() == [128, 64, 130]
    wide = decode(path, ImageRules(window=(40, 80), keep="float32"))
    assert wide.dtype == np.float32
    assert wide[0, 2].tolist() == [0.5] * 3
    by_range = decode(path, ImageRules(keep="uint16", range=(0, 80)))
    assert by_range[0, :, 0].tolist() == [0, 0, 32768, 65535, 65535, 65535]
    inverted = saved(tmp_path / "b.dcm", dicom(stored, PhotometricInterpretation="MONOCHROME1", **units))
    assert decode(inverted, ImageRules(window=(40, 80)))[0, :, 0].tolist() == [255, 255, 128, 0, 0, 0]
    assert np.array_equal(
        decode(saved(tmp_path / "c.dcm", dicom(GREY, PhotometricInterpretation="MONOCHROME1"))),
        np.repeat(255 - to_bytes(GREY, 12)[:, :, None], 3, axis=2),
    )


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"WindowCenter": 40, "WindowWidth": 80, "VOILUTFunction": "LINEAR_EXACT"}, [0, 0, 0.5, 1, 1, 1]),
        (
            {"WindowCenter": [40, 600], "WindowWidth": [80, 2000]},
            [0, 0.5 / 79 - 40 / 79 + 0.5, 0.5 / 79 + 0.5, 1, 1, 1],
        ),
        (
            {"WindowCenter": 40, "WindowWidth": 80, "VOILUTFunction": "SIGMOID"},
            [0, 0.119203, 0.5, 0.880797, 0.997527, 1],
        ),
    ],
)
def test_the_window_of_the_file(tmp_path, attributes, expected):
    stored = np.array([[0, 1024, 1064, 1104, 1184, 2000]] * 4, np.int16)
    path = saved(tmp_path / "a.dcm", dicom(stored, RescaleSlope=1, RescaleIntercept=-1024, **attributes))
    found = decode(path, ImageRules(window="file", keep="float32"))[0, :, 0]
    assert found == pytest.approx(np.clip(expected, 0, 1), abs=1e-5)


def test_a_window_of_an_enhanced_file_is_that_of_its_frame(tmp_path):
    data = dicom(np.stack([SMOOTH, SMOOTH]).astype(np.int16))
    groups = []
    for center in (200, 900):
        window, units, group = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, 100, "LINEAR_EXACT"
        units.RescaleSlope, units.RescaleIntercept = 1, 0
        group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [window], [units]
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    path = saved(tmp_path / "a.dcm", data)
    rules = ImageRules(window="file")
    for frame, center in enumerate((200, 900)):
        pixels, _, info = load(path, path.read_bytes(), None, rules, frame)
        expected = np.rint(255 * np.clip((SMOOTH.astype(float) - center) / 100 + 0.5, 0, 1))
        assert np.array_equal(pixels[:, :, 0], expected)
        assert info.frames == 2


def test_signed_samples_from_0_have_a_bit_less(tmp_path):
    found = decode(saved(tmp_path / "a.dcm", dicom(8 * GREY.astype(np.int16))))
    assert np.array_equal(found[:, :, 2], to_bytes(8 * GREY, 15))


def test_colours(tmp_path):
    colours = RNG.integers(0, 256, (24, 20, 3)).astype(np.uint8)
    assert np.array_equal(decode(saved(tmp_path / "a.dcm", dicom(colours))), colours)
    planes = dicom(colours, PlanarConfiguration=1)
    planes.PixelData = colours.transpose(2, 0, 1).tobytes()
    assert np.array_equal(decode(saved(tmp_path / "b.dcm", planes)), colours)
    with pytest.raises(ImageError, match="in colour"):
        decode(tmp_path / "a.dcm", ImageRules(window="file"))


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path):
    path = tmp_path / "a.dcm"
    signed = dicom(GREY.astype(np.int16) - 2000)
    cases = {
        "whose white is not known": (signed, {}),
        "declares no window": (dicom(GREY), {"window": "file"}),
        "has more than one frame": (dicom(np.stack([GREY, GREY])), {"animated": "error"}),
        "a side is shorter than": (dicom(GREY[:2]), {}),
        "window has the width -5": (dicom(GREY, WindowCenter=1, WindowWidth=-5), {"window": "file"}),
    }
    for said, (data, rules) in cases.items():
        with pytest.raises(ImageError, match=said) as error:
            decode(saved(path, data), ImageRules(**rules))
        assert str(path) in str(error.value)
    content = saved(path, dicom(GREY)).read_bytes()
    for kept in (200, len(content) - 100):
        path.write_bytes(content[:kept])
        with pytest.raises(ImageError, match="is damaged or cannot be used"):
            decode(path)
    report = dicom(GREY)
    for name in ("Rows", "Columns", "PixelData", "PhotometricInterpretation"):
        delattr(report, name)
    with pytest.raises(ImageError, match="a DICOM file without an image"):
        decode(saved(path, report))
    text = dicom(GREY)
    del text.PixelData
    with pytest.raises(ImageError, match="it has no pixel data"):
        decode(saved(path, text))
    png = tmp_path / "a.png"
    Image.fromarray(SMOOTH.astype(np.uint8)).save(png)
    with pytest.raises(ImageError, match=r"is a PNG, and .*window is for DICOM files"):
        decode(png, ImageRules(window="file"))


def test_a_file_without_a_preamble_is_known_by_its_name(tmp_path):
    data = dicom(GREY, ImplicitVRLittleEndian)
    plain = tmp_path / "a.dcm"
    pydicom.dcmwrite(plain, data, enforce_file_format=False, implicit_vr=True, little_endian=True)
    content = saved(tmp_path / "b.dcm", data).read_bytes()
    headless = tmp_path / "c.dcm"
    headless.write_bytes(content[132:])
    assert np.array_equal(decode(headless), decode(tmp_path / "b.dcm"))


def series(folder: Path, places: list[tuple[str, float | None, int | None]], **attributes: object) -> list[str]:
    """Files of a series, by name, with their positions and instance numbers."""
    for name, position, number in places:
        data = dicom(GREY, ImageOrientationPatient=[1, 0, 0, 0, 1, 0], **attributes)
        if position is not None:
            data.ImagePositionPatient = [0, 0, position]
        if number is not None:
            data.InstanceNumber = number
        saved(folder / name, data)
    return sorted(str(folder / name) for name, *_ in places)


def names(order: list[str]) -> str:
    return "".join(Path(file).stem for file in order)


def test_a_series_is_in_the_order_of_its_positions_or_numbers(tmp_path):
    for files, expected in (
        ([("a.dcm", 10.0, 1), ("b.dcm", -5.0, 2), ("c.dcm", 2.5, 3)], "bca"),
        ([("a.dcm", None, 10), ("b.dcm", None, 9), ("c.dcm", 2.0, 2)], "cba"),
        ([("a.dcm", None, None), ("b.dcm", None, 1), ("c.dcm", None, 0)], "abc"),
        ([("a.dcm", 1.0, 2), ("b.dcm", 1.0, 1), ("c.dcm", 0.0, 9)], "cba"),
    ):
        folder = tmp_path / expected / str(files[0][1])
        folder.mkdir(parents=True)
        assert names(series_order(series(folder, files), FILES)) == expected
    folder = tmp_path / "broken"
    folder.mkdir()
    found = series(folder, [("b.dcm", 3.0, 1), ("c.dcm", 1.0, 2)])
    (folder / "a.dcm").write_bytes(b"no header")
    assert names(series_order([str(folder / "a.dcm"), *found], FILES)) == "cba"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"window": (40, 0)}, "write [center, width]"),
        ({"window": [(1, 2), (3, 4)]}, "three of these"),
        ({"window": "files"}, "or file"),
        ({"window": (40, 80), "range": (0, 1), "keep": "uint16"}, "remove one"),
        ({"window": (40, 80), "bits": 12}, "remove one"),
        ({"scale": "log"}, "needs a range above 0"),
        ({"scale": "log", "keep": "float32", "range": (0, 1)}, "needs a range above 0"),
        ({"fill_nan": 0.0}, "set keep and range"),
        ({"columns": "LL_*"}, "write patterns of columns"),
    ],
)
def test_wrong_rules_are_refused(rules, said):
    with pytest.raises(InputError, match=r"image rules are wrong") as error:
        ImageRules(**rules)
    assert said in str(error.value)


def lut(values: list[int], first: int, bits: int) -> pydicom.Dataset:
    """A lookup table from `first` on."""
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [len(values), first, bits], values
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    return table


def test_lookup_tables_of_the_file_replace_slope_and_window(tmp_path):
    stored = np.resize(np.arange(6), (6, 12)).astype(np.uint16)
    units = dicom(stored, RescaleSlope=7, RescaleIntercept=1)
    units.ModalityLUTSequence = [lut([0, 10, 20, 40, 80, 100], 0, 16)]
    found = decode(saved(tmp_path / "a.dcm", units), ImageRules(keep="float32", range=(0, 100)))[0, :6, 0]
    assert found == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1])
    shown = dicom(stored, WindowCenter=1, WindowWidth=1)
    shown.VOILUTSequence = [lut([0, 0, 64, 128, 192, 255], 0, 8)]
    by_file = decode(saved(tmp_path / "b.dcm", shown), ImageRules(window="file"))[0, :6, 0]
    assert by_file.tolist() == [0, 0, 64, 128, 192, 255]


def test_palette_colours_and_colours_of_16_bits(tmp_path):
    data = dicom(np.resize(np.arange(4), (8, 8)).astype(np.uint8), PhotometricInterpretation="PALETTE COLOR")
    colours = {"Red": [0, 65535, 0, 257], "Green": [0, 0, 65535, 257], "Blue": [65535, 0, 0, 257]}
    for name, values in colours.items():
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        data[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(data, f"{name}PaletteColorLookupTableData", np.array(values, "<u2").tobytes())
    found = decode(saved(tmp_path / "a.dcm", data))[0, :4]
    assert found.tolist() == [[0, 0, 255], [255, 0, 0], [0, 255, 0], [1, 1, 1]]
    deep = dicom(RNG.integers(0, 4096, (8, 8, 3)).astype(np.uint16))
    stored = deep.pixel_array.astype(int)
    assert np.array_equal(decode(saved(tmp_path / "b.dcm", deep)), to_bytes(stored, 12))


def test_a_series_in_an_archive_has_the_same_order(tmp_path):
    files = series(tmp_path, [("a.dcm", 10.0, 1), ("b.dcm", -5.0, 2), ("c.dcm", 2.5, 3)])
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for file in files:
            archive.write(file, f"s/{Path(file).name}")
    source = ZipSource()
    folder = f"{tmp_path}/train.zip/s"
    inside = [f"{folder}/{name}" for name in sorted(source.names(folder))]
    assert names(series_order(inside, source)) == "bca"
    assert np.array_equal(decode(inside[0], source=source), decode(files[0]))
