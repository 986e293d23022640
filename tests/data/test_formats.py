"""Annotations of every tool become the masks that an independent rasteriser draws, without any option."""

import base64
import json

import numpy as np
import pytest
import yaml

from pos_hf.data import DataArguments
from pos_hf.data.drawing import paint
from pos_hf.data.loading import load_roles
from pos_hf.data.splits import write_split
from pos_hf.errors import InputError
from pos_hf.runs.proposal import propose_config
from tests.data import exports
from tests.data.exports import EXPORTS, near_borders, scene


def load(folder, **options):
    args = DataArguments(dataset=str(folder), **{"selection_share": 0, **options})
    return load_roles(args, needs_unlabeled=False)


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_recognised_and_drawn_and_nothing_is_written(tmp_path, name):
    write, title, with_bitmap = EXPORTS[name]
    write(tmp_path)
    if name == "labelme_inside":
        exports.save_images(tmp_path, "b.jpg")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    data = load(tmp_path)
    assert data.assumptions[0] == f"annotations are read as {title}"
    assert any("1 train images without annotations are unlabeled" in said for said in data.assumptions)
    assert list(data.id2label.values()) == ["background", "car", "dog"]
    assert len(data.labeled) == 1 and len(data.unlabeled) == 1
    row = data.labeled[0]
    drawn, expected = np.asarray(row["mask"]), scene(1, 2, with_bitmap)
    assert row["image"].size == exports.SIZE
    assert ((drawn == expected) | near_borders(expected)).all()
    assert (drawn != expected).mean() < 0.003  # borders differ by rounded coordinates alone
    if with_bitmap:
        assert (drawn[exports.full_bitmap() > 0] == 2).all() and (drawn == 2).sum() == exports.bitmap().sum()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_proposed_config_loads_the_rows_that_were_found(tmp_path):
    exports.coco_splits(tmp_path)
    text = propose_config(tmp_path)
    assert "1 labeled, 1 selection, 1 test, 1 unlabeled images" in text and "background, car, dog" in text
    proposed = {
        key: value for key, value in yaml.safe_load(text).items() if key in DataArguments.__match_args__
    }
    assert proposed["dataset_format"] == "coco_json"
    assert load_roles(DataArguments(**proposed)).split_hash() == load(tmp_path).split_hash()


def test_images_without_annotations_are_background_where_the_option_says_so(tmp_path):
    exports.yolo(tmp_path)
    data = load(tmp_path, unannotated_images="background")
    assert len(data.labeled) == 2 and len(data.unlabeled) == 0
    masks = {row["id"]: np.asarray(row["mask"]) for row in data.labeled}
    assert not masks["train/images/b"].any() and masks["train/images/a"].any()


def test_the_written_split_of_an_export_reads_back(tmp_path):
    exports.yolo(tmp_path)
    data = load(tmp_path, unannotated_images="background", selection_share=0.5)
    assert len(data.labeled) == len(data.selection) == 1
    write_split(data, tmp_path / "lists")
    lists = {f"{role}_ids": f"lists/{role}.txt" for role in ("labeled", "selection")}
    again = load(tmp_path, unannotated_images="background", **lists)
    assert again.split_hash() == data.split_hash()
    np.testing.assert_array_equal(
        np.asarray(again.selection[0]["mask"]), np.asarray(data.selection[0]["mask"])
    )


def test_unnamed_area_is_ignored_where_the_option_says_so(tmp_path):
    exports.labelme(tmp_path)
    data = load(tmp_path, unnamed_area="ignore")
    assert list(data.id2label.values()) == ["car", "dog"]
    expected = np.array([255, 0, 1], np.uint8)[scene(1, 2, False)]
    assert (np.asarray(data.labeled[0]["mask"]) == expected).mean() > 0.99


@pytest.mark.parametrize(
    ("merge", "names", "ids"),
    [
        ({"dog": "car"}, ["background", "car"], [0, 1, 1]),
        ({"dog": "pet"}, ["background", "car", "pet"], [0, 1, 2]),
        ({"car": None}, ["background", "dog"], [0, 0, 1]),
        ({"car": "ignore"}, ["background", "dog"], [0, 255, 1]),
    ],
)
def test_labels_are_merged_dropped_and_ignored(tmp_path, merge, names, ids):
    exports.labelme(tmp_path)
    data = load(tmp_path, merge_labels=merge)
    assert list(data.id2label.values()) == names
    drawn = np.asarray(data.labeled[0]["mask"])
    np.testing.assert_array_equal(drawn, np.array(ids, np.uint8)[scene(1, 2, False)])


def test_a_class_listed_twice_is_one_class_and_said(tmp_path):
    exports.cvat_xml(tmp_path)
    path = tmp_path / "annotations.xml"
    path.write_text(
        path.read_text().replace("<label><name>car", "<label><name>car</name></label><label><name>car")
    )
    data = load(tmp_path)
    assert list(data.id2label.values()) == ["background", "car", "dog"]
    assert any("'car' is listed twice" in said for said in data.assumptions)


