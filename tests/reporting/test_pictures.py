"""Palette masks, overlays and legends."""

import numpy as np
import pytest
from PIL import Image

from pos_hf.data.colours import class_palette, distances, distinct_colours
from pos_hf.reporting.pictures import (
    folder_name,
    mask_picture,
    overlay,
    picture_colours,
    tint,
    with_legend,
)

PALETTE = [[10, 20, 30], [200, 100, 50]]
MASK = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)


def test_a_mask_picture_holds_ids_and_shows_colours(tmp_path) -> None:
    mask_picture(MASK, PALETTE).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as picture:
        assert np.array_equal(np.asarray(picture), MASK)
        assert picture_colours(picture)[:2] == PALETTE
        assert picture.convert("RGB").getpixel((1, 0)) == (200, 100, 50)


def test_an_overlay_leaves_background_and_ignored_pixels_and_outlines_the_rest() -> None:
    mask = np.full((9, 9), 1, np.uint8)
    mask[:, 6:], mask[:, 8] = 0, 255
    image = Image.new("RGB", (9, 9), (100, 100, 100))
    pixels = np.asarray(overlay(image, mask, [[0, 0, 0], [200, 100, 50]]))
    assert (pixels[:, 6:] == 100).all()
    assert (pixels[:, 5] == [200, 100, 50]).all()
    grey = 128 + (100 - 128) * 32 / 128
    assert np.abs(pixels[:, :5] - (0.6 * np.array([200, 100, 50]) + 0.4 * grey)).max() <= 0.5


@pytest.mark.parametrize("names", [["background", *"abcd"], [*"abcdefgh"], [f"class {i}" for i in range(20)]])
@pytest.mark.parametrize("light", [0, 60, 255])
def test_no_pixel_of_a_class_looks_like_anothers_legend(names, light) -> None:
    """Under any image. Blended as it was, 31 % of one class's pixels were nearest to another's colour."""
    palette = class_palette(dict(enumerate(names)))
    mask = np.random.default_rng(0).integers(0, len(names), (12, 12), dtype=np.uint8)
    mask = np.kron(mask, np.ones((8, 8), np.uint8))
    image = np.random.default_rng(1).integers(0, light + 1, (*mask.shape, 3), dtype=np.uint8)
    pixels = np.asarray(overlay(Image.fromarray(image), mask, palette)).astype(float)
    swatches = np.array([ends for colour in palette for ends in (tint(colour), colour)], float)
    nearest = np.linalg.norm(pixels[..., None, :] - swatches, axis=-1).argmin(-1) // 2
    drawn = np.any(palette, axis=1)[mask]
    assert (nearest == mask)[drawn].mean() == 1


def test_class_colours_differ_for_every_kind_of_colour_vision() -> None:
    colours = np.array(distinct_colours(20))
    for number, colour in enumerate(colours[:-1]):
        assert distances(colours[number + 1 :], colour).min() > 10
    assert len({tuple(colour) for colour in distinct_colours(150)}) == 150


def test_a_legend_names_the_classes_that_occur_below_the_picture() -> None:
    picture = Image.new("RGB", (300, 200), (5, 5, 5))
    mask = np.ones((200, 300), np.uint8)
    canvas = with_legend(picture, mask, ["background", "disc"], PALETTE)
    assert canvas.width == 300 and canvas.height > 200
    below = np.asarray(canvas)[200:]
    assert (below == PALETTE[1]).all(-1).any() and not (below == PALETTE[0]).all(-1).any()


def test_a_legend_of_many_classes_wraps_and_small_pictures_grow() -> None:
    mask = np.arange(20, dtype=np.uint8).reshape(4, 5)
    palette = [[i, i, 255] for i in range(20)]
    canvas = with_legend(Image.new("RGB", (5, 4)), mask, [f"class {i}" for i in range(20)], palette)
    assert canvas.width >= 240
    below = np.asarray(canvas).reshape(-1, 3)
    assert all((below == colour).all(-1).any() for colour in palette)


def test_a_legend_takes_any_name() -> None:
    names = ["two\nlines", "caf\udce9", "$x_{", "\x00"]
    mask = np.arange(4, dtype=np.uint8).reshape(2, 2)
    assert with_legend(Image.new("RGB", (2, 2)), mask, names, [[0, 0, 0]] * 4).width >= 240


def test_every_id_has_a_folder_that_can_be_made(tmp_path) -> None:
    ids = ["shape_0", "a/b (1)+ü", "", "..", "/", "x" * 300, "é" * 150, "a\0b", "caf\udce9", "a\nb", None]
    names = [folder_name(id) for id in ids]
    assert len(set(names)) == len(names)
    for name in names:
        (tmp_path / name).mkdir()
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert names[:2] == ["shape_0", "a_b (1)+ü"]  # as before
