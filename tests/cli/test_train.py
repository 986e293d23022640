"""Images of any number of channels, and one run from end to end. Bad input is in test_bad_input.py."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from pos_hf.cli.main import main
from pos_hf.data import DataArguments, load_data
from pos_hf.evaluation import Inference, evaluate_images, load_for_inference, predict_images
from pos_hf.models import build_model
from pos_hf.models.export import metadata
from tests.cli.bad_input import keys
from tests.launching import ROOT
from tests.rasters import PLACE, write_geotiff


@pytest.fixture
def bands(folder, labels_as_test) -> Path:
    """The same dataset with images of five channels."""
    rng = np.random.default_rng(1)
    for path in [*(folder / "data" / "images").iterdir(), *(folder / "data" / "unlabeled").iterdir()]:
        np.save(path.with_suffix(".npy"), rng.integers(0, 256, (20, 24, 5), dtype=np.uint8))
        path.unlink()
    return folder


def refused(folder: Path, capsys, *overrides: str) -> str:
    """Run the config, expect exit code 2 and one sentence; nothing is written."""
    before = sorted(folder.rglob("*"))
    assert main(["train", str(folder / "config.yaml"), *overrides]) == 2
    assert sorted(folder.rglob("*")) == before
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pos-hf train:")]
    return sentence


def test_images_of_five_channels_train_and_are_scored(bands):
    assert main(["train", str(bands / "config.yaml"), "--max_steps", "2"]) == 0
    run = bands / "run"
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["mean_iou"] <= 1
    processor = AutoImageProcessor.from_pretrained(run)
    assert (len(processor.image_mean), len(processor.image_std)) == (5, 5)
    model = AutoModelForSemanticSegmentation.from_pretrained(run).eval()
    image = np.load(bands / "data" / "images" / "0.npy")
    pixels = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
    prediction = next(iter(predict_images(model, [image], processor)))
    assert np.array_equal(prediction, model(pixels).logits[0].argmax(0).numpy())


def test_geotiffs_of_16_bits_train_with_the_lines_of_the_check_and_are_predicted_where_they_lie(folder):
    rng = np.random.default_rng(1)
    for path in [*(folder / "data" / "images").iterdir(), *(folder / "data" / "unlabeled").iterdir()]:
        write_geotiff(path.with_suffix(".tif"), rng.integers(0, 3000, (20, 24, 5), dtype=np.uint16), nodata=0)
        path.unlink()
    data, config = str(folder / "data"), str(folder / "written.yaml")
    keys(bands=[4, 3, 2, 5], device_views=True)(folder)
    assert main(["check-data", str(folder / "config.yaml"), "--write_config", config]) == 2
    assert main(["train", config]) == 0
    processor = AutoImageProcessor.from_pretrained(folder / "run")
    assert processor.bands == [4, 3, 2, 5] and processor.image_range[1] == pytest.approx(2985, abs=5)
    assert processor.image_mean == pytest.approx([0.5] * 4, abs=0.1)
    facts = metadata(AutoModelForSemanticSegmentation.from_pretrained(folder / "run"), processor)
    assert facts["bands"] == "[4, 3, 2, 5]"
    assert main(["evaluate", str(folder / "run"), data, "--out", str(folder / "scores")]) == 0
    assert main(["predict", str(folder / "run"), f"{data}/images", "--out", str(folder / "out")]) == 0
    with rasterio.open(folder / "out" / "masks" / "0.tif") as mask:
        assert mask.shape == (20, 24) and mask.transform == PLACE["transform"]


@pytest.mark.usefixtures("labels_as_test")
def test_a_run_is_scored_by_its_own_protocol(folder):
    options = ["--eval_strategy", "steps", "--eval_steps", "1", "--inference_options"]
    protocol = '{"window": 12, "layout": "truncated"}'
    assert main(["train", str(folder / "config.yaml"), *options, protocol]) == 0
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert (metrics["protocol"]["window"], metrics["protocol"]["layout"]) == (12, "truncated")
    log = json.loads((folder / "run" / "trainer_state.json").read_text())["log_history"]
    assert [entry["eval_mean_iou"] for entry in log if "eval_mean_iou" in entry] == [metrics["mean_iou"]]
    model, processor = load_for_inference(str(folder / "run"), "cpu")
    rows = load_data(DataArguments(dataset=str(folder / "data"))).test
    windows = evaluate_images(model, rows, processor, inference=Inference(window=12, layout="truncated"))
    scored = np.load(folder / "run" / "per_image.npz")["areas"]
    assert np.array_equal(scored, windows.image_areas.numpy())
    assert not np.array_equal(scored, evaluate_images(model, rows, processor).image_areas.numpy())


@pytest.mark.usefixtures("labels_as_test")
@pytest.mark.parametrize(("share", "role", "change"), [("0.5", "selection", False), ("0", "test", True)])
def test_a_score_of_the_selection_set_is_named_beside_the_tests(folder, capsys, share, role, change):
    options = f"--eval_strategy steps --eval_steps 1 --max_steps 2 --selection_share {share}"
    assert main(["train", str(folder / "config.yaml"), *options.split()]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "test mIoU" in words and f"% of the {role} images at step 2" in words
    assert bool(re.search(r"IoU % \S+ [\d.]+ [+-]", words)) == change  # points since the first evaluation
    report = (folder / "run" / "report.html").read_text()
    assert f"student, last evaluation ({role} images)" in report and f"Of the {role} images. Solid" in report


def test_statistics_of_another_number_of_channels(bands, capsys):
    assert "5 channels" in refused(bands, capsys, "--image_mean", "0.5", "0.5", "0.5")


def test_a_model_of_another_number_of_channels(bands, capsys):
    build_model("deeplabv3plus_tiny", {0: "background", 1: "cat"}).save_pretrained(bands / "rgb")
    assert "takes images of 3 channels" in refused(bands, capsys, "--model", str(bands / "rgb"))


def test_help_answers_in_under_a_second_of_processor_time():
    entry = "import sys; from pos_hf.cli.main import main; sys.exit(main(sys.argv[1:]))"
    for command in ([], ["train"], ["evaluate"], ["predict"], ["report"], ["convert"]):
        before = os.times().children_user
        arguments = [sys.executable, "-c", entry, *command, "--help"]
        subprocess.run(arguments, check=True, capture_output=True, cwd=ROOT)
        assert os.times().children_user - before < 1, command


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    """A three-step run on `shapes` through `accelerate launch`, as the README has it."""
    run = tmp_path_factory.mktemp("finished") / "run"
    overrides = {
        "output_dir": run,
        "max_steps": 3,
        "num_unlabeled": 16,
        "num_test": 4,
        "eval_strategy": "no",
        "logging_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
    }
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu"]
    command += ["scripts/train.py", "configs/shapes/pos_meo.yaml"]
    command += [str(part) for key, value in overrides.items() for part in (f"--{key}", value)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return run


def test_a_run_leaves_model_card_metrics_examples_and_report(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    expected = {"config.json", "model.safetensors", "preprocessor_config.json", "student", "README.md"}
    expected |= {"metrics.json", "run.json", "trainer_state.json", "report.html", "examples", "worst"}
    assert expected <= names
    assert not {"training_args.bin", "optimizer.pt"} & names
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert 0 <= metrics["mean_iou"] <= 1
    assert metrics["protocol"]["num_labeled"] > 0
    assert 0 <= metrics["pseudo_labels"]["coverage"] <= 1
    assert len(list((finished_run / "worst").glob("*/prediction.png"))) == 4


def test_the_exported_model_gives_the_same_logits_in_a_new_process(finished_run, tmp_path):
    script = (
        "import sys, torch, pos_hf\n"
        "from transformers import AutoModelForSemanticSegmentation\n"
        "model = AutoModelForSemanticSegmentation.from_pretrained(sys.argv[1]).eval()\n"
        "torch.save(model(torch.load(sys.argv[2])).logits, sys.argv[3])\n"
    )
    torch.save(torch.randn(1, 3, 64, 64), tmp_path / "images.pt")
    command = [sys.executable, "-c", script, finished_run, tmp_path / "images.pt", tmp_path / "logits.pt"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: more of them round differently
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env=one_thread, capture_output=True)
    model = AutoModelForSemanticSegmentation.from_pretrained(finished_run).eval()
    assert torch.equal(model(torch.load(tmp_path / "images.pt")).logits, torch.load(tmp_path / "logits.pt"))
    assert AutoImageProcessor.from_pretrained(finished_run).do_resize is False


def test_evaluate_repeats_the_metrics_of_the_run(finished_run, tmp_path):
    assert main(["evaluate", str(finished_run), "shapes", "--out", str(tmp_path / "scores")]) == 0
    found = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert found["images"] == 100
    assert found["protocol"]["dataset"] == "shapes"


def test_predict_writes_a_mask_and_an_overlay_for_every_image(finished_run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (50, 37), (90, 20, 200)).save(images / "photo.jpg")
    assert main(["predict", str(finished_run), str(images), "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "masks" / "photo.png") as mask:
        assert (mask.mode, mask.size) == ("P", (50, 37))
    assert (tmp_path / "out" / "overlays" / "photo.png").exists()
