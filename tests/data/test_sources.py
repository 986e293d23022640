"""Every source gives the same kind of rows, through one code path."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PILImage

from pos_hf.data import DataArguments, PairedDataset, collate, load_data
from pos_hf.data.loading import load_roles
from pos_hf.data.run_lengths import decompressed
from pos_hf.data.splits import write_split
from pos_hf.errors import InputError
from tests.data.conftest import CLASSES, mask_ids, picture


def save(values, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(np.asarray(values)).save(path)


@pytest.fixture
def splits():
    def rows(count, start, masked):
        columns = {
            "photo": [picture(start + index) for index in range(count)],
            "name": [f"row {start + index}" for index in range(count)],
        }
        features = {"photo": Image(), "name": Value("string")}
        if masked:
            columns["annotation"] = [PILImage.fromarray(mask_ids(start + index)) for index in range(count)]
            features["annotation"] = Image()
        return Dataset.from_dict(columns, features=Features(features))

    return DatasetDict(train=rows(6, 0, True), unlabeled=rows(4, 200, False), test=rows(3, 100, True))


HUGGINGFACE = {
    "dataset_format": "huggingface",
    "image_column": "photo",
    "mask_column": "annotation",
    "id_column": "name",
    "class_names": CLASSES,
}


def write_parquet(splits, folder):
    folder.mkdir()
    for name, rows in splits.items():
        rows.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return str(folder)


def test_folder_parquet_and_shapes_make_batches_in_one_way(folder, splits, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    parquet = write_parquet(splits, tmp_path / "parquet")
    sources = [
        DataArguments(dataset=str(folder)),
        DataArguments(dataset=parquet, **HUGGINGFACE),
        DataArguments(num_labeled=6, num_unlabeled=4, num_test=3),
    ]
    batches = []
    for args in sources:
        args.crop_size, args.selection_share = 32, 0
        data = load_data(args)
        assert (len(data.labeled), len(data.unlabeled), len(data.test)) == (6, 4, 3)
        pairs = PairedDataset.from_arguments(data, args, seed=0)
        batches.append(collate([pairs[key] for key in pairs.sampler(0)]))
    for batch in batches[1:]:
        for group, views in batch.items():
            assert views.keys() == batches[0][group].keys()
            assert all(value.shape == batches[0][group][name].shape for name, value in views.items())
            assert all(value.dtype == batches[0][group][name].dtype for name, value in views.items())
    # the same pictures, drawn by the same keys
    np.testing.assert_array_equal(
        batches[0]["labeled"]["pixel_values"], batches[1]["labeled"]["pixel_values"]
    )


def test_a_saved_dataset_is_read_by_column_names(splits, tmp_path):
    splits.save_to_disk(tmp_path / "saved")
    data = load_data(DataArguments(dataset=str(tmp_path / "saved"), **HUGGINGFACE, selection_share=0))
    assert list(data.labeled["id"]) == [f"row {index}" for index in range(6)] and data.name == "saved"
    np.testing.assert_array_equal(np.asarray(data.labeled[2]["mask"]), mask_ids(2))


def test_rows_without_names_are_numbered(splits, tmp_path):
    splits.save_to_disk(tmp_path / "saved")
    options = HUGGINGFACE | {"id_column": None}
    data = load_data(DataArguments(dataset=str(tmp_path / "saved"), **options, num_labeled=2))
    assert all(id.startswith(("train_0000", "unlabeled_0000")) for id in data.unlabeled["id"])
    assert len(data.unlabeled) == 8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"labeled_split": "learn"},
            r"has no split 'learn': set labeled_split to one of train, unlabeled, test",
        ),
        ({"mask_column": "label"}, r"has no column 'label': its columns are"),
    ],
)
def test_unknown_splits_and_columns_are_refused(splits, tmp_path, options, sentence):
    splits.save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=sentence):
        load_data(DataArguments(dataset=str(tmp_path / "saved"), **HUGGINGFACE | options))


def test_a_saved_dataset_of_one_split_is_the_labeled_one(splits, tmp_path):
    splits["train"].save_to_disk(tmp_path / "saved")
    data = load_data(DataArguments(dataset=str(tmp_path / "saved"), **HUGGINGFACE, num_labeled=4))
    assert len(data.labeled) == 4 and len(data.unlabeled) == 2


def identified(data):
    """Ids of every role, in order."""
    return {role: rows["id"] for role, rows in {**data.masked_roles, "unlabeled": data.unlabeled}.items()}


def test_the_written_split_of_a_saved_dataset_reads_back(splits, tmp_path):
    splits.save_to_disk(tmp_path / "saved")
    args = DataArguments(dataset=str(tmp_path / "saved"), **HUGGINGFACE, num_labeled=4, selection_share=0.25)
    data = load_data(args)
    write_split(data, tmp_path / "lists")
    lists = {f"{role}_ids": str(tmp_path / "lists" / f"{role}.txt") for role in identified(data)}
    again = load_data(DataArguments(dataset=str(tmp_path / "saved"), **HUGGINGFACE, **lists))
    assert identified(again) == {role: list(ids) for role, ids in identified(data).items()}
    np.testing.assert_array_equal(
        np.asarray(again.selection[0]["mask"]), mask_ids(int(data.selection["id"][0].split()[1]))
    )
    assert again.unlabeled[0]["image"].size == picture(0).size


def test_rows_of_a_saved_dataset_that_no_list_names_are_unlabeled_or_labeled(splits, tmp_path):
    del splits["test"]
    splits.save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "two.txt").write_text("row 4\nrow 1\n")
    (tmp_path / "saved" / "one.txt").write_text("row 3\n")
    options = {"dataset": str(tmp_path / "saved"), **HUGGINGFACE, "selection_share": 0}
    found = identified(load_data(DataArguments(**options, labeled_ids="two.txt", test_ids="one.txt")))
    assert found["labeled"] == ["row 4", "row 1"] and found["test"] == ["row 3"]
    assert found["unlabeled"] == ["row 0", "row 2", "row 5", *(f"row {200 + i}" for i in range(4))]
    found = identified(load_data(DataArguments(**options, test_ids="one.txt")))
    assert found["labeled"] == [f"row {i}" for i in (0, 1, 2, 4, 5)] and len(found["unlabeled"]) == 4
    with pytest.raises(InputError, match=r"lists 'row 1', which has a role already"):
        load_data(DataArguments(**options, labeled_ids="two.txt", test_ids="two.txt"))
    with pytest.raises(InputError, match=r"one.txt lists 'row 3', which is no row's id, like 'row 0'"):
        load_data(
            DataArguments(**options, labeled_ids="two.txt", unlabeled_ids="one.txt", test_ids="one.txt")
        )


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("shapes", "labeled_ids", "labeled.txt"),
        ("shapes", "mask_values", {255: 1}),
        ("huggingface", "test_images", "test/photos"),
        ("huggingface", "unlabeled", "more"),
        ("folders", "test_split", "validation"),
        ("pascal", "mask_column", "annotation"),
        ("yolo", "masks", "labels"),
        ("yolo", "id_column", "name"),
    ],
)
def test_an_option_that_the_data_does_not_read_is_refused(folder, kind, option, value):
    is_shapes = kind == "shapes"
    options = {"dataset": kind if is_shapes else str(folder), "dataset_format": "auto" if is_shapes else kind}
    with pytest.raises(InputError, match=rf"{option} says nothing of .*, which is read as {kind}"):
        load_data(DataArguments(**options, **{option: value}))


def test_a_split_is_not_the_beginning_of_anothers_name(splits, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = Path(write_parquet(splits, tmp_path / "parquet"))
    splits["train"].to_parquet(folder / "train_extra-00000-of-00001.parquet")
    (folder / "test-00000-of-00001.parquet").rename(folder / "test-00000-of-00001-0123456789abcdef.parquet")
    data = load_data(DataArguments(dataset=str(folder), **HUGGINGFACE, selection_share=0))
    assert (len(data.labeled), len(data.test)) == (6, 3)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("annotation", None, r"1 of 6 rows of the split 'train' of .* have no mask"),
        ("photo", None, r"1 of 6 rows of the split 'train' of .* have no image"),
        ("name", None, r"1 of 6 rows of the split 'train' of .* have no id"),
        ("name", "row 0", r"2 labeled images of saved have the id 'row 0'"),
        (
            "photo",
            {"bytes": None, "path": "/etc/passwd"},
            r"row 2 .* names the file /etc/passwd, which is not",
        ),
        ("annotation", {"bytes": None, "path": None}, r"row 2 .* does not hold its mask: store"),
    ],
)
def test_rows_hold_what_they_should(splits, tmp_path, column, value, sentence):
    rows = splits["train"].with_format(None).cast_column("photo", Image(decode=False))
    values = rows.cast_column("annotation", Image(decode=False)).to_dict()
    values[column][2] = value
    # plain structs: an Image column would read the file while it is written
    struct = {"bytes": Value("binary"), "path": Value("string")}
    features = Features({"photo": struct, "name": Value("string"), "annotation": struct})
    Dataset.from_dict(values, features=features).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=sentence):
        load_data(DataArguments(dataset=str(tmp_path / "saved"), **HUGGINGFACE, num_labeled=4))


def test_ids_may_be_numbers(splits, tmp_path):
    rows = splits["train"].remove_columns("name").add_column("name", list(range(6)))
    rows.save_to_disk(tmp_path / "saved")
    data = load_data(DataArguments(dataset=str(tmp_path / "saved"), **HUGGINGFACE, num_labeled=4))
    assert set(data.labeled["id"]) | set(data.unlabeled["id"]) == set("012345")


def test_pascal_is_read_as_unpacked(tmp_path):
    for index in range(4):
        save(picture(index), tmp_path / "JPEGImages" / f"2007_{index}.jpg")
    for index in range(3):
        save(mask_ids(index), tmp_path / "SegmentationClass" / f"2007_{index}.png")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_0\n2007_1\n")
    (lists / "val.txt").write_text("2007_2\n")
    data = load_data(DataArguments(dataset=str(tmp_path), dataset_format="pascal"))
    assert list(data.labeled["id"]) == ["2007_0", "2007_1"] and list(data.test["id"]) == ["2007_2"]
    assert list(data.unlabeled["id"]) == ["2007_3"]
    assert data.num_classes == 21 and data.id2label[20] == "tvmonitor"


@pytest.mark.parametrize("masks", ["labelIds", "labelTrainIds"])
def test_cityscapes_ids_become_train_ids(tmp_path, masks):
    own_ids, train_ids = ([7, 33, 4], [0, 18, 255]) if masks == "labelIds" else ([0, 18, 255], [0, 18, 255])
    for split, town in (("train", "ulm"), ("val", "bonn")):
        save(picture(0), tmp_path / "leftImg8bit" / split / town / f"{town}_1_leftImg8bit.png")
        save(
            np.repeat(np.uint8([own_ids]), 40, 0).repeat(16, 1),
            tmp_path / "gtFine" / split / town / f"{town}_1_gtFine_{masks}.png",
        )
    save(picture(1), tmp_path / "leftImg8bit" / "train_extra" / "erfurt" / "erfurt_1_leftImg8bit.png")
    data = load_data(DataArguments(dataset=str(tmp_path), dataset_format="cityscapes"))
    assert list(data.labeled["id"]) == ["ulm/ulm_1"]
    assert list(data.unlabeled["id"]) == ["leftImg8bit/train_extra/erfurt/erfurt_1"]
    for rows in (data.labeled, data.test):
        assert np.asarray(rows[0]["mask"])[0, ::16].tolist() == train_ids
    assert data.num_classes == 19


def test_ade20k_counts_from_one(tmp_path):
    names = [f"{id}\t0.1\t1\t1\tthing {id}, alias" for id in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *names]))
    for split, count in (("training", 3), ("validation", 1)):
        for index in range(count):
            save(picture(index), tmp_path / "images" / split / f"ADE_{index}.jpg")
            ids = np.full((40, 48), [0, 1, 150][index], np.uint8)
            ids[-1] = 2
            save(ids, tmp_path / "annotations" / split / f"ADE_{index}.png")
    args = DataArguments(dataset=str(tmp_path), dataset_format="ade20k", num_labeled=2)
    data = load_data(args)
    ids = {row["id"]: np.asarray(row["mask"])[0, 0] for row in data.labeled}
    assert ids == {id: {"ADE_0": 255, "ADE_1": 0, "ADE_2": 149}[id] for id in ids}
    assert data.id2label[149] == "thing 150" and len(data.unlabeled) == 1


def test_coco_masks_are_drawn_from_the_annotations(tmp_path):
    annotations = [
        {"image_id": 1, "category_id": 90, "area": 400, "segmentation": [[0, 0, 20, 0, 20, 20, 0, 20]]},
        {"image_id": 1, "category_id": 3, "area": 25, "segmentation": [[5, 5, 10, 5, 10, 10, 5, 10]]},
        # run lengths down the columns: one column of background, one of object, the rest background
        {
            "image_id": 1,
            "category_id": 90,
            "area": 40,
            "segmentation": {"size": [40, 48], "counts": [46 * 40, 40, 40]},
        },
    ]
    for split in ("train2017", "val2017"):
        images = [{"id": id, "file_name": f"{id}.jpg", "width": 48, "height": 40} for id in (1, 2)]
        categories = [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = tmp_path / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        for image in images:
            save(picture(image["id"]), tmp_path / split / image["file_name"])
    args = DataArguments(dataset=str(tmp_path), dataset_format="coco", num_labeled=1)
    data = load_data(args)
    assert data.id2label == {0: "background", 1: "car", 2: "toothbrush"}
    expected = np.zeros((40, 48), np.uint8)
    expected[:20, :20], expected[5:10, 5:10], expected[:, 46] = 2, 1, 2
    np.testing.assert_array_equal(np.asarray(data.test[0]["mask"]), expected)
    assert not np.asarray(data.test[1]["mask"]).any()
    (tmp_path / "one.txt").write_text("1\n")
    (tmp_path / "two.txt").write_text("2\n")
    listed = {"labeled_ids": "two.txt", "selection_ids": "one.txt"}
    data = load_roles(
        DataArguments(dataset=str(tmp_path), dataset_format="coco", **listed), needs_unlabeled=False
    )
    assert data.labeled["id"] == ["2"] and data.selection["id"] == ["1"]
    np.testing.assert_array_equal(np.asarray(data.selection[0]["mask"]), expected)


def test_a_missing_annotation_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"instances_train2017.json do not exist"):
        load_data(DataArguments(dataset=str(tmp_path), dataset_format="coco"))


def write_coco(folder, annotations, file_name="cam0/1.jpg"):
    """Annotations of one image of 6 x 5 pixels for both splits, and the image."""
    for split in ("train2017", "val2017"):
        content = {
            "images": [{"id": 1, "file_name": file_name, "width": 6, "height": 5}],
            "annotations": [{"image_id": 1, "category_id": 3} | annotation for annotation in annotations],
            "categories": [{"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}],
        }
        path = folder / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8-sig")
        save(np.zeros((5, 6, 3), np.uint8), folder / split / "cam0" / "1.jpg")
    return folder / "annotations" / "instances_train2017.json"


def coco_mask(folder):
    """The only image's mask, drawn; what is checked before a training is not asked."""
    args = DataArguments(dataset=str(folder), dataset_format="coco", selection_share=0)
    return np.asarray(load_roles(args, needs_unlabeled=False).labeled[0]["mask"])


