"""ONNX files compute what the models compute, at sizes that they were not traced at."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pos_hf.cli.export import main
from pos_hf.errors import InputError
from pos_hf.evaluation import load_for_inference, predict_images
from pos_hf.models import build_model, default_image_processor
from tests.launching import ROOT
from tests.models.tiny import tiny_model

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from pos_hf.models.export import export_onnx  # noqa: E402 - needs what may be missing


def difference(model: torch.nn.Module, path: Path, channels: int = 3) -> float:
    """Largest difference to torch at two sizes."""
    session = onnxruntime.InferenceSession(path)
    largest = 0.0
    for batch, *size in ((1, 70, 70), (2, 133, 90)):  # the pretrained grid, and another
        images = torch.randn(batch, channels, *size)
        (logits,) = session.run(["logits"], {"pixel_values": images.numpy()})
        with torch.no_grad():
            largest = max(largest, (torch.from_numpy(logits) - model(images).logits).abs().max().item())
    return largest


NAMES = [f"class {i}" for i in range(12)]
FACTS = {"image_mean": [0.1, 0.2, 0.3, 0.4], "image_std": [0.5] * 4, "image_range": [0, 255], "bands": None}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The folder of a model of four channels, and model.onnx in it."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    build_model("deeplabv3plus_tiny", dict(enumerate(NAMES)), num_channels=4).save_pretrained(folder)
    processor = default_image_processor()
    for name, value in FACTS.items():
        setattr(processor, name, value)
    processor.save_pretrained(folder)
    assert main([str(folder), "--format", "onnx", "--to", str(folder / "out" / "model.onnx")]) == 0
    (folder / "out" / "model.onnx").rename(folder / "model.onnx")
    assert not list((folder / "out").iterdir())
    return folder


def test_the_command_writes_a_file_with_torchs_logits(exported):
    model, _ = load_for_inference(str(exported), "cpu")
    assert difference(model, exported / "model.onnx", channels=4) <= 1e-4


def test_the_file_says_how_to_read_an_image(exported):
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in metadata.items()} == {"class_names": NAMES, **FACTS}


def test_the_example_reads_an_image_as_predict_does(exported, tmp_path, capsys):
    photo = np.random.default_rng(0).integers(0, 256, (45, 60, 4), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    paths = exported / "model.onnx", tmp_path / "photo.png", tmp_path / "mask.png"
    example = ROOT / "scripts" / "examples" / "onnx_predict.py"
    runpy.run_path(str(example))["main"](*map(str, paths))
    (expected,) = predict_images(*_model_and(photo, exported))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), expected)
    assert capsys.readouterr().out == f"{[NAMES[i] for i in np.unique(expected)]}\n"


def _model_and(image: np.ndarray, folder: Path) -> tuple:
    model, processor = load_for_inference(str(folder), "cpu")
    return model, [image], processor


class Branches(torch.nn.Module):
    """Decides by the values of the image, which a traced file cannot."""

    def forward(self, features):
        return features * 2 if features.sum() > 0 else features


def test_a_model_that_cannot_be_exported_leaves_no_file(tmp_path):
    model = tiny_model("resnet").eval()
    model.backbone.register_forward_pre_hook(lambda module, images: (Branches()(images[0]),))
    with pytest.raises(InputError, match="cannot be exported as ONNX"):
        export_onnx(model, tmp_path / "model.onnx", default_image_processor())
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_not_kept(exported, tmp_path, monkeypatch):
    def export_another(function, images, file, **options):
        shutil.copy(exported / "model.onnx", file)

    model, processor = load_for_inference(str(exported), "cpu")
    torch.nn.init.normal_(model.classifier.weight)
    monkeypatch.setattr(torch.onnx, "export", export_another)
    with pytest.raises(InputError, match="off the model's logits, so it is not kept"):
        export_onnx(model, tmp_path / "model.onnx", processor)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2", "dinov2_published_positions"])
def test_vision_transformers_export(name, tmp_path):
    model = tiny_model(name).eval()
    assert export_onnx(model, tmp_path / "model.onnx", default_image_processor()) <= 1e-4
    assert difference(model, tmp_path / "model.onnx") <= 1e-4
