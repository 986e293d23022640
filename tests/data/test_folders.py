"""The folder source: what is found where, and one clear sentence for what is missing."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from pos_hf.data import DataArguments, PairedDataset, load_data
from pos_hf.errors import InputError
from tests.data.conftest import mask_ids, picture, write_pair


def load(folder, **options):
    return load_data(DataArguments(dataset=str(folder), **{"selection_share": 0, **options}))


def test_the_plain_layout_needs_no_options(folder):
    data = load(folder)
    assert data.labeled["id"] == [f"pet_{index}" for index in range(6)]
    assert data.unlabeled["id"] == [f"unlabeled/street_{index}" for index in range(4)]
    assert data.test["id"] == ["pet_0", "pet_1", "pet_2"] and data.selection is None
    assert data.id2label == {0: "background", 1: "cat", 2: "dog"} and data.name == "pets"
    assert data.palette == [[0, 0, 0], [213, 94, 0], [86, 180, 233]]
    row = data.labeled[3]
    assert list(row["image"].getdata()) == list(picture(3).getdata())
    assert (mask_ids(3) == row["mask"]).all()


def test_listed_labels_leave_the_other_images_unlabeled(folder):
    (folder / "labeled.txt").write_text("pet_4\npet_1\n")
    data = load(folder, labeled_ids="labeled.txt")
    assert data.labeled["id"] == ["pet_4", "pet_1"]
    assert data.unlabeled["id"][:4] == ["pet_0", "pet_2", "pet_3", "pet_5"] and len(data.unlabeled) == 8


def test_published_pair_lists_name_the_same_rows(folder):
    (folder / "ids.txt").write_text("pet_4\npet_1\n")
    (folder / "pairs.txt").write_text("images/pet_4.png masks/pet_4.png\nimages/pet_1.png masks/pet_1.png\n")
    (folder / "rest.txt").write_text("images/pet_0.png None\n")
    by_id = load(folder, labeled_ids="ids.txt", unlabeled_ids="rest.txt")
    by_pair = load(folder, labeled_ids="pairs.txt", unlabeled_ids="rest.txt")
    assert by_id.split_hash() == by_pair.split_hash()
    assert by_pair.unlabeled["id"] == ["pet_0"]


def test_test_images_are_never_trained_on(folder):
    (folder / "labeled.txt").write_text("pet_0\n")
    (folder / "test.txt").write_text("pet_1\npet_2\n")
    data = load(
        folder, labeled_ids="labeled.txt", test_images="images", test_masks="masks", test_ids="test.txt"
    )
    assert data.test["id"] == ["pet_1", "pet_2"]
    assert data.unlabeled["id"][:3] == ["pet_3", "pet_4", "pet_5"]


def test_scored_images_are_not_labeled_where_no_list_says_which_are(folder):
    (folder / "test.txt").write_text("pet_1\npet_2\n")
    (folder / "masks" / "pet_5.png").unlink()
    shutil.move(folder / "images" / "pet_5.png", folder / "unlabeled")
    options = {"test_images": "images", "test_masks": "masks", "test_ids": "test.txt"}
    data = load(folder, **options)
    assert data.labeled["id"] == ["pet_0", "pet_3", "pet_4"] and data.test["id"] == ["pet_1", "pet_2"]
    assert data.unlabeled["id"] == ["unlabeled/pet_5", *(f"unlabeled/street_{index}" for index in range(4))]
    (folder / "labeled.txt").write_text("pet_0\npet_2\n")
    with pytest.raises(
        InputError, match=r"labeled.txt lists .*pet_2.png, which is a test or selection image"
    ):
        load(folder, labeled_ids="labeled.txt", **options)


def test_masks_are_no_unlabeled_images(folder):
    data = load(folder, unlabeled="*/*")
    names = [os.path.basename(row["image"]["path"]) for row in data.unlabeled.with_format(None)]
    assert sorted(names) == [f"street_{index}.jpg" for index in range(4)]


def test_name_endings_and_subfolders_are_paired(tmp_path):
    for town in ("ulm", "jena"):
        (tmp_path / "images" / town).mkdir(parents=True)
        (tmp_path / "masks" / town).mkdir(parents=True)
        picture(0).save(tmp_path / "images" / town / "1_photo.png")
        Image.fromarray(mask_ids(0)).save(tmp_path / "masks" / town / "1_ids.png")
        Image.fromarray(mask_ids(0)).save(tmp_path / "masks" / town / "1_color.png")
    data = load(
        tmp_path, image_suffix="_photo", mask_suffix="_ids", class_names=["a", "b", "c"], num_labeled=1
    )
    assert sorted([*data.labeled["id"], *data.unlabeled["id"]]) == ["jena/1", "ulm/1"]


def test_camvids_layout_takes_a_few_lines(camvid):
    data = load(
        camvid,
        images="train/images",
        masks="train/masks",
        labeled_ids="splits/1_8/labeled.txt",
        unlabeled_ids="splits/1_8/unlabeled.txt",
        test_images="val/images",
        test_masks="val/masks",
    )
    assert (len(data.labeled), len(data.unlabeled), len(data.test), data.num_classes) == (46, 321, 101, 11)


def break_nothing(folder):
    pass


def remove_mask(folder):
    (folder / "masks" / "pet_2.png").unlink()


def shrink_mask(folder):
    Image.fromarray(mask_ids(1)[:-1]).save(folder / "masks" / "pet_1.png")


def add_unknown_id(folder):
    ids = mask_ids(1)
    ids[5, 5:7] = [3, 77]
    Image.fromarray(ids).save(folder / "masks" / "pet_1.png")


def remove_unlabeled(folder):
    shutil.rmtree(folder / "unlabeled")


def truncate_image(folder):
    path = folder / "images" / "pet_0.png"
    path.write_bytes(path.read_bytes()[:400])


def name_twice(folder):
    picture(9).save(folder / "images" / "pet_0.jpg")


def leave_gap(folder):
    (folder / "id2label.json").write_text('{"0": "a", "2": "b"}')


def break_json(folder):
    (folder / "id2label.json").write_text("[")


def remove_names(folder):
    (folder / "id2label.json").unlink()


@pytest.mark.parametrize(
    ("defect", "options", "sentence"),
    [
        (break_nothing, {"dataset": "nowhere"}, r"the dataset folder nowhere does not exist"),
        (break_nothing, {"images": "photos"}, r"the folder .*photos does not exist"),
        (
            break_nothing,
            {"dataset_format": "tar"},
            r"dataset_format 'tar' is unknown: use one of auto, folders, ",
        ),
        (remove_mask, {}, r"the image .*pet_2.png has no mask"),
        (shrink_mask, {}, r"the mask .*pet_1.png is 48 x 39 pixels, but its image is 48 x 40"),
        (add_unknown_id, {}, r"the mask .*pet_1.png holds the ids \[3, 77\], but the 3 classes"),
        (remove_unlabeled, {}, r"there is no unlabeled image in .*pets"),
        (truncate_image, {}, r"images.pet_0.png cannot be read"),
        (name_twice, {}, r"pet_0\.\w+ and .*pet_0\.\w+ have the same name"),
        (leave_gap, {}, r"has the ids \[0, 2\], but class ids are 0, 1, 2"),
        (break_json, {}, r"id2label.json does not hold a JSON object"),
        (remove_names, {"dataset_format": "folders"}, r"the class names .*id2label.json do not exist"),
        (break_nothing, {"labeled_ids": "list.txt"}, r"the list .*list.txt does not exist"),
        (break_nothing, {"num_labeled": 7}, r"7 labeled images are asked for, but there are 6"),
        (break_nothing, {"num_unlabeled": 5}, r"5 unlabeled images are asked for, but there are 4"),
    ],
)
def test_bad_input_is_one_sentence(folder, defect, options, sentence):
    defect(folder)
    with pytest.raises(InputError, match=sentence) as error:
        load(options.pop("dataset", folder), **options)
    assert "\n" not in str(error.value)


def test_a_list_naming_a_missing_image_is_refused(folder):
    (folder / "labeled.txt").write_text("pet_1\npet_17\n")
    with pytest.raises(InputError, match=r'labeled\.txt lists "pet_17"'):
        load(folder, labeled_ids="labeled.txt")


def test_a_given_selection_set_is_used(folder):
    write_pair(folder / "selection", "chosen", seed=50)
    data = load(folder, selection_share=0.5)
    assert data.selection["id"] == ["chosen"] and len(data.labeled) == 6


def test_hidden_files_are_no_images(folder):
    for name in ("._pet_1.png", ".ipynb_checkpoints/pet_1.png", "__MACOSX/._pet_1.png"):
        for part in ("images", "masks", "test/images"):
            (folder / part / name).parent.mkdir(exist_ok=True)
            (folder / part / name).write_text("no picture")
    data = load(folder)
    assert len(data.labeled) == 6 and len(data.test) == 3


def test_a_byte_order_mark_is_no_text(folder):
    (folder / "list.txt").write_text("pet_4\r\npet_1\r\n", encoding="utf-8-sig")
    (folder / "id2label.json").write_text('{"0": "a", "1": "b", "2": "c"}', encoding="utf-8-sig")
    data = load(folder, labeled_ids="list.txt")
    assert data.labeled["id"] == ["pet_4", "pet_1"] and data.id2label[0] == "a"


def test_the_home_folder_can_be_named(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    (folder / "list.txt").write_text("pet_4\npet_1\n")
    args = DataArguments(dataset="~/pets", labeled_ids="~/pets/list.txt", selection_share=0)
    assert args.dataset == str(folder) and len(load_data(args).labeled) == 2


def test_masks_may_be_gifs(folder):
    for path in [*folder.glob("masks/*"), *folder.glob("test/masks/*")]:
        mask = Image.open(path)
        mask.putpalette(np.random.default_rng(0).bytes(768))
        mask.save(path.with_suffix(".gif"), optimize=False)
        path.unlink()
    assert (np.asarray(load(folder).labeled[3]["mask"]) == mask_ids(3)).all()


def test_a_suffix_belongs_to_the_folders_whose_names_end_so(folder):
    for part, end in (("images", "_photo"), ("masks", "_ids")):
        for path in list((folder / part).iterdir()):
            path.rename(path.with_stem(path.stem + end))
    data = load(folder, image_suffix="_photo", mask_suffix="_ids")
    assert data.labeled["id"] == [f"pet_{index}" for index in range(6)]
    assert data.test["id"] == ["pet_0", "pet_1", "pet_2"] and len(data.unlabeled) == 4


def test_lists_name_images_in_any_way(folder):
    (folder / "images" / "old town").mkdir()
    (folder / "masks" / "old town").mkdir()
    for part in ("images", "masks"):
        (folder / part / "pet_2.png").rename(folder / part / "old town" / "pet 2.png")
    lines = [
        "pet_0",
        "pet_1.png",
        "images/old town/pet 2.png masks/old town/pet 2.png",
        "images/pet_3.png",
        str(folder / "images" / "pet_4.png"),
    ]
    (folder / "list.txt").write_text("\n".join(lines))
    (folder / "rest.txt").write_text(
        "images/pet_5.png\nunlabeled/street_0.jpg\nunlabeled/street_1.jpg None\n"
    )
    data = load(folder, labeled_ids="list.txt", unlabeled_ids="rest.txt")
    assert data.labeled["id"] == ["pet_0", "pet_1", "old town/pet 2", "pet_3", "pet_4"]
    assert data.unlabeled["id"] == ["pet_5", "unlabeled/street_0", "unlabeled/street_1"]
    assert data.labeled.with_format(None)[2]["mask"]["path"].endswith("masks/old town/pet 2.png")


@pytest.mark.parametrize("head", ["", "id\n"])
def test_the_first_id_of_a_csv_list_is_no_head(folder, head):
    (folder / "list.csv").write_text(f"{head}pet_4\npet_1\n")
    assert load(folder, labeled_ids="list.csv").labeled["id"] == ["pet_4", "pet_1"]


def test_a_list_may_not_name_an_image_twice(folder):
    (folder / "list.txt").write_text("pet_4\npet_1\nimages/pet_4.png\n")
    with pytest.raises(InputError, match=r"2 labeled images of pets have the id 'pet_4'"):
        load(folder, labeled_ids="list.txt")


@pytest.mark.parametrize("part", ["test/images", "selection/images"])
def test_an_empty_role_is_an_error(folder, part):
    for path in [*folder.glob(f"{part}/*")]:
        path.unlink()
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / part).with_name("masks").mkdir(exist_ok=True)
    with pytest.raises(InputError, match=rf"there is no {part[:-7]} image in .*or remove the folder"):
        load(folder)


def test_links_that_fan_out_are_refused(folder):
    for level in range(30):
        (folder / "unlabeled" / f"{level}").mkdir()
    for level in range(29):
        for name in ("left", "right"):
            (folder / "unlabeled" / f"{level}" / name).symlink_to(folder / "unlabeled" / f"{level + 1}")
    with pytest.raises(InputError, match=r"the link .* leads back to .*, which is listed already"):
        load(folder)


def test_a_name_that_is_not_utf8_is_refused(folder):
    shutil.copy(folder / "unlabeled" / "street_0.jpg", os.fsencode(folder / "unlabeled") + b"/caf\xe9.jpg")
    with pytest.raises(InputError, match=r"the name of .*caf\\xe9\.jpg is not UTF-8") as raised:
        load(folder)
    str(raised.value).encode()


def test_a_list_that_is_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "list.txt")
    with pytest.raises(InputError, match=r"list\.txt cannot be read \(it is a pipe or a device\)"):
        load(folder, labeled_ids="list.txt")


def test_a_supervised_method_needs_no_unlabeled_images(folder):
    shutil.rmtree(folder / "unlabeled")
    args = DataArguments(dataset=str(folder), selection_share=0, crop_size=16)
    data = load_data(args, needs_unlabeled=False)
    pairs = PairedDataset.from_arguments(data, args, seed=0).for_method(0, second_draw=False)
    assert len(data.unlabeled) == 0 and len(pairs) == 6
    item = pairs[next(iter(pairs.sampler(0)))]
    assert item["unlabeled"]["pixel_values"].shape == item["labeled"]["pixel_values"].shape == (3, 16, 16)


@pytest.mark.parametrize(("names", "background"), [(["sky", "bird"], 0), (["bird", "x", "background"], 2)])
def test_images_without_a_mask_are_background_where_the_option_says_so(tmp_path, names, background):
    for name in ("images/a.png", "images/b.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB" if "images" in name else "L", (8, 6), 0).save(tmp_path / name)
    foreground = 1 if background == 0 else 0
    Image.new("L", (8, 6), foreground).save(tmp_path / "masks" / "a.png")
    options = {"unannotated_images": "background", "class_names": names, "selection_share": 0}
    data = load_data(DataArguments(dataset=str(tmp_path), **options), needs_unlabeled=False)
    found = {row["id"]: set(np.asarray(row["mask"]).ravel()) for row in data.labeled}
    assert found == {"a": {foreground}, "b": {background}}
