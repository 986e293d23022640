"""The page to try a model on: its answers, and where gradio is installed the page itself over HTTP."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForSemanticSegmentation

from pos_hf.cli import app as command
from pos_hf.errors import InputError
from pos_hf.hub.app import TriedModel, make_page


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def expected_probabilities(run, photo):
    """The network alone, on the normalised image."""
    pixels = torch.tensor(np.asarray(Image.open(photo))).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    model = AutoModelForSemanticSegmentation.from_pretrained(run).eval()
    with torch.no_grad():
        logits = model((pixels - mean) / std).logits
        size = pixels.shape[-2:]
        logits = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits.softmax(1)[0], list(model.config.id2label.values())


def test_the_answer_is_the_networks(make_run, photo):
    run = make_run("shapes")
    picture, confidence, rows = TriedModel(str(run)).answer(str(photo))
    probabilities, names = expected_probabilities(run, photo)
    highest, ids = (part.numpy() for part in probabilities.max(0))
    difference = np.asarray(confidence).astype(int) - np.uint8(255 * highest)
    assert confidence.size == (64, 48) and np.abs(difference).max() <= 1
    assert picture.size[0] >= 64  # the legend is beside or below
    assert sum(row[1] for row in rows) == pytest.approx(100, abs=0.05 * len(rows))
    for name, share, mean in rows:
        is_class = ids == names.index(name)
        assert share == pytest.approx(100 * is_class.mean(), abs=0.3)
        assert mean == pytest.approx(100 * highest[is_class].mean(), abs=0.3)
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)


def test_what_is_no_image_is_answered_in_one_sentence(make_run, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(InputError, match=r"notes\.png"):
        TriedModel(str(make_run("shapes"))).answer(str(tmp_path / "notes.png"))


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'pos_hf\[app\]'"):
        command.main(["runs/any"])


def test_the_command_tries_the_model_of_a_subfolder(make_run, monkeypatch):
    run = make_run("shapes")
    (run / "student").mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (run / name).rename(run / "student" / name)
    pages = []

    class Page:
        def __init__(self, tried):
            pages.append(tried)

        def launch(self, **options):
            pass

    monkeypatch.setattr(command, "find_spec", lambda name: True)
    monkeypatch.setattr("pos_hf.hub.app.make_page", Page)
    assert command.main([str(run), "--subfolder", "student"]) == 0
    assert len(pages) == 1


@pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_page_answers_over_http(make_run, photo, tmp_path):
    from gradio_client import Client, handle_file

    run = make_run("shapes")
    tried = TriedModel(str(run))
    page = make_page(tried)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    try:
        client = Client(url, verbose=False, download_files=str(tmp_path / "answers"))
        mask, confidence, table = client.predict(handle_file(str(photo)), api_name="/predict")
        picture, expected, rows = tried.answer(str(photo))
        assert np.array_equal(np.asarray(Image.open(mask).convert("RGB")), np.asarray(picture))
        assert np.array_equal(np.asarray(Image.open(confidence).convert("L")), np.asarray(expected))
        assert table["data"] == rows
        with pytest.raises(Exception, match="drop an image first"):
            client.predict(None, api_name="/predict")
    finally:
        page.close()
