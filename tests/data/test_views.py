"""The published views: distributions, and pixels against slow independent arithmetic."""

import colorsys

import numpy as np
import pytest
from PIL import Image

from pos_hf.data.geometry import Geometry, crop_image, crop_mask, draw_geometry, padding_mask
from pos_hf.data.views import Photometry, Views, apply_photometry, draw_cutmix_box, draw_photometry, gentler

DRAWS = 4000


def assert_uniform(values, low, high):
    """Kolmogorov-Smirnov: the largest gap to the uniform distribution function, at a level of about 1e-4."""
    values = np.sort(np.asarray(values, float))
    expected = (values - low) / (high - low)
    count = len(values)
    gap = max((np.arange(1, count + 1) / count - expected).max(), (expected - np.arange(count) / count).max())
    assert gap < 2.23 / np.sqrt(count)


def assert_frequency(events, probability):
    """Within four standard deviations."""
    events = np.asarray(events)
    assert abs(events.mean() - probability) < 4 * np.sqrt(probability * (1 - probability) / len(events))


def jittered(value):
    """Whole numbers spread over their unit intervals, so that they have a continuous distribution."""
    return value + np.random.default_rng(1).random(len(value))


@pytest.fixture(scope="module")
def geometries():
    rng = np.random.default_rng(0)
    return [draw_geometry((500, 375), 200, (0.5, 2.0), rng) for _ in range(DRAWS)]


@pytest.fixture(scope="module")
def photometries():
    rng = np.random.default_rng(0)
    return [draw_photometry(rng) for _ in range(DRAWS)]


@pytest.fixture(scope="module")
def boxes():
    rng = np.random.default_rng(0)
    return np.array([draw_cutmix_box(400, rng) for _ in range(4 * DRAWS)])


def test_long_side_is_uniform_between_half_and_twice(geometries):
    widths = np.array([geometry.width for geometry in geometries])
    assert widths.min() >= 250 and widths.max() <= 1000
    assert_uniform(jittered(widths), 250, 1001)


def test_aspect_ratio_is_kept_to_a_pixel(geometries):
    assert all(geometry.height == int(375 * geometry.width / 500 + 0.5) for geometry in geometries)
    tall = draw_geometry((375, 500), 200, (1.0, 1.0), np.random.default_rng(0))
    assert (tall.width, tall.height) == (375, 500)


def test_crop_position_is_uniform_over_all_places_it_fits(geometries):
    # the probability integral transform of a whole-number draw out of `places`
    rng = np.random.default_rng(2)
    for start, side in (("left", "width"), ("top", "height")):
        starts = np.array([getattr(geometry, start) for geometry in geometries])
        places = np.array([max(getattr(geometry, side) - 200, 0) + 1 for geometry in geometries])
        assert (starts < places).all()
        assert_uniform((starts + rng.random(DRAWS)) / places, 0, 1)


def test_half_of_the_crops_are_flipped(geometries):
    assert_frequency([geometry.flip for geometry in geometries], 0.5)


def test_gates_open_with_the_published_probabilities(photometries):
    assert_frequency([draw.brightness != 1 for draw in photometries], 0.8)
    assert_frequency([draw.grayscale for draw in photometries], 0.2)
    assert_frequency([draw.sigma > 0 for draw in photometries], 0.5)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_factors_are_uniform(photometries, name):
    assert_uniform([getattr(draw, name) for draw in photometries if draw.brightness != 1], 0.5, 1.5)


def test_hue_and_sigma_are_uniform(photometries):
    assert_uniform([draw.hue for draw in photometries if draw.brightness != 1], -0.25, 0.25)
    assert_uniform([draw.sigma for draw in photometries if draw.sigma > 0], 0.1, 2.0)


def test_every_order_of_jitter_is_equally_likely(photometries):
    orders = [draw.order for draw in photometries if draw.brightness != 1]
    assert len(set(orders)) == 24
    for order in set(orders):
        assert_frequency([other == order for other in orders], 1 / 24)


def test_half_of_the_views_get_a_box_that_fits(boxes):
    assert_frequency(boxes[:, 2] > 0, 0.5)
    top, left, height, width = boxes.T
    assert (top + height <= 400).all() and (left + width <= 400).all()
    assert (boxes[boxes[:, 2] == 0] == 0).all()


def test_box_area_is_uniform(boxes):
    boxes = boxes[boxes[:, 2] > 0]
    # sides are cut to whole pixels, half a pixel on average
    areas = (boxes[:, 2] + 0.5) * (boxes[:, 3] + 0.5) / 400**2
    assert_uniform(areas, 0.02, 0.4)


