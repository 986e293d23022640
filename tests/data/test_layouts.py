"""Layouts of images and masks as public datasets have them, rebuilt small, read without any option."""

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.io import savemat

from pos_hf.data import DataArguments
from pos_hf.data.loading import load_roles
from pos_hf.errors import InputError
from tests.data import exports
from tests.data.conftest import mask_ids, picture

PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[:3] = [[0, 0, 0], [255, 0, 0], [0, 0, 128]]


def load(folder, **options):
    args = DataArguments(dataset=str(folder), **{"selection_share": 0, **options})
    return load_roles(args, needs_unlabeled=False)


def save(values, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = values if isinstance(values, Image.Image) else Image.fromarray(np.asarray(values))
    image.save(path)


def ids(seed):
    """Classes 0, 1, 2."""
    return mask_ids(seed) % 255


def binary(seed):
    return (ids(seed) > 0).astype(np.uint8)


def roboflow_masks(root):
    for split, count in (("train", 3), ("valid", 1), ("test", 2)):
        for index in range(count):
            name = f"{index}_jpg.rf.0f{index}"
            save(picture(index), root / split / f"{name}.jpg")
            save(ids(index), root / split / f"{name}_mask.png")
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")


def cvat_masks(root):
    for index in range(3):
        save(picture(index), root / "JPEGImages" / f"{index}.jpg")
        save(PALETTE[ids(index)], root / "SegmentationClass" / f"{index}.png")
        save(PALETTE[ids(index)], root / "SegmentationObject" / f"{index}.png")
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\ncat:255,0,0::\nbackground:0,0,0::\ndog:0,0,128::\n"
    )
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "default.txt").write_text("0\n1\n2\n")


def image_label(root):
    for index in range(3):
        save(picture(index).convert("L"), root / "train" / "image" / f"{index}.png")
        save(binary(index) * 255, root / "train" / "label" / f"{index}.png")
        save(picture(100 + index).convert("L"), root / "test" / f"{index}.png")


def magnetic_tiles(root):
    for kind in ("MT_Blowhole", "MT_Free"):
        for index in range(2):
            save(picture(index), root / kind / "Imgs" / f"exp1_num_{index}.jpg")
            save(binary(index) * 255, root / kind / "Imgs" / f"exp1_num_{index}.png")


def aerial_tiles(root):
    for tile in range(2):
        for index in range(2):
            name = f"image_part_00{index}"
            save(picture(index), root / f"Tile {tile}" / "images" / f"{name}.jpg")
            save(PALETTE[ids(index)], root / f"Tile {tile}" / "masks" / f"{name}.png")
    (root / "classes.json").write_text(
        '{"classes": [{"title": "land", "color": "#000000"}, {"title": "road", "color": "#FF0000"}, '
        '{"title": "water", "color": "#000080"}]}'
    )


def crack_forest(root):
    for index in range(3):
        save(picture(index), root / "image" / f"00{index}.jpg")
        (root / "groundTruth").mkdir(exist_ok=True)
        truth = {"Segmentation": binary(index) + np.uint16(1), "Boundaries": binary(index) == 1}
        savemat(root / "groundTruth" / f"00{index}.mat", {"groundTruth": truth})


def split_folders(root):
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for index in range(count):
            save(picture(index), root / "images" / split / f"{index}.jpg")
            save(ids(index), root / "masks" / split / f"{index}.png")


def painted_with_lists(root):
    for index in range(4):
        save(picture(index), root / "photos" / f"{index}.png")
        rgba = np.dstack([PALETTE[ids(index)], np.full((40, 48), 255, np.uint8)])
        save(rgba, root / "gt_masks" / f"{index}.png")
    (root / "train.txt").write_text("0\n1.png\n")
    (root / "val.txt").write_text("2\n")


def csv_of_pairs(root):
    for index in range(3):
        save(picture(index), root / "data" / f"scan {index}.png")
        save(ids(index), root / "data" / f"truth-{index}.png")
    rows = [f"data/scan {index}.png,data/truth-{index}.png" for index in range(3)]
    (root / "train.csv").write_text("\n".join(["image,mask", *rows]))


