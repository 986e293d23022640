"""`pos-hf evaluate` and `pos-hf predict` on a tiny model and a folder of images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from pos_hf.cli import evaluate, predict
from pos_hf.errors import InputError
from pos_hf.evaluation import evaluate_images, load_for_inference, predict_images


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, processor) -> str:
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[1, 1],
        hidden_sizes=[8, 8],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[1, 1],
        decoder_hidden_size=8,
        id2label={i: f"class {i}" for i in range(4)},
        palette=[[10 * i, 20, 30] for i in range(4)],
    )
    folder = tmp_path_factory.mktemp("model")
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def image_folder(tmp_path: Path, dataset) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for row in dataset:
        row["image"].save(tmp_path / "images" / f"{row['id']}.png")
        row["mask"].save(tmp_path / "masks" / f"{row['id']}.png")
    return tmp_path


def test_evaluate_prints_a_table_and_writes_the_scores_of_the_folder(
    model_folder, image_folder, dataset, tmp_path, capsys
) -> None:
    out = tmp_path / "scores"
    assert evaluate.main([model_folder, str(image_folder), "--out", str(out), "--threshold", "0.3"]) == 0
    saved = json.loads((out / "metrics.json").read_text())
    model, processor = load_for_inference(model_folder, "cpu")
    assert saved["mean_iou"] == evaluate_images(model, dataset, processor).scores()["mean_iou"]
    assert saved["protocol"]["role"] == "labeled" and saved["protocol"]["multiple"] == 1
    printed = capsys.readouterr().out
    assert f"mIoU {100 * saved['mean_iou']:.1f}" in printed and "class 2" in printed
    assert "boundary IoU" in printed and "pseudo-labels:" in printed


def test_evaluate_draws_the_images_of_lowest_score(model_folder, image_folder, dataset, tmp_path) -> None:
    assert evaluate.main([model_folder, str(image_folder), "--out", str(tmp_path / "scores")]) == 0
    model, processor = load_for_inference(model_folder, "cpu")
    own = {}
    for row, prediction in zip(dataset, predict_images(model, dataset["image"], processor), strict=True):
        mask = np.asarray(row["mask"])
        prediction = np.where(mask == 255, 255, prediction)
        classes = np.union1d(mask, prediction)[:-1]
        shares = [
            ((mask == c) & (prediction == c)).sum() / ((mask == c) | (prediction == c)).sum() for c in classes
        ]
        own[row["id"]] = np.mean(shares)
    drawn = {path.name: path for path in (tmp_path / "scores" / "worst").iterdir()}
    assert set(drawn) == set(sorted(own, key=own.__getitem__)[:4])
    for name, path in drawn.items():
        row = next(row for row in dataset if row["id"] == name)
        (expected,) = predict_images(model, [row["image"]], processor)
        assert np.array_equal(np.asarray(Image.open(path / "prediction.png")), expected)
        assert np.array_equal(np.asarray(Image.open(path / "truth.png")), np.asarray(row["mask"]))


def test_evaluate_keeps_earlier_scores(model_folder, image_folder, tmp_path) -> None:
    (tmp_path / "metrics.json").write_text("mine")
    with pytest.raises(InputError, match="is kept"):
        evaluate.main([model_folder, str(image_folder), "--out", str(tmp_path)])
    assert (tmp_path / "metrics.json").read_text() == "mine"


def test_evaluate_refuses_data_it_cannot_score(model_folder, image_folder, tmp_path) -> None:
    with pytest.raises(InputError, match="is neither"):
        evaluate.main([str(tmp_path / "absent"), str(image_folder)])
    with pytest.raises(InputError, match=r"holds no config\.json"):
        evaluate.main([str(image_folder), str(image_folder)])
    with pytest.raises(InputError, match="has 4 classes"):
        evaluate.main([model_folder, "shapes"])
    (image_folder / "masks" / "row_3.png").unlink()
    with pytest.raises(InputError, match=r"row_3.* has no mask"):
        evaluate.main([model_folder, str(image_folder)])


def test_predict_writes_the_models_classes_as_palette_masks(model_folder, image_folder, tmp_path) -> None:
    out = tmp_path / "out"
    assert predict.main([model_folder, str(image_folder / "images"), "--out", str(out)]) == 0
    model, processor = load_for_inference(model_folder, "cpu")
    image = Image.open(image_folder / "images" / "row_1.png")
    logits = model(processor(images=image, return_tensors="pt")["pixel_values"]).logits
    logits = torch.nn.functional.interpolate(logits, image.size[::-1], mode="bilinear")
    mask = Image.open(out / "masks" / "row_1.png")
    assert mask.mode == "P" and mask.getpalette()[3:6] == [10, 20, 30]
    assert np.array_equal(np.asarray(mask), logits.argmax(1)[0].numpy())
    assert len(list((out / "overlays").iterdir())) == 11


def test_predict_keeps_every_existing_file(model_folder, image_folder, tmp_path) -> None:
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "masks" / "row_7.png").write_text("mine")
    with pytest.raises(InputError, match=r"row_7\.png' exists and is kept"):
        predict.main([model_folder, str(image_folder / "images"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "overlays").exists()


def test_predict_turns_photos_upright(model_folder, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by a quarter
    Image.new("RGB", (20, 12)).save(tmp_path / "photo.jpg", exif=exif)
    predict.main([model_folder, str(tmp_path / "photo.jpg"), "--out", str(tmp_path / "out")])
    with Image.open(tmp_path / "out" / "masks" / "photo.png") as mask:
        assert mask.size == (12, 20)


def test_predict_names_a_file_that_is_no_image_and_images_of_one_name(model_folder, tmp_path) -> None:
    with pytest.raises(InputError, match="holds no image"):
        predict.main([model_folder, str(tmp_path), "--out", str(tmp_path / "out")])
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(InputError, match="cannot be read"):
        predict.main([model_folder, str(tmp_path), "--out", str(tmp_path / "out")])
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(InputError, match="would share"):
        predict.main([model_folder, str(tmp_path), "--out", str(tmp_path / "other")])
