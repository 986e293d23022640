"""Images of any number of bands: which are read, which are used, and where there are no data."""

import importlib.util

import numpy as np
import pillow_heif
import pydicom
import pytest
from PIL import Image

from pos_hf.cli import predict
from pos_hf.data import DataArguments
from pos_hf.data.checks import check_data
from pos_hf.data.decoding import RowDecoder, rows_to_dataset
from pos_hf.data.images import count_channels, picture_size, read_image
from pos_hf.data.loading import load_data
from pos_hf.errors import InputError
from tests.rasters import write_geotiff

VALUES = np.random.default_rng(0).integers(200, 4000, (20, 26, 5)).astype(np.uint16)


def stored(path):
    return {"path": str(path), "bytes": None}


def save(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, values)
    else:
        write_geotiff(
            path, values, compress="deflate", tiled=path.stem == "tiled", blockxsize=16, blockysize=16
        )
    return stored(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.tif", "tiled.tiff", "A.TIF"])
def test_all_bands_or_those_asked_for_are_read_in_the_order_given(tmp_path, name):
    image = save(tmp_path / name, VALUES)
    assert count_channels(image) == 5 and picture_size(image) == (26, 20)
    np.testing.assert_array_equal(read_image(image), VALUES)
    np.testing.assert_array_equal(read_image(image, [4, 3, 2, 4]), VALUES[..., [3, 2, 1, 3]])
    decoder = RowDecoder(image_range=(200, 4000), bands=(5, 1))
    expected = np.floor(255 * (VALUES[..., [4, 0]] - 200.0) / 3800 + 0.5)
    np.testing.assert_array_equal(decoder.image(image), expected)
    with pytest.raises(InputError, match=rf"{name} has 5 bands, but `bands` asks for band 8: correct it"):
        RowDecoder(bands=(8,)).image(image)


def test_three_bands_are_a_picture_of_colours(tmp_path):
    image = save(tmp_path / "a.tif", VALUES)
    decoder = RowDecoder(image_range=(200, 4000), bands=(4, 3, 2))
    assert decoder.image(image).mode == "RGB" and decoder.count_channels(image) == 3


@pytest.mark.parametrize(
    ("mode", "bands", "expected"), [("RGB", (3,), [30]), ("RGBA", (4, 1), [99, 10]), ("L", (1,), [10])]
)
def test_bands_of_pictures_are_their_colours(tmp_path, mode, bands, expected):
    Image.new(mode, (4, 3), (10, 20, 30, 99)[: len(mode)] if len(mode) > 1 else 10).save(tmp_path / "a.png")
    assert RowDecoder(bands=bands).image(stored(tmp_path / "a.png"))[2, 3].tolist() == expected


def test_labels_where_an_image_has_no_data_are_ignored(tmp_path):
    values = VALUES[..., :4].copy()
    values[:5, :7] = 0
    values[9, 9, 2] = 0  # one band alone is not all of a pixel
    write_geotiff(tmp_path / "a.tif", values, nodata=0)
    Image.new("L", (26, 20), 1).save(tmp_path / "mask.png")
    rows = rows_to_dataset(["a"], [tmp_path / "a.tif"], [tmp_path / "mask.png"])
    row = rows.with_transform(RowDecoder(image_range=(200, 4000)))[0]
    expected = np.ones((20, 26))
    expected[:5, :7] = 255
    np.testing.assert_array_equal(np.asarray(row["mask"]), expected)
    assert not row["image"][:5, :7].any() and row["image"][9, 9, 2] == 0


def test_floats_without_data_are_black_and_others_that_are_not_finite_refused(tmp_path):
    values = VALUES[..., :2].astype(np.float32)
    values[0, 0] = np.nan
    write_geotiff(tmp_path / "a.tif", values, nodata=np.nan)
    decoder = RowDecoder(image_range=(200, 4000))
    assert decoder.image(stored(tmp_path / "a.tif"))[0, 0].tolist() == [0, 0]
    write_geotiff(tmp_path / "b.tif", values)
    with pytest.raises(InputError, match="not finite"):
        decoder.image(stored(tmp_path / "b.tif"))


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("a.tif", "rasterio", "geo"), ("a.dcm", "pydicom", "dicom"), ("a.heic", "pillow_heif", "heic")],
)
def test_without_a_package_a_sentence_says_what_to_install(tmp_path, monkeypatch, name, package, extra):
    image = save(tmp_path / "a.tif", VALUES)
    (tmp_path / name).touch()
    image["path"] = str(tmp_path / name)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(InputError, match=rf"{name} needs {package}: `pip install 'pos_hf\[{extra}\]'`"):
        RowDecoder(image_range=(0, 1)).image(image)


def write_dicom(path, values, **fields):
    """A file of one image, as scanners store it: whole numbers, and how they are rescaled."""
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    file.SOPInstanceUID = pydicom.uid.generate_uid()
    file.Rows, file.Columns = values.shape[:2]
    file.SamplesPerPixel = 1 if values.ndim == 2 else 3
    file.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    file.BitsAllocated = file.BitsStored = 8 * values.itemsize
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        file.PlanarConfiguration = 0
    file.PixelData = values.tobytes()
    for name, value in fields.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return stored(path)


