"""One step of every model at the sizes and precisions that training and evaluation use."""

import numpy as np
import pytest
import torch
from PIL import Image

from pos_hf.evaluation import Inference, predict_images
from pos_hf.models import default_image_processor
from tests.models.tiny import CONFIGS, tiny_model

SIZES = [224, 321, pytest.param(518, marks=pytest.mark.slow), pytest.param(801, marks=pytest.mark.slow)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_backward(name, size, dtype):
    model = tiny_model(name).to(dtype).train()
    # two images, as batch normalisation of the pooled branch needs
    images, labels = torch.randn(2, 3, size, size, dtype=dtype), torch.randint(5, (2, size, size))
    outputs = model(images, labels=labels)
    outputs.loss.backward()
    assert outputs.logits.shape == (2, 5, size, size)
    assert outputs.logits.dtype == dtype
    assert outputs.loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        assert model.eval()(images[:1]).logits.isfinite().all()


@pytest.mark.parametrize("name", ["dinov2", "resnet", "xception"])
def test_autocast_trains_in_bfloat16_with_a_float32_loss(name):
    model = tiny_model(name).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(torch.randn(2, 3, 96, 96), labels=torch.randint(5, (2, 96, 96)))
    outputs.loss.backward()
    assert outputs.loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_voc_sized_photograph_is_predicted_at_its_size(name):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8))
    (prediction,) = predict_images(tiny_model(name).eval(), [image], default_image_processor(), Inference())
    assert tuple(prediction.shape) == (375, 500)