def compressed(runs):
    """COCO's run lengths in digits of 5 bits: from the fourth on, differences to the run two before."""
    text = ""
    for index, run in enumerate(runs):
        number, more = run - (runs[index - 2] if index > 2 else 0), True
        while more:
            digit, number = number & 31, number >> 5
            more = number != (-1 if digit & 16 else 0)
            text += chr(48 + digit + 32 * more)
    return text


def test_coco_objects_of_every_form_are_drawn(tmp_path):
    inside = np.zeros((5, 6), np.uint8)
    inside[1:4, 2:5] = 1
    edges = np.flatnonzero(np.diff(inside.T.ravel(), prepend=0, append=0))
    runs = [first - before for before, first in pairwise([0, *edges.tolist(), 30])]
    annotations = [
        {"segmentation": {"size": [5, 6], "counts": compressed(runs)}},  # no area: the larger one
        {"category_id": 90, "area": 1, "segmentation": [[], [0, 0], [3, 2, 4, 2, 4, 3, 3, 3]]},
        {"category_id": 90, "area": 2, "segmentation": []},
    ]
    write_coco(tmp_path, annotations)
    inside[2, 3] = 2
    np.testing.assert_array_equal(coco_mask(tmp_path), inside)
    assert not (tmp_path / "masks").exists()


