"""Images and masks in zip and tar archives are read in place."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from pos_hf.data import DataArguments
from pos_hf.data.archives import list_members, read_member
from pos_hf.data.loading import load_data, load_roles
from pos_hf.errors import InputError
from tests.rasters import write_geotiff


def picture(values, format="PNG"):
    content = io.BytesIO()
    Image.fromarray(values).save(content, format)
    return content.getvalue()


def pair(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (12, 14, 3), dtype=np.uint8), rng.integers(0, 2, (12, 14), dtype=np.uint8)


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_zip(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


WRITERS = {
    "tar": write_tar,
    "zip": write_zip,
    "stored.zip": lambda path, files: write_zip(path, files, zipfile.ZIP_STORED),
}


def load(folder, **options):
    return load_data(DataArguments(dataset=str(folder), selection_share=0, **options), needs_unlabeled=False)


def pixels(rows):
    return {row["id"]: (np.asarray(row["image"]), np.asarray(row["mask"])) for row in rows}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("end", ["png", "mask.png", "seg.png"])
def test_shards_of_webdataset_are_splits_of_pairs(tmp_path, kind, end):
    for shard, seeds in {"train-000000": (0, 1), "train-000001": (2,), "val-000000": (3,)}.items():
        files = {}
        for seed in seeds:
            image, mask = pair(seed)
            files |= {
                f"s{seed}.bmp": picture(image, "BMP"),
                f"s{seed}.json": b"{}",
                f"s{seed}.{end}": picture(mask),
            }
        WRITERS[kind](tmp_path / f"{shard}.{kind}", files)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    data = load(tmp_path)
    assert len(data.labeled) == 3 and len(data.selection) == 1
    found = list(pixels(data.labeled).values()) + list(pixels(data.selection).values())
    for (image, mask), seed in zip(found, range(4), strict=True):
        np.testing.assert_array_equal(image, pair(seed)[0])
        np.testing.assert_array_equal(mask, pair(seed)[1])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("end", WRITERS)
def test_an_archive_of_the_documented_folder_is_a_dataset(tmp_path, end):
    files = {"data/id2label.json": json.dumps({"0": "road", "1": "crack"}).encode()}
    for seed in range(3):
        image, mask = pair(seed)
        if seed < 2:
            files |= {f"data/images/{seed}.png": picture(image), f"data/masks/{seed}.png": picture(mask)}
        else:
            files["data/unlabeled/2.png"] = picture(image)
    files["__MACOSX/data/images/._0.png"] = b"of a Mac"
    WRITERS[end](tmp_path / f"all.{end}", files)
    data = load(tmp_path / f"all.{end}")
    assert data.name == f"all.{end}" and list(data.id2label.values()) == ["road", "crack"]
    assert len(data.labeled) == 2 and len(data.unlabeled) == 1
    np.testing.assert_array_equal(pixels(data.labeled)["1"][0], pair(1)[0])
    around = load(tmp_path)
    assert (len(around.labeled), len(around.unlabeled)) == (2, 1)
    places = {kind: f"all.{end}!/data/{kind}" for kind in ("images", "masks")}
    assert len(load(tmp_path, class_names=["a", "b"], **places).labeled) == 2


def test_an_archive_beside_its_unpacked_folder_is_passed_over(tmp_path):
    image, mask = pair(0)
    files = {"images/0.png": picture(image), "masks/0.png": picture(mask)}
    write_zip(tmp_path / "data.zip", files | {"images/1.png": picture(image), "masks/1.png": picture(mask)})
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert len(load(tmp_path).labeled) == 1


def test_arrays_and_rasters_are_read_from_archives(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (12, 14, 5), dtype=np.uint8)
    array = io.BytesIO()
    np.save(array, values)
    write_geotiff(tmp_path / "a.tif", values)
    mask = picture(np.eye(12, 14, dtype=np.uint8))
    images = {"images/a.tif": (tmp_path / "a.tif").read_bytes(), "images/b.npy": array.getvalue()}
    write_tar(tmp_path / "all.tar", images | {"masks/a.png": mask, "masks/b.png": mask})
    data = load(tmp_path / "all.tar")
    assert data.num_channels == 5
    for row in data.labeled:
        np.testing.assert_array_equal(row["image"], values)


def test_damaged_archives_are_one_sentence(tmp_path):
    image, mask = pair(0)
    files = {"a.jpg": picture(image, "JPEG"), "a.png": picture(mask)}
    write_zip(tmp_path / "a.zip", files)
    content = (tmp_path / "a.zip").read_bytes()
    with pytest.raises(InputError, match=r"a\.zip!/b\.png is not in the archive"):
        read_member(f"{tmp_path}/a.zip!/b.png")
    (tmp_path / "a.zip").write_bytes(content[:-30])
    with pytest.raises(InputError, match=r"a\.zip cannot be read as an archive: replace it"):
        load_roles(DataArguments(dataset=str(tmp_path)))
    (tmp_path / "a.zip").write_bytes(content.replace(picture(mask)[:50], b"\0" * 50))
    with tarfile.open(tmp_path / "b.tar", "w:gz") as archive:
        archive.add(tmp_path / "a.zip")
    with pytest.raises(InputError, match=r"b\.tar cannot be read as an archive: .*\.tar\.gz must be"):
        list_members(str(tmp_path / "b.tar"))
    write_tar(tmp_path / "c.tar", files)
    (tmp_path / "c.tar").write_bytes((tmp_path / "c.tar").read_bytes()[:600])
    with pytest.raises(InputError, match=r"c\.tar"):
        read_member(f"{tmp_path}/c.tar!/a.jpg")
