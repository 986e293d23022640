"""What a model needs to read an image belongs to the model: range, channels, statistics, class names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    AutoImageProcessor,
    BeitImageProcessorPil,
    MobileViTImageProcessorPil,
    SegformerImageProcessorPil,
)

from pos_hf.cli import evaluate, predict
from pos_hf.data import DataArguments
from pos_hf.errors import InputError
from pos_hf.evaluation import evaluate_images, label_names, load_for_inference, predict_images
from pos_hf.models import build_model
from pos_hf.runs.build import read_image_processor, set_statistics
from pos_hf.runs.config import ModelArguments
from pos_hf.training import POSTrainer
from tests.training.tiny import tiny_trainer

from .tiny import save_segformer

NAMES = ["sky", "road", "car"]
LOW, HIGH = 500.0, 4595.0
STORED = {"uint16.png": np.uint16, "float.tif": np.float32, "array.npy": np.uint16}


def processor_of(channels: int = 3, **options) -> SegformerImageProcessorPil:
    mean, std = [0.2 + 0.1 * i for i in range(channels)], [0.25] * channels
    return SegformerImageProcessorPil(do_resize=False, image_mean=mean, image_std=std, **options)


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory) -> str:
    """A model of 16-bit images."""
    return save_segformer(tmp_path_factory.mktemp("deep"), processor_of(image_range=[LOW, HIGH]), NAMES)


@pytest.fixture(scope="module")
def four_channels(tmp_path_factory) -> str:
    return save_segformer(tmp_path_factory.mktemp("four"), processor_of(4), NAMES, num_channels=4)


def deep_image(folder: Path, name: str) -> np.ndarray:
    """Write an image of values around the range, and return it as 8 bits by the definition of the range."""
    channels = 3 if name.endswith(".npy") else 1
    values = np.random.default_rng(5).integers(0, 5000, (20, 26, channels)).astype(STORED[name])
    if name.endswith(".npy"):
        np.save(folder / name, values)
    else:
        Image.fromarray(values[..., 0]).save(folder / name)
    shares = (values.astype(float) - LOW) / (HIGH - LOW)
    return np.repeat(np.floor(255 * shares.clip(0, 1) + 0.5).astype(np.uint8), 3 // channels, axis=2)


@pytest.mark.parametrize("name", STORED)
def test_deep_images_are_predicted_in_the_range_of_the_model(deep_model, tmp_path, name):
    (tmp_path / "images").mkdir()
    image = deep_image(tmp_path / "images", name)
    assert predict.main([deep_model, str(tmp_path / "images"), "--out", str(tmp_path / "out")]) == 0
    model, processor = load_for_inference(deep_model, "cpu")
    (expected,) = predict_images(model, [image], processor)
    assert len(np.unique(expected)) > 1
    with Image.open(tmp_path / "out" / "masks" / Path(name).with_suffix(".png")) as mask:
        assert np.array_equal(np.asarray(mask), expected)


def test_a_folder_of_deep_images_is_scored_in_the_range_of_the_model(deep_model, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    image = deep_image(tmp_path / "images", "uint16.png")
    mask = Image.fromarray(np.random.default_rng(0).integers(0, 3, (20, 26), dtype=np.uint8))
    mask.save(tmp_path / "masks" / "uint16.png")
    assert evaluate.main([deep_model, str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    rows = Dataset.from_dict({"id": ["uint16"], "image": [Image.fromarray(image)], "mask": [mask]})
    expected = evaluate_images(*load_for_inference(deep_model, "cpu")[:1], rows, processor_of()).scores()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["mean_iou"] == expected["mean_iou"]


def test_a_range_that_is_none_is_refused(tmp_path):
    folder = save_segformer(tmp_path / "model", processor_of(image_range=[3, "x"]), NAMES)
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"image_range of the image processor is \[3, 'x'\]"):
        predict.main([folder, str(tmp_path / "a.png"), "--out", str(tmp_path / "out")])


def test_images_of_four_channels_are_predicted_and_others_refused(four_channels, tmp_path):
    values = np.random.default_rng(1).integers(0, 256, (20, 26, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    assert predict.main([four_channels, str(tmp_path / "a.npy"), "--out", str(tmp_path / "out")]) == 0
    (expected,) = predict_images(*_with(four_channels, values))
    with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        assert np.array_equal(np.asarray(mask), expected)
    Image.new("RGB", (20, 20)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png has 3 channels, but the model takes 4: give it a TIFF"):
        predict.main([four_channels, str(tmp_path / "b.png"), "--out", str(tmp_path / "rgb")])
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        Image.new("RGB" if kind == "images" else "L", (20, 20)).save(tmp_path / "data" / kind / "b.png")
    with pytest.raises(InputError, match="data have 3 channels, but the model takes 4"):
        evaluate.main([four_channels, str(tmp_path / "data")])
    model, processor = load_for_inference(four_channels, "cpu")
    with pytest.raises(InputError, match="an image has 3 channels, but the model takes 4"):
        next(predict_images(model, [Image.new("RGB", (20, 20))], processor))


def _with(folder: str, image: np.ndarray) -> tuple:
    model, processor = load_for_inference(folder, "cpu")
    return model, [image], processor


# ---- Statistics of a start model ----


def complete(source: Path | str, num_channels: int = 3, **options):
    args = DataArguments(**options)
    processor = read_image_processor(ModelArguments(model=str(source)), args)
    set_statistics(processor, args, num_channels)
    return processor


def test_a_training_inherits_the_statistics_of_its_start_model_unless_they_are_set(tmp_path):
    save_segformer(tmp_path, BeitImageProcessorPil(), NAMES)
    processor = complete(tmp_path)
    assert (list(processor.image_mean), list(processor.image_std)) == ([0.5] * 3, [0.5] * 3)
    assert not processor.do_resize  # the views are made at native size
    processor = complete(tmp_path, image_mean=[0.1, 0.2, 0.3])
    assert (list(processor.image_mean), list(processor.image_std)) == ([0.1, 0.2, 0.3], [0.5] * 3)


SCALES = [{"do_normalize": False}, {"rescale_factor": 1 / 127.5}, {"do_rescale": False}]


@pytest.mark.parametrize("options", SCALES)
def test_training_sees_the_pixels_that_the_processor_makes(tmp_path, options):
    processor = BeitImageProcessorPil(do_resize=False, **options)
    other = tiny_trainer(str(tmp_path))
    trainer = POSTrainer(other.model, other.args, other.train_dataset, processing_class=processor)
    image = np.random.default_rng(2).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    batch = {"unlabeled": {"pixel_values": torch.from_numpy(image.transpose(2, 0, 1)[None].copy())}}
    seen = trainer.device_batch(batch)["unlabeled"]["pixel_values"]
    expected = processor(images=image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("options", SCALES)
def test_another_scale_of_the_start_model_gives_the_same_pixels(tmp_path, options):
    own = BeitImageProcessorPil(do_resize=False, **options)
    save_segformer(tmp_path, own, NAMES)
    image = np.random.default_rng(2).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    ours = complete(tmp_path)(images=image, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(ours, own(images=image, return_tensors="np")["pixel_values"], atol=1e-4)


def test_a_value_range_is_inherited_and_saved_where_transformers_reads_it(deep_model, tmp_path):
    complete(deep_model).save_pretrained(tmp_path / "inherited")
    assert AutoImageProcessor.from_pretrained(tmp_path / "inherited").image_range == [LOW, HIGH]
    complete("deeplabv3plus_tiny", image_range=[0, 255.5]).save_pretrained(tmp_path / "set")
    assert AutoImageProcessor.from_pretrained(tmp_path / "set").image_range == [0, 255.5]


def test_a_start_model_that_swaps_the_colours_is_refused(tmp_path):
    save_segformer(tmp_path, MobileViTImageProcessorPil(), NAMES)
    with pytest.raises(InputError, match="blue, green, red"):
        complete(tmp_path)


@pytest.mark.parametrize("load", [load_for_inference, lambda source, device: complete(source)])
def test_code_of_a_processor_runs_only_where_it_is_trusted_whatever_the_terminal_answers(
    tmp_path, monkeypatch, load
):
    folder = tmp_path / "model"
    build_model("deeplabv3plus_tiny", dict(enumerate(NAMES))).save_pretrained(folder)
    (folder / "mine.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    (folder / "preprocessor_config.json").write_text('{"auto_map": {"AutoImageProcessor": "mine.Mine"}}')
    monkeypatch.setattr("builtins.input", lambda *_: "yes")
    with pytest.raises(InputError, match="brings its own code"):
        load(str(folder), "cpu")
    assert not (tmp_path / "ran").exists()


# ---- Classes ----


def test_names_come_in_the_order_of_ids_though_json_has_them_in_that_of_text(tmp_path):
    names = [f"class {i}" for i in range(12)]
    folder = save_segformer(tmp_path / "model", processor_of(), names)
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = dict(sorted(config["id2label"].items()))  # "0", "1", "10", "11", "2", ...
    path.write_text(json.dumps(config))
    model, _ = load_for_inference(folder, "cpu")
    assert list(label_names(model).values()) == names


def scored(model: str, folder: Path, out: Path) -> dict:
    assert evaluate.main([model, str(folder), "--out", str(out)]) == 0
    return json.loads((out / "metrics.json").read_text())


def test_masks_of_the_same_classes_in_another_order_are_matched_by_name(tmp_path):
    model = save_segformer(tmp_path / "model", processor_of(), NAMES)
    rng = np.random.default_rng(3)
    image, mask = rng.integers(0, 256, (20, 26, 3), dtype=np.uint8), rng.integers(0, 3, (20, 26))
    mask[:3] = 255
    order = ["car", "sky", "road"]
    own_id = np.array([*(order.index(name) for name in NAMES), *range(3, 256)])  # of each of the model's ids
    for folder, ids, names in (("same", mask, NAMES), ("other", own_id[mask], order)):
        for kind, picture in (("images", image), ("masks", ids.astype(np.uint8))):
            (tmp_path / folder / kind).mkdir(parents=True)
            Image.fromarray(picture).save(tmp_path / folder / kind / "a.png")
        (tmp_path / folder / "id2label.json").write_text(json.dumps(dict(enumerate(names))))
    expected = scored(model, tmp_path / "same", tmp_path / "scores")
    found = scored(model, tmp_path / "other", tmp_path / "other_scores")
    assert found["per_category_iou"] == expected["per_category_iou"]
    truth = Image.open(tmp_path / "other_scores" / "worst" / "a" / "truth.png")
    assert np.array_equal(np.asarray(truth), mask)


def test_other_classes_are_refused_though_there_are_as_many(tmp_path):
    model = save_segformer(tmp_path / "model", processor_of(), NAMES)
    for kind, picture in (("images", Image.new("RGB", (20, 20))), ("masks", Image.new("L", (20, 20)))):
        (tmp_path / kind).mkdir()
        picture.save(tmp_path / kind / "a.png")
    (tmp_path / "id2label.json").write_text('{"0": "sky", "1": "roads", "2": "car"}')
    with pytest.raises(InputError, match=r"class 'roads', which the model does not know .* 'road'"):
        evaluate.main([model, str(tmp_path)])
    unnamed = save_segformer(tmp_path / "unnamed", processor_of(), ["LABEL_0", "LABEL_1", "LABEL_2"])
    assert evaluate.main([unnamed, str(tmp_path)]) == 0
