"""The device path shows what the Pillow path shows."""

import numpy as np
import pytest
import torch
from PIL import Image

from pos_hf.data.device_views import add_strong_views, apply_photometry
from pos_hf.data.views import Photometry, Views, draw_photometry, to_channels_first
from pos_hf.data.views import apply_photometry as apply_with_pillow

EXACT = [
    Photometry(),
    Photometry(brightness=0.6),
    Photometry(brightness=1.4),
    Photometry(contrast=0.6),
    Photometry(contrast=1.4),
    Photometry(grayscale=True),
]


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((80, 60))
    noisy = np.asarray(coarse) + rng.normal(0, 6, (60, 80, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def differences(image, draws):
    pixel_values = torch.from_numpy(to_channels_first([image]))[None]
    rows = torch.tensor([[draw.to_row() for draw in draws]])
    ours = apply_photometry(pixel_values, rows)[0].numpy().astype(int)
    reference = np.stack([to_channels_first([apply_with_pillow(image, draw)]) for draw in draws])
    return abs(ours - reference)


def test_blends_and_grayscale_are_exact(image):
    assert differences(image, EXACT).max() <= 1


def test_hue_is_that_of_pillows_eight_bits(image):
    difference = differences(image, [Photometry(hue=turns) for turns in (-0.25, -0.1, 0.05, 0.2)])
    assert difference.max() <= 5 and difference.mean() < 0.01


def test_blur_agrees_to_pillows_rounding(image):
    difference = differences(image, [Photometry(sigma=sigma) for sigma in (0.1, 0.3, 0.5, 1.0, 1.5, 2.0)])
    assert difference.mean() < 0.1 and difference.max() <= 3


def test_blur_spreads_a_point_by_sigma():
    point = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    point[..., 16, 16] = 255
    wide = apply_photometry(point, torch.tensor([[Photometry(sigma=1.0).to_row()]]))[0, 0, 0].double()
    offsets = torch.arange(33, dtype=torch.float64) - 16
    assert (wide.sum(0) @ offsets**2 / wide.sum()).item() == pytest.approx(1.0, abs=0.15)  # of 255 levels


def test_random_draws_agree_and_images_do_not_mix(image):
    rng = np.random.default_rng(4)
    draws = [draw_photometry(rng) for _ in range(24)]
    difference = differences(image, draws)
    assert difference.mean(axis=(1, 2, 3)).max() < 0.1
    other = Image.fromarray(np.asarray(image)[::-1].copy())
    both = torch.from_numpy(np.stack([to_channels_first([image]), to_channels_first([other])]))
    rows = torch.tensor([[draw.to_row() for draw in draws]]).expand(2, -1, -1)
    together = apply_photometry(both, rows)
    torch.testing.assert_close(together[:1], apply_photometry(both[:1], rows[:1]))
    torch.testing.assert_close(together[1:], apply_photometry(both[1:], rows[1:]))


def test_a_key_names_the_same_draws_on_either_path(image):
    reference = Views(48).unlabeled(image, np.random.default_rng(9))
    drawn = Views(48, on_device=True).unlabeled(image, np.random.default_rng(9))
    assert "strong_pixel_values" not in drawn
    np.testing.assert_array_equal(drawn["cutmix_boxes"], reference["cutmix_boxes"])
    batch = {name: torch.from_numpy(value)[None] for name, value in drawn.items()}
    made = add_strong_views(batch)
    assert set(made) == set(reference) and made["strong_pixel_values"].dtype == torch.uint8
    gap = made["strong_pixel_values"][0].numpy().astype(int) - reference["strong_pixel_values"]
    assert abs(gap).mean() < 0.1


def test_bands_that_are_no_colours_agree_with_the_pillow_path_and_with_their_own_noise(image):
    bands = np.concatenate([np.asarray(image), np.asarray(image)[::-1, ::-1, :1]], axis=2)
    views = {"num_strong_views": 8, "scale_range": (0.5, 0.5)}
    reference = Views(30, **views).unlabeled(bands, np.random.default_rng(9))
    drawn = Views(30, on_device=True, **views).unlabeled(bands, np.random.default_rng(9))
    made = add_strong_views({name: torch.from_numpy(value)[None] for name, value in drawn.items()})
    gap = made["strong_pixel_values"][0].numpy().astype(int) - reference["strong_pixel_values"]
    assert reference["strong_pixel_values"].shape == (8, 4, 30, 30)
    assert abs(gap).mean(axis=(1, 2, 3)).max() < 0.1
    noisy = drawn["photometry"][:, 10] > 0
    assert 0 < noisy.sum() < 8


def test_noise_is_normal_and_differs_from_band_to_band_and_seed_to_seed():
    gray = torch.full((1, 4, 64, 64), 128, dtype=torch.uint8)
    draws = [Photometry(noise=8.0, noise_seed=seed) for seed in (1, 2, (1 << 24) - 1)]
    made = apply_photometry(gray, torch.tensor([[draw.to_row() for draw in draws]]))[0].double() - 128
    assert made.mean((2, 3)).abs().max() < 0.5
    torch.testing.assert_close(made.std((2, 3)), torch.full((3, 4), 8.0).double(), atol=0.4, rtol=0)
    flat = made.flatten(0, 1).flatten(1)
    assert (torch.corrcoef(flat) - torch.eye(12)).abs().max() < 0.06
    assert (made.abs() > 16).double().mean().item() == pytest.approx(0.0392, abs=0.006)  # beyond 16.5 of 8
    rgb = apply_photometry(gray[:, :3], torch.tensor([[draws[0].to_row()]]))
    assert (rgb == 128).all()  # images of colours have the published views


def test_batches_of_the_pillow_path_pass_through(image):
    batch = {"strong_pixel_values": torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8)}
    assert add_strong_views(batch) is batch
