"""How one image is predicted: resize rule, windows, scales and flip."""

import weakref

import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from pos_hf.evaluation import evaluate_images, predict_images
from pos_hf.evaluation import inference as inference_module
from pos_hf.evaluation.inference import (
    Inference,
    class_probabilities,
    patch_size,
    probability_strips,
    window_starts,
)
from pos_hf.models import default_image_processor


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


PROTOCOLS = [
    Inference(),
    Inference(multiple=7),
    Inference(window=6),
    Inference(window=6, layout="truncated"),
    Inference(window=9, scales=(0.6, 1.0, 1.7), flip=True),
    Inference(scales=(0.6, 1.7), flip=True),
]


@pytest.mark.parametrize("inference", PROTOCOLS)
@pytest.mark.parametrize("rows", [4, 22])
def test_strips_are_the_whole_map_cut(model, monkeypatch, inference: Inference, rows: int) -> None:
    pixel_values = torch.randn(2, 3, 23, 17)
    sizes = (23, 17), (31, 12)
    whole = [class_probabilities(model, pixel_values, inference, size) for size in sizes]
    for size, expected in zip(sizes, whole, strict=True):
        monkeypatch.setattr(inference_module, "STRIP_BYTES", rows * 4 * 2 * 4 * size[1])
        strips = list(probability_strips(model, pixel_values, inference, size))
        if inference.window or len(inference.scales) == 1:
            assert max(strip.probabilities.shape[-2] for strip in strips) == rows
        assert [strip.top for strip in strips] == list(range(0, size[0], strips[0].probabilities.shape[-2]))
        found = torch.cat([strip.probabilities for strip in strips], -2)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Sees the size of every tensor that is made."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.nbytes = max(self.nbytes, result.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0)])
def test_a_windowed_image_is_never_held_as_one_map_of_probabilities(model, monkeypatch, scales) -> None:
    pixels = torch.zeros(1, 3, 400, 160, dtype=torch.uint8)
    monkeypatch.setattr(inference_module, "STRIP_BYTES", 100 * 160 * 4 * 4)
    with LargestTensor() as largest:
        inference = Inference(window=64, scales=scales, flip=True)
        for strip in probability_strips(model, pixels, inference, normalise=lambda part: part / 255):
            strip.probabilities.argmax(1)
    assert largest.nbytes <= max(pixels.nbytes, 1.1 * 100 * 160 * 4 * 4)


def test_several_views_are_added_up_one_by_one(model) -> None:
    pixels = torch.randn(1, 3, 120, 90)
    with LargestTensor() as largest:
        class_probabilities(model, pixels, Inference(scales=(0.5, 0.75, 1.0), flip=True))
    assert largest.nbytes <= 4 * 4 * 120 * 90


def test_a_strip_is_let_go_before_the_next_one_is_made(model, monkeypatch) -> None:
    monkeypatch.setattr(inference_module, "STRIP_BYTES", 10 * 4 * 4 * 12)
    alive = []
    make = inference_module._average

    def counted(*arguments):
        assert all(strip() is None for strip in alive)
        strip = make(*arguments)
        alive.append(weakref.ref(strip))
        return strip

    monkeypatch.setattr(inference_module, "_average", counted)
    (mask,) = predict_images(
        model, [Image.new("RGB", (12, 40))], default_image_processor(), Inference(window=8)
    )
    assert mask.shape == (40, 12) and len(alive) == 4
    rows = Dataset.from_dict(
        {"id": ["a"], "image": [Image.new("RGB", (12, 40))], "mask": [Image.new("L", (12, 40))]}
    )
    alive.clear()
    evaluate_images(model, rows, default_image_processor(), inference=Inference(window=8), detailed=True)
    assert len(alive) == 4
