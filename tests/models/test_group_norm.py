import torch
from torch import nn

from pos_hf.models import build_model

CLASSES = {0: "background", 1: "cat"}


def test_the_tiny_network_has_no_batch_norm_and_one_image_predicts_as_in_a_batch():
    model = build_model("deeplabv3plus_tiny", CLASSES)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(model(images).logits[1:2], model(images[1:2]).logits, rtol=1e-4, atol=1e-5)


def test_batch_norm_stays_where_no_groups_are_given():
    model = build_model("deeplabv3plus_tiny", CLASSES, group_norm_groups=None)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert not any(isinstance(module, nn.GroupNorm) for module in model.modules())