def test_box_aspect_and_place_follow_rejection_sampling(boxes):
    # an independent simulation of "draw aspect and corner until it fits" in real numbers
    rng = np.random.default_rng(7)
    simulated = []
    while len(simulated) < DRAWS:
        area = rng.uniform(0.02, 0.4)
        while True:
            aspect, left, top = rng.uniform(0.3, 1 / 0.3), rng.random(), rng.random()
            if left + np.sqrt(area / aspect) <= 1 and top + np.sqrt(area * aspect) <= 1:
                break
        simulated.append((aspect, left, top))
    drawn = boxes[boxes[:, 2] > 0]
    aspects = (drawn[:, 2] + 0.5) / (drawn[:, 3] + 0.5)
    for ours, theirs in zip(
        (aspects, drawn[:, 1] / 400, drawn[:, 0] / 400), np.array(simulated).T, strict=True
    ):
        points = np.sort(np.concatenate([ours, theirs]))
        gap = abs(
            np.searchsorted(np.sort(ours), points, "right") / len(ours)
            - np.searchsorted(np.sort(theirs), points, "right") / len(theirs)
        ).max()
        assert gap < 2.23 * np.sqrt(1 / len(ours) + 1 / len(theirs)) + 1 / 400


def test_padding_is_right_and_bottom_black_in_images_and_255_in_masks():
    geometry = Geometry(width=3, height=2, left=0, top=0, flip=False)
    image = crop_image(Image.new("RGB", (3, 2), (9, 9, 9)), geometry, 4)
    mask = crop_mask(Image.new("L", (3, 2), 7), geometry, 4)
    inside = np.zeros((4, 4), bool)
    inside[:2, :3] = True
    np.testing.assert_array_equal(np.asarray(image)[..., 0], np.where(inside, 9, 0))
    np.testing.assert_array_equal(np.asarray(mask), np.where(inside, 7, 255))
    np.testing.assert_array_equal(padding_mask(geometry, 4), ~inside)
    np.testing.assert_array_equal(padding_mask(geometry._replace(flip=True), 4), ~inside[:, ::-1])


def test_crop_and_flip_take_the_named_pixels():
    values = np.arange(30, dtype=np.uint8).reshape(5, 6)
    geometry = Geometry(width=6, height=5, left=2, top=1, flip=True)
    for crop in (crop_image, crop_mask):
        cropped = crop(Image.fromarray(values), geometry, 3)
        np.testing.assert_array_equal(np.asarray(cropped), values[1:4, 2:5][:, ::-1])


@pytest.mark.parametrize("size", [(100, 75), (75, 100), (33, 20)])
def test_a_crop_is_cut_from_the_whole_resized_image(size):
    image = rgb_noise(size[::-1])
    for seed in range(30):
        geometry = draw_geometry(size, 48, (0.5, 2.0), np.random.default_rng(seed))
        whole = np.zeros((400, 400, 3), int)
        resized = image.resize((geometry.width, geometry.height), Image.Resampling.BILINEAR)
        whole[: geometry.height, : geometry.width] = np.asarray(resized)
        expected = whole[geometry.top :, geometry.left :][:48, :48]
        expected = expected[:, ::-1] if geometry.flip else expected
        difference = abs(np.asarray(crop_image(image, geometry, 48)) - expected)
        assert difference.max() <= 2 and (difference > 0).mean() < 0.25


def rgb_noise(size=(9, 7)):
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8))


def test_blends_move_towards_black_mean_gray_and_own_gray():
    image = rgb_noise()
    values = np.asarray(image).astype(float)
    gray = np.round(values @ [0.299, 0.587, 0.114])
    targets = {"brightness": 0, "contrast": np.floor(gray.mean() + 0.5), "saturation": gray[..., None]}
    for name, target in targets.items():
        for factor in (0.6, 1.4):
            blended = np.asarray(apply_photometry(image, Photometry(**{name: factor})))
            expected = np.clip(target + factor * (values - target), 0, 255)
            assert abs(blended - expected).max() <= 1


def test_hue_turns_each_pixel_in_hsv_space():
    image = rgb_noise()
    shifted = np.asarray(apply_photometry(image, Photometry(hue=0.2)))
    for before, after in zip(np.asarray(image).reshape(-1, 3), shifted.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb(hue + 51 / 256, saturation, value))
        assert abs(after - expected).max() < 10  # Pillow keeps hue and saturation in 8 bits


def test_operations_are_applied_in_the_drawn_order():
    image = rgb_noise()
    first = Photometry(brightness=1.5, contrast=0.5, order=(0, 1, 2, 3))
    in_steps = apply_photometry(apply_photometry(image, Photometry(brightness=1.5)), Photometry(contrast=0.5))
    np.testing.assert_array_equal(np.asarray(apply_photometry(image, first)), np.asarray(in_steps))
    other = apply_photometry(image, first._replace(order=(1, 0, 2, 3)))
    assert (np.asarray(other) != np.asarray(in_steps)).any()


