"""`pos-hf evaluate` and `pos-hf predict` on a tiny model and a folder of images."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pos_hf.cli import evaluate, predict
from pos_hf.errors import InputError
from pos_hf.evaluation import evaluate_images, load_for_inference, predict_images, predict_probabilities

from .tiny import save_segformer


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, processor) -> str:
    names = [f"class {i}" for i in range(4)]
    return save_segformer(tmp_path_factory.mktemp("model"), processor, names)


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
    with pytest.raises(InputError, match="there is no model folder"):
        evaluate.main([str(tmp_path / "absent"), str(image_folder)])
    with pytest.raises(InputError, match=r"holds no config\.json"):
        evaluate.main([str(image_folder), str(image_folder)])
    with pytest.raises(InputError, match="has 4 classes"):
        evaluate.main([model_folder, "shapes"])
    (image_folder / "masks" / "row_3.png").unlink()
    with pytest.raises(InputError, match=r"row_3.* has no mask"):
        evaluate.main([model_folder, str(image_folder)])


def test_evaluate_refuses_masks_of_0_and_255_and_a_config_reads_them(
    model_folder, image_folder, tmp_path, processor
) -> None:
    model = save_segformer(tmp_path / "binary", processor, ["background", "crack"])
    for path in (image_folder / "masks").iterdir():
        Image.fromarray(np.uint8(255 * (np.asarray(Image.open(path)) == 1))).save(path)
    with pytest.raises(InputError, match=r'hold only 0 and 255.*: set `mask_values: {"255": 1}` in a config'):
        evaluate.main([model, str(image_folder)])
    keys = {"mask_values": {"255": 1}, "class_names": ["background", "crack"], "method": "supervised"}
    (tmp_path / "config.json").write_text(json.dumps({"dataset": str(image_folder), **keys}))
    out = tmp_path / "scores"
    assert evaluate.main([model, str(tmp_path / "config.json"), "--role", "labeled", "--out", str(out)]) == 0
    assert json.loads((out / "metrics.json").read_text())["per_category_iou"]["crack"] > 0


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
    with pytest.raises(InputError, match="have the same name"):
        predict.main([model_folder, str(tmp_path), "--out", str(tmp_path / "other")])


def masks_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "masks").iterdir()}


def test_predict_leaves_a_broken_image_out_and_a_rerun_makes_what_is_missing(
    model_folder, image_folder, tmp_path, capsys
) -> None:
    images, whole, out = image_folder / "images", tmp_path / "whole", tmp_path / "out"
    assert predict.main([model_folder, str(images), "--out", str(whole)]) == 0
    content = (images / "row_4.png").read_bytes()
    (images / "row_4.png").write_bytes(content[: len(content) // 2])
    command = [model_folder, str(images), "--out", str(out)]
    assert predict.main(command) == 1
    printed = capsys.readouterr()
    assert "row_4.png cannot be read" in printed.err and "1 images left out" in printed.out
    assert masks_of(out) == {name: mask for name, mask in masks_of(whole).items() if name != "row_4.png"}
    (images / "row_4.png").write_bytes(content)
    (out / "overlays" / "row_7.png").unlink()  # as a kill between the two leaves it
    before = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    assert predict.main(command) == 0
    assert "2 images predicted" in capsys.readouterr().out
    assert masks_of(out) == masks_of(whole)
    again = {path.name for path in (out / "masks").iterdir() if path.stat().st_mtime_ns != before.get(path)}
    assert again == {"row_4.png"}
    assert len(list((out / "overlays").iterdir())) == 11


def test_a_corrected_mask_is_kept_while_its_confidence_is_made(model_folder, image_folder, tmp_path) -> None:
    command = [model_folder, str(image_folder / "images"), "--out", str(tmp_path / "out")]
    assert predict.main(command) == 0
    corrected = tmp_path / "out" / "masks" / "row_1.png"
    Image.new("L", (20, 24), 3).save(corrected)
    before = corrected.read_bytes()
    assert predict.main([*command, "--confidence"]) == 0
    assert corrected.read_bytes() == before
    assert (tmp_path / "out" / "confidence" / "row_1.png").is_file()


def test_masks_are_not_taken_for_those_of_other_images_of_the_same_names(
    model_folder, image_folder, tmp_path
) -> None:
    images, out = image_folder / "images", ["--out", str(tmp_path / "out")]
    assert predict.main([model_folder, str(images / "row_1.png"), *out]) == 0
    assert predict.main([model_folder, str(images / "row_2.png"), *out]) == 0  # of the same folder
    (tmp_path / "other").mkdir()
    shutil.copy(images / "row_2.png", tmp_path / "other" / "row_1.png")
    with pytest.raises(InputError, match="is of other images, another model"):
        predict.main([model_folder, str(tmp_path / "other"), *out])
    later = (tmp_path / "out" / "masks" / "row_1.png").stat().st_mtime + 9
    os.utime(images / "row_1.png", (later, later))  # as a camera that counts from 1 again leaves it
    with pytest.raises(InputError, match=r"row_1\.png' is older than its image"):
        predict.main([model_folder, str(images), *out])


def test_predict_takes_none_of_its_own_pictures_for_an_image(
    model_folder, image_folder, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(image_folder / "images")
    (image_folder / "images" / "masks").mkdir()
    shutil.copy("row_1.png", "masks/mine.png")  # a folder of that name that is the user's
    command = [model_folder, ".", "--out", "predictions", "--confidence"]
    assert predict.main([*command, "--to", "cvat"]) == 0
    capsys.readouterr()
    assert predict.main(command) == 0
    assert "0 images predicted" in capsys.readouterr().out
    found = {
        path.relative_to("predictions/masks").as_posix() for path in Path("predictions/masks").rglob("*.png")
    }
    assert found == {*(f"row_{i}.png" for i in range(11)), "masks/mine.png"}


def test_a_rerun_with_another_model_or_protocol_is_refused(
    model_folder, image_folder, tmp_path, processor
) -> None:
    command = [str(image_folder / "images"), "--out", str(tmp_path / "out")]
    assert predict.main([model_folder, *command]) == 0
    before = masks_of(tmp_path / "out")
    with pytest.raises(InputError, match="another model or other options"):
        predict.main([model_folder, *command, "--flip"])
    model, _ = load_for_inference(model_folder, "cpu")
    torch.nn.init.normal_(model.decode_head.classifier.bias)
    model.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="another model or other options"):
        predict.main([str(tmp_path / "other"), *command])
    assert masks_of(tmp_path / "out") == before


def test_predict_shows_a_picture_beyond_pillows_guard_in_parts_or_not_at_all(
    model_folder, tmp_path, monkeypatch
) -> None:
    # the guard of 89 million pixels, brought down to 1,000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(predict, "MAX_PIXELS", 1000)
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    command = [model_folder, str(tmp_path / "large.png"), "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"large.png has .* million pixels.* --window 512"):
        predict.main(command)
    assert predict.main([*command, "--window", "16"]) == 0
    Image.new("RGB", (50, 50)).save(tmp_path / "larger.png")
    with pytest.raises(InputError, match=r"larger.png has more than .* million pixels: cut it into tiles"):
        predict.main(
            [model_folder, str(tmp_path / "larger.png"), "--out", str(tmp_path / "o"), "--window", "16"]
        )


def test_predict_writes_for_an_annotation_tool_and_leaves_out_what_is_not_sure(
    model_folder, image_folder, dataset, tmp_path
) -> None:
    out = tmp_path / "out"
    arguments = [model_folder, str(image_folder / "images"), "--out", str(out), "--to", "coco"]
    arguments += ["--confidence", "--min_confidence", "0.3"]
    assert predict.main(arguments) == 0
    model, processor = load_for_inference(model_folder, "cpu")
    maps = predict_probabilities(model, dataset["image"], processor)
    for row, probabilities in zip(dataset, maps, strict=True):
        highest, ids = (part.numpy() for part in probabilities[0].max(0))
        with Image.open(out / "masks" / f"{row['id']}.png") as mask:
            assert np.array_equal(np.asarray(mask), np.where(highest < 0.3, 255, ids))
        with Image.open(out / "confidence" / f"{row['id']}.png") as confidence:
            assert np.abs(np.asarray(confidence) - 255 * highest).max() <= 1
    content = json.loads((out / "coco" / "annotations.json").read_text())
    named = {(out / "coco" / image["file_name"]).resolve() for image in content["images"]}
    assert named == {path.resolve() for path in (image_folder / "images").iterdir()}
    with pytest.raises(InputError, match="is kept"):  # it may have been corrected
        predict.main(arguments)
    with pytest.raises(InputError, match="other options"):
        predict.main([*arguments[:4], "--min_confidence", "0.5"])