def two_folders_without_masks(root):
    for index in range(3):
        save(picture(index), root / "photos" / f"{index}.png")
        save(ids(index), root / "gt_masks" / f"{index}.png")
        save(picture(10 + index), root / f"extra_{index % 2}" / f"more {index}.png")


LAYOUTS = {
    "roboflow_masks": (roboflow_masks, (3, 0, 1, 2), ["background", "cat", "dog"], ids),
    "cvat_masks": (cvat_masks, (3, 0, 0, 0), ["background", "cat", "dog"], ids),
    "image_label": (image_label, (3, 3, 0, 0), ["background", "foreground"], binary),
    "magnetic_tiles": (magnetic_tiles, (4, 0, 0, 0), ["background", "foreground"], binary),
    "aerial_tiles": (aerial_tiles, (4, 0, 0, 0), ["land", "road", "water"], ids),
    "crack_forest": (crack_forest, (3, 0, 0, 0), ["background", "foreground"], binary),
    "split_folders": (split_folders, (3, 0, 1, 2), ["class 0", "class 1", "class 2"], ids),
    "painted_with_lists": (painted_with_lists, (2, 1, 1, 0), ["#000000", "#000080", "#ff0000"], None),
    "csv_of_pairs": (csv_of_pairs, (3, 0, 0, 0), ["class 0", "class 1", "class 2"], ids),
    "two_folders_without_masks": (
        two_folders_without_masks,
        (3, 3, 0, 0),
        ["class 0", "class 1", "class 2"],
        ids,
    ),
}
"""How each is written; labeled, unlabeled, selection and test images; class names; the mask of a seed."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_understood_without_a_config(tmp_path, name):
    write, counts, names, truth = LAYOUTS[name]
    write(tmp_path)
    data = load(tmp_path)
    found = tuple(len(rows or ()) for rows in (data.labeled, data.unlabeled, data.selection, data.test))
    assert found == counts and list(data.id2label.values()) == names
    assert data.assumptions
    for row in data.labeled:
        index = int(row["id"].replace("_jpg.rf.0f", "").rpartition("/")[2].rpartition("_")[2][-1])
        drawn = np.asarray(row["mask"])
        if truth is None:
            np.testing.assert_array_equal(PALETTE[ids(index)], PALETTE[[0, 2, 1]][drawn])
        else:
            np.testing.assert_array_equal(drawn, truth(index))


def labelme_export(root):
    """What LabelMe's labelme2voc.py writes."""
    save(picture(0), root / "JPEGImages" / "a.jpg")
    save(PALETTE[ids(0)], root / "SegmentationClassVisualization" / "a.jpg")
    save(ids(0), root / "SegmentationClassPNG" / "a.png")
    (root / "SegmentationClass").mkdir()
    np.save(root / "SegmentationClass" / "a.npy", ids(0))
    (root / "class_names.txt").write_text("_background_\ncar\ndog\n")


def test_labelmes_examples_go_through_unchanged(tmp_path):
    (tmp_path / "data_annotated").mkdir()
    exports.labelme(tmp_path / "data_annotated")
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncar\ndog\n")
    labelme_export(tmp_path / "data_dataset_voc")
    data = load(tmp_path)
    assert data.assumptions[0] == "annotations are read as LabelMe JSON" and len(data.labeled) == 1
    data = load(tmp_path / "data_dataset_voc")
    assert list(data.id2label.values()) == ["background", "car", "dog"]
    np.testing.assert_array_equal(np.asarray(data.labeled[0]["mask"]), ids(0))


@pytest.mark.parametrize("kind", ["masks", "truth", "label"])
def test_nested_folders_of_binary_masks_need_no_line(tmp_path, kind):
    for city, index in (("a", 0), ("a", 1), ("b", 2)):
        save(picture(index), tmp_path / city / "rgb" / f"{index}.png")
        save(binary(index) * 255, tmp_path / city / kind / f"{index}.png")
    for row in load(tmp_path).labeled:
        np.testing.assert_array_equal(np.asarray(row["mask"]), binary(int(row["id"][-1])))


