"""How one image is predicted: resize rule, windows, scales and flip."""

import pytest
import torch
from torch.nn.functional import interpolate

from pos_hf.evaluation.inference import Inference, class_probabilities, patch_size, window_starts


def test_windows_lie_where_the_published_code_puts_them_on_cityscapes() -> None:
    assert window_starts(1024, 801, "truncated") == [0, 534]
    assert window_starts(2048, 801, "truncated") == [0, 534, 1068, 1602]
    assert window_starts(1024, 798, "shifted") == [0, 226]
    assert window_starts(2048, 798, "shifted") == [0, 532, 1064, 1250]


@pytest.mark.parametrize("layout", ["shifted", "truncated"])
@pytest.mark.parametrize("size", [1, 5, 6, 7, 13, 40])
def test_windows_cover_every_pixel_of_any_size(layout: str, size: int) -> None:
    seen = {p for start in window_starts(size, 6, layout) for p in range(start, min(start + 6, size))}
    assert seen == set(range(size))
    assert layout == "truncated" or max(window_starts(size, 6, layout)) + 6 <= max(size, 6)


def test_the_whole_image_at_native_size_is_the_models_own_prediction(model) -> None:
    pixel_values = torch.randn(2, 3, 10, 14)
    expected = model(pixel_values).logits.softmax(1)
    assert torch.equal(class_probabilities(model, pixel_values, Inference()), expected)


def test_sides_are_resized_to_the_nearest_multiple_and_back(model) -> None:
    pixel_values = torch.randn(1, 3, 21, 20)
    resized = interpolate(pixel_values, (28, 14), mode="bilinear", align_corners=True)
    expected = interpolate(model(resized).logits, (21, 20), mode="bilinear", align_corners=True)
    ours = class_probabilities(model, pixel_values, Inference(multiple=14))
    torch.testing.assert_close(ours, expected.softmax(1))


def test_the_default_multiple_is_the_models_patch_size(model) -> None:
    assert patch_size(model) == 1
    model.config.patch_size = 14
    assert patch_size(model) == 14


@pytest.mark.parametrize("layout", ["shifted", "truncated"])
def test_a_sliding_window_averages_the_windows_that_see_a_pixel(model, layout: str) -> None:
    pixel_values = torch.randn(1, 3, 11, 17)
    ours = class_probabilities(model, pixel_values, Inference(window=6, layout=layout))
    total, seen = torch.zeros(4, 11, 17), torch.zeros(11, 17)
    rows, columns = ([0, 4, 5], [0, 4, 8, 11]) if layout == "shifted" else ([0, 4, 8], [0, 4, 8, 12, 16])
    for top in rows:
        for left in columns:
            crop = model(pixel_values[:, :, top : top + 6, left : left + 6]).logits.softmax(1)[0]
            total[:, top : top + 6, left : left + 6] += crop
            seen[top : top + 6, left : left + 6] += 1
    torch.testing.assert_close(ours[0], total / seen)


def test_a_window_larger_than_the_image_sees_the_whole_image(model) -> None:
    pixel_values = torch.randn(1, 3, 8, 9)
    ours = class_probabilities(model, pixel_values, Inference(window=32))
    torch.testing.assert_close(ours, class_probabilities(model, pixel_values, Inference()))


def test_scales_and_flip_average_probabilities(model) -> None:
    pixel_values = torch.randn(1, 3, 8, 12)
    expected = torch.zeros(1, 4, 8, 12)
    for size in ((8, 12), (16, 24)):
        scaled = interpolate(pixel_values, size, mode="bilinear", align_corners=True)
        for flipped in (False, True):
            logits = model(scaled.flip(-1) if flipped else scaled).logits
            logits = interpolate(logits, (8, 12), mode="bilinear", align_corners=True)
            expected += (logits.flip(-1) if flipped else logits).softmax(1) / 4
    ours = class_probabilities(model, pixel_values, Inference(scales=(1.0, 2.0), flip=True))
    torch.testing.assert_close(ours, expected)


def test_flip_makes_the_prediction_of_a_mirrored_image_the_mirrored_prediction(model) -> None:
    pixel_values = torch.randn(1, 3, 9, 13)
    inference = Inference(flip=True)
    mirrored = class_probabilities(model, pixel_values.flip(-1), inference).flip(-1)
    torch.testing.assert_close(mirrored, class_probabilities(model, pixel_values, inference))