def test_dicom_images_are_read_in_their_own_units(tmp_path):
    values = np.random.default_rng(3).integers(0, 2000, (10, 12)).astype(np.int16)
    image = write_dicom(tmp_path / "ct.dcm", values, RescaleSlope=2, RescaleIntercept=-1000)
    assert picture_size(image) == (12, 10) and count_channels(image) == 3
    with pytest.raises(InputError, match=r"ct\.dcm holds float64 values from -\d+.* set `image_range"):
        RowDecoder().image(image)
    window = RowDecoder(image_range=(-160, 240)).image(image)
    expected = np.floor(255 * ((values * 2.0 - 1000).clip(-160, 240) + 160) / 400 + 0.5)
    np.testing.assert_array_equal(np.asarray(window)[..., 1], expected)
    image = write_dicom(tmp_path / "x.dcm", values, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(image)[..., 0], values.max() + values.min() - values)
    colors = np.random.default_rng(4).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    picture = RowDecoder().image(write_dicom(tmp_path / "rgb.DCM", colors))
    np.testing.assert_array_equal(np.asarray(picture), colors)
    image = write_dicom(tmp_path / "series.dcm", np.concatenate([values] * 3), Rows=10, NumberOfFrames=3)
    with pytest.raises(InputError, match=r"series\.dcm holds 3 frames: save each as a file of its own"):
        RowDecoder().image(image)
    (tmp_path / "ct.dcm").write_bytes(b"no scan")
    with pytest.raises(InputError, match=r"ct\.dcm cannot be read"):
        RowDecoder().image(stored(tmp_path / "ct.dcm"))


def test_photographs_of_telephones_are_read(tmp_path):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :24] = (200, 40, 10)
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "a.heic", quality=-1)
    assert picture_size(stored(tmp_path / "a.heic")) == (48, 32)
    np.testing.assert_allclose(np.asarray(RowDecoder().image(stored(tmp_path / "a.heic"))), pixels, atol=12)
    (tmp_path / "b.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:200])
    with pytest.raises(InputError, match=r"b\.heic cannot be read"):
        RowDecoder().image(stored(tmp_path / "b.heic"))


def save_pages(path, pages):
    first, *others = map(Image.fromarray, pages)
    first.save(path, save_all=True, append_images=others)


def test_pages_are_images_with_the_masks_of_the_same_numbers(tmp_path):
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (12, 9, 7), dtype=np.uint8)
    masks = (images > 100).astype(np.uint8)
    (tmp_path / "unlabeled").mkdir()
    save_pages(tmp_path / "train-volume.tif", images)
    save_pages(tmp_path / "train-labels.tif", masks * 255)
    save_pages(tmp_path / "unlabeled" / "more.tif", images[:2])
    places = {"images": "*-volume.tif", "masks": "*-labels.tif", "selection_share": 0}
    args = DataArguments(dataset=str(tmp_path), **places)
    report = check_data(args)
    assert "split_pages: true" in {finding.remedy for finding in report.findings}, report.findings
    data = load_data(DataArguments(dataset=str(tmp_path), split_pages=True, **places))
    assert data.labeled.with_format(None)["id"][:] == [f"train/{page:02d}" for page in range(1, 13)]
    assert data.unlabeled.with_format(None)["id"][:] == ["unlabeled/more/1", "unlabeled/more/2"]
    for row, image, mask in zip(data.labeled, images, masks, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"])[..., 0], image)
        np.testing.assert_array_equal(np.asarray(row["mask"]), mask)
    assert list(predict.find_images(tmp_path / "unlabeled")) == ["more/1.png", "more/2.png"]


def test_damaged_and_several_arrays_are_refused(tmp_path):
    image = save(tmp_path / "a.tif", VALUES)
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-1500])
    with pytest.raises(InputError, match=r"a\.tif cannot be read \("):
        read_image(image)
    np.savez(tmp_path / "b.npz", one=VALUES, two=VALUES)
    with pytest.raises(InputError, match=r"b\.npz holds the arrays one, two: store one alone"):
        read_image(stored(tmp_path / "b.npz"))


def test_check_data_measures_range_and_statistics_of_each_band_at_once(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    scale = np.array([1, 2, 3, 0.5])
    rng = np.random.default_rng(1)
    bands = (rng.uniform(0, 1000, (2, 64, 64, 4)) * scale).astype(np.uint16)
    for index, values in enumerate(bands):
        write_geotiff(tmp_path / "images" / f"{index}.tif", values)
        Image.fromarray(np.eye(64, dtype=np.uint8)).save(tmp_path / "masks" / f"{index}.png")
    options = {"dataset": str(tmp_path), "selection_share": 0}
    report = check_data(DataArguments(**options), needs_unlabeled=False)
    lines = dict.fromkeys(line for finding in report.findings for line in finding.remedy.splitlines())
    found = {line.split(": ")[0]: eval(line.split(": ")[1].split("#")[0]) for line in lines}
    low, high = np.percentile(bands, [0.5, 99.5])
    np.testing.assert_allclose(found["image_range"], [low, high], atol=30)
    np.testing.assert_allclose(found["image_mean"], bands.mean((0, 1, 2)) / high, atol=0.02)
    np.testing.assert_allclose(found["image_std"], bands.std((0, 1, 2)) / high, atol=0.02)
    assert load_data(DataArguments(**options, **found), needs_unlabeled=False).num_channels == 4