KINDS = {
    "rectangle": ([[30, 25], [10, 5]], lambda x, y: (x > 10) & (x < 30) & (y > 5) & (y < 25)),
    "circle": ([[20, 18], [26, 26]], lambda x, y: (x - 20) ** 2 + (y - 18) ** 2 <= 100),
    "line": ([[10, 20], [30, 20]], lambda x, y: np.hypot(x - np.clip(x, 10, 30), y - 20) <= 5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labelme_shapes_of_every_kind(tmp_path, kind):
    points, expected = KINDS[kind]
    shape = {"label": "car", "shape_type": kind, "points": points}
    exports.labelme(tmp_path)
    change(tmp_path / "a.json", lambda content: content.update(shapes=[shape]))
    drawn = np.asarray(load(tmp_path).labeled[0]["mask"])
    columns, rows = np.meshgrid(np.arange(48) + 0.5, np.arange(40) + 0.5)
    np.testing.assert_array_equal(drawn, expected(columns, rows))


def test_holes_show_what_is_below_and_parts_are_all_filled():
    ids = np.zeros((10, 10), np.uint8)
    paint(ids, 3, {"rings": [[0, 0, 8, 0, 8, 8, 0, 8], [2, 2, 6, 2, 6, 6, 2, 6]]})
    assert (ids == 3).sum() == 64 - 16 and not ids[2:6, 2:6].any()
    paint(ids, 1, {"parts": [[0, 0, 8, 0, 8, 8, 0, 8], [2, 2, 6, 2, 6, 6, 2, 6]]})
    assert (ids == 1).sum() == 64


def test_shapes_beyond_the_border_are_cut_off():
    ids = np.zeros((6, 8), np.uint8)
    paint(ids, 1, {"rings": [[-5, -5, 4, -5, 4, 3, -5, 3]]})
    assert (ids == 1).sum() == 12 and ids[:3, :4].all()
    paint(ids, 2, {"ellipse": [100, 100, 3, 3, 0]})
    paint(ids, 2, {"runs": [0, 4], "box": [-1, -1, 2, 2], "down": False})
    assert (ids == 2).sum() == 1 and ids[0, 0] == 2


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def replace(name, old, new):
    def spoil(folder):
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return spoil


def bad_bitmap(content):
    content["objects"][1]["bitmap"]["data"] = base64.b64encode(b"no zlib").decode()


BROKEN = [
    (exports.labelme, lambda f: (f / "a.jpg").unlink(), {},
     r"image 'a.jpg', which .*a.json names, is not there"),
    (exports.labelme, replace("a.json", '"dog"', '"cat"'),
     {"class_names": ["background", "car", "dog"]},
     r"a.json has the label 'cat', but the classes are background, car, dog; .*'car' \(1\), 'cat' \(1\)"),
    (exports.labelme, replace("a.json", "3.2", '"x"'), {},
     r"a.json: an object cannot be drawn \(points are pairs"),
    (exports.labelme, replace("a.json", "polygon", "blob"), {}, r"a.json: .*shape_type 'blob' is unknown"),
    (exports.labelme, replace("a.json", '"imageHeight": 40', '"imageHeight": 39'), {},
     r"the mask a.json is 48 x 39 pixels, but its image is 48 x 40"),
    (exports.labelme, replace("a.json", "}", ""), {}, r"a.json is no valid JSON"),
    (exports.labelme, lambda f: None, {"class_names": ["car", "dog"]},
     r"lack `background` .*unnamed_area: ignore"),
    (exports.labelme_with_images_inside, replace("a.json", '"mask": "iVBOR', '"mask": "%VBOR'), {},
     r"the mask a.json has a shape that cannot be drawn|a.json .*cannot be drawn|a.json cannot be read"),
    (exports.coco, replace("train/_annotations.coco.json", '"category_id": 2', '"category_id": 7'), {},
     r"_annotations.coco.json \(train_a.jpg\): an object cannot be drawn \(7 is missing\)"),
    (exports.cvat_xml, replace("annotations.xml", 'label="dog"', 'label="cat"'), {},
     r"annotations.xml \(a.jpg\) has the label 'cat', but the classes are background, car, dog"),
    (exports.cvat_xml, replace("annotations.xml", "</image>", ""), {}, r"annotations.xml is no valid XML"),
    (exports.cvat_xml, replace("annotations.xml", 'width="12"', 'width="11"'), {},
     r"annotations.xml \(a.jpg\) has a shape that cannot be drawn \(its runs are 108 pixels long"),
    (exports.label_studio, replace("project-1.json", "\"rle\": [0", "\"rle\": [1"), {},
     r"project-1.json .* has a shape that cannot be drawn \(the brush strokes are \d+ values long"),
    (exports.supervisely, lambda f: change(f / "ds0/ann/a.jpg.json", bad_bitmap), {},
     r"a.jpg.json has a shape that cannot be drawn"),
    (exports.yolo, replace("train/labels/a.txt", "1 0.", "5 0."), {}, r"a.txt, line 2, has the class 5, but"),
    (exports.yolo, lambda f: (f / "train/labels/a.txt").write_text("0 0.5 0.5 0.2 0.2\n"), {},
     r"a.txt, line 1, is a box, not an outline"),
    (exports.yolo, lambda f: (f / "train/labels/a.txt").write_text("0 0.5 0.5 0.2\n"), {},
     r"a.txt, line 1, has a number too many"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "spoil", "options", "sentence"), BROKEN)
def test_a_broken_export_is_one_sentence(tmp_path, write, spoil, options, sentence):
    write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=sentence) as raised:
        data = load(tmp_path, **options)
        data.labeled[0]
    assert "\n" not in str(raised.value)


def test_an_empty_polygon_is_passed_over_and_said(tmp_path):
    exports.labelme(tmp_path)
    change(tmp_path / "a.json", lambda content: content["shapes"][1].update(points=[[3, 3]]))
    data = load(tmp_path)
    assert any("1 outlines of fewer than three points" in said for said in data.assumptions)
    np.testing.assert_array_equal(
        np.asarray(data.labeled[0]["mask"]), scene(1, 1, False) * exports.inside(exports.CAR)
    )
