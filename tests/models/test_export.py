"""ONNX files compute what the models compute, at sizes that they were not traced at."""

from pathlib import Path

import pytest
import torch

from pos_hf.cli.export import main
from pos_hf.models import default_image_processor
from tests.models.tiny import tiny_model

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def difference(model: torch.nn.Module, path: Path) -> float:
    """Largest difference to torch at two sizes."""
    session = onnxruntime.InferenceSession(path)
    largest = 0.0
    for shape in ((1, 3, 70, 70), (2, 3, 133, 90)):  # the pretrained grid, and another
        images = torch.randn(shape)
        (logits,) = session.run(["logits"], {"pixel_values": images.numpy()})
        with torch.no_grad():
            largest = max(largest, (torch.from_numpy(logits) - model(images).logits).abs().max().item())
    return largest


def test_the_command_writes_a_file_with_torchs_logits(tmp_path, capsys):
    model = tiny_model("resnet").eval()
    model.save_pretrained(tmp_path)
    default_image_processor().save_pretrained(tmp_path)
    path = tmp_path / "out" / "model.onnx"
    assert main([str(tmp_path), "--format", "onnx", "--to", str(path)]) == 0
    assert "written" in capsys.readouterr().out
    assert difference(model, path) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2", "dinov2_published_positions"])
def test_vision_transformers_export(name, tmp_path):
    from pos_hf.models.export import export_onnx

    model = tiny_model(name).eval()
    assert export_onnx(model, tmp_path / "model.onnx") <= 1e-4
    assert difference(model, tmp_path / "model.onnx") <= 1e-4