def drive(root):
    for split, numbers in (("training", (21, 22)), ("test", (1, 2))):
        for number in numbers:
            save(picture(number), root / split / "images" / f"{number:02}_{split}.tif")
            save(binary(number) * 255, root / split / "1st_manual" / f"{number:02}_manual1.gif")
            save(np.full((40, 48), 255, np.uint8), root / split / "mask" / f"{number:02}_{split}_mask.gif")


def test_of_two_folders_of_masks_the_user_chooses_by_a_line(tmp_path):
    drive(tmp_path)
    with pytest.raises(InputError, match="several folders that may hold the masks") as raised:
        load(tmp_path)
    lines = [part for part in str(raised.value).split("`") if part.startswith("masks: ")]
    (line,) = (line for line in lines if "1st_manual" in line)
    data = load(tmp_path, **yaml.safe_load(line))
    assert list(data.labeled["id"]) == ["21", "22"] and list(data.test["id"]) == ["01", "02"]
    np.testing.assert_array_equal(np.asarray(data.labeled[0]["mask"]), binary(21))


def test_a_folder_of_images_alone_is_one_sentence(tmp_path):
    save(picture(0), tmp_path / "holiday" / "a.jpg")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        InputError, match=r"holds 1 images like holiday/a.jpg, but neither masks nor"
    ) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_two_formats_are_not_guessed_between(tmp_path):
    from tests.data.exports import labelme, yolo

    labelme(tmp_path)
    yolo(tmp_path)
    with pytest.raises(
        InputError, match=r"LabelMe JSON and YOLO segmentation labels: set `dataset_format: l"
    ):
        load(tmp_path)
    assert load(tmp_path, dataset_format="yolo").num_classes == 3


def test_patterns_name_images_and_masks(tmp_path):
    for town in ("ulm", "jena"):
        save(picture(0), tmp_path / town / "rgb" / "x_1.png")
        save(ids(0), tmp_path / town / "truth" / "y_1.png")
    data = load(tmp_path, images="*/rgb/x_*.png", masks="*/truth/y_*", class_names=["a", "b", "c"])
    assert list(data.labeled["id"]) == ["jena/1", "ulm/1"]


def test_a_threshold_makes_soft_masks_binary(tmp_path):
    values = np.array([[0, 3, 127, 128, 250, 255]], np.uint8)
    for index in range(2):
        save(picture(index), tmp_path / "images" / f"{index}.png")
        save(
            Image.fromarray(values).resize((48, 40), Image.Resampling.NEAREST),
            tmp_path / "masks" / f"{index}.png",
        )
    drawn = np.asarray(load(tmp_path, mask_threshold=128).labeled[0]["mask"])
    assert np.unique(drawn[:, :24]).tolist() == [0] and np.unique(drawn[:, 24:]).tolist() == [1]


@pytest.mark.parametrize(
    ("merge", "names", "lookup"),
    [
        ({"dog": "cat"}, ["background", "cat"], [0, 1, 1]),
        ({"cat": None}, ["background", "dog"], [0, 0, 1]),
        ({"background": "ignore", "cat": "pet"}, ["pet", "dog"], [255, 0, 1]),
    ],
)
def test_classes_of_masks_are_merged_and_dropped(folder, merge, names, lookup):
    data = load(folder, merge_labels=merge)
    assert list(data.id2label.values()) == names
    expected = np.array([*lookup, *[255] * 253], np.uint8)[mask_ids(3)]
    np.testing.assert_array_equal(np.asarray(data.labeled[3]["mask"]), expected)
    with pytest.raises(
        InputError, match=r"merge_labels names 'cow', but the classes are background, cat, dog"
    ):
        load(folder, merge_labels={"cow": "cat"})
