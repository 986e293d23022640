"""What `pos-hf check-data` prints and returns."""

import json

import numpy as np
import pytest
from PIL import Image

from pos_hf.cli.check_data import main
from pos_hf.data import DataArguments, load_data
from pos_hf.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for part in ("images", "masks", "unlabeled"):
        (tmp_path / part).mkdir()
    rng = np.random.default_rng(0)
    for index in range(7):
        picture = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((30, 30))
        picture.save(tmp_path / "images" / f"{index}.png")
        Image.fromarray((np.indices((30, 30)).sum(0) > 30).astype(np.uint8)).save(
            tmp_path / "masks" / f"{index}.png"
        )
        picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "unlabeled" / f"{index}.png")
    (tmp_path / "id2label.json").write_text(json.dumps({0: "left", 1: "right"}))
    return tmp_path


def test_a_clean_folder_passes(folder, capsys):
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "7 unlabeled, 7 labeled; split" in printed and "0 errors, 0 warnings, 0 notes" in printed
    assert "1 right" in printed and "45.11%" in printed


def test_defects_are_grouped_and_the_mending_line_is_printed(folder, capsys):
    for path in folder.glob("masks/*"):
        Image.fromarray(np.asarray(Image.open(path)) + np.uint8(1)).save(path)
    assert main([str(folder)]) == 2
    assert "add to the config:\n    reduce_labels: true" in capsys.readouterr().out
    for path in folder.glob("masks/*"):
        Image.fromarray(np.asarray(Image.open(path)) + np.uint8(40)).save(path)
    assert main([str(folder)]) == 2
    assert "    and 2 more" in capsys.readouterr().out


def test_the_split_is_written(folder, capsys):
    assert main([str(folder), "--write_split", str(folder / "split")]) == 0
    split_hash = load_data(DataArguments(dataset=str(folder))).split_hash()
    assert f"the split {split_hash} is written" in capsys.readouterr().out
    assert len((folder / "split" / "unlabeled.txt").read_text().splitlines()) == 7


def test_a_page_and_a_config_are_written_that_mend_the_data(folder, tmp_path, capsys):
    for path in folder.glob("masks/*"):
        Image.fromarray(np.asarray(Image.open(path)) * np.uint8(255)).save(path)
    page, config = tmp_path / "out" / "check.html", tmp_path / "out" / "config.yaml"
    assert main([str(folder), "--html", str(page), "--write_config", str(config)]) == 2
    text = page.read_text()
    assert "data:image/jpeg;base64," in text and "mask_values" in text and "right" in text
    assert main([str(config)]) == 0 and "0 errors" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"check.html' exists and is kept"):
        main([str(folder), "--html", str(page)])
