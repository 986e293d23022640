"""Masks of one object each, and masks painted with noise, become masks of class ids."""

import numpy as np
import pytest
from PIL import Image

from pos_hf.data import DataArguments
from pos_hf.data.checks import check_data
from pos_hf.data.loading import load_data
from pos_hf.errors import InputError

BOXES = {
    "a": [(1, 2, 8, 9), (5, 5, 14, 11)],
    "b": [(0, 0, 3, 4)],
    "c": [(2, 2, 6, 6), (9, 3, 12, 8), (7, 9, 9, 11)],
}
SIZE = (12, 16)  # height, width


def objects(name):
    """A mask an object, and all of them together, by counting pixels."""
    masks = []
    for left, top, right, bottom in BOXES[name]:
        mask = np.zeros(SIZE, np.uint8)
        mask[top:bottom, left:right] = 255
        masks.append(mask)
    return masks, np.maximum.reduce(masks) // 255


def save(values, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def nuclei(root):  # Kaggle's Data Science Bowl 2018
    for name in BOXES:
        save(np.zeros((*SIZE, 3), np.uint8), root / "stage1_train" / name / "images" / f"{name}.png")
        for number, mask in enumerate(objects(name)[0]):
            save(mask, root / "stage1_train" / name / "masks" / f"{number}f3e.png")


def ultrasound(root):  # BUSI
    for name in BOXES:
        save(np.zeros((*SIZE, 3), np.uint8), root / "benign" / f"benign ({name}).png")
        for number, mask in enumerate(objects(name)[0]):
            save(mask, root / "benign" / f"benign ({name})_mask{f'_{number}' if number else ''}.png")


def opaque(root):  # with transparency that says nothing
    for name in BOXES:
        save(np.zeros((*SIZE, 3), np.uint8), root / "images" / f"{name}.png")
        for number, mask in enumerate(objects(name)[0]):
            save(np.dstack([mask] * 3 + [np.full_like(mask, 255)]), root / "masks" / name / f"{number}.png")


def folders(root):
    for name in BOXES:
        save(np.zeros((*SIZE, 3), np.uint8), root / "images" / f"{name}.png")
        for number, mask in enumerate(objects(name)[0]):
            save(mask, root / "masks" / name / f"{number}.png")


@pytest.mark.parametrize("write", [nuclei, ultrasound, opaque, folders])
def test_masks_of_an_object_each_are_one_mask_without_a_config(tmp_path, write):
    write(tmp_path)
    data = load_data(DataArguments(dataset=str(tmp_path), selection_share=0), needs_unlabeled=False)
    assert list(data.id2label.values()) == ["background", "foreground"]
    assert any("shows an object" in said for said in data.assumptions)
    assert len(data.labeled) == 3 and len(data.unlabeled) == 0
    for row, name in zip(data.labeled, BOXES, strict=True):
        np.testing.assert_array_equal(np.asarray(row["mask"]), objects(name)[1])


def test_a_kept_mask_is_drawn_anew_where_the_mask_of_an_object_changes(tmp_path):
    folders(tmp_path / "data")
    args = DataArguments(
        dataset=str(tmp_path / "data"), selection_share=0, image_cache=str(tmp_path / "kept")
    )
    for changed in (False, True):
        if changed:
            save(np.full(SIZE, 255, np.uint8), tmp_path / "data" / "masks" / "b" / "0.png")
        rows = load_data(args, needs_unlabeled=False).labeled
        assert np.asarray(rows[1]["mask"]).all() == changed


def test_an_object_of_another_size_and_a_mask_of_no_image_are_said(tmp_path):
    folders(tmp_path)
    save(np.full((5, 5), 255, np.uint8), tmp_path / "masks" / "b" / "9.png")
    save(np.full(SIZE, 255, np.uint8), tmp_path / "masks" / "z" / "0.png")
    args = DataArguments(dataset=str(tmp_path), selection_share=0)
    with pytest.raises(InputError, match=r"has an object in .*b/9\.png of 5 x 5 pixels, but its image is"):
        load_data(args, needs_unlabeled=False)
    problems = {
        finding.where: finding.problem for finding in check_data(args, needs_unlabeled=False).findings
    }
    assert "mask without an image" in problems[str(tmp_path / "masks" / "z" / "0.png")]


def painted(tmp_path, quality):
    ids = np.kron(np.random.default_rng(0).integers(0, 3, (6, 8)), np.ones((16, 16), int))
    colors = np.array([[0, 0, 0], [220, 20, 60], [70, 130, 180]], np.uint8)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(colors[ids]).save(tmp_path / "images" / "a.png")
    Image.fromarray(colors[ids]).save(tmp_path / "masks" / "a.jpg", quality=quality, subsampling=0)
    return ids, {"class_names": ["road", "person", "car"], "mask_colors": ["#000000", "#dc143c", "#4682b4"]}


def test_colours_near_those_of_classes_are_taken_for_them_by_the_line_of_the_check(tmp_path):
    ids, classes = painted(tmp_path, 90)
    options = {"dataset": str(tmp_path), "selection_share": 0, **classes}
    findings = check_data(DataArguments(**options), needs_unlabeled=False).findings
    (error,) = [finding for finding in findings if finding.severity == "error"]
    assert "near those of classes" in error.problem and error.remedy == "color_tolerance: 442"
    args = DataArguments(**options, color_tolerance=442)
    mask = np.asarray(load_data(args, needs_unlabeled=False).labeled[0]["mask"])
    assert (mask == ids).mean() > 0.99


def test_other_colours_are_classes_that_are_missing(tmp_path):
    _, classes = painted(tmp_path, 90)
    classes = {"class_names": classes["class_names"][:2], "mask_colors": classes["mask_colors"][:2]}
    with pytest.raises(InputError, match=r"colours that no class has .* add them to `mask_colors`"):
        load_data(DataArguments(dataset=str(tmp_path), **classes), needs_unlabeled=False)
    with pytest.raises(InputError, match=r"colours that no class has"):
        load_data(DataArguments(dataset=str(tmp_path), color_tolerance=40, **classes), needs_unlabeled=False)
