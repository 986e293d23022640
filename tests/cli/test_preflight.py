"""What a run decides by its device and its data."""

import json

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForSemanticSegmentation,
    BeitImageProcessorPil,
    Data2VecVisionConfig,
    DPTConfig,
)

from pos_hf.cli.main import main
from pos_hf.data import DataArguments
from pos_hf.evaluation.inference import Inference, class_probabilities
from pos_hf.models import default_image_processor
from pos_hf.runs.preflight import settle_device_views


@pytest.mark.parametrize(
    ("asked", "device", "expected"),
    [(None, "cuda", True), (None, "cpu", False), (False, "cuda", False), (True, "cpu", True)],
)
def test_a_gpu_makes_the_strong_views_unless_told_otherwise(asked, device, expected):
    args = DataArguments(device_views=asked)
    settle_device_views(args, torch.device(device))
    assert args.device_views is expected


VIT = {
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_labels": 2,
}
DPT = DPTConfig(
    **VIT,
    is_hybrid=False,
    backbone_out_indices=[0, 1, 2, 3],
    neck_hidden_sizes=[8, 8, 8, 8],
    fusion_hidden_size=8,
)
DATA2VEC = Data2VecVisionConfig(**VIT, out_indices=[1, 2, 3, 4], auxiliary_channels=8, pool_scales=[1, 2])


def start_model(folder, config) -> str:
    torch.manual_seed(0)
    AutoModelForSemanticSegmentation.from_config(config).save_pretrained(folder / "start")
    BeitImageProcessorPil().save_pretrained(folder / "start")
    return str(folder / "start")


def test_a_model_of_square_token_grids_sees_other_images_padded_to_a_square():
    torch.manual_seed(0)
    model = AutoModelForSemanticSegmentation.from_config(DPT).eval()
    image = torch.randn(1, 3, 32, 64)
    square = torch.zeros(1, 3, 64, 64)
    square[..., :32, :] = image
    expected = model(square).logits[..., :32, :].softmax(1)
    torch.testing.assert_close(class_probabilities(model, image, Inference()), expected)


@pytest.mark.usefixtures("labels_as_test")
def test_a_model_of_square_token_grids_is_scored_after_training(folder):
    """The images are 24 x 20; the start model's statistics are the trained one's."""
    overrides = ["--model", start_model(folder, DPT), "--crop_size", "32"]
    assert main(["train", str(folder / "config.yaml"), *overrides]) == 0
    assert 0 <= json.loads((folder / "run" / "metrics.json").read_text())["mean_iou"] <= 1
    processor = json.loads((folder / "run" / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == processor["image_std"] == [0.5] * 3


@pytest.mark.usefixtures("labels_as_test")
@pytest.mark.parametrize(("crop_size", "blamed"), [(64, "crop_size"), (32, "test images")])
def test_a_model_of_one_size_is_refused_before_training(folder, capsys, crop_size, blamed):
    overrides = ["--model", start_model(folder, DATA2VEC), "--crop_size", str(crop_size)]
    assert main(["train", str(folder / "config.yaml"), *overrides]) == 2
    printed = capsys.readouterr().err
    assert "Data2VecVisionForSemanticSegmentation cannot take images of" in printed and blamed in printed
    assert not list((folder / "run").rglob("*"))


def test_predict_goes_on_after_an_image_that_the_network_does_not_take(folder, capsys):
    (folder / "photos").mkdir()
    for name, size in (("a", (48, 32)), ("b", (32, 32))):
        Image.new("RGB", size).save(folder / "photos" / f"{name}.png")
    start_model(folder, DATA2VEC)
    default_image_processor().save_pretrained(folder / "start")  # does not resize
    command = ["predict", str(folder / "start"), str(folder / "photos"), "--out", str(folder / "out")]
    assert main([*command, "--multiple", "1"]) == 1
    assert "a.png cannot be predicted: Given transposed" in capsys.readouterr().err
    assert [path.name for path in (folder / "out" / "masks").iterdir()] == ["b.png"]
