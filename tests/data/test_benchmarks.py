"""Benchmarks with the masks and the lists that UniMatch's authors hand out, and with their sites' own."""

import json

import numpy as np
import pytest
from PIL import Image

from pos_hf.data import DataArguments
from pos_hf.data.loading import load_roles

TRAIN, VAL = ("000000000009", "000000000025"), ("000000000139",)


def save(picture: np.ndarray, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def coco_images(root) -> None:
    for split, names in (("train2017", TRAIN), ("val2017", VAL)):
        for name in names:
            save(np.full((40, 48, 3), 7, np.uint8), root / split / f"{name}.jpg")
    (root / "labeled.txt").write_text(f"train2017/{TRAIN[0]}.jpg masks/{TRAIN[0]}.png\n")
    (root / "unlabeled.txt").write_text(f"train2017/{TRAIN[1]}.jpg masks/{TRAIN[1]}.png\n")


def coco_annotations(root) -> None:
    """One object, a car of 20 x 20 pixels, in every image."""
    for split, names in (("train2017", TRAIN), ("val2017", VAL)):
        images = [{"id": int(n), "file_name": f"{n}.jpg", "width": 48, "height": 40} for n in names]
        square = {"category_id": 3, "area": 400, "segmentation": [[0, 0, 20, 0, 20, 20, 0, 20]]}
        content = {
            "images": images,
            "annotations": [square | {"image_id": image["id"]} for image in images],
            "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def load(root, **options):
    lists = {"labeled_ids": "labeled.txt", "unlabeled_ids": "unlabeled.txt", "selection_share": 0.0}
    # not load_data: masks of one class are enough here, and are refused by what is checked before a training
    return load_roles(DataArguments(dataset=str(root), **{**lists, **options}))


def test_the_published_coco_lists_take_the_authors_flat_masks_and_nothing_is_drawn(tmp_path):
    coco_images(tmp_path)
    for name in (*TRAIN, *VAL):
        save(np.full((40, 48), 80, np.uint8), tmp_path / "masks" / f"{name}.png")
    coco_annotations(tmp_path)  # which would draw other masks
    data = load(tmp_path, dataset_format="coco", class_names=[str(index) for index in range(81)])
    assert list(data.labeled["id"]) == [TRAIN[0]] and list(data.unlabeled["id"]) == [TRAIN[1]]
    assert list(data.test["id"]) == list(VAL)
    for rows in (data.labeled, data.test):
        assert (np.asarray(rows[0]["mask"]) == 80).all()
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [
        f"{name}.png" for name in (*TRAIN, *VAL)
    ]


def test_the_authors_coco_masks_need_no_annotations(tmp_path):
    coco_images(tmp_path)
    for name in (*TRAIN, *VAL):
        save(np.full((40, 48), 80, np.uint8), tmp_path / "masks" / f"{name}.png")
    data = load(tmp_path, dataset_format="coco")
    assert data.num_classes == 81
    assert [data.id2label[id] for id in (0, 1, 12, 80)] == ["background", "person", "stop sign", "toothbrush"]


def test_the_published_coco_lists_take_the_masks_that_are_drawn(tmp_path):
    coco_images(tmp_path)
    coco_annotations(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    data = load(tmp_path, dataset_format="coco")
    assert list(data.labeled["id"]) == [TRAIN[0]] and list(data.test["id"]) == list(VAL)
    for rows in (data.labeled, data.test):
        assert np.bincount(np.asarray(rows[0]["mask"]).ravel()).tolist() == [40 * 48 - 400, 0, 400]
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written into the user's folder


def test_classes_of_drawn_coco_masks_are_merged(tmp_path):
    coco_images(tmp_path)
    coco_annotations(tmp_path)
    data = load(tmp_path, dataset_format="coco", merge_labels={"person": "thing", "car": "thing"})
    assert data.id2label == {0: "background", 1: "thing"}
    assert np.bincount(np.asarray(data.labeled[0]["mask"]).ravel()).tolist() == [40 * 48 - 400, 400]


def test_the_published_cityscapes_lists_take_the_ids_as_unpacked(tmp_path):
    for split, town in (("train", "ulm"), ("val", "bonn")):
        save(
            np.full((40, 48, 3), 7, np.uint8),
            tmp_path / "leftImg8bit" / split / town / f"{town}_1_leftImg8bit.png",
        )
        save(
            np.full((40, 48), 33, np.uint8),
            tmp_path / "gtFine" / split / town / f"{town}_1_gtFine_labelIds.png",
        )
    save(
        np.full((40, 48, 3), 7, np.uint8),
        tmp_path / "leftImg8bit" / "train" / "ulm" / "ulm_2_leftImg8bit.png",
    )
    images = "leftImg8bit/train/ulm/ulm_{}_leftImg8bit.png gtFine/train/ulm/ulm_{}_gtFine_labelTrainIds.png\n"
    (tmp_path / "labeled.txt").write_text(images.format(1, 1))
    (tmp_path / "unlabeled.txt").write_text(images.format(2, 2))
    data = load(tmp_path, dataset_format="cityscapes")
    assert list(data.labeled["id"]) == ["ulm/ulm_1"]
    assert (np.asarray(data.labeled[0]["mask"]) == 18).all()  # bicycle


@pytest.mark.parametrize(
    ("stored", "read"),
    [([0, 1, 150], [255, 0, 149]), ([255, 0, 149], [255, 0, 149])],
    ids=["as unpacked", "preprocessed by the authors"],
)
def test_ade20k_masks_are_shifted_once(tmp_path, stored, read):
    names = [f"{id}\t0.1\t1\t1\tthing {id}, alias" for id in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *names]))
    for split in ("training", "validation"):
        save(np.full((40, 48, 3), 7, np.uint8), tmp_path / "images" / split / "ADE_0.jpg")
        save(
            np.repeat(np.uint8([stored]), 40, 0).repeat(16, 1), tmp_path / "annotations" / split / "ADE_0.png"
        )
    save(np.full((40, 48, 3), 7, np.uint8), tmp_path / "extra" / "photo.jpg")
    options = {"labeled_ids": None, "unlabeled_ids": None, "unlabeled": "extra", "dataset_format": "ade20k"}
    data = load(tmp_path, **options)
    for rows in (data.labeled, data.test):
        assert np.asarray(rows[0]["mask"])[0, ::16].tolist() == read
