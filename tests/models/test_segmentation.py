"""Loss and feature perturbation against closed forms and counts."""

import math

import pytest
import torch

from pos_hf.models.segmentation import complementary_dropout, perturb_features, segmentation_loss


def test_the_loss_is_the_mean_over_pixels_that_are_not_ignored():
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    labels = torch.randint(3, (2, 4, 5))
    labels[0, :2] = 255
    terms = []
    for image in range(2):
        for row in range(4):
            for column in range(5):
                label = labels[image, row, column]
                if label != 255:
                    terms.append(-logits[image, :, row, column].log_softmax(0)[label].item())
    assert segmentation_loss(logits, labels, 255).item() == pytest.approx(
        math.fsum(terms) / len(terms), rel=1e-6
    )


def test_the_loss_is_zero_with_a_graph_where_every_pixel_is_ignored():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), 255), 255)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_without_a_perturbation_the_features_pass():
    features = [torch.randn(2, 4, 3, 3)]
    assert perturb_features(features, None, 0) is features


@pytest.mark.parametrize("perturb_from", [0, 3])
def test_channel_dropout_appends_rows_whose_channels_are_dropped_or_doubled(perturb_from):
    features = [torch.rand(5, 64, 3, 3) + 1, torch.rand(5, 32, 2, 2) + 1]
    for clean, both in zip(
        features, perturb_features(features, "channel_dropout", perturb_from), strict=True
    ):
        assert torch.equal(both[:5], clean)
        ratio = both[5:] / clean[perturb_from:]
        assert torch.equal(ratio, ratio[:, :, :1, :1].expand_as(ratio))
        assert set(ratio.unique().tolist()) == {0.0, 2.0}


def factors(features: torch.Tensor, perturbed: torch.Tensor) -> torch.Tensor:
    """Factor of every row and channel [2B, D]; whole channels share one."""
    ratio = perturbed / features
    assert torch.equal(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    return ratio[:, :, 0, 0]


@pytest.mark.parametrize(("images", "whole"), [(4, 2), (2, 1), (1, 0), (5, 2)])
def test_complementary_dropout_gives_every_channel_to_one_view_and_leaves_half_the_images_whole(
    images, whole
):
    features = torch.rand(2 * images, 64, 3, 3) + 1
    first, second = factors(features, complementary_dropout([features])[0]).chunk(2)
    assert torch.equal(first + second, torch.full_like(first, 2))
    assert int((first == 1).all(dim=1).sum()) == whole
    dropped = first[(first != 1).any(dim=1)]
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_complementary_dropout_is_one_mask_for_levels_of_one_width():
    features = [torch.rand(8, 16, side, side) + 1 for side in (2, 3)]
    a, b = (factors(x, y) for x, y in zip(features, complementary_dropout(features), strict=True))
    assert torch.equal(a, b)


def test_complementary_dropout_drops_half_of_the_channels_and_spares_every_image_equally():
    features = torch.ones(8, 32, 1, 1)
    masks = torch.stack([complementary_dropout([features])[0][:4, :, 0, 0] for _ in range(600)])
    # 4 standard deviations of the mean of 600 * 2 * 32 fair draws, and of 600 draws of 2 out of 4
    assert (masks == 0).float().mean().item() == pytest.approx(0.25, abs=4 * 0.5 / math.sqrt(600 * 64))
    spared = (masks == 1).all(dim=2).float().mean(dim=0)
    assert spared.sub(0.5).abs().max() < 4 * 0.5 / math.sqrt(600)


def test_perturbations_keep_the_precision_of_the_features():
    features = [torch.randn(4, 8, 2, 2, dtype=torch.bfloat16)]
    assert perturb_features(features, "complementary_dropout", 0)[0].dtype == torch.bfloat16
