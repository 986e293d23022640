"""check-data finds every planted defect, and none in a clean folder."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image, ImageEnhance

from pos_hf.data import DataArguments, load_data, validation
from pos_hf.data.checks import RoleSurvey, check_data
from pos_hf.errors import InputError
from tests.data.conftest import CLASSES, mask_ids, picture

CAMVIDS_RARE_CLASSES = ["pole", "sign_symbol", "fence", "pedestrian", "bicyclist"]


def check(folder, **options):
    return check_data(DataArguments(dataset=str(folder), **{"selection_share": 0, **options}))


def save_mask(folder, values, name="pet_1.png"):
    Image.fromarray(np.asarray(values)).save(folder / "masks" / name)


def every_mask(folder, change):
    for path in (*folder.glob("masks/*"), *folder.glob("test/masks/*")):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def missing_folder(folder):
    shutil.rmtree(folder / "masks")


def image_without_mask(folder):
    (folder / "masks" / "pet_1.png").unlink()


def mask_without_image(folder):
    save_mask(folder, mask_ids(3), "pet_99.png")


def same_name_twice(folder):
    picture(50).save(folder / "images" / "pet_1.jpg")


def empty_unlabeled(folder):
    shutil.rmtree(folder / "unlabeled")


def gap_in_classes(folder):
    (folder / "id2label.json").write_text('{"1": "cat", "2": "dog"}')


def unreadable_image(folder):
    (folder / "unlabeled" / "street_1.jpg").write_text("no picture")


def truncated_image(folder):
    cut(folder / "unlabeled" / "street_1.jpg", 500)


def truncated_mask(folder):
    cut(folder / "masks" / "pet_1.png", 60)


def other_size(folder):
    save_mask(folder, mask_ids(1)[:-2])


def unknown_id(folder):
    ids = mask_ids(1)
    ids[3, 3] = 9
    save_mask(folder, ids)


def binary_masks(folder):
    (folder / "id2label.json").write_text('{"0": "background", "1": "pet"}')
    every_mask(folder, lambda ids: np.where(ids == 0, 0, 255).astype(np.uint8))


def color_masks(folder):
    colors = np.zeros((256, 3), np.uint8)
    colors[[1, 2]] = [255, 0, 0], [0, 0, 128]
    every_mask(folder, lambda ids: colors[ids])


def ids_from_one(folder):
    every_mask(folder, lambda ids: np.where(ids == 255, 255, ids + 1).astype(np.uint8))


def deep_mask(folder):
    save_mask(folder, mask_ids(1).astype(np.uint16))


def deep_image(folder):
    values = np.linspace(0, 4000, 48 * 40).reshape(40, 48).astype(np.uint16)
    Image.fromarray(values).save(folder / "images" / "pet_1.png")


def grayscale_image(folder):
    picture(1).convert("L").save(folder / "images" / "pet_1.png")


def transparent_image(folder):
    picture(1).convert("RGBA").save(folder / "images" / "pet_1.png")


def print_image(folder):
    picture(201).convert("CMYK").save(folder / "unlabeled" / "street_1.jpg")


def turned_image(folder):
    exif = Image.Exif()
    exif[0x0112] = 3
    picture(201).save(folder / "unlabeled" / "street_1.jpg", exif=exif)


def absent_class(folder):
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate([*CLASSES, "bird"]))))


def ignored_mask(folder):
    save_mask(folder, np.full_like(mask_ids(1), 255))


def jpeg_mask(folder):
    (folder / "masks" / "pet_1.png").unlink()
    Image.fromarray(np.zeros_like(mask_ids(1))).save(folder / "masks" / "pet_1.jpg")


def leaked_test_image(folder):
    shutil.copy(folder / "test" / "images" / "pet_2.png", folder / "unlabeled" / "copied.png")


def nearly_leaked_test_image(folder):
    darker = ImageEnhance.Brightness(picture(102)).enhance(0.85).resize((36, 30))
    darker.save(folder / "unlabeled" / "resized.jpg", quality=60)


def single_class(folder):
    every_mask(folder, lambda ids: np.where(ids == 255, 255, 1).astype(np.uint8))


def one_class_named(folder):
    (folder / "id2label.json").write_text('{"0": "pet"}')
    every_mask(folder, lambda ids: np.where(ids == 0, 0, 255).astype(np.uint8))


def nothing_labeled(folder):
    for path in folder.glob("masks/*"):
        save_mask(folder, np.full_like(mask_ids(1), 255), path.name)


def nothing_to_score(folder):
    for path in folder.glob("test/masks/*"):
        save_mask(folder / "test", np.full_like(mask_ids(1), 255), path.name)


def soft_masks(folder):
    (folder / "id2label.json").write_text('{"0": "background", "1": "pet"}')
    for path in folder.glob("masks/*"):
        picture(1).convert("L").save(path)


def four_channels(folder):
    (folder / "unlabeled" / "street_1.jpg").unlink()
    np.save(folder / "unlabeled" / "street_1.npy", np.zeros((40, 48, 4), np.uint8))


DEFECTS = [
    (single_class, "error", "all masks", r"show a single class \(cat\)", ""),
    (one_class_named, "error", "all masks", r"one class alone \(pet\)", 'class_names: ["background", "pet"]'),
    (nothing_labeled, "error", "all masks", "are ignored in all of their pixels", ""),
    (nothing_to_score, "error", "all masks", "are ignored in all of their pixels", ""),
    (
        soft_masks,
        "error",
        "pet_0.png",
        r"values without a class, and 5 other masks such values: .*smoothed",
        "mask_threshold: 128",
    ),
    (four_channels, "error", "street_1.npy", r"has 4 channels, but .*pet_0.png has 3", ""),
    (missing_folder, "error", "pets", r"the folder .*masks does not exist", ""),
    (image_without_mask, "error", "pets", r"pet_1.png has no mask", ""),
    (mask_without_image, "warning", "pet_99.png", "is a mask without an image", ""),
    (same_name_twice, "error", "pets", "have the same name", ""),
    (empty_unlabeled, "error", "pets", "there is no unlabeled image", ""),
    (gap_in_classes, "error", "pets", "class ids are 0, 1, 2", ""),
    (unreadable_image, "error", "street_1.jpg", "cannot be read", ""),
    (truncated_image, "error", "street_1.jpg", "cannot be read", ""),
    (truncated_mask, "error", "pet_1.png", "cannot be read", ""),
    (other_size, "error", "pet_1.png", "is 48 x 38 pixels, but its image is 48 x 40", ""),
    (unknown_id, "error", "pet_1.png", r"holds the ids \[9\]", ""),
    (binary_masks, "error", "all masks", "hold only 0 and 255", 'mask_values: {"255": 1}'),
    (color_masks, "error", "pet_1.png", "painted in colours", "mask_colors: ["),
    (ids_from_one, "error", "all masks", "count classes from 1 to 3", "reduce_labels: true"),
    (deep_mask, "note", "pet_1.png", "has 16 bits", ""),
    (deep_image, "error", "pet_1.png", "set `image_range", "image_range: ["),
    (grayscale_image, "note", "pet_1.png", "is grayscale", ""),
    (transparent_image, "note", "pet_1.png", "has transparency", ""),
    (print_image, "warning", "street_1.jpg", "is CMYK", ""),
    (turned_image, "warning", "street_1.jpg", "is turned by its EXIF tag", ""),
    (absent_class, "warning", "all masks", "no pixel is labeled bird", ""),
    (ignored_mask, "warning", "pet_1.png", "is ignored in 100% of its pixels", ""),
    (jpeg_mask, "warning", "pet_1.jpg", "is a JPEG", ""),
    (leaked_test_image, "warning", "pet_2.png", r"looks like .*copied.png", ""),
    (nearly_leaked_test_image, "warning", "pet_2.png", r"looks like .*resized.jpg", ""),
]


def flat_image(folder):
    for name, value in (("pet_1", 700), ("pet_2", 9000)):
        Image.fromarray(np.full((40, 48), value, np.uint16)).save(folder / "images" / f"{name}.png")


def many_colors(folder):
    """Each mask shows one colour more than the last."""
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 128]], np.uint8)
    paths = sorted((*folder.glob("masks/*"), *folder.glob("test/masks/*")))
    for index, path in enumerate(paths):
        ids = np.asarray(Image.open(path)) % 3
        Image.fromarray(colors[np.minimum(ids, index)]).save(path)


@pytest.mark.parametrize(
    ("plant", "severity", "where", "problem", "remedy"),
    DEFECTS,
    ids=[defect[0].__name__ for defect in DEFECTS],
)
def test_a_planted_defect_is_found(folder, plant, severity, where, problem, remedy):
    plant(folder)
    matching = [
        finding
        for finding in check(folder).findings
        if finding.where.endswith(where) and re.search(problem, finding.problem)
    ]
    assert matching, check(folder).findings
    assert matching[0].severity == severity
    assert matching[0].remedy.startswith(remedy) and bool(matching[0].remedy) == bool(remedy)


@pytest.mark.parametrize(
    ("plant", "severity"), [defect[:2] for defect in DEFECTS], ids=[defect[0].__name__ for defect in DEFECTS]
)
def test_a_training_starts_unless_there_is_an_error(folder, plant, severity):
    plant(folder)
    args = DataArguments(dataset=str(folder), selection_share=0)
    if severity != "error" or plant in (unreadable_image, truncated_image):  # met when they are drawn
        load_data(args)
        return
    with pytest.raises(InputError) as raised:
        load_data(args)
    errors = [finding.sentence() for finding in check(folder).findings if finding.severity == "error"]
    assert str(raised.value).partition(" (")[0] in {error.partition(" (")[0] for error in errors}
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "plant",
    [
        binary_masks,
        color_masks,
        ids_from_one,
        deep_image,
        one_class_named,
        flat_image,
        many_colors,
        soft_masks,
    ],
)
def test_the_suggested_line_mends_the_defect(folder, plant):
    plant(folder)
    remedies = {finding.remedy for finding in check(folder).findings if finding.remedy}
    options = {}
    for remedy in remedies:
        options |= yaml.safe_load(remedy)
    assert not check(folder, **options).has_errors


def test_every_broken_and_painted_mask_is_listed(folder):
    color_masks(folder)
    cut(folder / "masks" / "pet_0.png", 60)
    cut(folder / "test" / "masks" / "pet_2.png", 60)
    report = check(folder, balanced_split=True, num_labeled=5)
    errors = [finding.where for finding in report.findings if finding.severity == "error"]
    masks = [*folder.glob("masks/*"), *folder.glob("test/masks/*")]
    kept = set(report.data.labeled.with_format(None)["id"])
    assert sorted(errors) == sorted(
        str(path) for path in masks if path.stem in kept or path.parent.parent.name == "test"
    )
    remedies = {finding.remedy for finding in report.findings if "painted" in finding.problem}
    assert len(remedies) == 1 and remedies.pop().count("#") == 4  # three colours and the comment


def test_statistics_of_many_channels_are_suggested(folder):
    rng = np.random.default_rng(0)
    bands = {}
    for path in (*folder.glob("images/*"), *folder.glob("test/images/*"), *folder.glob("unlabeled/*")):
        path.unlink()
        bands[path] = (rng.random((40, 48, 5)) * [255, 200, 100, 50, 10]).astype(np.uint8)
        np.save(path.with_suffix(".npy"), bands[path])
    report = check(folder)
    assert not report.has_errors
    (remedy,) = (finding.remedy for finding in report.findings if finding.role == "unlabeled")
    options = yaml.safe_load(remedy)
    seen = np.concatenate(
        [values.reshape(-1, 5) / 255 for path, values in bands.items() if "unlabeled" in str(path)]
    )
    np.testing.assert_allclose(options["image_mean"], seen.mean(0), atol=0.02)
    np.testing.assert_allclose(options["image_std"], seen.std(0), atol=0.02)


def test_nothing_is_found_in_a_clean_folder(folder):
    report = check(folder)
    assert report.findings == []
    assert report.num_rows == {"unlabeled": 4, "labeled": 6, "test": 3}
    expected = sum(np.bincount(mask_ids(seed).ravel(), minlength=256)[:3] for seed in range(6))
    np.testing.assert_array_equal(report.label_counts["labeled"], expected)


def test_masks_in_arrays_are_read(folder):
    for path in (*folder.glob("masks/*"), *folder.glob("test/masks/*")):
        np.save(path.with_suffix(".npy"), np.asarray(Image.open(path)))
        path.unlink()
    assert check(folder).findings == []


def test_processes_find_what_one_finds_in_the_same_order(folder, monkeypatch):
    for plant in (color_masks, truncated_image, turned_image, print_image, absent_class, leaked_test_image):
        plant(folder)
    np.save(folder / "unlabeled" / "five.npy", np.ones((40, 48, 5), np.uint8))
    whole = check(folder)
    monkeypatch.setattr(validation, "PART", 1)
    args = DataArguments(dataset=str(folder), selection_share=0)
    for num_workers in (0, 2):
        shared = check_data(args, num_workers=num_workers)
        # errors compare by identity; their sentence is in the rest
        assert [f[:5] for f in shared.findings] == [f[:5] for f in whole.findings]
        assert [f.sentence() for f in shared.findings] == [f.sentence() for f in whole.findings]
        assert (shared.long_sides, shared.num_rows) == (whole.long_sides, whole.num_rows)
        for role, counts in whole.label_counts.items():
            np.testing.assert_array_equal(shared.label_counts[role], counts)


def test_class_colours_do_not_depend_on_who_counts_which_images(folder, monkeypatch):
    def colours(num_workers):
        survey = RoleSurvey("labeled", dict(enumerate(CLASSES)), True, False)
        survey.read(load_data(DataArguments(dataset=str(folder), selection_share=0)).labeled, num_workers)
        return survey.colors

    whole = colours(0)
    monkeypatch.setattr(validation, "PART", 1)  # an odd one: the next part begins with the other half
    for counts in (colours(0), colours(2)):
        assert counts.num_images == whole.num_images == 6
        np.testing.assert_array_equal(counts.colors, whole.colors)
        np.testing.assert_array_equal(counts.greys, whole.greys)


def test_camvid_passes(camvid):
    report = check(
        camvid,
        images="train/images",
        masks="train/masks",
        labeled_ids="splits/1_16/labeled.txt",
        unlabeled_ids="splits/1_16/unlabeled.txt",
        test_images="val/images",
        test_masks="val/masks",
        num_unlabeled=60,
    )
    (rare,) = report.findings
    assert re.findall(r"(\w+) covers", rare.problem) == CAMVIDS_RARE_CLASSES


def test_the_generated_dataset_passes():
    assert check("shapes", num_labeled=12, num_unlabeled=30, num_test=20).findings == []


def test_a_rare_class_is_named_with_the_option_that_keeps_it(folder):
    def one_in_a_hundred(mask):
        rare = np.zeros_like(mask)
        rare.flat[::100] = 1
        return rare

    def rare(*options):
        report = check_data(DataArguments(dataset=str(folder), selection_share=0), *options)
        return [finding for finding in report.findings if "unlearn" in finding.problem]

    assert not rare()
    every_mask(folder, one_in_a_hundred)
    (found,) = rare()
    assert re.match(r"\w+ covers 1\.\d% of the labeled pixels", found.problem)
    assert yaml.safe_load(found.remedy) == {"method_options": {"logit_adjustment": True}}
    assert not rare(False) and not rare(True, True)