def test_long_runs_aredecompressed():
    runs = [0, 5, 70000, 31, 32, 2, 1000, 999999]
    assert decompressed(compressed(runs)) == runs
    assert decompressed("52203") == [5, 2, 2, 2, 5]  # differences 0 and 3 to the run two before


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        (
            {"segmentation": {"size": [5, 6], "counts": [7]}},
            r"train2017.json \(cam0/1.jpg\): an object cannot be drawn \(its runs are 7 pixels long",
        ),
        ({"segmentation": {"size": [6, 5], "counts": [30]}}, r"made for 5 x 6 pixels, not 6 x 5"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, r"\(cam0/1.jpg\): an object cannot be drawn \(points"),
        ({"segmentation": [], "category_id": 7}, r"\(cam0/1.jpg\): an object cannot be drawn \(7"),
    ],
)
def test_objects_that_cannot_be_drawn_are_one_sentence(tmp_path, annotation, sentence):
    write_coco(tmp_path, [annotation])
    with pytest.raises(InputError, match=sentence):
        coco_mask(tmp_path)


def test_coco_files_of_another_form_are_one_sentence(tmp_path):
    write_coco(tmp_path, []).write_text('{"images": []}')
    with pytest.raises(InputError, match=r"instances_train2017.json holds no annotations of COCO's form"):
        coco_mask(tmp_path)
