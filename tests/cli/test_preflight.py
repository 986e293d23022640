"""What a run decides by its device and its data."""

import pytest
import torch

from pos_hf.cli.preflight import settle_device_views
from pos_hf.data import DataArguments
from pos_hf.errors import InputError


@pytest.mark.parametrize(
    ("asked", "device", "num_channels", "expected"),
    [
        (None, "cuda", 3, True),
        (None, "cuda", 4, False),
        (None, "cpu", 3, False),
        (False, "cuda", 3, False),
        (True, "cpu", 3, True),
    ],
)
def test_a_gpu_makes_the_strong_views_of_rgb_images_unless_told_otherwise(
    asked, device, num_channels, expected
):
    args = DataArguments(device_views=asked)
    settle_device_views(args, torch.device(device), num_channels)
    assert args.device_views is expected


def test_device_views_of_other_than_rgb_images_are_refused():
    with pytest.raises(InputError, match="1 channels"):
        settle_device_views(DataArguments(device_views=True), torch.device("cpu"), 1)
