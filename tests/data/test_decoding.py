"""Stored pictures of every kind become uint8 images and class ids."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from pos_hf.data import DataArguments
from pos_hf.data.decoding import RowDecoder, rows_to_dataset
from pos_hf.data.files import read_picture
from pos_hf.errors import InputError


def stored(path):
    return {"path": str(path), "bytes": None}


def save(tmp_path, values, name="picture.png"):
    Image.fromarray(values).save(tmp_path / name)
    return stored(tmp_path / name)


def test_palette_indices_are_class_ids(tmp_path):
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    picture = Image.fromarray(ids).convert("P")
    picture.putpalette([7, 7, 7] * 256)
    picture.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(RowDecoder().mask(stored(tmp_path / "mask.png"))), ids)


def test_mask_values_are_mapped_and_others_kept(tmp_path):
    mask = save(tmp_path, np.array([[0, 255], [3, 128]], np.uint8))
    args = DataArguments(mask_values='{"255": 1, "128": 255}')
    np.testing.assert_array_equal(np.asarray(RowDecoder.from_arguments(args).mask(mask)), [[0, 1], [3, 255]])


def test_reduced_labels_ignore_zero(tmp_path):
    mask = save(tmp_path, np.array([[0, 1], [150, 255]], np.uint8))
    decoder = RowDecoder.from_arguments(DataArguments(reduce_labels=True))
    np.testing.assert_array_equal(np.asarray(decoder.mask(mask)), [[255, 0], [149, 255]])


def test_colors_are_mapped_to_their_position(tmp_path):
    colors = {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 128, 0)}
    ids = np.random.default_rng(0).integers(0, 3, (5, 6))
    mask = save(tmp_path, np.array([[colors[id] for id in row] for row in ids], np.uint8))
    decoder = RowDecoder.from_arguments(DataArguments(mask_colors=["#000000", "#ff0000", "#008000"]))
    np.testing.assert_array_equal(np.asarray(decoder.mask(mask)), ids)
    with pytest.raises(InputError, match=r"#008000.*mask_colors"):
        RowDecoder.from_arguments(DataArguments(mask_colors=["#ff0000", "#000000"])).mask(mask)


def test_colored_masks_without_colors_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"picture\.png is painted in colours"):
        RowDecoder().mask(save(tmp_path, np.zeros((2, 2, 3), np.uint8)))


def test_black_and_white_masks_are_zero_and_one(tmp_path):
    Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1").save(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(RowDecoder().mask(stored(tmp_path / "mask.png"))), [[0, 1, 1]])


def test_masks_of_fractions_are_refused(tmp_path):
    for value in (0.5, np.nan, np.inf, 1e30):
        with pytest.raises(InputError, match="float32 values that are no class ids"):
            RowDecoder().mask(save(tmp_path, np.full((2, 2), value, np.float32), "mask.tif"))


def test_sixteen_bit_masks_are_read_or_refused(tmp_path):
    mask = save(tmp_path, np.array([[0, 2], [255, 1]], np.uint16))
    np.testing.assert_array_equal(np.asarray(RowDecoder().mask(mask)), [[0, 2], [255, 1]])
    mask = save(tmp_path, np.array([[0, 1000]], np.uint16))
    with pytest.raises(InputError, match="holds the value 1000"):
        RowDecoder().mask(mask)
    decoder = RowDecoder.from_arguments(DataArguments(mask_values={"1000": 1}))
    np.testing.assert_array_equal(np.asarray(decoder.mask(mask)), [[0, 1]])


def test_deep_images_need_a_range_and_are_stretched_to_it(tmp_path):
    image = save(tmp_path, np.array([[1000, 2000, 3000, 9000]], np.uint16))
    with pytest.raises(InputError, match=r"uint16 values from 1000 to 9000: set `image_range"):
        RowDecoder().image(image)
    decoded = RowDecoder.from_arguments(DataArguments(image_range=[1000, 3000])).image(image)
    np.testing.assert_array_equal(np.asarray(decoded)[..., 1], [[0, 128, 255, 255]])


def test_arrays_of_many_channels_are_images(tmp_path):
    bands = np.random.default_rng(0).integers(0, 1001, (4, 5, 7))
    np.save(tmp_path / "bands.npy", bands.astype(np.float32))
    decoded = RowDecoder(image_range=(0, 1000)).image(stored(tmp_path / "bands.npy"))
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded, bands * 0.255, atol=0.51)
    np.save(tmp_path / "flat.npy", bands[..., 0])
    with pytest.raises(InputError, match=r"shape \(4, 5\): store images as"):
        RowDecoder().image(stored(tmp_path / "flat.npy"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_of_every_mode_become_rgb(tmp_path, mode):
    Image.new("RGB", (4, 4), (200, 30, 30)).convert(mode).save(tmp_path / "image.tif")
    assert RowDecoder().image(stored(tmp_path / "image.tif")).mode == "RGB"


def test_turned_images_are_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert RowDecoder().image(stored(tmp_path / "turned.jpg")).size == (4, 8)


def test_pictures_can_be_stored_inside_the_dataset():
    ids = np.array([[0, 1, 2]], np.uint8)
    rows = rows_to_dataset(["a"], [Image.new("RGB", (3, 1), (1, 2, 3))], [Image.fromarray(ids)])
    assert np.asarray(rows[0]["image"]).tolist() == [[[1, 2, 3]] * 3]
    np.testing.assert_array_equal(np.asarray(rows[0]["mask"]), ids)


def test_values_below_zero_can_be_mapped(tmp_path):
    for dtype in (np.int32, np.float32):
        mask = save(tmp_path, np.array([[0, 1, -9999]], dtype), "mask.tif")
        with pytest.raises(InputError, match=r"holds the value -9999.*mask_values"):
            RowDecoder().mask(mask)
        decoder = RowDecoder.from_arguments(DataArguments(mask_values={"-9999": 255, "1": 2}))
        np.testing.assert_array_equal(np.asarray(decoder.mask(mask)), [[0, 2, 255]])


def test_gif_masks_hold_class_ids(tmp_path):
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    picture = Image.fromarray(ids)
    picture.putpalette(np.random.default_rng(0).bytes(768))
    picture.save(tmp_path / "mask.gif", optimize=False)
    mask = stored(tmp_path / "mask.gif")
    np.testing.assert_array_equal(np.asarray(RowDecoder().mask(mask)), ids)


def test_a_row_is_checked_when_it_is_decoded(tmp_path):
    save(tmp_path, np.zeros((4, 5, 3), np.uint8), "image.png")
    save(tmp_path, np.full((4, 5), 2, np.uint8), "mask.png")
    rows = rows_to_dataset(["a"], [tmp_path / "image.png"], [tmp_path / "mask.png"])
    rows = rows.with_transform(RowDecoder(num_classes=3))
    assert np.asarray(rows[0]["mask"]).tolist() == [[2] * 5] * 4
    save(tmp_path, np.full((4, 5), 3, np.uint8), "mask.png")
    with pytest.raises(InputError, match=r"mask\.png holds the ids \[3\], but the 3 classes"):
        rows[0]
    save(tmp_path, np.full((4, 6), 2, np.uint8), "mask.png")
    with pytest.raises(InputError, match=r"mask\.png is 6 x 4 pixels, but its image is 5 x 4"):
        rows[0]


def test_a_postscript_file_under_another_name_starts_no_program(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "image.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(InputError, match=r"image\.png cannot be read as BMP, GIF"):
        read_picture(stored(tmp_path / "image.png"))
    assert not (tmp_path / "ran").exists()


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "image.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "array.npy")
    for name in ("image.png", "zero.png", "array.npy"):
        with pytest.raises(InputError, match=rf"{name} cannot be read \(it is a pipe or a device\)"):
            RowDecoder().image(stored(tmp_path / name))


def test_a_tiff_of_more_bands_than_pillow_reads_is_refused(tmp_path):
    bands = [Image.new("L", (5, 4), value) for value in range(13)]
    bands[0].save(tmp_path / "pages.tif", save_all=True, append_images=bands[1:])
    with pytest.raises(
        InputError, match=r"holds 13 pages, of which one would be read: set `split_pages: true` to take each"
    ):
        RowDecoder().image(stored(tmp_path / "pages.tif"))


def deep_png(colors: int, channels: int) -> bytes:
    """A PNG of 16-bit channels, which Pillow cannot write: 4 x 3 pixels."""
    lines = b"".join(b"\0" + bytes(range(1, 1 + 8 * channels)) for _ in range(3))
    header = struct.pack(">IIBBBBB", 4, 3, 16, colors, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    written = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


@pytest.mark.parametrize(("colors", "channels"), [(2, 3), (6, 4), (4, 2)], ids=["RGB", "RGBA", "LA"])
def test_colours_of_16_bits_that_pillow_would_cut_are_refused(tmp_path, colors, channels):
    (tmp_path / "deep.png").write_bytes(deep_png(colors, channels))
    with pytest.raises(
        InputError, match=r"deep.png holds colours of 16 bits, of which 8 would be read: save"
    ):
        RowDecoder().image(stored(tmp_path / "deep.png"))
    (tmp_path / "grey.png").write_bytes(deep_png(0, 1))  # read in full
    with pytest.raises(InputError, match="image_range"):
        RowDecoder().image(stored(tmp_path / "grey.png"))


def test_transparency_is_no_brightness(tmp_path):
    grey = np.array([[0, 99, 200]], np.uint8)
    Image.fromarray(np.dstack([grey, np.full_like(grey, 255)])).save(tmp_path / "mask.png")
    found = RowDecoder(mask_threshold=100).mask(stored(tmp_path / "mask.png"))
    assert np.asarray(found).tolist() == [[0, 0, 1]]
