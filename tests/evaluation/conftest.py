"""A model that classifies pixels by colour, and eleven small labeled images of several sizes."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, SegformerImageProcessorPil
from transformers.modeling_outputs import SemanticSegmenterOutput

CLASSES = 4


class ColourConfig(PreTrainedConfig):
    model_type = "colour"


class ColourModel(PreTrainedModel):
    """One 3x3 convolution: the logits of a pixel depend on its neighbourhood only."""

    config_class = ColourConfig

    def __init__(self, config: ColourConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Conv2d(3, config.num_labels, 3, padding=1)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> SemanticSegmenterOutput:
        return SemanticSegmenterOutput(logits=self.classifier(pixel_values))


@pytest.fixture
def model() -> ColourModel:
    config = ColourConfig(id2label={i: f"class {i}" for i in range(CLASSES)})
    model = ColourModel(config)
    torch.nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(scope="session")
def processor() -> SegformerImageProcessorPil:
    return SegformerImageProcessorPil(do_resize=False, image_mean=[0.5] * 3, image_std=[0.25] * 3)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    random = np.random.default_rng(0)
    rows = []
    for i in range(11):
        height, width = ((20, 24), (24, 20), (17, 31))[i % 3]
        mask = random.integers(0, CLASSES - 1, (height, width)).astype(np.uint8)  # the last class is absent
        mask[random.random(mask.shape) < 0.1] = 255
        image = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
        rows.append({"id": f"row_{i}", "image": image, "mask": mask})
    features = Features({"id": Value("string"), "image": Image(), "mask": Image()})
    return Dataset.from_list(rows, features=features)
