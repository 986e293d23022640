"""Images from the cache are those that decoding gives, and whatever happens to its files changes nothing."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pos_hf.data import DataArguments, PairedDataset, decoding, image_cache, images, load_data
from pos_hf.data.loading import load_roles
from pos_hf.errors import InputError
from tests.data.conftest import mask_ids, picture


@pytest.fixture
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "new"


def arguments(folder, cache, **options):
    path = None if cache is None else str(cache)
    return DataArguments(dataset=str(folder), crop_size=32, selection_share=0, image_cache=path, **options)


def items(folder, cache, epoch=0, **options):
    args = arguments(folder, cache, **options)
    pairs = PairedDataset.from_arguments(load_roles(args), args, seed=0)
    return [pairs[epoch, index, index] for index in range(4)]


def assert_equal_items(first, second):
    for one, other in zip(first, second, strict=True):
        for group, views in one.items():
            for name, view in views.items():
                assert torch.equal(view, other[group][name]), (group, name)


def no_decoding(*arguments):
    raise AssertionError("a kept picture is decoded")


def test_a_second_epoch_shows_the_same_views_without_decoding(folder, cache, monkeypatch):
    expected = [items(folder, None, epoch) for epoch in (0, 1)]
    assert_equal_items(items(folder, cache), expected[0])
    monkeypatch.setattr(decoding, "read_image", no_decoding)
    monkeypatch.setattr(decoding, "mask_values", no_decoding)
    assert_equal_items(items(folder, cache, epoch=1), expected[1])
    assert len(list(cache.iterdir())) == 12  # four pairs of an image and its mask, four unlabeled images


def test_arrays_of_five_channels_are_kept(folder, cache, monkeypatch):
    for path in (*folder.glob("images/*"), *folder.glob("test/images/*"), *folder.glob("unlabeled/*")):
        path.unlink()
        bands = np.random.default_rng(0).random((40, 48, 5)) * 4000
        np.save(path.with_suffix(".npy"), bands.astype(np.uint16))
    options = {"image_range": [0, 4000]}
    expected = items(folder, None, **options)
    items(folder, cache, **options)
    monkeypatch.setattr(decoding, "read_image", no_decoding)
    assert_equal_items(items(folder, cache, **options), expected)


def test_photos_that_would_be_decoded_at_a_fraction_are_kept_whole(folder, cache, monkeypatch):
    expected = items(folder, None)
    monkeypatch.setattr(images, "LARGE", 0)
    monkeypatch.setattr(images, "LARGE_FILE", 0)
    assert_equal_items(items(folder, cache), expected)
    for name in ("read_image", "read_draft"):
        monkeypatch.setattr(decoding, name, no_decoding)
    assert_equal_items(items(folder, cache), expected)


def test_images_inside_of_an_archive_are_kept(folder, cache, monkeypatch):
    archive = shutil.make_archive(str(folder), "zip", folder)
    expected = items(archive, None)
    items(archive, cache)
    monkeypatch.setattr(decoding, "read_image", no_decoding)
    assert_equal_items(items(archive, cache), expected)


def test_a_changed_file_and_other_options_are_other_pictures(folder, cache):
    items(folder, cache)
    picture(99).save(folder / "images" / "pet_0.png")
    os.utime(folder / "images" / "pet_0.png", ns=(1, 1))
    assert_equal_items(items(folder, cache), items(folder, None))
    options = {"mask_values": {"2": 0}}
    assert_equal_items(items(folder, cache, **options), items(folder, None, **options))


def test_damaged_files_of_the_cache_are_decoded_anew(folder, cache):
    expected = items(folder, cache)
    files = sorted(cache.iterdir())
    for file, content in zip(files, (b"", b"no array", files[2].read_bytes()[:300]), strict=False):
        file.write_bytes(content)
    assert_equal_items(items(folder, cache), expected)
    assert all(np.load(file).dtype == np.uint8 for file in files)


def test_a_cache_that_cannot_be_written_is_done_without(folder, cache, caplog):
    cache.write_text("a file where the folder should be")
    assert_equal_items(items(folder, cache), items(folder, None))
    assert "cannot be written" in caplog.text


def test_a_missing_image_is_named(folder, cache):
    args = arguments(folder, cache)
    data = load_roles(args)
    (folder / "images" / "pet_0.png").unlink()
    with pytest.raises(InputError, match=r"pet_0.png cannot be read"):
        data.labeled[0]


def test_the_size_is_said_before_training_and_compared_with_the_disk(folder, cache, monkeypatch):
    for index in range(6):  # of one size, so that the estimate is exact
        Image.new("RGB", (48, 40)).save(folder / "images" / f"pet_{index}.png")
        Image.fromarray(mask_ids(index)).save(folder / "masks" / f"pet_{index}.png")
    said = load_data(arguments(folder, cache)).assumptions
    assert any(f"kept in {cache}, about" in sentence for sentence in said)
    data = load_data(arguments(folder, None))
    rows = [*data.masked_roles.values()]
    exact = sum(np.asarray(row[kind]).size for role in rows for row in role for kind in ("image", "mask"))
    exact += sum(np.asarray(row["image"]).size for row in data.unlabeled)
    usage = type("Usage", (), {"free": exact - 1})
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"will hold about .* GB are free"):
        load_data(arguments(folder, cache))
    usage.free = exact
    load_data(arguments(folder, cache))


@pytest.mark.parametrize("name", ["x" * 5000, "\0", "taken"])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    with pytest.raises(
        InputError, match=r"^image_cache '.{1,40}' cannot be made \(.*\): name another folder$"
    ):
        load_data(DataArguments(num_labeled=1, num_unlabeled=1, num_test=1, image_cache=name))
