"""Views of large files are cut from the parts that they show."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from pos_hf.data import images
from pos_hf.data.batches import PairedDataset
from pos_hf.data.decoding import RowDecoder, rows_to_dataset
from pos_hf.data.geometry import Geometry, Large, crop_mask, draw_geometry
from pos_hf.data.views import Views
from pos_hf.errors import InputError
from tests.rasters import write_geotiff

RNG = np.random.default_rng(0)
TILES = {"tiled": True, "blockxsize": 16, "blockysize": 16}


@pytest.mark.parametrize("size", [(40, 30), (7, 90), (64, 64)])
def test_masks_are_cropped_as_pillow_resizes_the_whole(size):
    mask = Image.fromarray(RNG.integers(0, 200, size[::-1], dtype=np.uint8))
    for _ in range(60):
        geometry = draw_geometry(size, 24, (0.3, 2.5), RNG)
        whole = mask.resize((geometry.width, geometry.height), Image.Resampling.NEAREST)
        expected = np.full((24, 24), 255, np.uint8)
        shown = np.asarray(whole)[geometry.top : geometry.top + 24, geometry.left : geometry.left + 24]
        expected[: shown.shape[0], : shown.shape[1]] = shown
        expected = expected[:, ::-1] if geometry.flip else expected
        np.testing.assert_array_equal(np.asarray(crop_mask(mask, geometry, 24)), expected)


def save(folder, kind):
    """An image of 80 x 60 pixels that lies at one place in the file of each kind, and its mask."""
    values = RNG.integers(1, 256, (60, 80, 3 if kind == "rgb.tif" else 4), dtype=np.uint8)
    mask = RNG.integers(0, 4, (60, 80, 1), dtype=np.uint8)
    if kind == "bands.npy":
        np.save(folder / kind, values)
    else:
        values[10:30, 15:50] = 0
        write_geotiff(
            folder / kind,
            values,
            **TILES,
            **({} if kind == "rgb.tif" else {"nodata": 0, "photometric": "MINISBLACK"}),
        )
    write_geotiff(folder / "mask.tif", mask, **TILES)
    return rows_to_dataset(["a"], [folder / kind], [folder / "mask.tif"]).with_transform(
        RowDecoder(num_classes=4)
    )


@pytest.mark.parametrize("kind", ["bands.npy", "bands.tif", "rgb.tif"])
def test_views_of_parts_are_those_of_the_whole(tmp_path, monkeypatch, kind):
    rows = save(tmp_path, kind)
    pairs = PairedDataset(rows, rows.remove_columns("mask"), Views(24, scale_range=(0.4, 2.0)), seed=3)
    keys = [(epoch, 0, 0) for epoch in range(25)]
    whole = [pairs[key] for key in keys]
    monkeypatch.setattr(images, "LARGE", 0)
    monkeypatch.setattr(images, "LARGE_FILE", 0)
    assert isinstance(pairs.labeled[0]["image"], Large) and isinstance(pairs.labeled[0]["mask"], Large)
    monkeypatch.setattr(RowDecoder, "image_and_gaps", None)
    monkeypatch.setattr(RowDecoder, "mask", None)
    for key, expected in zip(keys, whole, strict=True):
        found = pairs[key]
        np.testing.assert_array_equal(found["labeled"]["labels"], expected["labeled"]["labels"])
        np.testing.assert_array_equal(
            found["unlabeled"]["padding_mask"], expected["unlabeled"]["padding_mask"]
        )
        for group in ("labeled", "unlabeled"):
            gap = found[group]["pixel_values"].int() - expected[group]["pixel_values"].int()
            assert gap.abs().max() <= 2  # of rounding
    if kind == "bands.tif":  # where it has no data, nothing is taught
        groups = [item["labeled"] for item in whole]
        ignored = [(group["labels"] == 255) & (group["pixel_values"].amax(0) < 2) for group in groups]
        assert sum(crop.sum() for crop in ignored) > 2000


def test_without_rasterio_large_photographs_and_masks_are_decoded_whole(tmp_path, monkeypatch):
    rows = save(tmp_path, "rgb.tif").with_transform(RowDecoder(in_parts=True))
    monkeypatch.setattr(images, "LARGE", 0)
    monkeypatch.setattr(images, "LARGE_FILE", 0)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "rasterio" else find(name))
    assert isinstance(rows[0]["image"], Image.Image) and isinstance(rows[0]["mask"], Image.Image)


@pytest.mark.parametrize("mode", ["LA", "1"])
def test_tiffs_that_pillow_and_rasterio_read_otherwise_are_decoded_whole(tmp_path, monkeypatch, mode):
    values = RNG.integers(0, 256, (60, 80), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(tmp_path / "a.tif")
    Image.fromarray(values // 128).save(tmp_path / "mask.png")
    rows = rows_to_dataset(["a"], [tmp_path / "a.tif"], [tmp_path / "mask.png"])
    whole = np.asarray(rows.with_transform(RowDecoder())[0]["image"])
    assert whole.max() == 255
    monkeypatch.setattr(images, "LARGE", 0)
    monkeypatch.setattr(images, "LARGE_FILE", 0)
    found = rows.with_transform(RowDecoder(in_parts=True))[0]["image"]
    np.testing.assert_array_equal(np.asarray(found), whole)


def test_parts_of_masks_are_checked_when_they_are_read(tmp_path, monkeypatch):
    rows = save(tmp_path, "rgb.tif")
    monkeypatch.setattr(images, "LARGE", 0)
    monkeypatch.setattr(images, "LARGE_FILE", 0)
    rows = rows.with_transform(RowDecoder(num_classes=3, in_parts=True))
    with pytest.raises(InputError, match=r"mask\.tif holds the ids \[3\], but the 3 classes"):
        crop_mask(rows[0]["mask"], Geometry(80, 60, 0, 0, False), 60)


def test_jpegs_that_are_made_smaller_are_decoded_smaller(tmp_path, monkeypatch):
    ramp = np.linspace(0, 255, 160)
    smooth = np.stack(np.broadcast_arrays(ramp[:120, None], ramp[None], 128.0), -1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    rows = rows_to_dataset(["a"], [tmp_path / "a.jpg"])
    views = Views(24, num_strong_views=0, scale_range=(0.15, 0.35))
    pairs = PairedDataset(rows, rows, views, seed=0)
    whole = [pairs[(epoch, -1, 0)]["unlabeled"]["pixel_values"].int() for epoch in range(10)]
    monkeypatch.setattr(images, "LARGE", 0)
    monkeypatch.setattr(images, "LARGE_FILE", 0)
    for epoch, expected in enumerate(whole):
        found = pairs[(epoch, -1, 0)]["unlabeled"]["pixel_values"].int()
        assert (found - expected).abs().max() <= 4
    picture, shrink = images.read_draft({"path": str(tmp_path / "a.jpg"), "bytes": None}, 5.3)
    assert (picture.size, shrink) == ((40, 30), 4)