def test_views_of_one_row_share_their_geometry():
    image, views = rgb_noise((40, 50)), Views(crop_size=32, num_strong_views=3)
    item = views.unlabeled(image, np.random.default_rng(5))
    assert item["strong_pixel_values"].shape == (3, 3, 32, 32) and item["pixel_values"].shape == (3, 32, 32)
    # a draw without any photometric change shows the weak view itself
    for seed in range(200):
        item = views.unlabeled(image, np.random.default_rng(seed))
        unchanged = (item["strong_pixel_values"] == item["pixel_values"]).all(axis=(1, 2, 3))
        if unchanged.any():
            break
    assert unchanged.any()


def test_labels_move_with_their_image():
    ids = np.random.default_rng(0).integers(0, 5, (40, 50), dtype=np.uint8)
    image = Image.fromarray(np.repeat(ids[..., None] * 50, 3, axis=2))
    item = Views(16, scale_range=(1.0, 1.0)).labeled(image, Image.fromarray(ids), np.random.default_rng(1))
    np.testing.assert_array_equal(item["pixel_values"][0], item["labels"] * 50)


def test_five_channel_images_get_views():
    bands = np.random.default_rng(0).integers(0, 256, (40, 50, 5), dtype=np.uint8)
    item = Views(32).unlabeled(bands, np.random.default_rng(0))
    assert item["pixel_values"].shape == (5, 32, 32) and item["strong_pixel_values"].shape == (2, 5, 32, 32)
    # each band is treated like an image of its own
    alone = Views(32).unlabeled(bands[..., 3:4], np.random.default_rng(0))
    np.testing.assert_array_equal(alone["strong_pixel_values"][:, 0], item["strong_pixel_values"][:, 3])


def test_rare_class_retries_find_a_small_object_more_often():
    ids = np.zeros((100, 100), np.uint8)
    ids[10:14, 10:14] = 2
    mask, image = Image.fromarray(ids), Image.fromarray(ids).convert("RGB")

    def hits(views):
        crops = [views.labeled(image, mask, np.random.default_rng(seed)) for seed in range(300)]
        return np.mean([(crop["labels"] == 2).any() for crop in crops])

    once = hits(Views(32, scale_range=(1.0, 1.0)))
    retried = hits(Views(32, scale_range=(1.0, 1.0), rare_classes=(2,), rare_class_retries=5))
    assert abs(retried - (1 - (1 - once) ** 6)) < 0.1 and retried > 2 * once


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3, 2), (700, 1)])
def test_of_every_image_a_pixel_is_left(size):
    image, mask = Image.new("RGB", size, (9, 9, 9)), Image.new("L", size, 1)
    views = Views(8, num_strong_views=1, scale_range=(0.01, 1))
    for seed in range(20):
        labeled = views.labeled(image, mask, np.random.default_rng(seed))
        assert (labeled["labels"] == 1).any() and labeled["pixel_values"].shape == (3, 8, 8)
        assert not views.unlabeled(image, np.random.default_rng(seed))["padding_mask"].all()


@pytest.mark.parametrize("strong_views", ["no_color", "gentle"])
def test_gentler_views_keep_hue_and_the_rest_of_the_draws(strong_views):
    """A grey picture stays grey, a red one red; geometry and boxes are those of the published views."""
    red = Image.new("RGB", (40, 40), (180, 20, 20))
    views = {kind: Views(24, 8, (1.0, 1.0), strong_views=kind) for kind in ("default", strong_views)}
    items = {kind: view.unlabeled(red, np.random.default_rng(3)) for kind, view in views.items()}
    for name in ("pixel_values", "cutmix_boxes", "padding_mask"):
        np.testing.assert_array_equal(items["default"][name], items[strong_views][name])
    shown = ~items["default"]["padding_mask"]
    strong = items[strong_views]["strong_pixel_values"][:, :, shown].astype(float)
    assert (strong[:, 0] > strong[:, 1] + 20).all() and (abs(strong[:, 1] - strong[:, 2]) <= 1).all()
    published = items["default"]["strong_pixel_values"][:, :, shown].astype(float)
    assert not (abs(published[:, 1] - published[:, 2]) <= 1).all()
    if strong_views == "gentle":
        draws = [gentler(draw_photometry(np.random.default_rng(seed)), "gentle") for seed in range(200)]
        assert all(0.75 <= draw.brightness <= 1.25 and 0.75 <= draw.contrast <= 1.25 for draw in draws)
